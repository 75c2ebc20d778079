//! The groups of rows, each a function that measures with any store, and what they share.

mod durable;
mod large;
mod latency;
mod limited;
mod ordered;
mod points;
mod reopen;
mod rewrites;
mod scale;
mod ycsb;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::arguments::{Arguments, Child};
use crate::keys::{self, Key, Values};
use crate::stores::{self, BATCH_LEN, Setup, Store, View};
use crate::{cgroup, measure, process};

/// Size of the caches in bytes, where everything fits into memory.
const CACHE_SIZE: u64 = 4 << 30;
/// Maximum number of operations of a row.
const OPS_MAX: usize = 2_000_000;
/// Number of keys by which a group checks what it has written.
const SAMPLE_LEN: usize = 1000;
const UNLIMITED: Duration = Duration::MAX;

/// Measures what the arguments of this process say.
pub(crate) fn run(arguments: &Arguments, child: &Child) {
    if let Some(path) = &child.cgroup {
        cgroup::join(path);
    }
    stores::run(&child.store, Context { arguments, child });
}

/// What a group works on.
struct Context<'a> {
    arguments: &'a Arguments,
    child: &'a Child,
}

impl stores::Job for Context<'_> {
    fn run<S: Store>(self) {
        match self.child.group.as_str() {
            "points" => points::run::<S>(&self),
            "in-order" => rewrites::load_in_order::<S>(&self),
            "rewrites" => rewrites::run::<S>(&self),
            "durable" => durable::run::<S>(&self),
            "large" => large::run::<S>(&self),
            "ordered" => ordered::run::<S>(&self),
            "sorted" => ordered::run_sorted::<S>(&self),
            "merged" => ordered::run_merged::<S>(&self),
            "ycsb" => ycsb::run::<S>(&self),
            "ranges" => ycsb::run_ranges::<S>(&self),
            "reopen" => reopen::run::<S>(&self),
            "latency" => latency::run::<S>(&self),
            "scale" => scale::run::<S>(&self),
            "limited" => limited::run::<S>(&self),
            name => panic!("there is no group {name}"),
        }
    }
}

impl Context<'_> {
    fn keys(&self) -> u64 {
        self.arguments.keys
    }

    fn limit(&self) -> Duration {
        self.arguments.limit
    }

    fn path(&self) -> &Path {
        &self.child.path
    }

    fn values(&self) -> Values {
        Values::new(self.arguments.value_size)
    }

    /// Returns a seed for something, another one in each round.
    fn seed(&self, what: u64) -> u64 {
        self.child.round << 32 | what
    }

    fn wants(&self, row: &str) -> bool {
        self.arguments.wants(row)
    }

    fn tell(&self, row: &str, value: f64) {
        process::tell(self.arguments, row, value);
    }

    /// Number of operations of a row on so many keys.
    fn ops(&self) -> usize {
        OPS_MAX.min(self.keys() as usize)
    }

    fn setup(&self) -> Setup {
        Setup { keys: self.keys(), cache_size: CACHE_SIZE, durable: false, merging: false }
    }
}

/// Puts keys at a version, in the store's fastest way. Returns the puts per second.
fn put_all<S: Store>(
    store: &S,
    keys: impl Iterator<Item = Key>,
    version: u64,
    values: &mut Values,
    limit: Duration,
) -> f64 {
    per_second(counted_puts(store, keys, version, values, limit))
}

/// The same, but returns the number of puts, and the time.
fn counted_puts<S: Store>(
    store: &S,
    keys: impl Iterator<Item = Key>,
    version: u64,
    values: &mut Values,
    limit: Duration,
) -> (u64, Duration) {
    if S::BATCHED {
        return in_batches(keys, limit, |batch| store.put_batch(batch, version, values));
    }
    measure::counted(keys, limit, |key| {
        store.put(&key, values.of(&key, version));
        1
    })
}

