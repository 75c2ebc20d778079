//! Ctrl-C in the middle of long work.
//!
//! Each test waits for something that happens only in the middle, and sends the signal then.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread::yield_now;

use bitcask::{Bitcask, Options, ReadOnly, inspect};

use crate::support::{Ran, Sandbox, small};

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// Fails if the program has ended, so that no test waits for ever.
#[track_caller]
fn still_runs(child: &mut Child) {
    assert_eq!(child.try_wait().unwrap(), None, "the program has ended too early");
}

#[track_caller]
fn check_intact(sandbox: &Sandbox) {
    sandbox.run(["verify"]).ended(0);
    sandbox.run(["put", "after", "wards"]).ended(0);
    assert_eq!(sandbox.run(["get", "after"]).ended(0), "wards");
}

#[test]
fn an_import_that_is_interrupted_while_it_waits_has_written_all_that_it_read() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.bitcask(["import"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for number in 0..5500 {
        writeln!(stdin, "{{\"key\":\"{number:06}\",\"value\":\"v\"}}").unwrap();
    }
    stdin.flush().unwrap();
    // The input is not at its end, so the import waits for more. What it has read is not lost.
    while ReadOnly::open(sandbox.store(), Options::new()).unwrap().len().unwrap() < 5500 {
        still_runs(&mut child);
        yield_now();
    }
    interrupt(&child);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    drop(stdin);
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "5500\n");
    check_intact(&sandbox);
}

#[test]
fn rows_of_csv_are_in_the_store_while_an_import_waits_for_more() {
    let sandbox = Sandbox::new();
    let args = ["import", "--format", "csv"];
    let mut child = sandbox.bitcask(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"key,value,expires_at\na,1,\nb,2,\nc,").unwrap();
    while ReadOnly::open(sandbox.store(), Options::new()).unwrap().len().unwrap() < 2 {
        still_runs(&mut child);
        yield_now();
    }
    stdin.write_all(b"3,\n").unwrap();
    drop(stdin);
    Ran::new(child.wait_with_output().unwrap()).ended(0);
    assert_eq!(sandbox.run(["range", "-", "-"]).ended(0), "a\t1\nb\t2\nc\t3\n");
}

#[test]
fn a_merge_that_is_interrupted_leaves_the_store_intact() {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    for round in 0..20_u8 {
        for number in 0..100 {
            db.put(format!("key {number:03}"), vec![round; 200]).unwrap();
        }
    }
    db.close().unwrap();
    // At one byte per second, the first step that copies something lasts longer than any test.
    let mut command = sandbox.bitcask(["merge", "--force", "--rate", "1"]);
    let mut child = command.env("BITCASK_MERGE", "manual").spawn().unwrap();
    let is_merged = |id: &u32| inspect::segment(sandbox.store(), *id).is_ok_and(|it| it.merged);
    while !inspect::segment_ids(sandbox.store()).unwrap().iter().any(is_merged) {
        still_runs(&mut child);
        yield_now();
    }
    interrupt(&child);
    let ran = Ran::new(child.wait_with_output().unwrap());
    ran.failed(130, "interrupted; the store is intact");
    assert!(ran.text().contains("segments merged"), "{}", ran.text());
    check_intact(&sandbox);
    let db = Bitcask::open(sandbox.store(), small()).unwrap();
    for number in 0..100 {
        assert_eq!(db.get(format!("key {number:03}")).unwrap().unwrap(), &[19_u8; 200]);
    }
    db.close().unwrap();
}

#[test]
fn watching_ends_with_the_position_to_resume_at() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "key", "value"]).ended(0);
    // It does not wait for the end of its interval.
    let args = ["watch", "--since", "start", "--interval", "1h"];
    let mut child = sandbox.bitcask(args).spawn().unwrap();
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    assert_eq!(line, "put\tkey\tvalue\n");
    interrupt(&child);
    let ran = Ran::new(child.wait_with_output().unwrap());
    ran.failed(130, "resume with --since ");
}

#[test]
fn a_program_that_waits_for_input_ends_at_once() {
    let sandbox = Sandbox::new();
    for args in [&["batch"][..], &["put", "key", "-"], &["import", "--format", "csv"]] {
        let mut child = sandbox.bitcask(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than a pipe holds, so the program has begun to read once all is written. Before it
        // listens, a signal is lost if the shell has started these tests in the background.
        stdin.write_all(&[b"{\"key\":\""[..].to_vec(), vec![b'k'; 80_000]].concat()).unwrap();
        interrupt(&child);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{args:?}");
        drop(stdin);
    }
    check_intact(&sandbox);
}
