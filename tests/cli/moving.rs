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
    wrong("key,value\na\n", "line 2: 1 field instead of 2");
    wrong("key_base64,value\n!,b\n", "line 2: invalid base64");
    wrong("key,value,ttl\na,b,soon\n", "line 2: expected a duration");
}

#[test]
fn an_import_stops_at_a_line_that_is_wrong_and_says_how_far_it_came() {
    let sandbox = Sandbox::new();
    let line = |number| format!("{{\"key\":\"{number:05}\",\"value\":\"v\"}}\n");
    let lines: String = (0..2500).map(line).collect();
    fs::write(sandbox.path("pairs.jsonl"), format!("{lines}{{\"key\":1}}\n")).unwrap();
    let ran = sandbox.run(["import", "pairs.jsonl"]);
    ran.failed(2, "pairs.jsonl, line 2501: ");
    ran.failed(2, "2000 pairs were imported before this");
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "2000\n");
    // A pipe is read as far as it goes, too.
    let ran = sandbox.feed(["import"], b"{\"key\":\"a\",\"value\":\"\"}\n{}\n");
    ran.failed(2, "standard input, line 2: ");
    sandbox.run(["import", "nowhere"]).failed(3, "cannot read nowhere");
    sandbox.run(["import", "--from", "basho", "there"]).failed(3, "there");
    sandbox.run(["import", "--from", "basho"]).failed(2, "required");
}

#[test]
fn a_pair_that_is_too_large_stops_an_import_at_its_line() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str], input: &str| {
        let mut command = sandbox.bitcask(args);
        command.env("BITCASK_VALUE_SIZE_LIMIT", "5").env("BITCASK_KEY_SIZE_LIMIT", "5");
        crate::support::feed(command, input.as_bytes())
    };
    let line = |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n");
    let fine = line("key", "value");
    let value = "line 2: the value has 6 bytes, the limit is 5";
    run(&["import"], &(fine.clone() + &line("key", "values"))).failed(2, value);
    run(&["batch"], &(fine.clone() + &line("key", "values"))).failed(2, value);
    run(&["import", "--format", "csv"], "key,value\nkey,values\n").failed(2, value);
    let key = "line 2: the key has 6 bytes, the limit is 5";
    run(&["import"], &(fine.clone() + &line("longer", "value"))).failed(2, key);
    // It may have been put under a higher limit.
    run(&["import"], &(fine + "{\"op\":\"delete\",\"key\":\"longer\"}\n")).ended(0);
}

#[test]
fn an_import_that_fails_says_where_to_resume_watching() {
    let sandbox = Sandbox::new();
    let line = |number| {
        format!(
            "{{\"op\":\"put\",\"key\":\"{number}\",\"value\":\"v\",\"position\":\"p{number}\"}}\n"
        )
    };
    let lines: String = (0..1500).map(line).collect();
    fs::write(sandbox.path("changes.jsonl"), lines + "{}\n").unwrap();
    let ran = sandbox.run(["import", "changes.jsonl"]);
    ran.failed(2, "1000 pairs were imported before this");
    ran.failed(2, "resumes after them with --since p999\n");
}

#[test]
fn an_imported_pair_without_an_expiry_does_not_expire() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str], input: &str| {
        let mut command = sandbox.bitcask(args);
        command.env("BITCASK_DEFAULT_TTL", "1h");
        crate::support::feed(command, input.as_bytes()).ended(0).to_owned()
    };
    let line = "{\"key\":\"json\",\"value\":\"v\"}\n";
    run(&["import"], line);
    run(&["import", "--format", "csv"], "key,value,ttl\ncsv,v,\nsoon,v,60\n");
    for key in ["json", "csv"] {
        assert_eq!(sandbox.run(["ttl", key]).ended(0), "never\n", "{key}");
    }
    assert_ne!(sandbox.run(["ttl", "soon"]).ended(0), "never\n");
    // A batch is a way to write, and follows the setting.
    run(&["batch"], line);
    assert_ne!(sandbox.run(["ttl", "json"]).ended(0), "never\n");
}

