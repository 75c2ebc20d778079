//! The crate's public API, as `docs/public-api.txt` lists it. A change to the API has to show in a
//! diff of that file.
//!
//! - The listing is generated from the source as formatted by `cargo fmt`. Items are recognized by
//!   their first words and their indentation.
//! - An item is public if `lib.rs` or a public module re-exports it by name. For each such type the
//!   listing has its fields or variants, its public methods, and the traits implemented for it.
//! - Impls that a macro generates are not seen.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LISTING: &str = "docs/public-api.txt";

const HEADER: &str = "\
# The public surface of the crate. A test compares it with the source; to write it anew:
# BITCASK_WRITE_PUBLIC_API=1 cargo test --test it public_api
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Source files, without files that contain only tests.
fn sources() -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![root().join("src")]);
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "tests" && name != "testing" {
                dirs.push(path);
            } else if path.extension().is_some_and(|found| found == "rs")
                && !name.ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A piece of source: an item with its attributes, or a member of an item. Comments are left out.
#[derive(Debug, Default)]
struct Piece {
    attributes: Vec<String>,
    /// The head in one line, without the body.
    head: String,
    /// The lines between the braces.
    body: Vec<String>,
}

impl Piece {
    fn is_for_tests(&self) -> bool {
        let words = ["test", "bitcask_fuzzing", "doctest", "loom", "shuttle"];
        let is_word = |text: &str| words.contains(&text);
        let split = |text: &str| {
            text.split(|char: char| !char.is_alphanumeric() && char != '_').any(is_word)
        };
        self.attributes.iter().any(|text| text.starts_with("#[cfg") && split(text))
    }

    /// Returns the attributes that matter to users.
    fn shown_attributes(&self) -> String {
        let words = ["#[derive", "#[non_exhaustive", "#[must_use", "#[cfg(feature"];
        let is_shown = |text: &&String| words.iter().any(|word| text.starts_with(word));
        self.attributes.iter().filter(is_shown).flat_map(|text| [text.as_str(), " "]).collect()
    }

    fn line(&self) -> String {
        format!("{}{}", self.shown_attributes(), self.head)
    }
}

fn depth(line: &str) -> isize {
    line.chars().fold(0, |depth, char| match char {
        '(' | '[' | '{' => depth + 1,
        ')' | ']' | '}' => depth - 1,
        _ => depth,
    })
}

/// Joins the lines of a head into one line.
fn joined(lines: &[&str]) -> String {
    let text = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let text = text.replace("( ", "(").replace(", )", ")").replace(", }", " }");
    // Whether a function mutates its copy of an argument is an implementation detail.
    let text = text.replace("(mut ", "(").replace(", mut ", ", ");
    let text = text.strip_suffix("{}").unwrap_or(&text);
    text.trim_end_matches('{').trim_end().trim_end_matches([';', ',']).to_owned()
}

/// Splits lines of the same indentation into items or members.
fn pieces(lines: &[String]) -> Vec<Piece> {
    let (mut found, mut piece) = (Vec::new(), Piece::default());
    let mut rest = lines.iter().map(String::as_str).filter(|line| !line.trim().is_empty());
    while let Some(line) = rest.next() {
        let start = line.trim_start();
        if start.starts_with("//") {
            continue;
        }
        let indentation = line.len() - start.len();
        // The head ends with a line that ends at depth 0 or opens the body.
        let mut head = vec![line];
        let mut open = depth(line);
        let is_attribute = start.starts_with("#[") || start.starts_with("#![");
        let is_over = |head: &[&str], open: isize| {
            let last = head.last().unwrap().trim_end();
            let is_variant = indentation == 4 && start.starts_with(char::is_uppercase);
            let has_body = !is_variant && !start.split(' ').any(|word| word == "use");
            let is_bound = last.ends_with(',') && head.iter().any(|line| line.trim() == "where");
            open == 0 && !is_bound && (is_attribute || last.ends_with([';', ',', '}']))
                || open == 1 && last.ends_with('{') && has_body
        };
        while !is_over(&head, open) {
            let Some(next) = rest.next() else { break };
            if !next.trim_start().starts_with("//") {
                head.push(next);
                open += depth(next);
            }
        }
        if is_attribute {
            piece.attributes.push(joined(&head));
            continue;
        }
        piece.head = joined(&head);
        while open > 0 {
            let Some(next) = rest.next() else { break };
            open += depth(next);
            if open > 0 {
                piece.body.push(next.to_owned());
            }
        }
        found.push(std::mem::take(&mut piece));
    }
    found
}

