//! Has the leader of a group do something, whichever node that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{ClusterError, unanswered};
use super::map::MAP_GROUP;
use super::membership::PAUSE;
use super::network::PeerTransport;
use super::network::client::PeerConnection;
use super::network::messages::{PeerAnswer, PeerRequest};
use super::node::Node;

/// Time for an answer.
pub(super) const SHORT_TIME: Duration = Duration::from_secs(15);
/// Time for a node to say what it leads. Several are asked, one after the other.
const STATUS_TIME: Duration = Duration::from_secs(2);

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
        let mut leader = self.leader_address(number);
        let mut last = ClusterError::NotLeader { leader: None };
        let until = Instant::now() + time;
        while Instant::now() < until {
            // One that was elected meanwhile comes before the guesses.
            let before = std::mem::replace(&mut leader, self.leader_address(number));
            let elected = leader.clone().filter(|leader| before.as_ref() != Some(leader));
            let (address, is_known) = if let Some(address) = next.take().or(elected) {
                (address, true)
            } else {
                turn += 1;
                self.likely_leader(number, seed, turn - 1)
            };
            let mut connection = self.network(number).connection(&address);
            let failure = match connection.ask(&request(), SHORT_TIME).await {
                // A leader says so too that has not come to an end.
                Ok(PeerAnswer::AskLeader { leader: None, .. })
                    if self.leader_address(number).as_ref() == Some(&address) =>
                {
                    last = unfinished();
                    None
                }
                Ok(PeerAnswer::AskLeader { leader, address }) => {
                    next = address;
                    last = ClusterError::NotLeader { leader };
                    None
                }
                Ok(PeerAnswer::Refused(reason)) => Some(ClusterError::Refused(reason)),
                Ok(PeerAnswer::Failed(reason)) => Some(ClusterError::Failed(reason)),
                Ok(PeerAnswer::Busy) => {
                    last = ClusterError::Busy;
                    None
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    last = unanswered(&address, SHORT_TIME, &error);
                    None
                }
            };
            if let Some(failure) = failure {
                // Another node need not have joined the group, and what answers may be no node.
                if is_known || leads(&mut connection).await {
                    return Err(failure);
                }
                last = failure;
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

    /// Returns the address to ask at a turn, and whether its answer is final. At every other turn,
    /// that is the leader's, or else the seed's or that of this node. The other nodes follow in
    /// between, of which it is a guess that they know the leader: this one may have left the group.
    pub(super) fn likely_leader(
        &self,
        group: u64,
        seed: Option<&str>,
        turn: usize,
    ) -> (String, bool) {
        let mine = &self.options.addresses.cluster;
        let leader = self.leader_address(group);
        let is_known = leader.is_some();
        let mut likely: Vec<_> = leader.into_iter().collect();
        let map = self.map();
        let others = map.nodes.iter().filter(|(id, _)| !self.is_silent(**id));
        let others = others.map(|(_, node)| &*node.cluster).filter(|it| it != mine);
        for address in std::iter::once(seed.unwrap_or(mine)).chain(others) {
            if likely.iter().all(|it| it != address) {
                likely.push(address.to_owned());
            }
        }
        let guesses = likely.len() - 1;
        let is_first = turn.is_multiple_of(2) || guesses == 0;
        let place = if is_first { 0 } else { 1 + (turn / 2) % guesses };
        (likely.swap_remove(place), guesses == 0 || (is_first && is_known))
    }

    /// Returns whether this node was removed, as far as it or another one knows. A node that is
    /// removed while it is down hears nothing of that.
    pub(super) async fn is_removed(&self) -> bool {
        let (me, map) = (self.options.id, self.map());
        if map.removed.contains(&me) {
            return true;
        }
        for (id, node) in map.nodes.iter().filter(|(id, _)| **id != me) {
            let mut connection = self.network(MAP_GROUP).connection_to(Some(*id), &node.cluster);
            let answer = connection.ask(&PeerRequest::GetMap, SHORT_TIME).await;
            if matches!(answer, Ok(PeerAnswer::Cluster(other)) if other.map.removed.contains(&me)) {
                return true;
            }
        }
        false
    }

    /// Returns the voters of all groups that other nodes lead, as these say.
    pub(super) async fn voters_elsewhere(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let (me, map) = (self.options.id, self.map());
        let mut voters = BTreeMap::new();
        for (id, node) in map.nodes.iter().filter(|(id, _)| **id != me) {
            let mut connection = self.network(MAP_GROUP).connection_to(Some(*id), &node.cluster);
            let answer = connection.ask(&PeerRequest::Status, STATUS_TIME).await;
            let Ok(PeerAnswer::Status(status)) = answer else { continue };
            let led = status.groups.into_iter().filter(|group| group.leader == Some(status.id));
            voters.extend(led.map(|group| (group.number, group.voters.into_iter().collect())));
        }
        voters
    }
}

/// Returns whether the node that was asked leads the group.
async fn leads<T: PeerTransport>(connection: &mut PeerConnection<T>) -> bool {
    let answer = connection.ask(&PeerRequest::ReadIndex, SHORT_TIME).await;
    matches!(answer, Ok(PeerAnswer::ReadIndex(_)))
}

/// Returns the error for what a leader has begun. An answer without a leader would say that nothing
/// was done.
pub(super) fn unfinished() -> ClusterError {
    let text = "the leader has not finished in time; what was asked for may or may not take effect";
    ClusterError::Failed(text.to_owned())
}
