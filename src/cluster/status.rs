//! What a node says of a group, for people and for metrics.

use openraft::ServerState;
use serde::{Deserialize, Serialize};

use super::group::{Group, GroupMetrics};
use super::network::messages::KnownCluster;

/// What a node knows of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    pub(crate) id: u64,
    pub(crate) cluster: Option<KnownCluster>,
    pub(crate) groups: Vec<GroupStatus>,
}

/// A group, as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupStatus {
    pub(crate) number: u64,
    /// What the node is in the group: leader, follower, learner, candidate or stopped.
    pub(crate) role: GroupRole,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
    /// Indexes of entries: the last one of the log, the last one applied, the last one in a
    /// snapshot, and the last one purged.
    pub(crate) last_log: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
    /// Milliseconds since a majority has answered the leader. Only the leader knows.
    pub(crate) quorum_age: Option<u64>,
    /// The index up to which each node has the log. Only the leader knows.
    pub(crate) replicated: Vec<(u64, Option<u64>)>,
    /// Number of keys, expired ones included, and their size on disk.
    pub(crate) keys: u64,
    pub(crate) size: u64,
    /// Why the node does not take part any more.
    pub(crate) failure: Option<String>,
}

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GroupRole {
    Learner,
    Follower,
    Candidate,
    Leader,
    Stopped,
}

impl GroupRole {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        }
    }
}

impl From<ServerState> for GroupRole {
    fn from(state: ServerState) -> Self {
        match state {
            ServerState::Learner => Self::Learner,
            ServerState::Follower => Self::Follower,
            ServerState::Candidate => Self::Candidate,
            ServerState::Leader => Self::Leader,
            ServerState::Shutdown => Self::Stopped,
        }
    }
}

impl GroupStatus {
    pub(crate) fn of(group: &Group) -> Self {
        let metrics: GroupMetrics = group.metrics();
        let membership = metrics.membership_config.membership();
        let mut voters: Vec<u64> = membership.voter_ids().collect();
        voters.sort_unstable();
        voters.dedup();
        let replicated = metrics.replication.iter().flatten();
        let stats = group.state().store().stats();
        Self {
            number: group.number,
            role: metrics.state.into(),
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters,
            learners: membership.learner_ids().collect(),
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|it| it.index),
            snapshot: metrics.snapshot.map(|it| it.index),
            purged: metrics.purged.map(|it| it.index),
            quorum_age: metrics.millis_since_quorum_ack,
            replicated: replicated.map(|(id, at)| (*id, at.map(|at| at.index))).collect(),
            keys: stats.keys,
            size: stats.log_size,
            failure: metrics.running_state.err().map(|error| error.to_string()),
        }
    }
}
