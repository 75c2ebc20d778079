//! Absolute times of a pass over all keys, with and without their values of 100 bytes, with
//! checksums on.
//!
//! `cargo bench --bench scan`. An iteration is a pass.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::Throughput;

use support::{VALUE_SIZE, directory, key_count, keys, loaded, options, value, warm};

fn main() {
    let mut criterion = support::criterion();
    let (directory, count) = (directory(), key_count());
    let store = directory.path().join("store");
    let db = loaded(&store, options(), &keys::shuffled(count, 1), &value(VALUE_SIZE));

    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("iter", |bencher| bencher.iter(|| warm(&db)));
    group.bench_function("iter_with", |bencher| {
        bencher.iter(|| {
            db.iter_unordered_with(|key, value| {
                black_box((key, value));
                ControlFlow::Continue(())
            })
        });
    });
    group.bench_function("keys", |bencher| {
        bencher.iter(|| {
            for key in db.keys_unordered() {
                black_box(key.unwrap());
            }
        });
    });
    group.finish();
    criterion.final_summary();
}
