//! Deletes of a slow thread, beside a merge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bitcask::{Batch, Bitcask, MergeOptions, MergePolicy};

use super::asked;
use super::load::{directory, processors, spin, step_back};
use crate::support::options;

/// So many keys are deleted at once.
const KEYS: u32 = 20_000;
/// So many rounds are played where nobody asks for more.
const ROUNDS: u64 = 4;

/// Deletes all keys in a batch, and merges as soon as that is in the log. Returns how many keys are
/// there when the deletes have returned, and how many when the store was opened again.
fn delete_beside_a_merge() -> (u64, u64) {
    let dir = directory();
    let open = || Bitcask::open(dir.path(), options().merge_policy(MergePolicy::Manual)).unwrap();
    let keys = || (0..KEYS).map(u32::to_be_bytes);
    let db = open();
    db.write(&keys().map(|key| (key, "value")).collect()).unwrap();
    // What is merged has to be sealed.
    db.close().unwrap();
    let db = open();
    assert_eq!(db.len().unwrap(), u64::from(KEYS));
    let mut batch = Batch::new();
    for key in keys() {
        batch.delete(key);
    }
    let (before, is_over) = (db.position(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..=processors() {
            scope.spawn(|| spin(|| is_over.load(Ordering::Relaxed)));
        }
        let slow = scope.spawn(|| {
            step_back();
            db.write(&batch).unwrap();
        });
        while db.position() == before {
            thread::yield_now();
        }
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        let result = slow.join();
        is_over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    let left = db.len().unwrap();
    db.close().unwrap();
    (left, open().len().unwrap())
}

/// A thread of low priority on a busy machine had its deletes in the log, and was put aside before
/// the keydir knew of them. A merge took the keys for live then, copied them, and dropped the
/// deletes, which nothing seemed to need: the keys were back after the next opening.
#[test]
fn deletes_in_flight_beside_a_merge_stay_deleted() {
    let rounds = asked("BITCASK_STRESS").map_or(ROUNDS, |rounds| rounds.min(50));
    let found: Vec<_> = (0..rounds).map(|_| delete_beside_a_merge()).collect();
    let bad = found.iter().filter(|found| **found != (0, 0)).count();
    println!("{bad} of {rounds} rounds left keys, before and after reopening: {found:?}");
    assert_eq!(bad, 0, "keys were back in so many of {rounds} rounds: {found:?}");
}
