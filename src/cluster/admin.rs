//! Asks nodes to do what an administrator wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::backup::{odd, of_group};
use super::error::{ClusterError, failed, unanswered};
use super::map::MAP_GROUP;
use super::network::messages::{PeerAnswer, PeerRequest};
use super::network::{AskFailure, IdlePeers, PeerNetwork, Tcp};
use super::status::{NodeEntry, NodeStatus};

/// Time for what may have to send all data to a new node.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// Time for anything else.
pub(super) const SHORT: Duration = Duration::from_secs(60);
/// Time in which a node has to say how it is, before it is given a lead.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// Time for one answer of many, after which another attempt is made. Nodes answer within ten
/// seconds what they can answer.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// How long such attempts go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// What [`ClusterAdmin::balance`] has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalancedLeads {
    /// Number of leads that were transferred.
    pub transferred: usize,
    /// The nodes that were given none: they do not answer, have not joined all groups yet, or are
    /// being removed.
    pub left_out: Vec<u64>,
}

/// Administers a cluster through one of its nodes. Calls block.
pub struct ClusterAdmin {
    pub(super) address: String,
    pub(super) answer_time: Duration,
    pub(super) patience: Duration,
    secret: Arc<str>,
    runtime: Runtime,
    /// Connections for the next question: a backup asks for each piece of each file.
    idle: Arc<IdlePeers>,
}

