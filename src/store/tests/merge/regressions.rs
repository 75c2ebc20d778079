//! Bugs of merges that have been fixed, each with its story.

use std::ops::ControlFlow;

use super::basics::*;
use crate::options::{AutoMerge, MergeOptions, MergePolicy};
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

/// A lab whose policy merges every segment with dead entries.
fn eager(auto: AutoMerge) -> Lab {
    let auto = auto.trigger_dead_percent(1).dead_percent(1).small_size(0);
    let options = Options::new().segment_size(8192).sync_policy(SyncPolicy::Never);
    Lab::new().with(options.merge_policy(MergePolicy::Auto(auto)))
}

/// Adds a segment of which about half is dead.
fn seal_half_dead(db: &Bitcask, key: &str) -> SegmentId {
    db.put(key, "1".repeat(1000)).unwrap();
    db.put(key, "2".repeat(1000)).unwrap();
    seal(db)
}

fn flip(lab: &Lab, path: &Path, at: usize) {
    let mut bytes = lab.twin.contents(path).unwrap();
    bytes[at] ^= 1;
    lab.twin.put_file(path, bytes);
}

/// Regression: tombstone sizes were estimated from the average key size. Where the keys of needed
/// tombstones are longer, most of their bytes looked dead, and the segment was rewritten at every
/// look, forever.
#[test]
fn merging_an_idle_store_with_long_tombstones_ends() {
    let lab = Lab::new().with(Options::new().segment_size(1 << 20).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    let long = |number: u32| format!("{number:0>200}");
    for number in 0..100 {
        db.put(long(number), "").unwrap();
        db.put(format!("live {number}"), "x".repeat(4000)).unwrap();
    }
    seal(&db);
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), "1234").unwrap();
        db.delete(long(number)).unwrap();
    }
    seal(&db);
    let mut seen = Vec::new();
    for _ in 0..8 {
        db.inner.merge_due();
        seen.push(sealed(&db));
    }
    assert_eq!(seen[5], seen[7]);
    kill(db);
}

/// Regression: a failed read did not count as damage, so the same input was retried at each look,
/// and no newer segment was ever merged.
#[test]
fn an_unreadable_input_is_not_retried() {
    // If the failing read is of a hint, the hint is rebuilt.
    for reads in 0.. {
        assert!(reads < 50, "the merge reads no input");
        let lab = eager(AutoMerge::new());
        let db = lab.open();
        let bad = seal_half_dead(&db, "a");
        let good = seal_half_dead(&db, "b");
        db.inner.merge_due();
        lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::ReadAt).after(reads));
        let Err(error) = db.merge() else { continue };
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert_eq!(db.inner.writer().unwrap().merging.damaged(), [bad.0].into());
        db.inner.merge_due();
        assert!(sealed(&db).contains(&bad) && !sealed(&db).contains(&good));
        let value = "2".repeat(1000);
        check(&lab.reopen(db), &model([("a", &value), ("b", &value)]));
        break;
    }
}

/// Regression: a failed index write was recorded as damage of the segment. No automatic merge took
/// that segment until the store was reopened.
#[test]
fn a_failed_index_write_does_not_keep_a_segment_from_being_merged() {
    for reads in 0.. {
        assert!(reads < 50, "the segment is never read");
        let lab = eager(AutoMerge::new());
        let db = lab.open();
        let input = seal_half_dead(&db, "a");
        db.inner.merge_due();
        db.inner.ordered.store(true, std::sync::atomic::Ordering::Relaxed);
        lab.twin.fail(Fault::new(FaultKind::Eio).only(Call::ReadAt).after(reads));
        let Err(error) = db.inner.write_index() else { continue };
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(lab.indexes().is_empty());
        // The sealing thread does not read the segment again.
        assert!(!db.inner.write_index().unwrap());
        db.inner.merge_due();
        assert!(!sealed(&db).contains(&input));
        check(&lab.reopen(db), &model([("a", &"2".repeat(1000))]));
        break;
    }
}

