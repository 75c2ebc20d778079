//! Shared by the benches: the sizes and places of measurements, keys, the raw limit, and the table
//! that compares the store with it.
//!
//! - Everything, including the keys, is generated before the timing begins.
//! - `BITCASK_BENCH_KEYS` is the number of keys, and `BITCASK_BENCH_DIR` the directory below which
//!   stores are created. Each bench removes what it created.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]
#![expect(clippy::cast_precision_loss, reason = "printed figures do not need 53 bits")]
#![expect(clippy::cast_possible_truncation, reason = "the counted values are small")]
#![expect(clippy::cast_sign_loss, reason = "the counted values are positive")]

pub(crate) mod histogram;
pub(crate) mod keys;
pub(crate) mod random;
pub(crate) mod raw;
pub(crate) mod report;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options, SyncPolicy};
use criterion::Criterion;
use tempfile::TempDir;

use keys::Key;

/// Size of the values in most benches, in bytes. With header and key, an entry takes 136 bytes.
pub(crate) const VALUE_SIZE: usize = 100;

/// Number of keys that `cargo bench` can process in minutes.
const KEYS_DEFAULT: usize = 1_000_000;
/// Number of keys that `cargo test --benches` can process in seconds.
const KEYS_TEST: usize = 1_000;

/// Configures Criterion for short runs, because every bench has to build a store.
pub(crate) fn criterion() -> Criterion {
    let criterion = Criterion::default().sample_size(10);
    let criterion = criterion.warm_up_time(Duration::from_secs(1));
    criterion.measurement_time(Duration::from_secs(2)).configure_from_args()
}

/// Returns whether this run measures. `cargo test` omits the argument, and only checks that the
/// bench runs.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Returns the number of keys in a store.
pub(crate) fn key_count() -> usize {
    key_count_or(KEYS_DEFAULT)
}

/// The same with another default.
pub(crate) fn key_count_or(default: usize) -> usize {
    let given = std::env::var("BITCASK_BENCH_KEYS").ok();
    let default = if is_bench() { default } else { KEYS_TEST };
    given.map_or(default, |keys| keys.replace('_', "").parse().unwrap())
}

/// Returns the number of keys in a store with values of this size. It is lower for large values, so
/// that no store takes much more space than one with small values.
pub(crate) fn key_count_of(value_size: usize) -> usize {
    if value_size > 1000 { key_count().div_ceil(16) } else { key_count() }
}

/// Creates a directory that is removed with its content when dropped.
pub(crate) fn directory() -> TempDir {
    let parent = std::env::var_os("BITCASK_BENCH_DIR");
    let parent = parent.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix("bitcask-bench-").tempdir_in(parent).unwrap()
}

/// The defaults with only explicit syncs, because the raw limit never syncs.
pub(crate) fn options() -> Options {
    Options::new().sync_policy(SyncPolicy::Never)
}

/// Opens a new store in a directory, and puts keys into it.
pub(crate) fn loaded(path: &Path, options: Options, keys: &[Key], value: &[u8]) -> Bitcask {
    let db = Bitcask::open(path, options).unwrap();
    for key in keys {
        db.put(key, value).unwrap();
    }
    db
}

/// Reads everything once, so that no page is first touched during the measurement.
pub(crate) fn warm(db: &Bitcask) {
    for pair in db.iter_unordered() {
        std::hint::black_box(pair.unwrap());
    }
}

/// Returns a value of a size.
pub(crate) fn value(size: usize) -> Vec<u8> {
    vec![0xa5; size]
}

pub(crate) fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Runs a closure in several threads, passing each its number. Returns the time that all of them
/// took together, without starting the threads.
pub(crate) fn timed_in_threads(threads: usize, act: impl Fn(usize) + Sync) -> Duration {
    let (ready, go) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    let (mut start, act) = (Instant::now(), &act);
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (ready, go) = (&ready, &go);
            scope.spawn(move || {
                ready.wait();
                go.wait();
                act(number);
            });
        }
        ready.wait();
        start = Instant::now();
        go.wait();
    });
    start.elapsed()
}
