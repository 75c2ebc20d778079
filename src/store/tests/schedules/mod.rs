//! Whole stores under a scheduler: tasks of every kind at once, switched at every lock, atomic and
//! call to the disk, as a seed says.
//!
//! - `plan` rolls what the tasks of a schedule do; `tasks` does it on a real store, on the tests' disk,
//!   and notes each call in a `history`; `order` reads from the trace of the disk in which order
//!   changes were appended; `appended` asks of each call that it has appended what it had to, and
//!   `judge` compares what the calls returned, and what a crash leaves, with that order.
//! - The scheduler finds windows of a few instructions that threads of the machine all but never hit,
//!   and a seed repeats the whole: what the tasks do, and how they are switched. What fails says how.
//! - Two schedulers take turns: one that chooses at random at each step, and one (PCT: Burckhardt et
//!   al., "A randomized scheduler with probabilistic guarantees of finding bugs", 2010) that lets the
//!   task with the highest priority run, and changes priorities at a few steps.
//! - `mistakes` breaks rules of the engine, one at a time, and has to see each of them noticed.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle schedules
//! ```
//!
//! `BITCASK_LONG=n` runs n times as many, `BITCASK_SEED=s` those of one seed alone.

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

/// Schedules of one seed: each seed is another plan.
const EACH: usize = 24;

/// How many changes of priority a schedule has.
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
        // Each schedule has crashes of its own.
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

/// Runs the schedules of some seeds, and says how the first that fails is repeated.
fn run_all(focus: Focus, seeds: std::ops::Range<u64>) {
    let only = std::env::var("BITCASK_SEED").ok().map(|seed| seed.parse().unwrap());
    let times = std::env::var("BITCASK_LONG").ok().map_or(1, |times| times.parse().unwrap_or(100));
    let last = seeds.start + (seeds.end - seeds.start) * times;
    for seed in only.map_or(seeds.start..last, |only: u64| only..only + 1) {
        let result = catch_unwind(AssertUnwindSafe(|| run(focus, seed)));
        assert!(
            result.is_ok(),
            "{focus:?}, seed {seed} failed, as told above; to repeat it: \
             BITCASK_SEED={seed} RUSTFLAGS=\"--cfg shuttle\" cargo test --lib \
             --target-dir target/shuttle {}",
            focus.test()
        );
        if times > 1 && seed % 100 == 99 {
            println!("{focus:?}: {} schedules", (seed + 1 - seeds.start) * EACH as u64);
        }
    }
}

/// Seeds of each kind of plan in a normal run.
const SEEDS: u64 = 100;

#[test]
fn writers_beside_merges() {
    run_all(Focus::Merges, 0..SEEDS);
}

#[test]
fn writers_beside_everything() {
    run_all(Focus::Everything, 0..SEEDS);
}

#[test]
fn views_beside_writers() {
    // What a snapshot misses has to be changed and merged away while it is taken.
    run_all(Focus::Views, 0..2 * SEEDS);
}

#[test]
fn followers_beside_writers() {
    // They have the most tasks, and so the longest schedules.
    run_all(Focus::Followers, 0..SEEDS / 2);
}

#[test]
fn writers_of_few_keys() {
    run_all(Focus::Conflicts, 0..SEEDS);
}

#[test]
fn clears_beside_writers() {
    // A clear is short, and its window a part of that.
    run_all(Focus::Clears, 0..2 * SEEDS);
}

#[test]
fn syncs_beside_writers() {
    run_all(Focus::Syncs, 0..SEEDS);
}

/// What is not decided by the seed could not be repeated.
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
