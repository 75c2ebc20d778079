//! A full disk: operations that have a reserve, and operations that have none.

use std::ops::ControlFlow;

use crate::options::{MergeOptions, MergePolicy};
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

const VALUE: [u8; 100] = [7; 100];

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A store with many sealed segments on a disk that has just become full, and its reserve.
fn full() -> (Lab, Bitcask) {
    let lab = Lab::new();
    let lab = lab.with(Options::new().segment_size(4096).merge_policy(MergePolicy::Manual));
    let db = lab.open();
    for number in 0..300 {
        db.put(key(number), VALUE).unwrap();
        db.work();
    }
    assert!(
        db.inner.log().unwrap().reserve_size() > 0
            && db.stats().reserve_size > db.inner.log().unwrap().reserve_size()
    );
    lab.twin.set_space(u64::MAX - lab.twin.available_space());
    (lab, db)
}

/// Puts until the disk is full.
fn put_until_full(db: &Bitcask) {
    let error = (1000..).find_map(|number| db.put(key(number), VALUE).err()).unwrap();
    assert!(error.is_no_space(), "{error}");
}

#[test]
fn deletes_have_a_reserve_and_puts_have_none() {
    let (lab, db) = full();
    put_until_full(&db);
    let reserve = db.inner.log().unwrap().reserve_size();
    assert!(reserve > 0, "puts must not use the reserve");
    for number in 0..50 {
        assert!(db.delete(key(number)).unwrap());
    }
    // Space that a delete has freed is not available to puts.
    put_until_full(&db);
    for number in 50..100 {
        assert!(db.delete(key(number)).unwrap());
    }
    assert!(db.verify().unwrap().is_clean());
    lab.twin.set_space(u64::MAX);
    db.put("room", "again").unwrap();
    db.work();
    assert!(db.inner.log().unwrap().reserve_size() >= reserve);
}

/// A file system may have space but be unable to reserve it, or the process may have too low a file
/// size limit.
#[test]
fn a_put_succeeds_where_no_reserve_can_be_set_aside() {
    let (lab, db) = full();
    put_until_full(&db);
    for number in 0..50 {
        assert!(db.delete(key(number)).unwrap());
    }
    assert!(db.inner.log().unwrap().is_reserve_used());
    lab.twin.set_space(u64::MAX);
    lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::Reserve).for_ever());
    for number in 0..200 {
        db.put(key(number), VALUE).unwrap();
    }
    assert_eq!(db.inner.log().unwrap().reserve_size(), 0);
    lab.twin.clear_fault();
    db.work();
    assert!(db.inner.log().unwrap().reserve_size() > 0);
}

/// Closing or clearing a store waits for at most one part of such a merge.
#[test]
fn a_segment_by_segment_merge_stops_on_request() {
    let (_lab, db) = full();
    put_until_full(&db);
    for number in (0..120).step_by(2) {
        assert!(db.delete(key(number)).unwrap());
    }
    let sealed = |db: &Bitcask| db.segments().into_iter().map(|segment| segment.id).collect();
    let merging = &db.inner.writer().unwrap().merging;
    let merge = || db.merge_opt(MergeOptions::new().force(true));
    db.inner.log().unwrap().rotate_active().unwrap();
    db.inner.seal_rotated().unwrap();
    let before: Vec<u32> = sealed(&db);
    merging.close();
    assert!(merge().unwrap_err().is_no_space());
    assert!(before.iter().all(|id| sealed(&db).contains(id)), "the merge continued");
    merging.reopen();
    merge().unwrap();
    assert!(before.iter().any(|id| !sealed(&db).contains(id)));
}

