//! A store is used from the moment it is open, while the background still fills its keydir. Reads
//! return what was written, no matter which thread fills a shard first.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index in a helper fails the test")]

use std::path::Path;
use std::sync::Barrier;
use std::thread;

use bitcask::{Batch, Bitcask, ReadOnly, Reader};

use crate::support::{Pairs, Random, crash_copy, open, open_read_only, pairs, remove_hints};

const THREADS: u64 = 6;
const KEYS: u64 = 3000;

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A value that contains its key and the number of writes to the key so far.
fn value(number: u64, version: u64) -> Vec<u8> {
    [number, version, !number ^ version].map(u64::to_be_bytes).concat()
}

fn version(number: u64, bytes: &[u8]) -> u64 {
    let version = u64::from_be_bytes(bytes[8..16].try_into().unwrap());
    assert!(bytes == value(number, version), "key {number} has another key's value");
    version
}

/// Works on the keys that only this thread writes, and reads other threads' keys. Returns the final
/// values of its keys.
fn work(db: &Bitcask, own: u64, round: u64, before: &Pairs) -> Vec<(u64, Option<u64>)> {
    let mut random = Random(own << 8 | round);
    let mut held: Vec<(u64, Option<u64>)> = (0..KEYS)
        .filter(|number| number % THREADS == own)
        .map(|number| {
            let found = before.get(key(number).as_slice());
            (number, found.map(|bytes| version(number, bytes)))
        })
        .collect();
    for step in 0..400 {
        let at = usize::try_from(random.below(held.len() as u64)).unwrap();
        let (number, old) = held[at];
        let new = round << 32 | step << 1;
        match random.below(8) {
            0 | 1 => {
                let found = db.get(key(number)).unwrap();
                assert_eq!(found.map(|bytes| version(number, &bytes)), old);
            }
            2 => {
                db.put(key(number), value(number, new)).unwrap();
                held[at].1 = Some(new);
            }
            3 => {
                assert_eq!(db.delete(key(number)).unwrap(), old.is_some());
                held[at].1 = None;
            }
            4 => {
                let (other, _) = held[(at + 7) % held.len()];
                db.write(Batch::new().delete(key(other)).put(key(number), value(number, new)))
                    .unwrap();
                let last = held.len();
                held[(at + 7) % last].1 = None;
                held[at].1 = Some(new);
            }
            5 => {
                let other = random.below(KEYS);
                if let Some(bytes) = db.get(key(other)).unwrap() {
                    version(other, &bytes);
                }
            }
            6 => {
                let stored = db.update(key(number), |found| {
                    assert_eq!(found.map(|bytes| version(number, bytes)), old);
                    Some(value(number, new + 1))
                });
                assert!(stored.unwrap().is_some());
                held[at].1 = Some(new + 1);
            }
            _ if step % 40 == 0 => {
                for pair in db.iter_unordered() {
                    let (found, bytes) = pair.unwrap();
                    version(u64::from_be_bytes(found[..].try_into().unwrap()), &bytes);
                }
            }
            _ => assert!(db.len().unwrap() <= KEYS),
        }
    }
    held
}

/// Opens a store, and lets all threads use it before it is filled.
fn rush(path: &Path, round: u64, before: &Pairs) -> (Bitcask, Pairs) {
    let db = open(path);
    let start = Barrier::new(usize::try_from(THREADS).unwrap());
    let mut after = Pairs::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|own| {
                let (db, start) = (&db, &start);
                scope.spawn(move || {
                    start.wait();
                    work(db, own, round, before)
                })
            })
            .collect();
        for thread in threads {
            for (number, found) in thread.join().unwrap() {
                after.extend(found.map(|found| (key(number).to_vec(), value(number, found))));
            }
        }
    });
    (db, after)
}

#[test]
fn threads_that_use_a_store_right_after_open_see_and_leave_the_right_state() {
    let mut dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in (0..KEYS).step_by(2) {
        db.put(key(number), value(number, 0)).unwrap();
    }
    let mut expected = pairs(&db);
    drop(db);
    for round in 1..8 {
        let (db, after) = rush(dir.path(), round, &expected);
        assert!(pairs(&db) == after, "round {round}");
        assert_eq!(db.len().unwrap(), after.len() as u64);
        let stats = db.stats();
        assert!(stats.segments > 20 && stats.live_size + stats.dead_size <= stats.log_size);
        expected = after;
        match round % 3 {
            0 => db.close().unwrap(),
            1 => {
                let copy = crash_copy(dir.path());
                drop(db);
                assert!(pairs(&open_read_only(copy.path())) == expected);
                dir = copy;
            }
            _ => {
                drop(db);
                remove_hints(dir.path());
            }
        }
    }
}

#[test]
fn clear_while_the_keydir_is_filled_leaves_an_empty_usable_store() {
    let source = tempfile::tempdir().unwrap();
    let db = open(source.path());
    for number in 0..KEYS {
        db.put(key(number), value(number, 0)).unwrap();
    }
    for round in 0..10 {
        let dir = crash_copy(source.path());
        let db = open(dir.path());
        thread::scope(|scope| {
            scope.spawn(|| db.clear().unwrap());
            for reader in 0..3 {
                let db = &db;
                scope.spawn(move || {
                    let mut gone = false;
                    for number in (0..KEYS).filter(|number| number % 3 == reader) {
                        let found = db.get(key(number)).unwrap();
                        assert!(!gone || found.is_none(), "round {round}: a cleared key came back");
                        gone |= found.is_none();
                    }
                });
            }
        });
        assert!(db.is_empty().unwrap());
        db.put("after", "1").unwrap();
        assert_eq!(pairs(&db).len(), 1);
        db.close().unwrap();
        let db = open(dir.path());
        assert!(db.recovery().is_clean(), "{:?}", db.recovery());
        assert_eq!(pairs(&db).len(), 1);
    }
}

/// Closing right after opening does not wait for the background.
#[test]
fn a_store_can_be_closed_at_any_moment_of_the_filling() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..KEYS {
        db.put(key(number), value(number, 0)).unwrap();
    }
    let expected = pairs(&db);
    drop(db);
    for touched in 0..10 {
        let db = open(dir.path());
        for number in 0..touched {
            assert_eq!(db.get(key(number)).unwrap().unwrap(), value(number, 0).as_slice());
        }
        db.close().unwrap();
    }
    assert!(pairs(&open(dir.path())) == expected);
}

/// More entries than one thread fills alone.
#[test]
fn several_threads_fill_a_large_store() {
    let dir = tempfile::tempdir().unwrap();
    let options = || crate::support::options().sync_policy(bitcask::SyncPolicy::Never);
    let db = Bitcask::open(dir.path(), options()).unwrap();
    let keys = 300_000;
    for number in 0..keys {
        db.put(key(number), b"").unwrap();
    }
    for number in (0..keys).step_by(10) {
        db.delete(key(number)).unwrap();
    }
    let stats = db.stats();
    db.close().unwrap();
    let check = |db: &Reader| {
        assert_eq!(db.get(key(11)).unwrap().unwrap(), b"");
        assert_eq!(db.get(key(10)).unwrap(), None);
        assert_eq!(db.len().unwrap(), keys - keys / 10);
        assert_eq!(db.stats().live_size, stats.live_size);
        assert!(
            (1..keys)
                .step_by(977)
                .all(|number| { db.contains_key(key(number)).unwrap() == (number % 10 > 0) })
        );
    };
    check(&Bitcask::open(dir.path(), options()).unwrap());
    check(&ReadOnly::open(dir.path(), options()).unwrap());
}
