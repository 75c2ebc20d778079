//! Values of 4 KiB.

use super::{Context, UNLIMITED};
use crate::keys::{self, Key, Order, Values};
use crate::stores::{Setup, Store};

const VALUE_SIZE: usize = 4096;
/// Number of usual keys for each key with a large value.
const KEYS_FEWER: u64 = 16;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let count = (context.keys() / KEYS_FEWER).max(1);
    let mut values = Values::new(VALUE_SIZE);
    let order = |seed| -> Vec<Key> { Order::new(count, context.seed(seed)).keys().collect() };
    let (first, second) = (order(1), order(2));
    let store = S::open(context.path(), &Setup { keys: count, ..context.setup() });
    let rate = super::put_all(&store, first.into_iter(), 0, &mut values, UNLIMITED);
    context.tell("large-load", rate);
    let rate = super::put_all(&store, second.into_iter(), 1, &mut values, UNLIMITED);
    context.tell("large-overwrite", rate);
    let store = store.settle();
    super::scan_all(&store, count, 1, &values, UNLIMITED);
    let stream: Vec<Key> = keys::uniform(count, context.seed(3)).take(context.ops()).collect();
    let rate = super::get_all(&store.view(), stream, 1, &values, context.limit());
    context.tell("large-get", rate);
}
