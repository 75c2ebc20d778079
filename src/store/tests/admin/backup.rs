//! Backups: their content, the independence of both stores, and what remains after a failing disk
//! or a power cut.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::options::{MergeOptions, WriteOptions};
use crate::stats::{MergeProgress, Stats};
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind, Op};

const TARGET: &str = "/backup";

fn open_at(lab: &Lab, path: &str, options: Options) -> Result<Bitcask> {
    Bitcask::open_on(&lab.env(), Path::new(path), options)
}

fn open_backup(lab: &Lab) -> Bitcask {
    open_at(lab, TARGET, lab.options.clone()).unwrap()
}

/// Creates a store with everything that a backup can meet: sealed segments, a full unsealed one, an
/// active one, batches, tombstones and expired keys. Returns it with its content.
fn filled(lab: &Lab) -> (Bitcask, Model) {
    let db = lab.open();
    let mut expected = Model::new();
    let ttl = WriteOptions::new().ttl(Duration::from_secs(5));
    for number in 0..60_u32 {
        let (key, value) = (format!("key {}", number % 25), format!("value {number}"));
        let stored = |expiry| Stored { value: value.clone().into(), expiry };
        match number % 7 {
            3 => {
                db.put_opt(&key, &value, ttl).unwrap();
                let expiry = db.inner.clock.after(Duration::from_secs(5));
                expected.insert(key.into(), stored(expiry));
            }
            5 => {
                let other = format!("other {number}");
                db.write(Batch::new().put(&key, &value).put(&other, &value)).unwrap();
                expected.insert(key.into(), stored(None));
                expected.insert(other.into(), stored(None));
            }
            6 => {
                db.delete(&key).unwrap();
                expected.remove(key.as_bytes());
            }
            _ => {
                db.put(&key, &value).unwrap();
                expected.insert(key.into(), stored(None));
            }
        }
        if number == 40 {
            db.inner.work();
        }
    }
    let unsealed = db.inner.writer().unwrap().log.lock().ids().len();
    let sealed = db.inner.manifest.get(|manifest| manifest.sealed.len());
    assert!(sealed > 1 && unsealed > 1, "{sealed} sealed, {unsealed} unsealed");
    (db, expected)
}

/// A lab with small segments, and with or without hard links.
fn lab(links: bool) -> Lab {
    let lab = Lab::new();
    let options = lab.options.clone().segment_size(512);
    let lab = lab.with(options);
    if !links {
        lab.twin.refuse_links();
    }
    lab
}

#[test]
fn a_backup_holds_the_content_of_the_store() {
    for weak in [false, true] {
        for links in [false, true] {
            let lab =
                Lab { hasher: if weak { KeyHasher::weak } else { KeyHasher::new }, ..lab(links) };
            let (db, expected) = filled(&lab);
            let sealed = db.inner.manifest.get(|manifest| manifest.sealed.clone());
            // The oldest age differs at each look, and other stores of this process count, too.
            let lasting =
                || Stats { oldest_retired: None, mappings: 0, descriptors: 0, ..db.stats() };
            let before = lasting();
            let report = db.backup(TARGET).unwrap();
            assert_eq!(report.segments, before.segments);
            assert_eq!(report.size, before.log_size);
            let sealed_size: u64 = sealed.iter().map(|sealed| sealed.length).sum();
            if links {
                assert_eq!(report.linked, sealed.len() as u64);
                assert_eq!(report.copied_size, report.size - sealed_size);
            } else {
                assert_eq!((report.linked, report.copied_size), (0, report.size));
            }
            assert_eq!(lasting(), before, "the backup must not change the store");
            // A sync has nothing left to make durable.
            for lab in [lab.powered_off(|_| false), lab.killed()] {
                let copy = open_backup(&lab);
                assert!(copy.recovery().is_clean(), "{:?}", copy.recovery());
                check(&copy, &expected);
                assert!(copy.verify().unwrap().is_clean());
                kill(copy);
                let target = Path::new(TARGET);
                let copy = ReadOnly::open_on(&lab.env(), target, lab.options.clone()).unwrap();
                check(&copy, &expected);
            }
            check(&db, &expected);
        }
    }
}

