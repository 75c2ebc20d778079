//! Bugs that have been fixed, each with its story.

use crate::store::tests::*;
use crate::testing::twin::Op;

/// `delete` reports that the key is absent, and the caller requested that this be durable.
#[test]
fn a_durable_delete_of_an_absent_key_makes_its_absence_durable() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("k", "v").unwrap();
    db.sync().unwrap();
    assert!(db.delete("k").unwrap()); // Not synced: the policy is `Never`.
    let durable = WriteOptions::new().durable(true);
    assert!(!db.delete_opt("k", durable).unwrap());
    check(&lab.powered_off(|_| false).open(), &Model::new());
    db.put("k", "v").unwrap();
    db.sync().unwrap();
    db.delete("k").unwrap();
    db.write_opt(Batch::new().delete("k"), durable).unwrap();
    check(&lab.powered_off(|_| false).open(), &Model::new());
}

/// A board without a battery starts in 1970. That does not make the data after damage any less
/// durable.
#[test]
fn damage_is_distinguished_from_a_torn_tail_despite_a_reset_clock() {
    let lab = Lab::new().with(Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    db.put("b", "2").unwrap();
    db.sync().unwrap();
    kill(db);
    let (_, path) = lab.logs().pop().unwrap();
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(FIRST_OFFSET).unwrap() + 20] ^= 0xff;
    lab.twin.put_file(&path, bytes);
    assert!(lab.try_open().unwrap_err().is_corruption());
    lab.hands.step_back(Duration::from_secs(40 * 365 * 86_400));
    assert!(lab.try_open().unwrap_err().is_corruption(), "durable data must not be cut");
}

#[test]
fn a_hint_from_the_end_of_time_does_not_panic() {
    use crate::segment::hint::{Hint, HintSource};
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let identity = db.inner.identity;
    db.close().unwrap();
    let (id, path) = lab.hints().pop().unwrap();
    let length = lab.twin.contents(&lab.logs().pop().unwrap().1).unwrap().len() as u64;
    let source = HintSource { id, identity, length };
    let mut hint = Hint::decode(&lab.twin.contents(&path).unwrap(), source).unwrap();
    hint.summary.last_timestamp = u64::MAX;
    lab.twin.put_file(&path, hint.encode(source));
    let db = lab.open();
    db.put("b", "2").unwrap();
    db.put("c", "2").unwrap();
    kill(db);
    let db = lab.open();
    assert_eq!(db.get("c").unwrap().unwrap(), "2");
}

/// If an entry takes the mark of the earlier sync while a sync runs, the running sync gets a
/// separate mark.
#[test]
fn a_sync_gets_a_lone_mark_if_an_entry_took_an_earlier_mark_meanwhile() {
    let lab = Lab::new().with(Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let log = db.inner.log().unwrap();
    // An entry is appended during a sync, and so carries no mark.
    let put_meanwhile = |key: &str| {
        let end = log.lock().end();
        log.sync_during(end, || db.put(key, "1").unwrap());
        end
    };
    db.put("a", "1").unwrap();
    put_meanwhile("b");
    // `c` carries the mark of the first sync while the second one runs.
    let durable = put_meanwhile("c");
    assert_eq!(marks_of(&lab).len(), 1);
    log.mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(marks_of(&lab).last(), Some(&durable), "a mark must show that `b` is durable");
}

fn marks_of(lab: &Lab) -> Vec<Place> {
    log_entries(lab).into_iter().filter_map(|entry| entry.mark).map(Place::from).collect()
}

/// A manifest that was renamed into place may be lost in a power cut if its directory has not been
/// synced since. Files that it makes leftovers must not be removed before it is durable.
#[test]
fn leftovers_are_removed_only_once_the_manifest_that_makes_them_so_is_durable() {
    use crate::testing::twin::{Call, Fault, FaultKind};
    for (what, syncs) in ["clear", "recovery"].into_iter().flat_map(|w| (0..8).map(move |n| (w, n)))
    {
        let lab = Lab::new();
        let db = lab.open();
        for number in 0..20_u32 {
            db.put(number.to_be_bytes(), vec![7; 100]).unwrap();
        }
        db.sync().unwrap();
        let fault = Fault::new(FaultKind::Eio).only(Call::SyncDir).after(syncs);
        if what == "clear" {
            lab.twin.fail(fault.clone());
            let _ = db.clear();
            kill(db);
        } else {
            // The last segment is empty, so recovery removes it.
            let writer = db.inner.writer().unwrap();
            let mut log = writer.log.lock();
            let mut draft = crate::segment::write::draft::Draft::put(b"big", &[7; 2000], None);
            let count = lab.twin.op_count();
            lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::Write).after(2));
            let drafts = std::slice::from_mut(&mut draft);
            let _ = writer.log.append(&mut log, drafts, &db.inner.pin()).unwrap_err();
            assert!(lab.twin.op_count() > count);
            drop(log);
            lab.twin.clear_fault();
            kill(db);
        }
        let killed = lab.twin.op_count();
        if what == "recovery" {
            lab.twin.fail(fault.clone());
            let _ = lab.try_open();
        }
        lab.twin.clear_fault();
        let Ok(db) = lab.try_open() else { panic!("{what} {syncs}") };
        kill(db);
        // The removals reached the disk, but the rename of the manifest did not.
        for op in killed..=lab.twin.op_count() {
            let image = lab.on(lab.twin.power_image(op, |unsynced| {
                matches!(unsynced, Unsynced::Name(Op::Remove { .. }) | Unsynced::Data(_))
            }));
            match image.try_open() {
                Ok(db) => {
                    assert!(db.len().unwrap() == 20 || what == "clear" && db.is_empty().unwrap());
                }
                Err(error) => panic!("{what} {syncs}, after {op} operations: {error}"),
            }
        }
    }
}