/// Returns the items of a file, except those for tests.
fn items(path: &Path) -> Vec<Piece> {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines: Vec<String> = text.get(..end).unwrap().lines().map(str::to_owned).collect();
    pieces(&lines).into_iter().filter(|piece| !piece.is_for_tests()).collect()
}

/// Returns the names that a file re-exports from private modules.
fn exports(path: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in items(path) {
        if let Some(path) = item.head.strip_prefix("pub use ") {
            let list = path.rsplit("::").next().unwrap().trim_matches(['{', '}', ' ']);
            names.extend(list.split(',').map(|name| name.trim().to_owned()));
        } else if item.head.starts_with("pub use") {
            panic!("not understood: {}", item.head);
        }
    }
    names.into_iter().filter(|name| name.starts_with(char::is_uppercase)).collect()
}

/// Returns the first name in a text.
fn name(text: &str) -> &str {
    let is_in_name = |char: char| char.is_alphanumeric() || char == '_';
    text.split(|char| !is_in_name(char)).next().unwrap()
}

/// Strips the generics at the start of a text.
fn behind_generics(text: &str) -> &str {
    let mut open = 0;
    for (at, char) in text.char_indices() {
        match char {
            '<' => open += 1,
            '>' if !text.get(..at).unwrap().ends_with('-') => open -= 1,
            _ => {}
        }
        if open == 0 {
            return text.get(at..).unwrap().trim_start_matches('>').trim_start();
        }
    }
    text
}

/// Returns the type that an impl is for, and whether it implements a trait.
fn implementor(head: &str) -> Option<(&str, bool)> {
    let rest = behind_generics(head.strip_prefix("impl")?);
    let (is_trait, of) = match rest.split_once(" for ") {
        Some((_, of)) => (true, of),
        None => (false, rest),
    };
    let of = of.trim_start_matches(['&', '\'']);
    let of = of.strip_prefix("a ").unwrap_or(of);
    Some((name(of), is_trait))
}

/// Returns the lines that an impl of a type adds to the listing.
fn of_impl(item: &Piece, is_trait: bool) -> Vec<String> {
    let members = pieces(&item.body).into_iter().filter(|member| !member.is_for_tests());
    let mut lines = Vec::new();
    if is_trait {
        let types = members.filter(|member| member.head.starts_with("type "));
        let types: Vec<_> = types.map(|member| member.head).collect();
        let types =
            if types.is_empty() { String::new() } else { format!(" {{ {} }}", types.join("; ")) };
        lines.push(format!("{}{types}", item.line()));
    } else {
        let is_public = |member: &Piece| member.head.starts_with("pub ");
        lines.extend(members.filter(is_public).map(|member| member.line()));
    }
    lines
}

/// Returns the lines for the part between the braces of a type or a trait.
fn of_definition(item: &Piece) -> Vec<String> {
    let members = pieces(&item.body).into_iter().filter(|member| !member.is_for_tests());
    let is_shown =
        |member: &Piece| !item.head.starts_with("pub struct") || member.head.starts_with("pub ");
    members.filter(is_shown).map(|member| member.line()).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

/// Returns the names by which a file can name types of openraft without other files: those that it
/// imports, and those that it gives them itself.
fn openraft_names(path: &Path) -> BTreeSet<String> {
    let items = items(path);
    let uses = items.iter().filter_map(|item| item.head.strip_prefix("use openraft::"));
    let names = uses.flat_map(words).filter(|name| name.starts_with(char::is_uppercase));
    let mut names: BTreeSet<String> = names.chain(["openraft"]).map(str::to_owned).collect();
    let own = openraft_aliases(&items, &names);
    names.extend(own.map(str::to_owned).collect::<Vec<_>>());
    names
}

/// Returns the names that items give to types which have these names.
fn openraft_aliases<'a>(
    items: &'a [Piece],
    names: &BTreeSet<String>,
) -> impl Iterator<Item = &'a str> {
    items.iter().filter_map(|item| {
        let (alias, means) = item.head.split_once("type ")?.1.split_once(" = ")?;
        words(means).any(|word| names.contains(word)).then(|| name(alias))
    })
}

/// Returns the names that a file gives to types of openraft, and that others can import.
fn shared_aliases(path: &Path) -> BTreeSet<String> {
    let mut items = items(path);
    items.retain(|item| item.head.starts_with("pub"));
    openraft_aliases(&items, &openraft_names(path)).map(str::to_owned).collect()
}

