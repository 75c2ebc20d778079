//! Checks of the source itself: the floor plan, and the project's conventions.
//!
//! Each test collects all violations before it fails, so that one run shows all of them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Maximum length of a line of a comment. `cargo fmt` leaves comments as they are.
const COMMENT_MAX: usize = 100;
/// Maximum number of lines of a source file, without its tests.
const LINES_MAX: usize = 400;
/// Maximum number of lines of a function, including its signature.
const FUNCTION_LINES_MAX: usize = 70;
const EXAMPLE_LINES_LIMIT: usize = 80;
const CRATES_MAX: usize = 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of the files with an extension below a directory, relative to the root and
/// sorted.
fn files(dir: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(relative(&path));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

fn rust_files() -> Vec<String> {
    ["src", "tests", "examples", "benches", "fuzz/fuzz_targets", "adapters", "bindings/python/src"]
        .into_iter()
        .flat_map(|dir| files(dir, "rs"))
        .collect()
}

fn documents() -> Vec<String> {
    let at_root = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let is_document = |path: &PathBuf| path.extension().is_some_and(|found| found == "md");
    let at_root = at_root.filter(is_document).map(|path| relative(&path));
    let elsewhere = ["bindings/python/README.md".to_owned()];
    at_root
        .chain(["docs", "tests", "adapters"].into_iter().flat_map(|dir| files(dir, "md")))
        .chain(elsewhere)
        .collect()
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.contains("/tests/")
        || path.starts_with("src/testing/")
}

/// Source files, without files that contain only tests.
fn sources() -> Vec<String> {
    files("src", "rs").into_iter().filter(|path| !is_test(path)).collect()
}

/// Returns the lines of a source file before its test module.
fn source_lines(path: &str) -> Vec<String> {
    let text = read(path);
    let lines: Vec<&str> = text.lines().collect();
    let is_end = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests {");
    let end = lines.windows(2).position(is_end).unwrap_or(lines.len());
    lines[..end].iter().map(|line| (*line).to_owned()).collect()
}

/// Returns the lines of a source file before its test module, without comments, numbered from 1.
fn code_lines(path: &str) -> Vec<(usize, String)> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let lines = source_lines(path);
    lines.iter().enumerate().map(|(at, line)| (at + 1, code(line))).collect()
}

#[track_caller]
fn none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n{}", offences.join("\n"));
}

/// Returns the lines of files that violate a rule.
fn offences(paths: &[String], is_one: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        for (at, line) in code_lines(path) {
            if is_one(path, &line) {
                found.push(format!("{path}:{at}: {}", line.trim()));
            }
        }
    }
    found
}

/// Returns the name that follows each occurrence of a prefix.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_in_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let rests = line.match_indices(prefix).map(|(at, found)| &line[at + found.len()..]);
    rests.map(|rest| rest.split(|char| !is_in_name(char)).next().unwrap_or_default()).collect()
}

/// Returns the floor plan: the modules in order, each with the modules that it may import.
fn floor_plan() -> Vec<(String, BTreeSet<String>)> {
    let text = read("ARCHITECTURE.md");
    let (_, table) = text.split_once("| module | may import |\n").expect("a floor plan");
    let row = |line: &str| {
        let (module, imports) = line.trim_matches('|').split_once('|').unwrap();
        let imports = imports.trim();
        let imports = if imports == "none" { "" } else { imports };
        let imports = imports.split(',').map(str::trim).filter(|name| !name.is_empty());
        (module.trim().to_owned(), imports.map(str::to_owned).collect())
    };
    table.lines().skip(1).take_while(|line| line.starts_with('|')).map(row).collect()
}

/// The program, which is a crate of its own: it has no place in the floor plan of the library.
const PROGRAM: &str = "src/bin/";

/// Returns the modules that each module really imports.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let is_module = |path: &&String| *path != "src/lib.rs" && !path.starts_with(PROGRAM);
    for path in sources().iter().filter(is_module) {
        let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap();
        let found = imports.entry(module.to_owned()).or_default();
        for (at, line) in code_lines(path) {
            assert!(!line.contains("crate::{"), "{path}:{at}: import one module per line");
            let names = names_after(&line, "crate::").into_iter();
            let names = names.filter(|name| *name != module && *name != "testing");
            found.extend(names.map(str::to_owned));
        }
    }
    imports
}