/// A sync that is due by the interval does not wait for segments to be sealed.
#[test]
fn an_interval_is_kept_while_a_segment_is_being_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let policy = SyncPolicy::Interval(Duration::from_millis(1));
    let options = Options::new().segment_size(512).sync_policy(policy);
    let db = Bitcask::open(dir.path(), options).unwrap();
    db.put("a", vec![7; 300]).unwrap();
    // A seal that takes a long time.
    let seal = db.inner.log().unwrap().lock_maintenance();
    db.put("b", vec![7; 300]).unwrap();
    db.put("c", "d").unwrap();
    // If the sync were the sealing thread's task, this would never end.
    while db.inner.log().unwrap().lock().is_dirty() {
        std::thread::yield_now();
    }
    drop(seal);
}

/// A put too large for the disk must not leave a segment that is larger than the configured size.
#[test]
fn a_failed_large_put_does_not_make_the_next_segment_large() {
    let lab = Lab::new();
    let db = lab.open();
    lab.twin.set_space(64 << 10);
    assert!(db.put("a", vec![7; 1 << 20]).unwrap_err().is_no_space());
    for _ in 0..100 {
        db.put("b", vec![7; 100]).unwrap();
    }
    assert!(db.stats().segments > 5);
}

/// Regression: releasing a segment flushed the deferred work from within deferred work. Each
/// segment removed in the same pass took several stack frames, and several hundred of them
/// overflowed the stack.
#[test]
fn a_store_of_many_segments_can_be_cleared_on_a_small_stack() {
    const SEGMENTS: u32 = 150;
    let lab = Lab::new();
    let lab = lab.with(Options::new().segment_size(512).segment_entries(1));
    let db = lab.open();
    (0..SEGMENTS).for_each(|key| db.put(key.to_be_bytes(), "value").unwrap());
    assert_eq!(db.stats().segments, u64::from(SEGMENTS));
    std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn_scoped(scope, || db.clear().unwrap()).unwrap().join().unwrap();
    });
    assert_eq!(db.stats().segments, 1);
    kill(db);
}

/// Timestamps in the log increase even if the machine's clock was set back while the store was
/// closed.
#[test]
fn timestamps_increase_across_a_reopen_despite_a_clock_set_back() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let db = lab.reopen(db);
    db.put("b", "2").unwrap();
    kill(db);
    lab.hands.step_back(Duration::from_secs(3600));
    let db = lab.open();
    db.put("c", "3").unwrap();
    let times: Vec<u64> = log_entries(&lab).iter().map(|entry| entry.timestamp).collect();
    assert!(times.len() >= 3 && times.is_sorted_by(|a, b| a < b), "{times:?}");
}
