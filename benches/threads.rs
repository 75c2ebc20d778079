//! Absolute times of one and two threads on the same store, with values of 100 bytes and checksums
//! on, without sync.
//!
//! `cargo bench --bench threads`. An iteration is a run of operations in each thread. The
//! throughput is the total of all threads.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::hint::black_box;
use std::time::Duration;

use bitcask::Bitcask;
use criterion::{Bencher, SamplingMode, Throughput};

use support::keys::{self, Key};
use support::{VALUE_SIZE, directory, key_count, loaded, options, timed_in_threads, value, warm};

/// Number of operations per thread in an iteration.
const OPS: usize = 10_000;
/// Number of iterations after which the store is recreated, because overwrites lengthen the log.
const ITERATIONS_MAX: usize = 400;

/// The operation of each thread on a key.
type Act<'a> = &'a (dyn Fn(&Bitcask, &Key) + Sync);

fn main() {
    let mut criterion = support::criterion();
    let value = value(VALUE_SIZE);
    let get = |db: &Bitcask, key: &Key| {
        black_box(db.get_with(key, |value| value.first().copied()).unwrap());
    };
    let put = |db: &Bitcask, key: &Key| db.put(key, &value).unwrap();
    let half = |db: &Bitcask, key: &Key| {
        if key[15].is_multiple_of(2) { get(db, key) } else { put(db, key) }
    };
    let operations: [(&str, Act<'_>); 3] = [("get", &get), ("overwrite", &put), ("half", &half)];
    for (name, act) in operations {
        let mut group = criterion.benchmark_group(format!("threads/{name}"));
        group.sampling_mode(SamplingMode::Flat);
        for threads in [1, 2] {
            group.throughput(Throughput::Elements((threads * OPS) as u64));
            group.bench_function(threads.to_string(), |bencher| run(bencher, threads, act));
        }
    }
    criterion.final_summary();
}

fn run(bencher: &mut Bencher<'_>, threads: usize, act: Act<'_>) {
    let (count, value) = (key_count(), value(VALUE_SIZE));
    let loading = keys::shuffled(count, 1);
    let len = (100 * OPS).min(count.next_multiple_of(OPS));
    let streams = [keys::uniform(count, len, 21), keys::uniform(count, len, 22)];
    // The store is dropped before its directory.
    let mut prepared: Option<(Bitcask, tempfile::TempDir)> = None;
    let mut done = 0;
    bencher.iter_custom(|iterations| {
        let mut time = Duration::ZERO;
        for _ in 0..iterations {
            if prepared.is_none() || done % ITERATIONS_MAX == 0 {
                let directory = directory();
                let db = loaded(&directory.path().join("store"), options(), &loading, &value);
                warm(&db);
                prepared = Some((db, directory));
            }
            let Some((db, _)) = &prepared else { unreachable!("it has just been prepared") };
            let start = done * OPS % len;
            time += timed_in_threads(threads, |thread| {
                streams[thread][start..start + OPS].iter().for_each(|key| act(db, key));
            });
            done += 1;
        }
        time
    });
}
