//! Backups and verification of stores in use, on a real disk.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bitcask::{BackupReport, Batch, Bitcask, Error, MergeOptions, VerifyProgress, VerifyReport};

use crate::support::{contents, logs, open, open_read_only, pairs, remove_hints};

const WRITERS: usize = 4;
/// Number of keys that a writer changes in one batch.
const GROUP: u64 = 5;

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn key(writer: u64, at: u64) -> [u8; 8] {
    (writer * 100 + at).to_be_bytes()
}

/// Writes batches that set all keys of a writer to the same number, each followed by a put of a
/// single key. `done` holds the last number for which both writes have returned.
fn write(db: &Bitcask, writer: u64, done: &AtomicU64, stop: &AtomicBool) {
    let mut sequence = 0_u64;
    while !stop.load(Ordering::Acquire) {
        sequence += 1;
        let value = sequence.to_be_bytes();
        let batch = (0..GROUP).map(|at| (key(writer, at), value)).collect::<Batch>();
        db.write(&batch).unwrap();
        db.put(key(writer, GROUP), value).unwrap();
        if sequence.is_multiple_of(10) {
            db.delete(key(writer, GROUP + 1)).unwrap();
        } else {
            db.put(key(writer, GROUP + 1), value).unwrap();
        }
        done.store(sequence, Ordering::Release);
    }
}

/// Merges every segment, again and again.
fn merge(db: &Bitcask, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
    }
}

/// Checks that a backup shows the state at one moment, and that it is at least as new as `floors`.
fn check_moment(copy: &Bitcask, floors: &[u64]) {
    assert!(copy.recovery().is_clean(), "{:?}", copy.recovery());
    for (writer, floor) in (0..).zip(floors) {
        let get = |at: u64| copy.get(key(writer, at)).unwrap().map_or(0, |value| number(&value));
        let batch = get(0);
        assert!(batch >= *floor, "{writer}: {batch} is older than {floor}");
        for at in 1..GROUP {
            assert_eq!(get(at), batch, "a batch must be present as a whole");
        }
        // A later write is never present without the earlier ones.
        let single = get(GROUP);
        assert!(single == batch || single + 1 == batch, "{writer}: {single} beside {batch}");
        let last = get(GROUP + 1);
        let expected = [single, single.saturating_sub(1)];
        let expected = expected.map(|number| if number % 10 == 0 { 0 } else { number });
        assert!(expected.contains(&last), "{writer}: {last} behind {single}");
    }
    let report = copy.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn backups_during_writes_show_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir.path().join("store"));
    let (done, stop) = ([const { AtomicU64::new(0) }; WRITERS], AtomicBool::new(false));
    thread::scope(|scope| {
        for (writer, done) in (0..).zip(&done) {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || write(db, writer, done, stop));
        }
        scope.spawn(|| merge(&db, &stop));
        let backups = scope.spawn(|| {
            let mut linked = 0;
            let mut rounds = 0;
            // Until there is something to link, and at least eight times.
            while rounds < 8 || linked == 0 {
                let target = dir.path().join(format!("backup {rounds}"));
                let floors = done.each_ref().map(|done| done.load(Ordering::Acquire));
                let report = db.backup(&target).unwrap();
                linked += report.linked;
                assert_eq!(report.segments, logs(&target).len() as u64);
                let copy = open(&target);
                check_moment(&copy, &floors);
                let again = dir.path().join(format!("backup of backup {rounds}"));
                copy.backup(&again).unwrap();
                let held = pairs(&copy);
                drop(copy);
                assert!(pairs(&open_read_only(&again)) == held);
                rounds += 1;
            }
        });
        let result = backups.join();
        stop.store(true, Ordering::Release);
        result.unwrap();
    });
    let held = pairs(&db);
    let report = db.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    db.close().unwrap();
    // The store and its backups have not affected each other.
    let db = open(&dir.path().join("store"));
    assert!(db.recovery().is_clean() && pairs(&db) == held);
    db.clear().unwrap();
    let copy = open(&dir.path().join("backup 3"));
    check_moment(&copy, &[0; WRITERS]);
}

#[test]
fn verification_during_writes_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (done, stop) = ([const { AtomicU64::new(0) }; WRITERS], AtomicBool::new(false));
    thread::scope(|scope| {
        for (writer, done) in (0..).zip(&done) {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || write(db, writer, done, stop));
        }
        scope.spawn(|| merge(&db, &stop));
        let verifications = scope.spawn(|| {
            for round in 0..24 {
                let report = db.verify().unwrap();
                assert!(report.is_clean(), "{report:?}");
                if round % 8 == 7 {
                    db.clear().unwrap();
                }
            }
        });
        let others = scope.spawn(|| {
            for _ in 0..10 {
                let report = db.verify_with(|_| {
                    db.put("from the closure", "1").unwrap();
                    ControlFlow::Continue(())
                });
                assert!(report.unwrap().is_clean());
            }
        });
        let results = [verifications.join(), others.join()];
        stop.store(true, Ordering::Release);
        results.into_iter().for_each(Result::unwrap);
    });
}

