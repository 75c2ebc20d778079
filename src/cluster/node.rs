//! One node, and its groups.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::error::ClusterError;
use super::group::RaftGroup;
use super::identity::{self, NodeIdentity};
use super::lending::LentCopies;
use super::map::{ClusterMap, MAP_GROUP, SHARDS_MAX};
use super::network::messages::KnownCluster;
use super::network::{IdlePeers, PeerNetwork, PeerTransport};
use super::options::ClusterOptions;
use super::receiving::{InstallTurns, SnapshotsByGroup};
use super::status::{GroupStatus, NodeStatus, entries};
use crate::error::Error;
use crate::fs;

/// A node, whatever its connections are made of.
pub(crate) struct Node<T> {
    pub(crate) options: ClusterOptions,
    pub(crate) transport: T,
    /// Lock 9: the groups. Held for a moment.
    groups: Mutex<NodeGroups>,
    /// Lock 0, before the groups: the turn to found or to join a cluster, or to mark a removal.
    pub(super) founding: AsyncMutex<()>,
    /// Lock 9: snapshots that are being received, by group. A new one replaces the one before.
    pub(super) receiving: Mutex<SnapshotsByGroup>,
    pub(super) install_turns: InstallTurns,
    /// Lock 9: why a snapshot could not be received, by group.
    pub(super) unreceived: Mutex<BTreeMap<u64, String>>,
    /// Lock 9: copies that are lent.
    pub(super) lent: Mutex<LentCopies>,
    /// Whether the node was stopped. What is put under one of the locks above is put there only if
    /// it was not: [`stop`](Self::stop) sets this before it empties them.
    is_stopped: AtomicBool,
    /// Whether the node is about to stop, and takes no lead over any more.
    pub(super) is_leaving: AtomicBool,
    /// Connections to the others that nobody uses.
    pub(super) idle: Arc<IdlePeers>,
}

/// The groups that this node takes part in.
#[derive(Default)]
struct NodeGroups {
    identity: Option<NodeIdentity>,
    groups: BTreeMap<u64, Arc<RaftGroup>>,
}

impl<T: PeerTransport> Node<T> {
    /// Opens the groups of a node, if it belongs to a cluster already.
    pub(crate) async fn start(
        mut options: ClusterOptions,
        transport: T,
    ) -> Result<Arc<Self>, ClusterError> {
        if options.addresses.cluster.is_empty() {
            options.addresses.cluster.clone_from(&options.listen);
        }
        options.check()?;
        options.dir = fs::absolute(&options.dir)?;
        options.env.fs.create_dirs(&options.dir)?;
        let node = Self {
            options,
            transport,
            groups: Mutex::default(),
            founding: AsyncMutex::default(),
            receiving: Mutex::default(),
            install_turns: InstallTurns::default(),
            unreceived: Mutex::default(),
            lent: Mutex::default(),
            idle: Arc::default(),
            is_stopped: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
        };
        let node = Arc::new(node);
        if let Some(identity) = NodeIdentity::read(&node.options.env.fs, &node.options.dir)? {
            if identity.node != node.options.id {
                let (path, found) = (node.options.dir.display(), identity.node);
                return Err(ClusterError::Refused(format!("{path} belongs to node {found}")));
            }
            identity::forget_begun(&node.options)?;
            node.open_groups(identity).await?;
            node.check_known().await?;
            let announcing = Arc::clone(&node);
            tokio::spawn(async move { announcing.announce(identity).await });
        }
        Ok(node)
    }

    /// Refuses to go on under an address at which the others do not look for this node.
    async fn check_known(&self) -> Result<(), ClusterError> {
        let (id, here) = (self.options.id, &self.options.addresses.cluster);
        let known = self.map().nodes.get(&id).map(|known| known.cluster.clone());
        let Some(known) = known.filter(|known| known != here) else { return Ok(()) };
        self.stop().await;
        Err(ClusterError::Refused(format!(
            "the other nodes know node {id} by the address {known}, and not by {here}: start it with \
             that address, or remove it, and let it join under a new number"
        )))
    }

    /// Makes the directory that of a node of a cluster, and opens all groups. The caller has the
    /// turn.
    pub(super) async fn settle(&self, identity: NodeIdentity) -> Result<(), ClusterError> {
        self.check_not_stopped()?;
        identity.settle(&self.options)?;
        self.open_groups(identity).await
    }

