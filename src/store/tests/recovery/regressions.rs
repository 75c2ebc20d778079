//! Bugs that were there once: each test tells the story of one.

use crate::store::tests::*;
use crate::testing::twin::Op;

/// `delete` says that the key is absent, and its caller asked to be told so durably.
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

/// A board without a battery starts in 1970: what lies behind damage is no less durable for it.
#[test]
fn damage_is_told_from_a_torn_tail_though_the_clock_has_lost_the_date() {
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
    assert!(lab.try_open().unwrap_err().is_corruption(), "durable data was cut");
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

/// The sync that was running while an entry took the mark of the one before gets its own mark.
#[test]
fn a_mark_of_its_own_follows_a_sync_during_which_an_entry_took_an_earlier_mark() {
    let lab = Lab::new().with(Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let log = db.inner.log().unwrap();
    // A sync; an entry is appended while it runs, and so carries no mark.
    let put_meanwhile = |key: &str| {
        let end = log.lock().end();
        log.sync_beside(end, || db.put(key, "1").unwrap());
        end
    };
    db.put("a", "1").unwrap();
    put_meanwhile("b");
    // `c` carries the mark of the first sync while the second one runs.
    let durable = put_meanwhile("c");
    assert_eq!(marks_of(&lab).len(), 1);
    log.mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(marks_of(&lab).last(), Some(&durable), "no mark says that `b` is durable");
}

fn marks_of(lab: &Lab) -> Vec<Place> {
    log_entries(lab).into_iter().filter_map(|entry| entry.mark).map(Place::from).collect()
}

/// A manifest that was renamed into place, and whose directory was not synced since, may be gone
/// after a power cut: what it makes a leftover must not be removed before it is durable.
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
            // The last segment is empty, so that recovery removes it.
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
        // Removals reached the disk, the rename of the manifest did not.
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

/// The sync that an interval asks for does not wait for segments to be sealed.
#[test]
fn an_interval_is_kept_while_a_segment_is_being_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let policy = SyncPolicy::Interval(Duration::from_millis(1));
    let options = Options::new().segment_size(512).sync_policy(policy);
    let db = Bitcask::open(dir.path(), options).unwrap();
    db.put("a", vec![7; 300]).unwrap();
    // A seal that takes long.
    let seal = db.inner.log().unwrap().lock_maintenance();
    db.put("b", vec![7; 300]).unwrap();
    db.put("c", "d").unwrap();
    // Were it the thread that seals which has to sync, this would never end.
    while db.inner.log().unwrap().lock().is_dirty() {
        std::thread::yield_now();
    }
    drop(seal);
}

/// A put that was too large for the disk must not leave a segment that is larger than asked for.
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

/// Letting go of a segment once flushed what was deferred, from within what was deferred: each
/// segment that was removed at the same time took a few frames of the stack, and some hundreds of
/// them all of it.
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

/// Times in the log rise, though the clock of the machine was set back while the store was closed.
#[test]
fn times_rise_over_a_reopen_though_the_clock_was_set_back() {
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
