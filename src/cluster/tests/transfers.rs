//! Snapshots that nodes send to each other, and what goes wrong with them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openraft::{CommittedLeaderId, LogId, SnapshotMeta, StoredMembership, Vote};
use tokio::io::DuplexStream;

use crate::clock::Hands;
use crate::cluster::consensus::Request;
use crate::cluster::group::{RaftGroup, Timing};
use crate::cluster::network::PeerTransport;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::{PeerNode, serve};
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::options::Options;
use crate::raft::SnapshotFile;
use crate::resp::CommandsRequest;
use crate::store::Env;
use crate::testing::twin::{Call, Fault, FaultKind, Twin};

/// How long to wait for what certainly comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Number of entries that the log keeps.
const KEPT: u64 = 5;

pub(super) type WiredNode = Arc<Node<Wires>>;

/// The network. A node that is not plugged in is not reached, and reaches others.
#[derive(Clone, Default)]
pub(super) struct Wires {
    plugged: Arc<Mutex<BTreeMap<String, WiredNode>>>,
    /// The answers to those that wanted a snapshot installed, with the node and the group.
    installed: Arc<Mutex<Vec<(u64, u64, String)>>>,
}

/// A node, as the others reach it.
struct WiredPeer {
    node: WiredNode,
    wires: Wires,
}

impl PeerTransport for Wires {
    type Stream = DuplexStream;

    async fn connect(&self, address: &str) -> io::Result<DuplexStream> {
        let Some(node) = self.plugged.lock().unwrap().get(address).cloned() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (here, there) = tokio::io::duplex(1 << 16);
        WiredPeer { node, wires: self.clone() }.answer_at(there);
        Ok(here)
    }
}

impl PeerNode for WiredPeer {
    fn secret(&self) -> &'static str {
        "secret"
    }

    async fn answer(&self, recipient: Recipient, group: u64, request: PeerRequest) -> PeerAnswer {
        if !self.wires.plugged.lock().unwrap().contains_key(&self.node.options.listen) {
            return PeerAnswer::Failed("it is unplugged".to_owned());
        }
        let PeerRequest::InstallSnapshot { snapshot, vote, meta } = request else {
            return self.node.answer(recipient, group, request).await;
        };
        // The first connection breaks, and the leader asks again.
        let request = || PeerRequest::InstallSnapshot { snapshot, vote, meta: meta.clone() };
        let first = self.node.answer(recipient, group, request());
        drop(tokio::time::timeout(Duration::ZERO, first).await);
        let answer = self.node.answer(recipient, group, request()).await;
        let again = self.node.answer(recipient, group, request()).await;
        assert_eq!(format!("{answer:?}"), format!("{again:?}"));
        let answers = &self.wires.installed;
        answers.lock().unwrap().push((self.node.options.id, group, format!("{answer:?}")));
        answer
    }
}

impl WiredPeer {
    fn answer_at(self, stream: DuplexStream) {
        tokio::spawn(serve(stream, Arc::new(self)));
    }
}

impl Wires {
    pub(super) async fn start(&self, id: u64, twin: &Arc<Twin>) -> WiredNode {
        let address = format!("127.0.0.1:{id}");
        let mut options = ClusterOptions::new(id, "/node", "secret").listen(&address);
        options = options.store(Options::new().segment_size(4096));
        options.timing = Timing { kept: KEPT, ..Timing::default() };
        options.env = Env {
            fs: Fs::Twin(Arc::clone(twin)),
            clock: Hands::new().clock(),
            hasher: |_| KeyHasher::new(1),
            threads: false,
        };
        let node = Node::start(options, self.clone()).await.unwrap();
        self.plug(&node);
        node
    }

    fn plug(&self, node: &WiredNode) {
        self.plugged.lock().unwrap().insert(node.options.listen.clone(), Arc::clone(node));
    }

    fn unplug(&self, node: &WiredNode) {
        self.plugged.lock().unwrap().remove(&node.options.listen);
    }

