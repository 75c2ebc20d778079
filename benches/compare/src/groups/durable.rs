//! Writes that are on the disk when they return. The disk decides how many there are, so each row
//! runs for a time.

use std::time::Duration;

use super::Context;
use crate::keys::{Key, key};
use crate::measure;
use crate::stores::{BATCH_LEN, Setup, Store};

const TIME: Duration = Duration::from_secs(3);
const THREADS: u64 = 8;
/// Keys of different threads and rows are that far apart.
const APART: u64 = 1 << 20;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    if !S::DURABLE {
        return;
    }
    let store = S::open(context.path(), &Setup { durable: true, ..context.setup() });
    if context.wants("durable-put") {
        context.tell("durable-put", measure::rate_in_threads(1, |_| puts(context, &store, 0)));
    }
    if context.wants("durable-put-8") {
        let rate =
            measure::rate_in_threads(THREADS, |thread| puts(context, &store, (1 + thread) * APART));
        context.tell("durable-put-8", rate);
    }
    if context.wants("durable-batch") {
        let mut values = context.values();
        let keys: Vec<Key> = (0..10 * APART).map(|number| key(10 * APART + number)).collect();
        let (count, took) = measure::counted(keys.chunks(BATCH_LEN), TIME, |batch| {
            store.put_batch(batch, 0, &mut values);
            batch.len() as u64
        });
        context.tell("durable-batch", count as f64 / took.as_secs_f64());
    }
}

/// Puts keys from a number on until the time is up. Returns how many.
fn puts<S: Store>(context: &Context<'_>, store: &S, first: u64) -> u64 {
    let mut values = context.values();
    let put = |number| {
        let key = key(number);
        store.put(&key, values.of(&key, 0));
        1
    };
    measure::counted(first.., TIME, put).0
}
