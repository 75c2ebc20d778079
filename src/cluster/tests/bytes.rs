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
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use crate::cluster::apply::{encode_map, read_map};
use crate::cluster::consensus::{Consensus, Proposal, Request};
use crate::cluster::map::{ClusterMap, MapChange, NodeAddresses};
use crate::cluster::network::SnapshotTransfer;
use crate::cluster::network::messages::{
    KnownCluster, LentFile, PEER_PATH, PeerAnswer, PeerRequest, Recipient, WriteOutcome,
};
use crate::cluster::status::GroupRole::{Candidate, Follower, Leader, Learner, Stopped};
use crate::cluster::status::{GroupStatus, NodeEntry, NodeStatus};
use crate::raft::{decode, encode_checked};
use crate::resp::{CommandsRequest, ReplicatedReply};

const FILE: &str = "tests/fixtures/cluster-1.txt";

const RULE: &str = "
A node of the version before writes and reads the bytes that the file has. With others, the nodes of
a cluster that is upgraded one after the other do not understand each other, and a node does not
understand its own log. New kinds of requests and answers come last, and nothing else changes: a
field that is added, removed or moved changes the bytes, and so does a kind that comes between.

Whatever has to change otherwise needs a new version: that of the path of messages (`PEER_PATH`),
that of what Raft stores (`raft/encoding.rs`), or that of the map (`MAP_VERSION`). Then a node has
to read the old one too, and the file stays as it is, beside a new one.

If there are only new kinds, this adds them to the file. It writes nothing if a line would be gone:
BITCASK_WRITE_CLUSTER_BYTES=1 cargo test --features cluster --lib cluster::tests::bytes
";

/// A value in bytes, and how they are read again and written anew.
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

/// As [`sample`], of what Raft stores.
fn stored_sample<T: Serialize + DeserializeOwned>(name: impl Into<String>, value: &T) -> Sample {
    let again = |bytes: &[u8]| encode_checked(b"", &decode::<T>(b"", bytes).ok()?).ok();
    Sample { name: name.into(), bytes: encode_checked(b"", value).unwrap(), again }
}

/// Takes the names of the kinds of a type when that is asked for.
struct KindsReader<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KindsReader<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("it has no kinds"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        kinds: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = kinds;
        Err(Self::Error::custom("there is no value"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Returns the names of all kinds of a type, in the order of their numbers.
fn kinds<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut kinds: &[&str] = &[];
    drop(T::deserialize(KindsReader(&mut kinds)));
    assert!(!kinds.is_empty(), "it has no kinds");
    kinds
}

fn kind<T: Serialize + DeserializeOwned>(value: &T) -> &'static str {
    kinds::<T>()[usize::from(postcard::to_stdvec(value).unwrap()[0])]
}

/// Checks that there is a value of each kind.
fn complete<T: Serialize + DeserializeOwned>(values: Vec<T>) -> Vec<T> {
    let found: BTreeSet<_> = values.iter().map(kind).collect();
    let missing: Vec<_> = kinds::<T>().iter().filter(|it| !found.contains(*it)).collect();
    assert!(missing.is_empty(), "no sample has these kinds, which belong here: {missing:?}");
    values
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
    let changes = complete(vec![
        MapChange::Create { shards: 16 },
        MapChange::PutNode { id: 2, addresses: addresses() },
        MapChange::BeginRemoval { id: 300, voters: [2, 300].into() },
        MapChange::RemoveNode { id: 300 },
    ]);
    let requests = changes.into_iter().map(Request::Map).chain([commands(), Request::Tick]);
    let proposals = complete(requests.collect()).into_iter().map(|request| {
        let (time, seed) = (1_700_000_000_000_000, u64::MAX);
        EntryPayload::Normal(Proposal { time, seed, requests: vec![request, Request::Tick] })
    });
    let others = [EntryPayload::Blank, EntryPayload::Membership(membership())];
    let payloads = complete(proposals.chain(others).collect());
    (299..).zip(payloads).map(|(index, payload)| entry(index, payload)).collect()
}

fn requests() -> Vec<PeerRequest> {
    let vote = Vote::new_committed(7, 2);
    let entries = vec![entry(300, EntryPayload::Blank)];
    let (prev_log_id, leader_commit) = (Some(log_id(299)), Some(log_id(298)));
    let last_membership = StoredMembership::new(Some(log_id(3)), membership());
    let (last_log_id, snapshot_id) = (Some(log_id(300)), "7-2-300".into());
    let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
    let (name, address) = (|| "0000000001.log".to_owned(), || "n3:7000".to_owned());
    let bytes = Bytes::from_static(b"\0piece\xFF");
    complete(vec![
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
    ])
}

fn status() -> NodeStatus {
    let (cluster, redis, http) = ("n2:7000".into(), "n2:6379".into(), String::new());
    let roles = vec![Learner, Follower, Candidate, Leader, Stopped];
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
        groups: complete(roles).into_iter().map(group).collect(),
    }
}