    /// Returns the answers of the third node for its shard. Others may fall behind for a moment.
    fn answers(&self) -> Vec<String> {
        let installed = self.installed.lock().unwrap();
        let of_third = installed.iter().filter(|(node, group, _)| (*node, *group) == (3, 1));
        of_third.map(|(.., answer)| answer.clone()).collect()
    }
}

/// Waits until something is so.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn set(group: &RaftGroup, key: &str, value: &str) {
    let command = ["SET", key, value].map(|arg| arg.to_owned().into()).to_vec();
    let request = Request::Commands(CommandsRequest::new(vec![command], Vec::new()));
    group.write(request).await.unwrap();
}

pub(super) fn shard(node: &WiredNode) -> Arc<RaftGroup> {
    node.group(1).unwrap()
}

fn applied(node: &WiredNode) -> Option<u64> {
    shard(node).metrics().last_applied.map(|at| at.index)
}

/// Three nodes, the first of which leads. The last one has missed entries that are purged by now,
/// and is not plugged in.
async fn with_one_behind(wires: &Wires, twins: &[Arc<Twin>; 3]) -> [WiredNode; 3] {
    let [one, two, three] = twins;
    let leader = wires.start(1, one).await;
    leader.init(1).await.unwrap();
    let second = wires.start(2, two).await;
    second.join(&leader.options.listen).await.unwrap();
    let behind = wires.start(3, three).await;
    behind.join(&leader.options.listen).await.unwrap();
    set(&shard(&leader), "key", "before").await;
    until("the third node follows", || applied(&behind) == applied(&leader)).await;
    wires.unplug(&behind);
    wires.installed.lock().unwrap().clear();
    // Snapshots are built by themselves. No other one is being built at the end.
    let is_ready = || {
        let metrics = shard(&leader).metrics();
        let [snapshot, purged] = [metrics.snapshot, metrics.purged].map(|at| at.map(|at| at.index));
        let is_building = applied(&leader) >= snapshot.map(|at| at + 2 * KEPT);
        !is_building && purged > applied(&behind)
    };
    for round in 0..1000 {
        if round > 100 && is_ready() {
            return [leader, second, behind];
        }
        set(&shard(&leader), &format!("key {round}"), &"value".repeat(20)).await;
    }
    panic!("the log is not purged");
}

async fn stop(nodes: [WiredNode; 3]) {
    for node in nodes {
        node.stop().await;
    }
}

/// Returns the files of the snapshot of a node's shard.
fn snapshot_files(twin: &Twin) -> Vec<PathBuf> {
    let is_it = |path: &PathBuf| path.starts_with("/node/group-1") && is_of_snapshot(path);
    twin.files().into_iter().filter(is_it).collect()
}

fn is_of_snapshot(path: &Path) -> bool {
    path.to_string_lossy().contains("group-1/snapshot-")
}