    /// Opens all groups of a cluster. The caller has the turn, or nobody else has the node.
    async fn open_groups(&self, identity: NodeIdentity) -> Result<(), ClusterError> {
        if self.identity().is_some() {
            return Ok(());
        }
        let log = identity::open_log(&self.options)?;
        let mut groups = BTreeMap::new();
        for number in MAP_GROUP..=u64::from(identity.shards) {
            let log = if number == MAP_GROUP { log.clone() } else { log.group(number)? };
            let cluster = Some(identity.cluster);
            let network = PeerNetwork { cluster, ..self.network(number) };
            let group = RaftGroup::start(&self.options, number, log, network).await?;
            let shards = group.map().shards;
            if number == MAP_GROUP && ![0, identity.shards].contains(&shards) {
                group.stop().await;
                let (path, wrong) = (self.options.dir.join("NODE"), identity.shards);
                let reason = format!("it says {wrong} shards, and the map of the cluster {shards}");
                return Err(Error::corrupt(&path, 0, reason).into());
            }
            groups.insert(number, group);
        }
        let stopped = {
            let mut open = self.groups();
            match self.check_not_stopped() {
                Ok(()) => {
                    *open = NodeGroups { identity: Some(identity), groups };
                    return Ok(());
                }
                Err(stopped) => stopped,
            }
        };
        stop_all(&groups).await;
        Err(stopped)
    }

    /// Refuses what a node that was stopped does no more: others may have its directory by now.
    pub(super) fn check_not_stopped(&self) -> Result<(), ClusterError> {
        if self.is_stopped.load(Ordering::Acquire) {
            return Err(ClusterError::Stopped("it was stopped".to_owned()));
        }
        Ok(())
    }

    pub(super) fn network(&self, group: u64) -> PeerNetwork<T> {
        let (transport, secret) = (self.transport.clone(), Arc::clone(&self.options.secret));
        let cluster = self.identity().map(|identity| identity.cluster);
        let (idle, progress, age) = (Arc::clone(&self.idle), Arc::default(), Arc::default());
        PeerNetwork { transport, group, cluster, secret, idle, progress, age }
    }

    fn groups(&self) -> MutexGuard<'_, NodeGroups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> Option<NodeIdentity> {
        self.groups().identity
    }

    pub(crate) fn group(&self, number: u64) -> Option<Arc<RaftGroup>> {
        self.groups().groups.get(&number).cloned()
    }

    pub(crate) fn all_groups(&self) -> Vec<Arc<RaftGroup>> {
        self.groups().groups.values().cloned().collect()
    }

    /// Returns the map as this node knows it. It may be of some time ago, but for the number of
    /// shards, which never changes.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        let Some(identity) = self.identity() else { return Arc::default() };
        let map = self.group(MAP_GROUP).map(|group| group.map()).unwrap_or_default();
        if map.shards == identity.shards {
            return map;
        }
        Arc::new(ClusterMap { shards: identity.shards, ..(*map).clone() })
    }

    pub(super) fn known(&self) -> Option<KnownCluster> {
        let identity = self.identity()?;
        Some(KnownCluster { cluster: identity.cluster, map: (*self.map()).clone() })
    }

    /// Returns what this node knows. Figures of the stores may wait for the disk.
    pub(crate) fn status(&self) -> NodeStatus {
        let known = self.known().map(|known| known.map);
        let map = known.clone().unwrap_or_default();
        let groups = self.all_groups();
        NodeStatus {
            id: self.options.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shards: known.map(|map| map.shards),
            nodes: entries(&map),
            groups: groups.iter().map(|group| GroupStatus::of(group, &map)).collect(),
        }
    }

    /// Ends all groups. What was acknowledged is durable.
    pub(crate) async fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        // Before the groups: whoever opens them next may give the same names to other files.
        self.stop_receiving().await;
        let lent = std::mem::take(&mut *self.lent());
        drop(tokio::task::spawn_blocking(move || drop(lent)).await);
        let groups = std::mem::take(&mut *self.groups()).groups;
        stop_all(&groups).await;
    }

    /// Returns whether a node leaves unanswered what this one asks it.
    pub(super) fn is_silent(&self, node: u64) -> bool {
        self.idle.silent.has(node)
    }

    /// Returns where the others reach a node, as the map or the members of a group say.
    pub(super) fn address_of(&self, node: u64) -> Option<String> {
        if let Some(addresses) = self.map().nodes.get(&node) {
            return Some(addresses.cluster.clone());
        }
        self.all_groups().iter().find_map(|group| {
            let metrics = group.metrics();
            let found = metrics.membership_config.membership().get_node(&node).cloned();
            found.map(|found| found.addr)
        })
    }
}

async fn stop_all(groups: &BTreeMap<u64, Arc<RaftGroup>>) {
    for group in groups.values() {
        group.stop().await;
    }
}

/// Removes files that nobody wants any more, which may take long.
pub(super) fn discard<F: Send + 'static>(files: Option<F>) {
    if let Some(files) = files {
        tokio::task::spawn_blocking(move || drop(files));
    }
}

/// Refuses numbers of shards that a cluster cannot have.
pub(super) fn check_shards(shards: u16) -> Result<(), ClusterError> {
    if (1..=SHARDS_MAX).contains(&shards) {
        return Ok(());
    }
    Err(ClusterError::Refused(format!("a cluster has 1 to {SHARDS_MAX} shards")))
}
