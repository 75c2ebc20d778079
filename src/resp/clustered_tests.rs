//! Sessions whose keys a cluster has: when its shards are asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::options::RespOptions;
use super::replicated::{CommandsRequest, ReplicatedKeys, ReplicatedReply};
use super::reply::OK;
use super::session_tests::{args, sent, session, state_with};
use super::shards::{
    ClusterShards, ShardFailure, ShardReplies, Topology, TopologyNode, TopologyShard,
};
use super::slots::SLOT_COUNT;
use crate::Options;

/// A cluster of one shard, which another node leads. This one forwards.
#[derive(Debug)]
struct CountedShards {
    keys: Arc<ReplicatedKeys>,
    /// How often the leader was asked up to where a read has to go.
    confirmed: AtomicUsize,
    /// Why the shard cannot be read, if it cannot.
    failure: Mutex<Option<ShardFailure>>,
}

impl CountedShards {
    fn new() -> (TempDir, Arc<Self>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Options::new().open(dir.path()).unwrap());
        let keys = Arc::new(ReplicatedKeys::new(store, Arc::new(())).unwrap());
        let (confirmed, failure) = (AtomicUsize::new(0), Mutex::new(None));
        (dir, Arc::new(Self { keys, confirmed, failure }))
    }
}

impl ClusterShards for CountedShards {
    fn topology(&self) -> Topology {
        let host = || "host".to_owned();
        let node = |id| TopologyNode { id, host: host(), port: 1, is_silent: id == 3 };
        let shard = TopologyShard {
            number: 1,
            slots: 0..=SLOT_COUNT - 1,
            leader: Some(2),
            members: vec![1, 2, 3],
            offsets: [(1, 40), (2, 42)].into(),
            age: Duration::from_millis(1234),
        };
        Topology { me: 1, epoch: 1, nodes: (1..=3).map(node).collect(), shards: vec![shard] }
    }

    fn forwards(&self) -> bool {
        true
    }

    fn shard_of(&self, _: u16) -> u64 {
        1
    }

    fn keys(&self, _: u64) -> Result<Arc<ReplicatedKeys>, ShardFailure> {
        let failure = self.failure.lock().unwrap().clone();
        failure.map_or_else(|| Ok(Arc::clone(&self.keys)), Err)
    }

    fn confirm(&self, _: u64) -> Result<(), ShardFailure> {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, _: u64, request: CommandsRequest) -> ShardReplies {
        Ok(Some(request.commands.iter().map(|_| ReplicatedReply(OK)).collect()))
    }

    fn write_all(&self, requests: Vec<(u64, CommandsRequest)>) -> Vec<ShardReplies> {
        requests.into_iter().map(|(shard, request)| self.write(shard, request)).collect()
    }
}

#[test]
fn a_read_behind_a_write_of_the_same_batch_asks_the_leader_again() {
    let (_keys, shards) = CountedShards::new();
    let (_dir, state) = state_with(RespOptions::new().shards(Arc::clone(&shards) as _));
    let mut session = session(&state);
    for write in ["SET k v", "FLUSHALL", "FLUSHDB"] {
        let before = shards.confirmed.load(Ordering::Relaxed);
        session.begin_batch();
        for line in ["GET k", "DBSIZE", write, "GET k", "DBSIZE"] {
            session.run(&args(line));
        }
        assert_eq!(sent(&mut session), "_\r\n:0\r\n+OK\r\n_\r\n:0\r\n", "{write}");
        assert_eq!(shards.confirmed.load(Ordering::Relaxed) - before, 2, "{write}");
    }
}

#[test]
fn keys_of_a_slot_are_not_said_to_be_none_if_the_shard_has_stopped() {
    let (_keys, shards) = CountedShards::new();
    let (_dir, state) = state_with(RespOptions::new().shards(Arc::clone(&shards) as _));
    let mut session = session(&state);
    let mut replies = || {
        session.run(&args("CLUSTER COUNTKEYSINSLOT 5"));
        session.run(&args("CLUSTER GETKEYSINSLOT 5 10"));
        sent(&mut session)
    };
    assert_eq!(replies(), ":0\r\n*0\r\n");
    *shards.failure.lock().unwrap() = Some(ShardFailure::NoLeader);
    let refused = "-CLUSTERDOWN Hash slot not served\r\n";
    assert_eq!(replies(), format!("{refused}{refused}"));
}

#[test]
fn nodes_that_do_not_answer_are_shown_as_such_and_the_age_of_each_shard() {
    let (_keys, shards) = CountedShards::new();
    let (_dir, state) = state_with(RespOptions::new().shards(shards));
    let mut session = session(&state);
    let mut reply = |line| {
        session.run(&args(line));
        sent(&mut session).replace("\r\n", " ")
    };
    let nodes = reply("CLUSTER NODES");
    assert_eq!(nodes.matches(" connected").count(), 2, "{nodes}");
    let silent = format!("3 host:1@10001 slave,fail? {:040x} 0 0 1 disconnected", 2);
    assert!(nodes.contains(&silent), "{nodes}");
    let shards = reply("CLUSTER SHARDS");
    let of = |offset, health| format!("replication-offset :{offset} $6 health {health} ");
    for (node, offset, health) in [(1, 40, "$6 online"), (2, 42, "$6 online"), (3, 0, "$4 fail")] {
        let shown = shards.split(&format!("{node:040x} ")).nth(1).unwrap();
        let shown = shown.split('%').next().unwrap();
        assert!(shown.contains(&of(offset, health)), "{node}: {shards}");
    }
    let info = reply("CLUSTER INFO");
    assert!(info.contains(" cluster_shard_1_age_ms:1234 "), "{info}");
    assert!(info.contains(" cluster_slots_pfail:0 "), "{info}");
}
