//! The prepared next segment: when it is created, what becomes of it, and the results of a crash or
//! a failing disk at each step.

use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind, Op};

fn dir() -> Dir {
    Dir::new(DIR.into())
}

fn prepared(db: &Bitcask) -> Option<SegmentId> {
    db.inner.writer().unwrap().log.lock().prepared()
}

fn active(db: &Bitcask) -> SegmentId {
    db.inner.writer().unwrap().log.lock().active().unwrap().segment().id()
}

/// Puts until a segment should be prepared. The values have 60 bytes, which take about 90 bytes
/// each in the log.
fn begin(lab: &Lab) -> (Bitcask, Pairs) {
    let db = lab.open();
    let mut pairs = Pairs::new();
    for number in 0..4 {
        put(&db, &mut pairs, number);
    }
    db.sync().unwrap();
    (db, pairs)
}

fn put(db: &Bitcask, pairs: &mut Pairs, number: u64) {
    let (key, value) = (format!("{}", number % 7), format!("{number:060}"));
    db.put(&key, &value).unwrap();
    pairs.insert(key.into(), value.into());
}

/// Puts until the log has continued in another segment.
fn rotate(db: &Bitcask, pairs: &mut Pairs) {
    let before = active(db);
    for number in 100.. {
        if active(db) > before {
            return;
        }
        put(db, pairs, number);
    }
}

fn reopened_clean(lab: &Lab, pairs: &Pairs, when: &str) {
    let db = lab.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(snapshot(&db), *pairs, "{when}");
    assert!(found_in_order(&db), "{when}: {:?}", db.recovery());
    kill(db);
}

#[test]
fn a_rotation_into_a_prepared_segment_writes_only_entries() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    let next = prepared(&db).unwrap();
    assert!(next > active(&db));
    assert_eq!(lab.logs().len(), 2);
    assert_eq!(db.stats().segments, 1, "the prepared segment is not part of the log yet");
    check_figures(&db);
    db.inner.log().unwrap().prepare_next().unwrap();
    assert_eq!(prepared(&db), Some(next), "one prepared segment is enough");
    let ops = lab.twin.op_count();
    rotate(&db, &mut pairs);
    assert_eq!((active(&db), prepared(&db)), (next, None));
    for op in &lab.twin.trace()[ops..] {
        assert!(matches!(op, Op::Write { .. } | Op::Allocate { .. }), "{op:?}");
    }
    assert_eq!(snapshot(&db), pairs);
    assert_eq!(snapshot(&lab.killed().open()), pairs);
    db.sync().unwrap();
    assert_eq!(snapshot(&lab.powered_off(|_| false).open()), pairs);
    db.close().unwrap();
    reopened_clean(&lab, &pairs, "closed");
}

/// Otherwise a crash would leave a segment that is newer than the manifest.
#[test]
fn a_prepared_segments_id_is_reserved_before_its_file_exists() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    for _ in 0..20 {
        while prepared(&db).is_none() {
            put(&db, &mut pairs, 5);
            db.inner.log().unwrap().prepare_next().unwrap();
        }
        let disk = lab.killed();
        let manifest = disk.twin.contents(&dir().manifest()).unwrap();
        let manifest = Manifest::decode(&manifest, &dir().manifest()).unwrap();
        assert!(prepared(&db).unwrap() < manifest.bound);
        assert_eq!(snapshot(&disk.open()), pairs);
        rotate(&db, &mut pairs);
    }
}

#[test]
fn a_small_store_has_no_second_file() {
    let lab = Lab::new();
    let db = lab.open();
    db.inner.work();
    assert!(lab.logs().is_empty());
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    db.inner.work();
    assert_eq!((prepared(&db), lab.logs().len()), (None, 1));
    db.put("c", "x".repeat(200)).unwrap();
    db.inner.work();
    assert!(prepared(&db).is_some());

    let lab = lab.on(Twin::new()).with(Options::new().segment_entries(8));
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.inner.work();
    assert_eq!(prepared(&db), None);
    db.put("b", "2").unwrap();
    db.inner.work();
    assert!(prepared(&db).is_some(), "the entry limit may fill a segment, too");
}

#[test]
fn an_unused_prepared_segment_is_removed_by_a_close() {
    let lab = Lab::new();
    let (db, pairs) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    let next = prepared(&db).unwrap();
    db.close().unwrap();
    assert_eq!(lab.twin.contents(&dir().log(next)), None);
    reopened_clean(&lab.powered_off(|_| false), &pairs, "power cut after the close");
    reopened_clean(&lab, &pairs, "closed");
}

