//! Requests of clients whose node does not lead, if the node forwards them.
//!
//! - A write is sent to the leader, and not a second time. If no answer comes, its outcome is
//!   unknown.
//! - A read asks the leader up to where it has applied the log, waits until this node has applied
//!   as much, and then reads here.

use std::time::Duration;

use super::consensus::{Answered, Request};
use super::error::{ClusterError, failed};
use super::group::{PATIENCE, RaftGroup, check_size};
use super::network::messages::{PeerAnswer, PeerRequest, WriteOutcome};
use super::network::{AskFailure, PeerTransport};
use super::node::Node;
use crate::resp::sendable;

/// Time for the leader's answer, which comes after `PATIENCE` at the latest.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// How often a leader is looked for. One that has lost the lead knows the next.
const ATTEMPTS: usize = 3;

impl<T: PeerTransport> Node<T> {
    /// Has a request applied, here or by the leader.
    pub(crate) async fn write(
        &self,
        group: &RaftGroup,
        request: Request,
    ) -> Result<Answered, ClusterError> {
        if !self.options.forwards {
            return group.write(request).await;
        }
        self.write_beginning_at(self.leader_elsewhere(group), group, request).await
    }

    /// Has a request applied by a node, or by the one that has become the leader meanwhile. `None`
    /// is this node.
    pub(super) async fn write_beginning_at(
        &self,
        mut leader: Option<(u64, String)>,
        group: &RaftGroup,
        request: Request,
    ) -> Result<Answered, ClusterError> {
        if leader.is_none() {
            match group.write(request.clone()).await {
                // Nothing was done: this node has lost the lead before it came to the request.
                Err(ClusterError::NotLeader { leader: Some(id) }) => leader = self.at_address(id),
                answered => return answered,
            }
        }
        check_size(&request)?;
        let request = PeerRequest::Write(request);
        for _ in 0..ATTEMPTS {
            let Some((id, address)) = leader.take() else { break };
            let mut connection = self.network(group.number).connection_to(Some(id), &address);
            match connection.ask_once(&request, ANSWER_TIME).await {
                Ok(PeerAnswer::Written(outcome)) => return outcome.into_answer(id),
                Ok(PeerAnswer::AskLeader { leader: Some(id), address: Some(address) }) => {
                    leader = Some((id, address));
                }
                Ok(PeerAnswer::Refused(reason)) => {
                    return Err(ClusterError::Refused(format!("node {id}: {reason}")));
                }
                // Nothing was done, and the next attempt may succeed.
                Ok(PeerAnswer::Failed(reason)) => {
                    return Err(failed(&format!("node {id}: {reason}")));
                }
                Ok(PeerAnswer::AskLeader { .. }) | Err(AskFailure::NotSent) => {}
                Ok(_) | Err(AskFailure::Unknown) => return Err(ClusterError::Unknown),
            }
        }
        Err(ClusterError::NotLeader { leader: None })
    }

    /// Waits until this node has applied everything that was acknowledged before this call.
    pub(crate) async fn read_index(&self, group: &RaftGroup) -> Result<(), ClusterError> {
        if self.options.forwards { self.catch_up(group).await } else { group.read_index().await }
    }

    /// Does the same, and asks the leader if that is another node.
    pub(super) async fn catch_up(&self, group: &RaftGroup) -> Result<(), ClusterError> {
        self.catch_up_with(self.leader_elsewhere(group), group).await
    }

    /// Does the same with a node, or with the one that has become the leader meanwhile. `None` is
    /// this node.
    pub(super) async fn catch_up_with(
        &self,
        mut leader: Option<(u64, String)>,
        group: &RaftGroup,
    ) -> Result<(), ClusterError> {
        if leader.is_none() {
            match group.read_index().await {
                Err(ClusterError::NotLeader { leader: Some(id) }) => leader = self.at_address(id),
                confirmed => return confirmed,
            }
        }
        let nobody = ClusterError::NotLeader { leader: None };
        for _ in 0..ATTEMPTS {
            let Some((id, address)) = leader.take() else { break };
            let mut connection = self.network(group.number).connection_to(Some(id), &address);
            match connection.ask(&PeerRequest::ReadIndex, ANSWER_TIME).await {
                Ok(PeerAnswer::ReadIndex(index)) => {
                    let wait = group.raft.wait(Some(PATIENCE));
                    let applied = wait.applied_index_at_least(index, "what the leader has").await;
                    return applied.map(drop).map_err(|_| nobody);
                }
                Ok(PeerAnswer::AskLeader { leader: Some(id), address: Some(address) }) => {
                    leader = Some((id, address));
                }
                Ok(PeerAnswer::Busy) => return Err(ClusterError::Busy),
                Ok(PeerAnswer::Failed(reason) | PeerAnswer::Refused(reason)) => {
                    return Err(failed(&format!("node {id}: {reason}")));
                }
                _ => {}
            }
        }
        Err(nobody)
    }

    /// Returns the leader of a group and its address, if that is another node.
    fn leader_elsewhere(&self, group: &RaftGroup) -> Option<(u64, String)> {
        self.at_address(group.leader().filter(|leader| *leader != self.options.id)?)
    }

    fn at_address(&self, node: u64) -> Option<(u64, String)> {
        self.address_of(node).map(|address| (node, address))
    }

    /// Answers a node that has forwarded a write.
    pub(super) async fn answer_write(
        &self,
        group: &RaftGroup,
        request: Request,
    ) -> Result<PeerAnswer, ClusterError> {
        let outcome = match group.write_again(request).await {
            Ok(Answered::Replies(replies)) => WriteOutcome::Replies(replies.map(sendable)),
            Ok(Answered::Refused(reason)) | Err(ClusterError::Refused(reason)) => {
                WriteOutcome::Refused(reason)
            }
            Ok(_) => WriteOutcome::Refused("that is no request of a client".to_owned()),
            Err(ClusterError::Busy) => WriteOutcome::Busy,
            Err(ClusterError::Unknown) => WriteOutcome::Unknown,
            Err(failure @ ClusterError::NotLeader { .. }) => return Err(failure),
            Err(ClusterError::Stopped(reason)) => WriteOutcome::Stopped(reason),
            Err(failure) => WriteOutcome::Stopped(failure.to_string()),
        };
        Ok(PeerAnswer::Written(outcome))
    }

    /// Answers a node that wants to read.
    pub(super) async fn answer_read_index(
        &self,
        group: &RaftGroup,
    ) -> Result<PeerAnswer, ClusterError> {
        match group.read_index().await {
            Err(ClusterError::Busy) => return Ok(PeerAnswer::Busy),
            confirmed => confirmed?,
        }
        // What the log has by now includes all that was applied.
        Ok(PeerAnswer::ReadIndex(group.metrics().last_log_index))
    }
}

impl WriteOutcome {
    fn into_answer(self, node: u64) -> Result<Answered, ClusterError> {
        match self {
            Self::Replies(replies) => Ok(Answered::Replies(replies)),
            Self::Refused(reason) => Ok(Answered::Refused(reason)),
            Self::Busy => Err(ClusterError::Busy),
            Self::Unknown => Err(ClusterError::Unknown),
            Self::Stopped(reason) => {
                Err(failed(&format!("node {node} does not take part: {reason}")))
            }
        }
    }
}
