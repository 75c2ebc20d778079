//! What a node answers to the others.

use std::sync::Arc;

use super::error::ClusterError;
use super::group::RaftGroup;
use super::group_members::finished;
use super::map::MapChange;
use super::network::PeerTransport;
use super::network::messages::{PeerAnswer, PeerRequest, Recipient};
use super::network::server::PeerNode;
use super::node::Node;
use crate::raft::blocking;

impl<T: PeerTransport> PeerNode for Arc<Node<T>> {
    fn secret(&self) -> &str {
        &self.options.secret
    }

    async fn answer(&self, recipient: Recipient, number: u64, request: PeerRequest) -> PeerAnswer {
        if let Some(why) = self.not_meant(recipient) {
            return PeerAnswer::Failed(why);
        }
        let is_raft = matches!(
            request,
            PeerRequest::Append(..)
                | PeerRequest::Vote(_)
                | PeerRequest::BeginSnapshot
                | PeerRequest::PutPiece { .. }
                | PeerRequest::InstallSnapshot { .. }
        );
        if is_raft {
            return match self.group(number) {
                Some(group) => self.answer_raft(&group, request).await,
                None => PeerAnswer::Failed(format!("there is no group {number} here")),
            };
        }
        self.answer_admin(number, request).await.unwrap_or_else(|failure| self.failed(&failure))
    }
}

impl<T: PeerTransport> Node<T> {
    /// Returns the answer for a request that only the leader of a group can fulfil.
    fn failed(&self, failure: &ClusterError) -> PeerAnswer {
        match failure {
            ClusterError::NotLeader { leader } => {
                let address = leader.and_then(|leader| self.address_of(leader));
                PeerAnswer::AskLeader { leader: *leader, address }
            }
            // All of these may be done twice.
            ClusterError::Unknown => PeerAnswer::AskLeader { leader: None, address: None },
            ClusterError::Busy => PeerAnswer::Busy,
            ClusterError::Refused(reason) => PeerAnswer::Refused(reason.clone()),
            failure => PeerAnswer::Failed(failure.to_string()),
        }
    }

    async fn answer_raft(
        self: &Arc<Self>,
        group: &Arc<RaftGroup>,
        request: PeerRequest,
    ) -> PeerAnswer {
        let raft = &group.raft;
        let answered = match request {
            PeerRequest::Append(rpc, quorum_age) => {
                // Whoever hands its lead over sends the vote of another node.
                if rpc.vote.is_committed() {
                    self.idle.silent.heard(rpc.vote.leader_id().node_id);
                }
                let (appended, has_all) = group.append(rpc, quorum_age).await;
                if has_all {
                    // Nobody sends a snapshot to a node that has everything.
                    self.discard_arriving(group.number);
                }
                appended.map(PeerAnswer::Appended).map_err(|it| it.to_string())
            }
            PeerRequest::Vote(rpc) => {
                raft.vote(rpc).await.map(PeerAnswer::Voted).map_err(|it| it.to_string())
            }
            PeerRequest::BeginSnapshot => {
                let begun = self.begin_snapshot(group);
                begun.map(PeerAnswer::SnapshotBegun).map_err(|failure| failure.to_string())
            }
            PeerRequest::PutPiece { snapshot, name, offset, bytes } => {
                let put = self.put_piece(group.number, snapshot, &name, offset, &bytes);
                put.map(|()| PeerAnswer::Done)
            }
            PeerRequest::InstallSnapshot { snapshot, vote, meta } => {
                let installed = self.install(group, snapshot, vote, meta).await;
                installed.map(PeerAnswer::SnapshotInstalled)
            }
            _ => Err("that is no request of Raft".to_owned()),
        };
        answered.unwrap_or_else(PeerAnswer::Failed)
    }

    /// Returns why a request is not for this node.
    fn not_meant(&self, recipient: Recipient) -> Option<String> {
        let (me, mine) = (self.options.id, self.identity().map(|identity| identity.cluster));
        if recipient.node.is_some_and(|node| node != me) {
            return Some(format!("this is node {me}, and not the one that was meant"));
        }
        let is_other = recipient.cluster.is_some() && recipient.cluster != mine;
        is_other.then(|| format!("node {me} does not belong to that cluster"))
    }

    async fn answer_admin(
        self: &Arc<Self>,
        number: u64,
        request: PeerRequest,
    ) -> Result<PeerAnswer, ClusterError> {
        let group = || {
            let group = self.group(number);
            group.ok_or_else(|| ClusterError::Failed(format!("there is no group {number} here")))
        };
        match request {
            PeerRequest::Init { shards } => self.init(shards).await?,
            PeerRequest::Join { address } => self.join(&address).await?,
            PeerRequest::GetMap => {
                let known = self.known();
                let none = || ClusterError::Refused("this node belongs to no cluster".to_owned());
                return Ok(PeerAnswer::Cluster(known.ok_or_else(none)?));
            }
            PeerRequest::PutNode { id, addresses } => {
                self.change_map(MapChange::PutNode { id, addresses }).await?;
            }
            PeerRequest::BeginRemoval { id } => self.begin_removal(id).await?,
            PeerRequest::RemoveNode { id } => self.change_map(MapChange::RemoveNode { id }).await?,
            PeerRequest::Leave { id } => self.remove(id).await?,
            PeerRequest::AddMember { id, address } => {
                self.add_member(&group()?, id, address).await?;
            }
            PeerRequest::RemoveMember { id } => {
                let group = group()?;
                self.pass_lead_on(&group, Some(id)).await;
                group.remove_member(id).await?;
            }
            PeerRequest::Lead => {
                let (node, group) = (Arc::clone(self), group()?);
                // Nobody else stands for a while once the lead was released to this node.
                finished(async move { group.lead(&node).await }).await?;
            }
            PeerRequest::Yield { to } => group()?.yield_lead(self, to).await?,
            PeerRequest::BuildSnapshot => group()?.build_snapshot().await?,
            PeerRequest::Write(request) => return self.answer_write(&*group()?, request).await,
            PeerRequest::ReadIndex => return self.answer_read_index(&*group()?).await,
            PeerRequest::LendCopy => return self.lend_copy(&*group()?).await,
            PeerRequest::GetPiece { copy, name, offset } => {
                return self.lent_piece(number, copy, &name, offset);
            }
            PeerRequest::ReturnCopy { copy } => return Ok(self.take_back(number, copy)),
            PeerRequest::Status => return Ok(PeerAnswer::Status(blocking(|| self.status()))),
            _ => return Err(ClusterError::Refused("that is a request of Raft".to_owned())),
        }
        Ok(PeerAnswer::Done)
    }
}
