//! One node: its groups, and what it answers to the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::raft::AppendEntriesResponse;
use tokio::sync::Mutex as AsyncMutex;

use super::error::ClusterError;
use super::group::RaftGroup;
use super::identity::NodeIdentity;
use super::lending::LentCopies;
use super::map::{ClusterMap, MAP_GROUP, MapChange, SHARDS_MAX};
use super::network::messages::{KnownCluster, PeerAnswer, PeerRequest, Recipient};
use super::network::server::PeerNode;
use super::network::{IdlePeers, PeerNetwork, PeerTransport};
use super::options::ClusterOptions;
use super::status::{GroupStatus, NodeStatus, entries};
use crate::fs;
use crate::raft::{LogStore, SnapshotFiles, blocking};

/// A node, whatever its connections are made of.
pub(crate) struct Node<T> {
    pub(crate) options: ClusterOptions,
    pub(crate) transport: T,
    /// Lock 9: the groups. Held for a moment.
    groups: Mutex<NodeGroups>,
    /// Lock 0, before the groups: the turn to found or to join a cluster.
    pub(super) founding: AsyncMutex<()>,
    /// Lock 9: snapshots that are being received, by group. A new one replaces the one before.
    receiving: Mutex<SnapshotsByGroup>,
    /// Lock 9: copies that are lent.
    pub(super) lent: Mutex<LentCopies>,
    next_snapshot: AtomicU64,
    /// Connections to the others that nobody uses.
    idle: Arc<IdlePeers>,
}

/// Snapshots by group, each with a number.
type SnapshotsByGroup = BTreeMap<u64, (u64, SnapshotFiles)>;

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
            lent: Mutex::default(),
            idle: Arc::default(),
            next_snapshot: AtomicU64::new(1),
        };
        let node = Arc::new(node);
        if let Some(identity) = NodeIdentity::read(&node.options.env.fs, &node.options.dir)? {
            if identity.node != node.options.id {
                let (path, found) = (node.options.dir.display(), identity.node);
                return Err(ClusterError::Refused(format!("{path} belongs to node {found}")));
            }
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

    /// Opens all groups of a cluster. The caller has the turn, or nobody else has the node.
    pub(super) async fn open_groups(&self, identity: NodeIdentity) -> Result<(), ClusterError> {
        if self.identity().is_some() {
            return Ok(());
        }
        let (env, path) = (&self.options.env, self.options.dir.join("log"));
        let log = LogStore::open_on(env, &path, self.options.store.clone(), MAP_GROUP)?;
        let mut groups = BTreeMap::new();
        for number in MAP_GROUP..=u64::from(identity.shards) {
            let log = if number == MAP_GROUP { log.clone() } else { log.group(number)? };
            let cluster = Some(identity.cluster);
            let network = PeerNetwork { cluster, ..self.network(number) };
            let group = RaftGroup::start(&self.options, number, log, network).await?;
            groups.insert(number, group);
        }
        *self.groups() = NodeGroups { identity: Some(identity), groups };
        Ok(())
    }

    pub(super) fn network(&self, group: u64) -> PeerNetwork<T> {
        let (transport, secret) = (self.transport.clone(), Arc::clone(&self.options.secret));
        let cluster = self.identity().map(|identity| identity.cluster);
        let (idle, progress) = (Arc::clone(&self.idle), Arc::default());
        PeerNetwork { transport, group, cluster, secret, idle, progress }
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
        // Before the groups: whoever opens them next may give the same names to other files.
        let received = std::mem::take(&mut *self.snapshots());
        let lent = std::mem::take(&mut *self.lent());
        drop(tokio::task::spawn_blocking(move || drop((received, lent))).await);
        let groups = std::mem::take(&mut *self.groups()).groups;
        for group in groups.values() {
            group.stop().await;
        }
    }

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

    fn snapshots(&self) -> MutexGuard<'_, SnapshotsByGroup> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number for a snapshot that is received.
    fn next_snapshot(&self) -> u64 {
        self.next_snapshot.fetch_add(1, Ordering::Relaxed)
    }

    async fn answer_raft(&self, group: &RaftGroup, request: PeerRequest) -> PeerAnswer {
        let raft = &group.raft;
        let answered = match request {
            PeerRequest::Append(rpc) => {
                let committed = rpc.leader_commit;
                let appended = raft.append_entries(rpc).await;
                let has_all = || raft.metrics().borrow().last_applied >= committed;
                if matches!(appended, Ok(AppendEntriesResponse::Success)) && has_all() {
                    group.hear();
                    // Nobody sends a snapshot to a node that has everything.
                    discard(self.snapshots().remove(&group.number));
                }
                appended.map(PeerAnswer::Appended).map_err(|it| it.to_string())
            }
            PeerRequest::Vote(rpc) => {
                raft.vote(rpc).await.map(PeerAnswer::Voted).map_err(|it| it.to_string())
            }
            PeerRequest::BeginSnapshot => match raft.begin_receiving_snapshot().await {
                Ok(files) => {
                    let number = self.next_snapshot();
                    let before = self.snapshots().insert(group.number, (number, *files));
                    discard(before);
                    Ok(PeerAnswer::SnapshotBegun(number))
                }
                Err(error) => Err(error.to_string()),
            },
            PeerRequest::PutPiece { snapshot, name, offset, bytes } => {
                let files = self.received(group.number, snapshot, false);
                files.and_then(|files| {
                    let written = blocking(|| files.write(&name, offset, &bytes));
                    written.map(|()| PeerAnswer::Done).map_err(|error| error.to_string())
                })
            }
            PeerRequest::InstallSnapshot { snapshot, vote, meta } => {
                match self.received(group.number, snapshot, true) {
                    Ok(files) => {
                        let snapshot = openraft::Snapshot { meta, snapshot: Box::new(files) };
                        let installed = raft.install_full_snapshot(vote, snapshot).await;
                        installed.map(PeerAnswer::SnapshotInstalled).map_err(|it| it.to_string())
                    }
                    Err(reason) => Err(reason),
                }
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

    /// Returns the snapshot that is being received, and forgets it if it is complete.
    fn received(
        &self,
        group: u64,
        snapshot: u64,
        is_complete: bool,
    ) -> Result<SnapshotFiles, String> {
        let mut snapshots = self.snapshots();
        let found = snapshots.get(&group).filter(|(number, _)| *number == snapshot);
        let files = found.map(|(_, files)| files.clone());
        if is_complete && files.is_some() {
            snapshots.remove(&group);
        }
        files.ok_or_else(|| "another snapshot has taken the place of this one".to_owned())
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
            PeerRequest::RemoveMember { id } => group()?.remove_member(id).await?,
            PeerRequest::Lead => group()?.lead(self).await?,
            PeerRequest::Yield { to } => group()?.yield_lead(to).await?,
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
            PeerRequest::Append(_)
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
