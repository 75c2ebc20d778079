//! How far a node may be behind with what it has committed.
//!
//! - openraft commits what its leader has committed, and keeps it in memory until it is applied. A
//!   node whose store is slower than its log would run out of memory.
//! - Such a node takes no more entries until it has applied some, and hears its leader all the
//!   same. It does not wait within openraft, which would not notice the leader meanwhile.
//! - Only what is committed counts. It is applied whatever comes, so no node waits for ever.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{EntryPayload, Raft};
use tokio::time::Instant;

use super::consensus::{Consensus, Request};

/// Size in bytes of what is committed and not applied, above which a node takes no more entries.
/// Tests have no time for as much.
const BACKLOG_MAX: usize = if cfg!(test) { 64 << 10 } else { 64 << 20 };
/// About how many bytes an entry takes besides its requests.
const ENTRY_OVERHEAD: usize = 256;
/// How often is looked whether there is room for more entries.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The answer of a node to entries.
type Taken = Result<AppendEntriesResponse<u64>, RaftError<u64>>;

/// What a node has taken of its leaders, and not applied.
#[derive(Debug, Default)]
pub(super) struct ApplyBacklog {
    /// Lock 9: the entries, only for a moment.
    taken: Mutex<TakenEntries>,
}

#[derive(Debug, Default)]
struct TakenEntries {
    /// The last index and the size of the entries that have come together, in the order of the log.
    pieces: VecDeque<(u64, usize)>,
    /// The index up to which this node has surely committed its log.
    committed: u64,
}

impl ApplyBacklog {
    fn lock(&self) -> MutexGuard<'_, TakenEntries> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries, or a heartbeat. If this node is too far behind, it takes the entries once it
    /// has applied others, or none of them if that takes long.
    pub(super) async fn append(
        &self,
        raft: &Raft<Consensus>,
        rpc: AppendEntriesRequest<Consensus>,
    ) -> Taken {
        let applied = || raft.metrics().borrow().last_applied.map(|at| at.index);
        let previous = rpc.prev_log_id;
        if !rpc.entries.is_empty() && previous.is_some() && self.is_full(applied()) {
            let entries = Vec::new();
            let (vote, leader_commit) = (rpc.vote, rpc.leader_commit);
            let heartbeat =
                AppendEntriesRequest { vote, prev_log_id: previous, leader_commit, entries };
            match self.take(raft, heartbeat).await {
                Ok(AppendEntriesResponse::Success) => {}
                refused => return refused,
            }
            // The leader does not wait longer than from one heartbeat to the next.
            let held_back_max = Duration::from_millis(raft.config().heartbeat_interval / 2);
            let until = Instant::now() + held_back_max;
            while self.is_full(applied()) {
                if Instant::now() >= until {
                    return Ok(AppendEntriesResponse::PartialSuccess(previous));
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        self.take(raft, rpc).await
    }

    async fn take(&self, raft: &Raft<Consensus>, rpc: AppendEntriesRequest<Consensus>) -> Taken {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let committed = rpc.leader_commit.min(last);
        self.note(&rpc);
        let taken = raft.append_entries(rpc).await;
        if matches!(taken, Ok(AppendEntriesResponse::Success)) {
            self.commit(committed.map(|at| at.index));
        }
        taken
    }

    /// Returns whether this node is too far behind to take more, if it has applied its log up to an
    /// index.
    fn is_full(&self, applied: Option<u64>) -> bool {
        let mut taken = self.lock();
        taken.pieces.retain(|(last, _)| Some(*last) > applied);
        let committed = taken.committed;
        let behind = taken.pieces.iter().filter(|(last, _)| *last <= committed);
        behind.map(|(_, size)| size).sum::<usize>() > BACKLOG_MAX
    }

    /// Notes entries that this node is about to take. They replace those that it has in their
    /// place.
    fn note(&self, rpc: &AppendEntriesRequest<Consensus>) {
        let (Some(first), Some(last)) = (rpc.entries.first(), rpc.entries.last()) else { return };
        let size = rpc.entries.iter().map(|entry| match &entry.payload {
            EntryPayload::Normal(proposal) => {
                proposal.requests.iter().map(Request::size).sum::<usize>() + ENTRY_OVERHEAD
            }
            _ => ENTRY_OVERHEAD,
        });
        let piece = (last.log_id.index, size.sum());
        let mut taken = self.lock();
        taken.pieces.retain(|(last, _)| *last < first.log_id.index);
        taken.pieces.push_back(piece);
    }

    /// Notes that this node has committed its log up to an index.
    fn commit(&self, index: Option<u64>) {
        let mut taken = self.lock();
        taken.committed = taken.committed.max(index.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, Entry, LogId, Vote};

    use super::*;
    use crate::cluster::consensus::Proposal;

    /// Returns entries of about 40 KiB.
    fn entries(indexes: std::ops::Range<u64>) -> AppendEntriesRequest<Consensus> {
        let entry = |index| {
            let requests = std::iter::repeat_n(Request::Tick, (20 << 10) / size_of::<Request>());
            let proposal = Proposal { time: 0, seed: 0, requests: requests.collect() };
            let log_id = LogId::new(CommittedLeaderId::new(1, 1), index);
            Entry { log_id, payload: EntryPayload::Normal(proposal) }
        };
        let entries = indexes.map(entry).collect();
        let vote = Vote::new_committed(1, 1);
        AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None }
    }

    #[test]
    fn only_what_is_committed_and_not_applied_counts() {
        let backlog = ApplyBacklog::default();
        assert!(!backlog.is_full(None));
        for first in [1, 3, 5] {
            backlog.note(&entries(first..first + 2));
        }
        assert!(!backlog.is_full(None), "a leader may replace all of it");
        backlog.commit(Some(2));
        assert!(!backlog.is_full(None));
        backlog.commit(Some(4));
        backlog.commit(None);
        assert!(backlog.is_full(None) && backlog.is_full(Some(1)));
        assert!(!backlog.is_full(Some(2)));
        backlog.commit(Some(6));
        assert!(backlog.is_full(Some(2)) && !backlog.is_full(Some(4)));
    }

    #[test]
    fn entries_that_come_again_count_once() {
        let backlog = ApplyBacklog::default();
        for _ in 0..5 {
            backlog.note(&entries(1..3));
        }
        backlog.commit(Some(2));
        assert!(!backlog.is_full(None));
        // A snapshot has replaced the state.
        assert!(!backlog.is_full(Some(90)));
        assert!(backlog.lock().pieces.is_empty());
    }
}
