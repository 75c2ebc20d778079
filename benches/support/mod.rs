//! What the benches share: how much is measured and where, keys, the raw limit, and the table of
//! ours beside it.
//!
//! - Everything is made before it is timed, keys too.
//! - `BITCASK_BENCH_KEYS` is the number of keys, `BITCASK_BENCH_DIR` the directory that stores go
//!   below. Each bench removes what it made.

#![expect(clippy::unwrap_used, reason = "a bench that can't be prepared has failed")]
#![expect(clippy::indexing_slicing, reason = "a bench that reaches too far has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people need no 53 bits")]
#![expect(clippy::cast_possible_truncation, reason = "what is counted here is small")]
#![expect(clippy::cast_sign_loss, reason = "what is counted here is positive")]

pub(crate) mod histogram;
pub(crate) mod keys;
pub(crate) mod raw;
pub(crate) mod report;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options, SyncPolicy};
use criterion::Criterion;
use tempfile::TempDir;

use keys::Key;

/// The value of most benches: with header and key it makes an entry of 136 bytes.
pub(crate) const VALUE_SIZE: usize = 100;

/// As many keys as `cargo bench` can do in minutes.
const KEYS_DEFAULT: usize = 1_000_000;
/// As many as `cargo test --benches` can do in seconds.
const KEYS_TEST: usize = 1_000;

/// Criterion as all its benches here have it: short, since a store has to be made for each.
pub(crate) fn criterion() -> Criterion {
    let criterion = Criterion::default().sample_size(10);
    let criterion = criterion.warm_up_time(Duration::from_secs(1));
    criterion.measurement_time(Duration::from_secs(2)).configure_from_args()
}

/// Returns whether this is a run for its figures. `cargo test` leaves the argument out, and wants
/// to know only whether the bench runs.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Returns how many keys a store has.
pub(crate) fn key_count() -> usize {
    key_count_or(KEYS_DEFAULT)
}

/// The same, where another number does unless one is given.
pub(crate) fn key_count_or(default: usize) -> usize {
    let given = std::env::var("BITCASK_BENCH_KEYS").ok();
    let default = if is_bench() { default } else { KEYS_TEST };
    given.map_or(default, |keys| keys.replace('_', "").parse().unwrap())
}

/// Returns how many keys a store of values of this size has: fewer where they are large, so that
/// no store takes much more room than one of small values.
pub(crate) fn key_count_of(value_size: usize) -> usize {
    if value_size > 1000 { key_count().div_ceil(16) } else { key_count() }
}

/// Makes a directory that is removed with its content when it is dropped.
pub(crate) fn directory() -> TempDir {
    let parent = std::env::var_os("BITCASK_BENCH_DIR");
    let parent = parent.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix("bitcask-bench-").tempdir_in(parent).unwrap()
}

/// The defaults, but no sync that nobody asks for: the raw limit has none.
pub(crate) fn options() -> Options {
    Options::new().sync_policy(SyncPolicy::Never)
}

/// Opens a fresh store in a directory and puts keys into it.
pub(crate) fn loaded(path: &Path, options: Options, keys: &[Key], value: &[u8]) -> Bitcask {
    let db = Bitcask::open(path, options).unwrap();
    for key in keys {
        db.put(key, value).unwrap();
    }
    db
}

/// Reads everything once, so that no page is touched for the first time while it is timed.
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

/// Runs a closure in several threads, each with its number, and returns how long all of them took
/// together, the making of the threads left out.
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
