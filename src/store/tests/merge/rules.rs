//! What a merge does with each kind of entry, and where it puts what it writes.
//!
//! - Told with the helpers of `merge`. A [`Meddler`] acts within a step.

use super::basics::*;
use crate::merge::{Host, MergeContext};
use crate::options::MergeOptions;
use crate::segment::Segment;
use crate::segment::write::output::Output;
use crate::store::tests::*;

/// Does something once within a step of a merge: when entries have been looked up and no output is
/// there for them yet, or when an output is about to be listed.
struct Meddler<'a> {
    inner: &'a Inner,
    at_output: std::cell::RefCell<Option<Box<dyn FnOnce() + 'a>>>,
    at_swap: std::cell::RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl<'a> Meddler<'a> {
    fn at_output(db: &'a Bitcask, act: impl FnOnce() + 'a) -> Self {
        let at_output = std::cell::RefCell::new(Some(Box::new(act) as Box<dyn FnOnce()>));
        Self { inner: &db.inner, at_output, at_swap: None.into() }
    }

    fn at_swap(db: &'a Bitcask, act: impl FnOnce() + 'a) -> Self {
        let at_swap = std::cell::RefCell::new(Some(Box::new(act) as Box<dyn FnOnce()>));
        Self { inner: &db.inner, at_output: None.into(), at_swap }
    }
}

impl Host for Meddler<'_> {
    fn merge_context(&self) -> MergeContext<'_> {
        self.inner.merge_context()
    }

    fn create_output(&self, size: u64) -> Result<(Output, u32)> {
        self.at_output.take().into_iter().for_each(|act| act());
        self.inner.create_output(size)
    }

    fn sync_log(&self) -> Result<()> {
        self.inner.sync_log()
    }

    fn exclusively(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.at_swap.take().into_iter().for_each(|act| act());
        self.inner.exclusively(change)
    }

    fn next_timestamp(&self) -> u64 {
        Host::next_timestamp(self.inner)
    }

    fn unlink(&self, segment: &Arc<Segment>) {
        Host::unlink(self.inner, segment);
    }

    fn poison_if_sync_failed(&self, error: Error) -> Error {
        Host::poison_if_sync_failed(self.inner, error)
    }
}

/// What a tombstone of `k` shadows is looked up in the hints of older segments that are not merged.
/// Where none holds a put of its hash bits it goes, and with it its segment, without an output.
#[test]
fn a_tombstone_goes_when_nothing_older_holds_its_key() {
    for (older, kept) in [("another", 0), ("k", 1)] {
        let lab = lab();
        let db = lab.open();
        db.put(older, "older").unwrap();
        let bottom = seal(&db);
        db.put("k", "x".repeat(700)).unwrap();
        let put = seal(&db);
        db.delete("k").unwrap();
        let deleted = seal(&db);
        let report = merge(&db, &[put, deleted]);
        assert_eq!((report.tombstones_kept, report.tombstones_dropped), (kept, 1 - kept));
        assert_eq!((report.segments_in, report.segments_out), (2, kept));
        assert_eq!(sealed(&db).len() as u64, 1 + kept);
        let left: &[(&str, &str)] = if kept == 0 { &[("another", "older")] } else { &[] };
        // At the bottom it is not needed any more.
        let all = sealed(&db);
        assert_eq!(all[0], bottom);
        let report = merge(&db, &all);
        assert_eq!((report.tombstones_kept, report.tombstones_dropped), (0, kept));
        assert_eq!(report.segments_out, 1 - kept);
        remains(&lab, db, left);
    }
}

/// A key may have many dead puts below its tombstone, and all tombstones are looked up none the less.
#[test]
fn tombstones_of_several_keys_are_all_looked_up() {
    let lab = lab();
    let db = lab.open();
    for key in ["a", "a", "b"] {
        db.put(key, "older").unwrap();
        seal(&db);
    }
    let value = "x".repeat(3000);
    db.put("c", &value).unwrap();
    for key in ["a", "b", "c"] {
        db.delete(key).unwrap();
    }
    db.put("d", &value).unwrap();
    let input = seal(&db);
    let report = merge(&db, &[input]);
    assert_eq!((report.tombstones_kept, report.tombstones_dropped), (2, 1));
    remains(&lab, db, &[("d", &value)]);
}

