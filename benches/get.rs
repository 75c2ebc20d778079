//! Absolute times of gets in one thread, with values of 100 bytes and checksums on.
//!
//! `cargo bench --bench get`. An iteration is one get, or one `get_many` call with 16 keys.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};

use support::keys::{self, Key};
use support::{VALUE_SIZE, directory, key_count, loaded, options, value, warm};

/// Number of keys per `get_many` call.
const MANY: usize = 16;

fn main() {
    let mut criterion = support::criterion();
    let (directory, count) = (directory(), key_count());
    let store = directory.path().join("store");
    let db = loaded(&store, options(), &keys::shuffled(count, 1), &value(VALUE_SIZE));
    warm(&db);
    let len = count.min(1_000_000);
    let (uniform, zipf) = (keys::uniform(count, len, 11), keys::zipf(count, len, 12));
    let absent = keys::absent(count, len, 13);
    let mut buffer = Vec::with_capacity(VALUE_SIZE);

    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let first = |value: &[u8]| value.first().copied();
    each(&mut group, "uniform/get_with", &uniform, |key| {
        black_box(db.get_with(key, first).unwrap());
    });
    each(&mut group, "uniform/get_into", &uniform, |key| {
        black_box(db.get_into(key, &mut buffer).unwrap());
    });
    each(&mut group, "uniform/get", &uniform, |key| {
        black_box(db.get(key).unwrap());
    });
    each(&mut group, "zipf/get_with", &zipf, |key| {
        black_box(db.get_with(key, first).unwrap());
    });
    each(&mut group, "zipf/get_into", &zipf, |key| {
        black_box(db.get_into(key, &mut buffer).unwrap());
    });
    each(&mut group, "miss", &absent, |key| {
        black_box(db.get_with(key, first).unwrap());
    });
    group.throughput(Throughput::Elements(MANY as u64));
    let mut chunks = uniform.chunks_exact(MANY).cycle();
    group.bench_function("uniform/get_many_with/16", |bencher| {
        bencher.iter(|| {
            let read = |_, value: Option<&[u8]>| {
                black_box(value.and_then(first));
            };
            db.get_many_with(chunks.next().unwrap(), read).unwrap();
        });
    });
    let mut chunks = uniform.chunks_exact(MANY).cycle();
    group.bench_function("uniform/get_many/16", |bencher| {
        bencher.iter(|| black_box(db.get_many(chunks.next().unwrap()).unwrap()));
    });
    group.finish();
    criterion.final_summary();
}

fn each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    keys: &[Key],
    mut get: impl FnMut(&Key),
) {
    let mut keys = keys.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| get(keys.next().unwrap()));
    });
}
