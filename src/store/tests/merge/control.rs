//! Policies that are replaced, and merges that are paused, while the store is open.

use std::ops::ControlFlow;
use std::sync::mpsc;

use super::basics::*;
use crate::merge::plan_all;
use crate::options::{AutoMerge, MergeOptions, MergePolicy};
use crate::store::merging::rate_limit::RateLimiter;
use crate::store::tests::*;

fn force<'a>() -> MergeOptions<'a> {
    MergeOptions::new().force(true)
}

fn eager() -> MergePolicy {
    let auto = AutoMerge::new().trigger_dead_percent(1).dead_percent(1).small_size(0);
    MergePolicy::Auto(auto)
}

/// A store without automatic merges, and its sealed segments, most of whose bytes are dead.
fn half_dead(lab: &Lab) -> (Bitcask, Vec<SegmentId>) {
    let lab = lab.clone().with(lab.options.clone().merge_policy(MergePolicy::Manual));
    let db = lab.open();
    for round in 0..3 {
        for key in ["a", "b", "c"] {
            db.put(key, format!("{key} {round}").repeat(20)).unwrap();
        }
        db.put(format!("own {round}"), "x").unwrap();
        seal(&db);
    }
    let ids = sealed(&db);
    (db, ids)
}

fn is_durable(db: &Bitcask) -> bool {
    let log = db.inner.log().unwrap();
    log.durable() >= log.lock().end()
}

#[test]
fn a_sync_policy_holds_as_soon_as_it_is_set() {
    let lab = lab();
    let db = lab.open();
    db.put("a", "1").unwrap();
    assert!(!is_durable(&db));
    db.set_sync_policy(SyncPolicy::Always).unwrap();
    assert!(is_durable(&db), "what was written before");
    db.put("b", "2").unwrap();
    assert!(is_durable(&db), "a write");
    db.delete("b").unwrap();
    assert!(is_durable(&db), "a delete");

    db.set_sync_policy(SyncPolicy::Never).unwrap();
    db.put("c", "3").unwrap();
    db.work();
    assert!(!is_durable(&db));

    let interval = SyncPolicy::Interval(Duration::from_nanos(1));
    db.set_sync_policy(interval).unwrap();
    assert!(is_durable(&db));
    assert!(db.inner.log().unwrap().sync_signal.take_woken());
    db.put("d", "4").unwrap();
    assert!(db.inner.log().unwrap().sync_signal.take_woken(), "the first write after a sync");
    db.work();
    assert!(is_durable(&db));

    let refused = db.set_sync_policy(SyncPolicy::Interval(Duration::ZERO)).unwrap_err();
    assert!(matches!(refused, Error::InvalidOption { name: "sync_policy", .. }), "{refused}");
    assert_eq!(db.sync_policy(), interval);
    db.inner.log().unwrap().poison(Error::ReadOnly);
    assert!(db.set_sync_policy(SyncPolicy::Always).unwrap_err().is_poisoned());
    assert_eq!(db.sync_policy(), interval);
}

#[test]
fn a_merge_policy_holds_as_soon_as_it_is_set() {
    let lab = lab();
    let (db, ids) = half_dead(&lab);
    let before = snapshot(&db);
    assert_eq!(db.inner.merge_due(), None);
    assert!(!db.inner.merge_signal.take_woken());
    db.set_merge_policy(eager()).unwrap();
    assert!(db.inner.merge_signal.take_woken());
    assert!(!db.needs_merge().is_empty());
    assert!(db.inner.merge_due().is_some(), "the first look is for what others have left");
    db.inner.merge_due();
    assert!(sealed(&db).len() < ids.len());

    let refused = db.set_merge_policy(MergePolicy::Auto(AutoMerge::new().small_count(1)));
    assert!(matches!(refused, Err(Error::InvalidOption { name: "small_count", .. })));
    assert!(matches!(db.merge_policy(), MergePolicy::Auto(_)));
    db.set_merge_policy(MergePolicy::Manual).unwrap();
    assert!(db.needs_merge().is_empty());
    assert_eq!(db.inner.merge_due(), None);
    assert_eq!(snapshot(&db), before);
    assert_eq!(snapshot(&lab.reopen(db)), before);
}

#[test]
fn a_look_that_a_new_policy_causes_does_not_take_the_store_for_one_at_rest() {
    let lab = lab();
    let db = lab.open();
    let merging = &db.inner.writer().unwrap().merging;
    db.set_merge_policy(eager()).unwrap();
    assert_eq!(merging.look(7), None, "the first look stays the first");
    db.set_merge_policy(eager()).unwrap();
    assert_ne!(merging.look(7), Some(7));
    assert_eq!(merging.look(7), Some(7));
}