/// Sealed segments share their files with the backup. Changes to either store must not reach the
/// other.
#[test]
fn neither_store_changes_the_other() {
    for links in [true, false] {
        let lab = lab(links);
        let (db, expected) = filled(&lab);
        let options = lab.options.clone();
        db.backup(TARGET).unwrap();
        let in_dir = |twin: &Twin, dir: &str| -> Files {
            files(twin).into_iter().filter(|(path, _)| path.starts_with(dir)).collect()
        };
        let backup = in_dir(&lab.twin, TARGET);
        let change = |db: &Bitcask| {
            for number in 0..60_u32 {
                db.put(format!("key {}", number % 30), "changed").unwrap();
                db.delete(format!("other {number}")).unwrap();
            }
            db.inner.work();
        };
        change(&db);
        let db = lab.reopen(db);
        db.clear().unwrap();
        change(&db);
        kill(db);
        assert_eq!(in_dir(&lab.twin, TARGET), backup, "the store changed its backup");

        let store = in_dir(&lab.twin, DIR);
        let copy = open_backup(&lab);
        check(&copy, &expected);
        change(&copy);
        copy.close().unwrap();
        // Hints that are rebuilt replace the shared ones.
        for (path, _) in in_dir(&lab.twin, TARGET) {
            if path.extension().is_some_and(|extension| extension == "hint") {
                lab.twin.delete_file(&path);
            }
        }
        let copy = open_at(&lab, TARGET, options).unwrap();
        copy.inner.work();
        copy.clear().unwrap();
        change(&copy);
        kill(copy);
        assert_eq!(in_dir(&lab.twin, DIR), store, "the backup changed the store");
    }
}

/// Clearing the store while files are still linked leaves the backup's files in place.
#[test]
fn clearing_a_store_keeps_its_backup() {
    let lab = lab(true);
    let (db, expected) = filled(&lab);
    db.backup(TARGET).unwrap();
    db.clear().unwrap();
    db.close().unwrap();
    for (path, _) in files(&lab.twin) {
        if path.starts_with(DIR) {
            lab.twin.delete_file(&path);
        }
    }
    check(&open_backup(&lab.powered_off(|_| false)), &expected);
}

/// The flag is set at each of the reads of a backup in turn. Whatever the backup has got by then is
/// removed, unless it was complete.
#[test]
fn a_backup_that_is_given_up_leaves_nothing() {
    for links in [true, false] {
        let (mut at, mut cancelled) = (0, 0);
        loop {
            let lab = lab(links);
            let (db, expected) = filled(&lab);
            let before = files(&lab.twin);
            let stop = Arc::new(AtomicBool::new(false));
            let (mut left, flag) = (at, Arc::clone(&stop));
            let count = move |_: Option<&Path>| match left {
                0 => flag.store(true, Ordering::SeqCst),
                _ => left -= 1,
            };
            let backup = || db.backup_until(TARGET, &stop).unwrap();
            let report = lab.twin.with_interference(count, backup);
            if !report.cancelled {
                // The flag was set too late, or not at all.
                check(&open_backup(&lab), &expected);
                break;
            }
            cancelled += 1;
            assert_eq!((report.segments, report.size), (0, 0));
            assert!(!lab.twin.exists(Path::new(TARGET)), "after {at} reads");
            assert_eq!(files(&lab.twin), before);
            check(&db, &expected);
            // The next one succeeds.
            assert!(!db.backup(TARGET).unwrap().cancelled);
            check(&open_backup(&lab), &expected);
            at += 1;
        }
        assert!(cancelled > 3, "{cancelled}");
    }
}

#[test]
fn a_backup_can_be_backed_up() {
    let lab = lab(true);
    let (db, expected) = filled(&lab);
    db.backup(TARGET).unwrap();
    let first = open_backup(&lab);
    let report = first.backup("/second").unwrap();
    assert_eq!((report.linked, report.copied_size), (report.segments, 0));
    drop(first);
    let second = open_at(&lab, "/second", lab.options.clone()).unwrap();
    assert!(second.recovery().is_clean());
    check(&second, &expected);
    check(&db, &expected);
}

#[test]
fn a_store_without_segments_can_be_backed_up() {
    let lab = lab(true);
    let db = lab.open();
    assert_eq!(db.backup(TARGET).unwrap(), BackupReport::default());
    let copy = open_backup(&lab);
    assert!(copy.is_empty().unwrap() && copy.recovery().is_clean());
    copy.put("a", "1").unwrap();
    // A segment without entries is left out.
    db.put("a", "1").unwrap();
    db.clear().unwrap();
    assert_eq!(db.backup("/second").unwrap(), BackupReport::default());
}