impl fmt::Debug for ClusterAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAdmin").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ClusterAdmin {
    /// Takes the address on which a node listens for the others, and the secret of the cluster.
    /// Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`Failed`](ClusterError::Failed) if the operating system cannot start a runtime.
    pub fn new(address: impl Into<String>, secret: &str) -> Result<Self, ClusterError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        Ok(Self {
            address: address.into(),
            answer_time: ANSWER_TIME,
            patience: PATIENCE,
            secret: Arc::from(secret),
            runtime,
            idle: Arc::default(),
        })
    }

    pub(super) fn ask(
        &self,
        address: &str,
        group: u64,
        request: &PeerRequest,
        time: Duration,
    ) -> Result<PeerAnswer, ClusterError> {
        let mut connection = self.network(group).connection(address);
        match self.runtime.block_on(connection.ask(request, time)) {
            Ok(PeerAnswer::Refused(reason)) => Err(ClusterError::Refused(reason)),
            Ok(PeerAnswer::Failed(reason)) => Err(ClusterError::Failed(reason)),
            Ok(PeerAnswer::Busy) => Err(ClusterError::Busy),
            Ok(PeerAnswer::AskLeader { leader, .. }) => Err(ClusterError::NotLeader { leader }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(unanswered(address, time, &error)),
        }
    }

    /// Returns the answer, or whether the node may have the request although it has not answered.
    /// A node of another cluster does nothing.
    pub(super) fn ask_once(
        &self,
        address: &str,
        cluster: u128,
        group: u64,
        request: &PeerRequest,
    ) -> Result<PeerAnswer, AskFailure> {
        let network = PeerNetwork { cluster: Some(cluster), ..self.network(group) };
        let mut connection = network.connection(address);
        self.runtime.block_on(connection.ask_once(request, self.answer_time))
    }

    fn network(&self, group: u64) -> PeerNetwork<Tcp> {
        let (secret, idle) = (Arc::clone(&self.secret), Arc::clone(&self.idle));
        let (progress, age) = (Arc::default(), Arc::default());
        PeerNetwork { transport: Tcp, group, cluster: None, secret, idle, progress, age }
    }

    fn order(&self, request: &PeerRequest, time: Duration) -> Result<(), ClusterError> {
        self.ask(&self.address, MAP_GROUP, request, time).map(drop)
    }

    /// Founds a cluster of this node alone, with a number of shards that never changes.
    ///
    /// # Errors
    ///
    /// Those of [`ClusterNode::init`](super::ClusterNode::init), and
    /// [`Failed`](ClusterError::Failed) if the node cannot be reached, or does not answer in time.
    pub fn init(&self, shards: u16) -> Result<(), ClusterError> {
        self.order(&PeerRequest::Init { shards }, SHORT)
    }

    /// Has this node join the cluster that the node at an address belongs to. Returns when it votes
    /// in all groups. It may still lack the last 1,000 entries of each.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init), and what the other nodes answer.
    pub fn join(&self, address: impl Into<String>) -> Result<(), ClusterError> {
        self.order(&PeerRequest::Join { address: address.into() }, LONG)
    }

    /// Removes a node from the cluster, which may be down.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn remove(&self, id: u64) -> Result<(), ClusterError> {
        self.order(&PeerRequest::Leave { id }, LONG)
    }

    /// Returns what the node knows of the cluster and of its groups.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    pub fn status(&self) -> Result<NodeStatus, ClusterError> {
        match self.ask(&self.address, MAP_GROUP, &PeerRequest::Status, SHORT)? {
            PeerAnswer::Status(status) => Ok(status),
            _ => Err(ClusterError::Refused("the answer is not that to the question".to_owned())),
        }
    }

    /// Returns the same, if the node belongs to a cluster.
    fn status_of_member(&self) -> Result<NodeStatus, ClusterError> {
        let status = self.status()?;
        if status.shards.is_some() {
            return Ok(status);
        }
        let text = format!("node {} belongs to no cluster", status.id);
        Err(ClusterError::Refused(text))
    }

    /// Makes a node the leader of a group. Requests that arrive meanwhile wait for a moment,
    /// instead of being refused.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join), and [`Refused`](ClusterError::Refused) for a number that no node
    /// has.
    pub fn transfer(&self, group: u64, id: u64) -> Result<(), ClusterError> {
        let status = self.status_of_member()?;
        let found = status.nodes.iter().find(|node| node.id == id);
        let Some(node) = found else {
            return Err(ClusterError::Refused(format!("there is no node {id}")));
        };
        let asked = self.ask(&node.cluster, group, &PeerRequest::Lead, SHORT);
        asked.map(drop).map_err(|failure| of_group(group, &of_node(id, &failure)))
    }

    /// Spreads the leads of all groups evenly over the nodes that answer, that vote in all groups,
    /// and that are not being removed, by one [transfer](Self::transfer) after the other.
    ///
    /// # Errors
    ///
    /// Those of [`transfer`](Self::transfer). What was transferred before stays so.
    pub fn balance(&self) -> Result<BalancedLeads, ClusterError> {
        let status = self.status_of_member()?;
        let known = self.ask(&self.address, MAP_GROUP, &PeerRequest::GetMap, SHORT)?;
        let PeerAnswer::Cluster(known) = known else { return Err(odd("the question for the map")) };
        let answers = |address: &str| {
            let asked = self.ask(address, MAP_GROUP, &PeerRequest::Status, LOOK_TIME);
            matches!(asked, Ok(PeerAnswer::Status(_)))
        };
        let nodes = able(&status, &known.map.removed);
        let nodes = nodes.filter(|node| answers(&node.cluster)).map(|node| node.id);
        let nodes: Vec<u64> = nodes.collect();
        let leads = status.groups.iter().map(|group| (group.number, group.leader)).collect();
        let transfers = balanced(leads, &nodes);
        for (group, id) in &transfers {
            self.transfer(*group, *id)?;
        }
        let all = status.nodes.iter().map(|node| node.id);
        let left_out = all.filter(|id| !nodes.contains(id)).collect();
        Ok(BalancedLeads { transferred: transfers.len(), left_out })
    }

    /// Has the node build a snapshot of each group, after which it needs less of the log.
    ///
    /// # Errors
    ///
    /// As [`join`](Self::join).
    pub fn snapshot(&self) -> Result<(), ClusterError> {
        for group in self.status_of_member()?.groups {
            self.ask(&self.address, group.number, &PeerRequest::BuildSnapshot, SHORT)?;
        }
        Ok(())
    }
}

/// Says which node has failed, unless the failure begins with it.
fn of_node(id: u64, failure: &ClusterError) -> ClusterError {
    let (text, node) = (failure.to_string(), format!("node {id}"));
    let is_named = text.strip_prefix(&node).is_some_and(|rest| rest.starts_with([' ', ':']));
    let text = if is_named { text } else { format!("{node}: {text}") };
    if matches!(failure, ClusterError::Refused(_)) {
        ClusterError::Refused(text)
    } else {
        ClusterError::Failed(text)
    }
}

