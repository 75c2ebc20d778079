//! Closures that run for a long time with a lent value: what they keep alive, what they do not, and
//! which calls are possible meanwhile, including from within the closures.

use crate::options::{MergeOptions, MergePolicy};
use crate::stats::Stats;
use crate::store::tests::*;

/// Two stores on separate disks.
fn two() -> (Lab, Lab) {
    let lab = || {
        let options = Options::new().segment_size(1024).sync_policy(SyncPolicy::Never);
        Lab::new().with(options.merge_policy(MergePolicy::Manual))
    };
    (lab(), lab())
}

/// Overwrites a few keys until some segments are full, seals them, and merges them away. Returns
/// the number of segments that this removed.
fn turn_over(db: &Bitcask) -> u64 {
    for number in 0..60_u8 {
        db.put([number % 5], [number; 100]).unwrap();
    }
    db.inner.log().unwrap().rotate_active().unwrap();
    db.inner.seal_rotated().unwrap();
    let sealed: Vec<u32> = db.segments().iter().map(|segment| segment.id).collect();
    let removed = sealed.len() as u64;
    db.merge_opt(MergeOptions::new().segments(sealed)).unwrap();
    removed
}

fn retired(db: &Reader) -> u64 {
    let Stats { retired_segments, oldest_retired, .. } = db.stats();
    assert_eq!(oldest_retired.is_some(), db.inner.keydir.collector().left() > 0);
    retired_segments
}

#[test]
fn a_closure_keeps_nothing_of_another_store_alive() {
    let (here, there) = two();
    let (read, other) = (here.open(), there.open());
    read.put("key", "value").unwrap();
    read.get_with("key", |_| {
        for _ in 0..20 {
            assert!(turn_over(&other) > 1);
            assert_eq!((retired(&other), other.inner.keydir.collector().left()), (0, 0));
            other.clear().unwrap();
            assert_eq!((retired(&other), other.inner.keydir.collector().left()), (0, 0));
        }
        other.close().unwrap();
    })
    .unwrap()
    .unwrap();
}

#[test]
fn a_closure_keeps_later_removed_segments_alive_and_retries_queue_nothing() {
    let (lab, _) = two();
    let db = lab.open();
    turn_over(&db);
    assert_eq!(retired(&db), 0);
    let left = || db.inner.keydir.collector().left();
    db.get_with([1], |value| {
        let before = value.to_vec();
        let mut removed = 0;
        for _ in 0..10 {
            removed += turn_over(&db);
            assert_eq!(retired(&db), removed);
        }
        let kept = left();
        for _ in 0..10_000 {
            db.inner.segments.free_retired();
        }
        assert_eq!((retired(&db), left()), (removed, kept));
        assert_eq!(value, before);
    })
    .unwrap()
    .unwrap();
    db.inner.seal_due();
    assert_eq!((retired(&db), left()), (0, 0));
}

#[test]
fn held_values_do_not_act_like_closures() {
    let (lab, _) = two();
    let db = lab.open();
    turn_over(&db);
    let value = db.get([1]).unwrap().unwrap();
    let before = value.to_vec();
    let snapshot = db.snapshot();
    let (mut iter, mut range) = (db.iter_unordered(), db.range(..));
    assert!(iter.next().is_some() && range.next().is_some());
    let mut changes = db.changes(db.position()).unwrap();
    turn_over(&db);
    assert_eq!((retired(&db), db.inner.keydir.collector().left()), (0, 0));
    assert!(changes.next().is_some());
    assert_eq!(value, before[..]);
    assert_eq!(snapshot.get([1]).unwrap().unwrap(), before[..]);
    assert!(iter.all(|pair| pair.is_ok()) && range.all(|pair| pair.is_ok()));
}

#[test]
fn closures_may_use_their_store_and_others() {
    let (here, there) = two();
    let (db, other) = (here.open(), there.open());
    turn_over(&db);
    turn_over(&other);
    db.get_with([1], |outer| {
        let before = outer.to_vec();
        // Nested guards of both stores in turn.
        db.get_with([2], |inner| {
            other
                .get_many_with(&[[1], [2]], |_, others| {
                    assert_eq!(db.get([2]).unwrap().unwrap(), *inner);
                    turn_over(&db);
                    assert!(others.is_some());
                })
                .unwrap();
            turn_over(&other);
            assert_eq!(retired(&other), 0);
        })
        .unwrap();
        let kept = retired(&db);
        assert!(kept > 0);
        // The inner guards have been dropped, the outer one has not.
        db.inner.segments.free_retired();
        assert_eq!((retired(&db), outer), (kept, &before[..]));
        db.clear().unwrap();
        assert_eq!(outer, before);
    })
    .unwrap();
    db.inner.segments.free_retired();
    assert_eq!(retired(&db), 0);
}

#[test]
fn stores_may_come_and_go_while_a_closure_runs() {
    let (here, there) = two();
    let db = here.open();
    turn_over(&db);
    db.get_with([1], |value| {
        let before = value.to_vec();
        for _ in 0..100 {
            let other = there.open();
            turn_over(&other);
            assert_eq!(retired(&other), 0);
            drop(other);
        }
        turn_over(&db);
        assert_eq!(value, before);
    })
    .unwrap()
    .unwrap();
}

#[test]
fn a_store_closes_during_a_closure_of_a_snapshot() {
    let (lab, _) = two();
    let db = lab.open();
    turn_over(&db);
    let snapshot = db.snapshot();
    let value = snapshot.get_with([1], |value| {
        let before = value.to_vec();
        turn_over(&db);
        db.close().unwrap();
        let again = lab.open();
        turn_over(&again);
        assert_eq!((retired(&again), value), (0, &before[..]));
        before
    });
    assert_eq!(snapshot.get([1]).unwrap().unwrap(), value.unwrap().unwrap()[..]);
}

#[test]
fn a_closure_of_a_reader_keeps_what_refreshes_replace() {
    let (lab, _) = two();
    let writer = lab.open();
    turn_over(&writer);
    let reader = lab.open_read_only();
    reader
        .get_with([1], |value| {
            let before = value.to_vec();
            for _ in 0..10 {
                turn_over(&writer);
                assert!(reader.refresh().unwrap());
            }
            assert!(retired(&reader) > 0);
            assert_eq!((retired(&writer), value), (0, &before[..]));
        })
        .unwrap()
        .unwrap();
    // The next refresh releases it, whether there is anything new or not.
    reader.refresh().unwrap();
    assert_eq!((retired(&reader), reader.inner.keydir.collector().left()), (0, 0));
}