/// Hints tell by hash bits alone, so a put of another key with the same ones keeps a tombstone too.
/// It has to be dead, or the tombstone is not even looked up, and kept.
#[test]
fn a_tombstone_is_kept_where_an_older_put_has_its_hash_bits() {
    let (k, twin, other) = colliding();
    for older in [&twin, &other] {
        let lab = weak();
        let db = lab.open();
        db.put(older, "older").unwrap();
        seal(&db);
        db.delete(older).unwrap();
        seal(&db);
        db.put(&k, "x".repeat(2000)).unwrap();
        db.delete(&k).unwrap();
        let input = seal(&db);
        let report = merge(&db, &[input]);
        assert_eq!(report.tombstones_kept, u64::from(older == &twin));
        remains(&lab, db, &[]);
    }
}

/// Without a look-up (there are too many tombstones, or hints too large for what is merged) every
/// older segment may hold the key.
#[test]
fn tombstones_that_are_not_looked_up_are_kept() {
    let lab = lab();
    let db = lab.open();
    db.put("another", "older").unwrap();
    seal(&db);
    let keys: Vec<_> = (0..20).map(|number| format!("key {number}")).collect();
    for key in &keys {
        db.put(key, "x".repeat(50)).unwrap();
    }
    for key in &keys {
        assert!(db.delete(key).unwrap());
    }
    let many = seal(&db);
    let report = merge(&db, &[many]);
    assert!((1..20).contains(&report.tombstones_kept), "{report:?}");
    assert_eq!(report.tombstones_kept + report.tombstones_dropped, 20);
    db.put("k", "x").unwrap();
    db.delete("k").unwrap();
    let small = seal(&db);
    assert_eq!(merge(&db, &[small]).tombstones_kept, 1);
    remains(&lab, db, &[("another", "older")]);
}

/// An expired entry shadows what is below it as a tombstone does. When it goes, it leaves one if an
/// older segment may hold the key, and none otherwise.
#[test]
fn an_expired_entry_leaves_a_tombstone_where_one_is_needed() {
    for (older, kept) in [("another", 0), ("k", 1)] {
        let lab = lab();
        let db = lab.open();
        db.put(older, "older").unwrap();
        seal(&db);
        let ttl = WriteOptions::new().ttl(Duration::from_secs(1));
        db.put_opt("k", "x".repeat(700), ttl).unwrap();
        let input = seal(&db);
        lab.hands.advance(Duration::from_secs(2));
        let report = merge(&db, &[input]);
        assert_eq!((report.expired_dropped, report.tombstones_kept), (1, kept));
        assert_eq!(db.len().unwrap(), 1 - kept);
        if kept == 1 {
            assert_eq!(entries_of(&lab, sealed(&db)[1]), [tombstone("k", false)]);
        }
        let left: &[(&str, &str)] = if kept == 0 { &[("another", "older")] } else { &[] };
        remains(&lab, db, left);
    }
}

/// *Collides* is about what has a slot when a copy is made, not when the original was written.
#[test]
fn collides_is_set_anew() {
    let (first, second, _) = colliding();
    let lab = weak();
    let db = lab.open();
    db.put(&first, "1").unwrap();
    let lower = seal(&db);
    db.put(&second, "2").unwrap();
    let upper = seal(&db);
    assert_eq!(entries_of(&lab, lower), [(first.clone(), false, false)]);
    assert_eq!(entries_of(&lab, upper), [(second.clone(), false, true)]);
    merge(&db, &[lower]);
    assert_eq!(entries_of(&lab, sealed(&db)[0]), [(first.clone(), false, true)]);
    db.delete(&first).unwrap();
    merge(&db, &[upper]);
    assert_eq!(entries_of(&lab, sealed(&db)[1]), [(second.clone(), false, false)]);
    remains(&lab, db, &[(&second, "2")]);
}

