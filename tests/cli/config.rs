//! Settings: where they come from, and what they do.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::{Ran, Sandbox, files_of};

fn run(sandbox: &Sandbox, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = sandbox.bitcask(args);
    command.envs(variables.iter().copied());
    Ran::new(command.output().unwrap())
}

#[test]
fn the_directory_is_that_of_the_option_the_variable_the_file_or_the_default() {
    let sandbox = Sandbox::empty();
    for dir in ["option", "variable", "file", "data"] {
        run(&sandbox, &["-d", dir, "put", "--create", "who", dir], &[]).ended(0);
    }
    let get = |args: &[&str], variables: &[(&str, &str)]| {
        run(&sandbox, &[args, &["get", "who"]].concat(), variables).ended(0).to_owned()
    };
    assert_eq!(get(&[], &[]), "data");
    run(&sandbox, &["config", "set", "dir", "file"], &[]).ended(0);
    assert_eq!(get(&[], &[]), "file");
    let variable = [("BITCASK_DIR", "variable")];
    assert_eq!(get(&[], &variable), "variable");
    assert_eq!(get(&["--dir", "option"], &variable), "option");
    assert_eq!(get(&["--data-dir", "option"], &variable), "option");
    // A variable that is empty is one that is not set.
    assert_eq!(get(&[], &[("BITCASK_DIR", "")]), "file");
    assert_eq!(run(&sandbox, &["get", "who", "-d", "option"], &variable).ended(0), "option");
    // A directory need not be text.
    let odd = OsStr::from_bytes(b"odd \xff");
    let mut command = sandbox.bitcask(["init"]);
    assert!(command.env("BITCASK_DIR", odd).status().unwrap().success());
    assert!(sandbox.path("").join(odd).join("MANIFEST").exists());
}

#[test]
fn settings_are_set_listed_shown_and_reset() {
    let sandbox = Sandbox::empty();
    let run = |args: &[&str]| run(&sandbox, &[&["config"], args].concat(), &[]);
    let file = sandbox.path("home/.config/bitcask/config.toml");
    if cfg!(target_os = "linux") {
        assert_eq!(run(&["path"]).ended(0), format!("{}\n", file.display()));
    }
    run(&["view"]).failed(1, "there is no file");
    run(&["set", "segment-size", "1MiB"]).ended(0);
    run(&["set", "sync", "always"]).ended(0);
    run(&["set", "segment_size", "2MiB"]).ended(0);
    assert_eq!(run(&["view"]).ended(0), "segment-size = \"2MiB\"\nsync = \"always\"\n");
    assert_eq!(run(&["get", "segment-size"]).ended(0), "2MiB\n");
    assert_eq!(run(&["get", "compression"]).ended(0), "none\n");
    let list = run(&["list"]);
    let sync = list.ended(0).lines().find(|line| line.starts_with("sync ")).unwrap().to_owned();
    assert!(sync.contains("always") && sync.contains("file"), "{sync}");
    run(&["set", "colour", "red"]).failed(2, "there is no setting `colour`");
    run(&["get", "colour"]).failed(2, "bitcask config list");
    run(&["set", "sync", "sometimes"]).failed(2, "expected always, never");
    run(&["set", "keep-history", "0s"]).failed(2, "more than zero");
    run(&["reset"]).failed(2, "--yes");
    run(&["reset", "--yes"]).ended(0);
    run(&["view"]).failed(1, "there is no file");
    run(&["reset", "--yes"]).ended(0);
}

#[test]
fn a_file_that_is_wrong_is_an_error_until_it_is_reset() {
    let sandbox = Sandbox::new();
    let named = [("BITCASK_CONFIG", "own.toml")];
    let run = |args: &[&str]| run(&sandbox, args, &named);
    fs::write(sandbox.path("own.toml"), "dir = [1]").unwrap();
    run(&["list"]).failed(2, "own.toml: `dir` has to be");
    fs::write(sandbox.path("own.toml"), "shape = 'round'").unwrap();
    run(&["list"]).failed(2, "unknown setting `shape`");
    fs::write(sandbox.path("own.toml"), "no toml").unwrap();
    run(&["list"]).failed(2, "not valid TOML");
    assert_eq!(run(&["config", "path"]).ended(0), "own.toml\n");
    assert_eq!(run(&["config", "view"]).ended(0), "no toml");
    run(&["config", "reset", "--yes"]).ended(0);
    assert_eq!(run(&["list"]).ended(0), "");
    fs::write(sandbox.path("other.toml"), "output = 'json'").unwrap();
    run(&["put", "k", "v"]).ended(0);
    assert_eq!(run(&["list", "--config", "other.toml"]).ended(0), "{\"key\":\"k\"}\n");
}