#[test]
fn every_module_imports_exactly_what_the_floor_plan_says() {
    let plan: BTreeMap<_, _> = floor_plan().into_iter().collect();
    let imports = imports();
    let mut offences = Vec::new();
    for module in plan.keys().chain(imports.keys()).collect::<BTreeSet<_>>() {
        match (plan.get(module), imports.get(module)) {
            (Some(planned), Some(found)) if planned == found => {}
            (Some(planned), Some(found)) => {
                let too_much: Vec<_> = found.difference(planned).collect();
                let unused: Vec<_> = planned.difference(found).collect();
                offences.push(format!("{module}: unplanned {too_much:?}, unused {unused:?}"));
            }
            (None, _) => offences.push(format!("{module}: not in the plan")),
            (_, None) => offences.push(format!("{module}: not in src")),
        }
    }
    none("the floor plan in ARCHITECTURE.md and the source differ", &offences);
}

#[test]
fn a_row_of_the_floor_plan_names_only_rows_above_it() {
    let mut above = BTreeSet::new();
    let mut offences = Vec::new();
    for (module, imports) in floor_plan() {
        let below = imports.difference(&above).map(|name| format!("{module} names {name}"));
        offences.extend(below);
        assert!(above.insert(module));
    }
    assert!(above.len() > 10, "the floor plan was not found");
    none("these rows allow cycles", &offences);
}

#[test]
fn no_module_bypasses_the_floor_plan() {
    let paths = sources();
    let is_one = |path: &str, line: &str| {
        let top = path.matches('/').count() == 1 || path.ends_with("/mod.rs");
        let prefix = if top { "super::" } else { "super::super::" };
        // Inline test modules are cut off, and `pub(super)` has no colons.
        line.contains(prefix) && path.matches('/').count() <= 2
    };
    none("refer to other modules by `crate::`", &offences(&paths, is_one));
}

#[test]
fn every_source_file_is_short() {
    let mut offences = Vec::new();
    for path in sources() {
        let len = source_lines(&path).len();
        if len > LINES_MAX {
            offences.push(format!("{path}: {len} lines"));
        }
    }
    none(&format!("at most {LINES_MAX} lines per file, without tests"), &offences);
}

#[test]
fn comments_are_narrow() {
    let mut offences = Vec::new();
    let folders = [
        "src",
        "tests",
        "benches",
        "examples",
        "fuzz/fuzz_targets",
        "adapters",
        "bindings/python/src",
    ];
    for path in folders.iter().flat_map(|folder| files(folder, "rs")) {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") && line.len() > COMMENT_MAX {
                offences.push(format!("{path}:{}", at + 1));
            }
        }
    }
    none(&format!("at most {COMMENT_MAX} columns per line of a comment"), &offences);
}

/// Returns the name of the type that a line of code defines. Indented definitions, which are
/// associated types, do not count.
fn defined_type(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || *word == "unsafe" || *word == "in" || word.ends_with(')')
    });
    let keyword = words.next()?;
    let is_alias = keyword == "type" && !line.starts_with(' ');
    if !is_alias && !["struct", "enum", "union", "trait"].contains(&keyword) {
        return None;
    }
    let name = words.next()?;
    name.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').next()
}

#[test]
fn every_type_name_is_defined_once() {
    // Each of these replaces another file under some `cfg`.
    let alternatives = [
        "src/sync/locks.rs",
        "src/sync/loom.rs",
        "src/sync/shuttle.rs",
        "src/epoch/twin.rs",
        "src/trace/silent.rs",
    ];
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources().iter().filter(|path| !alternatives.contains(&path.as_str())) {
        for (at, line) in code_lines(path) {
            if let Some(name) = defined_type(&line) {
                homes.entry(name.to_owned()).or_default().push(format!("{path}:{at}"));
            }
        }
    }
    assert!(homes.len() > 100, "the types were not found");
    homes.retain(|_, homes| homes.len() > 1);
    let offences: Vec<_> =
        homes.iter().map(|(name, homes)| format!("{name}: {}", homes.join(", "))).collect();
    none("give each type a unique name", &offences);
}

