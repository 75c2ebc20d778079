//! Queues, stacks and other stores in which deleted keys lie before the next live one: the cost of
//! a look at the front or the back, counted in rows passed and blocks read.
//!
//! - The tests do not measure time. A cost that grows with the number of deleted keys would be
//!   hundreds of times as high at the end; the bounds leave room for a cost that grows with the
//!   number of runs.

use crate::segment::index::WALKED;
use crate::store::tests::merge::basics::{merge, seal, sealed};
use crate::store::tests::*;
use crate::value::Value;

/// Returns the number of rows and blocks that a closure goes through.
fn walked(run: impl FnOnce()) -> u64 {
    let sum = || WALKED.get().0 + WALKED.get().1;
    let before = sum();
    run();
    sum() - before
}

const ITEMS: u64 = 3_000;

/// Maximum mean number of rows and blocks per item.
const AT_MOST: u64 = 200;

fn lab() -> Lab {
    Lab::new().with(Options::new().segment_size(4 << 20).sync_policy(SyncPolicy::Never))
}

fn key(at: u64) -> Vec<u8> {
    format!("{at:012}").into_bytes()
}

/// Runs a round for each item, and checks the mean cost of the last ones.
fn is_flat(mut round: impl FnMut(u64)) {
    let mut costs: Vec<u64> = (0..ITEMS).map(|at| walked(|| round(at))).collect();
    let late = costs.split_off(costs.len() / 2);
    let mean = late.iter().sum::<u64>() / late.len() as u64;
    assert!(mean <= AT_MOST, "{mean} rows and blocks per item, {costs:?} before, then {late:?}");
}

fn first_key(db: &Bitcask) -> Option<Vec<u8>> {
    db.first().unwrap().map(|(key, _)| key.into())
}

#[test]
fn a_queues_cost_is_independent_of_the_items_taken() {
    for backlog in [0, 1, 5, 200] {
        let db = lab().open();
        (0..backlog).for_each(|at| db.put(key(at), "job").unwrap());
        is_flat(|at| {
            db.put(key(at + backlog), "job").unwrap();
            assert_eq!(first_key(&db), Some(key(at)));
            db.delete(key(at)).unwrap();
        });
        assert_eq!(db.len().unwrap(), backlog);
    }
}

#[test]
fn a_transactional_queues_cost_is_independent_of_the_items_taken() {
    let db = lab().open();
    db.put("a", "before all").unwrap();
    is_flat(|at| {
        db.put([b"job/", &*key(at)].concat(), key(at)).unwrap();
        let job = db.transaction(|tx| {
            let Some((key, job)) = tx.prefix("job/").next().transpose()? else { return Ok(None) };
            tx.delete(&key);
            Ok(Some(job))
        });
        assert_eq!(*job.unwrap().unwrap(), *key(at));
    });
}

/// Items taken from the stack are put again under the same keys.
#[test]
fn a_stacks_cost_is_independent_of_the_items_taken() {
    let db = lab().open();
    db.put(key(0), "bottom").unwrap();
    is_flat(|round| {
        let depth = 1 + round % 50;
        (1..=depth).for_each(|at| db.put(key(at), "frame").unwrap());
        for at in (1..=depth).rev() {
            if at % 16 == depth % 16 {
                assert_eq!(*db.last().unwrap().unwrap().0, *key(at));
            }
            db.delete(key(at)).unwrap();
        }
        assert_eq!(*db.last().unwrap().unwrap().0, *key(0));
    });
}

#[test]
fn many_queues_in_one_store_cost_the_same_each() {
    let db = lab().open();
    let queue = |at: u64| format!("q{:02}/", at % 10);
    let job = |at| [queue(at).as_bytes(), &key(at)].concat();
    is_flat(|at| {
        db.put(job(at), "job").unwrap();
        let (found, _) = db.prefix(queue(at)).next().unwrap().unwrap();
        assert_eq!(*found, *job(at));
        db.delete(found).unwrap();
        // The queue is now empty, from the back as well.
        assert!(db.prefix(queue(at)).next_back().is_none());
        assert!(db.range(queue(at)..format!("q{:02}", at % 10 + 1)).next().is_none());
    });
}

