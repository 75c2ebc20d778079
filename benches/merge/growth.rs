//! Disk space of a store with the default policy that is overwritten at a steady rate, for longer
//! than two checks of the policy.
//!
//! - Between two checks, nothing is merged, so the store grows by all that is written, and goes on
//!   growing until the merge has copied the live data and removes the old segments. The bound is
//!   that of `docs/tuning.md`.
//! - Sizes are those of `space`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitcask::{AutoMerge, MergePolicy, Options};

use crate::space::size;
use crate::support::{self, VALUE_SIZE, keys};

/// Overwrites per second.
const RATE: u64 = 100_000;
/// Overwrites between two looks at the clock and at the directory.
const STEP: usize = 10_000;
/// Dead data that a check may leave: 512 MiB in all, or 40 % of each segment, which is two thirds
/// of the live data.
const LEFT_MIB: f64 = 512.0;
const LEFT_SHARE: f64 = 2.0 / 3.0;
/// For how many check intervals the store is overwritten.
const INTERVALS: f64 = 2.2;

pub(crate) fn run(keys: usize) {
    let directory = support::directory();
    let store = directory.path().join("store");
    let merges = Arc::new(AtomicU64::new(0));
    let longest = Arc::new(AtomicU64::new(0));
    let (counted, timed) = (Arc::clone(&merges), Arc::clone(&longest));
    let mut auto = AutoMerge::new().on_finish(move |result| {
        let millis = result.as_ref().unwrap().duration.as_millis();
        counted.fetch_add(1, Ordering::Relaxed);
        timed.fetch_max(u64::try_from(millis).unwrap(), Ordering::Relaxed);
    });
    if !support::is_bench() {
        auto = auto.check_interval(Duration::from_millis(500));
    }
    let interval = auto.get_check_interval();
    let value = support::value(VALUE_SIZE);
    let mut order = keys::shuffled(keys, 1);
    let options = Options::new().merge_policy(MergePolicy::Auto(auto));
    let db = support::loaded(&store, options, &order, &value);
    let live = size(&store);
    let (mut peak, mut written, mut round) = (live, 0, 1);
    let started = Instant::now();
    let mut write = |keys: &[keys::Key]| {
        for key in keys {
            db.put(key, &value).unwrap();
        }
        written += keys.len() as u64;
        peak = peak.max(size(&store));
        let due = Duration::from_secs_f64(written as f64 / RATE as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
        let is_over = started.elapsed() > interval.mul_f64(INTERVALS);
        if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    while order.chunks(STEP).try_for_each(&mut write).is_continue() {
        round += 1;
        order = keys::shuffled(keys, round);
    }
    let took = started.elapsed().as_secs_f64();
    assert_eq!(db.len().unwrap(), keys as u64);
    db.close().unwrap();
    let mib = |size: f64| size / 1024.0 / 1024.0;
    let live = mib(live as f64);
    let rate = live / keys as f64 * written as f64 / took;
    println!("\n### Growth: overwritten at a steady rate, values of {VALUE_SIZE} B\n");
    println!(
        "| live, MiB | written, MiB/s | check, s | run, s | merges | longest, s | peak, MiB \
              | by the formula, at most |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let left = LEFT_MIB.max(live * LEFT_SHARE);
    let merging = Duration::from_millis(longest.load(Ordering::Relaxed)).as_secs_f64();
    let bound = live + left + rate * (interval.as_secs_f64() + merging) + live;
    println!(
        "| {live:.0} | {rate:.1} | {} | {took:.0} | {} | {merging:.1} | {:.0} | {bound:.0} |",
        interval.as_secs_f64(),
        merges.load(Ordering::Relaxed),
        mib(peak as f64),
    );
}