fn flip(twin: &Twin, path: &Path, offset: usize) {
    let mut bytes = twin.contents(path).unwrap();
    bytes[offset] ^= 1;
    twin.put_file(path, bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_snapshot_is_refused_and_a_whole_one_installed() {
    let (wires, twins) = (Wires::default(), [Twin::new(), Twin::new(), Twin::new()]);
    let nodes = with_one_behind(&wires, &twins).await;
    let [leader, _, behind] = &nodes;
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|it| it == "log");
    let segment = snapshot_files(&twins[0]).into_iter().filter(is_segment).min().unwrap();
    let before = applied(behind);
    let hint = segment.with_extension("hint");
    assert!(twins[0].contents(&hint).is_some(), "the segment is sealed");
    let middle = twins[0].contents(&segment).unwrap().len() / 2;
    flip(&twins[0], &segment, middle);
    wires.plug(behind);
    until("the snapshot is refused", || wires.answers().len() > 1).await;
    let name = segment.file_name().unwrap().to_string_lossy();
    let expected = format!("the snapshot of node 1 is damaged: {name} at offset ");
    for answer in wires.answers() {
        assert!(answer.contains(&expected), "{answer}");
    }
    assert_eq!(shard(behind).check_running(), Ok(()));
    assert_eq!(shard(leader).check_running(), Ok(()));
    assert_eq!(applied(behind), before);
    // Bytes of a store that nobody needs may be wrong. They are derived from others.
    flip(&twins[0], &segment, middle);
    flip(&twins[0], &hint, twins[0].contents(&hint).unwrap().len() / 2);
    until("the third node follows again", || applied(behind) == applied(leader)).await;
    assert!(wires.answers().last().unwrap().contains("SnapshotInstalled"));
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_that_is_not_what_it_has_to_be_stops_nobody() {
    let (wires, twin) = (Wires::default(), Twin::new());
    let node = wires.start(1, &twin).await;
    node.init(1).await.unwrap();
    let ask = |request| node.answer(Recipient::default(), 1, request);
    let (copy, _) = shard(&node).state().copy().unwrap();
    for (files, expected) in [
        (Vec::new(), "it has no files"),
        (copy.files().unwrap(), "the snapshot holds the state up to log index Some("),
    ] {
        let PeerAnswer::SnapshotBegun(snapshot) = ask(PeerRequest::BeginSnapshot).await else {
            panic!()
        };
        for SnapshotFile { name, .. } in files {
            let bytes = twin.contents(&copy.path().join(&name)).unwrap().into();
            let put = ask(PeerRequest::PutPiece { snapshot, name, offset: 0, bytes }).await;
            assert!(matches!(put, PeerAnswer::Done), "{put:?}");
        }
        let meta = SnapshotMeta {
            last_log_id: Some(LogId::new(CommittedLeaderId::new(1000, 2), 1000)),
            last_membership: StoredMembership::default(),
            snapshot_id: "another".to_owned(),
        };
        let vote = Vote::new_committed(1000, 2);
        let answer = ask(PeerRequest::InstallSnapshot { snapshot, vote, meta }).await;
        let PeerAnswer::Failed(why) = answer else { panic!("{answer:?}") };
        let why = why.strip_prefix("the snapshot of node 2 is damaged: ").unwrap();
        assert!(why.starts_with(expected), "{why}");
        assert_eq!(shard(&node).check_running(), Ok(()));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_shortage_of_open_files_fails_a_transfer_and_nothing_else() {
    let (wires, twins) = (Wires::default(), [Twin::new(), Twin::new(), Twin::new()]);
    let nodes = with_one_behind(&wires, &twins).await;
    let [leader, _, behind] = &nodes;
    // The directory for what is received.
    twins[2].fail(Fault::new(FaultKind::Emfile).only(Call::CreateDir));
    let answer = behind.answer(Recipient::default(), 1, PeerRequest::BeginSnapshot).await;
    assert!(matches!(answer, PeerAnswer::Failed(_)), "{answer:?}");
    assert_eq!(shard(behind).check_running(), Ok(()));
    // The first file is not listed, and when all are, the second is not read.
    let (failing, mut opened) = (Arc::clone(&twins[0]), 0);
    let failing_at = [1, 1 + snapshot_files(&twins[0]).len() + 2];
    let shortage = move |path: Option<&Path>| {
        if path.is_some_and(is_of_snapshot) {
            opened += 1;
            if failing_at.contains(&opened) {
                failing.fail(Fault::new(FaultKind::Emfile).only(Call::Open));
            }
        }
    };
    let handle = tokio::runtime::Handle::current();
    let before = twins[0].fault_count();
    tokio::task::block_in_place(|| {
        twins[0].with_interference(shortage, || {
            handle.block_on(async {
                wires.plug(behind);
                until("the third node follows", || applied(behind) == applied(leader)).await;
            });
        });
    });
    assert_eq!(shard(leader).check_running(), Ok(()));
    assert_eq!(shard(behind).check_running(), Ok(()));
    assert_eq!(twins[0].fault_count(), before + 2);
    stop(nodes).await;
}
