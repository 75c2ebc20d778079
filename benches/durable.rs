//! Absolute times of durable puts, with values of 100 bytes and `SyncPolicy::Always`.
//!
//! `cargo bench --bench durable`. An iteration is one put in each thread, or a batch. The
//! throughput is the total of all threads.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcask::{Batch, Bitcask, Options, SyncPolicy};
use criterion::{SamplingMode, Throughput};

use support::{VALUE_SIZE, directory, keys, timed, timed_in_threads, value};

const BATCH_LEN: u64 = 1000;

fn main() {
    let mut criterion = support::criterion();
    let (directory, value) = (directory(), value(VALUE_SIZE));
    let options = Options::new().sync_policy(SyncPolicy::Always);
    let db = Bitcask::open(directory.path().join("store"), options).unwrap();
    // Each key is new.
    let next = AtomicU64::new(0);
    let take = |count| next.fetch_add(count, Ordering::Relaxed);

    let mut group = criterion.benchmark_group("durable");
    group.sampling_mode(SamplingMode::Flat);
    for threads in [1, 8, 16] {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(format!("put/{threads}"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed_in_threads(threads, |_| {
                    let first = take(iterations);
                    for number in first..first + iterations {
                        db.put(keys::key(number), &value).unwrap();
                    }
                })
            });
        });
    }
    group.throughput(Throughput::Elements(BATCH_LEN));
    group.bench_function("batch_of_1000", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut time = Duration::ZERO;
            for _ in 0..iterations {
                let first = take(BATCH_LEN);
                let put = |number| (keys::key(number), &value);
                let batch: Batch = (first..first + BATCH_LEN).map(put).collect();
                time += timed(|| db.write(&batch).unwrap());
            }
            time
        });
    });
    group.finish();
    criterion.final_summary();
}
