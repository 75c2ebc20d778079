//! Durations of single puts and gets while the log rotates, a sync runs every second, and merges
//! free dead data.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Context;
use crate::histogram::{self, Histogram};
use crate::keys::{self, Order};
use crate::random::Random;
use crate::stores::{Setup, Store, View};

/// Number of puts for each key.
const PUTS_A_KEY: u64 = 4;
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Number of rounds between two looks at the clock.
const STEP: u64 = 1024;

pub(super) fn run<S: Store>(context: &Context<'_>) {
    let store = S::open(context.path(), &Setup { merging: true, ..context.setup() });
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let syncer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(SYNC_INTERVAL);
                store.sync();
            }
        });
        Calls::new(context).run(&store);
        is_over.store(true, Ordering::Relaxed);
        syncer.thread().unpark();
    });
}

/// The calls of one thread, and their durations.
struct Calls<'a> {
    context: &'a Context<'a>,
    new: Histogram,
    put: Histogram,
    get: Histogram,
    nothing: Histogram,
}

impl<'a> Calls<'a> {
    fn new(context: &'a Context<'a>) -> Self {
        let [new, put, get, nothing] = [(); 4].map(|()| Histogram::new());
        Self { context, new, put, get, nothing }
    }

    /// In each round, puts a key, gets an earlier one, and times nothing.
    fn run<S: Store>(mut self, store: &S) {
        let count = self.context.keys();
        let (order, mut random) = (Order::new(count, 1), Random::new(2));
        let (mut values, started) = (self.context.values(), Instant::now());
        for round in 0..PUTS_A_KEY * count {
            let is_new = round < count;
            let place = if is_new { round } else { random.below(count) };
            let key = keys::key(order.at(place));
            let value = values.of(&key, round);
            let took = timed(|| store.put(&key, value));
            if is_new {
                self.new.add(took);
            } else {
                self.put.add(took);
            }

            let key = keys::key(order.at(random.below(count.min(round + 1))));
            let mut version = None;
            let took = timed(|| {
                store.view().get(&key, |value| version = Some(values.version(&key, value)));
            });
            self.get.add(took);
            assert!(version.is_some_and(|version| version <= round), "{key:?} is missing");

            self.nothing.add(timed(|| histogram::nothing(round)));
            if round.is_multiple_of(STEP) && started.elapsed() > self.context.limit() {
                break;
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let calls = [
            ("new", &self.new),
            ("put", &self.put),
            ("get", &self.get),
            ("nothing", &self.nothing),
        ];
        for (call, histogram) in calls {
            let parts = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
            for (name, part) in parts {
                let micros = histogram.percentile(part) as f64 / 1e3;
                self.context.tell(&format!("{call}-{name}"), micros);
            }
        }
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let started = Instant::now();
    act();
    started.elapsed()
}
