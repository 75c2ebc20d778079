//! Founding a cluster, joining it, and leaving it.
//!
//! - Each node takes part in all groups. So the map names a new node, and then it joins group by
//!   group; and it leaves in the opposite order. A join that was interrupted is repeated, and goes
//!   on.
//! - A removal marks the number of the node in the map first. So no group takes the node again that
//!   the removal has passed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::BasicNode;
use tokio::time::Instant;

use super::asking::{SHORT_TIME, unfinished};
use super::backup::{odd, of_group};
use super::consensus::{Answered, Request};
use super::drawn;
use super::error::{ClusterError, unanswered};
use super::group::{RaftGroup, stopped};
use super::group_members::finished;
use super::identity::NodeIdentity;
use super::map::{MAP_GROUP, MapChange, NodeAddresses};
use super::network::messages::{KnownCluster, PeerAnswer, PeerRequest};
use super::network::{PeerNetwork, PeerTransport};
use super::node::{Node, check_shards};
use crate::mistake::{Mistake, made};

/// Time in which a new node has to catch up with a group. It may have to receive a snapshot.
const JOIN_TIME: Duration = Duration::from_secs(24 * 3600);
/// Time for all steps to add a node, or to say why that does not go on. Whoever waits for the
/// answer waits a little longer, and asks again.
const ADD_TIME: Duration = Duration::from_secs(13);
/// How long to wait before a leader is asked for again.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// How often a leader is asked for.
pub(super) const ATTEMPTS: usize = 150;

impl<T: PeerTransport> Node<T> {
    /// Founds a cluster of this node alone. Changes nothing if the node has founded it already.
    pub(crate) async fn init(self: &Arc<Self>, shards: u16) -> Result<(), ClusterError> {
        check_shards(shards)?;
        let turn = self.founding.lock().await;
        let identity = match self.identity() {
            Some(identity) if identity.shards == shards && identity.is_founder => identity,
            Some(_) => return refused("this node belongs to a cluster already"),
            None => {
                let (fs, dir) = (&self.options.env.fs, &self.options.dir);
                let identity = match NodeIdentity::read(fs, dir)? {
                    // Its groups could not be opened.
                    Some(begun) if begun.shards == shards && begun.is_founder => begun,
                    Some(_) => return refused("this node belongs to a cluster already"),
                    None => NodeIdentity {
                        node: self.options.id,
                        cluster: drawn::unique(),
                        shards,
                        is_founder: true,
                        incarnation: drawn::unique(),
                    },
                };
                self.settle(identity).await?;
                identity
            }
        };
        let me = BasicNode::new(&self.options.addresses.cluster);
        for group in self.all_groups() {
            if !group.raft.is_initialized().await.map_err(|error| stopped(&error))? {
                let members = [(identity.node, me.clone())].into();
                let initialized: Result<(), _> =
                    group.raft.initialize::<std::collections::BTreeMap<_, _>>(members).await;
                initialized.map_err(|error| stopped(&error))?;
            }
        }
        drop(turn);
        self.at_leader(MAP_GROUP, || PeerRequest::GetMap).await?;
        self.change_map_patiently(MapChange::Create { shards }).await?;
        let (id, addresses) = (identity.node, self.addresses(&identity));
        self.change_map_patiently(MapChange::PutNode { id, addresses }).await
    }

    /// Joins the cluster that the node at an address belongs to.
    pub(crate) async fn join(self: &Arc<Self>, address: &str) -> Result<(), ClusterError> {
        let turn = self.founding.lock().await;
        let known = self.cluster_at(address).await?;
        let (fs, dir) = (&self.options.env.fs, &self.options.dir);
        let open = self.identity();
        // Its groups may not have been opened the last time.
        let found = if open.is_some() { open } else { NodeIdentity::read(fs, dir)? };
        let before = if found.is_some() { found } else { NodeIdentity::begun(fs, dir)? };
        let identity = NodeIdentity {
            node: self.options.id,
            cluster: known.cluster,
            shards: known.map.shards,
            is_founder: found.is_some_and(|found| found.is_founder),
            incarnation: before.map_or_else(drawn::unique, |before| before.incarnation),
        };
        if found.is_some_and(|found| found != identity) {
            return refused("this node belongs to another cluster");
        }
        // The map first: if this node loses its directory from now on, its number is taken. The
        // node notes its incarnation even before that, since the answer of the map may get lost.
        if found.is_none() {
            identity.begin(fs, dir)?;
        }
        let (id, addresses) = (identity.node, self.addresses(&identity));
        let put = || PeerRequest::PutNode { id, addresses: addresses.clone() };
        self.at_leader_from(MAP_GROUP, Some(address), put, SHORT_TIME * 2).await?;
        if open.is_none() {
            self.settle(identity).await?;
        }
        drop(turn);
        for group in MAP_GROUP..=u64::from(identity.shards) {
            let me = addresses.cluster.clone();
            let add = || PeerRequest::AddMember { id, address: me.clone() };
            self.unreceived().remove(&group);
            let added = tokio::select! {
                biased;
                // The leader goes on to send what this node cannot take.
                failure = self.unable(group) => Err(failure),
                added = self.at_leader_from(group, Some(address), add, JOIN_TIME) => added,
            };
            added.map_err(|failure| of_group(group, &failure))?;
        }
        Ok(())
    }

