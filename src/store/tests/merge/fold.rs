//! Programs that start again and again: opening and closing the store folds the segments of earlier
//! runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::basics::{seal_active, sealed};
use crate::merge::SMALL_MAX;
use crate::options::{AutoMerge, MergePolicy};
use crate::store::changes::position::Position;
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

/// Number of segments that short runs never reach.
const FEW: usize = 48;

fn key(number: usize) -> Vec<u8> {
    vec![u8::try_from(number % 50).unwrap()]
}

/// Opens the store, puts one of several keys, and closes it.
fn run(lab: &Lab, number: usize) {
    let db = lab.open();
    db.put(key(number), number.to_string()).unwrap();
    db.close().unwrap();
}

fn expected(runs: usize) -> Pairs {
    (0..runs).map(|number| (key(number), number.to_string().into_bytes())).collect()
}

fn manual(lab: &Lab) -> Lab {
    lab.clone().with(lab.options.clone().merge_policy(MergePolicy::Manual))
}

/// A disk with one segment of one entry per run, none of them folded.
fn unfolded(runs: usize) -> Lab {
    let lab = Lab::new().seeded(7);
    (0..runs).for_each(|number| run(&manual(&lab), number));
    assert_eq!(lab.logs().len(), runs);
    lab
}

#[test]
fn runs_that_write_a_little_leave_few_segments() {
    let lab = Lab::new();
    let mut most = 0;
    for number in 0..300 {
        run(&lab, number);
        most = most.max(lab.logs().len());
    }
    assert!(most <= FEW, "{most} segments");
    assert_eq!(lab.logs().len(), lab.hints().len());
    let db = lab.open();
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(snapshot(&db), expected(300));
}

#[test]
fn a_manual_policy_folds_nothing() {
    let lab = unfolded(60);
    run(&manual(&lab), 60);
    assert_eq!(lab.logs().len(), 61);
    let none = MergePolicy::Auto(AutoMerge::new().small_size(0));
    run(&lab.clone().with(lab.options.clone().merge_policy(none)), 61);
    assert_eq!(lab.logs().len(), 62);
    run(&lab, 62);
    assert!(lab.logs().len() <= FEW, "{}", lab.logs().len());
    assert_eq!(snapshot(&lab.open()), expected(63));
}

#[test]
fn segments_of_many_runs_are_folded_after_the_store_is_opened() {
    let lab = unfolded(700);
    let db = lab.open();
    assert_eq!(sealed(&db).len(), 700, "opening folds nothing");
    db.inner.merge_due();
    assert!(sealed(&db).len() <= FEW, "{}", sealed(&db).len());
    assert_eq!(snapshot(&db), expected(700));
    check_figures(&db);
    assert_eq!(snapshot(&lab.reopen(db)), expected(700));

    // Without a background thread, each close folds a part.
    let lab = unfolded(700);
    run(&lab, 700);
    let left = lab.logs().len();
    assert!((400..500).contains(&left), "{left}");
    run(&lab, 701);
    run(&lab, 702);
    assert!(lab.logs().len() <= FEW, "{}", lab.logs().len());
    assert_eq!(snapshot(&lab.open()), expected(703));
}

/// Each run continues where the last one stopped.
#[test]
fn folds_force_no_resync_on_an_up_to_date_follower() {
    let lab = Lab::new();
    let (mut at, mut behind) = (Position::START, Vec::new());
    let mut folded = 0;
    for number in 0..200_usize {
        let before = lab.logs().len();
        let db = lab.open();
        let mut changes = db.changes(at).unwrap();
        assert_eq!(changes.try_recv().unwrap(), None);
        db.put([7], number.to_string()).unwrap();
        at = changes.try_recv().unwrap().unwrap().position;
        // The follower is dropped before or after the store is closed.
        let late = (number % 2 == 0).then_some(changes);
        db.close().unwrap();
        folded += usize::from(lab.logs().len() < before);
        if let Some(mut changes) = late {
            assert_eq!(changes.recv().unwrap(), None);
        }
        behind.push(at);
        // Followers that are several runs behind can resume, too.
        let db = lab.open();
        let since = behind[behind.len().saturating_sub(7)];
        let mut changes = db.changes(since).unwrap();
        let told = std::iter::from_fn(|| changes.try_recv().unwrap()).count();
        assert_eq!(told, behind.len().min(7) - 1);
        kill(db);
    }
    assert!(folded > 5, "{folded} folds");
}

