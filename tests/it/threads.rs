//! Several threads on a few keys, whose values are self-checking.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index in a helper fails the test")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{Batch, Bitcask, SyncPolicy, WriteOptions};

use crate::support::{Random, crash_copy, open, pairs, small};

const THREADS: u64 = 8;

/// A value that names its key, and whose every byte shows whether it is complete.
pub(crate) fn value(key: u64, writer: u64, sequence: u64) -> Vec<u8> {
    let mut value = [key, writer, sequence].map(u64::to_be_bytes).concat();
    let mut filler = Random(key ^ writer << 20 ^ sequence << 30);
    value.extend((0..sequence * 37 % 300).map(|_| filler.below(256).to_be_bytes()[7]));
    value
}

/// Checks every byte of a value, and returns its writer and its sequence number.
pub(crate) fn checked(key: u64, bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_be_bytes(bytes[at * 8..][..8].try_into().unwrap());
    let (writer, sequence) = (word(1), word(2));
    assert!(bytes == value(key, writer, sequence), "key {key} has another key's value");
    (writer, sequence)
}

pub(crate) fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

pub(crate) fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key.try_into().unwrap())
}

/// Random operations of every kind on sixteen keys.
fn mixed_work(db: &Bitcask, writer: u64, steps: u64) {
    const KEYS: u64 = 16;
    let mut random = Random(writer);
    let mut buffer = Vec::new();
    for sequence in 1..=steps {
        let at = random.below(KEYS);
        let new = value(at, writer, sequence);
        match random.below(20) {
            0..6 => db.put(key(at), new).unwrap(),
            6..8 => drop(db.delete(key(at)).unwrap()),
            8..10 => {
                let old = db.get(key(at)).unwrap();
                if let Some(old) = old {
                    checked(at, &old);
                }
            }
            10 => drop(db.get_with(key(at), |old| checked(at, old)).unwrap()),
            11 => {
                if db.get_into(key(at), &mut buffer).unwrap() {
                    checked(at, &buffer);
                }
            }
            12..14 => {
                let stored = db.update(key(at), |old| {
                    if let Some(old) = old {
                        checked(at, old);
                    }
                    (sequence % 4 > 0).then_some(&new)
                });
                assert_eq!(stored.unwrap().is_some(), sequence % 4 > 0);
            }
            14 => {
                let old = db.get(key(at)).unwrap();
                let _ = db.compare_and_swap(key(at), old.as_deref(), Some(&new)).unwrap();
            }
            15 => drop(db.put_if_absent(key(at), new).unwrap()),
            16 => db.put_opt(key(at), new, WriteOptions::new().durable(true)).unwrap(),
            17 => {
                let others = (0..5).map(|step| (at + step * 3) % KEYS);
                let mut batch = Batch::new();
                for other in others {
                    match other % 5 {
                        0 => batch.delete(key(other)),
                        _ => batch.put(key(other), value(other, writer, sequence)),
                    };
                }
                db.write(&batch).unwrap();
            }
            18 => {
                for pair in db.iter_unordered() {
                    let (found, bytes) = pair.unwrap();
                    checked(number(&found), &bytes);
                }
            }
            _ => assert!(db.len().unwrap() <= KEYS),
        }
    }
}

#[test]
fn eight_threads_on_sixteen_keys_read_only_values_of_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let db = &db;
            scope.spawn(move || mixed_work(db, writer, 500));
        }
    });
    let before = pairs(&db);
    assert!(db.stats().segments > 20, "{:?}", db.stats());
    assert_eq!(db.len().unwrap(), before.len() as u64);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        let db = open(path);
        let after = pairs(&db);
        assert!(before == after, "a reopen must recover the final state");
        assert!(db.recovery().cuts.is_empty());
        for (found, bytes) in after {
            checked(number(&found), &bytes);
        }
    }
}

#[test]
fn no_increment_of_a_counter_is_lost() {
    const EACH: u64 = 250;
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let increment = |old: Option<&[u8]>| Some((old.map_or(0, number) + 1).to_be_bytes());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for step in 0..EACH {
                    let counter = key((thread + step) % 3);
                    let mut seen = 0;
                    let stored = db.update(counter, |old| {
                        seen = old.map_or(0, number);
                        increment(old)
                    });
                    assert_eq!(number(&stored.unwrap().unwrap()), seen + 1);
                }
            });
        }
    });
    let sum = |db: &Bitcask| -> u64 { pairs(db).values().map(|bytes| number(bytes)).sum() };
    assert_eq!(sum(&db), THREADS * EACH);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    assert_eq!(sum(&open(dir.path())), THREADS * EACH);
    assert_eq!(sum(&open(copy.path())), THREADS * EACH);
}

