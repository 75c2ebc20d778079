//! Data that move in and out: exports, imports, backups, changes.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, SystemTime};

use bitcask::{Bitcask, Options, SyncPolicy, WriteOptions};

use crate::support::Sandbox;

/// Returns a sandbox with text, bytes, line breaks, quotes, and a key that expires.
fn mixed() -> Sandbox {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    db.put("text", "a \"quoted\", value\nof two lines").unwrap();
    db.put(b"\xff\x00", b"\xfe\r\n").unwrap();
    db.put("", "").unwrap();
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    db.put_opt("late", "x", WriteOptions::new().expires_at(late)).unwrap();
    db.close().unwrap();
    sandbox
}

/// Returns everything that a store holds, as base64.
#[track_caller]
fn content(sandbox: &Sandbox, dir: &str) -> String {
    sandbox.run(["-d", dir, "--base64", "range", "-", "-"]).ended(0).to_owned()
}

#[test]
fn an_export_is_imported_without_a_difference() {
    let sandbox = mixed();
    for args in [&["pairs.jsonl"][..], &["pairs.csv"], &["odd.name", "--format", "csv"]] {
        for base64 in [&[][..], &["--base64"]] {
            sandbox.run([&["export"], args, base64].concat()).failed(0, "4 pairs exported");
            let store = ["-d", "copy", "-o", "plain"];
            let imported = sandbox.run([&store[..], &["import"], args].concat());
            assert_eq!(imported.ended(0), "imported\t4\ndeleted\t0\n");
            assert_eq!(content(&sandbox, "copy"), content(&sandbox, "data"));
            let left = sandbox.run(["-d", "copy", "ttl", "late"]);
            assert_ne!(left.ended(0), "never\n");
            fs::remove_dir_all(sandbox.path("copy")).unwrap();
        }
    }
    let names = fs::read_dir(sandbox.path("")).unwrap().count();
    assert_eq!(names, 4, "nothing temporary is left");
}

#[test]
fn an_export_goes_through_a_pipe() {
    let sandbox = mixed();
    let exported = sandbox.run(["export", "--prefix", "te"]);
    let expected = r#"{"key":"text","value":"a \"quoted\", value\nof two lines"}"#;
    assert_eq!(exported.ended(0).trim_end(), expected);
    let all = sandbox.run(["export", "-", "--format", "csv"]);
    assert_eq!(all.code, Some(0));
    let imported = sandbox.feed(["-d", "copy", "import", "-", "--format", "csv"], &all.out);
    imported.ended(0);
    assert_eq!(content(&sandbox, "copy"), content(&sandbox, "data"));
}

#[test]
fn a_table_that_another_program_wrote_is_imported() {
    let sandbox = Sandbox::new();
    let table = "name,value,key\nx,1,a\ny,\"2,3\",b\n";
    sandbox.feed(["import", "--format", "csv"], table.as_bytes()).ended(0);
    assert_eq!(sandbox.run(["range", "-", "-"]).ended(0), "a\t1\nb\t2,3\n");
    let wrong = |table: &str, reason: &str| {
        let ran = sandbox.feed(["import", "--format", "csv"], table.as_bytes());
        ran.failed(2, reason);
    };
    wrong("name,value\na,b\n", "heading `key` or `key_base64`");
    wrong("key,value\na\n", "line 2: 1 fields instead of 2");
    wrong("key_base64,value\n!,b\n", "line 2: invalid base64");
    wrong("key,value,ttl\na,b,soon\n", "line 2: expected a duration");
}

#[test]
fn an_import_stops_at_a_line_that_is_wrong_and_says_how_far_it_came() {
    let sandbox = Sandbox::new();
    let line = |number| format!("{{\"key\":\"{number:05}\",\"value\":\"v\"}}\n");
    let lines: String = (0..2500).map(line).collect();
    let ran = sandbox.feed(["import"], format!("{lines}{{\"key\":1}}\n").as_bytes());
    ran.failed(2, "standard input, line 2501: ");
    ran.failed(2, "2000 pairs were imported before this");
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "2000\n");
    sandbox.run(["import", "nowhere"]).failed(2, "cannot read nowhere");
    sandbox.run(["import", "--from", "basho", "there"]).failed(2, "there");
    sandbox.run(["import", "--from", "basho"]).failed(2, "required");
}

/// Returns a record of bitcaskpy: time, sizes in characters, no tombstone, key, value.
fn bitcaskpy_record(key: &str, value: &str) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.chars().count()).unwrap().to_be_bytes();
    let mut record = 1_700_000_000.5_f64.to_be_bytes().to_vec();
    record.extend([size(key), size(value)].concat());
    record.push(0);
    record.extend([key.as_bytes(), value.as_bytes()].concat());
    record
}