#[test]
fn an_unused_prepared_segment_is_removed_by_the_next_open_after_a_crash() {
    let lab = Lab::new();
    let (db, pairs) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    let next = prepared(&db).unwrap();
    for disk in [lab.killed(), lab.powered_off(|_| false)] {
        let before = files(&disk.twin);
        let reader = disk.open_read_only();
        assert_eq!(snapshot(&reader), pairs);
        assert!(reader.recovery().cuts.is_empty());
        assert_eq!(files(&disk.twin), before, "a reader changes nothing");
        let db = disk.open();
        assert!(db.recovery().cuts.is_empty(), "{:?}", db.recovery());
        assert_eq!(disk.twin.contents(&dir().log(next)), None);
        db.put("new", "value").unwrap();
        assert!(active(&db) > next, "its id must not be reused");
        kill(db);
    }
}

#[test]
fn readers_ignore_a_prepared_segment() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    let read = |pairs: &Pairs| {
        let reader = lab.open_read_only();
        assert_eq!(snapshot(&reader), *pairs);
        assert!(reader.recovery().cuts.is_empty() && reader.recovery().leftovers.is_empty());
    };
    read(&pairs);
    rotate(&db, &mut pairs);
    read(&pairs);
    db.inner.work();
    read(&pairs);
}

#[test]
fn an_entry_too_large_for_the_prepared_segment_gets_another() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    let next = prepared(&db).unwrap();
    let large = "x".repeat(5000);
    db.put("large", &large).unwrap();
    pairs.insert("large".into(), large.into());
    assert!(active(&db) > next);
    assert_eq!(prepared(&db), None);
    assert_eq!(lab.twin.contents(&dir().log(next)), None);
    rotate(&db, &mut pairs);
    assert_eq!(snapshot(&lab.killed().open()), pairs);
    db.close().unwrap();
    reopened_clean(&lab, &pairs, "closed");
}

#[test]
fn a_segment_prepared_too_late_is_removed() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    let late = db.inner.log().unwrap().begin_next().unwrap().unwrap();
    rotate(&db, &mut pairs);
    assert!(active(&db) > late);
    db.inner.log().unwrap().finish_next(late).unwrap();
    assert_eq!(prepared(&db), None);
    assert_eq!(lab.twin.contents(&dir().log(late)), None);

    let late = db.inner.log().unwrap().begin_next().unwrap();
    assert_eq!(late, None, "the new segment is not full enough to prepare another");
    rotate(&db, &mut pairs);
    while db.inner.log().unwrap().begin_next().unwrap().is_none() {
        put(&db, &mut pairs, 3);
    }
    let late = active(&db);
    let late = SegmentId(late.0 + 1);
    db.clear().unwrap();
    db.inner.log().unwrap().finish_next(late).unwrap();
    assert_eq!((prepared(&db), lab.logs().len()), (None, 1), "a clear removes it, too");
    assert!(db.is_empty().unwrap());
    kill(db);
    assert!(lab.open().is_empty().unwrap());
}

#[test]
fn at_most_one_segment_is_prepared() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    let first = db.inner.log().unwrap().begin_next().unwrap().unwrap();
    let second = db.inner.log().unwrap().begin_next().unwrap().unwrap();
    assert!(first < second);
    db.inner.log().unwrap().finish_next(second).unwrap();
    db.inner.log().unwrap().finish_next(first).unwrap();
    assert_eq!((prepared(&db), lab.logs().len()), (Some(second), 2));
    rotate(&db, &mut pairs);
    db.close().unwrap();
    reopened_clean(&lab, &pairs, "closed");
}

#[test]
fn a_clear_removes_the_prepared_segment() {
    let lab = Lab::new();
    let (db, _) = begin(&lab);
    db.inner.log().unwrap().prepare_next().unwrap();
    db.clear().unwrap();
    assert_eq!((prepared(&db), lab.logs().len()), (None, 1));
    db.close().unwrap();
    assert!(lab.logs().is_empty());
    reopened_clean(&lab, &Pairs::new(), "closed");
}

