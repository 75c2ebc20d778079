//! Snapshots and ordered reads concurrent with busy writers, on a real disk.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{AutoMerge, Batch, Bitcask, MergePolicy, Options, Range, ReadOnly, Snapshot, Value};

use crate::support::{Random, files_of, small};

/// Small segments, merged all the time.
fn busy() -> Options {
    let auto = AutoMerge::new().check_interval(Duration::from_millis(1)).dead_percent(10);
    small().segment_size(16 << 10).merge_policy(MergePolicy::Auto(auto))
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn owned(pairs: Range) -> Vec<(Vec<u8>, Vec<u8>)> {
    let owned = |(key, value): (Value, Value)| (Vec::from(key), Vec::from(value));
    pairs.map(|pair| owned(pair.unwrap())).collect()
}

/// Every batch writes one number to all keys, or removes all. Every view always shows all keys with
/// one number or none at all, and keeps showing the same.
#[test]
fn a_snapshot_shows_a_batch_as_a_whole_or_not_at_all() {
    const KEYS: u64 = 12;
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    let is_over = AtomicBool::new(false);
    let seen = |snapshot: &Snapshot| {
        let by_key: Vec<_> =
            (0..KEYS).filter_map(|at| snapshot.get(key(at)).unwrap()).map(Vec::from).collect();
        assert!(by_key.is_empty() || by_key.len() as u64 == KEYS, "{} keys", by_key.len());
        assert!(
            by_key.windows(2).all(|pair| pair.first() == pair.last()),
            "a snapshot mixes two batches"
        );
        let in_order: Vec<_> =
            owned(snapshot.range(..)).into_iter().map(|(_, value)| value).collect();
        assert_eq!(by_key, in_order);
        by_key
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || {
                    let mut random = Random(writer + 1);
                    for number in 0..600_u64 {
                        let mut batch = Batch::new();
                        let removes = random.below(8) == 0;
                        let size = usize::try_from(16 + random.below(100)).unwrap();
                        let mut value = [writer, number].map(u64::to_be_bytes).concat();
                        value.resize(size, 7);
                        for at in 0..KEYS {
                            if removes {
                                batch.delete(key(at));
                            } else {
                                batch.put(key(at), &value);
                            }
                        }
                        db.write(&batch).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut held: Vec<(Snapshot, Vec<Vec<u8>>)> = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot();
                    let values = seen(&snapshot);
                    held.push((snapshot, values));
                    if held.len() == 8 {
                        let (oldest, values) = held.remove(0);
                        assert_eq!(seen(&oldest), values);
                    }
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let stats = db.stats();
    assert_eq!((stats.snapshots, stats.pinned_segments), (0, 0));
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    assert_eq!(db.recovery().leftovers, Vec::<std::path::PathBuf>::new());
    let len = |extension| files_of(dir.path(), extension).len();
    assert!(len("index") <= len("log"));
}

/// Values, snapshots and iterators stay usable after their store is closed, reopened and merged.
#[test]
fn held_values_and_views_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    let fill = |db: &Bitcask, value: &str| {
        (0..2000).for_each(|number| db.put(key(number), value.repeat(10)).unwrap());
    };
    fill(&db, "old");
    let snapshot = db.snapshot();
    let mut pairs = db.range(..);
    assert_eq!(pairs.next().unwrap().unwrap().0, key(0));
    db.close().unwrap();
    for round in ["newer", "newest"] {
        let db = Bitcask::open(dir.path(), busy()).unwrap();
        fill(&db, round);
        db.merge_opt(bitcask::MergeOptions::new().force(true)).unwrap();
        db.close().unwrap();
    }
    let old = "old".repeat(10);
    assert_eq!(pairs.filter(|pair| pair.as_ref().unwrap().1 == *old).count(), 1999);
    assert_eq!(snapshot.get(key(7)).unwrap().unwrap(), *old);
    assert_eq!(snapshot.len().unwrap(), 2000);
    let db = Bitcask::open(dir.path(), small()).unwrap();
    drop(snapshot);
    assert_eq!(db.get(key(7)).unwrap().unwrap(), "newest".repeat(10).as_str());
    assert!(db.verify().unwrap().is_clean());
}

/// With the index damaged at every seventh byte, or removed, ordered iteration is unchanged. A
/// writer then rebuilds a removed index byte for byte.
#[test]
fn ordered_reads_survive_damaged_and_missing_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let options = || small().segment_size(1 << 20);
    let db = Bitcask::open(dir.path(), options()).unwrap();
    (0..40).for_each(|number| db.put(key(number), "x").unwrap());
    db.close().unwrap();
    let await_index = |db: &Bitcask| {
        let before = owned(db.range(..));
        while files_of(dir.path(), "index").is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        before
    };
    let db = Bitcask::open(dir.path(), options()).unwrap();
    let all = await_index(&db);
    assert_eq!(all.len(), 40);
    db.close().unwrap();
    let path = files_of(dir.path(), "index").remove(0);
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        *bad.get_mut(at).unwrap() ^= 0x40;
        std::fs::write(&path, &bad).unwrap();
        let db = ReadOnly::open(dir.path(), options()).unwrap();
        assert_eq!(owned(db.range(..)), all, "byte {at}");
        assert_eq!(owned(db.range(key(5)..key(9)).after(key(6))).len(), 2);
    }
    std::fs::remove_file(&path).unwrap();
    let db = Bitcask::open(dir.path(), options()).unwrap();
    assert_eq!(await_index(&db), all);
    db.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

/// Values and views can be sent to other threads and shared between them.
#[test]
fn views_can_be_sent_and_shared_between_threads() {
    fn is_sendable<T: Send + 'static>() {}
    fn is_shared<T: Sync>() {}
    is_sendable::<Snapshot>();
    is_shared::<Snapshot>();
    is_sendable::<Range>();
    is_sendable::<bitcask::RangeKeys>();
    is_sendable::<bitcask::Changes>();
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    db.put("a", "1").unwrap();
    let (snapshot, mut pairs) = (db.snapshot(), db.range(..));
    let seen = thread::spawn(move || {
        (snapshot.get("a").unwrap().unwrap(), pairs.next().unwrap().unwrap().1)
    });
    let (by_key, in_order) = seen.join().unwrap();
    assert!(by_key == "1" && in_order == "1");
}
