//! Deletes of a slow thread, concurrent with a merge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bitcask::{Batch, Bitcask, MergeOptions, MergePolicy};

use super::asked;
use super::load::{processors, spin, step_back};
use crate::support::{in_memory, options};

/// Number of keys in a batch of deletes.
const KEYS: u32 = 20_000;
/// Default number of rounds.
const ROUNDS: u64 = 4;

/// Deletes all keys in a batch, and merges as soon as the deletes are in the log. Returns the
/// number of keys after the deletes have returned, and again after the store was reopened.
fn delete_during_a_merge() -> (u64, u64) {
    let dir = in_memory();
    let open = || Bitcask::open(dir.path(), options().merge_policy(MergePolicy::Manual)).unwrap();
    let keys = || (0..KEYS).map(u32::to_be_bytes);
    let db = open();
    db.write(&keys().map(|key| (key, "value")).collect()).unwrap();
    // Seals the segments, so that the merge takes them.
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

/// Regression: on a busy machine, a low-priority thread had its deletes in the log and was
/// suspended before the keydir had them. A merge then took the keys for live, copied them, and
/// dropped the deletes as unneeded. After the next opening, the keys were back.
#[test]
fn deletes_in_flight_during_a_merge_stay_deleted() {
    let rounds = asked("BITCASK_STRESS").map_or(ROUNDS, |rounds| rounds.min(50));
    let found: Vec<_> = (0..rounds).map(|_| delete_during_a_merge()).collect();
    let bad = found.iter().filter(|found| **found != (0, 0)).count();
    println!("keys left in {bad} of {rounds} rounds, before and after reopening: {found:?}");
    assert_eq!(bad, 0, "rounds of {rounds} in which deleted keys were back: {found:?}");
}
