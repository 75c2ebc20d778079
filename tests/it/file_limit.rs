//! A process that may write no file as large as a segment: it goes on in smaller ones.
//!
//! The limit is of a process and ends it by a signal when it is passed, so it is set in processes of their
//! own.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::process::Command;

use bitcask::{AppendMode, Bitcask, Error, MergeOptions, Options};

use crate::support::{Actor, ROLE, SAYS, STORE, actor, files_of, logs, options, pairs};

/// What the names of the parts begin with that child processes play here.
pub(crate) const PART: &str = "file limit: ";

/// The limit in these tests.
const LIMIT: u64 = 256 << 10;

/// What a child process plays.
pub(crate) fn play(part: &str, dir: &Path) {
    match part.trim_start_matches(PART) {
        "from the beginning" => write_and_merge(dir),
        "while it is open" => lower_while_open(dir),
        other => unreachable!("there is no part {other}"),
    }
    println!("{SAYS}done");
}

/// Plays a part under a limit that is set before it begins, or by itself.
fn played(part: &str, dir: &Path, is_limited: bool) {
    let inner = actor(&format!("{PART}{part}"), dir);
    let mut command = Command::new("prlimit");
    if is_limited {
        command.arg(format!("--fsize={LIMIT}"));
    }
    command.arg("--").arg(inner.get_program()).args(inner.get_args());
    command.env(ROLE, format!("{PART}{part}")).env(STORE, dir);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = match Actor::start(command) {
        Ok(child) => child,
        Err(error) => return println!("skipped: prlimit can't be run: {error}"),
    };
    let said: Vec<String> = std::iter::from_fn(|| child.hear()).collect();
    let status = child.wait();
    assert!(status.success(), "{part}: {status}");
    assert_eq!(said, ["done"], "{part}");
}

#[test]
fn under_a_limit_of_file_sizes_segments_end_earlier() {
    let dir = tempfile::tempdir().unwrap();
    played("from the beginning", dir.path(), true);
    check_without_limit(dir.path());
}

#[test]
fn a_limit_of_file_sizes_that_comes_while_a_store_is_open_ends_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    played("while it is open", dir.path(), false);
    check_without_limit(dir.path());
}

fn check_without_limit(dir: &Path) {
    let db = Bitcask::open(dir, Options::new()).unwrap();
    assert_eq!(db.len(), COUNT);
    assert!(db.verify().unwrap().is_clean());
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(pairs(&db).len() as u64, COUNT);
    db.close().unwrap();
}

const COUNT: u64 = 2000;

fn put_all(db: &Bitcask) {
    for number in 0..COUNT {
        db.put(number.to_be_bytes(), vec![b'x'; 1000]).unwrap();
    }
}

fn check_sizes(dir: &Path) {
    for path in ["log", "hint", "index", "tmp"].iter().flat_map(|kind| files_of(dir, kind)) {
        let size = path.metadata().unwrap().len();
        assert!(size <= LIMIT, "{} has {size} bytes", path.display());
    }
}

fn write_and_merge(dir: &Path) {
    let db = Bitcask::open(dir, options()).unwrap();
    put_all(&db);
    put_all(&db);
    let error = db.put("large", vec![0; 300 << 10]).unwrap_err();
    let Error::FileTooLarge { size, limit } = error else { panic!("{error}") };
    assert!(size > 300 << 10 && limit == LIMIT);
    // As large as it can be is not too large.
    db.put("large", vec![0; 250 << 10]).unwrap();
    assert!(db.delete("large").unwrap());
    assert!(db.range(..).all(|pair| pair.is_ok()));
    check_sizes(dir);
    let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert!(report.freed_size() > COUNT * 900, "{report:?}");
    check_sizes(dir);
    assert!(logs(dir).len() > 5);
    db.close().unwrap();
    let db = Bitcask::open(dir, options()).unwrap();
    assert_eq!(db.len(), COUNT);
    db.clear().unwrap();
    put_all(&db);
    assert!(db.verify().unwrap().is_clean());
    db.close().unwrap();
    check_sizes(dir);
}

/// The segment that is active has grown beyond the limit, or may. Where it is written by calls, one beyond
/// the limit is a signal; a mapping is not concerned.
fn lower_while_open(dir: &Path) {
    let db = Bitcask::open(dir, options().append_mode(AppendMode::Mapped)).unwrap();
    for number in 0..COUNT / 2 {
        db.put(number.to_be_bytes(), vec![b'x'; 1000]).unwrap();
    }
    let pid = std::process::id().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={LIMIT}")]).status();
    assert!(set.unwrap().success());
    for _ in 0..3 {
        put_all(&db);
    }
    let error = db.put("large", vec![0; 300 << 10]).unwrap_err();
    assert!(matches!(error, Error::FileTooLarge { .. }), "{error}");
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(db.len(), COUNT);
    db.close().unwrap();
}