fn answers() -> Vec<PeerAnswer> {
    let vote = Vote::new_committed(7, 2);
    let appended = complete(vec![
        AppendEntriesResponse::Success,
        AppendEntriesResponse::PartialSuccess(Some(log_id(300))),
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(vote),
    ]);
    let outcomes = complete(vec![
        WriteOutcome::Replies(Some(ReplicatedReply::of_each_kind())),
        WriteOutcome::Replies(None),
        WriteOutcome::Refused("too large".into()),
        WriteOutcome::Busy,
        WriteOutcome::Unknown,
        WriteOutcome::Stopped("no space".into()),
    ]);
    let files = vec![LentFile { name: "MANIFEST".into(), size: 300 }];
    let others = [
        PeerAnswer::Voted(VoteResponse::new(vote, Some(log_id(300)), true)),
        PeerAnswer::SnapshotBegun(4),
        PeerAnswer::SnapshotInstalled(SnapshotResponse::new(vote)),
        PeerAnswer::Cluster(KnownCluster { cluster: 0xC << 120, map: map() }),
        PeerAnswer::Status(status()),
        PeerAnswer::Done,
        PeerAnswer::AskLeader { leader: Some(2), address: Some("n2:7000".into()) },
        PeerAnswer::Failed("no space".into()),
        PeerAnswer::ReadIndex(Some(300)),
        PeerAnswer::CopyLent { copy: 9, index: 300, files },
        PeerAnswer::Piece(Bytes::from_static(b"\0piece\xFF")),
        PeerAnswer::Busy,
        PeerAnswer::Refused("why".into()),
    ];
    let appended = appended.into_iter().map(PeerAnswer::Appended);
    let written = outcomes.into_iter().map(PeerAnswer::Written);
    complete(appended.chain(written).chain(others).collect())
}

fn samples() -> Vec<Sample> {
    let map_again = |bytes: &[u8]| encode_map(&read_map(Some(bytes)).ok()?).ok();
    let mut samples = vec![
        Sample { name: "the map".to_owned(), bytes: encode_map(&map()).unwrap(), again: map_again },
        stored_sample("a vote", &Vote::<u64>::new_committed(7, 2)),
        stored_sample("a place in the log", &log_id(300)),
        stored_sample("members", &StoredMembership::new(Some(log_id(3)), membership())),
    ];
    for entry in entries() {
        let of = match &entry.payload {
            EntryPayload::Normal(proposal) => match &proposal.requests[0] {
                Request::Map(change) => format!("Map {}", kind(change)),
                request => kind(request).to_owned(),
            },
            payload => kind(payload).to_owned(),
        };
        samples.push(stored_sample(format!("entry {of}"), &entry));
    }
    let to = Recipient { cluster: Some(0xC << 120), node: Some(300) };
    for request in requests() {
        samples.push(sample(format!("request {}", kind(&request)), &(to, request)));
    }
    for answer in answers() {
        let of = match &answer {
            PeerAnswer::Appended(it) => format!(" {}", kind(it)),
            PeerAnswer::Written(it) => format!(" {}", kind(it)),
            _ => String::new(),
        };
        samples.push(sample(format!("answer {}{of}", kind(&answer)), &answer));
    }
    for reply in complete(ReplicatedReply::of_each_kind()) {
        samples.push(sample(format!("reply {}", kind(&reply)), &reply));
    }
    samples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Compares lines with a file, which may be given those that it does not have yet. Returns how they
/// differ.
fn compare(path: &Path, now: &BTreeSet<String>, may_add: bool) -> Result<(), String> {
    let file = std::fs::read_to_string(path).unwrap_or_default();
    let before: BTreeSet<_> = file.lines().map(str::to_owned).collect();
    let (gone, added): (Vec<_>, Vec<_>) =
        (before.difference(now).collect(), now.difference(&before).collect());
    if gone.is_empty() && may_add {
        let lines: Vec<_> = now.iter().map(String::as_str).collect();
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
        return Ok(());
    }
    let is_equal = gone.is_empty() && added.is_empty();
    if is_equal { Ok(()) } else { Err(format!("gone {gone:#?}, added {added:#?}")) }
}

#[test]
fn nodes_of_different_versions_understand_each_other() {
    let samples = samples();
    let lines = samples.iter().map(|it| format!("{}: {}", it.name, hex(&it.bytes)));
    let path = format!("the path of messages: {PEER_PATH}");
    let now = lines.chain([path]).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let may_add = std::env::var_os("BITCASK_WRITE_CLUSTER_BYTES").is_some();
    if let Err(difference) = compare(&file, &now, may_add) {
        panic!("{FILE}: {difference}\n{RULE}");
    }
    for sample in samples {
        let again = (sample.again)(&sample.bytes);
        assert_eq!(again, Some(sample.bytes), "{} is not read as it was written", sample.name);
    }
}

#[test]
fn the_file_is_given_lines_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let lines = |text: &str| text.lines().map(str::to_owned).collect();
    assert!(compare(&file, &lines("a\nc"), false).is_err());
    compare(&file, &lines("a\nc"), true).unwrap();
    compare(&file, &lines("a\nb\nc"), true).unwrap();
    assert!(compare(&file, &lines("b\nc\nd"), true).is_err());
    compare(&file, &lines("a\nb\nc"), false).unwrap();
}

#[test]
#[should_panic(expected = "which belong here: [\"RemoveNode\"]")]
fn a_kind_without_a_sample_is_noticed() {
    let addresses = addresses();
    complete(vec![
        MapChange::Create { shards: 1 },
        MapChange::BeginRemoval { id: 1, voters: BTreeSet::new() },
        MapChange::PutNode { id: 1, addresses },
    ]);
}
