//! Snapshots that have arrived and wait, or are checked, and what comes meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use openraft::{CommittedLeaderId, LogId, SnapshotMeta, StoredMembership, Vote};
use tokio::sync::SemaphorePermit;
use tokio::task::JoinHandle;

use super::transfers::{WiredNode, Wires, shard, until};
use crate::cluster::network::messages::{PeerAnswer, PeerRequest, Recipient};
use crate::cluster::network::server::PeerNode as _;
use crate::error::Error;
use crate::fs::Fs;
use crate::raft::SnapshotFile;
use crate::testing::twin::Twin;

/// Time in which whatever can be answered is. It passes only when nothing else happens.
const PATIENCE: Duration = Duration::from_secs(1);

type InstallMeta = SnapshotMeta<u64, openraft::BasicNode>;

async fn ask(node: &WiredNode, request: PeerRequest) -> PeerAnswer {
    node.answer(Recipient::default(), 1, request).await
}

async fn founder(twin: &Arc<Twin>) -> WiredNode {
    let node = Wires::default().start(1, twin).await;
    node.init(1).await.unwrap();
    node
}

async fn begun(node: &WiredNode) -> u64 {
    match ask(node, PeerRequest::BeginSnapshot).await {
        PeerAnswer::SnapshotBegun(snapshot) => snapshot,
        other => panic!("{other:?}"),
    }
}

/// The snapshot of a later leader, with entries that the node does not have.
fn later() -> InstallMeta {
    SnapshotMeta {
        last_log_id: Some(LogId::new(CommittedLeaderId::new(5, 2), 1000)),
        last_membership: StoredMembership::default(),
        snapshot_id: "another".to_owned(),
    }
}

fn installing(
    node: &WiredNode,
    snapshot: u64,
    vote: Vote<u64>,
    meta: InstallMeta,
) -> JoinHandle<String> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let install = PeerRequest::InstallSnapshot { snapshot, vote, meta };
        format!("{:?}", ask(&node, install).await)
    })
}

/// Takes the turns of all snapshots that the node installs at once.
async fn all_turns(node: &WiredNode) -> SemaphorePermit<'_> {
    let turns = &node.install_turns.0;
    turns.acquire_many(turns.available_permits().try_into().unwrap()).await.unwrap()
}

/// Has the node hear of a new leader.
async fn follow(node: &WiredNode, vote: Vote<u64>) {
    let (prev_log_id, entries, leader_commit) = (None, Vec::new(), None);
    let rpc = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
    let answer = ask(node, PeerRequest::Append(rpc, None)).await;
    assert!(matches!(answer, PeerAnswer::Appended(_)), "{answer:?}");
    until("the node knows the new leader", || shard(node).metrics().vote == vote).await;
}

fn exists(twin: &Arc<Twin>, path: &Path) -> bool {
    Fs::Twin(Arc::clone(twin)).exists(path)
}

