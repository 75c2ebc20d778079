//! Leases on history, which followers hold while they copy a snapshot and read on.

use crate::options::{MergeOptions, MergePolicy};
use crate::store::tests::merge::basics::{begin, finish, seal, sealed};
use crate::store::tests::*;

fn lab() -> Lab {
    let options = Options::new().segment_size(1024).merge_policy(MergePolicy::Manual);
    Lab::new().with(options)
}

/// Overwrites a key in so many segments.
fn overwrite(db: &Bitcask, segments: usize) {
    for number in 0..segments {
        db.put("key", vec![u8::try_from(number).unwrap(); 400]).unwrap();
        seal(db);
    }
}

fn merge(db: &Bitcask) {
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

/// Returns the number of changes since a position, or `None` if some of them are gone.
fn changes(db: &Bitcask, since: Position) -> Option<usize> {
    match db.changes(since) {
        Err(Error::HistoryGone { .. }) => None,
        changes => {
            let mut changes = changes.unwrap();
            Some(std::iter::from_fn(|| changes.try_recv().unwrap()).count())
        }
    }
}

/// Without a lease, a follower that copies a snapshot while merges run has to begin again.
#[test]
fn a_lease_keeps_the_history_since_a_snapshot_until_it_is_dropped() {
    let db = lab().open();
    overwrite(&db, 3);
    for is_leased in [true, false] {
        let lease = is_leased.then(|| db.lease_history(1 << 20));
        let position = db.snapshot().position();
        overwrite(&db, 5);
        merge(&db);
        overwrite(&db, 5);
        merge(&db);
        assert_eq!(changes(&db, position), is_leased.then_some(10));
        assert_eq!(db.stats().history_segments > 0, is_leased);
        drop(lease);
        merge(&db);
        assert_eq!(changes(&db, position), None);
        assert_eq!(db.stats().history_segments, 0);
    }
}

/// A merge removes its inputs long after it was planned.
#[test]
fn a_merge_that_is_running_keeps_what_is_leased_meanwhile() {
    let lab = lab();
    let db = lab.open();
    let position = db.position();
    db.put("gone", "1").unwrap();
    overwrite(&db, 1);
    let middle = db.position();
    db.delete("gone").unwrap();
    overwrite(&db, 2);
    let planned = begin(&db, &sealed(&db));
    let lease = db.lease_history_since(middle, 1 << 20);
    finish(&db, planned);
    assert_eq!((changes(&db, position), changes(&db, middle)), (None, Some(3)));
    db.close().unwrap();
    drop(lease);
    let db = lab.open();
    assert_eq!((db.get("gone").unwrap(), db.len().unwrap()), (None, 1));
    assert_eq!(db.get("key").unwrap().unwrap(), [1; 400]);
    assert_eq!(changes(&db, middle), Some(3));
    merge(&db);
    assert_eq!(changes(&db, middle), None);
    assert_eq!((db.get("gone").unwrap(), db.len().unwrap()), (None, 1));
}

#[test]
fn a_lease_that_moves_gives_up_what_was_read() {
    let db = lab().open();
    let position = db.position();
    let lease = db.lease_history_since(position, 1 << 20);
    overwrite(&db, 6);
    let mut follower = db.changes(position).unwrap();
    for _ in 0..3 {
        follower.try_recv().unwrap().unwrap();
    }
    let middle = follower.resume_position();
    lease.move_to(middle);
    merge(&db);
    assert_eq!((changes(&db, position), changes(&db, middle)), (None, Some(3)));
    // A follower that has everything keeps nothing, although notes of the log follow.
    lease.move_to(db.position());
    merge(&db);
    assert_eq!(changes(&db, middle), None);
    assert_eq!(changes(&db, db.position()), Some(0));
    assert!(db.segments().iter().all(|segment| segment.merged));
}

#[test]
fn a_lease_keeps_nothing_beyond_its_limit() {
    let db = lab().open();
    let position = db.position();
    let _lease = db.lease_history(2000);
    overwrite(&db, 4);
    merge(&db);
    assert_eq!(changes(&db, position), Some(4));
    overwrite(&db, 4);
    merge(&db);
    assert_eq!(changes(&db, position), None);
}

/// A follower must not fill the disk of its leader.
#[test]
fn a_lease_keeps_nothing_on_a_full_disk() {
    let lab = lab();
    let db = lab.open();
    let position = db.position();
    let _lease = db.lease_history(1 << 20);
    overwrite(&db, 4);
    let planned = || db.plan_merge(&MergeOptions::new().force(true)).unwrap().segments.len();
    assert_eq!(planned(), 0);
    lab.twin.set_space(1024);
    assert_eq!(planned(), 4);
    lab.twin.set_space(1 << 20);
    assert_eq!((planned(), changes(&db, position)), (0, Some(4)));
}

#[test]
fn a_clear_ends_the_history_in_spite_of_a_lease() {
    let db = lab().open();
    let position = db.position();
    let _lease = db.lease_history(1 << 20);
    overwrite(&db, 2);
    db.clear().unwrap();
    assert_eq!(changes(&db, position), None);
    let position = db.position();
    overwrite(&db, 2);
    merge(&db);
    // It goes on behind the clear.
    assert_eq!(changes(&db, position), Some(2));
}
