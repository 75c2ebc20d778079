//! Scans by cursor, concurrent with everything that moves slots and entries.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::options::MergeOptions;
use crate::store::tests::story::Random;
use crate::store::tests::*;

fn lab(weak: bool) -> Lab {
    let options = Options::new().segment_size(16 << 10).sync_policy(SyncPolicy::Never);
    if weak { Lab::weak() } else { Lab::new() }.with(options).seeded(1)
}

/// Scans to the end. Returns the keys in order, and the number of calls.
fn scan(db: &Reader, count: usize) -> (Vec<Vec<u8>>, usize) {
    let (mut found, mut next, mut calls) = (Vec::new(), Some(0), 0);
    while let Some(cursor) = next {
        let (keys, after) = db.scan_from(cursor, count).unwrap();
        assert!(after.is_none_or(|after| after > cursor), "{cursor} {after:?}");
        found.extend(keys.iter().map(|key| key.to_vec()));
        next = after;
        calls += 1;
    }
    found.sort();
    (found, calls)
}

#[test]
fn a_scan_returns_every_key_once_whatever_the_count_per_call() {
    for weak in [false, true] {
        let lab = lab(weak);
        let db = lab.open();
        assert_eq!(scan(&db, 1), (Vec::new(), 1));
        let mut all: Vec<Vec<u8>> = (0..300).map(|key| format!("{key}").into_bytes()).collect();
        all.sort();
        for key in &all {
            db.put(key, "value").unwrap();
        }
        for count in [0, 1, 7, 299, 300, usize::MAX] {
            let (found, calls) = scan(&db, count);
            assert_eq!(found, all, "{count}");
            // At most one call more than there are stretches, of which the last may be empty.
            let stretches = if weak { 4 } else { 300_usize.div_ceil(count.max(1)) };
            assert!(calls <= stretches + 1, "{count}: {calls}");
        }
        let db = lab.reopen(db);
        assert_eq!(scan(&db, 10).0, all);
        db.close().unwrap();
        assert_eq!(scan(&lab.open_read_only(), 10).0, all);
    }
}

#[test]
fn any_number_is_a_cursor() {
    let db = lab(false).open();
    db.put("key", "value").unwrap();
    let position = db.inner.keydir.hash(b"key").fingerprint;
    let keys = |cursor| db.scan_from(cursor, 10).unwrap().0.len();
    assert_eq!((keys(0), keys(position - 1), keys(position)), (1, 1, 1));
    assert_eq!((keys(position + 1), keys(u64::MAX)), (0, 0));
    assert_eq!(db.scan_from(u64::MAX, 1).unwrap().1, None);
}

#[test]
fn an_expired_key_counts_and_is_not_returned() {
    let lab = lab(false);
    let db = lab.open();
    for key in 0..10_u8 {
        db.put_opt([key], "value", WriteOptions::new().ttl(Duration::from_secs(10))).unwrap();
    }
    db.put("stays", "value").unwrap();
    lab.hands.advance(Duration::from_secs(20));
    let (found, calls) = scan(&db, 1);
    assert_eq!(found, [b"stays"]);
    assert!(calls >= 11, "{calls}");
}

/// Tables grow and shrink, merges move entries, and the store is reopened between calls.
#[test]
fn a_key_that_exists_throughout_is_returned_whatever_happens_between_calls() {
    for (seed, weak) in [(1, false), (2, true), (3, false), (4, true)] {
        let lab = lab(weak);
        let (mut db, mut random) = (lab.open(), Random(seed));
        let there: BTreeSet<Vec<u8>> =
            (0..60).map(|key| format!("there {key}").into_bytes()).collect();
        for key in &there {
            db.put(key, "0").unwrap();
        }
        for round in 0..3 {
            let (mut seen, mut next) = (BTreeSet::new(), Some(0));
            while let Some(cursor) = next {
                let count = 1 + usize::try_from(random.below(6)).unwrap();
                let (keys, after) = db.scan_from(cursor, count).unwrap();
                for key in keys {
                    assert!(seen.insert(key.to_vec()), "{key:?} twice");
                }
                next = after;
                for _ in 0..random.below(200) {
                    db.put(format!("other {}", random.below(1000)), "x").unwrap();
                }
                if random.below(3) == 0 {
                    db.delete_prefix("other").unwrap();
                }
                for key in there.iter().filter(|_| random.below(4) == 0) {
                    db.put(key, format!("{round}")).unwrap();
                }
                match random.below(4) {
                    0 => drop(db.merge_opt(MergeOptions::new().force(true)).unwrap()),
                    1 => db = lab.reopen(db),
                    _ => drop(db.inner.work()),
                }
            }
            assert!(seen.is_superset(&there), "{seed} {round}: {:?}", there.difference(&seen));
        }
        kill(db);
    }
}

#[test]
fn a_scan_during_writes_and_merges_misses_nothing() {
    for weak in [false, true] {
        let lab = lab(weak);
        let db = lab.open();
        let there: BTreeSet<Vec<u8>> =
            (0..50).map(|key| format!("there {key}").into_bytes()).collect();
        for key in &there {
            db.put(key, "0").unwrap();
        }
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(7);
                while !is_over.load(Ordering::Relaxed) {
                    let key = format!("other {}", random.below(300));
                    if random.below(2) == 0 {
                        db.put(key, "x").unwrap();
                    } else {
                        db.delete(key).unwrap();
                    }
                    let key = format!("there {}", random.below(50));
                    db.put(key, "again").unwrap();
                }
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    db.merge_opt(MergeOptions::new().force(true)).unwrap();
                    db.inner.work();
                }
            });
            for round in 0..30 {
                let (found, _) = scan(&db, 1 + round % 9);
                let seen: BTreeSet<Vec<u8>> = found.iter().cloned().collect();
                if seen.len() != found.len() || !seen.is_superset(&there) {
                    is_over.store(true, Ordering::Relaxed);
                    panic!("{round}: {found:?}");
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
