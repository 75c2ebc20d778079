//! Counters of operations: each kind of call counts once, and threads lose nothing.

use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;

use crate::options::TransactionOptions;
use crate::store::tests::*;
use crate::testing::twin::{Call as DiskCall, Fault, FaultKind};
use crate::{Counters, MergeOptions};

const HOUR: Duration = Duration::from_secs(3600);

/// Hits, misses, puts, deletes, conflicts, and bytes read.
type Counted = [u64; 6];

/// A call, and what it counts.
type Call<T> = (fn(&T), Counted);

/// The closure of a transaction, and what the transaction counts.
type Run = (fn(&mut Transaction) -> Result<()>, Counted);

/// Returns what a call has counted.
#[track_caller]
fn counted<T>(db: &Reader, call: impl FnOnce() -> T) -> Counted {
    let (before, stats) = (db.counters(), db.stats());
    call();
    let (counters, now) = (db.counters().since(&before), db.stats());
    assert_eq!(counters.gets, counters.hits + counters.misses);
    assert_eq!(counters.puts + counters.deletes, now.appends - stats.appends);
    assert_eq!(counters.bytes_written, now.appended_size - stats.appended_size);
    assert_eq!(counters.syncs, now.syncs - stats.syncs);
    let Counters { hits, misses, puts, deletes, conflicts, bytes_read, .. } = counters;
    [hits, misses, puts, deletes, conflicts, bytes_read]
}

#[test]
fn each_get_of_a_store_counts_once() {
    for read_only in [false, true] {
        let lab = Lab::new();
        let writer = lab.open();
        writer.put("a", "12345").unwrap();
        writer.put("b", "123").unwrap();
        writer.put_opt("old", "1", WriteOptions::new().ttl(Duration::ZERO)).unwrap();
        writer.close().unwrap();
        let db = lab.try_open_in_role(read_only).unwrap();
        let calls: [Call<Reader>; 16] = [
            (|db| drop(db.get("a").unwrap()), [1, 0, 0, 0, 0, 5]),
            (|db| drop(db.get("x").unwrap()), [0, 1, 0, 0, 0, 0]),
            (|db| drop(db.get("old").unwrap()), [0, 1, 0, 0, 0, 0]),
            (|db| drop(db.get_with("a", <[u8]>::to_vec).unwrap()), [1, 0, 0, 0, 0, 5]),
            (|db| drop(db.get_with("x", <[u8]>::to_vec).unwrap()), [0, 1, 0, 0, 0, 0]),
            (|db| assert!(db.get_into("b", &mut Vec::new()).unwrap()), [1, 0, 0, 0, 0, 3]),
            (|db| drop(db.get_versioned("a").unwrap()), [1, 0, 0, 0, 0, 5]),
            (|db| drop(db.get_versioned("x").unwrap()), [0, 1, 0, 0, 0, 0]),
            (|db| assert!(db.contains_key("a").unwrap()), [1, 0, 0, 0, 0, 0]),
            (|db| assert!(!db.contains_key("x").unwrap()), [0, 1, 0, 0, 0, 0]),
            (|db| assert_eq!(db.value_len("a").unwrap(), Some(5)), [1, 0, 0, 0, 0, 0]),
            (|db| assert_eq!(db.ttl("x").unwrap(), None), [0, 1, 0, 0, 0, 0]),
            (|db| drop(db.get_many(&["a", "x", "b", "a"]).unwrap()), [3, 1, 0, 0, 0, 13]),
            (|db| db.get_many_with(&["x", "b"], |_, _| {}).unwrap(), [1, 1, 0, 0, 0, 3]),
            (|db| assert_eq!(db.iter().count() + db.iter_unordered().count(), 4), [0; 6]),
            (|db| drop((db.len().unwrap(), db.stats(), db.counters())), [0; 6]),
        ];
        for (at, (call, expected)) in calls.into_iter().enumerate() {
            assert_eq!(counted(&db, || call(&db)), expected, "call {at}");
        }
    }
}

