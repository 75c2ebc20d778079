//! Checks the links of the documentation: to files, to headings, and to pictures.
//!
//! Addresses of other sites are not followed, since tests do not use the network.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Markdown files below a directory, without those of build directories.
fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                documents(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Returns the lines that are not inside fenced code, numbered from 1, without code in backticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push((at + 1, line.to_owned()));
        }
    }
    assert!(!is_code, "a fence is not closed");
    lines
}

/// Returns the anchors of a document: its headings in lower case, without punctuation, with hyphens
/// for spaces, and numbered if they repeat.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let Some(heading) = line.strip_prefix('#') else { continue };
        let heading = heading.trim_start_matches('#').trim();
        let is_kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
        let slug = without_targets(heading).to_lowercase();
        let slug: String = slug.chars().filter(is_kept).collect();
        let slug = slug.replace(' ', "-");
        let count = counts.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

/// Replaces each `[text](target)` by its text.
fn without_targets(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("](") {
        kept.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    kept + rest
}

/// Returns the targets of the links of a line, those in backticks left out. A line may also define
/// the target of a label: `[label]: target`.
fn targets(line: &str) -> Vec<String> {
    if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        return vec![target.to_owned()];
    }
    // Parts of a line between backticks are at odd places. A link's text may contain such a part.
    let is_code = |at: usize| line[..at].matches('`').count() % 2 == 1;
    let ends = line.match_indices("](").filter(|(at, _)| !is_code(*at));
    let target = |(at, _): (usize, &str)| line[at + 2..].split(')').next().unwrap().to_owned();
    ends.map(target).collect()
}

/// Resolves `.` and `..` without asking the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => assert!(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Returns what is wrong with a link, if something is.
fn fault(document: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let path = match path {
        "" => document.to_owned(),
        path => normal(&document.parent().unwrap().join(path)),
    };
    if !path.starts_with(root()) || !path.exists() {
        return Some(String::from("there is no such file"));
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&path).unwrap_or_default();
    let has_it = anchors(&text).contains(anchor);
    (!has_it).then(|| String::from("there is no such heading"))
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut paths = Vec::new();
    documents(root(), &mut paths);
    let mut faults = Vec::new();
    let mut count = 0;
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for (at, line) in prose(&text) {
            for target in targets(&line) {
                count += 1;
                if let Some(fault) = fault(&path, &target) {
                    let path = path.strip_prefix(root()).unwrap().display();
                    faults.push(format!("{path}:{at}: {target}: {fault}"));
                }
            }
        }
    }
    assert!(count > 100, "{count} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_to_what_does_not_exist_are_found() {
    let document = root().join("docs/stability.md");
    for target in ["format.md", "../README.md", "#support", "format.md#manifest"] {
        assert_eq!(fault(&document, target), None, "{target}");
    }
    for target in ["no.md", "#no", "format.md#no", "../../elsewhere.md", "../docs/no.md#support"] {
        assert!(fault(&document, target).is_some(), "{target}");
    }
    assert_eq!(targets("a [b](c.md) and `[d](e.md)`, [`f`](g.md#h)"), ["c.md", "g.md#h"]);
    assert_eq!(targets("[`a`]: b.md#c"), ["b.md#c"]);
    assert_eq!(anchors("# A `b`, c\n# A `b`, c\n"), ["a-b-c", "a-b-c-1"].map(String::from).into());
}
