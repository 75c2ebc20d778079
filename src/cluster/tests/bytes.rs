//! The bytes that nodes of different versions have in common: the entries of the log, what nodes
//! say to each other, and the map. `tests/fixtures/cluster-1.txt` has them as they were before.

#![expect(clippy::disallowed_methods, reason = "the file is that of no store")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta,
    StoredMembership, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::applying::AppliedGroup;
use crate::cluster::consensus::{Answered, Consensus, Proposal, Request};
use crate::cluster::map::{ClusterMap, MapChange, NodeAddresses};
use crate::cluster::network::SnapshotTransfer;
use crate::cluster::network::messages::{
    KnownCluster, LentFile, PeerAnswer, PeerRequest, Recipient, WriteOutcome,
};
use crate::cluster::status::GroupRole::{Candidate, Follower, Leader, Learner, Stopped};
use crate::cluster::status::{GroupStatus, NodeEntry, NodeStatus};
use crate::resp::{CommandsRequest, sendable};

const FILE: &str = "tests/fixtures/cluster-1.txt";

const RULE: &str = "
A node of the version before writes and reads the bytes that the file has. With others, the nodes of
a cluster that is upgraded one after the other do not understand each other, and a node does not
understand its own log. New kinds of requests and answers come last, and nothing else changes: a
field that is added, removed or moved changes the bytes, and so does a kind that comes between.

Whatever has to change otherwise needs a new version: that of the path of messages (`PEER_PATH`),
that of what Raft stores (`raft/encoding.rs`), or that of the map (`MAP_VERSION`). Then a node has
to read the old one too, and the file stays as it is, beside a new one.

If there are only new kinds, this adds them to the file:
BITCASK_WRITE_CLUSTER_BYTES=1 cargo test --features cluster --lib cluster::tests::bytes
";

/// One value of a kind, in bytes, and how they are read again and written anew.
struct Sample {
    name: String,
    bytes: Vec<u8>,
    again: fn(&[u8]) -> Option<Vec<u8>>,
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Vec<u8>> {
    postcard::to_stdvec(&postcard::from_bytes::<T>(bytes).ok()?).ok()
}

fn sample<T: Serialize + DeserializeOwned>(name: impl Into<String>, value: &T) -> Sample {
    let (name, bytes) = (name.into(), postcard::to_stdvec(value).unwrap());
    Sample { name, bytes, again: again::<T> }
}

/// Returns the name of a variant.
fn kind(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphabetic).collect()
}

fn log_id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(7, 2), index)
}

fn addresses() -> NodeAddresses {
    let (cluster, redis, http) = ("n2:7000".into(), "n2:6379".into(), "n2:8000".into());
    NodeAddresses { cluster, redis, http, incarnation: 0xABCD << 100 }
}

fn map() -> ClusterMap {
    let (nodes, removed) = (BTreeMap::from([(2, addresses())]), BTreeSet::from([1, 300]));
    ClusterMap { epoch: 5, nodes, removed, shards: 16 }
}

fn membership() -> Membership<u64, BasicNode> {
    let nodes = BTreeMap::from([1, 2, 3].map(|id| (id, BasicNode::new(format!("n{id}:7000")))));
    Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2])], nodes)
}

fn commands() -> Request {
    let args = |line: &str| line.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect();
    let watched = vec![("there".into(), Some(0xFEDC << 80)), ("absent".into(), None)];
    Request::Commands(CommandsRequest::new(vec![args("SET key value"), args("INCR n")], watched))
}

fn entry(index: u64, payload: EntryPayload<Consensus>) -> Entry<Consensus> {
    Entry { log_id: log_id(index), payload }
}

fn entries() -> Vec<Entry<Consensus>> {
    let changes = [
        MapChange::Create { shards: 16 },
        MapChange::PutNode { id: 2, addresses: addresses() },
        MapChange::BeginRemoval { id: 300, voters: [2, 300].into() },
        MapChange::RemoveNode { id: 300 },
    ];
    let requests = changes.map(Request::Map).into_iter().chain([commands(), Request::Tick]);
    let proposals = requests.map(|request| {
        let (time, seed) = (1_700_000_000_000_000, u64::MAX);
        EntryPayload::Normal(Proposal { time, seed, requests: vec![request, Request::Tick] })
    });
    let others = [EntryPayload::Blank, EntryPayload::Membership(membership())];
    (299..).zip(proposals.chain(others)).map(|(index, payload)| entry(index, payload)).collect()
}