#[test]
fn a_backup_shows_the_state_before_or_after_a_concurrent_clear() {
    for _ in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(&dir.path().join("store"));
        let (before, target) = (pairs(&db), dir.path().join("backup"));
        // Building the missing hints takes long enough for the clear to interrupt the backup.
        remove_hints(db.path());
        let both = Barrier::new(2);
        thread::scope(|scope| {
            let clear = scope.spawn(|| {
                both.wait();
                db.clear().unwrap();
            });
            both.wait();
            db.backup(&target).unwrap();
            clear.join().unwrap();
        });
        assert!(db.is_empty().unwrap());
        let copy = open(&target);
        assert!(copy.recovery().is_clean());
        let held = pairs(&copy);
        assert!(held.is_empty() || held == before, "{} keys", held.len());
        assert!(copy.verify().unwrap().is_clean());
    }
}

/// Creates a store with several sealed segments.
fn filled(path: &Path) -> Bitcask {
    let db = open(path);
    (0..600).for_each(|at| db.put(key(0, at), [7; 50]).unwrap());
    db.close().unwrap();
    open(path)
}

#[test]
fn a_backup_on_another_file_system_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    let shm = Path::new("/dev/shm");
    let Some(other) = device(shm)
        .is_ok_and(|shm| shm != device(dir.path()).unwrap())
        .then(|| tempfile::tempdir_in(shm))
    else {
        println!("skipped: there is no second file system");
        return;
    };
    let Ok(other) = other else {
        return println!("skipped: the second file system is not writable");
    };
    let db = filled(&dir.path().join("store"));
    let target = other.path().join("backup");
    let report: BackupReport = db.backup(&target).unwrap();
    assert!(report.segments > 5 && report.linked == 0, "{report:?}");
    assert_eq!(report.copied_size, report.size);
    let copy = open(&target);
    assert!(copy.recovery().is_clean() && pairs(&copy) == pairs(&db));
}

#[test]
fn a_segment_that_is_a_symbolic_link_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    filled(&store).close().unwrap();
    let moved = dir.path().join("moved");
    let first = logs(&store).remove(0);
    fs::rename(&first, &moved).unwrap();
    symlink(&moved, &first).unwrap();
    let db = open(&store);
    let target = dir.path().join("backup");
    let report = db.backup(&target).unwrap();
    assert_eq!(report.linked, report.segments - 1);
    assert!(!fs::symlink_metadata(logs(&target).remove(0)).unwrap().is_symlink());
    // Each of the other files is one file with two names.
    let links: Vec<u64> =
        logs(&target).iter().map(|path| fs::metadata(path).unwrap().nlink()).collect();
    assert!(links[0] == 1 && links[1..].iter().all(|links| *links == 2), "{links:?}");
    assert!(pairs(&open(&target)) == pairs(&db));
}

#[test]
fn a_target_inside_the_store_is_refused_under_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let db = filled(&store);
    fs::create_dir(store.join("sub")).unwrap();
    symlink(store.join("sub"), dir.path().join("link")).unwrap();
    symlink(&store, dir.path().join("other")).unwrap();
    let before = contents(dir.path());
    for name in
        ["store", "store/new", "store/sub", "link", "link/new", "other/new", "store/../store/x"]
    {
        let error = db.backup(dir.path().join(name)).unwrap_err();
        assert!(matches!(error, Error::InvalidTarget { .. }), "{name}: {error}");
        assert!(error.to_string().contains("within the store"), "{error}");
    }
    assert!(before == contents(dir.path()));
    // A sibling directory is accepted even if its name begins the same.
    db.backup(dir.path().join("store/../store 2")).unwrap();
    assert!(pairs(&open(&dir.path().join("store 2"))) == pairs(&db));
}

#[test]
fn opening_an_interrupted_backup_fails_with_an_explanation() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(&dir.path().join("store"));
    let target = dir.path().join("backup");
    db.backup(&target).unwrap();
    fs::remove_file(target.join("MANIFEST")).unwrap();
    let error = Bitcask::open(&target, crate::support::small()).unwrap_err();
    assert!(error.is_corruption() && error.to_string().contains("manifest is missing"), "{error}");
    let error = db.backup(&target).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn verification_reports_what_is_damaged_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let db = filled(dir.path());
    let mut last = None;
    let report: VerifyReport = db
        .verify_with(|progress: &VerifyProgress| {
            last = Some(*progress);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.is_clean());
    assert_eq!((report.entries, report.live_entries, report.tombstones), (600, 600, 0));
    let last = last.unwrap();
    assert_eq!((last.segments_done, last.size_done), (report.segments, report.size));
    let stats = db.stats();
    assert_eq!((report.segments, report.size), (stats.segments, stats.log_size));
    let path = logs(dir.path()).remove(2);
    crate::support::patch(&path, |bytes| bytes[100] ^= 1);
    let report = db.verify().unwrap();
    assert!(!report.is_clean() && !report.cancelled);
    assert_eq!((&report.damage[0].path, report.damage[0].offset), (&path, 64));
    let told = report.damage[0].to_string();
    assert!(told.starts_with(&format!("{} at offset 64: the entry's", path.display())), "{told}");
    // Reads of the store find the damage, too.
    assert_eq!(open_read_only(dir.path()).verify().unwrap().damage, report.damage);
    remove_hints(dir.path());
    assert_eq!(db.verify().unwrap().damage, report.damage);
}
