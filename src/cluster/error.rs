//! Why a cluster does not do what it was asked for.

use std::io;
use std::time::Duration;

use super::changes::position::ClusterPosition;
use crate::error::Error;

/// A failure of a cluster, or of one of its groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Nothing was done: another node leads the group, or none that this one knows.
    #[error("{}", shown_leader(*leader))]
    NotLeader {
        /// The number of the node that leads.
        leader: Option<u64>,
    },
    /// Nothing was done, since too many requests are waiting.
    #[error("too many requests are waiting at this node")]
    Busy,
    /// The request may take effect or not, now or later. Look before you repeat it.
    #[error(
        "the group lost its leader or its majority before the request was committed; it may or may \
         not take effect"
    )]
    Unknown,
    /// Nothing was done, and the same request will be refused again.
    #[error("{0}")]
    Refused(String),
    /// The node has not all changes behind a position any more. Another node may have them.
    /// Otherwise, a follower has to read all keys, and to go on from a position of before that.
    #[error(
        "this node has not all changes behind the position any more, but those behind {oldest}"
    )]
    HistoryGone {
        /// The oldest position that this node has the changes of.
        oldest: ClusterPosition,
    },
    /// The position is one of another cluster.
    #[error("the position {position} is one of another cluster")]
    ForeignPosition {
        /// The position, as text.
        position: String,
    },
    /// The node cannot go on, or was stopped. A write that it was at may take effect or not.
    #[error("this node does not take part: {0}")]
    Stopped(String),
    /// The disk, the network or the operating system has failed this call. The message names the
    /// file or the address.
    #[error("{0}")]
    Failed(String),
}

fn shown_leader(leader: Option<u64>) -> String {
    match leader {
        Some(leader) => format!("node {leader} leads this group"),
        None => "no node leads this group at the moment".to_owned(),
    }
}

impl From<Error> for ClusterError {
    fn from(error: Error) -> Self {
        failed(&error)
    }
}

pub(super) fn failed(error: &impl std::fmt::Display) -> ClusterError {
    ClusterError::Failed(error.to_string())
}

/// Returns the error for a node from which no answer has come within a time.
pub(super) fn unanswered(address: &str, time: Duration, error: &io::Error) -> ClusterError {
    if error.kind() == io::ErrorKind::TimedOut {
        failed(&format!("{address} has not answered in {} s", time.as_secs()))
    } else {
        failed(&format!("no answer from {address}: {error}"))
    }
}