/// A copy stands for itself: the rest of its batch may be dead, and a place that a mark names may be
/// in a segment that is gone. Recovery would believe either.
#[test]
fn copies_are_of_no_batch_and_carry_no_mark() {
    let lab = lab();
    let db = lab.open();
    db.put("a", "0").unwrap();
    db.sync().unwrap();
    let ttl = Duration::from_secs(60);
    db.write(
        Batch::new().put("a", "1").put_opt("b", "2", WriteOptions::new().ttl(ttl)).put("c", "3"),
    )
    .unwrap();
    let input = seal(&db);
    let entries = log_entries(&lab);
    let before: Vec<_> = entries.iter().filter(|entry| entry.place.segment == input).collect();
    assert!(before.iter().any(|entry| entry.mark.is_some()));
    assert_eq!(before.iter().filter(|entry| entry.flags.has(Flags::CONTINUES)).count(), 2);
    db.delete("c").unwrap();
    let expiry = before[2].expiry;
    let timestamps: Vec<_> = before[1..3].iter().map(|entry| entry.timestamp).collect();
    merge(&db, &[input]);
    let output = sealed(&db)[0];
    let copies = log_entries(&lab).into_iter().filter(|entry| entry.place.segment == output);
    let copies: Vec<_> = copies.collect();
    assert_eq!(copies.iter().map(|copy| copy.timestamp).collect::<Vec<_>>(), timestamps);
    assert_eq!(copies[1].expiry, expiry);
    for copy in copies {
        assert!(copy.mark.is_none() && !copy.flags.has(Flags::CONTINUES), "{copy:?}");
    }
    remains(&lab, db, &[("a", "1"), ("b", "2")]);
}

/// A segment of which nothing is live or needed goes by its hint alone: were its log read, the
/// damage there would be met.
#[test]
fn a_segment_without_anything_that_is_needed_is_not_read() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    db.put("deleted", "x".repeat(700)).unwrap();
    db.delete("deleted").unwrap();
    let input = seal(&db);
    db.put("k", "new").unwrap();
    let path = db.inner.dir.log(input);
    lab.twin.put_file(&path, vec![0xff; lab.twin.contents(&path).unwrap().len()]);
    let report = merge(&db, &[input]);
    assert_eq!((report.segments_in, report.segments_out, report.live_entries), (1, 0, 0));
    assert_eq!(
        (lab.twin.contents(&path), lab.twin.contents(&db.inner.dir.hint(input))),
        (None, None)
    );
    remains(&lab, db, &[("k", "new")]);
}

/// Between the look at an entry and its copy, and between that and the listing, its key may be put
/// again or deleted: the slot stays with what is younger, and the copy is dead.
#[test]
fn what_changes_while_it_is_copied_stays_changed() {
    for (at_swap, put) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = lab();
        let db = lab.open();
        db.put("k", "old").unwrap();
        db.put("untouched", "old").unwrap();
        let input = seal(&db);
        let change = || {
            if put { db.put("k", "new").unwrap() } else { assert!(db.delete("k").unwrap()) }
        };
        let meddler =
            if at_swap { Meddler::at_swap(&db, change) } else { Meddler::at_output(&db, change) };
        let report = finish_on(&meddler, begin(&db, &[input]));
        drop(meddler);
        assert_eq!(report.live_entries, if at_swap { 2 } else { 1 });
        assert_eq!(entries_of(&lab, sealed(&db)[0]).len(), 2);
        let pairs = [("k", "new"), ("untouched", "old")];
        remains(&lab, db, if put { &pairs } else { &pairs[1..] });
    }
}

/// What dies when its segment has been begun and it has not been read yet is not copied.
#[test]
fn what_dies_before_its_turn_is_not_copied() {
    let lab = lab();
    let db = lab.open();
    for key in ["put", "deleted", "untouched"] {
        db.put(key, "old").unwrap();
    }
    let input = seal(&db);
    let mut merge = begin(&db, &[input]);
    assert_eq!(merge.step(&*db.inner).unwrap(), Some(0));
    db.put("put", "new").unwrap();
    db.delete("deleted").unwrap();
    assert_eq!(finish(&db, merge).live_entries, 1);
    assert_eq!(entries_of(&lab, sealed(&db)[0]), [("untouched".to_owned(), false, false)]);
    remains(&lab, db, &[("put", "new"), ("untouched", "old")]);
}

/// An expired entry whose key is put again while it is being dropped is not dropped; the tombstone
/// that was written for it lies below the new put.
#[test]
fn an_expired_entry_that_is_put_again_meanwhile_stays_put() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "oldest").unwrap();
    seal(&db);
    db.put_opt("k", "old", WriteOptions::new().ttl(Duration::from_secs(1))).unwrap();
    let input = seal(&db);
    lab.hands.advance(Duration::from_secs(2));
    let meddler = Meddler::at_output(&db, || db.put("k", "new").unwrap());
    let report = finish_on(&meddler, begin(&db, &[input]));
    assert_eq!((report.expired_dropped, report.tombstones_kept), (0, 1));
    drop(meddler);
    remains(&lab, db, &[("k", "new")]);
}

