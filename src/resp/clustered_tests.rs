//! Sessions whose keys a cluster has: when its shards are asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
        let node = |id| TopologyNode { id, host: "host".to_owned(), port: 1 };
        let (slots, members) = (0..=SLOT_COUNT - 1, vec![1, 2]);
        let shard = TopologyShard { number: 1, slots, leader: Some(2), members };
        Topology { me: 1, epoch: 1, nodes: vec![node(1), node(2)], shards: vec![shard] }
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
