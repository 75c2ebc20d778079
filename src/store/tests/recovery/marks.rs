//! Syncs and when they happen, the meaning of durable marks, and the effects of a failed sync or a
//! full disk.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::MergeOptions;
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind, Op};

/// One segment for everything.
fn whole() -> Options {
    Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never)
}

/// Returns the entries that carry a mark, with the places that the marks name.
fn marks(lab: &Lab) -> Vec<(LogEntry, Place)> {
    let marked = log_entries(lab).into_iter();
    marked.filter_map(|entry| entry.mark.map(|mark| (entry, mark.into()))).collect()
}

fn syncs(twin: &Twin) -> usize {
    twin.trace().iter().filter(|op| matches!(op, Op::Sync { .. })).count()
}

/// Checks that everything below a place is in the log of a disk without its unsynced data.
fn assert_durable(lab: &Lab, place: Place) {
    let image = lab.powered_off(|_| false);
    let below = |lab: &Lab| -> Vec<LogEntry> {
        log_entries(lab).into_iter().filter(|entry| entry.place < place).collect()
    };
    assert_eq!(below(&image), below(lab));
}

#[test]
fn only_the_first_entry_after_a_sync_carries_a_mark() {
    let lab = Lab::new().with(whole());
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    assert_eq!(marks(&lab), []);
    db.sync().unwrap();
    db.put("c", "3").unwrap();
    db.put("d", "4").unwrap();
    let [(entry, place)] = &marks(&lab)[..] else { panic!("{:?}", marks(&lab)) };
    assert_eq!(entry.key, b"c");
    assert_eq!(*place, entry.place, "the log below the entry was durable");
    assert_durable(&lab, *place);
    // A delete or a batch carries it just as a put does.
    db.sync().unwrap();
    db.delete("a").unwrap();
    db.sync().unwrap();
    db.write(Batch::new().put("e", "5").put("f", "6")).unwrap();
    let keys: Vec<_> = marks(&lab).into_iter().map(|(entry, _)| entry.key).collect();
    assert_eq!(keys, [b"c", b"a", b"e"]);
    check(
        &lab.killed().open(),
        &model([("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"), ("f", "6")]),
    );
}