#[test]
fn each_get_of_a_snapshot_or_a_transaction_counts_once() {
    let db = Lab::new().open();
    db.put("a", "12345").unwrap();
    let snapshot = db.snapshot();
    db.put("a", "changed").unwrap();
    let calls: [Call<Snapshot>; 12] = [
        (|then| drop(then.get("a").unwrap()), [1, 0, 0, 0, 0, 5]),
        (|then| drop(then.get("x").unwrap()), [0, 1, 0, 0, 0, 0]),
        (|then| drop(then.get_with("a", <[u8]>::to_vec).unwrap()), [1, 0, 0, 0, 0, 5]),
        (|then| drop(then.get_with("x", <[u8]>::to_vec).unwrap()), [0, 1, 0, 0, 0, 0]),
        (|then| drop(then.get_many(&["a", "x"]).unwrap()), [1, 1, 0, 0, 0, 5]),
        (|then| assert_eq!(then.value_len("a").unwrap(), Some(5)), [1, 0, 0, 0, 0, 0]),
        (|then| assert!(then.contains_key("a").unwrap()), [1, 0, 0, 0, 0, 0]),
        (|then| assert!(then.get_into("a", &mut Vec::new()).unwrap()), [1, 0, 0, 0, 0, 5]),
        (|then| drop(then.get_versioned("a").unwrap()), [1, 0, 0, 0, 0, 5]),
        (|then| assert_eq!(then.ttl("x").unwrap(), None), [0, 1, 0, 0, 0, 0]),
        (|then| then.get_many_with(&["a", "x"], |_, _| {}).unwrap(), [1, 1, 0, 0, 0, 5]),
        (|then| assert_eq!(then.iter().count(), 1), [0; 6]),
    ];
    for (at, (call, expected)) in calls.into_iter().enumerate() {
        assert_eq!(counted(&db, || call(&snapshot)), expected, "call {at}");
    }
    let calls: [Run; 8] = [
        (|tx| tx.get("a").map(drop), [1, 0, 0, 0, 0, 7]),
        (|tx| tx.get("x").map(drop), [0, 1, 0, 0, 0, 0]),
        (|tx| tx.contains_key("a").map(drop), [1, 0, 0, 0, 0, 0]),
        (|tx| tx.ttl("a").map(drop), [1, 0, 0, 0, 0, 0]),
        (|tx| tx.version("x").map(drop), [0, 1, 0, 0, 0, 0]),
        (|tx| tx.range("a"..).try_for_each(|pair| pair.map(drop)), [0; 6]),
        // What the transaction itself has written is not in the store.
        (
            |tx| {
                tx.put("own", "1");
                tx.get("own").map(drop)
            },
            [0, 0, 1, 0, 0, 0],
        ),
        (
            |tx| {
                tx.delete("own");
                tx.contains_key("own").map(drop)
            },
            [0, 0, 0, 1, 0, 0],
        ),
    ];
    for (at, (mut call, expected)) in calls.into_iter().enumerate() {
        let found = counted(&db, || db.transaction(&mut call).unwrap());
        assert_eq!(found, expected, "transaction {at}");
    }
}

#[test]
fn each_key_that_is_appended_counts_once() {
    let db = Lab::new().open();
    let calls: [Call<Bitcask>; 16] = [
        (|db| db.put("a", "1").unwrap(), [0, 0, 1, 0, 0, 0]),
        (|db| db.put("a", "1").unwrap(), [0, 0, 1, 0, 0, 0]),
        (|db| assert!(db.delete("a").unwrap()), [0, 0, 0, 1, 0, 0]),
        (|db| assert!(!db.delete("a").unwrap()), [0; 6]),
        (
            |db| {
                let mut batch = Batch::new();
                batch.put("a", "1").put("b", "1").delete("a").put("c", "1").delete("x");
                db.write(batch.put("d", "1")).unwrap();
            },
            // Only the last change of a key is applied, and deletes of absent keys are left out.
            [0, 0, 3, 0, 0, 0],
        ),
        (|db| db.write(Batch::new().delete("b").put("a", "1")).unwrap(), [0, 0, 1, 1, 0, 0]),
        (|db| assert!(db.expire("a", HOUR).unwrap()), [0, 0, 1, 0, 0, 0]),
        (|db| assert!(db.persist("a").unwrap()), [0, 0, 1, 0, 0, 0]),
        (|db| assert!(db.persist("a").unwrap()), [0; 6]),
        (|db| assert!(!db.expire("x", HOUR).unwrap()), [0; 6]),
        (|db| drop(db.update("a", |_| Some("2")).unwrap()), [0, 0, 1, 0, 0, 0]),
        (|db| assert!(db.put_if_absent("b", "1").unwrap()), [0, 0, 1, 0, 0, 0]),
        (|db| drop(db.compare_and_swap("b", Some(b"1"), None).unwrap()), [0, 0, 0, 1, 0, 0]),
        (|db| assert_eq!(db.delete_range("a".."d").unwrap(), 2), [0, 0, 0, 2, 0, 0]),
        (|db| assert_eq!(db.retain(|_, _| false).unwrap(), 1), [0, 0, 0, 1, 0, 0]),
        (|db| db.clear().unwrap(), [0; 6]),
    ];
    for (at, (call, expected)) in calls.into_iter().enumerate() {
        assert_eq!(counted(&db, || call(&db)), expected, "call {at}");
    }
}

