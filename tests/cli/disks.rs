//! A disk that is full.
//!
//! The test plays in a mount namespace of its own, made by `unshare`, where the kernel unmounts
//! everything when the last process has ended. Where mounting is not permitted, it prints why and
//! is skipped; with `BITCASK_REAL_DISK=required` it fails instead.

use std::path::Path;
use std::process::Command;

use crate::support::{PROGRAM, Ran, Sandbox};

/// Imports on a disk of two MiB until it is full, and then continues with the store.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=2m tmpfs disk || exit 77
export BITCASK_DIR=disk/store BITCASK_SEGMENT_SIZE=64KiB
"$PROGRAM" init || exit 1
"$PROGRAM" import pairs.jsonl
echo "code $?"
"$PROGRAM" list --count
"$PROGRAM" verify
echo "verified $?"
"$PROGRAM" clear --yes || exit 2
"$PROGRAM" put key value || exit 3
"$PROGRAM" get key
"#;

#[test]
fn an_import_onto_a_full_disk_leaves_the_store_usable() {
    let skip = |why: &str| {
        println!("skipped: {why}");
        let required = std::env::var("BITCASK_REAL_DISK").is_ok_and(|text| text == "required");
        assert!(!required, "this test must not be skipped: {why}");
    };
    let works = |flag: &&str| {
        let probe = Command::new("unshare").args([*flag, "true"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let Some(flag) = ["--mount", "--map-root-user"].into_iter().find(works) else {
        return skip("`unshare` is missing or not permitted");
    };
    let sandbox = Sandbox::empty();
    std::fs::create_dir(sandbox.path("disk")).unwrap();
    let value = "v".repeat(1000);
    let line = |number| format!("{{\"key\":\"{number:06}\",\"value\":\"{value}\"}}\n");
    let lines: String = (0..4000).map(line).collect();
    std::fs::write(sandbox.path("pairs.jsonl"), lines).unwrap();
    let mut command =
        sandbox.command(Path::new("unshare"), [flag, "--mount", "--", "sh", "-c", SCRIPT]);
    let ran = Ran::new(command.env("PROGRAM", PROGRAM).output().unwrap());
    if ran.code == Some(77) {
        return skip(&ran.err);
    }
    let lines: Vec<_> = ran.ended(0).lines().collect();
    assert_eq!(lines[0], "code 3", "{}{}", ran.text(), ran.err);
    let keys: u64 = lines[1].parse().unwrap();
    assert!(keys > 500 && keys < 4000, "{keys} keys");
    assert!(lines.contains(&"verified 0"), "{}", ran.text());
    assert_eq!(lines.last(), Some(&"value"));
    assert!(ran.err.contains("no space left for"), "{}", ran.err);
    assert!(ran.err.contains("next: the store is intact; free some space"), "{}", ran.err);
    let before = format!("{keys} pairs were imported before this");
    assert!(ran.err.contains(&before), "{}", ran.err);
}