    /// Asks a node for its cluster, which may be another one than that of this node.
    async fn cluster_at(&self, address: &str) -> Result<KnownCluster, ClusterError> {
        let network = PeerNetwork { cluster: None, ..self.network(MAP_GROUP) };
        let answer = network.connection(address).ask(&PeerRequest::GetMap, SHORT_TIME).await;
        match answer.map_err(|error| unanswered(address, SHORT_TIME, &error))? {
            PeerAnswer::Cluster(known) => Ok(known),
            PeerAnswer::Failed(why) | PeerAnswer::Refused(why) if why.starts_with(address) => {
                Err(ClusterError::Refused(why))
            }
            PeerAnswer::Failed(why) | PeerAnswer::Refused(why) => {
                Err(ClusterError::Refused(format!("{address} answers: {why}")))
            }
            _ => Err(odd("the question for the map")),
        }
    }

    /// Tells the cluster where clients reach this node now.
    pub(super) async fn announce(self: &Arc<Self>, identity: NodeIdentity) {
        let (id, addresses) = (identity.node, self.addresses(&identity));
        loop {
            tokio::time::sleep(PAUSE * 10).await;
            if self.check_not_stopped().is_err() {
                return;
            }
            match self.map().nodes.get(&id) {
                Some(known) if *known == addresses => return,
                // A node that was removed, or that has not joined yet, announces nothing.
                None => {}
                Some(_) => {
                    let put = || PeerRequest::PutNode { id, addresses: addresses.clone() };
                    // What refuses may be no node, or one that does not work at the moment. It is
                    // asked again in the next round, unless this node is known to be leaving.
                    let put = self.at_leader(MAP_GROUP, put).await;
                    let is_refused = matches!(put, Err(ClusterError::Refused(_)));
                    if is_refused && self.is_removed().await {
                        return;
                    }
                }
            }
        }
    }

    /// Returns the addresses of this node, for the map.
    fn addresses(&self, identity: &NodeIdentity) -> NodeAddresses {
        NodeAddresses { incarnation: identity.incarnation, ..self.options.addresses.clone() }
    }

    /// Removes a node from all groups, and from the map.
    pub(crate) async fn remove(self: &Arc<Self>, id: u64) -> Result<(), ClusterError> {
        let of_map = |failure| match failure {
            // It is the removal that the map refuses.
            refusal @ ClusterError::Refused(_) => refusal,
            failure => of_group(MAP_GROUP, &failure),
        };
        self.at_leader(MAP_GROUP, || PeerRequest::BeginRemoval { id }).await.map_err(of_map)?;
        let groups = self.all_groups();
        for group in groups.iter().filter(|group| group.number != MAP_GROUP) {
            let removed = self.at_leader(group.number, || PeerRequest::RemoveMember { id }).await;
            removed.map_err(|failure| of_group(group.number, &failure))?;
        }
        // This may be the node, which hears nothing more of a group that it has left.
        self.at_leader(MAP_GROUP, || PeerRequest::RemoveNode { id }).await.map_err(of_map)?;
        let left = self.at_leader(MAP_GROUP, || PeerRequest::RemoveMember { id }).await;
        left.map(drop).map_err(of_map)
    }

    /// Marks a node as one that is being removed, if another one votes in each group after that.
    pub(super) async fn begin_removal(&self, id: u64) -> Result<(), ClusterError> {
        let Some(group) = self.group(MAP_GROUP) else {
            return refused("this node belongs to no cluster");
        };
        // The check of a removal has to see the marks of those before, also those that another
        // leader has made.
        let _turn = self.founding.lock().await;
        group.read_index().await?;
        self.check_removable(id).await?;
        // Only a leader that knows the latest members can have the mark committed, and one of them
        // that has left since is marked too.
        let voters = group.metrics().membership_config.membership().voter_ids().collect();
        self.change_map(MapChange::BeginRemoval { id, voters }).await
    }

