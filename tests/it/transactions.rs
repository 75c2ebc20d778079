//! Transactions in many threads behave as if each ran alone.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bitcask::{AutoMerge, Bitcask, MergePolicy, Options, TransactionOptions};

use crate::support::{Random, small};

fn number(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().unwrap())
}

fn patient() -> TransactionOptions {
    TransactionOptions::new().attempts(u32::MAX)
}

/// Small segments, merged all the time.
fn busy() -> Options {
    let auto = AutoMerge::new().check_interval(Duration::from_millis(1)).dead_percent(10);
    small().segment_size(16 << 10).merge_policy(MergePolicy::Auto(auto))
}

fn account(number: u64) -> String {
    format!("account/{number}")
}

fn sum(db: &Bitcask) -> i64 {
    db.snapshot().prefix("account/").map(|pair| number(&pair.unwrap().1)).sum()
}

/// Eight threads transfer money between ten accounts. Every snapshot meanwhile, every range that a
/// transaction reads, and the end must show the initial total.
#[test]
fn transfers_keep_the_sum() {
    const ACCOUNTS: u64 = 10;
    const TRANSFERS: u64 = 250;
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    for at in 0..ACCOUNTS {
        db.put(account(at), 100_i64.to_be_bytes()).unwrap();
    }
    let all = i64::try_from(ACCOUNTS * 100).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let transfers: Vec<_> = (0..8_u64)
            .map(|seed| {
                let db = &db;
                scope.spawn(move || {
                    let mut random = Random(seed + 1);
                    for _ in 0..TRANSFERS {
                        let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
                        let amount = i64::try_from(random.below(50)).unwrap();
                        db.transaction_opt(patient(), |tx| {
                            let source = number(&tx.get(account(from))?.unwrap());
                            tx.put(account(from), (source - amount).to_be_bytes());
                            let target = number(&tx.get(account(to))?.unwrap());
                            tx.put(account(to), (target + amount).to_be_bytes());
                            Ok(())
                        })
                        .unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(sum(&db), all);
                let seen: bitcask::Result<i64> = db.transaction_opt(patient(), |tx| {
                    tx.prefix("account/").map(|pair| Ok(number(&pair?.1))).sum()
                });
                assert_eq!(seen.unwrap(), all);
            }
        });
        for transfer in transfers {
            transfer.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(sum(&db), all);
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    assert_eq!(sum(&db), all);
}

/// Two doctors are on call, and each may leave if the other stays. Each transaction reads both and
/// changes one. Either is right alone, but not both.
#[test]
fn write_skew_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small()).unwrap();
    for by_range in [false, true] {
        for _ in 0..100 {
            db.put("on call/a", "yes").unwrap();
            db.put("on call/b", "yes").unwrap();
            let (start, went) = (Barrier::new(2), AtomicU64::new(0));
            thread::scope(|scope| {
                for doctor in ["on call/a", "on call/b"] {
                    let (db, start, went) = (&db, &start, &went);
                    scope.spawn(move || {
                        let mut is_first = true;
                        let goes = db.transaction_opt(patient(), |tx| {
                            let on_call = if by_range {
                                tx.prefix("on call/").count()
                            } else {
                                let there = |key| tx.contains_key(key).map(usize::from);
                                there("on call/a")? + there("on call/b")?
                            };
                            // Both transactions have read before either writes.
                            if std::mem::take(&mut is_first) {
                                start.wait();
                            }
                            if on_call == 2 {
                                tx.delete(doctor);
                            }
                            Ok(on_call == 2)
                        });
                        went.fetch_add(u64::from(goes.unwrap()), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!((went.into_inner(), db.prefix("on call/").count()), (1, 1));
        }
    }
}

/// Each number is issued once, although every transaction searches for the highest one itself.
#[test]
fn a_phantom_is_a_conflict() {
    const EACH: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    db.transaction_opt(patient(), |tx| {
                        let last = tx.prefix("ticket/").next_back().transpose()?;
                        let next = last.map_or(0, |(_, value)| number(&value) + 1);
                        tx.put(format!("ticket/{next:06}"), next.to_be_bytes());
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(db.prefix("ticket/").count() as u64, 4 * EACH);
    assert_eq!(number(&db.last().unwrap().unwrap().1), i64::try_from(4 * EACH).unwrap() - 1);
}

/// Some threads fill a queue and others empty it. Every job is taken once, and in order.
#[test]
fn every_job_is_taken_from_a_queue_once() {
    const JOBS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), busy()).unwrap();
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for job in 0..JOBS {
                db.put(format!("job/{job:06}"), job.to_be_bytes()).unwrap();
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = -1;
                while taken.load(Ordering::Relaxed) < JOBS {
                    let job = db.transaction_opt(patient(), |tx| {
                        let Some((key, job)) = tx.prefix("job/").next().transpose()? else {
                            return Ok(None);
                        };
                        tx.delete(&key);
                        tx.put([b"done/", &*key].concat(), &job);
                        Ok(Some(number(&job)))
                    });
                    if let Some(job) = job.unwrap() {
                        assert!(job > last, "{job} after {last}");
                        last = job;
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(taken.into_inner(), JOBS);
    assert_eq!(db.prefix("done/").count() as u64, JOBS);
    assert!(db.prefix("job/").next().is_none());
}
