//! The machines of a simulation: their disks, what runs on them, and how they reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use openraft::{ServerState, Vote};
use turmoil::net::TcpListener;

use super::dice::Dice;
use super::front;
use super::history::ListHistory;
use super::network::{Links, SimTcp};
use super::profile::Profile;
use crate::clock::Hands;
use crate::cluster::group::{RaftGroup, Timing};
use crate::cluster::map::{ClusterMap, MAP_GROUP};
use crate::cluster::network::server::serve;
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::options::Options;
use crate::resp::slot_of;
use crate::store::Env;
use crate::testing::twin::Twin;

pub(super) type SimNode = Arc<Node<SimTcp>>;

/// What the nodes have as their secret.
pub(super) const SECRET: &str = "secret";

pub(super) fn host(id: u64) -> String {
    format!("n{id}")
}

pub(super) fn peer_address(id: u64) -> String {
    format!("n{id}:7000")
}

pub(super) fn client_address(id: u64) -> String {
    format!("n{id}:6379")
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The cluster is founded.
    Founding,
    /// Things go wrong.
    Chaos,
    /// Nothing goes wrong any more.
    Calm,
    /// Nothing is under way any more.
    Settled,
}

/// One machine.
struct Machine {
    disk: Arc<Twin>,
    /// The node, while it runs.
    node: Option<SimNode>,
    /// What the node has said last that it is in its groups.
    roles: BTreeMap<u64, (Vote<u64>, ServerState)>,
    /// The epoch of the map that the node has shown last, since it runs.
    epoch: u64,
}

/// What the simulation, its clients and its judge share. All of them run in one thread.
pub(super) struct Machines {
    pub(super) links: Arc<Links>,
    /// Number of shards.
    pub(super) shards: u16,
    /// Number of entries that stay in a log that is purged.
    kept: u64,
    /// Whether nodes forward requests to leaders.
    forwards: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    stage: Stage,
    machines: BTreeMap<u64, Machine>,
    /// The nodes that belong to the cluster, as far as that was acknowledged.
    members: BTreeSet<u64>,
    /// Nodes that were removed, and whose machines are to be switched off.
    removed: BTreeSet<u64>,
    history: ListHistory,
    /// The map of each epoch that any node has shown.
    maps: BTreeMap<u64, Arc<ClusterMap>>,
    failure: Option<String>,
    /// What was done to the cluster, and when.
    notes: Vec<String>,
    now: Duration,
}

impl Machines {
    pub(super) fn new(seed: u64, profile: Profile) -> Arc<Self> {
        let machine =
            |id| (id, Machine { disk: Twin::new(), node: None, roles: BTreeMap::new(), epoch: 0 });
        let inner = Inner {
            stage: Stage::Founding,
            machines: (1..=profile.sizes(seed).1).map(machine).collect(),
            members: BTreeSet::new(),
            removed: BTreeSet::new(),
            history: ListHistory::default(),
            maps: BTreeMap::new(),
            failure: None,
            notes: Vec::new(),
            now: Duration::ZERO,
        };
        Arc::new(Self {
            links: Arc::default(),
            shards: profile.shards(seed),
            kept: profile.kept(),
            forwards: profile.forwards(seed),
            inner: Mutex::new(inner),
        })
    }

    /// Returns the shard of a list. Shards take turns.
    pub(super) fn group_of_list(&self, key: usize) -> u64 {
        key as u64 % u64::from(self.shards) + 1
    }