#[test]
fn an_automatic_merge_stops_early_when_the_policy_becomes_manual() {
    let lab = lab();
    let (db, ids) = half_dead(&lab);
    db.set_merge_policy(eager()).unwrap();
    let before = snapshot(&db);
    let (mut steps, inner) = (0, &db.inner);
    let mut go_on = |_: &crate::stats::MergeProgress| {
        steps += 1;
        if steps == 2 {
            db.set_merge_policy(MergePolicy::Manual).unwrap();
        }
        inner.may_continue_by_policy()
    };
    let plan = |inner: &Inner| Ok(plan_all(&inner.segment_stats()));
    let report = inner.merge(plan, None, RateLimiter::constant(None), &mut go_on).unwrap();
    assert!(report.cancelled);
    assert_eq!(steps, 2);
    assert!(sealed(&db).contains(&ids[2]));
    assert_eq!(snapshot(&db), before);
}

#[test]
fn while_merges_are_paused_none_begins() {
    let lab = lab();
    let (db, ids) = half_dead(&lab);
    db.set_merge_policy(eager()).unwrap();
    db.inner.merge_due();
    let first = db.pause_merges().unwrap();
    let second = db.pause_merges().unwrap();
    assert!(matches!(db.merge_opt(force()), Err(Error::MergesPaused)));
    assert!(db.inner.merge_due().is_some());
    assert_eq!(sealed(&db), ids);
    drop(first);
    assert!(matches!(db.merge(), Err(Error::MergesPaused)), "there is another pause");
    db.inner.merge_due();
    assert_eq!(sealed(&db), ids);
    drop(second);
    db.inner.merge_due();
    assert!(sealed(&db).len() < ids.len());
    assert!(db.merge_opt(force()).is_ok() && !db.is_merging());
}

/// The callback runs while the merge is paused, so it can end the pause.
#[test]
fn a_merge_that_is_under_way_waits_for_the_end_of_a_pause() {
    let lab = lab();
    let (db, _) = half_dead(&lab);
    let before = snapshot(&db);
    let (mut pause, mut calls, mut seen) = (None, 0, None);
    let options = force().progress(|progress| {
        calls += 1;
        assert!(db.is_merging());
        match calls {
            1 => {
                pause = Some(db.pause_merges().unwrap());
                seen = Some(*progress);
            }
            2..5 => {
                assert_eq!(Some(*progress), seen, "nothing was done");
                assert!(matches!(db.merge(), Err(Error::MergesPaused)));
                db.put("during", "the pause").unwrap();
                db.delete("during").unwrap();
            }
            5 => pause = None,
            _ => assert!(pause.is_none()),
        }
        ControlFlow::Continue(())
    });
    let report = db.merge_opt(options).unwrap();
    assert!(!report.cancelled && report.segments_in > 0);
    assert!(calls > 5 && !db.is_merging());
    assert_eq!(snapshot(&db), before);
    assert_eq!(snapshot(&lab.reopen(db)), before);
}

/// Pauses merges as soon as one is under way, and calls a closure meanwhile. Returns whether the
/// merge was stopped by it.
fn pause_under_way(db: &Bitcask, during: impl FnOnce()) -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let merge = scope.spawn(move || {
            let mut sender = Some(sender);
            let options = force().progress(|_| {
                if let Some(sender) = sender.take() {
                    sender.send(db.pause_merges().unwrap()).unwrap();
                }
                ControlFlow::Continue(())
            });
            db.merge_opt(options).unwrap().cancelled
        });
        let pause = receiver.recv().unwrap();
        // Another pause has nothing to wait for.
        drop(db.pause_merges().unwrap());
        during();
        drop(pause);
        merge.join().unwrap()
    })
}

#[test]
fn clear_does_not_wait_for_the_end_of_a_pause() {
    let lab = lab();
    let (db, _) = half_dead(&lab);
    assert!(!pause_under_way(&db, || db.put("new", "value").unwrap()));
    let (db, _) = half_dead(&Lab { twin: Twin::new(), ..lab });
    assert!(pause_under_way(&db, || db.clear().unwrap()));
    assert_eq!(snapshot(&db), Pairs::new());
}

#[test]
fn a_store_is_closed_during_a_pause_and_a_pause_outlives_it() {
    let lab = lab();
    let (db, ids) = half_dead(&lab);
    db.set_merge_policy(eager()).unwrap();
    let (before, pause) = (snapshot(&db), db.pause_merges().unwrap());
    db.close().unwrap();
    let db = lab.open();
    assert!(ids.iter().all(|id| sealed(&db).contains(id)), "nothing was folded at close");
    drop(pause);
    assert_eq!(snapshot(&db), before);
}

#[test]
fn a_store_that_was_just_opened_has_no_merge_under_way() {
    let lab = lab();
    lab.open().close().unwrap();
    let db = lab.open();
    assert!(format!("{:?}", db.pause_merges().unwrap()).contains("MergePause"));
    assert!(!db.is_merging());
}
