//! Real threads on real files: every operation of a store, concurrently, on few keys, during
//! merges. Each call is recorded, and the records of each key must be linearizable as a single
//! register (`linear`), also across closing and reopening.
//!
//! `BITCASK_STRESS=1000 cargo test --release --test it stress -- --nocapture` plays that many
//! rounds. `BITCASK_STRESS_SEED` is the first round's seed, which determines what is done but not
//! when. With `BITCASK_STRESS_MERGES=off`, nothing is merged.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index in a helper fails the test")]

mod actor;
mod deletes;
mod history;
mod linear;
mod linear_tests;
mod load;
mod readers;
mod round;
mod writers;

use std::env;

use round::{Outcome, Plan, Steps, play};

/// Default number of rounds.
const ROUNDS: u64 = 10;
/// Maximum number of violations that are printed in full.
const STORIES_MAX: usize = 6;

/// Returns a number from the environment.
fn asked(name: &str) -> Option<u64> {
    env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Plays rounds, and prints the progress now and then. Returns the number of rounds with
/// violations.
fn play_rounds(rounds: u64, first: u64, merges: bool) -> u64 {
    let steps = Steps { generations: 6, writes: 50, slow_writes: 12, reads: 200 };
    let (mut all, mut stories, mut bad) = (Outcome::default(), 0, 0);
    for number in 1..=rounds {
        let seed = first + number - 1;
        let Outcome { ops, merges, violations } = play(&Plan::new(seed, merges), steps);
        for violation in violations.iter().take(STORIES_MAX.saturating_sub(stories)) {
            println!("round of seed {seed}, {violation}");
            stories += 1;
        }
        bad += u64::from(!violations.is_empty());
        all.ops += ops;
        all.merges += merges;
        all.violations.extend(violations);
        if number % (rounds / 20).max(1) == 0 || number == rounds {
            let (ops, merges, found) = (all.ops, all.merges, all.violations.len());
            println!(
                "{number} rounds, the last of seed {seed}: {ops} operations, {merges} merges, \
                 {found} violations in {bad} rounds"
            );
        }
    }
    bad
}

#[test]
fn every_key_is_linearizable_under_concurrent_operations() {
    let (rounds, first) = (asked("BITCASK_STRESS"), asked("BITCASK_STRESS_SEED"));
    let merges = env::var("BITCASK_STRESS_MERGES").as_deref() != Ok("off");
    let (rounds, first) = (rounds.unwrap_or(ROUNDS), first.unwrap_or(1));
    let bad = play_rounds(rounds, first, merges);
    assert_eq!(bad, 0, "rounds with violations, of {rounds} from seed {first} on");
}
