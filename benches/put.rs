//! Absolute times of loads, overwrites and deletes, without sync.
//!
//! `cargo bench --bench put`. An iteration is a run of puts or deletes, each of another key. Once
//! all keys have been used, a new store is created, which is not timed.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::path::Path;
use std::time::Duration;

use bitcask::Bitcask;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

use support::keys::{self, Key};
use support::{VALUE_SIZE, directory, key_count_of, loaded, options, timed, value};

/// Number of operations in an iteration.
const OPS: usize = 10_000;

fn main() {
    let mut criterion = support::criterion();
    for value_size in [16, VALUE_SIZE, 4096] {
        put(&mut criterion, value_size);
    }
    criterion.final_summary();
}

fn put(criterion: &mut Criterion, value_size: usize) {
    let (count, value) = (key_count_of(value_size), value(value_size));
    let (ordered, shuffled) = (keys::ordered(count), keys::shuffled(count, 1));
    let again = keys::shuffled(count, 2);
    let mut group = criterion.benchmark_group(format!("put/{value_size}B"));
    group.sampling_mode(SamplingMode::Flat);

    let empty = |path: &Path| Bitcask::open(path, options()).unwrap();
    let full = |path: &Path| loaded(path, options(), &shuffled, &value);
    let put = |db: &Bitcask, key: &Key| db.put(key, &value).unwrap();
    runs(&mut group, "load_in_order", &ordered, empty, put);
    runs(&mut group, "load_at_random", &shuffled, empty, put);
    runs(&mut group, "overwrite", &again, full, put);
    let delete = |db: &Bitcask, key: &Key| assert!(db.delete(key).unwrap());
    runs(&mut group, "delete", &again, full, delete);
}

/// Times runs of an operation on a store that is recreated once its keys are used up.
fn runs(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    keys: &[Key],
    prepare: impl Fn(&Path) -> Bitcask,
    act: impl Fn(&Bitcask, &Key),
) {
    let ops = OPS.min(keys.len());
    group.throughput(Throughput::Elements(ops as u64));
    group.bench_function(name, |bencher| {
        // The store is dropped before its directory.
        let mut prepared: Option<(Bitcask, tempfile::TempDir)> = None;
        let mut next = 0;
        bencher.iter_custom(|iterations| {
            let mut time = Duration::ZERO;
            for _ in 0..iterations {
                if prepared.is_none() || next + ops > keys.len() {
                    let directory = directory();
                    prepared = Some((prepare(&directory.path().join("store")), directory));
                    next = 0;
                }
                let Some((db, _)) = &prepared else { unreachable!("it has just been prepared") };
                time += timed(|| keys[next..next + ops].iter().for_each(|key| act(db, key)));
                next += ops;
            }
            time
        });
    });
}