/// The items are not deleted: they expire.
#[test]
fn an_expiring_queues_cost_is_independent_of_the_items_expired() {
    let lab = lab();
    let db = lab.open();
    is_flat(|at| {
        let minute = WriteOptions::new().ttl(Duration::from_secs(60));
        db.put_opt(key(at), "job", minute).unwrap();
        lab.hands.advance(Duration::from_secs(20));
        assert_eq!(first_key(&db), Some(key(at.saturating_sub(1))));
    });
}

/// Live keys lie before and after the deleted ones.
#[test]
fn the_cost_in_the_middle_is_independent_of_the_keys_deleted() {
    let db = lab().open();
    for key in ["a", "b", "x", "y"] {
        db.put(key, "stays").unwrap();
    }
    let item = |at| [b"m", &*key(at)].concat();
    is_flat(|at| {
        db.put(item(at), "item").unwrap();
        let only = |pair: Option<Result<(Value, Value)>>| pair.unwrap().unwrap().0;
        assert_eq!(*only(db.range("a".."x").after("b").next()), *item(at));
        assert_eq!(*only(db.range(..).before("x").next_back()), *item(at));
        db.delete(item(at)).unwrap();
        assert_eq!(only(db.range("b".."z").rev().nth(2)), "b");
        assert_eq!(only(db.range(..).nth(2)), "x");
    });
}

/// A key that is written again and again lies before the next live one.
#[test]
fn a_keys_cost_is_independent_of_its_versions() {
    let db = lab().open();
    let early = db.snapshot();
    is_flat(|at| {
        db.put("counter", at.to_be_bytes()).unwrap();
        db.put("z", at.to_be_bytes()).unwrap();
        assert_eq!(*db.first().unwrap().unwrap().1, at.to_be_bytes());
        assert_eq!(*db.last().unwrap().unwrap().1, at.to_be_bytes());
        assert_eq!(db.range("d"..).count(), 1);
        assert_eq!(early.first().unwrap(), None);
    });
}

#[test]
fn a_queues_cost_is_the_same_with_sealed_and_merged_segments() {
    let db = lab().open();
    is_flat(|at| {
        db.put(key(at), "job").unwrap();
        assert_eq!(first_key(&db), Some(key(at)));
        db.delete(key(at)).unwrap();
        if at % 500 == 499 {
            seal(&db);
        }
        if at % 1_000 == 999 {
            merge(&db, &sealed(&db));
            assert_eq!(first_key(&db), None);
        }
    });
}

/// Keys deleted before the open are passed only once.
#[test]
fn a_queues_cost_is_the_same_after_a_reopen() {
    let lab = lab();
    let db = lab.open();
    for at in 0..ITEMS {
        db.put(key(at), "job").unwrap();
        db.delete(key(at)).unwrap();
    }
    drop(db);
    let db = lab.open();
    assert!(walked(|| assert_eq!(first_key(&db), None)) > ITEMS);
    is_flat(|at| {
        db.put(key(ITEMS + at), "job").unwrap();
        assert_eq!(first_key(&db), Some(key(ITEMS + at)));
        db.delete(key(ITEMS + at)).unwrap();
    });
}

/// A clear has no timestamp, so a scan right after it has the same timestamp as a snapshot from
/// right before it. If that scan passes keys that were put later, it has something to remember.
#[test]
fn a_snapshot_shows_cleared_keys_despite_scans_in_between() {
    for is_forward in [true, false] {
        let lab = Lab::new();
        let db = lab.open();
        for number in 0..50_u8 {
            db.put([number], "1").unwrap();
        }
        let before = db.snapshot();
        db.clear().unwrap();
        let empty = db.range(..);
        for number in 0..50_u8 {
            db.put([number], "2").unwrap();
        }
        let found = if is_forward { empty.count() } else { empty.rev().count() };
        assert_eq!(found, 0);
        assert_eq!(before.range(..).count(), 50);
        assert_eq!(before.range(..).rev().count(), 50);
    }
}
