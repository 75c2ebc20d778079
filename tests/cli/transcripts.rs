//! Runs every transcript in `docs/cli.md`, and the one in the README, each in a directory of its
//! own.
//!
//! To accept what the program prints now:
//! `TRYCMD=overwrite cargo test --features cli --test cli transcripts`.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use trycmd::TestCases;

use crate::support::PROGRAM;

#[test]
fn the_transcripts_of_the_documentation_are_true() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(&root.join("docs/cli.md"));
    run(&root.join("README.md"));
}

fn run(document: &Path) {
    let dir = tempfile::tempdir().unwrap();
    // A copy, next to which there are the directories that give the transcripts one of their own.
    let copy = dir.path().join("document.md");
    fs::copy(document, &copy).unwrap();
    for name in ["document.in", "document.out", "home"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    // The file that the transcript of `batch` reads is the block that shows it.
    let text = fs::read_to_string(document).unwrap();
    let shown = text.split_once("```json\n").and_then(|(_, rest)| rest.split_once("```"));
    let lines = shown.map_or("", |(lines, _)| lines);
    fs::write(dir.path().join("document.in/changes.jsonl"), lines).unwrap();
    let cases = TestCases::new();
    cases.register_bin("bitcask", Path::new(PROGRAM));
    for name in ["bitcaskpy", "bitcaskpy-server", "pbc"] {
        let link = dir.path().join(name);
        symlink(PROGRAM, &link).unwrap();
        cases.register_bin(name, link.as_path());
    }
    cases.env("HOME", dir.path().join("home").to_str().unwrap());
    // Of whoever runs the tests. An empty variable counts as one that is not set.
    for name in
        ["XDG_CONFIG_HOME", "BITCASK_DIR", "BITCASK_CONFIG", "BITCASK_OUTPUT", "BITCASK_SERVER"]
    {
        cases.env(name, "");
    }
    cases.case(&copy);
    cases.run();
    if std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite") {
        fs::copy(&copy, document).unwrap();
    }
}