fn requests() -> Vec<PeerRequest> {
    // A kind that is new belongs here, and into the list.
    match PeerRequest::Status {
        PeerRequest::Append(..)
        | PeerRequest::Vote(_)
        | PeerRequest::BeginSnapshot
        | PeerRequest::PutPiece { .. }
        | PeerRequest::InstallSnapshot { .. }
        | PeerRequest::Init { .. }
        | PeerRequest::Join { .. }
        | PeerRequest::GetMap
        | PeerRequest::PutNode { .. }
        | PeerRequest::BeginRemoval { .. }
        | PeerRequest::RemoveNode { .. }
        | PeerRequest::Leave { .. }
        | PeerRequest::AddMember { .. }
        | PeerRequest::RemoveMember { .. }
        | PeerRequest::Lead
        | PeerRequest::Yield { .. }
        | PeerRequest::BuildSnapshot
        | PeerRequest::Status
        | PeerRequest::Write(_)
        | PeerRequest::ReadIndex
        | PeerRequest::LendCopy
        | PeerRequest::GetPiece { .. }
        | PeerRequest::ReturnCopy { .. } => {}
    }
    let vote = Vote::new_committed(7, 2);
    let entries = vec![entry(300, EntryPayload::Blank)];
    let (prev_log_id, leader_commit) = (Some(log_id(299)), Some(log_id(298)));
    let last_membership = StoredMembership::new(Some(log_id(3)), membership());
    let (last_log_id, snapshot_id) = (Some(log_id(300)), "7-2-300".into());
    let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
    let (name, address) = (|| "0000000001.log".to_owned(), || "n3:7000".to_owned());
    let bytes = Bytes::from_static(b"\0piece\xFF");
    vec![
        PeerRequest::Append(
            AppendEntriesRequest { vote, prev_log_id, entries, leader_commit },
            Some(375),
        ),
        PeerRequest::Vote(VoteRequest::new(Vote::new(8, 3), None)),
        PeerRequest::BeginSnapshot,
        PeerRequest::PutPiece { snapshot: 4, name: name(), offset: 1 << 20, bytes },
        PeerRequest::InstallSnapshot { snapshot: 4, vote, meta },
        PeerRequest::Init { shards: 300 },
        PeerRequest::Join { address: address() },
        PeerRequest::GetMap,
        PeerRequest::PutNode { id: 2, addresses: addresses() },
        PeerRequest::BeginRemoval { id: 2 },
        PeerRequest::RemoveNode { id: 2 },
        PeerRequest::Leave { id: 2 },
        PeerRequest::AddMember { id: 3, address: address() },
        PeerRequest::RemoveMember { id: 3 },
        PeerRequest::Lead,
        PeerRequest::Yield { to: 3 },
        PeerRequest::BuildSnapshot,
        PeerRequest::Status,
        PeerRequest::Write(commands()),
        PeerRequest::ReadIndex,
        PeerRequest::LendCopy,
        PeerRequest::GetPiece { copy: 9, name: name(), offset: 128 },
        PeerRequest::ReturnCopy { copy: 9 },
    ]
}

fn status() -> NodeStatus {
    let (cluster, redis, http) = ("n2:7000".into(), "n2:6379".into(), String::new());
    let group = |role| GroupStatus {
        number: 1,
        slots: Some((0, 1023)),
        role,
        leader: Some(2),
        term: 7,
        voters: vec![1, 2],
        learners: vec![3],
        last_log: Some(300),
        applied: Some(299),
        snapshot: None,
        purged: Some(128),
        quorum_age: Some(20),
        replicated: vec![(1, Some(300)), (3, None)],
        transfers: vec![SnapshotTransfer { node: 3, sent: 1 << 20, size: 1 << 30 }],
        keys: 1000,
        size: 1 << 33,
        failure: Some("no space".into()),
    };
    NodeStatus {
        id: 2,
        version: "0.1.0".into(),
        shards: Some(16),
        nodes: vec![NodeEntry { id: 2, cluster, redis, http }],
        groups: [Learner, Follower, Candidate, Leader, Stopped].map(group).into(),
    }
}

