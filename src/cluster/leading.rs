//! Handing the lead of a group over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use openraft::{CommittedLeaderId, LogId, Vote};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::entering::VOTE_TIME;
use super::error::ClusterError;
use super::group::{GroupMetrics, RaftGroup, leader_of, must_lead, stopped};
use super::group_members::finished;
use super::network::PeerTransport;
use super::network::messages::{PeerAnswer, PeerRequest};
use super::node::Node;
use super::proposer::deposed;

/// How long a node waits for a leader before it stands again.
const ELECTION_TIME: Duration = Duration::from_secs(3);
/// How often a leader looks whether the next one has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Time for what is under way to come to an end. Requests wait meanwhile.
const REST_TIME: Duration = Duration::from_millis(800);
/// Time for another node to note that the lead is handed over.
const RELEASE_TIME: Duration = Duration::from_millis(500);
/// Number of entries that it may lack when requests begin to wait for it.
const NEAR_MAX: u64 = 10;
/// Number of nodes that are asked to take a lead over.
const SUCCESSORS_ASKED: usize = 2;
/// Time for another node to be elected, when this one stops.
const LEAD_TIME: Duration = Duration::from_secs(5);
/// Maximum number of leads that are handed over at the same time.
const HANDED_AT_ONCE: usize = 16;
/// How long ago a majority may have answered a leader that hands the lead over.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(1);
/// Number of entries that a node may lack that is to become the leader.
const BEHIND_MAX: u64 = 1000;
/// How often a node tries to become the leader.
const LEAD_ATTEMPTS: usize = 5;

impl RaftGroup {
    /// Has the group elect this node.
    pub(super) async fn lead<T: PeerTransport>(
        &self,
        node: &Arc<Node<T>>,
    ) -> Result<(), ClusterError> {
        let me = node.options.id;
        for _ in 0..LEAD_ATTEMPTS {
            node.check_stays()?;
            let mut last_term = None;
            match self.leader() {
                Some(leader) if leader == me => return Ok(()),
                Some(leader) => {
                    drop(node.at_leader(self.number, || PeerRequest::Yield { to: me }).await?);
                    if self.leader() != Some(leader) {
                        continue;
                    }
                    last_term = Some(self.metrics().current_term);
                    self.raft.trigger().elect().await.map_err(|error| stopped(&error))?;
                }
                // Somebody is being elected. A node that stands again and again stops the others.
                None => {}
            }
            // Until the election has begun, the leader of before is still the one that is known.
            let leads = |metrics: &GroupMetrics| {
                leader_of(metrics).is_some() && Some(metrics.current_term) > last_term
            };
            let wait = self.raft.wait(Some(ELECTION_TIME));
            // If nobody leads by then, the next look says so.
            drop(wait.metrics(leads, "somebody leads").await);
        }
        Err(ClusterError::NotLeader { leader: self.leader() })
    }

    /// Takes no requests as a leader until another node has the whole log, and then has the others
    /// ready to elect that one at once.
    pub(super) async fn yield_lead<T: PeerTransport>(
        self: &Arc<Self>,
        node: &Arc<Node<T>>,
        to: u64,
    ) -> Result<(), ClusterError> {
        let (group, node) = (Arc::clone(self), Arc::clone(node));
        finished(async move { group.hand_over(&node, to).await }).await
    }

    async fn hand_over<T: PeerTransport>(
        &self,
        node: &Arc<Node<T>>,
        to: u64,
    ) -> Result<(), ClusterError> {
        self.must_lead()?;
        let metrics = self.metrics();
        if !metrics.membership_config.membership().voter_ids().any(|voter| voter == to) {
            let reason = format!("node {to} does not vote in the group: only a voter can lead");
            return Err(ClusterError::Failed(reason));
        }
        // It has been elected meanwhile.
        if to == metrics.id {
            return Ok(());
        }
        let lacking = lacking(&metrics, to)?;
        if lacking > BEHIND_MAX {
            return Err(ClusterError::Failed(format!(
                "node {to} lacks {lacking} entries of the group: wait until it has caught up"
            )));
        }
        self.await_ready(to).await?;
        let Some(_begun) = self.handing_over.begin() else { return Err(ClusterError::Busy) };
        self.await_rest(to).await?;
        self.release(node, to).await
    }

