//! Opening after a close, and after the process was killed.

use std::time::Instant;

use super::{Context, SAMPLE_LEN, UNLIMITED};
use crate::keys::{self, Order};
use crate::process;
use crate::stores::{Store, View};

/// Version of all values.
const VERSION: u64 = 0;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    match context.child.step.as_str() {
        "load" => {
            let store = S::open(context.path(), &context.setup());
            let loading = Order::new(context.keys(), context.seed(1)).keys();
            super::put_all(&store, loading, VERSION, &mut context.values(), UNLIMITED);
            store.sync();
            process::wait_to_be_killed(&store);
        }
        "killed" => {
            let store = opened::<S>(context, "open-killed", false);
            let values = context.values();
            let found = super::found_of_sample(&store, context.keys(), VERSION, &values);
            context.tell("kept", 100.0 * found as f64 / SAMPLE_LEN as f64);
        }
        _ => {
            opened::<S>(context, "open-closed", true);
        }
    }
}

/// Opens the store, and tells the time until the first get has returned.
fn opened<S: Store>(context: &Context<'_>, row: &str, is_closed: bool) -> S {
    let started = Instant::now();
    let store = S::open(context.path(), &context.setup());
    let key = keys::key(context.keys() / 2);
    let is_there = store.view().get(&key, |_| {});
    context.tell(row, started.elapsed().as_secs_f64() * 1e3);
    assert!(is_there || !is_closed || !S::DURABLE, "{key:?} is missing");
    store
}