#[test]
fn each_refused_change_is_a_conflict() {
    let db = Lab::new().open();
    db.put("a", "1").unwrap();
    let version = db.get_versioned("a").unwrap().unwrap().1;
    db.put("a", "2").unwrap();
    let refused: Counted = [0, 0, 0, 0, 1, 0];
    let swap = |expected: Option<&[u8]>| db.compare_and_swap("a", expected, Some(b"3")).unwrap();
    assert_eq!(counted(&db, || swap(Some(b"1")).unwrap_err()), refused);
    assert_eq!(counted(&db, || swap(None).unwrap_err()), refused);
    assert_eq!(counted(&db, || swap(Some(b"2")).unwrap()), [0, 0, 1, 0, 0, 0]);
    let swap = || db.compare_and_swap_versioned("a", Some(version), None).unwrap();
    assert_eq!(counted(&db, || swap().unwrap_err()), refused);
    assert_eq!(counted(&db, || assert!(!db.put_if_absent("a", "1").unwrap())), refused);
    // The closure changes its own key on the first two of three runs.
    let mut runs = 0;
    let mut update = || {
        db.update("a", |old| {
            runs += 1;
            if runs < 3 {
                db.put("a", "meanwhile").unwrap();
            }
            old.map(<[u8]>::to_vec)
        })
    };
    assert_eq!(counted(&db, || update().unwrap()), [0, 0, 3, 0, 2, 0]);
}

#[test]
fn each_refused_attempt_of_a_transaction_is_a_conflict() {
    let db = Lab::new().open();
    db.put("a", "1").unwrap();
    // Reads a key or a range that others change during the first two of three attempts.
    for reads_range in [false, true] {
        let mut runs = 0;
        let run = |tx: &mut Transaction| {
            runs += 1;
            let found = if reads_range { tx.range(..).count() } else { 0 };
            let _ = (found, reads_range || tx.contains_key("a")?);
            if runs < 3 {
                db.put("a", "meanwhile")?;
            }
            tx.put("b", "1");
            Ok(())
        };
        let gets = if reads_range { 0 } else { 3 };
        assert_eq!(counted(&db, || db.transaction(run).unwrap()), [gets, 0, 3, 0, 2, 0]);
    }
    let never = |tx: &mut Transaction| {
        tx.contains_key("a")?;
        db.put("a", "meanwhile")?;
        tx.put("b", "1");
        Ok(())
    };
    let once = TransactionOptions::new().attempts(1);
    let refused = || db.transaction_opt(once, never).unwrap_err();
    assert_eq!(counted(&db, refused), [1, 0, 1, 0, 1, 0]);
    // A closure that gives up is no conflict, nor is a merge.
    let given_up = |_: &mut Transaction| Err::<(), _>(Error::ReadOnly);
    assert_eq!(counted(&db, || db.transaction(given_up).unwrap_err()), [0; 6]);
}

#[test]
fn what_fails_counts_as_nothing() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", vec![7; 100]).unwrap();
    let long = vec![0; 1 << 16];
    assert_eq!(counted(&db, || db.put(&long, "").unwrap_err()), [0; 6]);
    db.close().unwrap();
    let logs = lab.logs();
    let path = &logs.first().unwrap().1;
    let mut bytes = lab.twin.contents(path).unwrap();
    bytes[usize::try_from(FIRST_OFFSET).unwrap() + 60] ^= 1;
    lab.twin.put_file(path, bytes);
    let db = lab.open();
    assert_eq!(counted(&db, || db.get("a").unwrap_err()), [0; 6]);
    assert_eq!(counted(&db, || db.get_many(&["a"]).unwrap_err()), [0; 6]);
}

