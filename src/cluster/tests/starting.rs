//! Nodes whose directories are not what they were.

#![expect(clippy::disallowed_methods, reason = "the tests remove what a node needs")]

use std::path::Path;
use std::sync::Arc;

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

/// Founds a cluster in a directory, and stops its node.
async fn found(dir: &Path) {
    let (node, _) = node(options(dir)).await;
    node.stop().await;
}

/// Starts a node whose directory the one before may have open for a moment.
async fn start(dir: &Path) -> Result<Arc<Node<Tcp>>, String> {
    loop {
        match Node::start(options(dir), Tcp).await {
            Err(error) if error.to_string().contains("is locked") => {
                tokio::task::yield_now().await;
            }
            started => return started.map_err(|error| error.to_string()),
        }
    }
}

/// A directory that is not mounted is empty.
#[tokio::test]
async fn a_node_without_its_log_does_not_start() {
    for is_mounted in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        found(dir.path()).await;
        let log = dir.path().join("log");
        std::fs::remove_dir_all(&log).unwrap();
        if !is_mounted {
            std::fs::create_dir(&log).unwrap();
        }
        let error = start(dir.path()).await.err().unwrap();
        assert!(error.contains("log") && error.contains("is not there"), "{error}");
    }
}

#[tokio::test]
async fn a_node_without_its_identity_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    found(dir.path()).await;
    std::fs::remove_file(dir.path().join("NODE")).unwrap();
    let node = start(dir.path()).await.unwrap();
    let error = node.init(1).await.unwrap_err();
    let ClusterError::Failed(why) = &error else { panic!("{error}") };
    assert!(why.contains("NODE") && why.contains("log is there"), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_whose_map_has_other_shards_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    found(dir.path()).await;
    let identity = NodeIdentity::read(&Fs::DISK, dir.path()).unwrap().unwrap();
    NodeIdentity { shards: 2, ..identity }.write(&Fs::DISK, dir.path()).unwrap();
    let error = start(dir.path()).await.err().unwrap();
    assert!(error.contains("it says 2 shards, and the map of the cluster 1"), "{error}");
    identity.write(&Fs::DISK, dir.path()).unwrap();
    start(dir.path()).await.unwrap().stop().await;
}
