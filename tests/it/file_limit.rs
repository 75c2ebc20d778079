//! A process whose file size limit is smaller than a segment: the store continues in smaller
//! segments.
//!
//! The limit applies to a whole process, and a process that exceeds it is killed by a signal. So
//! the tests set it in child processes.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::process::Command;

use bitcask::{AppendMode, Bitcask, Error, MergeOptions, Options};

use crate::disks::run;
use crate::support::{Actor, ROLE, SAYS, STORE, actor, files_of, logs, options, pairs};

/// Prefix of the names of the parts that child processes play here.
pub(crate) const PART: &str = "file limit: ";

/// The file size limit in these tests, in bytes.
const LIMIT: u64 = 256 << 10;

/// Plays a child process's part.
pub(crate) fn play(part: &str, dir: &Path) {
    match part.trim_start_matches(PART) {
        "from the beginning" => write_and_merge(dir),
        "while it is open" => lower_while_open(dir),
        other => unreachable!("there is no part {other}"),
    }
    println!("{SAYS}done");
}

/// Plays a part. With `is_limited`, the limit is set before the part begins; otherwise the part
/// sets it.
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
        Err(error) => return println!("skipped: cannot run prlimit: {error}"),
    };
    let said: Vec<String> = std::iter::from_fn(|| child.hear()).collect();
    let status = child.wait();
    assert!(status.success(), "{part}: {status}");
    assert_eq!(said, ["done"], "{part}");
}

#[test]
fn segments_end_earlier_under_a_file_size_limit() {
    let dir = tempfile::tempdir().unwrap();
    played("from the beginning", dir.path(), true);
    check_without_limit(dir.path());
}

#[test]
fn lowering_the_file_size_limit_of_an_open_store_ends_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let kind = run("stat", &["-f", "-c", "%T", dir.path().to_str().unwrap()]);
    if kind.is_ok_and(|kind| kind.trim() == "btrfs") {
        return println!(
            "skipped: a store on a btrfs writes, and the signal ends a write at the limit"
        );
    }
    played("while it is open", dir.path(), false);
    check_without_limit(dir.path());
}

fn check_without_limit(dir: &Path) {
    let db = Bitcask::open(dir, Options::new()).unwrap();
    assert_eq!(db.len().unwrap(), COUNT);
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
    // A value that just fits is accepted.
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
    assert_eq!(db.len().unwrap(), COUNT);
    db.clear().unwrap();
    put_all(&db);
    assert!(db.verify().unwrap().is_clean());
    db.close().unwrap();
    check_sizes(dir);
}

/// Lowers the limit while the active segment is, or may be, larger than it. A write call beyond the
/// limit would raise a signal; a write to a mapping does not.
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
    assert_eq!(db.len().unwrap(), COUNT);
    db.close().unwrap();
}
