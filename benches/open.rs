//! The time that opening takes: until the first get has returned, and until the keydir is filled.
//!
//! `cargo bench --bench open`. The targets are for `BITCASK_BENCH_KEYS=10_000_000`.
//!
//! - Measured after a close, and after a kill, for which a child process loads, syncs and is
//!   killed. After a kill, the last segments are unsealed and have no hints.
//! - The pages of the log are in the cache, as after a restart of the process alone.
//! - The bench prints a custom table instead of using Criterion, because after a kill each sample
//!   needs a complete load.

#![expect(clippy::unwrap_used, reason = "a bench whose setup fails has failed")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the bench")]

#[expect(dead_code, reason = "each bench uses a part of the module")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcask::{Bitcask, Options};

use support::{VALUE_SIZE, directory, is_bench, key_count, keys, loaded, value};

/// Environment variable that marks a child process, and says where to load.
const CHILD: &str = "BITCASK_BENCH_CHILD";

fn main() {
    if let Some(store) = std::env::var_os(CHILD) {
        return load_and_wait(Path::new(&store));
    }
    println!("{} keys, values of {VALUE_SIZE} B\n", key_count());
    println!("| open | until | median, ms | lowest - highest, ms | target |");
    println!("| --- | --- | ---: | --- | --- |");
    after_close();
    after_kill();
}

fn after_close() {
    let directory = directory();
    let store = directory.path().join("store");
    let loading = keys::shuffled(key_count(), 1);
    loaded(&store, Options::new(), &loading, &value(VALUE_SIZE)).close().unwrap();
    let samples = if is_bench() { 9 } else { 1 };
    let times: Vec<_> = (0..samples).map(|_| open(&store)).collect();
    rows("after a close", &times, "<= 10 ms at 10M keys");
}

fn after_kill() {
    let samples = if is_bench() { 3 } else { 1 };
    let sample = |_| {
        let directory = directory();
        let store = directory.path().join("store");
        let mut child = Command::new(std::env::current_exe().unwrap());
        // The child determines the number of keys from its arguments.
        child.args(std::env::args_os().skip(1)).env(CHILD, &store);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "loaded\n");
        child.kill().unwrap();
        child.wait().unwrap();
        open(&store)
    };
    let times: Vec<_> = (0..samples).map(sample).collect();
    rows("after a kill", &times, "<= 100 ms at 10M keys");
}

/// Loads, and waits to be killed.
fn load_and_wait(store: &Path) {
    let loading = keys::shuffled(key_count(), 1);
    let db = loaded(store, Options::new(), &loading, &value(VALUE_SIZE));
    db.sync().unwrap();
    println!("loaded");
    // Returns only if the parent has exited.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// The times of one opening.
struct Times {
    first_get: Duration,
    filled: Duration,
}

fn open(store: &Path) -> Times {
    let count = key_count() as u64;
    let start = Instant::now();
    let db = Bitcask::open(store, Options::new().create_if_missing(false)).unwrap();
    assert!(db.contains_key(keys::key(count / 2)).unwrap());
    let first_get = start.elapsed();
    assert_eq!(db.len().unwrap(), count);
    let filled = start.elapsed();
    db.close().unwrap();
    Times { first_get, filled }
}

fn rows(name: &str, times: &[Times], first_get_target: &str) {
    let (first_get, filled): (Vec<_>, Vec<_>) =
        times.iter().map(|times| (times.first_get, times.filled)).unzip();
    row(name, "the first get", first_get, first_get_target);
    row(name, "`len()`", filled, "<= 300 ms at 10M keys");
}

fn row(name: &str, until: &str, mut times: Vec<Duration>, target: &str) {
    times.sort_unstable();
    let millis = |at: usize| times[at].as_secs_f64() * 1e3;
    let (low, high) = (millis(0), millis(times.len() - 1));
    let median = millis(times.len() / 2);
    println!("| {name} | {until} | {median:.1} | {low:.1} - {high:.1} | {target} |");
}
