//! What a node says of itself and of its groups, for people and for metrics.

use openraft::ServerState;
use serde::{Deserialize, Serialize};

use super::group::{GroupMetrics, RaftGroup, leader_of};
use super::map::ClusterMap;
use super::network::SnapshotTransfer;

/// What a node knows of itself and of the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The number of the node.
    pub id: u64,
    /// The version of its program.
    pub version: String,
    /// Number of shards of the cluster, or `None` if the node belongs to none.
    pub shards: Option<u16>,
    /// All nodes of the cluster, as this one knows them.
    pub nodes: Vec<NodeEntry>,
    /// The groups that the node takes part in: group 0, which has the map of the cluster, and one
    /// for each shard.
    pub groups: Vec<GroupStatus>,
}

/// Where a node can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeEntry {
    /// The number of the node.
    pub id: u64,
    /// Its address for the other nodes.
    pub cluster: String,
    /// Its address for clients of Redis.
    pub redis: String,
    /// Its address for clients of HTTP.
    pub http: String,
}

/// A group, as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The number of the group.
    pub number: u64,
    /// The first and the last slot of the shard. Group 0 has none.
    pub slots: Option<(u16, u16)>,
    /// What the node is in the group.
    pub role: GroupRole,
    /// The leader that the node knows.
    pub leader: Option<u64>,
    /// The term of Raft.
    pub term: u64,
    /// The nodes that vote.
    pub voters: Vec<u64>,
    /// The nodes that receive the log and do not vote.
    pub learners: Vec<u64>,
    /// Index of the last entry of the log.
    pub last_log: Option<u64>,
    /// Index of the last entry that was applied.
    pub applied: Option<u64>,
    /// Index of the last entry that is in a snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last entry that was purged from the log.
    pub purged: Option<u64>,
    /// Milliseconds since a majority has answered the leader. Only the leader knows.
    pub quorum_age: Option<u64>,
    /// The index up to which each node has the log. Only the leader knows.
    pub replicated: Vec<(u64, Option<u64>)>,
    /// The snapshots that the node is sending to others.
    pub transfers: Vec<SnapshotTransfer>,
    /// Number of keys, expired ones included that nothing has removed yet.
    pub keys: u64,
    /// Size of the store, in bytes.
    pub size: u64,
    /// Why the node does not take part any more.
    pub failure: Option<String>,
}

/// What a node is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GroupRole {
    /// It receives the log, and does not vote.
    Learner,
    /// It follows a leader.
    Follower,
    /// It asks the others for their votes.
    Candidate,
    /// It leads.
    Leader,
    /// It takes no part any more.
    Stopped,
}

impl GroupRole {
    /// Returns the role as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        }
    }
}

fn role_of(state: ServerState) -> GroupRole {
    match state {
        ServerState::Learner => GroupRole::Learner,
        ServerState::Follower => GroupRole::Follower,
        ServerState::Candidate => GroupRole::Candidate,
        ServerState::Leader => GroupRole::Leader,
        ServerState::Shutdown => GroupRole::Stopped,
    }
}

/// Returns the nodes of a map.
pub(super) fn entries(map: &ClusterMap) -> Vec<NodeEntry> {
    let nodes = map.nodes.iter().map(|(id, addresses)| NodeEntry {
        id: *id,
        cluster: addresses.cluster.clone(),
        redis: addresses.redis.clone(),
        http: addresses.http.clone(),
    });
    nodes.collect()
}

impl GroupStatus {
    pub(super) fn of(group: &RaftGroup, map: &ClusterMap) -> Self {
        let metrics: GroupMetrics = group.metrics();
        let membership = metrics.membership_config.membership();
        let mut voters: Vec<u64> = membership.voter_ids().collect();
        voters.sort_unstable();
        voters.dedup();
        let replicated = metrics.replication.iter().flatten();
        let stats = group.state().store().stats();
        let slots = map.groups().contains(&group.number).then(|| map.slots_of(group.number));
        Self {
            number: group.number,
            slots: slots.map(|slots| (*slots.start(), *slots.end())),
            role: role_of(metrics.state),
            leader: leader_of(&metrics),
            term: metrics.current_term,
            voters,
            learners: membership.learner_ids().collect(),
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|it| it.index),
            snapshot: metrics.snapshot.map(|it| it.index),
            purged: metrics.purged.map(|it| it.index),
            quorum_age: group
                .quorum_age(&metrics)
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            replicated: replicated.map(|(id, at)| (*id, at.map(|at| at.index))).collect(),
            transfers: group.transfers(),
            keys: stats.keys,
            size: stats.log_size,
            failure: metrics.running_state.err().map(|error| error.to_string()),
        }
    }
}
