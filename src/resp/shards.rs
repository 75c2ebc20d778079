//! A cluster, as the Redis port sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::replicated::{CommandsRequest, ReplicatedKeys, ReplicatedReply};

/// The shards of a cluster. The calls block until the cluster has answered.
pub(crate) trait ClusterShards: fmt::Debug + Send + Sync {
    /// Returns who has which slots, as this node knows it.
    fn topology(&self) -> Topology;

    /// Returns whether this node takes requests for shards that others lead.
    fn forwards(&self) -> bool;

    /// Returns the shard that has a slot.
    fn shard_of(&self, slot: u16) -> u64;

    /// Returns the keys of a shard, as they are on this node.
    fn keys(&self, shard: u64) -> Result<Arc<ReplicatedKeys>, ShardFailure>;

    /// Waits until what this node has of a shard is not stale. Unless nodes forward, only its
    /// leader can do that.
    fn confirm(&self, shard: u64) -> Result<(), ShardFailure>;

    /// Has commands run on all nodes of a shard. Returns the replies once a majority has the
    /// commands on disk, or `None` if a watched key has changed.
    fn write(&self, shard: u64, request: CommandsRequest) -> ShardReplies;

    /// Has commands run on several shards at the same time. Returns what [`write`](Self::write)
    /// does for each.
    fn write_all(&self, requests: Vec<(u64, CommandsRequest)>) -> Vec<ShardReplies>;
}

/// The replies to commands that a shard was to run, or `None` if a watched key has changed.
pub(crate) type ShardReplies = Result<Option<Vec<ReplicatedReply>>, ShardFailure>;

/// Why a shard does not answer here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShardFailure {
    /// Another node leads it, at this address.
    Moved(String),
    /// Nobody leads it at the moment.
    NoLeader,
    /// Nothing was done, since the commands are too much for an entry.
    TooLarge(String),
    /// Anything else, with the code of the error.
    Failed(String),
}

/// Who has which slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Topology {
    pub(crate) me: u64,
    pub(crate) epoch: u64,
    pub(crate) nodes: Vec<TopologyNode>,
    pub(crate) shards: Vec<TopologyShard>,
}

/// A node, where clients of Redis reach it.
#[derive(Debug, Clone)]
pub(crate) struct TopologyNode {
    pub(crate) id: u64,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it leaves unanswered what this node asks it.
    pub(crate) is_silent: bool,
}

/// A shard.
#[derive(Debug, Clone)]
pub(crate) struct TopologyShard {
    pub(crate) number: u64,
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) leader: Option<u64>,
    pub(crate) members: Vec<u64>,
    /// Up to where nodes have the log, as far as this node knows.
    pub(crate) offsets: BTreeMap<u64, u64>,
    /// How long ago this node had everything that was committed.
    pub(crate) age: Duration,
}

impl Topology {
    pub(super) fn node(&self, id: u64) -> Option<&TopologyNode> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// Returns the name of a node in the protocol: 40 hexadecimal digits.
pub(super) fn node_name(id: u64) -> String {
    format!("{id:040x}")
}
