//! Calls from other threads while a merge is running, on real files and with real threads.
//!
//! - Where a test checks that something stops a merge, the merge is too slow to end on its own.
//!   Such a test hangs if it fails.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bitcask::{AutoMerge, Bitcask, Error, History, MergeOptions, MergePolicy, Options, ReadOnly};

use crate::support::{open, open_when_released, pairs, small};

/// Writes the same keys in every round and a distinct key in some of the rounds. So most of every
/// segment except the last is dead, and something is live.
fn write(db: &Bitcask, rounds: std::ops::Range<u32>) {
    for round in rounds {
        db.put(format!("own {round}"), "live").unwrap();
        for key in 0..20_u32 {
            if key != round % 20 {
                db.put(key.to_be_bytes(), [key.to_be_bytes(), round.to_be_bytes()].concat())
                    .unwrap();
            }
        }
    }
}

/// A policy that merges every segment with dead entries as soon as possible.
fn eager() -> AutoMerge {
    AutoMerge::new()
        .trigger_dead_percent(1)
        .dead_percent(1)
        .idle_dead_percent(1)
        .check_interval(Duration::from_millis(1))
}

fn with(auto: AutoMerge) -> Options {
    small().merge_policy(MergePolicy::Auto(auto))
}

/// Returns whether a merge has begun to write: a segment's header says that it is merge output.
fn has_merged_segment(dir: &Path) -> bool {
    const KIND: std::ops::Range<usize> = 10..12;
    let is_merged = |path: &Path| {
        let header = fs::read(path).unwrap_or_default();
        header.get(KIND).is_some_and(|kind| kind == [0, 2])
    };
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .any(|path| is_merged(&path))
}

#[test]
fn clear_stops_a_running_merge_and_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    write(&db, 0..40);
    let (begun, has_begun) = mpsc::channel();
    let report = thread::scope(|scope| {
        let merge = scope.spawn(|| {
            let options = MergeOptions::new().force(true).bytes_per_second(Some(1));
            db.merge_opt(options.progress(|_| {
                let _ = begun.send(());
                ControlFlow::Continue(())
            }))
        });
        has_begun.recv().unwrap();
        db.clear().unwrap();
        merge.join().unwrap().unwrap()
    });
    assert!(report.cancelled);
    assert!(db.is_empty().unwrap() && db.segments().is_empty());
    db.put("k", "v").unwrap();
    db.close().unwrap();
    let db = open(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!((db.len().unwrap(), db.get("k").unwrap().unwrap().len()), (1, 1));
}

#[test]
fn merges_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    write(&db, 0..40);
    let before = pairs(&db);
    thread::scope(|scope| {
        let force = || {
            let call = |_: &_| {
                assert!(matches!(db.merge(), Err(Error::WithinMerge)));
                ControlFlow::Continue(())
            };
            db.merge_opt(MergeOptions::new().force(true).progress(call)).unwrap()
        };
        let merges: Vec<_> = (0..4).map(|_| scope.spawn(force)).collect();
        for merge in merges {
            assert!(!merge.join().unwrap().cancelled);
        }
    });
    assert_eq!(pairs(&db), before);
    db.close().unwrap();
    let db = open(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(pairs(&db), before);
}

#[test]
fn dropping_a_store_stops_a_merge_by_policy() {
    let dir = tempfile::tempdir().unwrap();
    let auto = eager().bytes_per_second(Some(1));
    let db = Bitcask::open(dir.path(), with(auto)).unwrap();
    let mut rounds = 0;
    while !has_merged_segment(dir.path()) {
        write(&db, rounds..rounds + 5);
        rounds += 5;
        assert!(rounds < 100_000, "nothing is merged");
    }
    let before = pairs(&db);
    drop(db);
    let db = open(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(pairs(&db), before);
}

/// A callback may hold the last handle of the store and drop it. The calling thread is one of the
/// store's threads, and does not wait for itself.
#[test]
fn a_callback_may_drop_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let slot: Arc<Mutex<Option<Arc<Bitcask>>>> = Arc::default();
    let (taken, was_taken) = mpsc::channel();
    let (alone, is_alone) = mpsc::channel();
    let (held, ends) = (Arc::clone(&slot), Mutex::new((taken, is_alone)));
    let auto = eager().on_finish(move |_| {
        let db = held.lock().unwrap().take();
        if let Some(db) = db {
            let (taken, is_alone) = &*ends.lock().unwrap();
            taken.send(()).unwrap();
            is_alone.recv().unwrap();
            drop(db);
        }
    });
    let db = Arc::new(Bitcask::open(dir.path(), with(auto)).unwrap());
    *slot.lock().unwrap() = Some(Arc::clone(&db));
    while was_taken.try_recv().is_err() {
        write(&db, 0..5);
    }
    let before = pairs(&db);
    drop(db);
    alone.send(()).unwrap();
    // The thread releases the lock, and ends after the callback has returned.
    let db = open_when_released(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(pairs(&db), before);
}

#[test]
fn a_plan_is_what_an_explicit_merge_would_merge() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    write(&db, 0..40);
    db.close().unwrap();
    let db = open(dir.path());
    let before = db.segments();
    let all: Vec<u32> = before.iter().map(|segment| segment.id).collect();
    let ids = |options: &MergeOptions<'_>| -> Vec<u32> {
        db.plan_merge(options).unwrap().segments.iter().map(|planned| planned.id).collect()
    };
    let worthwhile = ids(&MergeOptions::new());
    assert!(worthwhile.len() > 2 && worthwhile.iter().all(|id| all.contains(id)));
    assert_eq!(ids(&MergeOptions::new().force(true)), all);
    assert_eq!(ids(&MergeOptions::new().segments([all[1]])), [all[1]]);
    let unknown = db.plan_merge(&MergeOptions::new().segments([999]));
    assert!(matches!(unknown, Err(Error::InvalidOption { .. })));
    assert_eq!(db.segments(), before, "planning merges nothing");
    // A reader beside the writer makes the same plan, by its own options.
    let reader = ReadOnly::open(dir.path(), small()).unwrap();
    let plan = reader.plan_merge(&MergeOptions::new()).unwrap();
    assert!(plan.segments.iter().map(|planned| planned.id).eq(worthwhile.iter().copied()));
    let kept = small().keep_history(History::LastBytes(u64::MAX));
    let reader = ReadOnly::open(dir.path(), kept).unwrap();
    let plan = reader.plan_merge(&MergeOptions::new().force(true)).unwrap();
    assert!(plan.segments.len() < all.len(), "history is left out: {plan:?}");
    let report = db.merge().unwrap();
    assert_eq!(report.segments_in, worthwhile.len() as u64);
    db.close().unwrap();
}
