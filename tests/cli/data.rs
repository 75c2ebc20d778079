//! Commands that read and write keys.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::Sandbox;

/// Returns a sandbox with the fruits `a` to `c`.
fn fruits() -> Sandbox {
    let sandbox = Sandbox::new();
    for (key, value) in [("fruit/a", "apple"), ("fruit/b", "banana"), ("fruit/c", "cherry")] {
        sandbox.run(["put", key, value]).ended(0);
    }
    sandbox
}

#[test]
fn every_alias_of_a_data_command_does_the_same() {
    let sandbox = Sandbox::new();
    for put in ["put", "set", "add", "store"] {
        assert_eq!(sandbox.run([put, "key", put]).ended(0), "");
        for get in ["get", "view"] {
            assert_eq!(sandbox.run([get, "key"]).ended(0), put);
        }
    }
    for list in ["list", "ls", "keys"] {
        assert_eq!(sandbox.run([list]).ended(0), "key\n");
    }
    for scan in ["scan", "find", "search"] {
        assert_eq!(sandbox.run([scan, "k"]).ended(0), "key\tstore\n");
    }
    for delete in ["delete", "del", "rm", "remove"] {
        sandbox.run(["put", "key", "value"]).ended(0);
        sandbox.run([delete, "key"]).ended(0);
        sandbox.run([delete, "key"]).failed(1, "key not found: key");
    }
}

#[test]
fn a_key_that_does_not_exist_has_its_own_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.run(["get", "key"]).failed(1, "key not found: key");
    assert_eq!(sandbox.run(["exists", "key"]).ended(1), "no\n");
    for command in ["ttl", "persist"] {
        sandbox.run([command, "key"]).failed(1, "key not found");
    }
    sandbox.run(["expire", "key", "1h"]).failed(1, "key not found");
    sandbox.run(["put", "key", "value"]).ended(0);
    assert_eq!(sandbox.run(["exists", "key"]).ended(0), "yes\n");
    assert_eq!(sandbox.run(["-o", "json", "exists", "key"]).ended(0), "{\"exists\":true}\n");
}

#[test]
fn a_value_comes_from_the_argument_from_standard_input_or_from_a_file() {
    let sandbox = Sandbox::new();
    let bytes = b"\x00\xff line\n\n";
    fs::write(sandbox.path("value"), bytes).unwrap();
    sandbox.run(["put", "file", "@value"]).ended(0);
    sandbox.feed(["put", "stdin", "-"], bytes).ended(0);
    for key in ["file", "stdin"] {
        assert_eq!(sandbox.run(["get", key]).out, bytes);
    }
    sandbox.run(["put", "literal", "--literal", "@value"]).ended(0);
    assert_eq!(sandbox.run(["get", "literal"]).ended(0), "@value");
    sandbox.run(["put", "empty", ""]).ended(0);
    assert_eq!(sandbox.run(["get", "empty"]).ended(0), "");
    sandbox.run(["put", "key", "@nowhere"]).failed(3, "cannot read nowhere");
    sandbox.run(["put", "key", "@nowhere"]).failed(3, "--literal takes");
    sandbox.run(["put", "key", "@data"]).failed(3, "cannot read data");
}

#[test]
fn keys_and_values_can_be_any_bytes() {
    let sandbox = Sandbox::new();
    let key = OsStr::from_bytes(b"a\n\xff\tb");
    sandbox.run([OsStr::new("put"), key, OsStr::from_bytes(b"\xfe\x1b[31m")]).ended(0);
    let got = sandbox.run([OsStr::new("get"), key]);
    assert_eq!((got.code, got.out.as_slice()), (Some(0), &b"\xfe\x1b[31m"[..]));
    assert_eq!(sandbox.run(["list"]).out, b"a\n\xff\tb\n");
    assert_eq!(sandbox.run(["list", "-0"]).out, b"a\n\xff\tb\0");
    let table = sandbox.run(["-o", "table", "scan", "a"]);
    assert!(table.ended(0).contains(r"a\n\xff\tb"), "{}", table.text());
    let json = sandbox.run(["-o", "json", "scan", "a"]);
    let expected = "{\"key_base64\":\"YQr/CWI=\",\"value_base64\":\"/htbMzFt\"}\n";
    assert_eq!(json.ended(0), expected);
    assert_eq!(sandbox.run(["--base64", "scan", "YQ=="]).ended(0), "YQr/CWI=\t/htbMzFt\n");
}

