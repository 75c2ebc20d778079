//! Changes of the members of one group, on its leader.
//!
//! A node is added as a learner first, and votes once it has caught up. Each change goes on though
//! nobody waits any more: it has two steps, and openraft makes the second where the first was asked
//! for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::metrics::WaitError;
use openraft::{BasicNode, ChangeMembers};
use tokio::time::Instant;

use super::error::ClusterError;
use super::group::{GroupMetrics, RaftGroup, stopped};
use super::membership::{ATTEMPTS, PAUSE, refused};
use super::network::messages::{PeerAnswer, PeerRequest};
use super::network::{PeerNetwork, PeerTransport};
use super::node::Node;
use super::proposer::deposed;

/// Time for one step of a change, less than an answer has. Whoever waits for it asks again.
const STEP_TIME: Duration = Duration::from_secs(10);
/// How often a node is asked that has come no further, before it counts as one that cannot be
/// reached.
const PROBES: u32 = 3;
/// Time in which it has to answer each time.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Number of entries that a node may lack that is to vote. If another one fails then, the group
/// waits until it has them.
const LACK_MAX: u64 = 1000;

impl RaftGroup {
    /// Has a node receive the log. It does not vote yet, if it did not before.
    pub(super) async fn add_learner(
        self: &Arc<Self>,
        id: u64,
        address: String,
    ) -> Result<(), ClusterError> {
        let group = Arc::clone(self);
        finished(async move {
            // Whoever does not lead any more may not know of the latest change.
            group.read_index().await?;
            let metrics = group.metrics();
            let membership = metrics.membership_config.membership();
            let node = BasicNode::new(address);
            let is_voter = membership.voter_ids().any(|voter| voter == id);
            if is_voter || membership.get_node(&id) == Some(&node) {
                return Ok(());
            }
            let change = ChangeMembers::SetNodes([(id, node)].into());
            group.change(|_| Ok(Some(change.clone()))).await
        })
        .await
    }

    /// Makes a node a voter, once it has the log. Waits for that, unless this one cannot reach it.
    pub(super) async fn add_voter<T: PeerTransport>(
        self: &Arc<Self>,
        node: &Node<T>,
        id: u64,
        until: Instant,
    ) -> Result<(), ClusterError> {
        let metrics = self.metrics();
        let is_voter = metrics.membership_config.membership().voter_ids().any(|voter| voter == id);
        if is_voter && self.is_settled() {
            return Ok(());
        }
        if !is_voter {
            let before = self.sent_to(id);
            let left = until.saturating_duration_since(Instant::now());
            let waiting = self.raft.wait(Some(left.saturating_sub(PROBE_TIME * PROBES)));
            let caught_up = waiting.metrics(|it| has_caught_up(it, id), "the log is sent");
            match caught_up.await {
                Ok(_) => {}
                Err(WaitError::Timeout(..)) => {
                    if self.sent_to(id) == before {
                        self.check_reaches(node, id).await?;
                    }
                    return Err(ClusterError::Unknown);
                }
                Err(error @ WaitError::ShuttingDown) => return Err(stopped(&error)),
            }
        }
        let group = Arc::clone(self);
        finished(async move {
            let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            group.change(|_| Ok(Some(change.clone()))).await
        })
        .await
    }

    /// Returns how far a member has the log, and how much of a snapshot that is on its way.
    fn sent_to(&self, id: u64) -> (Option<u64>, Option<u64>) {
        let replication = self.metrics().replication;
        let at = replication.and_then(|all| all.get(&id).copied().flatten());
        let transfer = self.transfers().into_iter().find(|transfer| transfer.node == id);
        (at.map(|at| at.index), transfer.map(|transfer| transfer.sent))
    }

    /// Returns an error if a member answers none of several questions of this node. Each goes over
    /// a new connection, because those that exist may be dead without a sign.
    async fn check_reaches<T: PeerTransport>(
        &self,
        node: &Node<T>,
        id: u64,
    ) -> Result<(), ClusterError> {
        let metrics = self.metrics();
        let member = metrics.membership_config.membership().get_node(&id);
        let Some(BasicNode { addr }) = member else { return Ok(()) };
        let (mut why, mut next) = (String::new(), Instant::now());
        for _ in 0..PROBES {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + PROBE_TIME;
            let network = PeerNetwork { idle: Arc::default(), ..node.network(self.number) };
            let mut connection = network.connection_to(Some(id), addr);
            why = match connection.ask(&PeerRequest::GetMap, PROBE_TIME).await {
                Ok(PeerAnswer::Failed(reason) | PeerAnswer::Refused(reason)) => reason,
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
        }
        let me = metrics.id;
        Err(ClusterError::Failed(format!("node {me} cannot reach node {id} at {addr}: {why}")))
    }

    /// Takes a node out of the group.
    pub(super) async fn remove_member(self: &Arc<Self>, id: u64) -> Result<(), ClusterError> {
        let group = Arc::clone(self);
        finished(async move {
            group.read_index().await?;
            group.change(|metrics| removal(metrics, id)).await
        })
        .await
    }

    /// Returns whether the members are those of one configuration that is applied, and not of two
    /// between which a change is under way.
    fn is_settled(&self) -> bool {
        is_settled(&self.metrics())
    }

    /// Waits for a step of a change of the members. openraft may never answer if this node leads no
    /// more meanwhile, and a node that is to catch up may need long.
    async fn within_lead<R: Send + 'static>(
        &self,
        step: impl Future<Output = R> + Send + 'static,
    ) -> Result<R, ClusterError> {
        // It goes on although nobody waits any more: a change has two steps.
        let step = tokio::spawn(step);
        tokio::select! {
            biased;
            // A leader that removes itself leads no more at the same moment.
            done = step => done.map_err(|error| stopped(&error)),
            () = deposed(&self.raft) => Err(ClusterError::Unknown),
            () = tokio::time::sleep(STEP_TIME) => Err(ClusterError::Unknown),
        }
    }

