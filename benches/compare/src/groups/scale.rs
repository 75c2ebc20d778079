//! How figures grow with the number of keys.

use std::time::Instant;

use super::Context;
use crate::histogram::Histogram;
use crate::keys::{self, Order};
use crate::measure::{self, Memory};
use crate::process;
use crate::stores::{Store, View};

/// Number of times that a load looks at its memory.
const SAMPLES: u64 = 100;
/// Share of the keys that are overwritten before the merge.
const OVERWRITTEN: u64 = 4;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    match context.child.step.as_str() {
        "load" => {
            let store = load::<S>(context);
            process::wait_to_be_killed(&store);
        }
        "killed" => drop(opened::<S>(context, ["scale-open-killed", "scale-len-killed"])),
        _ => {
            let store = opened::<S>(context, ["scale-open-closed", "scale-len-closed"]);
            merge(context, &store);
        }
    }
}

/// Puts all keys, timing each put from the end of the one before, and looking at the memory now and
/// then. Returns the open store.
fn load<S: Store>(context: &Context<'_>) -> S {
    let (count, mut values, base) = (context.keys(), context.values(), Memory::now());
    let store = S::open(context.path(), &context.setup());
    let order = Order::new(count, context.seed(1));
    let (mut histogram, mut memory) = (Histogram::new(), Vec::new());
    let started = Instant::now();
    let mut last = started;
    for place in 0..count {
        let key = keys::key(order.at(place));
        store.put(&key, values.of(&key, 0));
        let now = Instant::now();
        histogram.add(now - last);
        last = now;
        if (place + 1).is_multiple_of(count / SAMPLES) {
            memory.push(Memory::now().since(base).anonymous as f64 / (place + 1) as f64);
            last = Instant::now();
        }
    }
    context.tell("scale-load", count as f64 / started.elapsed().as_secs_f64());
    context.tell("scale-put-p99.9", histogram.percentile(0.999) as f64 / 1e3);
    context.tell("scale-put-max", histogram.percentile(1.0) as f64 / 1e6);
    context.tell("scale-memory-mean", memory.iter().sum::<f64>() / memory.len() as f64);
    let second_half = memory[memory.len() / 2..].iter().copied();
    context.tell("scale-memory-worst", second_half.fold(0.0, f64::max));
    store.sync();
    measure::wait_until_quiet(context.path());
    let memory = Memory::now().since(base).anonymous as f64 / count as f64;
    context.tell("scale-memory", memory);
    let disk = measure::disk_size(context.path()) as f64 / count as f64;
    context.tell("scale-disk", disk);
    let stream: Vec<_> = keys::uniform(count, context.seed(2)).take(2 * context.ops()).collect();
    // The first half brings page tables and caches into a steady state.
    let (warm, measured) = stream.split_at(context.ops());
    let get = |keys: &[keys::Key]| {
        super::get_all(&store.view(), keys.iter().copied(), 0, &values, context.limit())
    };
    get(warm);
    context.tell("scale-get", get(measured));
    store
}

/// Opens the store, and tells the times until the first get has returned, and until all keys are
/// known.
fn opened<S: Store>(context: &Context<'_>, rows: [&str; 2]) -> S {
    let started = Instant::now();
    let store = S::open(context.path(), &context.setup());
    let key = keys::key(context.keys() / 2);
    assert!(store.view().get(&key, |_| {}), "{key:?} is missing");
    context.tell(rows[0], started.elapsed().as_secs_f64() * 1e3);
    assert_eq!(store.len(), Some(context.keys()));
    context.tell(rows[1], started.elapsed().as_secs_f64() * 1e3);
    store
}

/// Overwrites a part of the keys, and merges everything.
fn merge<S: Store>(context: &Context<'_>, store: &S) {
    let (count, mut values) = (context.keys(), context.values());
    let order = Order::new(count, context.seed(3));
    for place in 0..count / OVERWRITTEN {
        let key = keys::key(order.at(place));
        store.put(&key, values.of(&key, 1));
    }
    store.sync();
    measure::wait_until_quiet(context.path());
    let seconds = measure::seconds(|| assert!(store.merge(), "this store does not merge"));
    let live = count * (size_of::<keys::Key>() + context.arguments.value_size) as u64;
    context.tell("scale-merge", live as f64 / 1e6 / seconds);
}