/// A kill and power cuts at each operation of preparing a segment, rotating into prepared segments,
/// giving one up, and closing.
#[test]
fn a_crash_at_any_operation_loses_no_durable_write() {
    let lab = Lab::new();
    let (db, mut pairs) = begin(&lab);
    let start = lab.twin.op_count();
    // The state after each number of operations.
    let mut states = vec![(start, pairs.clone())];
    // The index of the durable state from each operation on.
    let mut durable = vec![(start, 0)];
    let (mut used, mut given_up) = (0, 0);
    for number in 10.. {
        db.inner.log().unwrap().prepare_next().unwrap();
        let (before, next) = (active(&db), prepared(&db));
        if next.is_some() && used == 1 && given_up == 0 {
            db.put("1", "x".repeat(3000)).unwrap();
            pairs.insert("1".into(), "x".repeat(3000).into());
            given_up += 1;
        } else {
            put(&db, &mut pairs, number);
        }
        states.push((lab.twin.op_count(), pairs.clone()));
        used += usize::from(Some(active(&db)) == next);
        if active(&db) > before {
            db.sync().unwrap();
            durable.push((lab.twin.op_count(), states.len() - 1));
        }
        if number == 30 {
            db.inner.seal_rotated().unwrap();
        }
        if used == 3 && prepared(&db).is_some() {
            break;
        }
    }
    assert_eq!(given_up, 1);
    db.close().unwrap();
    let end = lab.twin.op_count();
    let judge = |disk: &Lab, allowed: &[Pairs], when: &str| {
        let db = disk.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
        let found = snapshot(&db);
        assert!(allowed.contains(&found), "{when}: {found:?}");
        kill(db);
        reopened_clean(disk, &found, when);
    };
    for ops in start..=end {
        let done = states.iter().rposition(|(count, _)| *count <= ops).unwrap();
        let later = states.iter().take(done + 2).map(|(_, pairs)| pairs.clone());
        let all: Vec<Pairs> = later.collect();
        let (_, floor) = *durable.iter().rfind(|(count, _)| *count <= ops).unwrap();
        let killed = lab.on(lab.twin.kill_image(ops));
        judge(&killed, &all[done..], &format!("killed at {ops}"));
        for seed in 0..if long() { 60 } else { 4 } {
            let mut random = Random(seed << 32 | ops as u64);
            let image = lab.twin.power_image(ops, |_| random.below(4) < seed % 5);
            judge(&lab.on(image), &all[floor..], &format!("power cut at {ops}, seed {seed}"));
        }
    }
    reopened_clean(&lab.powered_off(|_| false), &pairs, "power cut after the close");
}

/// A failure while a segment is prepared fails no write, unless a sync failed.
#[test]
fn a_disk_failure_while_preparing_fails_no_write() {
    let (lab, trace) = {
        let lab = Lab::new();
        let (db, _) = begin(&lab);
        let start = lab.twin.op_count();
        db.inner.work();
        let trace = lab.twin.trace().split_off(start);
        kill(db);
        (lab, trace)
    };
    assert!(trace.len() > 4, "{trace:?}");
    let kinds = [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite, FaultKind::Interrupted];
    for kind in kinds {
        for (at, op) in trace.iter().enumerate() {
            for for_ever in [false, true] {
                let when = format!("{kind:?} at {op:?}, forever: {for_ever}");
                let lab = lab.on(Twin::new());
                let (db, mut pairs) = begin(&lab);
                let fault = Fault::new(kind).after(at);
                lab.twin.fail(if for_ever { fault.for_ever() } else { fault });
                db.inner.work();
                assert!(lab.twin.fault_count() > 0, "{when}");
                lab.twin.clear_fault();
                let is_sync = matches!(op, Op::Sync { .. } | Op::SyncDir { .. });
                let poisoned = db.inner.log().unwrap().check().is_err();
                // A permanent fault that preparing may ignore also hits a later sync.
                let may_meet_sync = for_ever && matches!(op, Op::Allocate { .. });
                let is_told = is_sync && kind != FaultKind::Interrupted;
                assert!(poisoned == is_told || poisoned && may_meet_sync, "{when}: {poisoned}");
                if poisoned {
                    assert_eq!(snapshot(&db), pairs, "{when}");
                    kill(db);
                } else {
                    rotate(&db, &mut pairs);
                    db.inner.work();
                    rotate(&db, &mut pairs);
                    assert_eq!(snapshot(&db), pairs, "{when}");
                    db.close().unwrap();
                    reopened_clean(&lab, &pairs, &when);
                }
                let harshest = lab.powered_off(|_| false);
                let db = harshest.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
                assert_eq!(snapshot(&db), pairs, "{when}: power cut");
                kill(db);
            }
        }
    }
}