#[test]
fn an_expiry_is_exported_exactly() {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    let late = SystemTime::UNIX_EPOCH + Duration::from_micros(4_000_000_000_123_457);
    db.put_opt("late", "x", WriteOptions::new().expires_at(late)).unwrap();
    db.close().unwrap();
    for form in ["json", "csv"] {
        let export =
            |dir: &str| sandbox.run(["-d", dir, "export", "--format", form]).ended(0).to_owned();
        let exported = export("data");
        assert!(exported.contains("2096-10-02T07:06:40.123457Z"), "{exported}");
        sandbox.feed(["-d", form, "import", "--format", form], exported.as_bytes()).ended(0);
        assert_eq!(export(form), exported);
    }
}

#[test]
fn an_export_replaces_files_and_nothing_else() {
    let sandbox = mixed();
    let (link, real) = (sandbox.path("link.jsonl"), sandbox.path("real.jsonl"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.jsonl", &link).unwrap();
    sandbox.run(["export", "link.jsonl"]).ended(0);
    assert!(link.is_symlink() && fs::read_to_string(&real).unwrap().lines().count() == 4);

    let pipe = sandbox.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // It is open on both sides, so nobody waits.
    let mut reader =
        BufReader::new(fs::File::options().read(true).write(true).open(&pipe).unwrap());
    sandbox.run(["export", "pipe", "--prefix", "te"]).failed(0, "1 pair exported");
    let is_pipe = fs::symlink_metadata(&pipe).is_ok_and(|meta| !meta.is_file());
    assert!(is_pipe, "the pipe was replaced");
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.starts_with(r#"{"key":"text""#), "{first}");
    let failed = sandbox.run(["export", "data"]);
    failed.failed(3, "cannot write data: ");
}

#[test]
fn base64_holds_for_what_is_imported() {
    let sandbox = Sandbox::new();
    sandbox.feed(["--base64", "import"], b"{\"key\":\"AP8=\",\"value\":\"AA==\"}\n").ended(0);
    sandbox.feed(["--base64", "import", "--format", "csv"], b"key,value\nAQ==,aGk=\n").ended(0);
    assert_eq!(content(&sandbox, "data"), "AP8=\tAA==\nAQ==\taGk=\n");
    let ran = sandbox.feed(["--base64", "import", "--format", "csv"], b"key,value\n!,\n");
    ran.failed(2, "line 2: invalid base64");
}

#[test]
fn a_table_that_was_cut_off_is_refused() {
    let sandbox = Sandbox::new();
    let import = |table: &str| sandbox.feed(["import", "--format", "csv"], table.as_bytes());
    let wrong = |table: &str, reason: &str| import(table).failed(2, reason);
    wrong("key,value\na,1\nb,\"2\nc,3\n", "line 3: a quoted field has no end");
    wrong("key,value\na,\"1", "line 2: a quoted field has no end");
    wrong("key,\"value\na,1\n", "line 1: a quoted field has no end");
    wrong("key,value,expires_at\na,1,", "line 2: the last line has no line end");
    wrong("key,value,ttl\na,1,6", "line 2: the last line has no line end");
    wrong("", "heading `key` or `key_base64`");
    assert_eq!(sandbox.run(["range", "-", "-"]).ended(0), "a\t1\n");
    // These are whole.
    import("key,value\nb,2").ended(0);
    import("key,value\r\nc,\"3\n\"\r\n").ended(0);
    import("key,value\nd,\"4\"\"\"").ended(0);
    import("key,value,ttl\ne,5,60\n").ended(0);
    import("key,value\n").ended(0);
    let all = "a\t1\nb\t2\nc\t3\n\nd\t4\"\ne\t5\n";
    assert_eq!(sandbox.run(["range", "-", "-"]).ended(0), all);
}

#[test]
fn a_directory_without_a_store_to_import_creates_none() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.path("wrong")).unwrap();
    fs::write(sandbox.path("wrong/segment_0.log"), "").unwrap();
    for program in ["pybitcask", "basho", "prologic"] {
        let ran = sandbox.run(["import", "--from", program, "wrong"]);
        ran.failed(2, &format!("it has no file of a store of {program}"));
    }
    sandbox.run(["import", "--from", "bitcaskpy", "nowhere"]).failed(3, "cannot read nowhere");
    assert!(!sandbox.store().exists(), "a store was created");
    sandbox.run(["import", "--from", "bitcaskpy", "wrong"]).ended(0);
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
    assert!(report.ended(0).contains("1 key was there already"), "{}", report.text());
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
    let nowhere = sandbox.run(["-d", "third", "restore", "nowhere"]);
    nowhere.failed(3, "there is no store at nowhere");
    assert!(!nowhere.err.contains("init"), "{}", nowhere.err);
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
