//! Stories of merges: each shows one rule, and what would happen without it.
//!
//! - Segments end where a story says so ([`seal`]). Merges proceed by explicit steps ([`begin`],
//!   [`finish`]), so that anything may happen in between.
//! - [`remains`] closes, kills and reopens a store. The merged state must be the same every time.

use crate::merge::{Host, Merge};
use crate::stats::MergeReport;
use crate::store::tests::*;

/// A lab whose segments are large enough for everything that a story puts in one, and worth a
/// tombstone lookup.
pub(crate) fn lab() -> Lab {
    let options = Options::new().segment_size(8192).sync_policy(SyncPolicy::Never);
    Lab::new().with(options)
}

pub(crate) fn weak() -> Lab {
    Lab { hasher: KeyHasher::weak, ..lab() }.seeded(1)
}

/// Two keys with the same hash bits, and one with other bits, in a [`weak`] lab.
pub(crate) fn colliding() -> (String, String, String) {
    let hash = |key: &str| KeyHasher::weak(1).hash(key.as_bytes());
    let keys = || (0..100).map(|number| format!("key {number}"));
    let first = keys().next().unwrap();
    let twin = keys().skip(1).find(|key| hash(key) == hash(&first)).unwrap();
    let other = keys().find(|key| hash(key).shard() != hash(&first).shard()).unwrap();
    (first, twin, other)
}

/// Ends the active segment, if it has entries, and seals it.
pub(crate) fn seal_active(db: &Bitcask) {
    db.inner.log().unwrap().rotate_active().unwrap();
    db.inner.seal_rotated().unwrap();
}

/// Ends the active segment, seals it, and returns its id.
pub(crate) fn seal(db: &Bitcask) -> SegmentId {
    seal_active(db);
    *sealed(db).last().unwrap()
}

/// Returns the sealed segments, oldest first.
pub(crate) fn sealed(db: &Bitcask) -> Vec<SegmentId> {
    db.inner.manifest.get(|manifest| manifest.sealed.iter().map(|sealed| sealed.id).collect())
}

pub(crate) fn begin(db: &Bitcask, ids: &[SegmentId]) -> Merge {
    db.inner.filler.fill_all(&db.inner.keydir).unwrap();
    Merge::begin(&db.inner.merge_context(), &ids.iter().copied().collect())
}

/// Makes steps until something has been copied.
pub(crate) fn step_to_copy(db: &Bitcask, merge: &mut Merge) {
    while merge.step(&*db.inner).unwrap().expect("the merge has something to copy") == 0 {}
}

pub(crate) fn finish_on(host: &impl Host, mut merge: Merge) -> MergeReport {
    while merge.step(host).unwrap().is_some() {}
    assert!(!merge.is_pending());
    merge.report(false)
}

pub(crate) fn finish(db: &Bitcask, merge: Merge) -> MergeReport {
    finish_on(&*db.inner, merge)
}

pub(crate) fn merge(db: &Bitcask, ids: &[SegmentId]) -> MergeReport {
    finish(db, begin(db, ids))
}

/// Returns the entries of keys in a segment: the key, whether it is a tombstone, and whether it is
/// flagged *collides*.
pub(crate) fn entries_of(lab: &Lab, id: SegmentId) -> Vec<(String, bool, bool)> {
    let of_keys = |entry: &LogEntry| {
        entry.place.segment == id
            && !entry.flags.has(Flags::END)
            && !entry.flags.has(Flags::MARK_ONLY)
    };
    let told = |entry: LogEntry| {
        let key = String::from_utf8(entry.key).unwrap();
        (key, entry.flags.has(Flags::TOMBSTONE), entry.flags.has(Flags::COLLIDES))
    };
    log_entries(lab).into_iter().filter(of_keys).map(told).collect()
}

pub(crate) fn tombstone(key: &str, collides: bool) -> (String, bool, bool) {
    (key.to_owned(), true, collides)
}

/// Checks that a store has exactly these pairs.
pub(crate) fn expect(db: &Reader, pairs: &[(&str, &str)]) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let found: BTreeMap<_, _> =
        snapshot(db).into_iter().map(|(key, value)| (text(key), text(value))).collect();
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    assert_eq!(found, pairs.collect());
    check_figures(db);
}

