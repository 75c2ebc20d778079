//! Rules of the log and of the state machine that are left out, each of which the judge of crashes
//! has to notice; and a log that is tied to its state, as nodes have it.

use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _, RaftStateMachine as _};
use openraft::{RaftSnapshotBuilder as _, Vote};

use super::crash::{Dice, goes_on, log_run, read_log, read_state, state_run};
use super::suite::copy;
use super::*;
use crate::mistake::{Mistake, make};

/// Leaves out a rule. Returns what the judge says.
fn noticed(mistake: Mistake, judge: impl Fn(u64)) -> String {
    let failed = (0..4).find_map(|seed| make(mistake, || judge(seed)).err());
    let said = failed.unwrap_or_else(|| panic!("nobody notices {mistake:?}"));
    let said = said.downcast::<String>().map_or_else(|_| String::new(), |said| *said);
    println!("{mistake:?}: {said}");
    said
}

fn log(seed: u64) {
    now(log_run(seed)).judge(read_log);
}

fn state(seed: u64) {
    now(state_run(seed)).judge(read_state);
}

#[test]
fn what_counts_as_durable_before_its_sync_is_noticed() {
    use Mistake::{RaftDoneBeforeSync, RaftTruncationNotSynced, RaftVoteNotSynced};
    for mistake in [RaftDoneBeforeSync, RaftVoteNotSynced, RaftTruncationNotSynced] {
        let said = noticed(mistake, log);
        assert!(said.contains("is none of"), "{mistake:?}: {said}");
    }
}

#[test]
fn an_entry_without_its_place_is_noticed() {
    let said = noticed(Mistake::RaftPlaceForgotten, state);
    assert!(said.contains("is none of"), "{said}");
}

#[test]
fn a_snapshot_of_a_state_that_is_not_durable_is_noticed() {
    let said = noticed(Mistake::RaftStateNotSynced, state);
    assert!(said.contains("holds less than the snapshot beside it"), "{said}");
}

#[test]
fn a_snapshot_that_is_not_durable_when_it_is_installed_is_noticed() {
    let said = noticed(Mistake::RaftReceivedNotSynced, state);
    assert!(said.contains("the file ends here"), "{said}");
    let said = noticed(Mistake::RaftFilesNotNamed, state);
    assert!(said.contains("Corrupt"), "{said}");
}

#[test]
fn a_pointer_to_directories_whose_names_are_not_durable_is_noticed() {
    let said = noticed(Mistake::RaftPointerEarly, state);
    assert!(said.contains("which is not there"), "{said}");
}

/// Removes both ends of a log that is so long that each end takes several batches.
fn removals(_: u64) {
    let twin = Twin::new();
    let mut log = try_log(&twin).unwrap();
    now(log.blocking_append((0..24).map(|at| entry(1, at)))).unwrap();
    let begun = twin.op_count();
    now(log.truncate(log_id(1, 14))).unwrap();
    now(log.purge(log_id(1, 11))).unwrap();
    for ops in begun..=twin.op_count() {
        read_log(&twin.kill_image(ops));
    }
}

#[test]
fn a_removal_that_is_interrupted_leaves_no_gap() {
    removals(0);
    let said = noticed(Mistake::RaftTruncatedFromFront, removals);
    assert!(said.contains("has no entry 14"), "{said}");
    let said = noticed(Mistake::RaftPurgeNotedLate, removals);
    assert!(said.contains("a gap"), "{said}");
}

/// A node: a log that is tied to its state, and what a leader has told it.
struct TiedNode {
    log: LogStore<TestConfig>,
    state: StateMachine<TestConfig, Counting>,
    /// The terms of the entries of the log, as the leader has them.
    terms: Vec<u64>,
    /// Number of entries that are committed, and applied.
    applied: u64,
}

impl TiedNode {
    fn new(twin: &Arc<Twin>) -> Self {
        let state = try_state(twin).unwrap();
        let log = try_log(twin).unwrap().purging_after(&state);
        Self { log, state, terms: Vec::new(), applied: 0 }
    }

    fn len(&self) -> u64 {
        self.terms.len() as u64
    }

    fn entry(&self, index: u64) -> Entry<TestConfig> {
        entry(self.terms[usize::try_from(index).unwrap()], index)
    }

    async fn append(&mut self, term: u64, count: u64) {
        let (first, end) = (self.len(), self.len() + count);
        self.terms.extend((first..end).map(|_| term));
        self.log.blocking_append((first..end).map(|at| entry(term, at))).await.unwrap();
    }

    async fn apply(&mut self, count: u64) {
        let end = self.len().min(self.applied + count);
        let entries: Vec<_> = (self.applied..end).map(|at| self.entry(at)).collect();
        self.state.apply(entries).await.unwrap();
        self.applied = end;
    }

    /// Builds a snapshot, and purges what it holds, as openraft does.
    async fn build(&mut self) {
        let mut builder = self.state.get_snapshot_builder().await;
        let built = builder.build_snapshot().await.unwrap();
        if let Some(last) = built.meta.last_log_id {
            self.log.purge(last).await.unwrap();
        }
    }

    /// Replaces what is not committed by the snapshot of a leader of a later term.
    async fn install(&mut self, term: u64) {
        let mut leader = try_state(&Twin::new()).unwrap();
        let replaced = self.terms.split_off(usize::try_from(self.applied).unwrap());
        self.terms.extend([term; 3]);
        let entries: Vec<_> = (0..self.len()).map(|at| self.entry(at)).collect();
        leader.apply(entries).await.unwrap();
        let built = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let received = self.state.begin_receiving_snapshot().await.unwrap();
        copy(&built.snapshot, &received);
        // openraft purges before the snapshot is installed, and truncates if the log has another
        // entry in the place of its last one.
        if replaced.len() >= 3 {
            self.log.truncate(log_id(replaced[0], self.applied)).await.unwrap();
        }
        self.log.purge(built.meta.last_log_id.unwrap()).await.unwrap();
        self.state.install_snapshot(&built.meta, received).await.unwrap();
        self.applied = self.len();
    }
}

/// Does to a node what Raft does, by chance, and starts it from everything that a crash may leave.
fn tied(seed: u64) {
    let twin = Twin::new();
    now(async {
        let (mut node, mut dice) = (TiedNode::new(&twin), Dice(seed));
        node.log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
        for term in 1..12 {
            let begun = twin.op_count();
            match dice.below(5) {
                0 => node.build().await,
                1 => node.install(term).await,
                2 | 3 => node.apply(1 + dice.below(4)).await,
                _ => node.append(term, 1 + dice.below(5)).await,
            }
            for ops in begun + 1..=twin.op_count() {
                goes_on(&twin.kill_image(ops)).await;
                goes_on(&twin.power_image(ops, |_| dice.below(2) == 0)).await;
                goes_on(&twin.power_image(ops, |_| false)).await;
            }
        }
    });
}

#[test]
fn a_node_whose_log_is_tied_to_its_state_starts_after_any_crash() {
    for seed in 0..3 {
        tied(seed);
    }
}

#[test]
fn entries_that_are_purged_before_the_state_holds_them_are_noticed() {
    let said = noticed(Mistake::RaftPurgedEarly, tied);
    assert!(said.contains("but the state"), "{said}");
}