    /// Waits until a node has almost all of the log, while requests are served.
    async fn await_ready(&self, to: u64) -> Result<(), ClusterError> {
        let until = Instant::now() + Duration::from_millis(self.raft.config().election_timeout_max);
        loop {
            let metrics = self.metrics();
            let has_majority = self.quorum_age(&metrics).is_some_and(|age| age <= QUORUM_AGE_MAX);
            let is_near = lacking(&metrics, to)? <= NEAR_MAX;
            if has_majority && is_near {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(ClusterError::Failed(if is_near {
                    format!("no majority has answered node {} for a while", metrics.id)
                } else {
                    format!("node {to} does not catch up")
                }));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until nothing is under way in the group, and a node has the whole log.
    async fn await_rest(&self, to: u64) -> Result<(), ClusterError> {
        let until = Instant::now() + REST_TIME;
        let mut rested_at = None;
        loop {
            let metrics = self.metrics();
            let last = metrics.last_log_index;
            let is_at_rest = self.handing_over.under_way.get() == 0
                && metrics.last_applied.map(|at| at.index) == last
                && lacking(&metrics, to)? == 0;
            // What openraft says of itself may be of a moment ago.
            if is_at_rest && rested_at == Some(last) {
                return Ok(());
            }
            rested_at = is_at_rest.then_some(last);
            if Instant::now() > until {
                let reason = format!("group {} does not come to rest in time", self.number);
                return Err(ClusterError::Failed(reason));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Has this node and the others give up the leader that they have. They elect nobody else as
    /// long as they count on it. They count on it no more when they have heard of a later vote: as
    /// in a message of the node that is to lead, which comes before its election. It fits no log,
    /// so it changes nothing else.
    async fn release<T: PeerTransport>(
        &self,
        node: &Arc<Node<T>>,
        to: u64,
    ) -> Result<(), ClusterError> {
        let metrics = self.metrics();
        must_lead(&metrics)?;
        let at = metrics.vote.leader_id;
        let message = move || AppendEntriesRequest {
            vote: Vote::new(at.term + 1, to),
            prev_log_id: Some(LogId::new(CommittedLeaderId::new(at.term, at.node_id), u64::MAX)),
            entries: Vec::new(),
            leader_commit: None,
        };
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut asking = JoinSet::new();
        for (id, member) in membership.nodes() {
            if voters.contains(id) && ![to, metrics.id].contains(id) {
                let mut connection =
                    node.network(self.number).connection_to(Some(*id), &member.addr);
                let asked = async move {
                    drop(connection.ask(&PeerRequest::Append(message(), None), RELEASE_TIME).await);
                };
                if node.is_silent(*id) {
                    tokio::spawn(asked);
                } else {
                    asking.spawn(asked);
                }
            }
        }
        // Without a majority, the election takes as long as without a hand-over.
        asking.join_all().await;
        self.handing_over.note_released(at.term + 1);
        let released = self.raft.append_entries(message()).await;
        released.map_err(|error| stopped(&error))?;
        // Whoever waits must not find what openraft has said before.
        drop(tokio::time::timeout(VOTE_TIME, deposed(&self.raft)).await);
        Ok(())
    }
}

impl<T: PeerTransport> Node<T> {
    /// Has other nodes lead what this one leads, as far as they can, and takes no lead over from
    /// now on. So nobody has to wait for elections when it stops.
    pub(crate) async fn hand_leads_over(self: &Arc<Self>) {
        self.is_leaving.store(true, Ordering::SeqCst);
        // It may have been about to be elected.
        for attempt in 0..LEAD_ATTEMPTS {
            let groups = self.all_groups().into_iter();
            // A node that does not lead a group knows no successor.
            let led: Vec<_> = groups.filter(|group| !self.successors(group).is_empty()).collect();
            if led.is_empty() {
                return;
            }
            if attempt > 0 {
                // Requests may have waited for what has failed. They get as much time.
                tokio::time::sleep(REST_TIME).await;
            }
            let mut handing = JoinSet::new();
            for (turn, group) in led.into_iter().enumerate() {
                if handing.len() >= HANDED_AT_ONCE {
                    handing.join_next().await;
                }
                let node = Arc::clone(self);
                handing.spawn(async move { node.hand_lead_over(&group, turn).await });
            }
            handing.join_all().await;
        }
    }

    /// Refuses to lead if this node is about to stop.
    pub(super) fn check_stays(&self) -> Result<(), ClusterError> {
        if self.is_leaving.load(Ordering::SeqCst) {
            let reason = format!("node {} is about to stop", self.options.id);
            return Err(ClusterError::Failed(reason));
        }
        Ok(())
    }

    /// Has another node lead a group before its members change, if this one leads it and leaves
    /// it: because it is the one that is removed, or because its removal was interrupted.
    pub(super) async fn pass_lead_on(&self, group: &RaftGroup, removed: Option<u64>) {
        let (me, metrics) = (self.options.id, group.metrics());
        let membership = metrics.membership_config.membership();
        let is_in_next = membership.get_joint_config().last().is_some_and(|it| it.contains(&me));
        if must_lead(&metrics).is_ok() && (removed == Some(me) || !is_in_next) {
            self.hand_lead_over(group, 0).await;
        }
    }

    /// Has another node lead a group, if this one leads it, and the others answer it. Which node is
    /// asked first depends on the turn.
    pub(super) async fn hand_lead_over(&self, group: &RaftGroup, turn: usize) {
        let mut successors = self.successors(group);
        if successors.is_empty() {
            return;
        }
        let first = turn % successors.len();
        successors.rotate_left(first);
        for (place, (id, address)) in successors.into_iter().take(SUCCESSORS_ASKED).enumerate() {
            if place > 0 {
                // Requests may have waited for what has failed. They get as much time.
                tokio::time::sleep(REST_TIME).await;
            }
            let mut connection = self.network(group.number).connection_to(Some(id), &address);
            // If all of it fails, the group elects somebody as soon as it misses this node.
            let asked = connection.ask(&PeerRequest::Lead, LEAD_TIME).await;
            if matches!(asked, Ok(PeerAnswer::Done)) || group.must_lead().is_err() {
                return;
            }
        }
    }

    /// Returns the nodes that can lead a group instead of this one, with their addresses.
    fn successors(&self, group: &RaftGroup) -> Vec<(u64, String)> {
        let (metrics, map) = (group.metrics(), self.map());
        // Without a majority, a hand-over would fail.
        if group.quorum_age(&metrics).is_none_or(|age| age > QUORUM_AGE_MAX) {
            return Vec::new();
        }
        let can_lead =
            |id: &u64| *id != metrics.id && !self.is_silent(*id) && !map.removed.contains(id);
        let membership = metrics.membership_config.membership();
        let lacking = |id: u64| lacking(&metrics, id).ok().filter(|lacking| *lacking <= BEHIND_MAX);
        let voters = membership.voter_ids().filter(can_lead);
        let mut voters: Vec<_> = voters.filter_map(|id| Some((lacking(id)?, id))).collect();
        voters.sort_unstable();
        // If some can lead at once, the others are not asked.
        let near = voters.iter().take_while(|(lacking, _)| *lacking <= NEAR_MAX).count();
        voters.truncate(near.max(1));
        let address = |id| Some((id, membership.get_node(&id)?.addr.clone()));
        voters.into_iter().filter_map(|(_, id)| address(id)).collect()
    }
}

/// Returns how many entries of a leader's log another node lacks.
fn lacking(metrics: &GroupMetrics, node: u64) -> Result<u64, ClusterError> {
    must_lead(metrics)?;
    let at = metrics.replication.as_ref().and_then(|all| all.get(&node).copied()).flatten();
    let last = metrics.last_log_index.map_or(0, |last| last + 1);
    Ok(last.saturating_sub(at.map_or(0, |at| at.index + 1)))
}