/// The store is backed up at each step of a merge, when slots may name copies that no manifest
/// lists yet.
#[test]
fn a_backup_during_a_merge_holds_the_content_of_the_store() {
    for links in [true, false] {
        let lab = lab(links);
        let (db, expected) = filled(&lab);
        lab.hands.advance(Duration::from_secs(10));
        let mut made = Vec::new();
        let progress = |_: &MergeProgress| {
            let target = format!("/backup {}", made.len());
            db.backup(&target).unwrap();
            made.push(target);
            ControlFlow::Continue(())
        };
        db.merge_opt(MergeOptions::new().force(true).progress(progress)).unwrap();
        assert!(made.len() > 3, "{made:?}");
        db.backup(TARGET).unwrap();
        made.push(TARGET.to_owned());
        let now = db.inner.clock.now();
        for target in made {
            let copy = open_at(&lab, &target, lab.options.clone()).unwrap();
            assert!(copy.recovery().is_clean(), "{target}: {:?}", copy.recovery());
            assert_eq!(snapshot(&copy), visible(&expected, now), "{target}");
            assert!(copy.verify().unwrap().is_clean(), "{target}");
            kill(copy);
        }
        assert_eq!(snapshot(&db), visible(&expected, now));
    }
}

#[test]
fn a_missing_hint_is_built_in_the_backup() {
    for links in [true, false] {
        let lab = lab(links);
        let (db, expected) = filled(&lab);
        lab.delete_hints();
        let report = db.backup(TARGET).unwrap();
        assert_eq!(report.linked > 0, links);
        let copy = open_backup(&lab);
        assert!(copy.recovery().is_clean());
        check(&copy, &expected);
    }
}

#[test]
fn a_target_must_be_an_empty_directory_outside_the_store() {
    let lab = lab(true);
    let (db, expected) = filled(&lab);
    lab.twin.put_file(Path::new("/full/file"), b"foreign".to_vec());
    lab.twin.create_dir(Path::new("/store/sub")).unwrap();
    let before = (files(&lab.twin), lab.twin.op_count());
    for target in ["/full", DIR, "/store/sub", "/store/new", "/store/quarantine"] {
        let error = db.backup(target).unwrap_err();
        assert!(matches!(&error, Error::InvalidTarget { path, .. } if path == Path::new(target)));
        assert!(error.is_invalid_input(), "{error}");
    }
    assert!(matches!(db.backup("/full/file"), Err(Error::NotADirectory { .. })));
    assert!(matches!(db.backup("/none/new"), Err(Error::Io { .. })));
    assert_eq!(
        (files(&lab.twin), lab.twin.op_count()),
        before,
        "a refused backup must not touch the disk"
    );
    // An existing empty directory is accepted, and so is one with a lock file that no process
    // holds.
    lab.twin.create_dir(Path::new("/empty")).unwrap();
    db.backup("/empty").unwrap();
    assert!(matches!(db.backup("/empty"), Err(Error::InvalidTarget { .. })));
    lab.twin.put_file(Path::new("/locked/LOCK"), Vec::new());
    let held = crate::store::open_attempt::lock(&db.inner.fs, &Dir::new("/locked".into())).unwrap();
    assert!(db.backup("/locked").unwrap_err().is_locked());
    drop(held);
    db.backup("/locked").unwrap();
    check(&open_at(&lab, "/locked", lab.options.clone()).unwrap(), &expected);
}

/// A state machine would apply nothing while another thread seals a segment.
#[test]
fn a_backup_that_waits_for_other_work_keeps_no_writers_of_its_caller_out() {
    let lab = lab(false);
    let (db, _) = filled(&lab);
    let written = crate::sync::Mutex::new(0);
    let (begun, is_begun) = std::sync::mpsc::channel();
    let seal = db.inner.log().unwrap().lock_maintenance();
    let noted = std::thread::scope(|scope| {
        let backup = scope.spawn(|| {
            let hold = || {
                let written = written.lock();
                begun.send(()).unwrap();
                let count = *written;
                (written, count)
            };
            db.backup_holding(Path::new(TARGET), hold).unwrap()
        });
        is_begun.recv().unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let is_let_in = loop {
            if let Some(mut written) = written.try_lock() {
                *written += 1;
                break true;
            }
            if std::time::Instant::now() >= until {
                break false;
            }
            std::thread::yield_now();
        };
        drop(seal);
        assert!(is_let_in, "the backup holds on");
        backup.join().unwrap()
    });
    assert_eq!(noted, 1);
    drop(open_backup(&lab));
}

#[test]
fn a_poisoned_store_makes_no_backup() {
    let lab = lab(true);
    let (db, _) = filled(&lab);
    let _ = db.inner.log().unwrap().poison(Error::ReadOnly);
    assert!(db.backup(TARGET).unwrap_err().is_poisoned());
    drop(db);
    assert!(lab.twin.is_dir(Path::new(TARGET)).is_err());
}

