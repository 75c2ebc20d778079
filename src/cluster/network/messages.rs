//! What nodes say to each other.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotMeta, Vote};
use serde::{Deserialize, Serialize};

use crate::cluster::consensus::{Consensus, Request};
use crate::cluster::map::{ClusterMap, NodeAddresses};
use crate::cluster::status::NodeStatus;
use crate::resp::ReplicatedReply;

/// Where nodes take requests, with the version of the messages. The number of the group follows. A
/// node of another version answers that there is no such path.
pub(crate) const PEER_PATH: &str = "/peer/1/";

/// Size of a piece of a file of a snapshot, in bytes.
pub(crate) const PIECE_SIZE: usize = 1 << 20;

/// Maximum size of a message, in bytes. It is above that of the largest entry.
pub(crate) const MESSAGE_SIZE_MAX: usize = 512 << 20;

/// Whom a request is for. Whatever answers at an address may be another node by now.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Recipient {
    pub(crate) cluster: Option<u128>,
    pub(crate) node: Option<u64>,
}

/// A request of one node, or of an administrator, to another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// A request of Raft, to a group, with the milliseconds since a majority answered the leader,
    /// if one has.
    Append(AppendEntriesRequest<Consensus>, Option<u64>),
    Vote(VoteRequest<u64>),
    /// Begins to send a snapshot.
    BeginSnapshot,
    PutPiece {
        snapshot: u64,
        name: String,
        offset: u64,
        bytes: Bytes,
    },
    InstallSnapshot {
        snapshot: u64,
        vote: Vote<u64>,
        meta: SnapshotMeta<u64, BasicNode>,
    },
    /// Founds a cluster of this node alone.
    Init {
        shards: u16,
    },
    /// Has this node join the cluster of another one.
    Join {
        address: String,
    },
    GetMap,
    /// Changes the map; to the leader of its group.
    PutNode {
        id: u64,
        addresses: NodeAddresses,
    },
    BeginRemoval {
        id: u64,
    },
    RemoveNode {
        id: u64,
    },
    /// Removes a node from the cluster: from its groups, and from the map.
    Leave {
        id: u64,
    },
    /// Makes a node a member of a group; to the leader of the group.
    AddMember {
        id: u64,
        address: String,
    },
    RemoveMember {
        id: u64,
    },
    /// Makes this node the leader of the group.
    Lead,
    /// Hands the lead of the group over to a node; to the leader.
    Yield {
        to: u64,
    },
    /// Builds a snapshot of the group, and purges its log.
    BuildSnapshot,
    Status,
    /// Has a request of a client applied, whose node does not lead; to the leader.
    Write(Request),
    /// Asks up to where a read has to have applied the log; to the leader.
    ReadIndex,
    /// Makes a copy of the group and keeps it for an administrator.
    LendCopy,
    /// Reads a piece of it.
    GetPiece {
        copy: u64,
        name: String,
        offset: u64,
    },
    /// Lets go of it.
    ReturnCopy {
        copy: u64,
    },
}

/// A file of a copy that is lent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LentFile {
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// The cluster as a node knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KnownCluster {
    pub(crate) cluster: u128,
    pub(crate) map: ClusterMap,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerAnswer {
    Appended(AppendEntriesResponse<u64>),
    Voted(VoteResponse<u64>),
    SnapshotBegun(u64),
    SnapshotInstalled(SnapshotResponse<u64>),
    Cluster(KnownCluster),
    Status(NodeStatus),
    Done,
    /// Another node leads the group.
    AskLeader {
        leader: Option<u64>,
        address: Option<String>,
    },
    /// It failed, for a reason that may pass.
    Failed(String),
    Written(WriteOutcome),
    ReadIndex(Option<u64>),
    CopyLent {
        copy: u64,
        /// The last entry in it.
        index: u64,
        files: Vec<LentFile>,
    },
    Piece(Bytes),
    /// Nothing was done, since too many requests wait.
    Busy,
    /// Nothing was done, and the same request will be refused again.
    Refused(String),
}

/// What has become of a request that was sent to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WriteOutcome {
    Replies(Option<Vec<ReplicatedReply>>),
    /// Nothing was done, and it will be refused again.
    Refused(String),
    /// Nothing was done, since too many requests wait.
    Busy,
    /// It may take effect, or not.
    Unknown,
    /// The leader cannot go on.
    Stopped(String),
}
