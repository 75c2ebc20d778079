//! Handing the lead of a group over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
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
            return Err(ClusterError::Refused(format!(
                "node {to} lacks {} entries of the group: wait until it has caught up",
                lacks()
            )));
        }
        let quiet = Duration::from_millis(self.raft.config().election_timeout_max);
        let began = Instant::now();
        self.is_yielding.store(true, Ordering::Release);
        let group = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(quiet * 2).await;
            group.is_yielding.store(false, Ordering::Release);
            group.raft.runtime_config().heartbeat(true);
        });
        while lacks() > 0 {
            if began.elapsed() > quiet {
                self.is_yielding.store(false, Ordering::Release);
                return Err(ClusterError::Refused(format!("node {to} does not catch up")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.raft.runtime_config().heartbeat(false);
        tokio::time::sleep(quiet).await;
        Ok(())
    }
}