#[test]
fn every_value_is_swapped_in_by_exactly_one_thread() {
    const ROUNDS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let (swapped, inserted) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    if db.put_if_absent(key(1000 + round), "mine").unwrap() {
                        inserted.fetch_add(1, Ordering::Relaxed);
                    }
                    let old = (round > 0).then(|| key(round - 1));
                    let old = old.as_ref().map(<[u8; 8]>::as_slice);
                    if db.compare_and_swap("chain", old, Some(&key(round))).unwrap().is_ok() {
                        swapped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(inserted.into_inner(), ROUNDS);
    assert_eq!(swapped.into_inner(), ROUNDS);
    assert_eq!(number(&db.get("chain").unwrap().unwrap()), ROUNDS - 1);
}

#[test]
fn successive_reads_of_a_key_never_get_older() {
    const KEYS: u64 = 4;
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..KEYS)
            .map(|at| {
                let db = &db;
                scope.spawn(move || {
                    for sequence in 1..=400 {
                        let new = value(at, at, sequence);
                        match sequence % 5 {
                            0 => db.write(Batch::new().put(key(at), &new).delete("x")).unwrap(),
                            1 => drop(db.update(key(at), |_| Some(&new)).unwrap()),
                            _ => db.put(key(at), &new).unwrap(),
                        }
                        let own = db.get(key(at)).unwrap().unwrap();
                        assert_eq!(
                            checked(at, &own),
                            (at, sequence),
                            "a write must be visible immediately"
                        );
                    }
                })
            })
            .collect();
        for reader in 0..4 {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                let mut seen = [0; 4];
                let mut see = |at: u64, bytes: &[u8]| {
                    let (_, sequence) = checked(at, bytes);
                    let seen = &mut seen[usize::try_from(at).unwrap()];
                    assert!(sequence >= *seen, "key {at}: {sequence} after {seen}");
                    *seen = sequence;
                };
                let mut random = Random(reader);
                while !done.load(Ordering::Acquire) {
                    let at = random.below(KEYS);
                    match random.below(4) {
                        0 => db.get(key(at)).unwrap().iter().for_each(|bytes| see(at, bytes)),
                        1 => drop(db.get_with(key(at), |bytes| see(at, bytes)).unwrap()),
                        2 => {
                            let mut buffer = Vec::new();
                            if db.get_into(key(at), &mut buffer).unwrap() {
                                see(at, &buffer);
                            }
                        }
                        _ => pairs(db).iter().for_each(|(found, bytes)| see(number(found), bytes)),
                    }
                }
            });
        }
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        for result in results {
            result.unwrap();
        }
    });
}

#[test]
fn writes_become_visible_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let read = |name: &str| db.get(name).unwrap().map_or(0, |bytes| number(&bytes));
                while !done.load(Ordering::Acquire) {
                    let second = read("second");
                    let first = read("first");
                    assert!(first >= second, "{second} was written after {first}");
                }
            });
        }
        let writer = scope.spawn(|| {
            for sequence in 1..=1500 {
                db.put("first", key(sequence)).unwrap();
                db.put("second", key(sequence)).unwrap();
            }
        });
        let result = writer.join();
        done.store(true, Ordering::Release);
        result.unwrap();
    });
}

#[test]
fn all_writers_that_wait_for_the_disk_finish() {
    const EACH: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let options = crate::support::options().segment_size(8192).sync_policy(SyncPolicy::Always);
    let db = Bitcask::open(dir.path(), options).unwrap();
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for sequence in 0..EACH {
                    let at = writer * EACH + sequence;
                    if sequence % 8 == 0 {
                        let mut batch = Batch::new();
                        batch.put("shared", key(at)).put(key(at), value(at, writer, sequence));
                        db.write(&batch).unwrap();
                    } else {
                        db.put(key(at), value(at, writer, sequence)).unwrap();
                    }
                }
            });
        }
    });
    let stats = db.stats();
    assert!(stats.syncs >= EACH && stats.syncs <= THREADS * EACH, "{stats:?}");
    // Every waiting writer was served, so nothing is left to sync.
    db.sync().unwrap();
    assert_eq!(db.stats().syncs, stats.syncs);
    let copy = crash_copy(dir.path());
    let copied = open(copy.path());
    assert_eq!(copied.len().unwrap(), THREADS * EACH + 1);
    for at in 0..THREADS * EACH {
        checked(at, &copied.get(key(at)).unwrap().unwrap());
    }
}

#[test]
fn a_store_can_be_cleared_and_synced_during_writes_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let db = &db;
            scope.spawn(move || mixed_work(db, writer, 300));
        }
        scope.spawn(|| (0..20).for_each(|_| db.sync().unwrap()));
        scope.spawn(|| {
            for _ in 0..20 {
                let held: Vec<_> = db.iter_unordered().map(Result::unwrap).collect();
                db.clear().unwrap();
                for (found, bytes) in held {
                    checked(number(&found), &bytes);
                }
            }
        });
    });
    let before = pairs(&db);
    let stats = db.stats();
    assert_eq!(stats.log_size, 64 * stats.segments + stats.live_size + stats.dead_size);
    db.close().unwrap();
    assert!(before == pairs(&open(dir.path())));
}

/// Returns the number of mappings that this process has of files in a directory.
#[cfg(target_os = "linux")]
fn mappings(dir: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
}

/// A removed file takes disk space for as long as it is mapped.
#[cfg(target_os = "linux")]
#[test]
fn clear_frees_disk_space_without_further_use_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let fill = || (0..600).for_each(|at| db.put(key(at), [7; 100]).unwrap());
    fill();
    assert!(db.stats().segments > 10 && mappings(dir.path()) > 10);
    db.clear().unwrap();
    // Other tests' reads briefly delay the release. The store's thread then tries again.
    let until = |most: usize| {
        for _ in 0..1000 {
            if mappings(dir.path()) <= most {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{} mappings", mappings(dir.path()));
    };
    until(3);
    fill();
    db.clear().unwrap();
    db.close().unwrap();
    until(0);
}