#[test]
fn a_follower_that_outlives_its_store_receives_all_committed_changes() {
    let lab = unfolded(60);
    let db = lab.open();
    let changes = db.changes(Position::START).unwrap();
    db.close().unwrap();
    assert_eq!(changes.map(Result::unwrap).count(), 60);
}

/// The callback after a merge may drop the store. Another process may have opened the store by
/// then.
#[test]
fn the_merging_thread_folds_nothing_after_a_close() {
    let lab = unfolded(700);
    let (slot, closed_at) = (Arc::new(Mutex::new(None::<Bitcask>)), Arc::new(Mutex::new(None)));
    let (theirs, noted, twin) = (slot.clone(), closed_at.clone(), Arc::clone(&lab.twin));
    let auto = AutoMerge::new().on_finish(move |_| {
        let db = theirs.lock().take();
        if let Some(db) = db {
            db.close().unwrap();
            *noted.lock() = Some(twin.op_count());
        }
    });
    let db = lab.clone().with(lab.options.clone().merge_policy(MergePolicy::Auto(auto))).open();
    let inner = Arc::clone(&db.inner);
    *slot.lock() = Some(db);
    inner.merge_due();
    let closed_at = closed_at.lock().expect("the first fold must close the store");
    assert!(lab.logs().len() > FEW, "everything was folded before the close");
    assert_eq!(lab.twin.op_count(), closed_at, "the disk was changed without the lock");
    assert_eq!(snapshot(&lab.open()), expected(700));
}

/// A disk on which the next close folds, with the number of operations of opening and putting.
fn about_to_fold() -> (Lab, Pairs) {
    let runs = usize::try_from(SMALL_MAX).unwrap();
    (unfolded(runs), expected(runs + 1))
}

#[test]
fn a_crash_at_any_step_of_a_fold_at_close_loses_nothing() {
    let (prepared, pairs) = about_to_fold();
    let before: Pairs = expected(pairs.len() - 1);
    let lab = prepared.on(prepared.twin.fork());
    let db = lab.open();
    db.put([32], "32").unwrap();
    db.sync().unwrap();
    let synced = lab.twin.op_count();
    db.close().unwrap();
    assert!(lab.logs().len() < 12, "{}", lab.logs().len());
    for ops in 0..=lab.twin.op_count() {
        let expected = if ops < synced { vec![&before, &pairs] } else { vec![&pairs] };
        let mut random = story::Random(ops as u64);
        let images = [
            lab.twin.kill_image(ops),
            lab.twin.power_image(ops, |_| false),
            lab.twin.power_image(ops, |_| true),
            lab.twin.power_image(ops, |_| random.below(2) == 0),
        ];
        for (kind, image) in images.into_iter().enumerate() {
            let left = lab.on(image);
            let when = format!("image {kind} after {ops} operations");
            let db = left.try_open().unwrap_or_else(|error| panic!("{when}: {error}"));
            assert!(expected.contains(&&snapshot(&db)), "{when}");
            check_figures(&db);
            db.close().unwrap();
            assert!(expected.contains(&&snapshot(&left.open())), "{when}, again");
        }
    }
}

#[test]
fn a_failing_fold_does_not_fail_the_close() {
    let (prepared, pairs) = about_to_fold();
    let (mut failed, mut closed) = (0, 0);
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::Emfile] {
        for at in 0.. {
            let lab = prepared.on(prepared.twin.fork());
            let db = lab.open();
            db.put([32], "32").unwrap();
            db.inner.log().unwrap().rotate_active().unwrap();
            db.inner.seal_rotated().unwrap();
            lab.twin.fail(Fault::new(kind).reads_too().after(at).for_ever());
            let result = db.close();
            if lab.twin.fault_count() == 0 {
                assert!(result.is_ok() && lab.logs().len() < 12);
                break;
            }
            lab.twin.clear_fault();
            match &result {
                Ok(()) => closed += 1,
                // The failing call belongs to the close itself, or is a sync.
                Err(_) => failed += 1,
            }
            let found = snapshot(&lab.open());
            assert_eq!(found, pairs, "{kind:?} from call {at} on: {result:?}");
        }
    }
    assert!(closed > 100 && failed > 0, "{closed} closed, {failed} failed");
}