/// Returns the nodes that can lead every group, but for those that are being removed.
fn able<'a>(
    status: &'a NodeStatus,
    leaving: &'a BTreeSet<u64>,
) -> impl Iterator<Item = &'a NodeEntry> {
    status.nodes.iter().filter(|node| {
        let is_voter = status.groups.iter().all(|group| group.voters.contains(&node.id));
        is_voter && !leaving.contains(&node.id)
    })
}

/// Returns which groups have to be led by which other nodes, so that no node leads more groups than
/// its share. Groups whose leaders have room for them stay where they are.
fn balanced(leads: Vec<(u64, Option<u64>)>, nodes: &[u64]) -> Vec<(u64, u64)> {
    let len = nodes.len().max(1);
    // The groups of each node, and the number of nodes that lead one more.
    let (share, mut more) = (leads.len() / len, leads.len() % len);
    let mut counts: BTreeMap<u64, usize> = nodes.iter().map(|node| (*node, 0)).collect();
    let (mut transfers, mut moving) = (Vec::new(), Vec::new());
    for (group, leader) in leads {
        match leader.and_then(|leader| counts.get_mut(&leader)) {
            Some(count) if *count < share => *count += 1,
            Some(count) if *count == share && more > 0 => {
                *count += 1;
                more -= 1;
            }
            _ => moving.push(group),
        }
    }
    for group in moving {
        if let Some((node, count)) = counts.iter_mut().min_by_key(|(_, count)| **count) {
            *count += 1;
            transfers.push((group, *node));
        }
    }
    transfers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::{GroupRole, GroupStatus};

    /// Returns a group, as a node sees it that does not lead.
    fn group(number: u64, voters: &[u64]) -> GroupStatus {
        GroupStatus {
            number,
            slots: None,
            role: GroupRole::Follower,
            leader: Some(1),
            term: 1,
            voters: voters.to_vec(),
            learners: Vec::new(),
            last_log: None,
            applied: None,
            snapshot: None,
            purged: None,
            quorum_age: None,
            replicated: Vec::new(),
            transfers: Vec::new(),
            keys: 0,
            size: 0,
            failure: None,
        }
    }

    #[test]
    fn a_failure_names_its_node_once() {
        let of_two = |failure| of_node(2, &failure);
        let failed = |why: &str| ClusterError::Failed(why.to_owned());
        let refused = ClusterError::Refused("it is no voter".to_owned());
        let expected = ClusterError::Refused("node 2: it is no voter".to_owned());
        assert_eq!(of_two(refused), expected);
        let expected = failed("node 2: no node leads this group at the moment");
        assert_eq!(of_two(ClusterError::NotLeader { leader: None }), expected);
        assert_eq!(of_two(failed("node 2 does not vote")), failed("node 2 does not vote"));
        assert_eq!(of_two(failed("node 22 is gone")), failed("node 2: node 22 is gone"));
    }

    #[test]
    fn nodes_that_join_or_leave_are_given_no_leads() {
        let node = |id: u64| NodeEntry {
            id,
            cluster: String::new(),
            redis: String::new(),
            http: String::new(),
        };
        let status = NodeStatus {
            id: 1,
            version: String::new(),
            shards: Some(1),
            nodes: (1..=4).map(node).collect(),
            groups: vec![group(0, &[1, 2, 3, 4]), group(1, &[1, 2, 3])],
        };
        // Node 4 has not joined the second group yet, and node 2 is being removed.
        let leaving = [2].into();
        let able = able(&status, &leaving).map(|node| node.id);
        assert_eq!(able.collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn leads_are_spread_evenly_and_no_more_of_them_are_moved_than_needed() {
        let all_at = |node| (0..5).map(|group| (group, Some(node))).collect();
        assert_eq!(balanced(all_at(1), &[1, 2, 3]), [(2, 2), (3, 3), (4, 2)]);
        assert_eq!(balanced(all_at(1), &[1]), []);
        let two_each = vec![(0, Some(1)), (1, Some(1)), (2, Some(2)), (3, Some(2))];
        assert_eq!(balanced(two_each, &[1, 2, 3]), [(3, 3)]);
        // Node 4 does not answer, and group 3 has no leader.
        let leads = vec![(0, Some(1)), (1, Some(4)), (2, Some(2)), (3, None)];
        assert_eq!(balanced(leads, &[1, 2]), [(1, 1), (3, 2)]);
        assert_eq!(balanced(all_at(1), &[]), []);
    }
}