#[test]
fn with_base64_everything_is_base64() {
    let sandbox = Sandbox::new();
    sandbox.run(["--base64", "put", "AP8=", "aGVsbG8="]).ended(0);
    sandbox.feed(["--base64", "put", "AA==", "-"], b" aGk=\n").ended(0);
    assert_eq!(sandbox.run(["--base64", "get", "AP8="]).ended(0), "aGVsbG8=\n");
    assert_eq!(sandbox.run(["--base64", "list"]).ended(0), "AA==\nAP8=\n");
    assert_eq!(sandbox.run(["--base64", "range", "AA==", "AP8="]).ended(0), "AA==\taGk=\n");
    // Other programs break base64 into lines.
    sandbox.feed(["--base64", "put", "AQ==", "-"], b"aGVs\r\nbG8=\r\n").ended(0);
    assert_eq!(sandbox.run(["--base64", "get", "AQ=="]).ended(0), "aGVsbG8=\n");
    let line = b"{\"key\":\"AQ==\",\"value\":\"aGk=\"}\n";
    sandbox.feed(["--base64", "batch"], line).ended(0);
    assert_eq!(sandbox.run(["--base64", "get", "AQ=="]).ended(0), "aGk=\n");
    sandbox.feed(["--base64", "batch"], b"{\"key\":\"k\",\"value\":\"\"}").failed(2, "line 1: ");
    sandbox.run(["--base64", "delete", "AQ=="]).ended(0);
    sandbox.run(["--base64", "get", "not base64"]).failed(2, "invalid base64");
    sandbox.run(["--base64", "exists", "AP8="]).ended(0);
    sandbox.run(["--base64", "delete", "AP8=", "AA=="]).ended(0);
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "0\n");
}

#[test]
fn a_put_can_depend_on_the_key_and_can_expire() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "key", "first", "--if-absent"]).ended(0);
    sandbox.run(["put", "key", "second", "--if-absent"]).failed(1, "the key exists");
    assert_eq!(sandbox.run(["get", "key"]).ended(0), "first");
    assert_eq!(sandbox.run(["ttl", "key"]).ended(0), "never\n");

    sandbox.run(["put", "key", "third", "--ttl", "1h", "--durable"]).ended(0);
    let left: f64 = sandbox.run(["ttl", "key"]).ended(0).trim().parse().unwrap();
    assert!(left > 0.0 && left <= 3600.0, "{left}");
    sandbox.run(["put", "key", "fourth", "--keep-ttl"]).ended(0);
    assert!(sandbox.run(["-o", "json", "ttl", "key"]).ended(0).starts_with("{\"ttl_seconds\":"));
    sandbox.run(["persist", "key"]).ended(0);
    assert_eq!(sandbox.run(["-o", "json", "ttl", "key"]).ended(0), "{\"ttl_seconds\":null}\n");

    sandbox.run(["put", "past", "x", "--expires-at", "2001-02-03T04:05:06Z"]).ended(0);
    sandbox.run(["get", "past"]).failed(1, "key not found");
    sandbox.run(["expire", "key", "0s"]).ended(0);
    sandbox.run(["exists", "key"]).ended(1);
    sandbox.run(["put", "key", "x", "--ttl", "soon"]).failed(2, "expected a duration");
    sandbox.run(["put", "key", "x", "--ttl", "1s", "--keep-ttl"]).failed(2, "cannot be used");
}

#[test]
fn listings_have_an_order_a_limit_and_two_ends() {
    let sandbox = fruits();
    sandbox.run(["put", "vegetable", "leek"]).ended(0);
    let all = "fruit/a\nfruit/b\nfruit/c\nvegetable\n";
    assert_eq!(sandbox.run(["list"]).ended(0), all);
    assert_eq!(sandbox.run(["list", "fruit/", "--reverse", "-n", "1"]).ended(0), "fruit/c\n");
    assert_eq!(sandbox.run(["list", "fruit/", "--count"]).ended(0), "3\n");
    let json = sandbox.run(["list", "fruit/", "--count", "-o", "json"]);
    assert_eq!(json.ended(0), "{\"count\":3}\n");
    assert_eq!(sandbox.run(["scan", "fruit/", "--keys-only", "-n", "1"]).ended(0), "fruit/a\n");
    let range = |args: &[&str]| sandbox.run([&["range"], args].concat()).ended(0).to_owned();
    assert_eq!(range(&["fruit/a", "fruit/c", "-k"]), "fruit/a\nfruit/b\n");
    assert_eq!(range(&["fruit/b", "fruit/c", "-i"]), "fruit/b\tbanana\nfruit/c\tcherry\n");
    assert_eq!(range(&["-", "-", "--count"]), "4\n");
    assert_eq!(range(&["-", "fruit/b"]), "fruit/a\tapple\n");
    assert_eq!(range(&["x", "a"]), "");
    let table = sandbox.run(["-o", "table", "list"]);
    assert_eq!(table.ended(0).lines().collect::<Vec<_>>()[..2], ["key", "fruit/a"]);
}