#[test]
fn every_mark_names_a_place_that_was_durable_when_it_was_written() {
    let lab = Lab::new().with(Options::new().segment_size(512).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let mut known = 0;
    for number in 0..200_u32 {
        // The place below which everything is durable before the write that may carry a mark.
        let before = lab.powered_off(|_| false);
        db.put((number % 7).to_be_bytes(), vec![7; number as usize % 90]).unwrap();
        let marked = marks(&lab);
        for (entry, place) in &marked[known..] {
            assert!(*place <= entry.place);
            let below = |entries: Vec<LogEntry>| -> Vec<LogEntry> {
                entries.into_iter().filter(|entry| entry.place < *place).collect()
            };
            assert_eq!(below(log_entries(&before)), below(log_entries(&lab)), "{entry:?}");
        }
        known = marked.len();
        if number % 3 == 0 {
            db.sync().unwrap();
        }
        if number % 11 == 0 {
            db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        }
    }
    assert!(known > 50);
    // An end entry may be lost with the rest of its segment, so the entry after it repeats its
    // mark.
    let of_a_key = marks(&lab).into_iter().filter(|(entry, _)| !entry.flags.has(Flags::END));
    let named: Vec<Place> = of_a_key.map(|(_, place)| place).collect();
    assert!(named.is_sorted_by(|a, b| a < b), "each mark names a later place");
}

#[test]
fn a_lone_mark_is_appended_once_and_requests_no_sync() {
    let options = whole().sync_policy(SyncPolicy::Interval(Duration::from_nanos(1)));
    let lab = Lab::new().with(options);
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    let (synced, entries) = (syncs(&lab.twin), log_entries(&lab).len());
    db.inner.log().unwrap().mark_if_due(Duration::from_secs(3600)).unwrap();
    assert_eq!(log_entries(&lab).len(), entries, "the mark waits for an entry to carry it");
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    let [(mark, place)] = &marks(&lab)[..] else { panic!("{:?}", marks(&lab)) };
    assert!(mark.flags.has(Flags::MARK_ONLY));
    assert_eq!(*place, mark.place);
    assert_durable(&lab, *place);
    let ops = lab.twin.op_count();
    for _ in 0..3 {
        db.inner.work();
        db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        db.sync().unwrap();
    }
    assert_eq!(lab.twin.op_count(), ops, "the log must neither grow nor be synced");
    assert_eq!(syncs(&lab.twin), synced);
    // The next sync covers the lone mark, and the next entry carries the mark of that sync.
    db.put("b", "2").unwrap();
    db.sync().unwrap();
    db.put("c", "3").unwrap();
    assert_eq!(marks(&lab).len(), 2);
    let model = model([("a", "1"), ("b", "2"), ("c", "3")]);
    check(&lab.killed().open(), &model);
    check(&lab.reopen(db), &model);
}

#[test]
fn no_lone_mark_is_appended_where_an_entry_carried_it() {
    let lab = Lab::new().with(whole());
    let db = lab.open();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    db.put("a", "1").unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    db.sync().unwrap();
    db.put("b", "2").unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(log_entries(&lab).len(), 2);
    // Nor for the first entry of a store, nor after a clear.
    db.sync().unwrap();
    db.clear().unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(log_entries(&lab), []);
}

#[test]
fn a_segment_with_only_a_lone_mark_is_recovered_as_empty() {
    let options = Options::new().segment_size(8 << 20).segment_entries(1);
    let lab = Lab::new().with(options.sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.put("a", "1").unwrap();
    // There is space for the next segment, but not for this value in it.
    lab.twin.set_space((2 << 20) + 4096);
    assert!(db.put("b", vec![1; 2 << 20]).unwrap_err().is_no_space());
    lab.twin.set_space(u64::MAX);
    db.sync().unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    let [(mark, _)] = &marks(&lab)[..] else { panic!("{:?}", marks(&lab)) };
    assert_eq!((mark.place.segment, mark.place.offset), (lab.logs()[1].0, FIRST_OFFSET));
    let model = model([("a", "1")]);
    for image in [lab.killed(), lab.powered_off(|_| false), lab.powered_off(|_| true)] {
        check(&image.open_read_only(), &model);
        let db = image.open();
        check(&db, &model);
        assert_eq!(image.logs().len(), 1);
        check(&image.reopen(db), &model);
    }
    check(&lab.reopen(db), &model);
    assert_eq!(lab.logs().len(), 1);
}

#[test]
fn a_mark_in_a_later_segment_covers_the_earlier_ones() {
    let lab = Lab::new().with(whole().segment_entries(1));
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    db.put("b", "2").unwrap();
    // The end entry of the first segment was the first entry after the sync. In case it is lost,
    // the first entry of the next segment repeats the mark.
    let [(end, place), (next, again)] = &marks(&lab)[..] else { panic!("{:?}", marks(&lab)) };
    assert!(end.flags.has(Flags::END));
    assert_eq!((*place, *again), (end.place, end.place));
    assert_eq!(next.key, b"b");
    let ids: Vec<SegmentId> = lab.logs().into_iter().map(|(id, _)| id).collect();
    assert_eq!((end.place.segment, next.place.segment), (ids[0], ids[1]));

    // Damage below the mark of the second segment is not a torn tail, even in the first segment.
    let (_, first) = &lab.logs()[0];
    let offset = usize::try_from(FIRST_OFFSET).unwrap() + crate::entry::HEADER_SIZE;
    for image in [lab.killed(), lab.powered_off(|_| true)] {
        let mut bytes = image.twin.contents(first).unwrap();
        bytes[offset] ^= 1;
        image.twin.put_file(first, bytes);
        match image.try_open() {
            Err(Error::Corrupt { path, offset, .. }) => {
                assert_eq!((&path, offset), (first, FIRST_OFFSET));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_interval_syncs_only_when_there_is_something_to_sync() {
    let options = whole().sync_policy(SyncPolicy::Interval(Duration::from_nanos(1)));
    let lab = Lab::new().with(options);
    let db = lab.open();
    let ops = lab.twin.op_count();
    db.inner.work();
    db.inner.work();
    assert_eq!(lab.twin.op_count(), ops);
    for number in 1..5_u64 {
        db.put("key", number.to_string()).unwrap();
        let synced = syncs(&lab.twin);
        db.inner.work();
        assert_eq!(syncs(&lab.twin), synced + 1);
        let ops = lab.twin.op_count();
        db.inner.work();
        db.inner.work();
        assert_eq!(lab.twin.op_count(), ops);
        assert_eq!(db.stats().syncs, number);
        check(&lab.powered_off(|_| false).open(), &model([("key", &number.to_string())]));
    }
}

#[test]
fn an_interval_does_not_sync_early() {
    let options = whole().sync_policy(SyncPolicy::Interval(Duration::from_secs(3600)));
    let lab = Lab::new().with(options);
    let db = lab.open();
    db.put("a", "1").unwrap();
    let ops = lab.twin.op_count();
    assert!(db.inner.work() <= Duration::from_secs(3600));
    assert_eq!(lab.twin.op_count(), ops);
    check(&lab.powered_off(|_| false).open(), &Model::new());
}

#[test]
fn a_write_may_request_more_or_less_than_the_policy() {
    let (now, later) = (WriteOptions::new().durable(true), WriteOptions::new().durable(false));
    let harshest = |lab: &Lab| lab.powered_off(|_| false).open();

    let lab = Lab::new().with(whole());
    let db = lab.open();
    db.put("a", "1").unwrap();
    assert_eq!(db.stats().syncs, 0);
    db.put_opt("b", "2", now).unwrap();
    assert_eq!(db.stats().syncs, 1);
    check(&harshest(&lab), &model([("a", "1"), ("b", "2")]));
    db.delete_opt("a", now).unwrap();
    check(&harshest(&lab), &model([("b", "2")]));
    db.write_opt(Batch::new().put("c", "3").delete("b"), now).unwrap();
    check(&harshest(&lab), &model([("c", "3")]));
    assert_eq!(db.stats().syncs, 3);
    assert!(!db.delete_opt("a", now).unwrap());
    assert_eq!(db.stats().syncs, 3, "no write happened");

    let lab = Lab::new().with(whole().sync_policy(SyncPolicy::Always));
    let db = lab.open();
    db.put("a", "1").unwrap();
    assert_eq!(db.stats().syncs, 1);
    db.put_opt("a", "2", later).unwrap();
    db.delete_opt("a", later).unwrap();
    db.write_opt(Batch::new().put("b", "3"), later).unwrap();
    assert_eq!(db.stats().syncs, 1);
    check(&harshest(&lab), &model([("a", "1")]));
    db.put("c", "4").unwrap();
    assert_eq!(db.stats().syncs, 2);
    check(&harshest(&lab), &model([("b", "3"), ("c", "4")]));
}

#[test]
fn acknowledged_writes_under_always_survive_the_harshest_power_cut() {
    for lab in [Lab::new(), Lab::weak()] {
        let options = Options::new().segment_size(600).sync_policy(SyncPolicy::Always);
        let lab = lab.with(options);
        let db = lab.open();
        for number in 0..60_u8 {
            let (key, value) = ([b'a' + number % 5], vec![number; 10 * usize::from(number)]);
            match number % 9 {
                1 => drop(db.delete(key).unwrap()),
                2 => db.write(Batch::new().put(key, &value).put("x", "y").delete("z")).unwrap(),
                3 => drop(db.update(key, |_| Some(&value)).unwrap()),
                4 => drop(db.put_if_absent(key, &value).unwrap()),
                5 => drop(db.compare_and_swap(key, None, Some(&value)).unwrap()),
                6 if number == 42 => db.clear().unwrap(),
                7 => drop(db.inner.work()),
                _ => db.put(key, &value).unwrap(),
            }
            let model = raw(&db);
            check(&lab.powered_off(|_| false).open(), &model);
        }
    }
}

#[test]
fn writers_that_wait_at_the_same_time_share_syncs() {
    let lab = Lab::new().with(Options::new().segment_size(4096).sync_policy(SyncPolicy::Always));
    let db = lab.open();
    let writes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (db, writes) = (&db, &writes);
            scope.spawn(move || {
                for number in 0..40_u8 {
                    db.put([thread, number % 4], [number; 20]).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let stats = db.stats();
    assert_eq!(stats.appends, writes.into_inner());
    assert!(stats.syncs <= stats.appends, "{} syncs", stats.syncs);
    let model = raw(&db);
    assert_eq!(model.len(), 32);
    check(&lab.powered_off(|_| false).open(), &model);
    check(&lab.reopen(db), &model);
}

#[test]
fn threads_on_a_real_disk_share_syncs_with_the_background_thread() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_size(4096).sync_policy(SyncPolicy::Always);
    let db = Bitcask::open(dir.path(), options.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let db = &db;
            scope.spawn(move || {
                for number in 0..25_u8 {
                    db.put([thread, number % 4], [number; 20]).unwrap();
                    let value = db.get([thread, number % 4]).unwrap().unwrap();
                    assert_eq!(value, [number; 20]);
                }
            });
        }
    });
    assert!(db.stats().syncs <= 200);
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), options).unwrap();
    assert!(db.recovery().is_clean());
    assert_eq!(db.len().unwrap(), 32);
}

/// Number of changes in a small workload, made one by one, with rotations, seals, syncs and a
/// clear.
const STEPS: usize = 40;

fn step(db: &Bitcask, number: usize) -> Result<()> {
    let key = [b'a' + u8::try_from(number % 4).unwrap()];
    let value = vec![u8::try_from(number).unwrap(); 40 + number * 7];
    match number % 10 {
        3 => db.delete(key).map(drop),
        4 => db.sync(),
        6 => db.write(Batch::new().put(key, &value).put("batch", &value).delete("d")),
        8 => db.put_opt(key, &value, WriteOptions::new().durable(true)),
        9 if number == 19 => db.clear(),
        _ => db.put(key, &value),
    }
}

/// Does the deferred work after every fourth step. Its failures show later.
fn work(db: &Bitcask, number: usize) {
    if number % 4 == 3 {
        db.inner.work();
        let _ = db.inner.log().unwrap().mark_if_due(Duration::ZERO);
    }
}

/// Runs the workload without a fault, and returns its states, beginning with the empty one.
fn states(lab: &Lab) -> Vec<Model> {
    let db = lab.open();
    let mut states = vec![raw(&db)];
    for number in 0..STEPS {
        step(&db, number).unwrap();
        work(&db, number);
        states.push(raw(&db));
    }
    db.close().unwrap();
    states
}

fn small() -> Lab {
    Lab::new().seeded(1).with(Options::new().segment_size(700).sync_policy(SyncPolicy::Never))
}

/// Checks a store whose sync has failed: it accepts no more writes and no longer touches its files,
/// but can be read. Closing returns the cause.
fn check_poisoned(lab: &Lab, db: Bitcask, model: &Model) {
    let ops = lab.twin.op_count();
    for result in [
        db.put("new", "value"),
        db.delete(model.keys().next().cloned().unwrap_or_default()).map(drop),
        db.write(Batch::new().put("new", "value")),
        db.update("new", |_| Some("value")).map(drop),
        db.expire(model.keys().next().cloned().unwrap_or_default(), Duration::ZERO).map(drop),
        db.sync(),
        db.clear(),
    ] {
        // If there is nothing to delete or to sync, the call does not access the disk.
        assert!(matches!(result, Ok(()) | Err(Error::Poisoned { .. })), "{result:?}");
    }
    assert!(matches!(db.put("new", "value"), Err(Error::Poisoned { .. })));
    db.inner.work();
    let _ = db.inner.log().unwrap().mark_if_due(Duration::ZERO);
    assert_eq!(snapshot(&db), visible(model, db.inner.clock.now()));
    for key in model.keys() {
        assert!(db.get(key).unwrap().is_some());
    }
    assert!(matches!(db.close(), Err(Error::Poisoned { .. })));
    assert_eq!(lab.twin.op_count(), ops, "a poisoned store must not change the disk");
}

/// Fails the sync with this number, of a file or of a directory. Returns whether there was one.
fn fail_sync(call: Call, number: usize, states: &[Model]) -> bool {
    let lab = small();
    let db = lab.open();
    lab.twin.fail(Fault::new(FaultKind::Eio).only(call).after(number));
    // The last state that is known to be durable.
    let (mut durable, mut reached) = (0, 0);
    while reached < STEPS && lab.twin.fault_count() == 0 {
        let ops = lab.twin.op_count();
        let result = step(&db, reached);
        if lab.twin.fault_count() > 0 {
            assert!(matches!(result, Err(Error::Poisoned { .. })), "{result:?}");
            check_cleanup(&lab, ops);
            break;
        }
        result.unwrap();
        reached += 1;
        if matches!((reached - 1) % 10, 4 | 8) || reached - 1 == 19 {
            durable = reached;
        }
        work(&db, reached - 1);
    }
    if lab.twin.fault_count() == 0 {
        drop(db);
        return false;
    }
    // A failed write's entry may be visible or not.
    let seen = raw(&db);
    let later = (reached + 1).min(STEPS);
    assert!(states[reached..=later].contains(&seen), "{call:?} {number}");
    check_poisoned(&lab, db, &seen);
    let cuts: [fn(Unsynced<'_>) -> bool; 2] = [|_| false, |_| true];
    let images = cuts.into_iter().map(|keep| lab.powered_off(keep));
    for image in images.chain([lab.killed(), lab.clone()]) {
        let db = image.try_open().unwrap_or_else(|error| panic!("{call:?} {number}: {error}"));
        let found = raw(&db);
        assert!(states[durable..=later].contains(&found), "{call:?} {number}: {found:?}");
        db.put("new", "value").unwrap();
        db.close().unwrap();
    }
    true
}

/// Checks that after a failed sync, nothing was removed except temporary files.
fn check_cleanup(lab: &Lab, ops: usize) {
    let trace = lab.twin.trace();
    let is_temporary = |path: &Path| path.extension().is_some_and(|extension| extension == "tmp");
    let removed = trace[ops..].iter().filter_map(|op| match op {
        Op::Remove { path } => Some(path),
        _ => None,
    });
    for path in removed {
        // A clear removes the old files, but only once it has succeeded.
        assert!(is_temporary(path), "{} was removed after a failed sync", path.display());
    }
}

#[test]
fn the_first_failed_sync_ends_writing_and_nothing_durable_is_lost() {
    let states = states(&small());
    for call in [Call::Sync, Call::SyncDir] {
        let count = (0..10_000).take_while(|number| fail_sync(call, *number, &states)).count();
        assert!(count > 20, "{count} {call:?}");
    }
}

#[test]
fn a_sync_that_fails_for_lack_of_space_poisons_too() {
    let lab = small();
    let db = lab.open();
    db.put("a", "1").unwrap();
    lab.twin.fail(Fault::new(FaultKind::Enospc).only(Call::Sync));
    match db.sync() {
        Err(Error::Poisoned { cause }) => assert!(matches!(*cause, Error::Io { .. }), "{cause}"),
        other => panic!("{other:?}"),
    }
    check_poisoned(&lab, db, &model([("a", "1")]));
}

#[test]
fn a_partly_failed_write_ends_writing() {
    for kind in [FaultKind::ShortWrite, FaultKind::Eio, FaultKind::Enospc] {
        let lab = Lab::new().with(whole());
        let db = lab.open();
        db.put("a", "1").unwrap();
        lab.twin.fail(Fault::new(kind).only(Call::Write));
        // The segment was created under a temporary name, which would not be found later.
        let Err(Error::Poisoned { cause }) = db.put("b", "2") else { panic!("it failed") };
        assert!(
            cause.to_string().contains(".log:") || cause.to_string().contains(".log;"),
            "{cause}"
        );
        check_poisoned(&lab, db, &model([("a", "1")]));
        for image in [lab.powered_off(|_| true), lab.killed(), lab.clone()] {
            check(&image.open(), &model([("a", "1")]));
        }
    }
}

/// Fails one operation of the workload like a full disk. Returns false if there was no such
/// operation.
fn fill_disk_once(number: usize, states: &[Model]) -> bool {
    let lab = small();
    lab.twin.fail(Fault::new(FaultKind::Enospc).after(number));
    let db = match lab.try_open() {
        Ok(db) => db,
        Err(error) => {
            // A sync, the lock, or something that can be retried; no harm is done.
            assert_eq!(lab.twin.fault_count(), 1, "{error}");
            lab.open()
        }
    };
    let mut at = 0;
    while at < STEPS {
        let before = lab.twin.fault_count();
        match step(&db, at) {
            Ok(()) => {
                assert_eq!(raw(&db), states[at + 1]);
                work(&db, at);
                at += 1;
            }
            // A clear is complete even if old files could not be removed.
            Err(Error::NoSpace { .. }) if at == 19 && raw(&db) == states[at + 1] => at += 1,
            Err(Error::NoSpace { .. }) => {
                assert_eq!(lab.twin.fault_count(), before + 1, "one full disk, one failure");
                assert_eq!(raw(&db), states[at], "a failed write must change nothing");
                check(&lab.killed().open(), &states[at]);
            }
            // A failed append or sync cannot be undone: the content on disk is unknown.
            Err(Error::Poisoned { cause }) => {
                let is_sync =
                    matches!(&*cause, Error::Io { action, .. } if action.contains("sync"));
                let is_append = matches!(&*cause, Error::NoSpace { path }
                    if path.extension().is_some_and(|extension| extension == "log"));
                assert!(is_sync || is_append, "operation {number}: {cause}");
                drop(db);
                assert!(states[at..=at + 1].contains(&raw(&lab.open())), "operation {number}");
                return true;
            }
            Err(error) => panic!("operation {number}: {error}"),
        }
    }
    check(&db, &states[STEPS]);
    check(&lab.killed().open(), &states[STEPS]);
    let closed = db.close();
    let struck = lab.twin.fault_count() > 0;
    assert!(struck || closed.is_ok());
    lab.twin.clear_fault();
    check(&lab.open(), &states[STEPS]);
    struck
}

#[test]
fn a_full_disk_fails_only_the_affected_write() {
    let states = states(&small());
    let count = (0..10_000).take_while(|number| fill_disk_once(*number, &states)).count();
    assert!(count > 200, "{count} operations");
}

#[test]
fn writes_succeed_again_once_there_is_space() {
    let states = states(&small());
    for full_at in 0..STEPS {
        let lab = small();
        let db = lab.open();
        for number in 0..STEPS {
            if number == full_at {
                lab.twin.set_space(0);
                let result = step(&db, number);
                db.inner.work();
                let _ = db.inner.log().unwrap().mark_if_due(Duration::ZERO);
                match &result {
                    Ok(()) => assert_eq!(raw(&db), states[number + 1]),
                    Err(error) => {
                        assert!(error.is_no_space(), "step {number}: {error}");
                        assert_eq!(raw(&db), states[number]);
                        check(&db, &states[number]);
                    }
                }
                lab.twin.set_space(u64::MAX);
                if result.is_ok() {
                    continue;
                }
            }
            step(&db, number).unwrap();
            work(&db, number);
            assert_eq!(raw(&db), states[number + 1]);
        }
        check(&lab.killed().open(), &states[STEPS]);
        check(&lab.reopen(db), &states[STEPS]);
    }
}

#[test]
fn a_lone_mark_leaves_room_for_the_end_entry() {
    // If a lone mark used the room reserved for the end entry without reserving more, the next
    // rotation could run out of space half-way, which ends writing.
    let options = Options::new().segment_size(4 << 20).sync_policy(SyncPolicy::Never);
    let lab = Lab::new().with(options.clone());
    let value = vec![7; (1 << 20) - 128];
    let room = {
        let lab = lab.on(Twin::new());
        let db = lab.open();
        db.put("a", &value).unwrap();
        lab.twin
            .files()
            .iter()
            .map(|path| lab.twin.contents(path).unwrap().len() as u64)
            .sum::<u64>()
    };
    let lab = lab.with(options.segment_entries(1));
    let db = lab.open();
    db.put("a", &value).unwrap();
    db.sync().unwrap();
    // There is space for the next segment, and for nothing else.
    lab.twin.set_space(room + (1 << 20));
    let _ = db.inner.log().unwrap().mark_if_due(Duration::ZERO);
    match db.put("b", "2") {
        Ok(()) => {}
        Err(error) => assert!(error.is_no_space(), "{error}"),
    }
    lab.twin.set_space(u64::MAX);
    db.put("b", "3").unwrap();
    assert_eq!(lab.reopen(db).get("b").unwrap().unwrap(), "3");
}

#[test]
fn a_log_is_at_rest_once_a_mark_covers_it_and_the_next_append_wakes_it() {
    let lab = Lab::new().with(whole());
    let db = lab.open();
    let log = db.inner.log().unwrap();
    let at_rest = db.inner.sync_and_mark_due();
    assert!(log.is_at_rest(), "an empty log");
    for round in 0..2 {
        db.put("a", "1").unwrap();
        assert!(!log.is_at_rest() && log.sync_signal.take_woken(), "round {round}");
        db.put("b", "2").unwrap();
        assert!(!log.sync_signal.take_woken(), "woken once, under a policy without an interval");
        assert!(db.inner.sync_and_mark_due() < at_rest, "not durable yet");
        db.sync().unwrap();
        assert!(!log.come_to_rest(), "not marked yet");
        log.mark_if_due(Duration::ZERO).unwrap();
        assert_eq!(db.inner.sync_and_mark_due(), at_rest);
        assert!(log.is_at_rest());
        assert_eq!((db.inner.seal_due(), db.inner.prepare_due()), (at_rest, at_rest));
    }
}

#[test]
fn what_merges_and_clears_leave_to_readers_is_freed_soon_in_a_store_at_rest() {
    let db = Lab::new().with(whole()).open();
    let log = db.inner.log().unwrap();
    for clears in [false, true] {
        db.put("a", "1").unwrap();
        log.rotate_active().unwrap();
        db.inner.work();
        db.sync().unwrap();
        log.mark_if_due(Duration::ZERO).unwrap();
        let at_rest = db.inner.sync_and_mark_due();
        assert_eq!(db.inner.seal_due(), at_rest);
        log.seal_signal.take_woken();
        let id = db.segments()[0].id;
        db.get_with("a", |_| {
            if clears {
                db.clear().unwrap();
            } else {
                db.merge_opt(MergeOptions::new().segments([id])).unwrap();
            }
            assert!(log.is_at_rest() && log.seal_signal.take_woken());
            assert!(db.inner.seal_due() < at_rest, "looks again soon");
        })
        .unwrap()
        .unwrap();
    }
}
