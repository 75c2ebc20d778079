//! Order and snapshots, for the stores that have them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Context, UNLIMITED};
use crate::keys::{self, GROUP_LEN, Key, Order, PREFIX_SIZE, Values};
use crate::measure;
use crate::stores::{Ordered, Store};

/// Maximum number of pairs in a scan. A longer scan would show nothing more.
const SCAN_LEN: u64 = 2_000_000;
const PREFIXES: usize = 2_000;
const SNAPSHOTS: usize = 10_000;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let store = loaded::<S>(context, Order::new(context.keys(), context.seed(1)).keys());
    let (Some(ordered), values) = (store.ordered(), context.values()) else { return };
    // Bitcask sorts its keys at the first ordered read, and writes indexes in the background.
    let first = measure::seconds(|| prefix(ordered, &keys::key(0), &values));
    context.tell("ordered-first", first * 1e3);
    measure::wait_until_quiet(context.path());
    context.tell("ordered-scan", scan(context, ordered, &values));
    if context.wants("ordered-back") {
        let nanos = timed(SCAN_LEN, |read| {
            ordered.scan_back(&mut |key, value| {
                black_box(values.version(key, value));
                read(key)
            });
        });
        context.tell("ordered-back", nanos);
    }
    if context.wants("ordered-keys") {
        context.tell(
            "ordered-keys",
            timed(SCAN_LEN, |read| ordered.scan_keys(&mut |key, _| read(key))),
        );
    }
    context.tell("ordered-prefix", prefixes(context, ordered, &values));
    if context.wants("ordered-snapshot") {
        let keys = keys::uniform(context.keys(), context.seed(3)).take(SNAPSHOTS);
        let rate = measure::rate(keys.collect::<Vec<_>>(), context.limit(), |key| {
            ordered.snapshot(&key, &mut |value| assert_eq!(values.version(&key, value), 0));
        });
        context.tell("ordered-snapshot", 1e9 / rate);
    }
}

pub(super) fn run_sorted<S: Store>(context: &Context<'_>) {
    let store = loaded::<S>(context, (0..context.keys()).map(keys::key));
    scan_and_prefixes(context, &store, ["sorted-scan", "sorted-prefix"]);
}

pub(super) fn run_merged<S: Store>(context: &Context<'_>) {
    let store = loaded::<S>(context, Order::new(context.keys(), context.seed(1)).keys());
    store.bring_into_order();
    scan_and_prefixes(context, &store, ["merged-scan", "merged-prefix"]);
}

fn scan_and_prefixes<S: Store>(context: &Context<'_>, store: &S, rows: [&str; 2]) {
    let (Some(ordered), values) = (store.ordered(), context.values()) else { return };
    prefix(ordered, &keys::key(0), &values);
    measure::wait_until_quiet(context.path());
    context.tell(rows[0], scan(context, ordered, &values));
    context.tell(rows[1], prefixes(context, ordered, &values));
}

/// Returns a store with all keys, settled.
fn loaded<S: Store>(context: &Context<'_>, keys: impl Iterator<Item = Key>) -> S {
    let store = S::open(context.path(), &context.setup());
    if store.ordered().is_some() {
        super::put_all(&store, keys, 0, &mut context.values(), UNLIMITED);
    }
    store.settle()
}

/// Scans twice, and times the second pass. Returns the nanoseconds of a pair.
fn scan(context: &Context<'_>, ordered: &dyn Ordered, values: &Values) -> f64 {
    let all = context.keys().min(SCAN_LEN);
    let pass = |read: &mut dyn FnMut(&[u8]) -> bool| {
        let mut next = 0;
        ordered.scan(&keys::key(0), &mut |key, value| {
            assert_eq!(values.version(key, value), 0);
            assert_eq!(key, keys::key(next), "a key is missing or out of order");
            next += 1;
            read(key)
        });
        assert_eq!(next, all, "keys are missing");
    };
    timed(all, pass);
    timed(all, pass)
}

/// Times a pass that calls its argument with so many keys, after which it is to end. Returns the
/// nanoseconds of a key.
fn timed(len: u64, pass: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool)) -> f64 {
    let (started, mut count) = (Instant::now(), 0_u64);
    pass(&mut |key| {
        black_box(key);
        count += 1;
        count < len
    });
    started.elapsed().as_nanos() as f64 / count.max(1) as f64
}

/// Returns the nanoseconds of a prefix scan.
fn prefixes(context: &Context<'_>, ordered: &dyn Ordered, values: &Values) -> f64 {
    let keys = keys::uniform(context.keys(), context.seed(2)).take(PREFIXES);
    let limit: Duration = context.limit();
    1e9 / measure::rate(keys.collect::<Vec<_>>(), limit, |key| prefix(ordered, &key, values))
}

/// Scans the group of a key.
fn prefix(ordered: &dyn Ordered, key: &Key, values: &Values) {
    let mut count = 0;
    ordered.prefix(&key[..PREFIX_SIZE], &mut |key, value| {
        assert_eq!(values.version(key, value), 0);
        count += 1;
        true
    });
    assert_eq!(count, GROUP_LEN, "keys are missing");
}
