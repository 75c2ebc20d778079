//! Two nodes with sockets: what one does of which the other is the leader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, Vote};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::cluster::consensus::{Answered, Consensus, Proposal, Request};
use crate::cluster::group::PATIENCE;
use crate::cluster::network::Tcp;
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::{PeerNode as _, serve};
use crate::cluster::node::Node;
use crate::cluster::options::ClusterOptions;
use crate::resp::CommandsRequest;

pub(super) async fn started(id: u64, dir: &TempDir) -> Arc<Node<Tcp>> {
    started_with(ClusterOptions::new(id, dir.path().join(id.to_string()), "secret")).await
}

pub(super) async fn started_with(options: ClusterOptions) -> Arc<Node<Tcp>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = options.listen(listener.local_addr().unwrap().to_string()).forward(true);
    let node = Node::start(options, Tcp).await.unwrap();
    let peer = Arc::new(Arc::clone(&node));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&peer)));
        }
    });
    node
}

/// Starts two nodes, the first of which leads one shard.
pub(super) async fn pair(dir: &TempDir) -> [Arc<Node<Tcp>>; 2] {
    let (founder, second) = (started(1, dir).await, started(2, dir).await);
    founder.init(1).await.unwrap();
    second.join(&founder.options.listen).await.unwrap();
    let group = second.group(1).unwrap();
    let wait = group.raft.wait(Some(PATIENCE));
    wait.current_leader(1, "the second node knows the leader").await.unwrap();
    [founder, second]
}

/// While requests wait, a node may lose the lead. So one is asked here that does not lead.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_node_that_loses_the_lead_goes_on_to_the_next_leader() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    let group = second.group(1).unwrap();
    let command = ["SET", "key", "value"].map(Bytes::from).to_vec();
    let request = Request::Commands(CommandsRequest::new(vec![command], Vec::new()));
    let written = second.write_beginning_at(None, &group, request).await.unwrap();
    assert!(matches!(written, Answered::Replies(Some(_))), "{written:?}");
    second.catch_up_with(None, &group).await.unwrap();
    second.stop().await;
    founder.stop().await;
}

/// The term of a leader that is played. No other one comes so far.
const TERM: u64 = 1000;

/// A leader without a majority goes on to send heartbeats. It is played here.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_as_old_as_its_leader_says_that_the_majority_is() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    let group = second.group(1).unwrap();
    second.catch_up_with(None, &group).await.unwrap();
    founder.stop().await;
    let until = Instant::now() + PATIENCE;
    while group.state_age() < Duration::from_millis(300) {
        assert!(Instant::now() < until, "the age does not grow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heartbeat = async |entries: Vec<Entry<Consensus>>, quorum_age| {
        let applied = group.metrics().last_applied;
        let rpc = AppendEntriesRequest {
            vote: Vote::new_committed(TERM, 1),
            prev_log_id: applied,
            leader_commit: entries.last().map(|entry| entry.log_id).or(applied),
            entries,
        };
        let before = (Instant::now(), group.state_age());
        let answer =
            second.answer(Recipient::default(), 1, PeerRequest::Append(rpc, quorum_age)).await;
        let is_taken = matches!(answer, PeerAnswer::Appended(AppendEntriesResponse::Success));
        assert!(is_taken, "{answer:?}");
        before
    };
    // The second is that of a leader which may lack what the leader before has committed.
    for quorum_age in [None, Some(0)] {
        let (_, before) = heartbeat(Vec::new(), quorum_age).await;
        assert!(group.state_age() >= before, "{quorum_age:?} {before:?}");
    }
    let applied = group.metrics().last_applied.unwrap();
    let log_id = LogId::new(CommittedLeaderId::new(TERM, 1), applied.index + 1);
    heartbeat(vec![Entry { log_id, payload: EntryPayload::Blank }], None).await;
    // Without heartbeats, the node would stand itself meanwhile.
    let until = Instant::now() + PATIENCE;
    while group.metrics().last_applied < Some(log_id) {
        assert!(Instant::now() < until, "its own entry is not applied");
        heartbeat(Vec::new(), None).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // This leader knows everything, but was answered before what the node had already.
    let (_, before) = heartbeat(Vec::new(), Some(60_000)).await;
    assert!(group.state_age() >= before, "{before:?}");
    let (begun, _) = heartbeat(Vec::new(), Some(0)).await;
    assert!(group.state_age() <= begun.elapsed(), "the majority has answered meanwhile");
    second.stop().await;
}

/// Otherwise a node whose store is slower than its log would run out of memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_far_behind_takes_no_entries_and_hears_its_leader() {
    let dir = tempfile::tempdir().unwrap();
    let [founder, second] = pair(&dir).await;
    let group = second.group(1).unwrap();
    second.catch_up_with(None, &group).await.unwrap();
    founder.stop().await;
    let term = group.metrics().current_term + 1;
    let command = vec!["SET".into(), "key".into(), Bytes::from(vec![b'x'; 10 << 10])];
    let request = Request::Commands(CommandsRequest::new(vec![command], Vec::new()));
    let append = async |last: LogId<u64>, is_heartbeat: bool| {
        let log_id = LogId::new(CommittedLeaderId::new(term, 1), last.index + 1);
        let proposal = Proposal { time: 0, seed: 0, requests: vec![request.clone()] };
        let entry = Entry { log_id, payload: EntryPayload::Normal(proposal) };
        let entries = if is_heartbeat { Vec::new() } else { vec![entry] };
        let leader_commit = Some(if is_heartbeat { last } else { log_id });
        let vote = Vote::new_committed(term, 1);
        let rpc = AppendEntriesRequest { vote, prev_log_id: Some(last), leader_commit, entries };
        match second.answer(Recipient::default(), 1, PeerRequest::Append(rpc, None)).await {
            PeerAnswer::Appended(AppendEntriesResponse::Success) => Some(log_id),
            PeerAnswer::Appended(AppendEntriesResponse::PartialSuccess(none)) => {
                assert_eq!(none, Some(last));
                None
            }
            other => panic!("{other:?}"),
        }
    };
    let applied = group.metrics().last_applied.unwrap();
    let halt = group.state().halt();
    let mut last = applied;
    while let Some(taken) = append(last, false).await {
        last = taken;
        assert!(last.index < applied.index + 20, "it takes whatever comes");
    }
    assert!((6..=7).contains(&(last.index - applied.index)), "{last}");
    assert!(append(last, true).await.is_some());
    assert_eq!(group.metrics().last_log_index, Some(last.index));
    drop(halt);
    while append(last, false).await.is_none() {}
    let wait = group.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(last.index + 1), "what was held back").await.unwrap();
    second.stop().await;
}