#[test]
fn damage_in_a_copied_file_is_an_error_that_names_the_stores_file() {
    let lab = lab(false);
    let (db, _) = filled(&lab);
    let path = lab.logs()[0].1.clone();
    let mut bytes = lab.twin.contents(&path).unwrap();
    for (at, offset) in [(20, 60), (70, 64), (bytes.len() - 1, 0)] {
        bytes[at] ^= 0x10;
        let cut = if offset == 0 { at } else { bytes.len() };
        lab.twin.put_file(&path, bytes[..cut].to_vec());
        let error = db.backup(TARGET).unwrap_err();
        let Error::Corrupt { path: named, offset: told, .. } = &error else { panic!("{error}") };
        let expected = if offset == 0 { at as u64 } else { offset };
        assert_eq!((named, *told), (&path, expected), "{error}");
        assert!(lab.twin.is_dir(Path::new(TARGET)).is_err(), "a failed backup must be removed");
        bytes[at] ^= 0x10;
    }
    lab.twin.put_file(&path, bytes);
    db.backup(TARGET).unwrap();
}

/// What a backup may leave at its target.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Left {
    Nothing,
    NoStore,
    Backup,
}

/// Examines what a backup has left, in a lab in which no store is open.
fn left(lab: &Lab, expected: &Model, when: &str) -> Left {
    let Ok(is_dir) = lab.twin.is_dir(Path::new(TARGET)) else { return Left::Nothing };
    assert!(is_dir, "{when}");
    let before = files(&lab.twin);
    match open_at(lab, TARGET, lab.options.clone().create_if_missing(false)) {
        Ok(copy) => {
            assert!(found_in_order(&copy), "{when}: {:?}", copy.recovery());
            check(&copy, expected);
            kill(copy);
            Left::Backup
        }
        Err(error) => {
            let is_no_store = matches!(error, Error::NotFound { .. } | Error::Unfinished { .. });
            assert!(is_no_store || error.is_corruption(), "{when}: {error}");
            // Not a damaged store, but no store at all.
            let manifest = Manifest::read(&lab.env().fs, &Dir::new(TARGET.into()));
            assert!(!matches!(manifest, Ok(Some(_))), "{when}: {error}");
            assert_eq!(files(&lab.twin), before, "{when}");
            Left::NoStore
        }
    }
}

fn check_store(lab: &Lab, expected: &Model, when: &str) {
    let db = lab.open();
    assert_eq!(raw(&db), *expected, "{when}");
    kill(db);
}

#[test]
fn any_failing_call_of_a_backup_leaves_the_store_intact() {
    for (links, without_hints) in [(true, false), (true, true), (false, false)] {
        let prepare = || {
            let lab = lab(links);
            let (db, expected) = filled(&lab);
            if without_hints {
                lab.delete_hints();
            }
            (lab, db, expected)
        };
        let (whole, db, _) = prepare();
        let (start, start_changes) = (whole.twin.call_count(), whole.twin.op_count());
        db.backup(TARGET).unwrap();
        let (calls, changes) =
            (whole.twin.call_count() - start, whole.twin.op_count() - start_changes);
        for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite] {
            for for_ever in [false, true] {
                let reads_too = kind == FaultKind::Eio;
                let step = if long() || links { 1 } else { 3 };
                for at in (0..if reads_too { calls } else { changes }).step_by(step) {
                    let when = format!("{kind:?} at {at}, permanent {for_ever}, links {links}");
                    let (lab, db, expected) = prepare();
                    let fault = Fault::new(kind).after(at);
                    let fault = if for_ever { fault.for_ever() } else { fault };
                    lab.twin.fail(if reads_too { fault.reads_too() } else { fault });
                    let result = db.backup(TARGET);
                    assert!(for_ever || lab.twin.fault_count() <= 1);
                    lab.twin.clear_fault();
                    // Optional calls may fail: a hint that cannot be linked is built.
                    if let Err(error) = &result {
                        let is_full = kind == FaultKind::Enospc && error.is_no_space();
                        assert!(is_full || matches!(error, Error::Io { .. }), "{when}: {error}");
                    }
                    check(&db, &expected);
                    db.put("and it", "goes on").unwrap();
                    let mut later = expected.clone();
                    later.insert("and it".into(), model([("", "goes on")])[b"".as_slice()].clone());
                    let left_now = left(&lab.killed(), &expected, &when);
                    match (&result, for_ever) {
                        (Ok(_), _) => assert_eq!(left_now, Left::Backup, "{when}"),
                        // Another failure during the removal leaves a part of the backup.
                        (Err(_), false) => assert_ne!(left_now, Left::Backup, "{when}"),
                        (Err(_), true) => {}
                    }
                    let off = left(&lab.powered_off(|_| false), &expected, &when);
                    assert!(result.is_err() || off == Left::Backup, "{when}");
                    kill(db);
                    check_store(&lab, &later, &when);
                }
            }
        }
    }
}