/// What an append has written when it fails halfway is part of no total.
#[test]
fn an_append_that_fails_counts_as_nothing() {
    let lab = Lab::new().with(Options::new().append_mode(AppendMode::Positioned));
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.put("b", "1").unwrap();
    lab.twin.fail(Fault::new(FaultKind::Eio).only(DiskCall::Write));
    assert_eq!(counted(&db, || db.delete("a").unwrap_err().is_poisoned()), [0; 6]);
    let counters = db.counters();
    assert_eq!((counters.puts, counters.deletes), (2, 0));
}

#[test]
fn one_get_and_one_write_in_128_are_timed_and_every_sync_and_merge() {
    let db = Lab::new().open();
    assert_eq!(db.counters(), Counters::default());
    for number in 0..1000_u32 {
        db.put((number % 100).to_be_bytes(), "value").unwrap();
        db.get((number % 300).to_be_bytes()).unwrap();
    }
    let counters = db.counters();
    assert_eq!((counters.puts, counters.gets), (1000, 1000));
    // Those with the numbers 128, 256, ..., 896.
    assert_eq!((counters.write_latency.count(), counters.get_latency.count()), (7, 7));
    assert!(counters.get_latency.max() > Duration::ZERO);
    for number in 1..=3 {
        db.put("key", "value").unwrap();
        db.sync().unwrap();
        db.sync().unwrap();
        let counters = db.counters();
        assert_eq!((counters.syncs, counters.sync_latency.count()), (number, number));
    }
    assert_eq!(db.counters().merges, 0);
    let report = db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let merges = db.counters().merge_latency;
    assert_eq!((db.counters().merges, merges.count()), (1, 1));
    assert_eq!(merges.max(), report.duration);
    // There is nothing left to merge.
    db.clear().unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(db.counters().merges, 1);
}

/// Runs more threads at a time than the store has counters for, and then others after them.
#[test]
fn threads_lose_no_count_and_no_total_ever_decreases() {
    const THREADS: usize = 40;
    const ROUNDS: u64 = 300;
    let db = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never)).open();
    db.put("a", "12345").unwrap();
    let (begun, done) = (Barrier::new(THREADS), AtomicBool::new(false));
    let work = |barrier: Option<&Barrier>| {
        db.get("a").unwrap();
        barrier.map(Barrier::wait);
        for _ in 0..ROUNDS {
            db.get("a").unwrap();
            db.contains_key("x").unwrap();
            db.put("b", "1").unwrap();
            assert!(!db.put_if_absent("a", "1").unwrap());
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = db.counters();
            while !done.load(Ordering::Relaxed) {
                let now = db.counters();
                let since = now.since(&last);
                // A difference that was cut off at zero would not add up.
                assert_eq!(last.hits + since.hits, now.hits);
                assert_eq!(last.misses + since.misses, now.misses);
                assert_eq!(last.bytes_read + since.bytes_read, now.bytes_read);
                assert_eq!(last.puts + since.puts, now.puts);
                assert_eq!(last.conflicts + since.conflicts, now.conflicts);
                assert_eq!(now.gets, now.hits + now.misses);
                let timed = [&last, &since, &now].map(|it| it.get_latency.count());
                assert_eq!(timed[0] + timed[1], timed[2]);
                last = now;
            }
        });
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(Some(&begun)))).collect();
        for worker in workers {
            worker.join().unwrap();
        }
        for _ in 0..THREADS {
            scope.spawn(|| work(None)).join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let threads = 2 * THREADS as u64;
    let counters = db.counters();
    assert_eq!(counters.hits, threads * (ROUNDS + 1));
    assert_eq!(counters.bytes_read, 5 * counters.hits);
    assert_eq!((counters.misses, counters.conflicts), (threads * ROUNDS, threads * ROUNDS));
    assert_eq!((counters.puts, counters.deletes), (threads * ROUNDS + 1, 0));
}