fn delete_all<S: Store>(store: &S, keys: impl Iterator<Item = Key>, limit: Duration) -> f64 {
    if S::BATCHED {
        per_second(in_batches(keys, limit, |batch| store.delete_batch(batch)))
    } else {
        measure::rate(keys, limit, |key| store.delete(&key))
    }
}

fn per_second((count, took): (u64, Duration)) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Calls a closure with batch after batch. Returns the number of keys, and the time.
fn in_batches(
    mut keys: impl Iterator<Item = Key>,
    limit: Duration,
    mut act: impl FnMut(&[Key]),
) -> (u64, Duration) {
    let (started, mut count) = (Instant::now(), 0);
    let mut batch = Vec::with_capacity(BATCH_LEN);
    while started.elapsed() < limit {
        batch.clear();
        batch.extend(keys.by_ref().take(BATCH_LEN));
        if batch.is_empty() {
            break;
        }
        act(&batch);
        count += batch.len() as u64;
    }
    (count, started.elapsed())
}

/// Gets keys, all of which exist, and checks that no version is later than the latest one. Returns
/// the gets per second.
fn get_all(
    view: &impl View,
    keys: impl IntoIterator<Item = Key>,
    latest: u64,
    values: &Values,
    limit: Duration,
) -> f64 {
    per_second(counted_gets(view, keys, latest, values, limit))
}

/// The same, but returns the number of gets, and the time.
fn counted_gets(
    view: &impl View,
    keys: impl IntoIterator<Item = Key>,
    latest: u64,
    values: &Values,
    limit: Duration,
) -> (u64, Duration) {
    measure::counted(keys, limit, |key| {
        let check = |value: &[u8]| assert!(values.version(&key, value) <= latest);
        assert!(view.get(&key, check), "{key:?} is missing");
        1
    })
}

/// Gets keys that do not exist. Returns the gets per second.
fn miss_all(view: &impl View, keys: impl IntoIterator<Item = Key>, limit: Duration) -> f64 {
    measure::rate(keys, limit, |key| assert!(!view.get(&key, |_| {}), "{key:?} exists"))
}

/// Gets keys, all of which exist, several at a time. Returns the keys per second.
fn get_many(
    view: &impl View,
    keys: impl Iterator<Item = [Key; MANY]>,
    latest: u64,
    values: &Values,
    limit: Duration,
) -> f64 {
    per_second(measure::counted(keys, limit, |keys| {
        let mut found = 0;
        view.get_many(&keys, |at, value| {
            assert!(values.version(&keys[at], value) <= latest);
            found += 1;
        });
        assert_eq!(found, MANY as u64, "keys are missing");
        found
    }))
}

/// Number of keys of a `get_many`.
const MANY: usize = 16;

/// Passes over all pairs in any order, and checks them. Returns the pairs per second.
fn scan_all<S: Store>(store: &S, total: u64, latest: u64, values: &Values, limit: Duration) -> f64 {
    let (started, mut count, mut sum, mut is_in_time) = (Instant::now(), 0_u64, 0_u64, true);
    store.scan_all(|key, value| {
        let (tag, version) = match key {
            Some(key) => (keys::tag(key), values.version(key, value)),
            None => values.tag_and_version(value),
        };
        assert!(version <= latest, "a value of a version that was never written");
        sum = sum.wrapping_add(tag);
        count += 1;
        is_in_time = !count.is_multiple_of(1024) || started.elapsed() < limit;
        is_in_time
    });
    let rate = count as f64 / started.elapsed().as_secs_f64();
    if is_in_time {
        assert_eq!((count, sum), (total, keys::tag_sum(total)), "the scan missed pairs");
    }
    rate
}

/// Returns how many of a sample of keys exist, and checks that they have this version.
fn found_of_sample<S: Store>(store: &S, count: u64, version: u64, values: &Values) -> usize {
    let view = store.view();
    let is_there = |key: &Key| {
        view.get(key, |value| assert_eq!(values.version(key, value), version, "an old value"))
    };
    keys::uniform(count, version).take(SAMPLE_LEN).filter(is_there).count()
}
