//! Mistakes that a node could make, and that the simulation finds.

use super::profile::Profile;
use super::run;
use crate::mistake::{Mistake, make};

/// Number of runs in which a mistake has to be found.
const SEEDS: u64 = 100;

/// Makes a mistake until a run fails. Returns why.
fn found(mistake: Mistake, profile: Profile) -> String {
    for seed in 0..SEEDS {
        let failed = match make(mistake, || run(seed, profile)) {
            Ok(Ok(_)) => continue,
            Ok(Err(why)) => why,
            Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        println!("{mistake:?}, seed {seed} of {profile:?}: {failed}");
        run(seed, profile).unwrap_or_else(|why| panic!("without the mistake as well: {why}"));
        return failed;
    }
    panic!("{mistake:?} is not found")
}

#[test]
fn a_vote_that_is_not_durable_is_found() {
    found(Mistake::RaftVoteNotSynced, Profile::Votes);
}

#[test]
fn entries_that_count_before_their_sync_are_found() {
    found(Mistake::RaftDoneBeforeSync, Profile::Power);
}

#[test]
fn a_snapshot_without_its_place_is_found() {
    found(Mistake::RaftPlaceOfBefore, Profile::Members);
}

#[test]
fn stale_reads_are_found() {
    found(Mistake::ReadNotConfirmed, Profile::Network);
}

#[test]
fn entries_that_are_applied_twice_are_found() {
    found(Mistake::RaftPlaceForgotten, Profile::Power);
}

#[test]
fn members_of_before_are_found() {
    found(Mistake::RaftMembersOfBefore, Profile::Power);
}

#[test]
fn a_lost_redirect_is_found() {
    found(Mistake::RedirectLost, Profile::Network);
}

#[test]
fn a_redirect_after_a_write_is_found() {
    found(Mistake::UnknownRedirected, Profile::Network);
}

#[test]
fn a_map_of_a_deposed_leader_is_found() {
    found(Mistake::MapShownEarly, Profile::Members);
}