/// A fold that cannot create its output changes nothing.
#[test]
fn a_close_folds_nothing_without_space() {
    let (lab, pairs) = about_to_fold();
    let db = lab.open();
    db.put([32], "32").unwrap();
    db.inner.log().unwrap().rotate_active().unwrap();
    db.inner.seal_rotated().unwrap();
    lab.twin.fail(Fault::new(FaultKind::Enospc).only(Call::Allocate).for_ever());
    db.close().unwrap();
    lab.twin.clear_fault();
    assert_eq!(lab.logs().len(), 33);
    assert_eq!(snapshot(&lab.open()), pairs);
}

/// The keys determine which segments are small, and a store that was just opened may have many of
/// them.
#[test]
fn a_close_does_not_fill_a_large_keydir_to_look_for_folds() {
    const SEGMENTS: usize = 260;
    const ENTRIES: u32 = 260;
    let options = Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never);
    let lab = Lab::new().with(options.merge_policy(MergePolicy::Manual));
    let db = lab.open();
    for _ in 0..SEGMENTS {
        let put = |number: u32| (number.to_be_bytes(), [7; 8]);
        db.write(&(0..ENTRIES).map(put).collect()).unwrap();
        seal_active(&db);
    }
    db.close().unwrap();
    let close = |small_size: u64| {
        let policy = MergePolicy::Auto(AutoMerge::new().small_size(small_size));
        let lab = lab.clone().with(lab.options.clone().merge_policy(policy));
        let db = lab.open();
        db.put("key", "value").unwrap();
        let inner = Arc::clone(&db.inner);
        db.close().unwrap();
        inner.filler.is_done()
    };
    assert!(!close(1024), "all keys were gathered, although no segment is small");
    assert_eq!(lab.logs().len(), SEGMENTS + 1);
    assert!(close(1 << 20), "this many small segments are worth a fold");
    assert!(lab.logs().len() < SEGMENTS / 2, "{}", lab.logs().len());
}

/// Writes made while the clock was ahead do not shift the window.
#[test]
fn a_merge_window_uses_wall_clock_hours() {
    const AHEAD: Duration = Duration::from_secs(6 * 3600);
    // It is ten in the evening by the clock, and four in the morning by the log's time.
    for (from, to, is_open) in [(22, 23, true), (4, 5, false)] {
        let lab = unfolded(50);
        lab.hands.jump(AHEAD);
        run(&manual(&lab), 50);
        lab.hands.step_back(AHEAD);
        let policy = MergePolicy::Auto(AutoMerge::new().window(from, to));
        run(&lab.clone().with(lab.options.clone().merge_policy(policy)), 51);
        assert_eq!(lab.logs().len() < FEW, is_open, "from {from} to {to}");
    }
}

/// Segments that cannot be folded are not rewritten one by one either. That would leave as many,
/// equally small segments, again and again.
#[test]
fn without_space_to_fold_fully_live_segments_stay_unchanged() {
    let lab = unfolded(50);
    let (calls, twin) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&lab.twin));
    let policy = AutoMerge::new().on_finish({
        let calls = Arc::clone(&calls);
        move |_| {
            // Ensures that the test ends in any case.
            if calls.fetch_add(1, Ordering::Relaxed) > 20 {
                twin.set_space(u64::MAX);
            }
        }
    });
    let options = lab.options.clone().segment_size(4096);
    let lab = lab.clone().with(options.merge_policy(MergePolicy::Auto(policy)));
    let db = lab.open();
    // Less than the space that a merge leaves free, but enough for a copy of a small segment.
    lab.twin.set_space(u64::MAX - lab.twin.available_space() + 900);
    let before = lab.logs();
    db.inner.merge_due();
    assert_eq!(calls.load(Ordering::Relaxed), 1, "number of attempted folds");
    assert_eq!(lab.logs(), before);
    db.close().unwrap();
    assert_eq!(lab.logs(), before);
    assert_eq!(snapshot(&lab.open()), expected(50));
}

/// Removing their dead segments makes room for the fold.
#[test]
fn without_space_to_fold_dead_segments_are_removed() {
    let lab = unfolded(60);
    let lab = lab.clone().with(lab.options.clone().segment_size(4096));
    let db = lab.open();
    lab.twin.set_space(u64::MAX - lab.twin.available_space() + 900);
    db.inner.merge_due();
    assert!(lab.logs().len() <= FEW, "{}", lab.logs().len());
    assert_eq!(snapshot(&lab.reopen(db)), expected(60));
}
