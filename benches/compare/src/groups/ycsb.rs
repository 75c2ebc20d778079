//! The core workloads of YCSB: Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking
//! cloud serving systems with YCSB", ACM Symposium on Cloud Computing 2010, as listed at
//! <https://github.com/brianfrankcooper/YCSB/wiki/Core-Workloads>.
//!
//! D runs last, because it inserts, and E on a store of its own; the authors recommend this order.
//! A read-modify-write is a get and a put, as in YCSB. Everything random is drawn before the timing
//! begins.

use super::{Context, UNLIMITED};
use crate::keys::{self, Order, Values};
use crate::measure;
use crate::random::{Random, ZIPF_EXPONENT, Zipf};
use crate::stores::{Store, View};

const OPS_MAX: usize = 1_000_000;
/// Maximum number of pairs in a scan of workload E.
const SCAN_LEN_MAX: u64 = 100;

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Update,
    Insert,
    /// A scan of so many pairs.
    Scan(u64),
    ReadModifyWrite,
}

struct Workload {
    row: &'static str,
    reads: Kind,
    others: Kind,
    /// Share of the other operations.
    others_percent: u64,
    /// Whether reads prefer the keys that were inserted last.
    latest: bool,
}

const fn workload(row: &'static str, others: Kind, others_percent: u64) -> Workload {
    Workload { row, reads: Kind::Read, others, others_percent, latest: false }
}

const WORKLOADS: [Workload; 5] = [
    workload("ycsb-a", Kind::Update, 50),
    workload("ycsb-b", Kind::Update, 5),
    workload("ycsb-c", Kind::Update, 0),
    workload("ycsb-f", Kind::ReadModifyWrite, 50),
    Workload { latest: true, ..workload("ycsb-d", Kind::Insert, 5) },
];

const RANGES: Workload = Workload { reads: Kind::Scan(0), ..workload("ycsb-e", Kind::Insert, 5) };

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let (store, mut state) = loaded::<S>(context, S::open(context.path(), &context.setup()));
    state.measure(context, &store, &WORKLOADS);
}

/// Runs workload E, in stores that have an order.
pub(super) fn run_ranges<S: Store>(context: &Context<'_>) {
    let store = S::open(context.path(), &context.setup());
    if store.ordered().is_some() {
        let (store, mut state) = loaded::<S>(context, store);
        // A store that keeps no order until it is asked for one sorts its keys now.
        state.scan(&store, 0, 1);
        state.measure(context, &store, &[RANGES]);
    }
}

fn loaded<S: Store>(context: &Context<'_>, store: S) -> (S, State) {
    let mut values = context.values();
    let loading = Order::new(context.keys(), context.seed(1)).keys();
    super::put_all(&store, loading, 0, &mut values, UNLIMITED);
    let store = store.settle();
    super::scan_all(&store, context.keys(), 0, &values, UNLIMITED);
    (store, State { count: context.keys(), latest: 0, values })
}

/// Draws the operations with the numbers of their keys, or how far back these are if the latest are
/// preferred.
fn drawn(workload: &Workload, count: u64, seed: u64) -> Vec<(Kind, u64)> {
    let (mut random, zipf) = (Random::new(seed), Zipf::new(count, ZIPF_EXPONENT));
    let order = Order::new(count, !seed);
    let draw = || {
        let rank = zipf.rank(&mut random) - 1;
        let number = if workload.latest { rank } else { order.at(rank) };
        let is_other = random.below(100) < workload.others_percent;
        match if is_other { workload.others } else { workload.reads } {
            Kind::Scan(_) => (Kind::Scan(1 + random.below(SCAN_LEN_MAX)), number),
            kind => (kind, number),
        }
    };
    std::iter::repeat_with(draw).take(OPS_MAX.min(count as usize)).collect()
}

/// What the workloads have done to the store.
struct State {
    /// Number of keys.
    count: u64,
    /// The latest version of any key.
    latest: u64,
    values: Values,
}

impl State {
    fn measure<S: Store>(&mut self, context: &Context<'_>, store: &S, workloads: &[Workload]) {
        for (number, workload) in workloads.iter().enumerate() {
            if !context.wants(workload.row) {
                continue;
            }
            let ops = drawn(workload, self.count, context.seed(2 + number as u64));
            let rate = measure::rate(ops, context.limit(), |(kind, number)| {
                let number = if workload.latest { self.count - 1 - number } else { number };
                self.act(store, kind, number);
            });
            context.tell(workload.row, rate);
        }
    }

    fn act<S: Store>(&mut self, store: &S, kind: Kind, number: u64) {
        let key = keys::key(number);
        match kind {
            Kind::Read => {
                self.read(store, &key);
            }
            Kind::Update => {
                self.latest += 1;
                store.put(&key, self.values.of(&key, self.latest));
            }
            Kind::Insert => {
                let key = keys::key(self.count);
                self.count += 1;
                store.put(&key, self.values.of(&key, 0));
            }
            Kind::Scan(len) => self.scan(store, number, len),
            Kind::ReadModifyWrite => {
                let version = self.read(store, &key) + 1;
                self.latest = self.latest.max(version);
                store.put(&key, self.values.of(&key, version));
            }
        }
    }

    /// Returns the version that was read.
    fn read<S: Store>(&self, store: &S, key: &keys::Key) -> u64 {
        let mut version = 0;
        let is_there = store.view().get(key, |value| version = self.values.version(key, value));
        assert!(is_there, "{key:?} is missing");
        assert!(version <= self.latest, "a value of a version that was never written");
        version
    }

    fn scan<S: Store>(&self, store: &S, first: u64, len: u64) {
        let mut next = first;
        let len = len.min(self.count - first);
        store.ordered().unwrap().scan(&keys::key(first), &mut |key, value| {
            assert_eq!(key, keys::key(next), "a key is missing or out of order");
            assert!(self.values.version(key, value) <= self.latest);
            next += 1;
            next < first + len
        });
        assert_eq!(next, first + len, "keys are missing");
    }
}