    /// Refuses the removal of a node without which a group would have no voter that stays, as far
    /// as this node knows. The mark of a removal is never taken back.
    async fn check_removable(&self, id: u64) -> Result<(), ClusterError> {
        let (me, map) = (self.options.id, self.map());
        if map.removed.contains(&id) {
            return Ok(());
        }
        let stays = |other: &u64| *other != id && !map.removed.contains(other);
        let mut elsewhere = None;
        for group in self.all_groups() {
            let metrics = group.metrics();
            let membership = metrics.membership_config.membership();
            let mut configs = membership.get_joint_config().clone();
            let has_joined = membership.voter_ids().next().is_some();
            if !has_joined && id == me {
                continue;
            }
            if !has_joined || metrics.running_state.is_err() {
                if elsewhere.is_none() {
                    elsewhere = Some(self.voters_elsewhere().await);
                }
                let voters = elsewhere.iter().find_map(|all| all.get(&group.number));
                configs = voters.cloned().into_iter().collect();
            }
            let voters: BTreeSet<u64> = configs.iter().flatten().copied().collect();
            if voters.is_empty() {
                return Err(ClusterError::Failed(format!(
                    "group {}: no node that leads it answers, so it is not known whether it can do \
                     without node {id}",
                    group.number
                )));
            }
            let is_out = !voters.contains(&id);
            let goes_on = configs.iter().all(|it| it.iter().any(stays));
            let others = map.nodes.keys().filter(|other| stays(other) && !voters.contains(other));
            let others: Vec<_> = others.map(u64::to_string).collect();
            // Without such nodes, it is the last one, as the map says itself.
            if !is_out && !goes_on && !others.is_empty() {
                return Err(ClusterError::Refused(format!(
                    "group {} would have no voter without node {id}: let each node join again that \
                     has not finished joining (node {})",
                    group.number,
                    others.join(", node ")
                )));
            }
        }
        Ok(())
    }

    /// Makes a node a voter of a group that this one leads, once it has the log. Goes on although
    /// nobody waits any more: what was begun has to be looked at once more.
    pub(super) async fn add_member(
        self: &Arc<Self>,
        group: &Arc<RaftGroup>,
        id: u64,
        address: String,
    ) -> Result<(), ClusterError> {
        let (node, group) = (Arc::clone(self), Arc::clone(group));
        let until = Instant::now() + ADD_TIME;
        let adding = finished(async move {
            // Whoever does not lead the group says nothing but that.
            group.must_lead()?;
            node.pass_lead_on(&group, None).await;
            group.must_lead()?;
            node.check_wanted(&group, id).await?;
            let added = group.add_learner(id, address).await;
            // A removal marks the number before it looks for the node in the groups. So if it has
            // not found it in this one, the mark is there by now. A change whose end was not
            // waited for may be made too.
            node.check_still_wanted(&group, id).await?;
            added?;
            group.add_voter(&node, id, until).await
        });
        tokio::time::timeout_at(until, adding).await.unwrap_or(Err(ClusterError::Unknown))
    }

    /// Returns an error if a node was removed, or is being removed. It does not stay a learner of
    /// the group then.
    async fn check_wanted(&self, group: &Arc<RaftGroup>, id: u64) -> Result<(), ClusterError> {
        let Some(map) = self.group(MAP_GROUP) else {
            return refused("this node belongs to no cluster");
        };
        // One that has stopped here knows no leader that could be waited for.
        let is_running = map.check_running();
        let is_fresh = if is_running.is_ok() { self.catch_up(&map).await } else { is_running };
        is_fresh.map_err(|failure| match failure {
            ClusterError::Busy => failure,
            ClusterError::Failed(_) | ClusterError::Stopped(_) => of_group(MAP_GROUP, &failure),
            // The leader of the map may be another one than that of this group.
            _ => ClusterError::NotLeader { leader: None },
        })?;
        if map.map().removed.contains(&id) {
            if group.metrics().membership_config.membership().learner_ids().any(|it| it == id) {
                group.remove_member(id).await?;
            }
            return Err(ClusterError::Refused(format!(
                "node {id} was removed, or is being removed: repeat the removal, and give the node a \
                 number that none has had"
            )));
        }
        Ok(())
    }

    /// Does the same until it is known, as long as this node leads the group: nobody else takes the
    /// learner out that the removal has not found.
    async fn check_still_wanted(
        &self,
        group: &Arc<RaftGroup>,
        id: u64,
    ) -> Result<(), ClusterError> {
        loop {
            let checked = self.check_wanted(group, id).await;
            let is_known = matches!(checked, Ok(()) | Err(ClusterError::Refused(_)));
            if is_known || group.leader() != Some(self.options.id) {
                return checked;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Changes the map, on the leader of its group.
    pub(super) async fn change_map(&self, change: MapChange) -> Result<(), ClusterError> {
        let Some(group) = self.group(MAP_GROUP) else {
            return refused("this node belongs to no cluster");
        };
        if made(Mistake::MapShownEarly) {
            group.state().application().show(&change);
        }
        match group.write(Request::Map(change)).await? {
            Answered::Map(Ok(())) => Ok(()),
            Answered::Map(Err(reason)) | Answered::Refused(reason) => {
                Err(ClusterError::Refused(reason))
            }
            _ => refused("the answer is not that to a change of the map"),
        }
    }

    async fn change_map_patiently(&self, change: MapChange) -> Result<(), ClusterError> {
        let mut left = ATTEMPTS;
        loop {
            match self.change_map(change.clone()).await {
                Err(ClusterError::NotLeader { .. }) if left > 0 => left -= 1,
                Err(ClusterError::Unknown) => return Err(unfinished()),
                changed => return changed,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

pub(super) fn refused<T>(reason: &str) -> Result<T, ClusterError> {
    Err(ClusterError::Refused(reason.to_owned()))
}