async fn is_waiting(answer: &mut JoinHandle<String>) -> bool {
    tokio::time::timeout(PATIENCE, answer).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_waits_for_its_turn_and_no_other_takes_its_place_meanwhile() {
    let twin = Twin::new();
    let node = founder(&twin).await;
    let turns = all_turns(&node).await;
    let snapshot = begun(&node).await;
    let mut answer = installing(&node, snapshot, Vote::new_committed(5, 2), later());
    assert!(is_waiting(&mut answer).await);
    let refused = ask(&node, PeerRequest::BeginSnapshot).await;
    assert!(format!("{refused:?}").contains("a snapshot is being installed"), "{refused:?}");
    // Another request had found nothing being installed just before.
    let late = shard(&node).state().receive().unwrap();
    let path = late.path().to_owned();
    assert!(node.receive(1, late).is_err());
    assert!(!exists(&twin, &path));
    assert_eq!(node.group(1).unwrap().check_running(), Ok(()));
    drop(turns);
    let answer = answer.await.unwrap();
    assert!(answer.contains("it has no files"), "{answer}");
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_leader_ends_the_installation_of_a_deposed_one() {
    let twin = Twin::new();
    let node = founder(&twin).await;
    let turns = all_turns(&node).await;
    let snapshot = begun(&node).await;
    let (deposed, current) = (Vote::new_committed(5, 2), Vote::new_committed(6, 3));
    let mut answer = installing(&node, snapshot, deposed, later());
    assert!(is_waiting(&mut answer).await);
    follow(&node, current).await;
    let expected = format!("SnapshotInstalled(SnapshotResponse {{ vote: {current:?} }})");
    assert_eq!(answer.await.unwrap(), expected);
    // The one of the new leader comes through, and another one of before is not looked at.
    let snapshot = begun(&node).await;
    assert_eq!(installing(&node, snapshot, deposed, later()).await.unwrap(), expected);
    assert!(node.unreceived().is_empty());
    drop(turns);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_later_leader_ends_the_check_of_a_snapshot() {
    let twin = Twin::new();
    let node = founder(&twin).await;
    let snapshot = begun(&node).await;
    let (copy, _) = shard(&node).state().copy().unwrap();
    for SnapshotFile { name, .. } in copy.files().unwrap() {
        let bytes = twin.contents(&copy.path().join(&name)).unwrap().into();
        let put = PeerRequest::PutPiece { snapshot, name, offset: 0, bytes };
        assert!(matches!(ask(&node, put).await, PeerAnswer::Done));
    }
    let (tell_begun, is_begun) = channel();
    let (go_on, goes_on) = channel::<()>();
    let path = node.arriving(1, snapshot).unwrap().path().to_owned();
    let held_up = move |opened: Option<&Path>| {
        if opened.is_some_and(|opened| opened.starts_with(&path)) {
            let _ = tell_begun.send(());
            let _ = goes_on.recv();
        }
    };
    let handle = tokio::runtime::Handle::current();
    let current = Vote::new_committed(6, 3);
    let answer = tokio::task::block_in_place(|| {
        twin.with_interference(held_up, || {
            let answer = {
                let _context = handle.enter();
                installing(&node, snapshot, Vote::new_committed(5, 2), later())
            };
            is_begun.recv().unwrap();
            handle.block_on(async {
                follow(&node, current).await;
                drop(go_on);
                answer.await.unwrap()
            })
        })
    });
    assert_eq!(answer, format!("SnapshotInstalled(SnapshotResponse {{ vote: {current:?} }})"));
    assert!(node.unreceived().is_empty());
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_entries_are_applied_counts_as_installed() {
    let twin = Twin::new();
    let node = founder(&twin).await;
    let turns = all_turns(&node).await;
    let metrics = shard(&node).metrics();
    let applied = SnapshotMeta { last_log_id: metrics.last_applied, ..later() };
    let snapshot = begun(&node).await;
    let path = node.arriving(1, snapshot).unwrap().path().to_owned();
    assert!(exists(&twin, &path));
    // The node may have been started again since it has installed it under another number.
    for number in [snapshot.wrapping_add(1), snapshot] {
        let answer = installing(&node, number, metrics.vote, applied.clone()).await.unwrap();
        assert!(answer.starts_with("SnapshotInstalled"), "{answer}");
    }
    assert!(!exists(&twin, &path));
    let answer = installing(&node, snapshot.wrapping_add(1), metrics.vote, later()).await.unwrap();
    assert!(answer.contains("another snapshot has taken the place"), "{answer}");
    drop(turns);
    node.stop().await;
}

/// It ends a join of the node.
#[tokio::test(start_paused = true)]
async fn a_piece_that_comes_too_late_does_not_say_that_the_node_takes_no_snapshot() {
    let twin = Twin::new();
    let node = founder(&twin).await;
    let turns = all_turns(&node).await;
    let snapshot = begun(&node).await;
    let unwritten =
        Error::InvalidSource { path: "MANIFEST".into(), reason: "it is too late".to_owned() };
    let mut answer = installing(&node, snapshot, Vote::new_committed(5, 2), later());
    assert!(is_waiting(&mut answer).await);
    node.unwritten(1, snapshot, &unwritten);
    assert!(node.unreceived().is_empty());
    drop(turns);
    answer.await.unwrap();
    node.unreceived().clear();
    let snapshot = begun(&node).await;
    node.unwritten(1, snapshot, &unwritten);
    let noted = node.unreceived().get(&1).cloned().unwrap();
    assert!(noted.starts_with("no snapshot was installed here: "), "{noted}");
    node.stop().await;
}