#[test]
fn a_caller_can_cancel_a_segment_by_segment_merge() {
    const BREAK_AT: u32 = 8;
    for breaks in [false, true] {
        let (_lab, db) = full();
        put_until_full(&db);
        for number in (0..120).step_by(2) {
            assert!(db.delete(key(number)).unwrap());
        }
        let mut calls = 0;
        let options = MergeOptions::new().force(true).progress(|_| {
            calls += 1;
            if breaks && calls == BREAK_AT {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        let merged = db.merge_opt(options);
        if breaks {
            assert!(merged.unwrap_err().is_no_space());
            assert_eq!(calls, BREAK_AT);
        } else {
            merged.unwrap();
            assert!(calls > BREAK_AT, "{calls} calls");
        }
        assert!(db.verify().unwrap().is_clean());
    }
}

#[test]
fn half_dead_segments_are_merged_one_by_one() {
    let (lab, db) = full();
    put_until_full(&db);
    for number in (0..120).step_by(2) {
        assert!(db.delete(key(number)).unwrap());
    }
    let before = db.stats();
    let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert!(report.segments_in > 8 && report.live_entries > 200, "{report:?}");
    assert!(db.stats().log_size < before.log_size - 6000, "{:?}", db.stats());
    for number in 0..300 {
        let expected = (number % 2 == 1 || number >= 120).then_some(VALUE);
        assert_eq!(db.get(key(number)).unwrap().as_deref(), expected.as_ref().map(|all| &all[..]));
    }
    assert!(db.verify().unwrap().is_clean());
    let db = lab.reopen(db);
    assert!(db.verify().unwrap().is_clean());
    assert!(db.len().unwrap() >= 240);
}

/// Whatever is merged next, copies that no manifest lists yet may be the only ones left of some
/// keys.
#[test]
fn copies_that_a_merge_could_not_list_survive_the_next_merge() {
    for listed in 0..8 {
        let (lab, db) = full();
        put_until_full(&db);
        for number in (0..120).step_by(2) {
            assert!(db.delete(key(number)).unwrap());
        }
        let fault = Fault::new(FaultKind::Enospc).after(listed).only(Call::Exchange);
        lab.twin.fail(fault.for_ever());
        let merge = || db.merge_opt(MergeOptions::new().force(true));
        assert!(merge().unwrap_err().is_no_space(), "{listed}");
        assert!(merge().unwrap_err().is_no_space(), "{listed}");
        lab.twin.clear_fault();
        merge().unwrap();
        let check = |db: &Bitcask| {
            for number in 0..300 {
                let exists = number % 2 == 1 || number >= 120;
                assert_eq!(db.get(key(number)).unwrap().is_some(), exists, "{listed}: {number}");
            }
            assert!(db.verify().unwrap().is_clean(), "{listed}");
        };
        check(&db);
        check(&lab.reopen(db));
    }
}

#[test]
fn a_clear_needs_no_space_and_frees_everything() {
    let (lab, db) = full();
    put_until_full(&db);
    db.clear().unwrap();
    assert!(lab.twin.available_space() > 20_000);
    put_until_full(&db);
    let db = lab.reopen(db);
    db.clear().unwrap();
    assert!(db.is_empty().unwrap());
    db.put("key", "value").unwrap();
}

#[test]
fn a_store_opens_merges_and_closes_on_a_disk_without_a_byte() {
    for is_killed in [true, false] {
        let (lab, db) = full();
        put_until_full(&db);
        let expected = db.len().unwrap();
        let lab = if is_killed {
            let killed = lab.killed();
            kill(db);
            killed
        } else {
            db.close().unwrap();
            lab.on(lab.twin.fork())
        };
        lab.twin.set_space(0);
        let db = lab.open();
        assert_eq!(db.len().unwrap(), expected);
        for number in 0..100 {
            assert!(db.put(key(number), VALUE).unwrap_err().is_no_space());
        }
        db.close().unwrap();
        let db = lab.open();
        assert_eq!(db.len().unwrap(), expected);
        assert!(db.verify().unwrap().is_clean());
    }
}

/// A process that held the reserve has died, and the next one finds it in place.
#[test]
fn the_reserve_outlives_its_process() {
    let (lab, db) = full();
    put_until_full(&db);
    db.close().unwrap();
    let used = |lab: &Lab| {
        lab.twin.set_space(u64::MAX);
        u64::MAX - lab.twin.available_space()
    };
    let before = used(&lab);
    lab.twin.set_space(before);
    let db = lab.open();
    assert!(used(&lab) >= before.saturating_sub(4096), "opening must not release the reserve");
    lab.twin.set_space(before);
    for number in 0..20 {
        assert!(db.delete(key(number)).unwrap());
    }
    db.close().unwrap();
}

#[test]
fn a_clear_without_space_for_a_segment_empties_the_store_and_followers_continue() {
    let (lab, db) = full();
    let before = db.position();
    lab.twin.set_space(0);
    db.clear().unwrap();
    assert!(db.is_empty().unwrap() && lab.logs().is_empty());
    let cleared = db.position();
    assert!(cleared > before);
    assert!(matches!(db.changes(before), Err(Error::HistoryGone { .. })));
    let mut changes = db.changes(cleared).unwrap();
    assert_eq!(changes.try_recv().unwrap(), None);
    assert!(db.put("key", "value").unwrap_err().is_no_space());
    let killed = lab.killed();
    let empty = killed.open();
    assert!(empty.is_empty().unwrap() && empty.recovery().cuts.is_empty());
    kill(empty);
    lab.twin.set_space(u64::MAX);
    db.put("key", "value").unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().key, "key");
    assert_eq!(db.changes(cleared).unwrap().try_recv().unwrap().unwrap().key, "key");
    let db = lab.reopen(db);
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    assert_eq!(db.changes(cleared).unwrap().try_recv().unwrap().unwrap().key, "key");
}