async fn answers() -> Vec<PeerAnswer> {
    // A kind that is new belongs here, and into the list.
    match PeerAnswer::Done {
        PeerAnswer::Appended(_)
        | PeerAnswer::Voted(_)
        | PeerAnswer::SnapshotBegun(_)
        | PeerAnswer::SnapshotInstalled(_)
        | PeerAnswer::Cluster(_)
        | PeerAnswer::Status(_)
        | PeerAnswer::Done
        | PeerAnswer::AskLeader { .. }
        | PeerAnswer::Failed(_)
        | PeerAnswer::Written(_)
        | PeerAnswer::ReadIndex(_)
        | PeerAnswer::CopyLent { .. }
        | PeerAnswer::Piece(_)
        | PeerAnswer::Busy
        | PeerAnswer::Refused(_) => {}
    }
    let vote = Vote::new_committed(7, 2);
    let files = vec![LentFile { name: "MANIFEST".into(), size: 300 }];
    vec![
        PeerAnswer::Appended(AppendEntriesResponse::Success),
        PeerAnswer::Appended(AppendEntriesResponse::PartialSuccess(Some(log_id(300)))),
        PeerAnswer::Appended(AppendEntriesResponse::Conflict),
        PeerAnswer::Appended(AppendEntriesResponse::HigherVote(vote)),
        PeerAnswer::Voted(VoteResponse::new(vote, Some(log_id(300)), true)),
        PeerAnswer::SnapshotBegun(4),
        PeerAnswer::SnapshotInstalled(SnapshotResponse::new(vote)),
        PeerAnswer::Cluster(KnownCluster { cluster: 0xC << 120, map: map() }),
        PeerAnswer::Status(status()),
        PeerAnswer::Done,
        PeerAnswer::AskLeader { leader: Some(2), address: Some("n2:7000".into()) },
        PeerAnswer::Failed("no space".into()),
        PeerAnswer::Written(replies().await),
        PeerAnswer::Written(WriteOutcome::Replies(None)),
        PeerAnswer::Written(WriteOutcome::Refused("too large".into())),
        PeerAnswer::Written(WriteOutcome::Busy),
        PeerAnswer::Written(WriteOutcome::Unknown),
        PeerAnswer::Written(WriteOutcome::Stopped("no space".into())),
        PeerAnswer::ReadIndex(Some(300)),
        PeerAnswer::CopyLent { copy: 9, index: 300, files },
        PeerAnswer::Piece(Bytes::from_static(b"\0piece\xFF")),
        PeerAnswer::Busy,
        PeerAnswer::Refused("why".into()),
    ]
}

/// Returns replies that commands have had.
async fn replies() -> WriteOutcome {
    let mut group = AppliedGroup::new();
    let args = |line: &&str| line.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect();
    let lines = [
        "SET key value",
        "GET key",
        "GET absent",
        "INCR n",
        "INCR key",
        "HSET hash field value",
        "HGETALL hash",
        "MGET key absent",
    ];
    let request = CommandsRequest::new(lines.iter().map(args).collect(), Vec::new());
    match group.propose(1, vec![Request::Commands(request)]).await.pop() {
        Some(Answered::Replies(replies)) => WriteOutcome::Replies(replies.map(sendable)),
        other => panic!("{other:?}"),
    }
}

async fn samples() -> Vec<Sample> {
    let mut samples = vec![
        sample("the map", &map()),
        sample("a vote", &Vote::<u64>::new_committed(7, 2)),
        sample("a place in the log", &log_id(300)),
        sample("members", &StoredMembership::new(Some(log_id(3)), membership())),
    ];
    for entry in entries() {
        let of = match &entry.payload {
            EntryPayload::Normal(proposal) => match &proposal.requests[0] {
                Request::Map(change) => format!("Map {}", kind(change)),
                request => kind(request),
            },
            payload => kind(payload),
        };
        samples.push(sample(format!("entry {of}"), &entry));
    }
    let to = Recipient { cluster: Some(0xC << 120), node: Some(300) };
    for request in requests() {
        samples.push(sample(format!("request {}", kind(&request)), &(to, request)));
    }
    for answer in answers().await {
        let of = match &answer {
            PeerAnswer::Appended(it) => format!(" {}", kind(it)),
            PeerAnswer::Written(it) => format!(" {}", kind(it)),
            _ => String::new(),
        };
        samples.push(sample(format!("answer {}{of}", kind(&answer)), &answer));
    }
    samples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[tokio::test]
async fn nodes_of_different_versions_understand_each_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let samples = samples().await;
    let lines = samples.iter().map(|it| format!("{}: {}", it.name, hex(&it.bytes)));
    let mut now: Vec<_> = lines.collect();
    now.sort();
    if std::env::var_os("BITCASK_WRITE_CLUSTER_BYTES").is_some() {
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    let before: BTreeSet<_> = file.lines().collect();
    let now: BTreeSet<_> = now.iter().map(String::as_str).collect();
    let (gone, added): (Vec<_>, Vec<_>) =
        (before.difference(&now).collect(), now.difference(&before).collect());
    assert!(before == now, "{FILE}: gone {gone:#?}, added {added:#?}\n{RULE}");
    for sample in samples {
        let again = (sample.again)(&sample.bytes);
        assert_eq!(again, Some(sample.bytes), "{} is not read as it was written", sample.name);
    }
}
