//! Whole stores under a scheduler: tasks of every kind run concurrently, and are switched at every
//! lock, atomic and disk call as a seed determines.
//!
//! - `plan` rolls the tasks of a schedule. `tasks` runs them on a real store, on the tests' disk,
//!   and records each call in a `history`. `order` reads from the trace of the disk in which order
//!   changes were appended. `appended` checks that each call appended what it had to. `judge`
//!   compares the results of the calls, and what a crash leaves, with that order.
//! - The scheduler finds windows of a few instructions, which real threads almost never hit. A seed
//!   reproduces everything: what the tasks do, and how they are switched. A failure prints how to
//!   repeat it.
//! - Two schedulers take turns: one chooses at random at each step. The other (PCT: Burckhardt et
//!   al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010) runs the
//!   task with the highest priority, and changes priorities at a few steps.
//! - `mistakes` breaks rules of the engine, one at a time, and checks that each is detected.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle schedules
//! ```
//!
//! `BITCASK_LONG=n` runs n times as many, and `BITCASK_SEED=s` only those of one seed.

mod appended;
mod history;
mod judge;
mod mistakes;
mod order;
mod plan;
mod tasks;

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::{PctScheduler, RandomScheduler, UncontrolledNondeterminismCheckScheduler};
use shuttle::{Config, FailurePersistence, Runner};

use super::story::Random;
use super::*;
use plan::{Focus, Plan};

/// Number of schedules per seed. Each seed is another plan.
const EACH: usize = 24;

/// Number of priority changes in a schedule.
const DEPTH: usize = 3;

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    config
}

/// Runs the schedules of one seed.
fn run(focus: Focus, seed: u64) {
    let plan = Plan::roll(focus, seed);
    let crashes = std::sync::atomic::AtomicU64::new(seed);
    let act = move || {
        // Each schedule has different crashes.
        let crash = crashes.fetch_add(0x1_0000, std::sync::atomic::Ordering::Relaxed);
        let history = tasks::run(&plan);
        judge::all(&plan, &history, &mut Random(crash));
    };
    if seed.is_multiple_of(2) {
        Runner::new(RandomScheduler::new_from_seed(seed, EACH), config()).run(act);
    } else {
        Runner::new(PctScheduler::new_from_seed(seed, DEPTH, EACH), config()).run(act);
    }
}

/// Runs the schedules of some seeds, and prints how to repeat the first failure.
fn run_all(focus: Focus, seeds: std::ops::Range<u64>) {
    let only = std::env::var("BITCASK_SEED").ok().map(|seed| seed.parse().unwrap());
    let times = std::env::var("BITCASK_LONG").ok().map_or(1, |times| times.parse().unwrap_or(100));
    let last = seeds.start + (seeds.end - seeds.start) * times;
    for seed in only.map_or(seeds.start..last, |only: u64| only..only + 1) {
        let result = catch_unwind(AssertUnwindSafe(|| run(focus, seed)));
        assert!(
            result.is_ok(),
            "{focus:?}, seed {seed} failed, see above; to repeat it: \
             BITCASK_SEED={seed} RUSTFLAGS=\"--cfg shuttle\" cargo test --lib \
             --target-dir target/shuttle {}",
            focus.test()
        );
        if times > 1 && seed % 100 == 99 {
            println!("{focus:?}: {} schedules", (seed + 1 - seeds.start) * EACH as u64);
        }
    }
}

/// Number of seeds of each kind of plan in a normal run.
const SEEDS: u64 = 100;

#[test]
fn writers_with_merges() {
    run_all(Focus::Merges, 0..SEEDS);
}

#[test]
fn writers_with_everything() {
    run_all(Focus::Everything, 0..SEEDS);
}

#[test]
fn views_with_writers() {
    // For a snapshot to miss a change, the change has to be made and merged away while the snapshot
    // is taken.
    run_all(Focus::Views, 0..2 * SEEDS);
}

#[test]
fn followers_with_writers() {
    // These plans have the most tasks, and so the longest schedules.
    run_all(Focus::Followers, 0..SEEDS / 2);
}

#[test]
fn writers_of_few_keys() {
    run_all(Focus::Conflicts, 0..SEEDS);
}

#[test]
fn clears_with_writers() {
    // A clear is short, and the window is only a part of it.
    run_all(Focus::Clears, 0..2 * SEEDS);
}

#[test]
fn syncs_with_writers() {
    run_all(Focus::Syncs, 0..SEEDS);
}

#[test]
fn pauses_with_merges() {
    run_all(Focus::Pauses, 0..SEEDS);
}

/// A run that depends on anything besides the seed could not be repeated.
#[test]
fn a_schedule_can_be_repeated() {
    for (seed, focus) in (0..).zip(Focus::ALL) {
        let plan = Plan::roll(focus, seed);
        let act = move || drop(tasks::run(&plan));
        let scheduler = RandomScheduler::new_from_seed(seed, 4);
        let check = UncontrolledNondeterminismCheckScheduler::new(scheduler);
        Runner::new(check, config()).run(act);
    }
}
