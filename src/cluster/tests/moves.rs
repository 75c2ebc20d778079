//! Nodes with sockets that join and leave, while one of them cannot do its part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::chance::draw;
use super::pairs::{pair, started, started_with};
use crate::cluster::consensus::{Answered, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::identity::NodeIdentity;
use crate::cluster::map::{MAP_GROUP, NodeAddresses};
use crate::cluster::network::Tcp;
use crate::cluster::network::messages::PeerRequest;
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::fs::Fs;
use crate::resp::CommandsRequest;
use crate::store::Env;
use crate::testing::twin::Twin;

/// How long to wait for what certainly comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room on a disk, which is enough for a new node, and not for what it receives.
const ROOM: u64 = 2 << 20;
/// Number of keys, each of which takes 64 KiB. Half of them have no room there.
const KEYS: u64 = 80;

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has a node lead a group, which may elect another one meanwhile.
async fn lead(node: &Arc<Node<Tcp>>, number: u64) {
    let group = node.group(number).unwrap();
    let until = Instant::now() + PATIENCE;
    while group.leader() != Some(node.options.id) {
        assert!(Instant::now() < until, "it does not lead");
        drop(group.lead(node).await);
    }
}

/// Has a node join the group of the map, and no other one.
async fn join_map(founder: &Arc<Node<Tcp>>, node: &Arc<Node<Tcp>>) {
    let id = node.options.id;
    let found = founder.identity().unwrap();
    let identity = NodeIdentity { node: id, is_founder: false, incarnation: 2, ..found };
    let addresses = NodeAddresses { incarnation: 2, ..node.options.addresses.clone() };
    put_node(founder, id, addresses.clone()).await;
    node.settle(identity).await.unwrap();
    let add = || PeerRequest::AddMember { id, address: addresses.cluster.clone() };
    founder.at_leader(MAP_GROUP, add).await.unwrap();
}

async fn put_node(node: &Arc<Node<Tcp>>, id: u64, addresses: NodeAddresses) {
    let put = || PeerRequest::PutNode { id, addresses: addresses.clone() };
    node.at_leader(MAP_GROUP, put).await.unwrap();
}

/// It hears nothing more of a group that it has left, not even who leads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leads_can_be_removed_through_itself_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    lead(&second, 1).await;
    second.remove(2).await.unwrap();
    second.remove(2).await.unwrap();
    assert!(founder.map().nodes.keys().eq([&1]));
    for group in founder.all_groups() {
        let metrics = group.metrics();
        assert!(metrics.membership_config.nodes().all(|(id, _)| *id == 1));
    }
    second.stop().await;
    founder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_group_has_stopped_does_not_join() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    let group = second.group(1).unwrap();
    group.stop().await;
    until(|| group.check_running().is_err()).await;
    let joining = tokio::time::timeout(PATIENCE, second.join(&founder.options.listen));
    let failure = joining.await.expect("it goes on").unwrap_err().to_string();
    assert!(failure.starts_with("group 1: this node does not take part: "), "{failure}");
    second.stop().await;
    founder.stop().await;
}

/// Founds a cluster whose log was purged, with more keys than a small disk has room for.
async fn found_purged(dir: &TempDir) -> Arc<Node<Tcp>> {
    let mut options = ClusterOptions::new(1, dir.path().join("1"), "secret");
    options.timing.kept = 10;
    let founder = started_with(options).await;
    founder.init(1).await.unwrap();
    let group = founder.group(1).unwrap();
    for number in 0..KEYS {
        // Chance cannot be compressed.
        let value: Vec<u8> = (0..1 << 13).flat_map(|_| draw().to_be_bytes()).collect();
        let key = format!("key:{number}");
        let command = vec![Bytes::from("SET"), key.into(), value.into()];
        let request = Request::Commands(CommandsRequest::new(vec![command], Vec::new()));
        let written = founder.write_beginning_at(None, &group, request).await.unwrap();
        assert!(matches!(written, Answered::Replies(Some(_))), "{written:?}");
    }
    group.build_snapshot().await.unwrap();
    until(|| group.metrics().purged.is_some_and(|at| at.index > KEYS / 2)).await;
    founder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_no_room_for_a_snapshot_says_so_and_joins_once_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let founder = found_purged(&dir).await;
    let twin = Twin::new();
    let mut options = ClusterOptions::new(2, "/node", "secret");
    options.env = Env { fs: Fs::Twin(Arc::clone(&twin)), ..Env::default() };
    let second = started_with(options).await;
    twin.set_space(ROOM);
    let joining = tokio::time::timeout(PATIENCE, second.join(&founder.options.listen));
    let failure = joining.await.expect("it goes on").unwrap_err().to_string();
    let expected = "group 1: no snapshot was installed here: ";
    assert!(failure.starts_with(expected), "{failure}");
    twin.set_space(u64::MAX);
    second.join(&founder.options.listen).await.unwrap();
    second.stop().await;
    founder.stop().await;
}

/// The join of the second node was interrupted after the group of the map.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_looks_at_groups_that_the_leader_of_the_map_has_not_joined() {
    let dir = tempfile::tempdir().unwrap();
    let (founder, second) = (started(1, &dir).await, started(2, &dir).await);
    founder.init(1).await.unwrap();
    join_map(&founder, &second).await;
    let third = NodeAddresses { cluster: "127.0.0.1:4".to_owned(), ..Default::default() };
    put_node(&founder, 3, third).await;
    let refused = founder.at_leader(MAP_GROUP, || PeerRequest::BeginRemoval { id: 1 });
    let expected = "group 1 would have no voter without node 1: let each node join again that has \
                    not finished joining (node 2, node 3)";
    assert_eq!(refused.await.unwrap_err(), ClusterError::Refused(expected.to_owned()));
    lead(&second, MAP_GROUP).await;
    let refused = second.at_leader(MAP_GROUP, || PeerRequest::BeginRemoval { id: 1 });
    assert_eq!(refused.await.unwrap_err(), ClusterError::Refused(expected.to_owned()));
    second.at_leader(MAP_GROUP, || PeerRequest::BeginRemoval { id: 3 }).await.unwrap();
    second.stop().await;
    founder.stop().await;
}

/// The others do not tell it. It asks them to make a new address known.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_while_it_was_down_does_not_announce_itself_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    let third = started(3, &dir).await;
    third.join(&founder.options.listen).await.unwrap();
    let mut options = third.options.clone();
    third.stop().await;
    drop(third);
    founder.remove(3).await.unwrap();
    options.addresses.redis = "127.0.0.1:5".to_owned();
    let ends = Instant::now() + PATIENCE;
    let again = loop {
        // The one before may have the directory open for a moment.
        match Node::start(options.clone(), Tcp).await {
            Ok(node) => break node,
            Err(failure) => assert!(Instant::now() < ends, "{failure}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!again.map().removed.contains(&3));
    let announced = again.announce(again.identity().unwrap());
    tokio::time::timeout(PATIENCE, announced).await.expect("it goes on");
    for node in [again, second, founder] {
        node.stop().await;
    }
}