/// Outputs are as large as segments are, and take the place of the youngest input that they have
/// entries of: above it something may shadow these, below it they may shadow something.
#[test]
fn outputs_are_listed_where_their_youngest_input_was() {
    let lab = lab();
    let db = lab.open();
    let mut segments = Vec::new();
    let mut pairs = Vec::new();
    for number in 0..6 {
        for part in 0..5 {
            pairs.push((format!("key {number}.{part}"), "x".repeat(1200)));
            db.put(&pairs.last().unwrap().0, &pairs.last().unwrap().1).unwrap();
        }
        segments.push(seal(&db));
    }
    let report = merge(&db, &[segments[1], segments[2], segments[4]]);
    assert_eq!((report.segments_in, report.segments_out, report.live_entries), (3, 3, 15));
    let listed = sealed(&db);
    let at = |id| listed.iter().position(|listed| *listed == id);
    assert_eq!(listed.len(), 6);
    assert_eq!([0, 3, 5].map(|kept| at(segments[kept])), [Some(0), Some(2), Some(5)]);
    // The first one was full with entries of the first two inputs.
    assert!(entries_of(&lab, listed[1]).iter().all(|(key, ..)| !key.starts_with("key 4")));
    for output in [listed[1], listed[3], listed[4]] {
        let length = lab.twin.contents(&db.inner.dir.log(output)).unwrap().len();
        assert!(length <= 8192, "{length}");
    }
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    remains(&lab, db, &pairs);
}

/// What is as large as a segment is not copied, which would give nothing back; it stays, with what
/// lies below it, and a tombstone of a key that it may hold is kept.
#[test]
fn a_live_entry_as_large_as_a_segment_stays_where_it_is() {
    let lab = lab();
    let db = lab.open();
    let large = "x".repeat(10_000);
    db.put("large", &large).unwrap();
    let stays = seal(&db);
    for round in 0..2 {
        let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert_eq!((report.segments_in, sealed(&db).contains(&stays)), (0, true), "{round}");
    }
    db.put("k", "1").unwrap();
    db.delete("k").unwrap();
    db.put("k", "2").unwrap();
    let neighbour = seal(&db);
    db.delete("large").unwrap();
    db.put("large", "small").unwrap();
    let deleted = seal(&db);
    db.delete("large").unwrap();
    let report = merge(&db, &[neighbour, deleted]);
    assert_eq!((report.tombstones_kept, report.tombstones_dropped), (1, 1));
    // Dead, it goes.
    let report = merge(&db, &[stays]);
    assert_eq!((report.segments_in, report.segments_out), (1, 0));
    remains(&lab, db, &[("k", "2")]);
}

/// Half of an input gives nothing back, so none is begun whose copies would take the last room.
#[test]
fn an_input_is_begun_only_if_there_is_room_for_what_is_live_and_for_others() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "x".repeat(700)).unwrap();
    db.put("l", "x".repeat(700)).unwrap();
    db.delete("l").unwrap();
    let input = seal(&db);
    let [live_size] = db.segments().iter().map(|segment| segment.live_size).collect::<Vec<_>>()[..]
    else {
        panic!("one segment is sealed")
    };
    let used = u64::MAX - lab.twin.available_space();
    let needed = used + live_size + 8192 / 4;
    for (space, is_begun) in [(needed - 1, false), (needed, true)] {
        lab.twin.set_space(space);
        let mut merge = begin(&db, &[input]);
        let result = merge.step(&*db.inner);
        assert_eq!(matches!(&result, Ok(Some(0))), is_begun, "{result:?}");
        assert!(is_begun || matches!(result, Err(Error::NoSpace { .. })));
        let told = merge.progress();
        let read_size = if is_begun { FIRST_OFFSET } else { 0 };
        assert_eq!((told.segments_done, told.read_size), (0, read_size));
    }
    lab.twin.set_space(u64::MAX);
    let mut merge = begin(&db, &[input]);
    step_to_copy(&db, &mut merge);
    let told = merge.progress();
    assert_eq!((told.segments_done, told.read_size), (0, told.total_size), "all has been read");
    finish(&db, merge);
    remains(&lab, db, &[("k", &"x".repeat(700))]);
}
