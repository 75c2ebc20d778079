//! Mistakes that schedules must detect, each made by an otherwise sound engine. A check that
//! detects nothing proves nothing. `tests/crash/mistakes.rs` has the mistakes that only crashes can
//! show.

use super::*;
use crate::mistake::{Mistake, make};

/// The mistakes, each with the plans that come close to it, the closest first.
const MISTAKES: [(Mistake, &[Focus]); 20] = [
    (Mistake::SealedInFlight, &[Focus::Merges, Focus::Everything]),
    (Mistake::CountLoweredEarly, &[Focus::Merges, Focus::Everything]),
    (Mistake::MomentInFlight, &[Focus::Views, Focus::Followers]),
    (Mistake::ToldInFlight, &[Focus::Followers]),
    (Mistake::ReadableEarly, &[Focus::Followers]),
    (Mistake::ShardReleasedEarly, &[Focus::Conflicts, Focus::Merges]),
    (Mistake::SlotNotCompared, &[Focus::Merges, Focus::Everything]),
    (Mistake::RemovalNotedLate, &[Focus::Views]),
    (Mistake::NumberFreedEarly, &[Focus::Everything, Focus::Merges]),
    (Mistake::FilledAgain, &[Focus::Everything, Focus::Merges]),
    (Mistake::DurableBeforeSync, &[Focus::Syncs]),
    (Mistake::ServedByAnySync, &[Focus::Syncs]),
    (Mistake::AbsenceNotDurable, &[Focus::Syncs]),
    (Mistake::DeletesForgotten, &[Focus::Conflicts]),
    (Mistake::ConditionsUnlocked, &[Focus::Conflicts]),
    (Mistake::RangesNotLookedAtAgain, &[Focus::Conflicts]),
    (Mistake::HistoryNotReadAgain, &[Focus::Clears]),
    (Mistake::PinnedLate, &[Focus::Views]),
    (Mistake::PauseSeenEarly, &[Focus::Pauses]),
    (Mistake::BackupUnguarded, &[Focus::Views, Focus::Everything]),
];

/// Number of seeds to try: as many as a normal run of all tests has.
const BUDGET: u64 = SEEDS * Focus::ALL.len() as u64;

/// How a mistake was detected, if it was, and after how many seeds.
struct Caught {
    focus: Focus,
    seed: u64,
    seeds: u64,
    told: String,
}

fn caught(mistake: Mistake, focuses: &'static [Focus]) -> Option<Caught> {
    let search = move || {
        (0..BUDGET).find_map(|tried| {
            let len = focuses.len() as u64;
            let focus = focuses[usize::try_from(tried % len).unwrap()];
            let (seed, seeds) = (tried / len, tried + 1);
            let panic = make(mistake, || run(focus, seed)).err()?;
            Some(Caught { focus, seed, seeds, told: told(&*panic) })
        })
    };
    // A failing schedule leaves its thread panicking.
    std::thread::spawn(search).join().unwrap()
}

/// Returns the first line of a panic's message.
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.lines().next().unwrap_or_default().chars().take(120).collect()
}

#[test]
fn every_mistake_of_threads_is_detected() {
    let mut missed = Vec::new();
    let mut tried = 0;
    let only = std::env::var("BITCASK_MISTAKE").unwrap_or_default();
    for (mistake, focuses) in MISTAKES {
        if !format!("{mistake:?}").contains(&only) {
            continue;
        }
        tried += 1;
        match caught(mistake, focuses) {
            Some(Caught { focus, seed, seeds, told }) => {
                let schedules = seeds * EACH as u64;
                println!(
                    "{mistake:?}: within {schedules} schedules ({focus:?}, seed {seed}): {told}"
                );
            }
            None => missed.push(mistake),
        }
    }
    println!("{} of {} mistakes noticed", tried - missed.len(), tried);
    assert!(tried > 0, "there is no such mistake");
    assert_eq!(missed, []);
}
