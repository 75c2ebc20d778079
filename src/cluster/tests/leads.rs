//! Three nodes with sockets, between which leads are handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::pairs::started;
use crate::cluster::consensus::{Answered, Request};
use crate::cluster::error::ClusterError;
use crate::cluster::group::{GroupMetrics, PATIENCE};
use crate::cluster::map::MAP_GROUP;
use crate::cluster::network::Tcp;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::PeerNode as _;
use crate::cluster::node::Node;
use crate::resp::CommandsRequest;

/// How often a machine may be so busy that a node misses its leader.
const ATTEMPTS: u64 = 5;

/// Number of clients that write at the same time.
const WRITERS: usize = 8;

/// Starts three nodes, the first of which leads one shard.
async fn trio(dir: &TempDir) -> [Arc<Node<Tcp>>; 3] {
    let nodes = [started(1, dir).await, started(2, dir).await, started(3, dir).await];
    nodes[0].init(1).await.unwrap();
    for node in &nodes[1..] {
        node.join(&nodes[0].options.listen).await.unwrap();
    }
    for node in &nodes {
        let wait = node.group(1).unwrap().raft.wait(Some(PATIENCE));
        wait.current_leader(1, "each node knows the leader").await.unwrap();
    }
    nodes
}

async fn stop(nodes: [Arc<Node<Tcp>>; 3]) {
    for node in nodes {
        node.stop().await;
    }
}

fn counting() -> Request {
    let command = ["INCR", "key"].map(Bytes::from).to_vec();
    Request::Commands(CommandsRequest::new(vec![command], Vec::new()))
}

/// Writes without a pause. Returns what was not done, or may not have been.
fn write_until(
    is_over: &Arc<AtomicBool>,
    node: &Arc<Node<Tcp>>,
) -> JoinHandle<Vec<Result<Answered, ClusterError>>> {
    let (is_over, node) = (Arc::clone(is_over), Arc::clone(node));
    tokio::spawn(async move {
        let (group, mut failures) = (node.group(1).unwrap(), Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            match node.write(&group, counting()).await {
                Ok(Answered::Replies(Some(_))) => {}
                failed => failures.push(failed),
            }
        }
        failures
    })
}

/// If the others went on to count on their leader, the chosen node would need a second election,
/// and clients would wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_handed_over_in_one_election_and_no_write_fails() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = trio(&dir).await;
    let (mut was_handed_over, mut from) = (false, 0);
    for _ in 0..ATTEMPTS {
        let (old, to) = (Arc::clone(&nodes[from]), (from + 1) % 3);
        let group = nodes[to].group(1).unwrap();
        let term = group.metrics().current_term;
        let is_over = Arc::new(AtomicBool::new(false));
        let writing = (0..WRITERS).map(|_| write_until(&is_over, &old)).collect::<Vec<_>>();
        group.lead(&nodes[to]).await.unwrap();
        is_over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for writer in writing {
            failures.extend(writer.await.unwrap());
        }
        if group.metrics().current_term == term + 1 {
            assert!(failures.is_empty(), "{failures:?}");
            was_handed_over = true;
            break;
        }
        from = to;
    }
    assert!(was_handed_over, "each hand-over took several elections");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_stop_hands_over_what_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = trio(&dir).await;
    let terms = [MAP_GROUP, 1].map(|number| nodes[0].group(number).unwrap().metrics().current_term);
    nodes[0].hand_leads_over().await;
    // It would take the lead into its grave.
    let answer = nodes[0].answer(Recipient::default(), 1, PeerRequest::Lead).await;
    let refusal = "node 1 is about to stop";
    assert!(matches!(&answer, PeerAnswer::Failed(why) if why == refusal), "{answer:?}");
    for (number, term) in [MAP_GROUP, 1].into_iter().zip(terms) {
        let groups = nodes.each_ref().map(|node| node.group(number).unwrap());
        assert!(groups[0].metrics().current_term > term, "nobody was elected in group {number}");
        let wait = groups[0].raft.wait(Some(PATIENCE));
        let is_elsewhere = |metrics: &GroupMetrics| matches!(metrics.current_leader, Some(2 | 3));
        wait.metrics(is_elsewhere, "another node leads").await.unwrap();
    }
    stop(nodes).await;
}

/// It would lose its lead in the middle, and the group would wait for an election.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_hands_its_leads_over() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = trio(&dir).await;
    nodes[1].remove(1).await.unwrap();
    for number in [MAP_GROUP, 1] {
        let group = nodes[1].group(number).unwrap();
        let is_led = |metrics: &GroupMetrics| {
            matches!(metrics.current_leader, Some(2 | 3))
                && metrics.membership_config.membership().get_node(&1).is_none()
        };
        let wait = group.raft.wait(Some(PATIENCE));
        wait.metrics(is_led, "the others go on without the node").await.unwrap();
    }
    stop(nodes).await;
}
