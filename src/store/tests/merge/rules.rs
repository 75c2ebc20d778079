//! What a merge does with each kind of entry, and where it writes its output.
//!
//! - The tests use the helpers of `basics`. A [`Meddler`] acts within a step.

use super::basics::*;
use crate::merge::{Host, MergeContext};
use crate::options::MergeOptions;
use crate::segment::Segment;
use crate::segment::write::output::Output;
use crate::store::tests::*;

/// Acts once within a step of a merge: after entries have been looked up and before an output
/// exists for them, or when an output is about to be listed.
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

    fn exclusively(&self, change: &mut dyn FnMut(Option<SegmentId>) -> Result<()>) -> Result<()> {
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

/// To find what a tombstone of `k` shadows, the merge looks in the hints of older, unmerged
/// segments. If none of them holds a put with its hash bits, the tombstone is dropped, and its
/// segment is removed without an output.
#[test]
fn a_tombstone_is_dropped_when_nothing_older_holds_its_key() {
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
        // In the oldest segment it is not needed any more.
        let all = sealed(&db);
        assert_eq!(all[0], bottom);
        let report = merge(&db, &all);
        assert_eq!((report.tombstones_kept, report.tombstones_dropped), (0, kept));
        assert_eq!(report.segments_out, 1 - kept);
        remains(&lab, db, left);
    }
}

/// A key may have many dead puts below its tombstone. All tombstones are still looked up.
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

/// Hints record only hash bits, so a put of another key with the same bits keeps a tombstone, too.
/// The put has to be dead; otherwise the tombstone is kept without a lookup.
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

/// Without a lookup (because of too many tombstones, or of hints too large compared to the input),
/// every older segment may hold the key.
#[test]
fn tombstones_without_a_look_up_are_kept() {
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

/// Like a tombstone, an expired entry shadows the entries below it. When it is dropped, it is
/// replaced by a tombstone if an older segment may hold the key, and by nothing otherwise.
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

/// The *collides* flag depends on the slots when a copy is made, not when the original was written.
#[test]
fn collides_is_recomputed() {
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

/// A copy is independent: the rest of its batch may be dead, and the place that its mark names may
/// be in a removed segment. Recovery would believe both.
#[test]
fn copies_belong_to_no_batch_and_carry_no_mark() {
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

/// A segment of which nothing is live or needed is removed based on its hint alone. Reading its log
/// would find the damage there.
#[test]
fn a_segment_that_is_not_needed_is_not_read() {
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

/// A key may be put or deleted between the look at its entry and the copy, or between the copy and
/// the listing. The slot keeps the newer entry, and the copy is dead.
#[test]
fn changes_during_the_copy_are_kept() {
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

/// An entry that dies after its segment was begun and before it is read is not copied.
#[test]
fn an_entry_that_dies_before_its_turn_is_not_copied() {
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

/// An expired entry does not count as dropped if its key is put again meanwhile. The tombstone
/// written for the entry lies below the new put.
#[test]
fn a_key_put_again_while_its_expired_entry_is_dropped_stays() {
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

/// Outputs have the size of segments. Each takes the place of the newest input that it has entries
/// of: above that place, other entries may shadow its entries; below it, its entries may shadow
/// others.
#[test]
fn outputs_are_listed_in_the_place_of_their_newest_input() {
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
    // The first output was full with entries of the first two inputs.
    assert!(entries_of(&lab, listed[1]).iter().all(|(key, ..)| !key.starts_with("key 4")));
    for output in [listed[1], listed[3], listed[4]] {
        let length = lab.twin.contents(&db.inner.dir.log(output)).unwrap().len();
        assert!(length <= 8192, "{length}");
    }
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    remains(&lab, db, &pairs);
}

/// An entry as large as a segment is not copied, since that would free nothing. It stays, together
/// with the entries below it, and a tombstone of a key that it may hold is kept.
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
    // Once dead, it is removed.
    let report = merge(&db, &[stays]);
    assert_eq!((report.segments_in, report.segments_out), (1, 0));
    remains(&lab, db, &[("k", "2")]);
}

/// Copying half of an input frees nothing, so a merge begins no input whose copies would take the
/// last space.
#[test]
fn an_input_is_begun_only_with_space_for_its_live_entries_and_the_reserve() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "x".repeat(700)).unwrap();
    db.put("l", "x".repeat(700)).unwrap();
    db.delete("l").unwrap();
    let input = seal(&db);
    let [live_size] = db.segments().iter().map(|segment| segment.live_size).collect::<Vec<_>>()[..]
    else {
        panic!("one segment must be sealed")
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
    assert_eq!(
        (told.segments_done, told.read_size),
        (0, told.total_size),
        "the whole input must be read"
    );
    finish(&db, merge);
    remains(&lab, db, &[("k", &"x".repeat(700))]);
}