/// Checks that a store has these pairs as it is, after a kill, after a sync and a power cut, and
/// after reopening with and without hints.
pub(crate) fn remains(lab: &Lab, db: Bitcask, pairs: &[(&str, &str)]) {
    expect(&db, pairs);
    expect(&lab.killed().open_read_only(), pairs);
    let killed = lab.killed().open();
    expect(&killed, pairs);
    kill(killed);
    db.sync().unwrap();
    let powered_off = lab.powered_off(|_| false).open();
    expect(&powered_off, pairs);
    kill(powered_off);
    let db = lab.reopen(db);
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    expect(&db, pairs);
    db.close().unwrap();
    lab.delete_hints();
    expect(&lab.open(), pairs);
}

/// A key is put without expiry, put again with a time to live, and deleted after that has ended. If
/// the delete of the expired value wrote no tombstone, the second put would be dead and removed by
/// the next merge of its segment. The first put below it would then be the key's newest entry.
#[test]
fn a_delete_after_expiry_shadows_the_older_put() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "for good").unwrap();
    seal(&db);
    db.put_opt("k", "for a while", WriteOptions::new().ttl(Duration::from_secs(1))).unwrap();
    let middle = seal(&db);
    lab.hands.advance(Duration::from_secs(2));
    assert!(!db.delete("k").unwrap());
    merge(&db, &[middle]);
    remains(&lab, db, &[]);
}

/// A merge that stops has made slots name copies. If these copies were not listed then, the next
/// merge would find nothing live in the inputs and remove them. The unlisted copies would be
/// leftovers at the next open, and entries that no write had touched would be lost.
#[test]
fn an_aborted_merge_can_be_merged_again() {
    let lab = lab();
    let db = lab.open();
    db.put("a", "1".repeat(300)).unwrap();
    db.put("b", "2".repeat(300)).unwrap();
    let input = seal(&db);
    let mut aborted = begin(&db, &[input]);
    step_to_copy(&db, &mut aborted);
    aborted.publish(&*db.inner).unwrap();
    let [first, output] = sealed(&db)[..] else { panic!("{:?}", sealed(&db)) };
    assert_eq!(first, input);
    merge(&db, &[input]);
    merge(&db, &[output]);
    remains(&lab, db, &[("a", &"1".repeat(300)), ("b", &"2".repeat(300))]);
}

/// The same with a deleted key: the aborted merge has copied the tombstone, and the next merge
/// drops the original in the tombstone's old segment. The copy has to lie above the put in a
/// segment between the inputs, or that put comes back.
#[test]
fn an_aborted_merge_lists_its_outputs_above_their_inputs() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    let bottom = seal(&db);
    db.put("a", "1".repeat(300)).unwrap();
    db.delete("k").unwrap();
    db.put("b", "2".repeat(300)).unwrap();
    let lower = seal(&db);
    db.put("c", "3").unwrap();
    let upper = seal(&db);
    let mut aborted = begin(&db, &[lower, upper]);
    step_to_copy(&db, &mut aborted);
    step_to_copy(&db, &mut aborted);
    aborted.publish(&*db.inner).unwrap();
    let listed = sealed(&db);
    assert_eq!((listed.len(), listed[0], listed[1], listed[3]), (4, bottom, lower, upper));
    merge(&db, &[lower]);
    remains(&lab, db, &[("a", &"1".repeat(300)), ("b", &"2".repeat(300)), ("c", "3")]);
}

/// Of two keys with the same hash bits, one is put and deleted before the other is put, so neither
/// is flagged. Merging the tombstone with a newer segment moves it above the live key. If it kept
/// its flags, filling the keydir would treat every entry below it with its hash bits as dead.
#[test]
fn a_tombstone_that_rises_above_an_unflagged_key_is_flagged() {
    let (dead, live, other) = colliding();
    let lab = weak();
    let db = lab.open();
    db.put(&dead, "1").unwrap();
    let bottom = seal(&db);
    db.delete(&dead).unwrap();
    let tombstones = seal(&db);
    db.put(&live, "2").unwrap();
    let between = seal(&db);
    db.put(&other, "3").unwrap();
    let top = seal(&db);
    assert_eq!(entries_of(&lab, tombstones), [tombstone(&dead, false)]);
    assert_eq!(entries_of(&lab, between), [(live.clone(), false, false)]);
    merge(&db, &[tombstones, top]);
    let output = sealed(&db)[2];
    assert_eq!(sealed(&db), [bottom, between, output]);
    assert_eq!(entries_of(&lab, output)[0], tombstone(&dead, true));
    remains(&lab, db, &[(&live, "2"), (&other, "3")]);
}

