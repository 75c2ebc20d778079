//! Single keys: load, scan, gets, mixed work, overwrites and deletes, one after the other on the
//! same store.

use super::{Context, MANY, UNLIMITED};
use crate::keys::{self, Key, Order, Values};
use crate::measure::{self, Memory};
use crate::random::Random;
use crate::stores::{Store, View};

/// Versions of the values.
const LOADED: u64 = 0;
const MIXED: u64 = 1;
const OVERWRITTEN: u64 = 2;

const THREADS: u64 = 2;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let count = context.keys();
    let loading: Vec<Key> = Order::new(count, context.seed(1)).keys().collect();
    let mut values = context.values();
    let base = Memory::now();
    let store = S::open(context.path(), &context.setup());
    let rate = super::put_all(&store, loading.iter().copied(), LOADED, &mut values, UNLIMITED);
    context.tell("load", rate);
    let mut settled = None;
    context.tell("settle", measure::seconds(|| settled = Some(store.settle())));
    let store = settled.unwrap();
    measure::wait_until_quiet(context.path());
    tell_space(context, Memory::now().since(base));
    drop(loading);

    if ["scan", "get", "get-2", "zipf", "miss", "get-many"].iter().any(|row| context.wants(row)) {
        // The first pass brings everything into memory, and into the page tables.
        super::scan_all(&store, count, LOADED, &values, UNLIMITED);
        let rate = super::scan_all(&store, count, LOADED, &values, context.limit());
        context.tell("scan", rate);
        gets(context, &store, &values);
    }

    if context.wants("mixed-2") {
        context.tell("mixed-2", mixed(context, &store));
    }
    if context.wants("overwrite") {
        let again: Vec<Key> = Order::new(count, context.seed(2)).keys().collect();
        let rate = super::put_all(&store, again.into_iter(), OVERWRITTEN, &mut values, UNLIMITED);
        context.tell("overwrite", rate);
        let found = super::found_of_sample(&store, count, OVERWRITTEN, &values);
        assert_eq!(found, super::SAMPLE_LEN, "overwritten keys are missing");
    }
    if context.wants("delete") {
        let all: Vec<Key> = Order::new(count, context.seed(3)).keys().collect();
        context.tell("delete", super::delete_all(&store, all.into_iter(), UNLIMITED));
        let found = super::found_of_sample(&store, count, OVERWRITTEN, &values);
        assert_eq!(found, 0, "deleted keys are there");
    }
}

fn tell_space(context: &Context<'_>, memory: Memory) {
    let count = context.keys() as f64;
    context.tell("memory-anonymous", memory.anonymous as f64 / count);
    context.tell("memory-file", memory.file as f64 / count);
    let disk = measure::disk_size(context.path());
    context.tell("disk-loaded", disk as f64 / f64::from(1 << 20));
}

fn gets<S: Store>(context: &Context<'_>, store: &S, values: &Values) {
    let (count, ops, limit) = (context.keys(), context.ops(), context.limit());
    let uniform = |seed| -> Vec<Key> { keys::uniform(count, seed).take(ops).collect() };
    let view = store.view();
    if context.wants("get") {
        let stream = uniform(context.seed(4));
        context.tell("get", super::get_all(&view, stream, LOADED, values, limit));
    }
    if context.wants("get-2") {
        let streams = [5, 6].map(|seed| uniform(context.seed(seed)));
        let rate = measure::rate_in_threads(THREADS, |thread| {
            let stream = streams[thread as usize].iter().copied();
            super::counted_gets(&store.view(), stream, LOADED, values, limit).0
        });
        context.tell("get-2", rate);
    }
    if context.wants("zipf") {
        let stream: Vec<Key> = keys::zipf(count, context.seed(7)).take(ops).collect();
        context.tell("zipf", super::get_all(&view, stream, LOADED, values, limit));
    }
    if context.wants("miss") {
        let stream: Vec<Key> = keys::absent(count, context.seed(8)).take(ops).collect();
        context.tell("miss", super::miss_all(&view, stream, limit));
    }
    if context.wants("get-many") {
        let stream = uniform(context.seed(9));
        let many = stream.chunks_exact(MANY).map(|keys| <[Key; MANY]>::try_from(keys).unwrap());
        context.tell("get-many", super::get_many(&view, many, LOADED, values, limit));
    }
}

/// Half gets and half puts, in an order that no predictor knows. Each get sees the newest state.
fn mixed<S: Store>(context: &Context<'_>, store: &S) -> f64 {
    let (count, ops) = (context.keys(), context.ops());
    let streams = [10, 11].map(|seed| {
        let mut random = Random::new(context.seed(!seed));
        let keys = keys::uniform(count, context.seed(seed)).take(ops);
        keys.map(|key| (key, random.below(2) == 0)).collect::<Vec<_>>()
    });
    measure::rate_in_threads(THREADS, |thread| {
        let mut values = context.values();
        measure::counted(&streams[thread as usize], context.limit(), |(key, is_get)| {
            if *is_get {
                let check = |value: &[u8]| assert!(values.version(key, value) <= MIXED);
                assert!(store.view().get(key, check), "{key:?} is missing");
            } else {
                store.put(key, values.of(key, MIXED));
            }
            1
        })
        .0
    })
}