#[test]
fn a_power_cut_during_a_backup_leaves_it_whole_or_no_store() {
    for links in [true, false] {
        let lab = lab(links);
        let (db, expected) = filled(&lab);
        db.sync().unwrap();
        let start = lab.twin.op_count();
        db.backup(TARGET).unwrap();
        kill(db);
        let end = lab.twin.op_count();
        let mut seen = Vec::new();
        for ops in start..=end {
            let when = format!("links {links}, operation {ops} of {end}");
            let mut look = |twin: Arc<Twin>| {
                let lab = lab.on(twin);
                let found = left(&lab, &expected, &when);
                check_store(&lab, &expected, &when);
                seen.push(found);
                found
            };
            look(lab.twin.kill_image(ops));
            let harshest = look(lab.twin.power_image(ops, |_| false));
            assert_eq!(harshest == Left::Backup, ops == end, "{when}");
            for seed in 0..if long() { 40 } else { 6 } {
                let mut random = Random(seed << 32 | ops as u64);
                look(lab.twin.power_image(ops, |_| random.below(2) == 0));
            }
        }
        assert!(
            [Left::Nothing, Left::NoStore, Left::Backup].iter().all(|left| seen.contains(left))
        );
    }
}

#[test]
fn a_full_disk_fails_only_the_backup() {
    for links in [true, false] {
        let whole = lab(links);
        let (db, _) = filled(&whole);
        let taken = |twin: &Twin| -> u64 {
            files(twin).values().map(|bytes| bytes.len() as u64).sum::<u64>() + (64 << 10)
        };
        drop(db);
        let mut refused = 0;
        let mut room = 0;
        loop {
            let lab = lab(links);
            let (db, expected) = filled(&lab);
            // The lowest limit at which the existing files still fit.
            lab.twin.set_space(taken(&lab.twin).saturating_sub(64 << 10) + room);
            let result = db.backup(TARGET);
            lab.twin.set_space(u64::MAX);
            check(&db, &expected);
            match result {
                Ok(_) => {
                    check(&open_backup(&lab), &expected);
                    break;
                }
                Err(error) => {
                    assert!(error.is_no_space(), "{room}: {error}");
                    assert!(lab.twin.is_dir(Path::new(TARGET)).is_err(), "{room}");
                    refused += 1;
                }
            }
            db.backup(TARGET).unwrap();
            room += 64;
        }
        assert!(refused > 0, "links {links}");
    }
}

#[test]
fn a_failing_link_is_an_error_where_links_are_supported() {
    let lab = lab(true);
    let (db, expected) = filled(&lab);
    for call in [Call::Link, Call::Sync, Call::SyncDir] {
        lab.twin.fail(Fault::new(FaultKind::Eio).only(call));
        assert!(matches!(db.backup(TARGET), Err(Error::Io { .. })), "{call:?}");
        assert!(lab.twin.is_dir(Path::new(TARGET)).is_err(), "{call:?}");
        db.inner.log().unwrap().check().unwrap();
    }
    let ops = lab.twin.op_count();
    db.backup(TARGET).unwrap();
    let trace = lab.twin.trace();
    // The manifest is the last file to get its name. Nothing that it needs is done after it.
    let last = trace[ops..].iter().rposition(|op| matches!(op, Op::Rename { .. })).unwrap();
    assert!(matches!(trace[ops..][last + 1..], [Op::SyncDir { .. }]));
    check(&db, &expected);
}

#[test]
fn a_backup_refuses_positions_that_the_store_reached_later() {
    // Regression: both stores continued in a segment with the same id. A follower of the store that
    // resumed on the backup missed the changes that the backup had made before the follower's
    // position.
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let before = db.position();
    db.backup("/backup").unwrap();
    let db = lab.reopen(db);
    db.put("b", "2").unwrap();
    let since = db.position();
    let backup = Bitcask::open_on(&lab.env(), Path::new("/backup"), lab.options.clone());
    let backup = backup.unwrap();
    backup.put("c", "3").unwrap();
    backup.put("d", "4").unwrap();
    assert!(matches!(backup.changes(since), Err(Error::PositionLost { .. })));
    let told = backup.changes(before).unwrap().take(2).map(|change| change.unwrap().key);
    assert_eq!(told.collect::<Vec<_>>(), ["c", "d"]);
}