/// Fails if an item names a type of openraft, outside the module that is made for such.
fn refuse<'a>(
    foreign: &BTreeSet<String>,
    module: &str,
    lines: impl IntoIterator<Item = &'a String>,
) {
    for line in lines.into_iter().filter(|_| module != "bitcask::raft") {
        let found = words(line).find(|word| foreign.contains(*word));
        assert_eq!(found, None, "{module} has a type of openraft in public: {line}");
    }
}

fn listing() -> String {
    let modules = [
        ("bitcask", root().join("src/lib.rs")),
        ("bitcask::client", root().join("src/client/mod.rs")),
        ("bitcask::cluster", root().join("src/cluster/mod.rs")),
        ("bitcask::import", root().join("src/import/mod.rs")),
        ("bitcask::repair", root().join("src/repair/mod.rs")),
        ("bitcask::raft", root().join("src/raft/mod.rs")),
        ("bitcask::resp", root().join("src/resp/mod.rs")),
        ("bitcask::server", root().join("src/server/mod.rs")),
        ("bitcask::typed", root().join("src/typed/mod.rs")),
    ];
    let mut places = BTreeMap::new();
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, path) in modules {
        places.extend(exports(&path).into_iter().map(|name| (name, module)));
        let functions = items(&path).into_iter().filter(|item| item.head.starts_with("pub fn "));
        listed.insert(module.to_owned(), functions.map(|item| item.line()).collect());
    }
    let (mut heads, sources) = (BTreeMap::new(), sources());
    let aliases: BTreeSet<_> = sources.iter().flat_map(|path| shared_aliases(path)).collect();
    let items = sources.into_iter().flat_map(|path| {
        let foreign = Arc::new(&openraft_names(&path) | &aliases);
        items(&path).into_iter().map(move |item| (item, Arc::clone(&foreign)))
    });
    for (item, foreign) in items {
        let kinds = ["pub struct ", "pub enum ", "pub trait ", "pub type "];
        if let Some(rest) = kinds.iter().find_map(|kind| item.head.strip_prefix(kind)) {
            let Some(module) = places.get(name(rest)) else { continue };
            let place = format!("{module}::{}", name(rest));
            let mut head = item.line();
            if item.head.starts_with("pub struct ") && item.head.ends_with(')') {
                // A tuple struct, whose fields are all private.
                assert!(!item.head.contains("(pub "), "{}", item.head);
                let (_, fields) = item.head.split_once('(').unwrap();
                head.truncate(head.len() - fields.len() - 1);
            }
            let twice = heads.insert(place.clone(), head);
            assert_eq!(twice, None, "{place} is defined twice");
            let lines = of_definition(&item);
            refuse(&foreign, module, lines.iter().chain([&item.head]));
            listed.entry(place).or_default().extend(lines);
        } else if let Some((of, is_trait)) = implementor(&item.head)
            // No other crate can name these traits.
            && !item.head.contains(" sealed::")
            && let Some(of) = [of, name(item.head.trim_start_matches("impl From<"))]
                .into_iter()
                .find(|of| places.contains_key(*of))
            && let Some(module) = places.get(of)
        {
            let lines = of_impl(&item, is_trait);
            refuse(&foreign, module, &lines);
            listed.entry(format!("{module}::{of}")).or_default().extend(lines);
        }
    }
    for (name, module) in &places {
        assert!(heads.contains_key(&format!("{module}::{name}")), "{name} has no definition");
    }
    let mut text = vec![HEADER.to_owned()];
    for (place, lines) in listed {
        let head = heads.get(&place).map_or(String::new(), |head| format!(": {head}"));
        text.push(format!("{place}{head}"));
        text.extend(lines.into_iter().map(|line| format!("    {line}")));
        text.push(String::new());
    }
    text.join("\n")
}

#[test]
fn the_public_api_matches_the_listing() {
    let (path, found) = (root().join(LISTING), listing());
    if std::env::var_os("BITCASK_WRITE_PUBLIC_API").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (old, new) = (lines(&listed), lines(&found));
    let gone: Vec<_> = old.difference(&new).collect();
    let added: Vec<_> = new.difference(&old).collect();
    assert!(listed == found, "{LISTING}: gone {gone:#?}, added {added:#?}\n{HEADER}");
}