/// A sealed value is overwritten, and the new value is not synced yet. The old value is dead, so
/// its segment is removed. Without a sync of the log before that, a power cut would lose the new
/// value, too, and the key, which had long been durable, would be lost.
#[test]
fn an_input_is_removed_only_when_its_overwrites_are_durable() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    let input = seal(&db);
    db.put("k", "new").unwrap();
    merge(&db, &[input]);
    for keep in [false, true] {
        expect(&lab.powered_off(|_| keep).open(), &[("k", "new")]);
    }
    // The entry that overwrote the copy was written even later.
    db.put("k", "newer").unwrap();
    db.put("other", "value").unwrap();
    let input = seal(&db);
    let mut unfinished = begin(&db, &[input]);
    step_to_copy(&db, &mut unfinished);
    db.put("k", "newest").unwrap();
    finish(&db, unfinished);
    expect(&lab.powered_off(|_| false).open(), &[("k", "newest"), ("other", "value")]);
}

/// A kept tombstone moves above a put that a later delete in the log has made dead. If the merge
/// were listed before that delete is durable, then after a power cut the put would be shadowed by a
/// tombstone that is older than the put.
#[test]
fn a_tombstone_rises_only_when_the_delete_above_it_is_durable() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "1").unwrap();
    seal(&db);
    db.delete("k").unwrap();
    let tombstones = seal(&db);
    db.put("k", "2").unwrap();
    seal(&db);
    db.put("other", "value").unwrap();
    let top = seal(&db);
    db.delete("k").unwrap();
    let mut merge = begin(&db, &[tombstones, top]);
    while merge.step(&*db.inner).unwrap().is_some() {
        let image = lab.powered_off(|_| false).open();
        let pairs = snapshot(&image);
        let durable =
            db.inner.log().unwrap().durable() >= db.inner.writer().unwrap().log.lock().end();
        assert!(durable || pairs.get(b"k".as_slice()).is_some_and(|value| value == b"2"));
        kill(image);
    }
    remains(&lab, db, &[("other", "value")]);
}

/// A key that is deleted repeatedly leaves a tombstone in every segment, of which one is enough.
#[test]
fn of_several_tombstones_of_a_key_one_is_kept() {
    let lab = lab();
    let db = lab.open();
    db.put("k", "old").unwrap();
    seal(&db);
    let mut inputs = Vec::new();
    for round in 0..3 {
        db.delete("k").unwrap();
        db.put("k", round.to_string()).unwrap();
        db.delete("k").unwrap();
        inputs.push(seal(&db));
        db.put("k", "again").unwrap();
    }
    db.delete("k").unwrap();
    let report = merge(&db, &inputs);
    assert_eq!((report.tombstones_kept, report.tombstones_dropped), (1, 5));
    assert_eq!(entries_of(&lab, sealed(&db)[1]), [tombstone("k", false)]);
    remains(&lab, db, &[]);
}

/// Two of the inputs hold a tombstone of the same key, and between them is a put of the key in an
/// unmerged segment. The first tombstone is in an output that was full and was listed, below the
/// put, before the merge reached the second tombstone. So the first does not replace the second.
#[test]
fn an_already_listed_tombstone_does_not_replace_a_newer_one() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("k", "oldest").unwrap();
    let bottom = seal(&db);
    db.put("a", "1".repeat(700)).unwrap();
    let first = seal(&db);
    db.delete("k").unwrap();
    db.put("b", "2".repeat(400)).unwrap();
    let second = seal(&db);
    db.put("k", "between").unwrap();
    let between = seal(&db);
    db.delete("k").unwrap();
    db.put("c", "3".repeat(100)).unwrap();
    let third = seal(&db);
    merge(&db, &[first, second, third]);
    let listed = sealed(&db);
    assert_eq!((listed.len(), listed[0], listed[2]), (4, bottom, between));
    let (a, b, c) = ("1".repeat(700), "2".repeat(400), "3".repeat(100));
    remains(&lab, db, &[("a", &a), ("b", &b), ("c", &c)]);
}
