//! Handing the lead of a group over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::error::ClusterError;
use super::group::{GroupMetrics, RaftGroup, leader_of, stopped};
use super::network::PeerTransport;
use super::network::messages::PeerRequest;
use super::node::Node;

/// How long a node waits for a leader before it stands again.
const ELECTION_TIME: Duration = Duration::from_secs(3);
/// How often a leader looks whether the next one has caught up.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
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
            let mut last_term = None;
            match self.leader() {
                Some(leader) if leader == me => return Ok(()),
                // The others elect nobody as long as they hear of a leader.
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

    /// Takes no requests as a leader until another node has the whole log, and then keeps quiet
    /// until the others may elect it. After that time, everything is as before.
    pub(super) async fn yield_lead(self: &Arc<Self>, to: u64) -> Result<(), ClusterError> {
        self.must_lead()?;
        let is_voter = |metrics: &GroupMetrics| {
            metrics.membership_config.membership().voter_ids().any(|voter| voter == to)
        };
        if !is_voter(&self.metrics()) {
            let reason = format!("node {to} does not vote in the group: only a voter can lead");
            return Err(ClusterError::Failed(reason));
        }
        // A node that has been elected meanwhile would silence itself, and lose the lead again.
        if to == self.metrics().id {
            return Ok(());
        }
        let lacks = || {
            let metrics = self.metrics();
            let found = metrics.replication.as_ref().and_then(|all| all.get(&to).copied());
            let has = found.flatten().map_or(0, |at| at.index + 1);
            metrics.last_log_index.map_or(0, |last| last + 1).saturating_sub(has)
        };
        if lacks() > BEHIND_MAX {
            return Err(ClusterError::Failed(format!(
                "node {to} lacks {} entries of the group: wait until it has caught up",
                lacks()
            )));
        }
        let quiet = Duration::from_millis(self.raft.config().election_timeout_max);
        let began = Instant::now();
        let number = self.handing_over.begin();
        let group = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(quiet * 2).await;
            group.end_hand_over(number);
        });
        while lacks() > 0 {
            if began.elapsed() > quiet {
                self.end_hand_over(number);
                return Err(ClusterError::Failed(format!("node {to} does not catch up")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        // This node may have been halted for so long that the time has ended. Nobody would switch
        // the heartbeats on again.
        if !self.handing_over.during(number, || self.raft.runtime_config().heartbeat(false)) {
            let reason = format!("the time to hand the lead over to node {to} has ended");
            return Err(ClusterError::Failed(reason));
        }
        tokio::time::sleep(quiet).await;
        Ok(())
    }

    /// Takes requests again, and sends heartbeats, unless a later hand-over has begun.
    fn end_hand_over(&self, number: u64) {
        self.handing_over.end(number, || self.raft.runtime_config().heartbeat(true));
    }
}

/// The hand-overs of a group's lead, of which the last may be under way.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    /// Lock 9: the number of the last one, and whether it is under way.
    last: Mutex<(u64, bool)>,
}

impl HandOvers {
    fn last(&self) -> MutexGuard<'_, (u64, bool)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn are_under_way(&self) -> bool {
        self.last().1
    }

    /// Begins one, which takes the place of the one before. Returns its number.
    fn begin(&self) -> u64 {
        let mut last = self.last();
        *last = (last.0 + 1, true);
        last.0
    }

    /// Does something if this one is under way, and returns whether it is. It does not end
    /// meanwhile.
    fn during(&self, number: u64, work: impl FnOnce()) -> bool {
        let last = self.last();
        let is_under_way = *last == (number, true);
        if is_under_way {
            work();
        }
        is_under_way
    }

    /// Ends one, and does what belongs to its end, unless another has taken its place.
    fn end(&self, number: u64, ended: impl FnOnce()) {
        let mut last = self.last();
        if *last == (number, true) {
            last.1 = false;
            ended();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first did not come to anything, and its time ends in the middle of the second.
    #[test]
    fn the_time_of_a_hand_over_does_not_end_a_later_one() {
        let (hand_overs, mut ended) = (HandOvers::default(), Vec::new());
        let first = hand_overs.begin();
        hand_overs.end(first, || ended.push(first));
        assert!(!hand_overs.are_under_way());
        let second = hand_overs.begin();
        hand_overs.end(first, || ended.push(first));
        assert!(hand_overs.are_under_way());
        hand_overs.end(second, || ended.push(second));
        hand_overs.end(second, || ended.push(second));
        assert!(!hand_overs.are_under_way());
        assert_eq!(ended, [first, second]);
    }

    /// The node was halted between the last look at the next leader and its silence.
    #[test]
    fn a_hand_over_whose_time_has_ended_silences_nobody() {
        let (hand_overs, mut heartbeats) = (HandOvers::default(), true);
        let first = hand_overs.begin();
        hand_overs.end(first, || heartbeats = true);
        assert!(!hand_overs.during(first, || heartbeats = false));
        let second = hand_overs.begin();
        assert!(!hand_overs.during(first, || heartbeats = false));
        assert!(heartbeats);
        assert!(hand_overs.during(second, || heartbeats = false));
        assert!(!heartbeats);
        hand_overs.end(second, || heartbeats = true);
        assert!(heartbeats);
    }
}
