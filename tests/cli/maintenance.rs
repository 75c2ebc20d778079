//! Commands that look after a store.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;

use serde_json::Value;

use crate::support::{Ran, Sandbox, files_of, flip};

/// Returns a sandbox whose store has several segments, most of which are dead.
fn worn() -> Sandbox {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    for round in 0..10 {
        for number in 0..20 {
            db.put(format!("key {number:02}"), format!("{round} ").repeat(40)).unwrap();
        }
    }
    db.delete("key 00").unwrap();
    db.close().unwrap();
    sandbox
}

#[track_caller]
fn json(ran: &Ran) -> Value {
    serde_json::from_str(ran.ended(0)).unwrap()
}

#[track_caller]
fn number(object: &Value, name: &str) -> u64 {
    object.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("{name}: {object}"))
}

#[test]
fn stats_and_segments_are_figures_in_every_form() {
    let sandbox = worn();
    let stats = json(&sandbox.run(["stats", "-o", "json"]));
    assert_eq!(number(&stats, "keys"), 19);
    assert!(number(&stats, "dead_size") > number(&stats, "live_size"));
    let plain = sandbox.run(["stats", "-o", "plain"]);
    assert!(plain.ended(0).contains("\nkeys\t19\n"), "{}", plain.text());
    let table = sandbox.run(["stats"]);
    assert!(table.ended(0).contains("dead share"), "{}", table.text());

    let segments = sandbox.run(["segments", "-o", "json"]);
    let count = segments.ended(0).lines().count();
    assert!(count > 3, "{}", segments.text());
    assert_eq!(sandbox.run(["segments", "-o", "plain"]).ended(0).lines().count(), count);
    let table = sandbox.run(["segments"]);
    assert!(table.ended(0).starts_with("segment"), "{}", table.text());
    assert_eq!(table.text().lines().count(), count + 1);
}

#[test]
fn every_alias_of_merge_frees_what_is_dead() {
    for merge in ["merge", "clean", "defrag"] {
        let sandbox = worn();
        let before = number(&json(&sandbox.run(["stats", "-o", "json"])), "log_size");
        let report = json(&sandbox.run([merge, "-o", "json"]));
        assert!(number(&report, "segments_merged") > 3, "{report}");
        let after = number(&json(&sandbox.run(["stats", "-o", "json"])), "log_size");
        assert!(after < before / 3, "{before} bytes became {after}");
        assert_eq!(sandbox.run(["list", "--count"]).ended(0), "19\n");
    }
}

#[test]
fn a_dry_run_of_a_merge_says_what_would_be_merged_and_merges_nothing() {
    let sandbox = worn();
    let rows = |args: &[&str]| {
        let ran = sandbox.run([&["merge", "--dry-run", "-o", "json"], args].concat());
        ran.ended(0).lines().count()
    };
    let all = rows(&["--force"]);
    let worthwhile = rows(&[]);
    assert!(all > 3 && worthwhile > 1 && worthwhile <= all, "{worthwhile} of {all}");
    assert!(rows(&["--threshold", "0"]) >= worthwhile);
    let table = sandbox.run(["merge", "--dry-run"]);
    assert!(table.ended(0).starts_with("segment"), "{}", table.text());
    // What is kept for its history is in no plan.
    let mut kept = sandbox.bitcask(["merge", "--dry-run", "--threshold", "0", "-o", "json"]);
    let kept = Ran::new(kept.env("BITCASK_KEEP_HISTORY", "1GiB").output().unwrap());
    assert!(kept.ended(0).lines().count() < all, "{}", kept.text());
    sandbox.run(["merge"]).ended(0);
    assert_eq!(sandbox.run(["merge", "--dry-run"]).ended(0), "nothing to merge\n");
}

#[test]
fn a_merge_can_be_forced_or_limited_to_dead_segments() {
    let sandbox = worn();
    let threshold = json(&sandbox.run(["merge", "--threshold", "100", "-o", "json"]));
    assert_eq!(number(&threshold, "live_entries"), 0);
    let forced = json(&sandbox.run(["merge", "--force", "--ordered", "-o", "json"]));
    assert_eq!(number(&forced, "live_entries"), 19);
}

#[test]
fn compact_merges_if_enough_is_dead() {
    let sandbox = worn();
    let stats = json(&sandbox.run(["compact", "stats", "-o", "json"]));
    assert_eq!((number(&stats, "live_keys"), &stats["recommended"]), (19, &false.into()));
    // A store of this size is not worth it, and nobody can answer.
    sandbox.run(["compact", "run"]).failed(2, "--yes");
    let report = json(&sandbox.run(["compact", "run", "--yes", "-o", "json"]));
    assert_eq!(number(&report, "live_entries"), 19);
    let report = sandbox.run(["compact", "run", "--force", "--threshold", "0.9"]);
    assert!(report.ended(0).contains("live entries"), "{}", report.text());
}