    /// Returns the name of a list, whose slot is one of its shard.
    pub(super) fn list_name(&self, key: usize) -> String {
        let map = ClusterMap { shards: self.shards, ..ClusterMap::default() };
        let mut names = (0..).map(|number| format!("list{key}.{number}"));
        let is_there =
            |name: &String| map.group_of(slot_of(name.as_bytes())) == self.group_of_list(key);
        names.find(is_there).unwrap()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Returns the network, as a machine sees it.
    pub(super) fn tcp(&self, id: u64) -> SimTcp {
        SimTcp { id, links: Arc::clone(&self.links) }
    }

    /// Returns everything that was noted, and everything that clients did.
    pub(super) fn story(&self) -> Vec<String> {
        let inner = self.inner();
        inner.notes.iter().cloned().chain(inner.history.shown()).collect()
    }

    /// Notes what was done to the cluster, for those who look for the cause of a failure.
    pub(super) fn note(&self, what: &str) {
        let mut inner = self.inner();
        let now = inner.now;
        inner.notes.push(format!("{now:?}: {what}"));
    }

    pub(super) fn stage(&self) -> Stage {
        self.inner().stage
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.inner().stage = stage;
    }

    pub(super) fn history<T>(&self, change: impl FnOnce(&mut ListHistory) -> T) -> T {
        change(&mut self.inner().history)
    }

    pub(super) fn members(&self) -> Vec<u64> {
        self.inner().members.iter().copied().collect()
    }

    pub(super) fn joined(&self, id: u64) {
        self.inner().members.insert(id);
    }

    pub(super) fn left(&self, id: u64) {
        let mut inner = self.inner();
        inner.members.remove(&id);
        inner.removed.insert(id);
    }

    pub(super) fn is_removed(&self, id: u64) -> bool {
        self.inner().removed.contains(&id)
    }

    /// Returns a machine that has never been in the cluster.
    pub(super) fn spare(&self) -> Option<u64> {
        let inner = self.inner();
        let is_spare = |id: &&u64| !inner.members.contains(id) && !inner.removed.contains(id);
        inner.machines.keys().find(is_spare).copied()
    }

    pub(super) fn node(&self, id: u64) -> Option<SimNode> {
        self.inner().machines.get(&id).and_then(|machine| machine.node.clone())
    }

    pub(super) fn group(&self, id: u64, number: u64) -> Option<Arc<RaftGroup>> {
        self.node(id)?.group(number)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.inner().failure.clone()
    }

    /// Returns what was done to the cluster, and what all nodes say of their groups.
    pub(super) fn shown(&self) -> String {
        let inner = self.inner();
        let mut text = inner.notes.join("\n");
        let _ = writeln!(text, "\nmembers {:?}, removed {:?}", inner.members, inner.removed);
        let nodes =
            inner.machines.iter().filter_map(|(id, it)| it.node.clone().map(|it| (*id, it)));
        for (id, node) in nodes {
            for group in node.all_groups() {
                let it = group.metrics();
                let members = it.membership_config.membership();
                let _ = writeln!(
                    text,
                    "node {id} group {}: {:?}, leader {:?}, vote {}, log up to {:?}, applied {:?}, {members:?}",
                    group.number,
                    it.state,
                    it.current_leader,
                    it.vote,
                    it.last_log_index,
                    it.last_applied.map(|id| id.index),
                );
            }
        }
        text
    }

    /// Returns the groups that nobody leads, for those that look for the cause of a failure.
    pub(super) fn leaderless(&self) -> String {
        let nodes: Vec<_> = self.members().into_iter().filter_map(|id| self.node(id)).collect();
        let is_led = |number| {
            let groups = nodes.iter().filter_map(|node| node.group(number));
            groups.map(|group| group.metrics().state).any(|state| state == ServerState::Leader)
        };
        let groups = (MAP_GROUP..=self.shards.into()).filter(|number| !is_led(*number));
        groups.fold(String::new(), |text, number| format!("{text}; nobody leads group {number}"))
    }

    /// Has the process of a machine end: nothing that it has written is lost.
    pub(super) fn kill(&self, id: u64) {
        self.end(id, Twin::kill_image_now);
    }

    /// Switches a machine off: of what was not synced, each part is lost or not.
    pub(super) fn cut_power(&self, id: u64, dice: &mut Dice) {
        // Often everything is lost, which is worst.
        let loses_all = dice.below(2) == 0;
        self.end(id, |disk| {
            disk.power_image(disk.op_count(), |_| !loses_all && dice.below(2) == 0)
        });
    }

    /// Switches a machine off, and everything is lost that was not synced.
    pub(super) fn lose_unsynced(&self, id: u64) {
        self.end(id, |disk| disk.power_image(disk.op_count(), |_| false));
    }

    fn end(&self, id: u64, image: impl FnOnce(&Twin) -> Arc<Twin>) {
        let node = {
            let mut inner = self.inner();
            let machine = inner.machines.get_mut(&id).unwrap();
            machine.disk = image(&machine.disk);
            (machine.epoch, machine.roles) = (0, BTreeMap::new());
            machine.node.take()
        };
        drop(node);
    }

    /// Looks at what all nodes that run show of themselves.
    pub(super) fn look(&self, now: Duration) {
        let mut inner = self.inner();
        inner.now = now;
        let Inner { machines, maps, removed, failure, notes, .. } = &mut *inner;
        let mut fail = |why: String| {
            failure.get_or_insert(why);
        };
        for (id, machine) in machines {
            let Some(node) = machine.node.clone().filter(|_| !removed.contains(id)) else {
                continue;
            };
            for group in node.all_groups() {
                let metrics = group.raft.metrics();
                let metrics = metrics.borrow();
                if let Err(why) = &metrics.running_state {
                    fail(format!("node {id} has stopped in group {}: {why}", group.number));
                }
                let role = (metrics.vote, metrics.state);
                if machine.roles.insert(group.number, role) != Some(role) {
                    let (number, vote, state) = (group.number, role.0, role.1);
                    notes.push(format!("{now:?}: node {id} group {number}: {state:?}, {vote}"));
                }
            }
            let Some(group) = node.group(MAP_GROUP) else { continue };
            let map = group.map();
            if map.epoch < machine.epoch {
                fail(format!("node {id} shows map {} after map {}", map.epoch, machine.epoch));
            }
            machine.epoch = map.epoch;
            let first = maps.entry(map.epoch).or_insert_with(|| Arc::clone(&map));
            if *first != map {
                fail(format!(
                    "node {id} shows another map {} than others:\n{first:?}\n{map:?}",
                    map.epoch
                ));
            }
        }
    }

    fn start(&self, id: u64, node: SimNode) {
        self.inner().machines.get_mut(&id).unwrap().node = Some(node);
    }

    fn options(&self, id: u64) -> ClusterOptions {
        let disk = Arc::clone(&self.inner().machines[&id].disk);
        let clock = Hands::new().clock();
        let mut options = ClusterOptions::new(id, "/node", SECRET)
            .listen(peer_address(id))
            .redis_address(client_address(id))
            .forward(self.forwards)
            .store(Options::new().segment_size(16 << 10));
        options.timing = Timing { heartbeat: 100, election: 500, kept: self.kept };
        options.env =
            Env { fs: Fs::Twin(disk), clock, hasher: |_| KeyHasher::new(1), threads: false };
        options
    }

    /// Runs a machine, until it crashes.
    pub(super) async fn run(self: Arc<Self>, id: u64) -> turmoil::Result {
        let tcp = self.tcp(id);
        let node = Node::start(self.options(id), tcp.clone()).await;
        let node = node.map_err(|why| format!("node {id} does not start: {why}"))?;
        self.start(id, Arc::clone(&node));
        let peers = TcpListener::bind(("0.0.0.0", 7000)).await?;
        let clients = TcpListener::bind(("0.0.0.0", 6379)).await?;
        let peer = Arc::new(Arc::clone(&node));
        loop {
            tokio::select! {
                biased;
                accepted = peers.accept() => {
                    let (stream, from) = accepted?;
                    let stream = tcp.accepted(stream, from.ip());
                    tokio::spawn(serve(stream, Arc::clone(&peer)));
                }
                accepted = clients.accept() => {
                    let (stream, from) = accepted?;
                    let stream = tcp.accepted(stream, from.ip());
                    tokio::spawn(front::serve(stream, Arc::clone(&node)));
                }
            }
        }
    }
}

/// How long something may take when nothing goes wrong.
pub(super) const CALM_TIME: Duration = Duration::from_secs(40);