#[test]
fn another_programs_store_is_imported_and_what_is_damaged_in_it_is_named() {
    let sandbox = Sandbox::new();
    let old = sandbox.path("old");
    fs::create_dir(&old).unwrap();
    let log = [bitcaskpy_record("caf\u{e9}", "hot"), bitcaskpy_record("tea", "cold")].concat();
    let torn = log.len() as u64;
    let cut = &bitcaskpy_record("mint", "fresh")[..5];
    fs::write(old.join("segment_0.log"), [&log, cut].concat()).unwrap();
    let report = sandbox.run(["import", "--from", "bitcaskpy", "old", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(report.ended(0)).unwrap();
    assert_eq!((&report["written"], &report["keys"]), (&2.into(), &2.into()));
    assert_eq!(report["skipped"][0]["offset"], torn);
    assert_eq!(sandbox.run(["get", "caf\u{e9}"]).ended(0), "hot");

    // What the store has meanwhile is kept on request, and replaced otherwise.
    sandbox.run(["put", "tea", "hot"]).ended(0);
    sandbox.run(["import", "--from", "bitcaskpy", "old", "--keep"]).ended(0);
    assert_eq!(sandbox.run(["get", "tea"]).ended(0), "hot");
    let report = sandbox.run(["import", "--from", "bitcaskpy", "old"]);
    assert!(report.ended(0).contains("1 keys were there already"), "{}", report.text());
    assert_eq!(sandbox.run(["get", "tea"]).ended(0), "cold");
    sandbox.run(["import", "--from", "prologic", "old"]).failed(2, "old");
}

#[test]
fn a_backup_is_a_store_and_is_restored() {
    let sandbox = mixed();
    let report = sandbox.run(["backup", "copy", "-o", "plain"]);
    assert!(report.ended(0).starts_with("segments\t"), "{}", report.text());
    sandbox.run(["backup", "copy"]).failed(2, "cannot copy the store to");
    assert_eq!(content(&sandbox, "copy"), content(&sandbox, "data"));
    sandbox.run(["restore", "copy"]).failed(2, "holds a store already");
    sandbox.run(["-d", "again", "restore", "copy"]).ended(0);
    assert_eq!(content(&sandbox, "again"), content(&sandbox, "data"));
    sandbox.run(["-d", "third", "restore", "nowhere"]).failed(3, "there is no store at");
    assert!(!sandbox.path("third").exists());
    let log = crate::support::files_of(&sandbox.path("copy"), "log").pop().unwrap();
    crate::support::flip(&log, 64 + 24);
    let damaged = sandbox.run(["-d", "third", "restore", "copy"]);
    damaged.failed(3, "the backup is damaged");
    assert!(damaged.text().contains("could not be read"), "{}", damaged.text());
}

#[test]
fn changes_are_shown_as_they_are_made() {
    let sandbox = Sandbox::new();
    // The default segments: small ones would end faster than a reader can follow.
    let options = Options::new().sync_policy(SyncPolicy::Never);
    let db = Bitcask::open(sandbox.store(), options).unwrap();
    let mut child = sandbox.bitcask(["watch", "-n", "3", "--interval", "1ms"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The program begins with the changes after its start, whenever that is.
    let first = std::thread::scope(|scope| {
        let reader = scope.spawn(|| lines.next().unwrap().unwrap());
        while !reader.is_finished() {
            db.put("tick", "tock").unwrap();
            std::thread::yield_now();
        }
        reader.join().unwrap()
    });
    assert_eq!(first, "put\ttick\ttock");
    // The program may have seen one change only.
    for _ in 0..2 {
        db.put("tick", "tock").unwrap();
    }
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(rest, ["put\ttick\ttock"; 2]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("resume with --since "));
    db.close().unwrap();
}

#[test]
fn watching_resumes_where_it_has_stopped() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "a", "1"]).ended(0);
    sandbox.run(["put", "b", "2"]).ended(0);
    sandbox.run(["delete", "a"]).ended(0);
    let args = ["watch", "--no-wait", "--since", "start"];
    let first = sandbox.run([&args[..], &["-n", "1"]].concat());
    assert_eq!(first.ended(0), "put\ta\t1\n");
    let position = first.err.trim().strip_prefix("resume with --since ").unwrap();
    let rest = sandbox.run(["watch", "--no-wait", "--since", position]);
    assert_eq!(rest.ended(0), "put\tb\t2\ndelete\ta\n");
    assert_eq!(sandbox.run([&args[..], &["b"]].concat()).ended(0), "put\tb\t2\n");
    // What is watched can be imported, deletes too.
    let json = sandbox.run([&args[..], &["-o", "json"]].concat());
    let imported = sandbox.feed(["-d", "copy", "import", "-o", "plain"], json.ended(0).as_bytes());
    assert_eq!(imported.ended(0), "imported\t2\ndeleted\t1\n");
    assert_eq!(content(&sandbox, "copy"), content(&sandbox, "data"));
    sandbox.run(["merge", "--force"]).ended(0);
    sandbox.run(["watch", "--since", position]).failed(3, "are gone");
    let foreign = "0000000000000001-0000000100000008";
    sandbox.run(["watch", "--since", foreign]).failed(2, "does not belong to");
}