/// Returns whether a line of code begins a function with a body.
fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_before = |word: &str| {
        ["const", "async", "unsafe", "extern", "\"C\"", "in"].contains(&word)
            || word.starts_with("pub")
            || word.ends_with(')')
    };
    words.find(|word| !is_before(word)) == Some("fn") && !line.trim_end().ends_with([';', '}'])
}

#[test]
fn every_function_fits_on_a_screen() {
    let (mut offences, mut count) = (Vec::new(), 0);
    for path in sources() {
        let lines = source_lines(&path);
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            let indentation = line.len() - line.trim_start().len();
            // The function ends with its body, with a signature without a body, or at the next
            // item.
            let is_end = |end: &&String| {
                let rest = end.get(indentation..).unwrap_or_default();
                end.len() - end.trim_start().len() == indentation
                    && (rest.starts_with('}') || rest.ends_with(';'))
            };
            let len = 1 + lines[at + 1..].iter().take_while(|line| !is_end(line)).count() + 1;
            count += 1;
            if len > FUNCTION_LINES_MAX {
                offences.push(format!("{path}:{}: {len} lines", at + 1));
            }
        }
    }
    assert!(count > 500, "the functions were not found");
    none(&format!("at most {FUNCTION_LINES_MAX} lines per function"), &offences);
}

/// Returns the text of an item of a numbered list, in a comment or in a document.
fn numbered_item(line: &str) -> Option<&str> {
    let text = line.trim_start().trim_start_matches(['/', '!']).trim_start();
    let (number, text) = text.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(text)
}