/// A tombstone cannot be judged if a newer entry with its hash bits is damaged. Regression: the
/// error names the damaged segment, and that one was recorded instead of the input, so no newer
/// segment was ever merged.
#[test]
fn damage_outside_a_merge_blocks_only_the_affected_input() {
    let lab = eager(AutoMerge::new());
    let db = lab.open();
    db.put("k", "old").unwrap();
    db.put("other", "x".repeat(3000)).unwrap();
    seal(&db);
    db.delete("k").unwrap();
    let input = seal_half_dead(&db, "filler");
    db.put("k", "new").unwrap();
    let damaged = seal(&db);
    let younger = seal_half_dead(&db, "z");
    db.close().unwrap();
    let newest = log_entries(&lab).into_iter().rfind(|entry| entry.key == b"k").unwrap();
    assert_eq!((newest.place.segment, newest.mark), (damaged, None));
    let key_at = usize::try_from(newest.place.offset).unwrap() + crate::entry::HEADER_SIZE;
    flip(&lab, &Dir::new(DIR.into()).log(damaged), key_at);
    let db = lab.open();
    for _ in 0..4 {
        db.inner.merge_due();
    }
    assert!(sealed(&db).contains(&input) && !sealed(&db).contains(&younger));
    kill(db);
}

/// Regression: damage found while looking up tombstones, before anything was merged, was not
/// recorded, and every automatic merge stopped there.
#[test]
fn an_input_whose_look_up_fails_blocks_no_other() {
    let lab = eager(AutoMerge::new());
    let db = lab.open();
    db.put("other", "x".repeat(100)).unwrap();
    seal(&db);
    let inputs = ["a", "b", "c"].map(|key| seal_half_dead(&db, key));
    lab.twin.delete_file(&db.inner.dir.hint(inputs[1]));
    flip(&lab, &db.inner.dir.log(inputs[1]), 200);
    for _ in 0..4 {
        db.inner.merge_due();
    }
    assert_eq!(inputs.map(|id| sealed(&db).contains(&id)), [false, true, false]);
    kill(db);
}

/// Regression: a merge used all the remaining space of a full disk. It listed a partial copy next
/// to its original, or could not even do that, and then no write was possible any more.
#[test]
fn a_merge_uses_no_space_that_does_not_pay_off() {
    let lab = Lab::new().with(Options::new().segment_size(1 << 20).sync_policy(SyncPolicy::Never));
    let db = lab.open();
    for number in 0..300 {
        db.put(format!("{number}"), "x".repeat(1000)).unwrap();
    }
    let input = seal(&db);
    db.put("top", "x").unwrap();
    db.sync().unwrap();
    lab.twin.set_space(u64::MAX);
    let used = u64::MAX - lab.twin.available_space();
    lab.twin.set_space(used + 50_000);
    let error = db.merge_opt(MergeOptions::new().segments([input.0])).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert_eq!(lab.twin.available_space(), 50_000);
    db.put("top", "y").unwrap();
    assert!(db.inner.writer().unwrap().merging.turn().unwrap().pending.is_none());
    kill(db);
}

/// Copying needs no codec. Regression: it was refused without the codec.
#[test]
fn values_of_a_missing_codec_are_merged() {
    let lab = crate::store::tests::point::compression::with_unknown(Lab::new());
    let db = lab.open();
    let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert!(report.live_entries > 0);
    kill(db);
}

/// Regression: while a rate limit held a merge back, its callback was not called, so it could not
/// be cancelled.
#[test]
fn a_merge_waiting_for_its_rate_limit_can_be_cancelled() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("key", "value").unwrap();
    seal(&db);
    let mut calls = 0;
    let limited = MergeOptions::new().force(true).bytes_per_second(Some(1)).progress(|progress| {
        calls += u32::from(progress.copied_size > 0);
        if calls < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(db.merge_opt(limited).unwrap().cancelled);
    assert_eq!(calls, 3);
    kill(db);
}

/// Regression: a panic ended the merging thread, and so all merging until the next open.
#[test]
fn a_panicking_callback_does_not_end_merging() {
    let lab = eager(AutoMerge::new().on_finish(|_| panic!("a callback's own")));
    let db = lab.open();
    for key in ["a", "b"] {
        seal_half_dead(&db, key);
        db.inner.merge_due();
    }
    assert!(db.inner.merge_due().is_some());
    assert!(db.needs_merge().is_empty());
    kill(db);
}
