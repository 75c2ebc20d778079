//! Has the leader of a group do something, whichever node that is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{ClusterError, unanswered};
use super::membership::PAUSE;
use super::network::PeerTransport;
use super::network::messages::{PeerAnswer, PeerRequest};
use super::node::Node;

/// Time for an answer.
pub(super) const SHORT_TIME: Duration = Duration::from_secs(15);

impl<T: PeerTransport> Node<T> {
    /// Has the leader of a group do something.
    pub(crate) async fn at_leader(
        self: &Arc<Self>,
        group: u64,
        request: impl Fn() -> PeerRequest,
    ) -> Result<PeerAnswer, ClusterError> {
        self.at_leader_from(group, None, request, SHORT_TIME * 2).await
    }

    /// Does the same for a node that may know no leader yet, with the node at an address to begin
    /// with. The request may be made several times.
    pub(super) async fn at_leader_from(
        self: &Arc<Self>,
        number: u64,
        seed: Option<&str>,
        request: impl Fn() -> PeerRequest,
        time: Duration,
    ) -> Result<PeerAnswer, ClusterError> {
        let (mut next, mut turn) = (None, 0);
        let mut last = ClusterError::NotLeader { leader: None };
        let until = Instant::now() + time;
        while Instant::now() < until {
            let (address, is_guess) = if let Some(address) = next.take() {
                (address, false)
            } else {
                turn += 1;
                self.likely_leader(number, seed, turn - 1)
            };
            let mut connection = self.network(number).connection(&address);
            match connection.ask(&request(), SHORT_TIME).await {
                // A leader says so too that has not come to an end.
                Ok(PeerAnswer::AskLeader { leader: None, .. })
                    if self.leader_address(number).as_ref() == Some(&address) =>
                {
                    last = unfinished();
                }
                Ok(PeerAnswer::AskLeader { leader, address }) => {
                    next = address;
                    last = ClusterError::NotLeader { leader };
                }
                Ok(PeerAnswer::Refused(reason)) => return Err(ClusterError::Refused(reason)),
                // Another node need not have joined the group.
                Ok(PeerAnswer::Failed(reason)) if is_guess => last = ClusterError::Failed(reason),
                Ok(PeerAnswer::Failed(reason)) => return Err(ClusterError::Failed(reason)),
                Ok(PeerAnswer::Busy) => last = ClusterError::Busy,
                Ok(answer) => return Ok(answer),
                Err(error) => last = unanswered(&address, SHORT_TIME, &error),
            }
            if next.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(last)
    }

    /// Returns the address of the leader that this node knows.
    fn leader_address(&self, group: u64) -> Option<String> {
        let leader = self.group(group).and_then(|group| group.leader());
        leader.and_then(|leader| self.address_of(leader))
    }

    /// Returns the address to ask at a turn: the leader's, then the seed's or that of this node. If
    /// there is a seed, the other nodes follow, of which it is a guess that they know the leader.
    pub(super) fn likely_leader(
        &self,
        group: u64,
        seed: Option<&str>,
        turn: usize,
    ) -> (String, bool) {
        let mine = &self.options.addresses.cluster;
        // There are more of them when this node has joined the group of the map.
        let mut likely: Vec<_> = self.leader_address(group).into_iter().collect();
        likely.push(seed.unwrap_or(mine).to_owned());
        let sure = likely.len();
        if seed.is_some() {
            let map = self.map();
            let others = map.nodes.values().map(|node| &node.cluster);
            let others: Vec<_> = others.filter(|it| *it != mine && !likely.contains(it)).collect();
            likely.extend(others.into_iter().cloned());
        }
        let place = turn % likely.len();
        (likely.swap_remove(place), place >= sure)
    }
}

/// Returns the error for what a leader has begun. An answer without a leader would say that nothing
/// was done.
pub(super) fn unfinished() -> ClusterError {
    let text = "the leader has not finished in time; what was asked for may or may not take effect";
    ClusterError::Failed(text.to_owned())
}