#[test]
fn the_lock_order_is_stated_once() {
    let architecture = read("ARCHITECTURE.md");
    let (_, section) = architecture.split_once("## Lock order\n").expect("a lock order");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let first_name = |line: &str| {
        let item = numbered_item(line)?.strip_prefix('`')?;
        item.split_once('`').map(|(name, _)| name.to_owned())
    };
    let locks: BTreeSet<String> = section.lines().filter_map(first_name).collect();
    assert!(locks.len() > 2, "the lock order was not found");
    let mut offences = Vec::new();
    let paths = sources().into_iter().chain(documents());
    for path in paths.filter(|path| path != "ARCHITECTURE.md") {
        for (at, line) in read(&path).lines().enumerate() {
            if first_name(line).is_some_and(|name| locks.contains(&name)) {
                offences.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("list locks only in ARCHITECTURE.md", &offences);
}

#[test]
fn the_front_page_lists_no_private_modules() {
    let text = read("src/lib.rs");
    let module = |line: &str| {
        line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned)
    };
    let private: Vec<String> = text.lines().filter_map(module).collect();
    assert!(private.len() > 10, "the private modules were not found");
    let front_page = text.lines().take_while(|line| line.starts_with("//!"));
    let names =
        |line: &str| private.iter().filter(|name| line.contains(&format!("`{name}`"))).count();
    // A single word in backticks may be the name of something else.
    let is_list = |line: &&str| names(line) > 1;
    let offences: Vec<_> = front_page.filter(is_list).map(str::to_owned).collect();
    none("readers of the front page cannot see these modules", &offences);
}

#[test]
fn every_source_file_has_a_module_comment() {
    let is_one = |path: &String| !read(path).starts_with("//!");
    let offences: Vec<_> = sources().into_iter().filter(is_one).collect();
    none("these do not start with `//!`", &offences);
}

/// Types that replace locks under a checker are not locks of the store.
#[test]
fn every_lock_states_its_place_in_the_lock_order() {
    let is_ours = |path: &String| !path.starts_with("src/sync") && path != "src/epoch/twin.rs";
    let mut offences = Vec::new();
    for path in sources().into_iter().filter(is_ours) {
        let lines = source_lines(&path);
        for (at, line) in lines.iter().enumerate() {
            let line = line.trim();
            let is_field = line.ends_with(',') && !line.contains('(') && line.contains(": ");
            let is_lock = line.contains("Mutex<") && !line.starts_with("//");
            if !is_lock || !is_field && !line.contains("struct ") {
                continue;
            }
            let above = lines[..at].iter().rev().map(|line| line.trim());
            let is_about_it = |line: &&str| line.starts_with("///") || line.starts_with("#[");
            let said: Vec<_> = above.take_while(is_about_it).collect();
            if !said.iter().any(|line| names_after(line, "Lock ").iter().any(is_number)) {
                offences.push(format!("{path}:{}: {line}", at + 1));
            }
        }
    }
    none("state `Lock` and its number in ARCHITECTURE.md", &offences);
}

fn is_number(name: &&str) -> bool {
    name.parse::<u8>().is_ok()
}

#[test]
fn everything_is_ascii() {
    let mut offences = Vec::new();
    for path in rust_files().into_iter().chain(documents()) {
        for (at, line) in read(&path).lines().enumerate() {
            if !line.is_ascii() {
                offences.push(format!("{path}:{}: {line}", at + 1));
            }
        }
    }
    none("not ASCII", &offences);
}

#[test]
fn open_points_are_issues_not_comments() {
    // Split, so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut offences = Vec::new();
    for path in rust_files().into_iter().chain(documents()) {
        for (at, line) in read(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                offences.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("turn these into issues or decisions", &offences);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let attributes = [concat!("#[al", "low("), concat!("#![al", "low(")];
    let mut offences = Vec::new();
    for path in rust_files() {
        for (at, line) in read(&path).lines().enumerate() {
            if attributes.iter().any(|attribute| line.contains(attribute)) {
                offences.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    none("use `expect` with a reason", &offences);
}

#[test]
fn unsafe_code_is_confined_to_few_files() {
    let paths: Vec<_> = files("src", "rs");
    let is_one = |path: &str, line: &str| {
        let homes = [
            "src/epoch/barrier.rs",
            "src/epoch/handles.rs",
            "src/epoch/loom_tests.rs",
            "src/epoch/pointers.rs",
            "src/epoch/published.rs",
            "src/keydir/memory.rs",
            "src/prefetch.rs",
            "src/process.rs",
            "src/segment/read/map.rs",
            "src/segment/write/sink.rs",
        ];
        let at_home = homes.contains(&path)
            || path.starts_with("src/fs/")
            || path.starts_with("src/testing/twin/");
        // A word of the policies that browsers apply to a page.
        let line = line.replace("'unsafe-inline'", "");
        let mut words = line.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        !at_home && words.any(|word| word == "unsafe")
    };
    none("unsafe code outside the permitted files", &offences(&paths, is_one));
}

#[test]
fn only_the_fs_module_builds_io_errors() {
    let is_one = |path: &str, line: &str| {
        let at_home = path == "src/fs.rs" || path.starts_with("src/fs/");
        // With dots it is a pattern, which does not build an error.
        !at_home && line.contains("Error::Io") && !line.contains("..")
    };
    none("build I/O errors only in `fs`", &offences(&sources(), is_one));
}

#[test]
fn features_are_named_in_few_files() {
    let homes = [
        "src/options/compression.rs",
        "src/codec.rs",
        "src/doc_pages.rs",
        "src/fs/file.rs",
        "src/lib.rs",
        "src/trace.rs",
        // Mistakes that only some features can make.
        "src/mistake.rs",
        // What the Redis port has to know of values and transactions.
        "src/store/mod.rs",
        "src/store/point/version.rs",
        "src/store/reader.rs",
        "src/store/transaction/mod.rs",
        "src/value.rs",
        // What only a cluster does with the other modules.
        "src/raft/mod.rs",
        "src/raft/state/mod.rs",
        "src/resp/mod.rs",
        "src/resp/options.rs",
        "src/resp/replicated.rs",
        "src/server/mod.rs",
        "src/store/admin/backup.rs",
        // The program has commands that depend on features, and says which features it has.
        "src/bin/bitcask/args.rs",
        "src/bin/bitcask/commands/bench/mod.rs",
        "src/bin/bitcask/commands/mod.rs",
        "src/bin/bitcask/commands/redis_port.rs",
        "src/bin/bitcask/commands/server.rs",
        "src/bin/bitcask/commands/shell.rs",
        "src/bin/bitcask/settings/options.rs",
    ];
    let is_one = |path: &str, line: &str| {
        !homes.contains(&path)
            && ["cfg(", "cfg!("].iter().any(|cfg| line.contains(cfg))
            && line.contains("feature")
    };
    none("features named outside the permitted files", &offences(&sources(), is_one));
}

#[test]
fn the_changelog_has_this_version_once() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let count = read("CHANGELOG.md").lines().filter(|line| line.starts_with(&heading)).count();
    assert_eq!(count, 1, "CHANGELOG.md has to have one heading `{heading}`");
}

/// Returns the targets of the links in a page, and the labels of those that are defined at its
/// end, as in `[label]: target`. Code is left out.
fn links(page: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut inline, mut defined, mut is_code) = (Vec::new(), BTreeMap::new(), false);
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if is_code {
            continue;
        }
        if let Some((label, target)) = line.strip_prefix('[').and_then(|it| it.split_once("]: ")) {
            defined.insert(label.to_owned(), target.to_owned());
            continue;
        }
        let rests = line.split("](").skip(1);
        inline.extend(rests.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
    }
    (inline, defined)
}

/// In the documentation, a path relative to a page leads nowhere. So a link to another file has a
/// label, whose target in the documentation stands in the module that shows the page, before the
/// page.
#[test]
fn links_of_pages_in_the_documentation_work_there_too() {
    let shown = [
        ("docs/cookbook.md", "src/cookbook.rs"),
        ("docs/cookbook-features.md", "src/cookbook.rs"),
        ("docs/format.md", "src/lib.rs"),
        ("docs/migration.md", "src/migration.rs"),
    ];
    let (mut offences, mut count) = (Vec::new(), 0);
    for (page, module) in shown {
        let (text, module_text) = (read(page), read(module));
        assert!(module_text.contains(page), "{module} does not show {page}");
        let (inline, defined) = links(&text);
        count += inline.len() + defined.len();
        let works = |target: &String| target.starts_with('#') || target.starts_with("https://");
        let broken = inline.iter().filter(|target| !works(target));
        offences.extend(broken.map(|target| format!("{page}: {target} has no label")));
        for (label, target) in defined.iter().filter(|(_, target)| !works(target)) {
            if !module_text.contains(&format!("[{label}]: ")) {
                offences.push(format!("{page}: {module} has no target for [{label}]"));
            }
            let path = target.split('#').next().unwrap();
            if !root().join("docs").join(path).exists() {
                offences.push(format!("{page}: {path} does not exist"));
            }
        }
    }
    assert!(count > 30, "the links were not found");
    none("these links work only in the repository, or not at all", &offences);
}

/// People look for these by name.
#[test]
fn examples_that_are_looked_for_exist_and_run() {
    let checks = read(".ci/run");
    for name in ["tokio_axum", "secondary_index", "queue", "typed", "follower_process"] {
        assert!(root().join(format!("examples/{name}.rs")).exists(), "{name} is missing");
        let runs = checks.lines().any(|line| {
            let name_in_line = line.strip_prefix("cargo run --example ");
            name_in_line.is_some_and(|rest| rest.split(' ').next() == Some(name))
        });
        assert!(runs, "{name} is not run in .ci/run");
    }
}

#[test]
fn examples_are_short() {
    let mut offences = Vec::new();
    for path in files("examples", "rs") {
        let len = read(&path).lines().count();
        let is_long = ["ingest", "memory"].iter().any(|name| path.contains(name));
        if !is_long && len >= EXAMPLE_LINES_LIMIT {
            offences.push(format!("{path}: {len} lines"));
        }
    }
    none(&format!("examples have fewer than {EXAMPLE_LINES_LIMIT} lines"), &offences);
}

#[test]
fn the_default_dependency_tree_is_small() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["tree", "-e", "normal", "--prefix", "none", "--offline"]).current_dir(root());
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        Err(error) => {
            println!("skipped: cannot run cargo: {error}");
            return;
        }
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<String> =
        text.lines().map(name).filter(|name| !name.starts_with("bitcask ")).collect();
    assert!(!crates.is_empty());
    assert!(crates.len() <= CRATES_MAX, "{} crates: {crates:#?}", crates.len());
}
