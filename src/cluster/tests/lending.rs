//! Copies that a node lends.

#![expect(clippy::disallowed_methods, reason = "the tests look for directories that must not stay")]

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use openraft::storage::RaftStateMachine as _;
use tokio::net::TcpListener;

use crate::clock::Hands;
use crate::cluster::consensus::Request;
use crate::cluster::group::RaftGroup;
use crate::cluster::lending::UNREAD_MAX;
use crate::cluster::network::Tcp;
use crate::cluster::network::messages::{LentFile, PeerAnswer};
use crate::cluster::network::server::serve;
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::resp::CommandsRequest;
use crate::store::Env;
use crate::testing::twin::Twin;

/// Starts a cluster of one node, of one shard.
pub(super) async fn node(options: ClusterOptions) -> (Arc<Node<Tcp>>, Arc<RaftGroup>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options.listen(listener.local_addr().unwrap().to_string());
    let node = Node::start(options, Tcp).await.unwrap();
    let peer = Arc::new(Arc::clone(&node));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&peer)));
        }
    });
    node.init(1).await.unwrap();
    let group = node.group(1).unwrap();
    (node, group)
}

async fn set(group: &RaftGroup, key: &str) {
    let command = ["SET", key, "value"].map(|arg| arg.to_owned().into()).to_vec();
    let request = Request::Commands(CommandsRequest::new(vec![command], Vec::new()));
    group.write(request).await.unwrap();
}

async fn lend(node: &Arc<Node<Tcp>>, group: &RaftGroup) -> (u64, u64, Vec<LentFile>) {
    match node.lend_copy(group).await.unwrap() {
        PeerAnswer::CopyLent { copy, index, files } => (copy, index, files),
        other => panic!("{other:?}"),
    }
}

/// Returns how many copies there are on the disk, whoever has them.
fn copies(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir.join("group-1")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("incoming-")).count()
}

/// Waits until so many copies are left. Another thread removes them.
async fn until_left(dir: &Path, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while copies(dir) != count {
        assert!(Instant::now() < until, "{} copies are left", copies(dir));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_copy_that_nobody_reads_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (node, group) = node(ClusterOptions::new(1, dir.path(), "secret")).await;
    set(&group, "key").await;
    tokio::time::pause();
    let (copy, _, files) = lend(&node, &group).await;
    let name = files[0].name.clone();
    // The copy stays as long as somebody reads it.
    for _ in 0..3 {
        tokio::time::sleep(UNREAD_MAX * 2 / 3).await;
        assert!(node.lent_piece(1, copy, &name, 0).is_ok());
    }
    assert_eq!(copies(dir.path()), 1);
    tokio::time::sleep(UNREAD_MAX * 2).await;
    let gone = node.lent_piece(1, copy, &name, 0).unwrap_err().to_string();
    assert!(gone.contains("nothing was read for ten minutes"), "{gone}");
    until_left(dir.path(), 0).await;
    node.stop().await;
}

#[tokio::test]
async fn what_one_backup_returns_another_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let (node, group) = node(ClusterOptions::new(1, dir.path(), "secret")).await;
    let (first, ..) = lend(&node, &group).await;
    let (second, _, files) = lend(&node, &group).await;
    until_left(dir.path(), 1).await;
    node.take_back(1, first);
    assert!(node.lent_piece(1, first, &files[0].name, 0).is_err());
    assert!(node.lent_piece(1, second, &files[0].name, 0).is_ok());
    node.take_back(1, second);
    assert!(node.lent_piece(1, second, &files[0].name, 0).is_err());
    until_left(dir.path(), 0).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_has_stopped_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (node, group) = node(ClusterOptions::new(1, dir.path(), "secret")).await;
    group.stop().await;
    let failure = node.lend_copy(&group).await.unwrap_err().to_string();
    assert!(failure.starts_with("this node does not take part"), "{failure}");
    node.stop().await;
}

/// openraft builds one snapshot at a time, and forgets that another one is wanted meanwhile.
#[test]
fn a_copy_is_lent_while_a_snapshot_is_being_built() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(4).enable_all().build().unwrap();
    let twin = Twin::new();
    let mut options = ClusterOptions::new(1, "/node", "secret");
    options.env = Env {
        fs: Fs::Twin(Arc::clone(&twin)),
        clock: Hands::new().clock(),
        hasher: |_| KeyHasher::new(1),
        threads: false,
    };
    let (node, group) = runtime.block_on(node(options));
    runtime.block_on(set(&group, "before"));

    let (building, is_building) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let mut is_first = true;
    let hold = move |opened: Option<&Path>| {
        let is_copied = |path: &Path| path.to_string_lossy().contains("group-1/snapshot-");
        if is_first && opened.is_some_and(is_copied) {
            is_first = false;
            building.send(()).unwrap();
            // An error says that the test has failed.
            let _ = may_go_on.recv();
        }
    };
    let index = twin.with_interference(hold, || {
        runtime.block_on(group.build_snapshot()).unwrap();
        is_building.recv().unwrap();
        // The snapshot does not have this.
        runtime.block_on(set(&group, "after"));
        let applied = group.metrics().last_applied.unwrap().index;
        let (lender, lending) = (Arc::clone(&node), Arc::clone(&group));
        let lent = runtime.spawn(async move { lend(&lender, &lending).await });
        // Whoever asks openraft has asked by now. For others, the moment does not matter.
        std::thread::sleep(Duration::from_millis(300));
        go_on.send(()).unwrap();
        let (_, index, _) = runtime.block_on(lent).unwrap();
        assert!(index >= applied, "{index} of {applied}");
        index
    });
    let snapshot = runtime.block_on(group.state().clone().get_current_snapshot()).unwrap();
    assert!(snapshot.unwrap().meta.last_log_id.unwrap().index < index);
    runtime.block_on(node.stop());
}