    /// Makes the change that the members need at the time, if any. Waits until another change is
    /// complete, after which it may be another one that they need.
    async fn change(
        &self,
        needed: impl Fn(&GroupMetrics) -> Result<Option<MemberChange>, ClusterError>,
    ) -> Result<(), ClusterError> {
        for _ in 0..ATTEMPTS {
            let Some(change) = needed(&self.metrics())? else { return Ok(()) };
            let (raft, under_way) = (self.raft.clone(), self.enter().await?);
            let changing = async move { raft.change_membership(change, false).await };
            let result = self.within_lead(changing).await;
            // openraft may never answer, and what it has appended is in the log.
            drop(under_way);
            let result = result?;
            let is_busy = matches!(
                result,
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_)
                )))
            );
            if !is_busy {
                return changed(result);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(ClusterError::Busy)
    }
}

type MemberChange = ChangeMembers<u64, BasicNode>;

/// Returns whether the members are those of one configuration that is applied.
fn is_settled(metrics: &GroupMetrics) -> bool {
    let members = &metrics.membership_config;
    members.membership().get_joint_config().len() == 1 && *members.log_id() <= metrics.last_applied
}

/// Returns the change that takes a node out of a group, unless it is out.
fn removal(metrics: &GroupMetrics, id: u64) -> Result<Option<MemberChange>, ClusterError> {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    if voters == BTreeSet::from([id]) {
        return refused("the last node of a cluster cannot be removed");
    }
    let ids = BTreeSet::from([id]);
    Ok(if voters.contains(&id) {
        Some(ChangeMembers::RemoveVoters(ids))
    } else if membership.get_node(&id).is_some() || !is_settled(metrics) {
        Some(ChangeMembers::RemoveNodes(ids))
    } else {
        None
    })
}

/// Returns whether a node has the log but for some entries, or whether that is not to be waited for
/// any more, since this node does not lead.
fn has_caught_up(metrics: &GroupMetrics, id: u64) -> bool {
    let Some(replication) = &metrics.replication else { return true };
    // A node that has never answered may be one that this node cannot reach. If it voted, a small
    // group would lose its majority. One that is not there yet was only just added.
    let Some(Some(at)) = replication.get(&id) else { return false };
    metrics.last_log_index.unwrap_or(0).saturating_sub(at.index) <= LACK_MAX
}

/// Waits for a change of the members, which goes on although nobody waits any more. openraft makes
/// the second of its two steps where the first was asked for.
pub(super) async fn finished(
    change: impl Future<Output = Result<(), ClusterError>> + Send + 'static,
) -> Result<(), ClusterError> {
    tokio::spawn(change).await.map_err(|error| stopped(&error))?
}

type Changed<R> = Result<R, RaftError<u64, ClientWriteError<u64, BasicNode>>>;

/// Returns what the result of a change of the members means.
fn changed<R>(changed: Changed<R>) -> Result<(), ClusterError> {
    match changed {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(other))) => {
            Err(ClusterError::NotLeader { leader: other.leader_id })
        }
        Err(RaftError::APIError(error)) => Err(ClusterError::Refused(error.to_string())),
        Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, LogId};

    use super::*;

    #[test]
    fn a_node_votes_once_it_lacks_few_entries() {
        let mut metrics = GroupMetrics::new_initial(1);
        metrics.last_log_index = Some(5000);
        let mut has_caught_up_at = |at: &[(u64, Option<u64>)]| {
            let log_id = |index| LogId::new(CommittedLeaderId::new(1, 1), index);
            let replication = at.iter().map(|(id, index)| (*id, index.map(log_id)));
            metrics.replication = Some(replication.collect());
            has_caught_up(&metrics, 2)
        };
        assert!(has_caught_up_at(&[(2, Some(4000))]));
        assert!(!has_caught_up_at(&[(2, Some(3999))]));
        assert!(!has_caught_up_at(&[(2, None)]));
        // It was only just added.
        assert!(!has_caught_up_at(&[(1, Some(5000))]));
    }
}
