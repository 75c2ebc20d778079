//! Nodes whose directories are not what they were.

#![expect(clippy::disallowed_methods, reason = "the tests remove what a node needs")]

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine as _;

use super::lending::node;
use crate::cluster::error::ClusterError;
use crate::cluster::identity::NodeIdentity;
use crate::cluster::network::Tcp;
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::fs::Fs;

fn options(dir: &Path) -> ClusterOptions {
    ClusterOptions::new(1, dir, "secret")
}

/// Founds a cluster in a directory, and stops its node. Returns the address of that.
async fn found(dir: &Path) -> String {
    let (node, _) = node(options(dir)).await;
    node.stop().await;
    node.options.listen.clone()
}

/// Starts a node whose directory the one before may have open for a moment.
async fn start(dir: &Path, address: &str) -> Result<Arc<Node<Tcp>>, String> {
    loop {
        match Node::start(options(dir).listen(address), Tcp).await {
            Err(error) if error.to_string().contains("is locked") => {
                tokio::task::yield_now().await;
            }
            started => return started.map_err(|error| error.to_string()),
        }
    }
}

/// What was asked of it before may come to its turn only now.
#[tokio::test]
async fn a_node_that_was_stopped_opens_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (node, group) = node(options(dir.path())).await;
    node.stop().await;
    let stopped = node.init(1).await.unwrap_err();
    assert!(matches!(stopped, ClusterError::Stopped(_)), "{stopped}");
    assert!(node.all_groups().is_empty());
    let late = group.state().clone().begin_receiving_snapshot().await.unwrap();
    let path = late.path().to_owned();
    assert!(node.receive(1, *late).is_err());
    assert!(!path.exists());
    // Another node can have the directory as soon as the last task has let go of it.
    drop(group);
    let address = node.options.listen.clone();
    start(dir.path(), &address).await.unwrap().stop().await;
}

/// A directory that is not mounted is empty.
#[tokio::test]
async fn a_node_without_its_log_does_not_start() {
    for is_mounted in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let address = found(dir.path()).await;
        let log = dir.path().join("log");
        std::fs::remove_dir_all(&log).unwrap();
        if !is_mounted {
            std::fs::create_dir(&log).unwrap();
        }
        let error = start(dir.path(), &address).await.err().unwrap();
        assert!(error.contains("log") && error.contains("is not there"), "{error}");
    }
}

#[tokio::test]
async fn a_node_without_its_identity_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let address = found(dir.path()).await;
    // It may have been ended while it wrote the file once more.
    let identity = NodeIdentity::read(&Fs::DISK, dir.path()).unwrap().unwrap();
    identity.begin(&Fs::DISK, dir.path()).unwrap();
    start(dir.path(), &address).await.unwrap().stop().await;
    std::fs::remove_file(dir.path().join("NODE")).unwrap();
    let node = start(dir.path(), &address).await.unwrap();
    let error = node.init(1).await.unwrap_err();
    let ClusterError::Failed(why) = &error else { panic!("{error}") };
    assert!(why.contains("NODE") && why.contains("log is there"), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_whose_map_has_other_shards_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let address = found(dir.path()).await;
    let identity = NodeIdentity::read(&Fs::DISK, dir.path()).unwrap().unwrap();
    NodeIdentity { shards: 2, ..identity }.write(&Fs::DISK, dir.path()).unwrap();
    let error = start(dir.path(), &address).await.err().unwrap();
    assert!(error.contains("it says 2 shards, and the map of the cluster 1"), "{error}");
    identity.write(&Fs::DISK, dir.path()).unwrap();
    start(dir.path(), &address).await.unwrap().stop().await;
}
