//! The shards of a node, for the Redis port.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::consensus::{Answered, Request};
use super::entering::{Count, UnderWay};
use super::error::ClusterError;
use super::group::{RaftGroup, leader_of, stopped};
use super::network::PeerTransport;
use super::node::Node;
use crate::mistake::{Mistake, made};
use crate::resp::{
    ClusterShards, CommandsRequest, ReplicatedKeys, ShardFailure, ShardReplies, Topology,
    TopologyNode, TopologyShard,
};

/// The shards of a node, whose groups run in a runtime of their own.
pub(super) struct NodeShards<T> {
    pub(super) node: Arc<Node<T>>,
    pub(super) runtime: Handle,
    /// The commands that wait for a group.
    pub(super) waiting: Count,
}

/// Maximum number of commands that wait for groups. Each holds a thread, of which there are 512,
/// and the other commands need some too.
const WAITING_MAX: usize = 400;

impl<T> fmt::Debug for NodeShards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeShards").finish_non_exhaustive()
    }
}

impl<T: PeerTransport> NodeShards<T> {
    fn group(&self, shard: u64) -> Result<Arc<RaftGroup>, ShardFailure> {
        self.node.group(shard).ok_or(ShardFailure::NoLeader)
    }

    fn wait(&self) -> Result<UnderWay, ShardFailure> {
        let waiting = self.waiting.begin();
        if waiting.count() <= WAITING_MAX {
            Ok(waiting)
        } else {
            Err(self.failure(ClusterError::Busy))
        }
    }

    /// Returns the replies to commands, or what a client of Redis is told instead.
    fn replies(&self, answered: Result<Answered, ClusterError>) -> ShardReplies {
        match answered {
            Ok(Answered::Replies(replies)) => Ok(replies),
            Ok(Answered::Refused(reason)) | Err(ClusterError::Refused(reason)) => {
                Err(ShardFailure::TooLarge(format!("ERR {reason}")))
            }
            Ok(_) => Err(ShardFailure::Failed("ERR the answer is not that to commands".to_owned())),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Returns what a client of Redis is told of a failure.
    fn failure(&self, error: ClusterError) -> ShardFailure {
        shown(&self.node, error)
    }
}

/// Returns what a client of Redis is told.
pub(super) fn shown<T: PeerTransport>(node: &Node<T>, error: ClusterError) -> ShardFailure {
    match error {
        ClusterError::NotLeader { .. } if made(Mistake::RedirectLost) => ShardFailure::NoLeader,
        ClusterError::NotLeader { leader } => {
            let map = node.map();
            let address = leader.and_then(|leader| map.nodes.get(&leader));
            let address = address.map(|it| it.redis.clone()).filter(|it| !it.is_empty());
            address.map_or(ShardFailure::NoLeader, ShardFailure::Moved)
        }
        ClusterError::Busy => ShardFailure::Failed(format!("TRYAGAIN {error}")),
        error => ShardFailure::Failed(format!("ERR {error}")),
    }
}

/// Divides an address.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

impl<T: PeerTransport> ClusterShards for NodeShards<T> {
    fn topology(&self) -> Topology {
        let map = self.node.map();
        let nodes = map.nodes.iter().filter_map(|(id, addresses)| {
            let (host, port) = host_and_port(&addresses.redis)?;
            let is_silent = self.node.is_silent(*id);
            Some(TopologyNode { id: *id, host, port, is_silent })
        });
        let shards = map.groups().filter_map(|number| {
            let group = self.node.group(number)?;
            let metrics = group.metrics();
            let members = metrics.membership_config.membership().nodes().map(|(id, _)| *id);
            let replicated = metrics.replication.iter().flatten();
            let replicated = replicated.filter_map(|(id, at)| Some((*id, (*at)?.index)));
            let applied = metrics.last_applied.map(|at| (metrics.id, at.index));
            Some(TopologyShard {
                number,
                slots: map.slots_of(number),
                leader: leader_of(&metrics),
                members: members.collect(),
                offsets: replicated.chain(applied).collect(),
                age: group.state_age(),
            })
        });
        let me = self.node.options.id;
        Topology { me, epoch: map.epoch, nodes: nodes.collect(), shards: shards.collect() }
    }

    fn forwards(&self) -> bool {
        self.node.options.forwards
    }

    fn shard_of(&self, slot: u16) -> u64 {
        self.node.map().group_of(slot)
    }

    fn keys(&self, shard: u64) -> Result<Arc<ReplicatedKeys>, ShardFailure> {
        self.group(shard)?.keys().map_err(|error| self.failure(error))
    }

    fn confirm(&self, shard: u64) -> Result<(), ShardFailure> {
        let (group, _waiting) = (self.group(shard)?, self.wait()?);
        let confirmed = self.runtime.block_on(self.node.read_index(&group));
        confirmed.map_err(|error| self.failure(error))
    }

    fn write(&self, shard: u64, request: CommandsRequest) -> ShardReplies {
        let (group, _waiting) = (self.group(shard)?, self.wait()?);
        let request = Request::Commands(request);
        self.replies(self.runtime.block_on(self.node.write(&group, request)))
    }

    fn write_all(&self, requests: Vec<(u64, CommandsRequest)>) -> Vec<ShardReplies> {
        let _waiting = match self.wait() {
            Ok(waiting) => waiting,
            Err(failure) => return requests.iter().map(|_| Err(failure.clone())).collect(),
        };
        let begun = requests.into_iter().map(|(shard, request)| {
            let (node, group) = (Arc::clone(&self.node), self.group(shard)?);
            let request = Request::Commands(request);
            Ok(self.runtime.spawn(async move { node.write(&group, request).await }))
        });
        // All of them are on their way before the first answer is waited for.
        let begun: Vec<Result<JoinHandle<_>, ShardFailure>> = begun.collect();
        let finished = begun.into_iter().map(|begun| {
            let ended = self.runtime.block_on(begun?);
            self.replies(ended.unwrap_or_else(|error| Err(stopped(&error))))
        });
        finished.collect()
    }
}