#[test]
fn an_intact_store_is_verified() {
    let sandbox = worn();
    let ran = sandbox.run(["verify"]);
    assert!(ran.ended(0).starts_with("the store opens\n"), "{}", ran.text());
    let found = json(&sandbox.run(["verify", "-o", "json"]));
    assert_eq!((&found["clean"], number(&found, "tombstones")), (&true.into(), 1));
    sandbox.run(["repair"]).failed(0, "nothing to repair");
    assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), 1);
}

#[test]
fn a_damaged_store_is_reported_and_repaired() {
    for repair in ["repair", "recover"] {
        let sandbox = worn();
        sandbox.run(["merge", "--force"]).ended(0);
        flip(files_of(&sandbox.store(), "log").first().unwrap(), 64 + 30);
        let keys = ["get", "key 01"];
        let verified = sandbox.run(["verify"]);
        verified.failed(3, "bitcask repair");
        assert!(verified.text().contains("damaged, data is lost"), "{}", verified.text());
        sandbox.run([repair, "--dry-run"]).ended(3);
        assert!(!sandbox.path("data.repaired").exists());
        let ran = sandbox.run([repair]);
        ran.failed(0, "the damaged one is now");
        assert!(ran.text().contains("18 keys copied"), "{}", ran.text());
        assert!(sandbox.path("data.damaged").exists() && !sandbox.path("data.repaired").exists());
        sandbox.run(["verify"]).ended(0);
        sandbox.run(keys).ended(1);
        assert_eq!(sandbox.run(["list", "--count"]).ended(0), "18\n");
        // The damaged store is not overwritten by the next one.
        flip(files_of(&sandbox.store(), "log").first().unwrap(), 64 + 30);
        sandbox.run([repair]).failed(2, "data.damaged exists already");
        sandbox.run([repair, "--to", "new"]).failed(0, "the new store is new");
        assert_eq!(sandbox.run(["-d", "new", "list", "--count"]).ended(0), "17\n");
    }
}

#[test]
fn a_corrupt_value_is_an_error_with_advice() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "key", "value"]).ended(0);
    flip(files_of(&sandbox.store(), "log").first().unwrap(), 64 + 24);
    let ran = sandbox.run(["get", "key"]);
    ran.failed(3, "is corrupt at offset 64");
    ran.failed(3, "next: nothing was changed; `bitcask verify` lists all damage");
    assert!(ran.out.is_empty());
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let sandbox = Sandbox::new();
    let path = sandbox.store().join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap().replace("manifest 1\n", "manifest 2\n");
    let (summed, _) = text.split_once("checksum").unwrap();
    let sum = crc32fast::hash(summed.as_bytes());
    fs::write(&path, format!("{summed}checksum {sum:08x}\n")).unwrap();
    for args in
        [&["get", "k"][..], &["put", "k", "v"], &["verify"], &["repair"], &["export"], &["dump"]]
    {
        let ran = sandbox.run(args);
        ran.failed(3, "has format version 2, but this program reads at most 1");
        ran.failed(3, "use a newer release of the program");
    }
}

#[test]
fn a_locked_store_can_be_read_but_not_written() {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    db.put("key", "value").unwrap();
    for args in [
        &["put", "k", "v"][..],
        &["delete", "k"],
        &["merge"],
        &["clear", "--yes"],
        &["backup", "b"],
    ] {
        let ran = sandbox.run(args);
        ran.failed(3, &format!("is open for writing in process {}", std::process::id()));
        ran.failed(3, "commands that only read");
    }
    assert_eq!(sandbox.run(["get", "key"]).ended(0), "value");
    for args in [
        &["list"][..],
        &["scan", "k"],
        &["range", "-", "-"],
        &["ttl", "key"],
        &["exists", "key"],
        &["stats"],
        &["segments"],
        &["compact", "stats"],
        &["verify"],
        &["export"],
        &["dump"],
        &["watch", "--no-wait", "--since", "start"],
        &["merge", "--dry-run"],
    ] {
        sandbox.run(args).ended(0);
    }
    db.close().unwrap();
}