#[test]
fn a_full_disk_prevents_only_the_preparation() {
    let lab = Lab::new().with(Options::new().segment_size(4096).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let mut pairs = Pairs::new();
    for number in 0..20 {
        put(&db, &mut pairs, number);
    }
    lab.twin.set_space(0);
    db.inner.work();
    assert_eq!(prepared(&db), None);
    for number in 20..30 {
        put(&db, &mut pairs, number);
        db.inner.work();
    }
    lab.twin.set_space(u64::MAX);
    db.inner.work();
    assert!(prepared(&db).is_some());
    rotate(&db, &mut pairs);
    db.close().unwrap();
    reopened_clean(&lab, &pairs, "closed");
}

/// The thread that makes room may still hold a segment that has been sealed meanwhile.
#[test]
fn a_sealed_segment_is_no_longer_extended() {
    let lab = Lab::new().with(Options::new().segment_size(8 << 20).segment_entries(4));
    let (db, mut pairs) = begin(&lab);
    let (room, path) = {
        let log = db.inner.writer().unwrap().log.lock();
        let active = log.active().unwrap();
        (Arc::clone(active.room()), active.segment().path().to_path_buf())
    };
    let size = || lab.twin.contents(&path).unwrap().len();
    let before = size();
    room.go_ahead(1 << 20).unwrap();
    assert!(size() > before);
    rotate(&db, &mut pairs);
    db.inner.seal_rotated().unwrap();
    let sealed = size();
    assert!(sealed < before);
    room.go_ahead(6 << 20).unwrap();
    assert_eq!(size(), sealed);
}

/// On a real disk, where pages are populated, the space that a store takes stays in proportion to
/// its content.
#[test]
fn reserved_room_is_proportional_to_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { threads: false, ..Env::default() };
    let db = Bitcask::open_on(&env, dir.path(), Options::default()).unwrap();
    let look = || {
        db.inner.work();
        let log = db.inner.writer().unwrap().log.lock();
        let active = log.active().unwrap();
        (active.end().offset, active.room().ready(), active.file().size().unwrap())
    };
    for _ in 0..10 {
        db.put("key", "value").unwrap();
    }
    let (_, ready, size) = look();
    assert!(ready <= 1 << 20 && size <= 1 << 20, "{ready}, {size}");
    let put = || (0..200).for_each(|_| db.put("key", vec![1; 3000]).unwrap());
    put();
    let (end, ready, size) = look();
    assert!((2 * end..=4 << 20).contains(&ready) && size <= 4 << 20, "{ready}, {size}");
    for _ in 0..10 {
        put();
        let (end, ready, size) = look();
        assert!(ready >= end + end.min(2 << 20) && size <= 4 * end, "{end}, {ready}, {size}");
    }
    // For large values, space is allocated ahead, but nothing is populated.
    for number in 0..20 {
        db.put("key", vec![1; 600_000]).unwrap();
        let (end, ready, size) = look();
        assert!(size >= end + end.min(2 << 20) && size <= 4 * end, "{end}, {ready}, {size}");
        assert!(number < 10 || ready == end, "{end}, {ready}, {size}");
    }
    db.close().unwrap();
}

/// On a real disk, large values are written and small ones stored, into the same pages.
#[test]
fn large_and_small_values_share_the_pages_of_a_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { threads: false, ..Env::default() };
    let options = Options::new().segment_size(2 << 20).append_mode(AppendMode::Mapped);
    let sizes = [10, 5000, 300, 70_000, 0, 300_000, 4096];
    let value = |number: u32| vec![number.to_be_bytes()[3]; sizes[number as usize % sizes.len()]];
    let check = |db: &Bitcask, len: u32| {
        for number in 0..len {
            let found = db.get(number.to_be_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&*value(number)), "{number}");
        }
    };
    let db = Bitcask::open_on(&env, dir.path(), options.clone()).unwrap();
    for number in 0..200_u32 {
        if number % 5 == 4 {
            let mut batch = Batch::new();
            batch.put(number.to_be_bytes(), value(number)).put(b"other", b"value");
            db.write(&batch).unwrap();
        } else {
            db.put(number.to_be_bytes(), value(number)).unwrap();
        }
        if number % 20 == 19 {
            check(&db, number + 1);
            db.inner.work();
        }
    }
    kill(db);
    let db = Bitcask::open_on(&env, dir.path(), options).unwrap();
    check(&db, 200);
}

/// A writer whose requests are handled promptly never extends or creates a file itself.
#[test]
fn a_writer_requests_room_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { threads: false, ..Env::default() };
    let options = Options::new().segment_size(16 << 20).sync_policy(SyncPolicy::Never);
    let db = Bitcask::open_on(&env, dir.path(), options).unwrap();
    let look = || {
        let log = db.inner.writer().unwrap().log.lock();
        let active = log.active()?;
        Some((active.segment().id(), active.end().offset, active.room().ready()))
    };
    let (mut rotations, mut wakes) = (0, 0);
    for number in 0..12_000_u64 {
        let (next, before) = (prepared(&db), look());
        db.put(number.to_be_bytes(), vec![1; 4000]).unwrap();
        let (id, end, ready) = look().unwrap();
        match before {
            Some((same, _, was)) if same == id => {
                assert!(
                    was == ready || end <= 256 << 10,
                    "the writer extended the segment itself at {end}"
                );
            }
            Some(_) => {
                assert_eq!(next, Some(id));
                rotations += 1;
            }
            None => {}
        }
        if db.inner.log().unwrap().prepare_signal.take_woken() {
            db.inner.prepare_due();
            wakes += 1;
        }
    }
    assert_eq!(rotations, 2);
    assert!((30..100).contains(&wakes), "{wakes}");
    db.close().unwrap();
}
