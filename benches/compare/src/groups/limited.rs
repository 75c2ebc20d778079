//! More data than memory. Each measurement ends when its time is up.

use std::process::exit;
use std::time::{Duration, Instant};

use super::{Context, MANY};
use crate::keys::{self, Key, Order, Values};
use crate::measure;
use crate::stores::{Setup, Store};

const THREADS: u64 = 2;
/// The part of the memory that a store's own cache gets. The page cache and the rest of the store
/// need some, too.
const CACHE_PART: u64 = 4;
/// Number of limits that work without a figure, or that cannot be stopped, may take.
const PATIENCE: u32 = 20;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let (count, limit) = (context.keys(), context.limit());
    let mut values = context.values();
    let cache_size = context.arguments.memory / CACHE_PART;
    let store = S::open(context.path(), &Setup { cache_size, ..context.setup() });
    let loading = Order::new(count, context.seed(1));
    let (loaded, took) = super::counted_puts(&store, loading.keys(), 0, &mut values, limit);
    context.tell("limited-load", loaded as f64 / took.as_secs_f64());
    fill_up(context, &store, (loaded..count).map(|place| loading.at(place)).collect());
    store.sync();
    gets(context, &store, &values);
    if context.wants("limited-scan") {
        context.tell("limited-scan", super::scan_all(&store, count, 0, &values, limit));
    }
    if context.wants("limited-ordered") {
        ordered_scan(context, &store, &values);
    }
    if context.wants("limited-overwrite") {
        let keys = Order::new(count, context.seed(8)).keys();
        let rate = super::put_all(&store, keys, 1, &mut values, limit);
        context.tell("limited-overwrite", rate);
    }
    if context.wants("limited-batch") {
        let keys = Order::new(count, context.seed(10)).keys();
        let batches =
            super::in_batches(keys, limit, |batch| store.put_batch(batch, 1, &mut values));
        context.tell("limited-batch", super::per_second(batches));
    }
    if context.wants("limited-delete") {
        let keys = Order::new(count, context.seed(9)).keys();
        context.tell("limited-delete", super::delete_all(&store, keys, limit));
    }
    if context.wants("limited-merge") {
        merge(context, &store);
    }
}

/// Puts what the load had no time for in key order, which no store finds hard.
fn fill_up<S: Store>(context: &Context<'_>, store: &S, mut missing: Vec<u64>) {
    missing.sort_unstable();
    let (expected, limit) = (missing.len() as u64, context.limit() * PATIENCE);
    let keys = missing.into_iter().map(keys::key);
    let (count, _) = super::counted_puts(store, keys, 0, &mut context.values(), limit);
    assert_eq!(count, expected, "the load takes too long even in key order");
}

fn gets<S: Store>(context: &Context<'_>, store: &S, values: &Values) {
    let (count, limit) = (context.keys(), context.limit());
    let view = store.view();
    if context.wants("limited-get") {
        let stream = keys::uniform(count, context.seed(2));
        context.tell("limited-get", super::get_all(&view, stream, 0, values, limit));
    }
    if context.wants("limited-get-2") {
        let rate = measure::rate_in_threads(THREADS, |thread| {
            let (view, stream) = (store.view(), keys::uniform(count, context.seed(3 + thread)));
            super::counted_gets(&view, stream, 0, values, limit).0
        });
        context.tell("limited-get-2", rate);
    }
    if context.wants("limited-zipf") {
        let stream = keys::zipf(count, context.seed(5));
        context.tell("limited-zipf", super::get_all(&view, stream, 0, values, limit));
    }
    if context.wants("limited-miss") {
        let stream = keys::absent(count, context.seed(6));
        context.tell("limited-miss", super::miss_all(&view, stream, limit));
    }
    if context.wants("limited-many") {
        let mut stream = keys::uniform(count, context.seed(7));
        let many = std::iter::repeat_with(|| -> [Key; MANY] {
            std::array::from_fn(|_| stream.next().unwrap())
        });
        context.tell("limited-many", super::get_many(&view, many, 0, values, limit));
    }
}

fn ordered_scan<S: Store>(context: &Context<'_>, store: &S, values: &Values) {
    let Some(ordered) = store.ordered() else { return };
    let (started, mut next) = (Instant::now(), 0);
    ordered.scan(&keys::key(0), &mut |key, value| {
        assert_eq!(values.version(key, value), 0);
        assert_eq!(key, keys::key(next), "a key is missing or out of order");
        next += 1;
        started.elapsed() < context.limit()
    });
    context.tell("limited-ordered", next as f64 / started.elapsed().as_secs_f64());
}

/// Merges everything. As a merge cannot be stopped, the process ends if it takes too long.
fn merge<S: Store>(context: &Context<'_>, store: &S) {
    let patience: Duration = context.limit() * PATIENCE;
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        eprintln!("the merge takes more than {patience:?}, and is left out");
        exit(0);
    });
    let (started, does_merge) = (Instant::now(), store.merge());
    if does_merge {
        context.tell("limited-merge", started.elapsed().as_secs_f64());
    }
}
