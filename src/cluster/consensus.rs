//! What Raft replicates: the requests of clients, and the answers to them.

use std::fmt;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::drawn::Runtime;
use super::map::MapChange;
use crate::raft::SnapshotFiles;
use crate::resp::{CommandsRequest, ReplicatedReply};

openraft::declare_raft_types!(
    /// The types by which openraft knows this program.
    pub(crate) Consensus:
        D = Proposal,
        R = Answers,
        SnapshotData = SnapshotFiles,
        AsyncRuntime = Runtime,
);

/// Requests that have come at about the same time: one entry of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// The time of the leader, in microseconds since the epoch.
    pub(crate) time: u64,
    /// What chance has given the leader, so that all nodes draw the same.
    pub(crate) seed: u64,
    pub(crate) requests: Vec<Request>,
}

/// What a client wants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Commands of Redis, one after the other or as a transaction.
    Commands(CommandsRequest),
    /// A change of the map, in the group that holds it.
    Map(MapChange),
    /// Nothing but the time.
    Tick,
}

impl Request {
    /// Returns about how many bytes the request takes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Commands(request) => request.size(),
            Self::Map(_) | Self::Tick => size_of::<Self>(),
        }
    }
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) enum Answered {
    /// The replies of all commands; `None` if a watched key was not as expected.
    Replies(Option<Vec<ReplicatedReply>>),
    /// The time was moved on.
    Ticked,
    /// The map was changed, or why not.
    Map(Result<(), String>),
    /// Nothing of the whole entry was changed, since the store cannot hold it.
    Refused(String),
}

/// The answers to the requests of an entry. They stay on the node that applies it.
#[derive(Default)]
pub(crate) struct Answers(pub(crate) Vec<Answered>);

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answers").field(&self.0.len()).finish()
    }
}

// openraft has networks in mind that forward requests to the leader, and asks for both traits. This
// program sends clients to the leader instead, so nothing ever serializes an answer.

impl Serialize for Answers {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("answers are not sent"))
    }
}

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("answers are not sent"))
    }
}