#[test]
fn a_batch_is_applied_whole_or_not_at_all() {
    let sandbox = fruits();
    let lines = concat!(
        "{\"key\":\"x\",\"value\":\"1\",\"ttl\":\"1h\"}\n\n",
        "{\"key_base64\":\"/w==\",\"value_base64\":\"AA==\"}\n",
        "{\"op\":\"delete\",\"key\":\"fruit/a\"}\n",
    );
    assert_eq!(
        sandbox.feed(["-o", "plain", "batch"], lines.as_bytes()).ended(0),
        "puts\t2\ndeletes\t1\n"
    );
    assert_eq!(sandbox.run(["--base64", "get", "/w=="]).ended(0), "AA==\n");
    assert_eq!(sandbox.run(["list", "fruit/", "--count"]).ended(0), "2\n");

    let bad = format!("{lines}{{\"op\":\"move\",\"key\":\"y\"}}\n");
    fs::write(sandbox.path("bad.jsonl"), bad.replace("\"x\"", "\"z\"")).unwrap();
    sandbox.run(["batch", "bad.jsonl"]).failed(2, "bad.jsonl, line 5: ");
    sandbox.run(["exists", "z"]).ended(1);
    sandbox.feed(["batch", "-"], b"").ended(0);
    let missing = sandbox.run(["batch", "missing.jsonl"]);
    missing.failed(3, "cannot read missing.jsonl");
    assert!(!missing.err.contains("--literal"), "{}", missing.err);
}

#[test]
fn a_batch_that_fits_into_no_segment_is_refused_as_a_whole() {
    let sandbox = Sandbox::new();
    let line = format!("{{\"key\":\"k\",\"value\":\"{}\"}}\n", "x".repeat(1 << 20));
    let mut command = sandbox.bitcask(["batch"]);
    command.env("BITCASK_SEGMENT_SIZE", "1MiB");
    let ran = crate::support::feed(command, line.repeat(20).as_bytes());
    ran.failed(2, "bitcask import");
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "0\n");
}

#[test]
fn a_counter_counts() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(["incr", "n"]).ended(0), "1\n");
    assert_eq!(sandbox.run(["incr", "n", "41"]).ended(0), "42\n");
    assert_eq!(sandbox.run(["incr", "n", "-50", "-o", "json"]).ended(0), "{\"value\":-8}\n");
    sandbox.run(["put", "n", "many"]).ended(0);
    sandbox.run(["incr", "n"]).failed(2, "not a whole number");
    assert_eq!(sandbox.run(["get", "n"]).ended(0), "many");
    sandbox.run(["incr", "n", "some"]).failed(2, "invalid value");
}

#[test]
fn clear_asks_first() {
    let sandbox = fruits();
    // Standard input is no terminal, so nobody can answer.
    sandbox.run(["clear"]).failed(2, "--yes");
    sandbox.feed(["clear"], b"y\n").failed(2, "--yes");
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "3\n");
    sandbox.run(["clear", "--yes"]).ended(0);
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "0\n");
}

#[test]
fn a_store_is_created_only_on_request() {
    let sandbox = Sandbox::empty();
    for args in [&["put", "k", "v"][..], &["incr", "k"], &["get", "k"], &["list"], &["stats"]] {
        sandbox.run(args).failed(3, "there is no store at ");
        assert!(!sandbox.store().exists(), "{args:?}");
    }
    let failed = sandbox.run(["get", "k"]);
    assert!(failed.err.contains("next: create one with `bitcask init`"), "{}", failed.err);
    sandbox.run(["put", "k", "v", "--create"]).ended(0);
    assert_eq!(sandbox.run(["get", "k"]).ended(0), "v");
    sandbox.run(["init"]).failed(0, "already a store");
    fs::write(sandbox.path("file"), "").unwrap();
    sandbox.run(["-d", "file", "get", "k"]).failed(3, "not a directory");
}