#[test]
fn a_dump_shows_the_manifest_segments_entries_and_hints() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "key", "a \"value\"", "--ttl", "1h"]).ended(0);
    sandbox.run(["put", "long", &"x".repeat(100)]).ended(0);
    sandbox.run(["delete", "key"]).ended(0);
    sandbox.run(["--base64", "put", "/w==", "AA=="]).ended(0);
    let dump = sandbox.run(["dump"]);
    let text = dump.ended(0);
    for part in [
        "manifest\n  store ",
        "\nsegment 1 log, sealed, ",
        "  put     ",
        "  delete  ",
        r#"  "key" = "a \"value\""  expires "#,
        r#""long" = "xxxxxx"#,
        "... of 100 B",
        r#"  "\xff" = "\x00""#,
        "\nhint: 1 entry,",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let one = sandbox.run(["dump", "--segment", "1", "--hex", "--hints"]);
    let text = one.ended(0);
    assert!(!text.contains("manifest") && !text.contains("long"), "{text}");
    for part in [r#""key" = "a \"value\"""#, "6b 65 79 61  |", "| \"value\"|", "  hash "] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    assert_eq!(
        sandbox.run(["dump", "--segment", "1", "--offset", "100000"]).ended(0).lines().count(),
        2
    );
    sandbox.run(["dump", "--segment", "99"]).failed(3, "there is no segment 99 in ");
    let base64 = sandbox.run(["--base64", "dump"]);
    assert!(base64.ended(0).contains(r#""/w==" = "AA==""#), "{}", base64.text());
    for line in sandbox.run(["dump", "-o", "json", "--hints"]).ended(0).lines() {
        let object: Value = serde_json::from_str(line).unwrap();
        assert!(object.get("type").is_some_and(Value::is_string), "{line}");
    }
}

#[test]
fn a_dump_reads_what_damage_leaves() {
    let sandbox = Sandbox::new();
    for key in ["a", "b", "c"] {
        sandbox.run(["put", key, "value"]).ended(0);
    }
    sandbox.run(["merge", "--force"]).ended(0);
    let log = files_of(&sandbox.store(), "log").first().unwrap().clone();
    flip(&log, 64 + 24);
    let dump = sandbox.run(["dump"]);
    assert!(dump.ended(0).contains("  LOST    "), "{}", dump.text());
    assert!(dump.text().contains("\"c\" = \"value\""), "{}", dump.text());
    flip(&log, 20);
    fs::remove_file(sandbox.store().join("MANIFEST")).unwrap();
    let dump = sandbox.run(["dump"]);
    assert!(dump.ended(0).starts_with("manifest: "), "{}", dump.text());
    assert!(dump.text().contains("\"c\" = \"value\""), "{}", dump.text());
}

#[test]
fn a_bench_leaves_nothing_behind() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.path("scratch")).unwrap();
    let args = ["bench", "--keys", "500", "--value-size", "1KiB", "--scratch", "scratch"];
    let table = sandbox.run(args);
    for part in ["operation", "overwrite", "get absent", "p99.9"] {
        assert!(table.ended(0).contains(part), "{part} is missing in:\n{}", table.text());
    }
    assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0);
    let json = sandbox.run([&args[..], &["-o", "json"]].concat());
    let first: Value = serde_json::from_str(json.ended(0).lines().next().unwrap()).unwrap();
    assert_eq!((&first["operation"], number(&first, "count")), (&"put".into(), 500));
    sandbox.run(["bench", "--value-size", "1GiB"]).failed(2, "at most 64MiB");
    sandbox.run(["bench", "--scratch", "nowhere"]).failed(3, "cannot create");
    assert!(!sandbox.store().exists());
}

#[cfg(feature = "plots")]
#[test]
fn a_bench_can_be_drawn() {
    let sandbox = Sandbox::empty();
    sandbox.run(["bench", "--keys", "100", "--plot", "plot.svg"]).ended(0);
    assert!(fs::read_to_string(sandbox.path("plot.svg")).unwrap().starts_with("<svg"));
}

#[cfg(feature = "tui")]
#[test]
fn top_needs_a_terminal() {
    Sandbox::new().run(["top"]).failed(2, "needs a terminal");
}

#[cfg(feature = "tui")]
#[test]
fn a_signal_ends_top_and_leaves_the_terminal_as_it_was() {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    let probe = Command::new("script").arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("skipped: `script` is missing");
        return;
    }
    let sandbox = Sandbox::new();
    let line = format!("echo $$ > pid; exec {} top --interval 1h", crate::support::PROGRAM);
    let mut command = sandbox.command("script".as_ref(), ["-qec", &line, "/dev/null"]);
    let mut child = command.env("TERM", "xterm").stdin(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    let has = |shown: &[u8], part: &[u8]| shown.windows(part.len()).any(|found| found == part);
    // The program has taken the screen.
    while !has(&shown, b"\x1b[?1049h") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&shown));
        shown.extend(byte);
    }
    let pid = fs::read_to_string(sandbox.path("pid")).unwrap();
    assert!(Command::new("kill").args(["-INT", pid.trim()]).status().unwrap().success());
    out.read_to_end(&mut shown).unwrap();
    assert!(has(&shown, b"\x1b[?1049l"), "{}", String::from_utf8_lossy(&shown));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
