//! openraft on `bitcask::raft`: clusters of several nodes in one process, each with stores of its
//! own on the disk.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcask::raft::{Apply, LogStore, SnapshotFiles, StateMachine};
use bitcask::{Error, Options, Transaction};
use network::Wires;
use openraft::{BasicNode, Raft, SnapshotPolicy};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Requests change counters.
    Config:
        D = Add,
        R = u64,
        SnapshotData = SnapshotFiles,
);

/// Adds to a counter. The answer is its new value.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Add {
    counter: String,
    by: u64,
}

#[derive(Debug)]
struct Adder;

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

impl Apply<Config> for Adder {
    fn apply(&self, tx: &mut Transaction, add: &Add) -> bitcask::Result<u64> {
        let sum = tx.get(&add.counter)?.map_or(0, |it| number(&it)) + add.by;
        tx.put(&add.counter, sum.to_be_bytes());
        Ok(sum)
    }

    fn without_request(&self) -> u64 {
        0
    }

    fn refused(&self, _: &Add, error: &Error) -> u64 {
        panic!("{error}")
    }
}

/// A node that runs.
struct Node {
    raft: Raft<Config>,
    state: StateMachine<Config, Adder>,
}

/// How long to wait for what certainly comes.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

impl Node {
    async fn start(id: u64, dir: &Path, wires: &Wires) -> Self {
        let config = openraft::Config {
            heartbeat_interval: 50,
            election_timeout_min: 300,
            election_timeout_max: 600,
            install_snapshot_timeout: 30_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(50),
            max_in_snapshot_log_to_keep: 10,
            replication_lag_threshold: 60,
            ..openraft::Config::default()
        };
        let options = Options::new().segment_size(16 << 10);
        let (log, state) = (dir.join(format!("{id}/log")), dir.join(format!("{id}/state")));
        let log = opened(|| LogStore::open(&log, options.clone())).await;
        let state = opened(|| StateMachine::open(&state, options.clone(), Adder)).await;
        let log = log.purging_after(&state);
        let config = Arc::new(config.validate().unwrap());
        let raft = Raft::new(id, config, wires.clone(), log, state.clone()).await.unwrap();
        wires.plug(id, raft.clone());
        Self { raft, state }
    }

    /// Stops a node. Some of openraft's tasks may keep its stores open for a moment.
    async fn stop(self, id: u64, wires: &Wires) {
        drop(wires.unplug(id));
        self.raft.shutdown().await.unwrap();
    }

    fn counters(&self) -> BTreeMap<Vec<u8>, u64> {
        let store = self.state.store();
        let pairs = store.range(b"a"..).map(|pair| pair.unwrap());
        pairs.map(|(key, value)| (key.to_vec(), number(&value))).collect()
    }

    /// Waits until an entry is applied.
    async fn reaches(&self, index: u64) {
        self.raft.wait(PATIENCE).applied_index_at_least(Some(index), "applied").await.unwrap();
    }
}

/// Opens what tasks of the node before may still have open.
async fn opened<T>(open: impl Fn() -> bitcask::Result<T>) -> T {
    loop {
        match open() {
            Err(error) if error.is_locked() => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
}

/// Adds through whichever node leads. Returns the index of the entry.
async fn add(nodes: &BTreeMap<u64, Node>, counter: &str) -> u64 {
    loop {
        for node in nodes.values() {
            let request = Add { counter: counter.to_owned(), by: 1 };
            if let Ok(written) = node.raft.client_write(request).await {
                return written.log_id.index;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_survives_restarts_and_sends_snapshots_to_those_that_are_far_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (wires, mut nodes) = (Wires::default(), BTreeMap::new());
    for id in 1..=3 {
        nodes.insert(id, Node::start(id, dir.path(), &wires).await);
    }
    let members: BTreeMap<u64, BasicNode> = (1..=3).map(|id| (id, BasicNode::default())).collect();
    nodes[&1].raft.initialize(members).await.unwrap();
    let mut last = 0;
    for at in 0..40 {
        last = add(&nodes, &format!("counter {}", at % 3)).await;
    }
    for node in nodes.values() {
        node.reaches(last).await;
        assert_eq!(node.counters().values().sum::<u64>(), 40);
    }

    // One is away for longer than the log reaches back.
    let away = nodes.remove(&3).unwrap();
    away.stop(3, &wires).await;
    for at in 0..200 {
        last = add(&nodes, &format!("counter {}", at % 5)).await;
    }
    nodes.insert(3, Node::start(3, dir.path(), &wires).await);
    nodes[&3].reaches(last).await;
    assert_eq!(nodes[&3].counters(), nodes[&1].counters());
    let snapshot = nodes[&3].raft.metrics().borrow().snapshot;
    assert!(snapshot.is_some_and(|it| it.index >= 50), "{snapshot:?}");

    // A new one joins, and one of the first leaves.
    nodes.insert(4, Node::start(4, dir.path(), &wires).await);
    let leader =
        nodes[&1].raft.wait(PATIENCE).metrics(|it| it.current_leader.is_some(), "led").await;
    let leader = leader.unwrap().current_leader.unwrap();
    nodes[&leader].raft.add_learner(4, BasicNode::default(), true).await.unwrap();
    let members: BTreeSet<u64> = (1..=4).filter(|id| *id != leader).collect();
    nodes[&leader].raft.change_membership(members, false).await.unwrap();
    let left = nodes.remove(&leader).unwrap();
    left.stop(leader, &wires).await;
    last = add(&nodes, "counter 0").await;

    // All stop and start again.
    for (id, node) in std::mem::take(&mut nodes) {
        node.reaches(last).await;
        node.stop(id, &wires).await;
    }
    for id in (1..=4).filter(|id| *id != leader) {
        nodes.insert(id, Node::start(id, dir.path(), &wires).await);
    }
    last = add(&nodes, "counter 0").await;
    for node in nodes.values() {
        node.reaches(last).await;
        assert_eq!(node.counters().values().sum::<u64>(), 242);
    }
    for (id, node) in nodes {
        node.stop(id, &wires).await;
    }
}
