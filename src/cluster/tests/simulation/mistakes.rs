//! Mistakes that a node could make, and that the simulation finds.

use super::profile::Profile;
use super::run;
use crate::mistake::{Mistake, make};

/// Number of runs in which a mistake has to be found.
const SEEDS: u64 = 100;

/// Makes a mistake until a run fails in a certain way, from a seed on that is known to reveal it
/// soon. The same run passes without it.
fn found(mistake: Mistake, profile: Profile, first: u64, expected: &str) {
    let mut others = Vec::new();
    for seed in first..first + SEEDS {
        let failed = match make(mistake, || run(seed, profile)) {
            Ok(Ok(_)) => continue,
            Ok(Err(why)) => why,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        let message = failed.lines().next().unwrap_or_default().to_owned();
        println!("{mistake:?}, seed {seed} of {profile:?}: {message}");
        if message.contains(expected) {
            run(seed, profile).unwrap_or_else(|why| panic!("without the mistake as well: {why}"));
            return;
        }
        others.push(message);
    }
    panic!("{mistake:?} is not found, but {others:#?}")
}

#[test]
fn a_vote_that_is_not_durable_is_found() {
    // An entry is replaced by one of before those that a majority has.
    found(Mistake::RaftVoteNotSynced, Profile::Votes, 0, "Some(log_id) <= self.committed()");
}

#[test]
fn entries_that_count_before_their_sync_are_found() {
    found(Mistake::RaftDoneBeforeSync, Profile::Power, 1, "follower log reversion is not allowed");
}

#[test]
fn a_snapshot_without_its_place_is_found() {
    found(Mistake::RaftPlaceOfBefore, Profile::Members, 1, "differs in group");
}

#[test]
fn stale_reads_are_found() {
    found(Mistake::ReadNotConfirmed, Profile::Network, 3, "a read has position");
}

#[test]
fn entries_that_are_applied_twice_are_found() {
    found(Mistake::RaftPlaceBehind, Profile::Votes, 0, "differs in group");
}

#[test]
fn members_of_before_are_found() {
    // Not for a moment, or in one group.
    let expected = "it does not lead; nobody leads group 0; nobody leads group 1";
    found(Mistake::RaftMembersOfBefore, Profile::Power, 0, expected);
}

#[test]
fn members_that_only_those_of_before_have_accepted_are_found() {
    // A new voter lacks what it counts for.
    let expected = "follower log reversion is not allowed";
    found(Mistake::NewVoterNotAsked, Profile::Members, 0, expected);
}

#[test]
fn a_lost_redirect_is_found() {
    found(Mistake::RedirectLost, Profile::Network, 1, "does not get to the leader");
}

#[test]
fn a_redirect_after_a_write_is_found() {
    found(Mistake::UnknownRedirected, Profile::Network, 1, "appended twice");
}

#[test]
fn a_map_of_a_deposed_leader_is_found() {
    found(Mistake::MapShownEarly, Profile::Members, 11, "shows another map");
}
