//! Loading in key order, and overwriting everything again and again.

use super::{Context, UNLIMITED};
use crate::keys::{Key, Order, key};
use crate::measure;
use crate::stores::{Setup, Store};

const PASSES: u64 = 3;

pub(super) fn load_in_order<S: Store>(context: &Context<'_>) {
    let loading: Vec<Key> = (0..context.keys()).map(key).collect();
    let store = S::open(context.path(), &context.setup());
    let mut values = context.values();
    let rate = super::put_all(&store, loading.into_iter(), 0, &mut values, UNLIMITED);
    context.tell("load-in-order", rate);
}

/// Each pass has another random order.
pub(super) fn run<S: Store>(context: &Context<'_>) {
    let (count, mut values) = (context.keys(), context.values());
    let store = S::open(context.path(), &Setup { merging: true, ..context.setup() });
    let loading = Order::new(count, context.seed(1)).keys();
    super::put_all(&store, loading, 0, &mut values, UNLIMITED);
    let passes = (1..=PASSES).map(|pass| {
        let keys: Vec<Key> = Order::new(count, context.seed(1 + pass)).keys().collect();
        count as f64 / super::put_all(&store, keys.into_iter(), pass, &mut values, UNLIMITED)
    });
    let seconds: f64 = passes.sum();
    context.tell("rewrite", (PASSES * count) as f64 / seconds);
    let store = store.settle();
    measure::wait_until_quiet(context.path());
    let disk = measure::disk_size(context.path());
    context.tell("disk-rewritten", disk as f64 / f64::from(1 << 20));
    let found = super::found_of_sample(&store, count, PASSES, &values);
    assert_eq!(found, super::SAMPLE_LEN, "overwritten keys are missing");
}
