//! Values and views of a store that was closed after a failed sync: their bytes stay as they were
//! read, whatever recovery and the next store do to the files.
//!
//! These tests use the real disk, because the twin's mappings keep their bytes in any case.

#![expect(clippy::disallowed_methods, reason = "the tests damage files the way a failed sync does")]

use std::fs;

use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};
use crate::value::Value;

/// A value of several pages. Its entries are adjacent.
fn value(number: u8) -> Vec<u8> {
    vec![number; 10_000]
}

fn options(mode: AppendMode) -> Options {
    Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never).append_mode(mode)
}

const MODES: [AppendMode; 2] = [AppendMode::Mapped, AppendMode::Positioned];

/// A store with unsynced entries in several segments, one of which is not full.
fn filled(dir: &Path, mode: AppendMode) -> Bitcask {
    let env = Env { threads: false, ..Env::default() };
    let db = Bitcask::open_on(&env, dir, options(mode)).unwrap();
    for number in 0..8 {
        db.put([number], value(number)).unwrap();
    }
    let unsealed = db.inner.writer().unwrap().log.lock().ids().len();
    assert_eq!(unsealed, 2, "one segment is full, and one is active");
    db
}

/// Closes a store as if a sync had failed.
fn close_poisoned(db: Bitcask) {
    let _ = db.inner.log().unwrap().poison(Error::ReadOnly);
    assert!(db.close().unwrap_err().is_poisoned());
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|found| found == "log");
    let mut logs: Vec<_> = paths.filter(is_log).collect();
    logs.sort();
    logs
}

/// Zeroes everything after the first entry of the log, as if it had never reached the disk.
fn lose_pages(dir: &Path) {
    for path in logs(dir) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[10_200..].fill(0);
        // Writes in place, so that mappings see it.
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_held_value_survives_the_failure_and_recovery_of_its_store() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), mode);
        let held: Vec<Value> = (1..8).map(|number| db.get([number]).unwrap().unwrap()).collect();
        close_poisoned(db);
        let check = |when: &str| {
            for (number, held) in (1..).zip(&held) {
                assert!(*held == value(number), "{when}: {number} reads as {}", held[0]);
            }
        };
        check("closed");
        lose_pages(dir.path());
        check("lost");
        let db = Bitcask::open(dir.path(), options(mode)).unwrap();
        // The cut part was mapped, and accessing it would raise a signal.
        assert!(!db.recovery().cuts.is_empty(), "{:?}", db.recovery());
        assert!(logs(dir.path()).iter().all(|path| fs::metadata(path).unwrap().len() < 12_000));
        assert_eq!(db.get([0]).unwrap().unwrap(), value(0));
        assert_eq!(db.get([1]).unwrap(), None);
        check("recovered");
        db.put([1], "another").unwrap();
        db.close().unwrap();
        check("closed again");
    }
}

#[test]
fn a_snapshot_that_outlives_a_failed_store_reads_the_same() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), mode);
        let snapshot = db.snapshot();
        db.put([3], "changed since").unwrap();
        close_poisoned(db);
        lose_pages(dir.path());
        let db = Bitcask::open(dir.path(), options(mode)).unwrap();
        for number in 0..8 {
            assert!(snapshot.get([number]).unwrap().unwrap() == value(number), "{number}");
        }
        let pairs = snapshot.iter().map(|pair| pair.unwrap().0.to_vec());
        assert_eq!(pairs.collect::<Vec<_>>(), (0..8).map(|key| vec![key]).collect::<Vec<_>>());
        assert_eq!(db.get([3]).unwrap(), None);
    }
}

/// No copy is possible here, because the file is shorter than what was written.
#[test]
fn opening_is_refused_while_values_are_held_that_recovery_would_cut() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path(), AppendMode::Mapped);
    let (held, other) = (db.get([7]).unwrap().unwrap(), db.get([1]).unwrap().unwrap());
    let youngest = logs(dir.path()).pop().unwrap();
    let file = fs::OpenOptions::new().write(true).open(youngest).unwrap();
    file.set_len(64).unwrap();
    close_poisoned(db);
    let open = || Bitcask::open(dir.path(), options(AppendMode::Mapped));
    assert!(open().unwrap_err().is_locked());
    // The other segment was copied.
    assert!(other == value(1));
    let again = held.clone();
    drop(held);
    assert!(open().unwrap_err().is_locked());
    drop(again);
    assert!(other == value(1));
    let db = open().unwrap();
    assert_eq!(db.get([1]).unwrap().unwrap(), value(1));
    assert_eq!(db.get([7]).unwrap(), None);
}

/// A segment that is not held is not copied when its store has failed.
#[test]
fn held_segments_are_distinguished_from_released_ones() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path(), AppendMode::Mapped);
    let held = db.get([7]).unwrap().unwrap();
    drop((db.get([1]).unwrap(), db.snapshot(), db.iter_unordered().count()));
    let unsealed = db.inner.writer().unwrap().log.lock().give_up();
    let is_held = || -> Vec<bool> {
        unsealed.iter().map(|(segment, _)| db.inner.segments.is_held(segment)).collect()
    };
    assert_eq!(is_held(), [false, true]);
    drop(held);
    assert_eq!(is_held(), [false, false]);
    let snapshot = db.snapshot();
    assert_eq!(is_held(), [true, true]);
    drop(snapshot);
    assert_eq!(is_held(), [false, false]);
    drop(unsealed);
    close_poisoned(db);
    let db = Bitcask::open(dir.path(), options(AppendMode::Mapped)).unwrap();
    assert_eq!(db.len().unwrap(), 8);
}

/// If a rotation fails half-way, the full segment stays a part of the log.
#[test]
fn a_segment_whose_end_cannot_be_written_is_left_to_recovery() {
    let lab = Lab::new();
    let lab = lab.with(Options::new().segment_size(1024).append_mode(AppendMode::Positioned));
    let db = lab.open();
    db.put("a", [1; 600]).unwrap();
    // The first write is the header of the next segment.
    lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::Write).after(1));
    assert!(db.put("b", [2; 600]).unwrap_err().is_poisoned());
    let unsealed = db.inner.writer().unwrap().log.lock().give_up();
    let ids: Vec<u32> = unsealed.iter().map(|(segment, _)| segment.id().0).collect();
    assert_eq!(ids, [1, 2]);
}