#[test]
fn the_variables_of_bitcaskpy_reach_the_store() {
    let sandbox = Sandbox::new();
    let line = |number: u32| format!("{{\"key\":\"{number}\",\"value\":\"\"}}\n");
    let lines: Vec<_> = (0..50).map(line).collect();
    let mut command = sandbox.bitcask(["import"]);
    // No batch is split, so a segment has as many entries as a batch.
    command.env("BITCASKPY_MAX_ENTRIES_PER_SEGMENT", "10").env("BITCASK_MERGE", "manual");
    command.env("BITCASKPY_MAX_SEGMENT_SIZE", "512").env("BITCASKPY_SYNC", "true");
    crate::support::feed(command, lines.concat().as_bytes()).ended(0);
    let segments = files_of(&sandbox.store(), "log").len();
    assert!(segments >= 5, "{segments} segments");
    let list = run(&sandbox, &["config", "list"], &[("BITCASKPY_FSYNC_INTERVAL", "5")]);
    assert!(list.ended(0).contains("BITCASKPY_FSYNC_INTERVAL"), "{}", list.text());
    // An interval of zero was every write, for bitcaskpy.
    run(&sandbox, &["put", "k", "v"], &[("BITCASKPY_FSYNC_INTERVAL", "0")]).ended(0);
    run(&sandbox, &["put", "k", "v"], &[("BITCASKPY_MAX_SEGMENT_SIZE", "big")])
        .failed(2, "change or unset BITCASKPY_MAX_SEGMENT_SIZE");
    run(&sandbox, &["put", "k", "v"], &[("BITCASK_SEGMENT_SIZE", "1")])
        .failed(2, "the setting `segment-size` is 1");
}

#[test]
fn a_wrong_form_of_output_is_noticed_before_anything_is_done() {
    let sandbox = Sandbox::new();
    let wrong = [("BITCASK_OUTPUT", "xx")];
    run(&sandbox, &["incr", "n"], &wrong).failed(2, "expected auto, table, json or plain");
    run(&sandbox, &["incr", "n"], &wrong).failed(2, "change or unset BITCASK_OUTPUT");
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "0\n");
    // What does not depend on it works, and so does a choice on the command line.
    run(&sandbox, &["config", "path"], &wrong).ended(0);
    run(&sandbox, &["completions", "bash"], &wrong).ended(0);
    assert_eq!(run(&sandbox, &["-o", "plain", "incr", "n"], &wrong).ended(0), "1\n");
}

#[test]
fn a_preset_is_the_settings_of_an_older_program() {
    let sandbox = Sandbox::new();
    let run = |args: &[&str]| run(&sandbox, args, &[]);
    run(&["config", "set", "preset", "riak"]).failed(2, "expected none, bitcaskpy or pybitcask");
    run(&["config", "set", "preset", "bitcaskpy"]).ended(0);
    let list = run(&["config", "list"]);
    for (setting, value) in [
        ("sync", "5s"),
        ("segment-size", "10MiB"),
        ("segment-entries", "10000"),
        ("key-size-limit", "1KiB"),
    ] {
        let line = list.ended(0).lines().find(|line| line.starts_with(setting)).unwrap();
        assert!(line.contains(value) && line.contains("preset bitcaskpy"), "{line}");
    }
    run(&["put", &"k".repeat(1025), "v"]).failed(2, "the key has 1025 bytes, the limit is 1024");
    run(&["put", &"k".repeat(1024), "v"]).ended(0);
    let value = vec![b'v'; (1 << 20) + 1];
    sandbox.feed(["put", "k", "-"], &value).failed(2, "value-size-limit");
}
