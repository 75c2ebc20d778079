//! Two nodes in one thread, whose disks are real and whose network and time are not: what a leader
//! does while nobody hears it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::cluster::consensus::{Answered, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::group::{PATIENCE, RaftGroup};
use crate::cluster::network::PeerTransport;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::{PeerNode, serve};
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::key_hash::KeyHasher;
use crate::store::Env;

type WiredNode = Arc<Node<Wires>>;

/// A network within the thread.
#[derive(Clone, Default)]
struct Wires(Arc<WiresEnds>);

#[derive(Default)]
struct WiresEnds {
    listening: Mutex<BTreeMap<String, UnboundedSender<DuplexStream>>>,
    is_parted: AtomicBool,
}

impl PeerTransport for Wires {
    type Stream = DuplexStream;

    async fn connect(&self, address: &str) -> io::Result<DuplexStream> {
        let listener = self.0.listening.lock().unwrap().get(address).cloned();
        let (here, there) = tokio::io::duplex(1 << 16);
        let sent = listener.and_then(|listener| listener.send(there).ok());
        sent.ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(here)
    }
}

/// A node, as others hear it.
struct WiredPeer {
    node: WiredNode,
    wires: Wires,
}

impl PeerNode for WiredPeer {
    fn secret(&self) -> &str {
        self.node.secret()
    }

    async fn answer(&self, recipient: Recipient, group: u64, request: PeerRequest) -> PeerAnswer {
        if self.wires.0.is_parted.load(Ordering::Relaxed) {
            return PeerAnswer::Failed("nobody hears anybody".to_owned());
        }
        self.node.answer(recipient, group, request).await
    }
}

impl Wires {
    async fn started(&self, id: u64, dir: &TempDir) -> WiredNode {
        let options = ClusterOptions::new(id, dir.path().join(id.to_string()), "secret");
        let mut options = options.listen(format!("node-{id}"));
        options.env = Env { hasher: |_| KeyHasher::new(1), threads: false, ..Env::default() };
        let node = Node::start(options, self.clone()).await.unwrap();
        let (listener, mut streams) = mpsc::unbounded_channel();
        self.0.listening.lock().unwrap().insert(format!("node-{id}"), listener);
        let peer = Arc::new(WiredPeer { node: Arc::clone(&node), wires: self.clone() });
        tokio::spawn(async move {
            while let Some(stream) = streams.recv().await {
                tokio::spawn(serve(stream, Arc::clone(&peer)));
            }
        });
        node
    }

    /// Starts two nodes, the first of which leads one shard.
    async fn pair(&self, dir: &TempDir) -> [WiredNode; 2] {
        let (founder, second) = (self.started(1, dir).await, self.started(2, dir).await);
        founder.init(1).await.unwrap();
        second.join("node-1").await.unwrap();
        [founder, second]
    }

    fn part(&self, is_parted: bool) {
        self.0.is_parted.store(is_parted, Ordering::Relaxed);
    }
}

async fn tick(group: &RaftGroup) -> Result<Answered, ClusterError> {
    group.write(Request::Tick).await
}

/// openraft leads on without a majority, and applies all of what it has appended meanwhile at once,
/// on all nodes, when the majority is back.
#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_hears_appends_nothing_behind_what_it_cannot_commit() {
    let (dir, wires) = (tempfile::tempdir().unwrap(), Wires::default());
    let [founder, second] = wires.pair(&dir).await;
    let group = founder.group(1).unwrap();
    tick(&group).await.unwrap();
    let last = || group.metrics().last_log_index.unwrap();
    let before = last();
    wires.part(true);
    // The majority has been there a moment ago.
    assert_eq!(tick(&group).await.unwrap_err(), ClusterError::Unknown);
    assert_eq!(last(), before + 1);
    for _ in 0..10 {
        let refused = tick(&group).await.unwrap_err();
        assert!(matches!(refused, ClusterError::NotLeader { leader: None }), "{refused:?}");
        tokio::time::sleep(PATIENCE).await;
    }
    assert_eq!(last(), before + 1);
    wires.part(false);
    let wait = group.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(before + 1), "the majority is back").await.unwrap();
    tick(&group).await.unwrap();
    for node in [second, founder] {
        node.stop().await;
    }
}
