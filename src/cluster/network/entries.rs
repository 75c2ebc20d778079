//! Entries that are on their way to another node.

use std::io;

use openraft::raft::AppendEntriesResponse;
use openraft::{Entry, EntryPayload, LogId, Vote};

use super::messages::PeerAnswer;
use crate::cluster::consensus::Consensus;

/// What tells entries from others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct EntriesName {
    pub(super) vote: Vote<u64>,
    pub(super) previous: Option<LogId<u64>>,
    pub(super) last: Option<LogId<u64>>,
}

impl EntriesName {
    /// Returns the answer to these entries, as far as the answer to earlier ones says it. Those may
    /// end elsewhere: more has come meanwhile, or a part was sent again.
    pub(super) fn answered(
        self,
        sent: Self,
        answer: io::Result<PeerAnswer>,
    ) -> Option<io::Result<PeerAnswer>> {
        if (self.vote, self.previous) != (sent.vote, sent.previous) {
            return None;
        }
        match answer {
            Ok(PeerAnswer::Appended(AppendEntriesResponse::Success)) if self.last > sent.last => {
                let partial = AppendEntriesResponse::PartialSuccess(sent.last);
                Some(Ok(PeerAnswer::Appended(partial)))
            }
            Ok(answer) => Some(Ok(answer)),
            Err(_) => None,
        }
    }
}

/// Returns whether entries make a node a voter that was none before.
pub(super) fn make_voter(entries: &[Entry<Consensus>], node: Option<u64>) -> bool {
    entries.iter().any(|entry| match (&entry.payload, node) {
        (EntryPayload::Membership(membership), Some(node)) => {
            match membership.get_joint_config().as_slice() {
                [before, after] => after.contains(&node) && !before.contains(&node),
                _ => false,
            }
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn entries(previous: u64, last: u64) -> EntriesName {
        let id = |index| Some(LogId::new(CommittedLeaderId::new(1, 1), index));
        EntriesName { vote: Vote::new_committed(1, 1), previous: id(previous), last: id(last) }
    }

    #[test]
    fn entries_that_a_slow_node_has_taken_count_although_more_have_come() {
        let success = || Ok(PeerAnswer::Appended(AppendEntriesResponse::Success));
        let answer = |now: EntriesName, sent, answer| match now.answered(sent, answer)?.ok()? {
            PeerAnswer::Appended(answer) => Some(answer),
            _ => None,
        };
        let sent = entries(3, 5);
        assert!(matches!(answer(sent, sent, success()), Some(AppendEntriesResponse::Success)));
        let partial = answer(entries(3, 9), sent, success());
        let Some(AppendEntriesResponse::PartialSuccess(last)) = partial else { panic!() };
        assert_eq!(last, sent.last);
        // They are a part of what was sent.
        let all = answer(entries(3, 4), sent, success());
        assert!(matches!(all, Some(AppendEntriesResponse::Success)));
        let conflict = Ok(PeerAnswer::Appended(AppendEntriesResponse::Conflict));
        let refused = answer(entries(3, 9), sent, conflict);
        assert!(matches!(refused, Some(AppendEntriesResponse::Conflict)));
        assert!(answer(entries(4, 9), sent, success()).is_none());
        assert!(entries(3, 9).answered(sent, Err(io::ErrorKind::TimedOut.into())).is_none());
        let later = EntriesName { vote: Vote::new_committed(2, 1), ..entries(3, 5) };
        assert!(answer(later, sent, success()).is_none());
    }
}
