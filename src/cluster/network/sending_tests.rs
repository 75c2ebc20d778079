//! Snapshots to nodes that are not there, refuse them, or take their time.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::error::{Fatal, StreamingError};
use openraft::network::RPCOption;
use openraft::raft::SnapshotResponse;
use openraft::storage::RaftStateMachine as _;
use openraft::{RaftNetwork as _, RaftSnapshotBuilder as _, Snapshot, Vote};
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::client::PeerConnection;
use super::client_tests::network;
use super::messages::{PeerAnswer, PeerRequest, Recipient};
use super::server::{PeerNode, serve};
use super::transport::PeerTransport;
use crate::cluster::apply::Applier;
use crate::cluster::consensus::Consensus;
use crate::options::Options;
use crate::raft::StateMachine;

/// What a node does with a request.
enum StepAnswer {
    Answer(PeerAnswer),
    /// It answers nothing.
    Hang,
}

/// Decides that, from the kind of a request and how many of that kind have come before.
type StepAnswers = dyn Fn(SnapshotStep, usize) -> StepAnswer + Send + Sync;

/// A request that is part of a snapshot's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SnapshotStep {
    Begin,
    Piece,
    Install,
}

/// A node that receives snapshots.
struct SnapshotReceiver {
    reactions: Box<StepAnswers>,
    received: Mutex<Vec<SnapshotStep>>,
}

/// The way to it, if it is there.
#[derive(Clone)]
struct WayToReceiver(Option<Arc<SnapshotReceiver>>);

impl PeerTransport for WayToReceiver {
    type Stream = DuplexStream;

    async fn connect(&self, _: &str) -> io::Result<DuplexStream> {
        let Some(peer) = self.0.clone() else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let (here, there) = tokio::io::duplex(1 << 16);
        SnapshotReceiver::answer_at(peer, there);
        Ok(here)
    }
}

impl PeerNode for SnapshotReceiver {
    fn secret(&self) -> &'static str {
        "secret"
    }

    async fn answer(&self, _: Recipient, _: u64, request: PeerRequest) -> PeerAnswer {
        let kind = match request {
            PeerRequest::BeginSnapshot => SnapshotStep::Begin,
            PeerRequest::PutPiece { snapshot: 7, .. } => SnapshotStep::Piece,
            PeerRequest::InstallSnapshot { snapshot: 7, .. } => SnapshotStep::Install,
            other => panic!("{other:?}"),
        };
        let before = self.count(kind);
        self.received.lock().unwrap().push(kind);
        match (self.reactions)(kind, before) {
            StepAnswer::Answer(answer) => answer,
            StepAnswer::Hang => std::future::pending().await,
        }
    }
}

impl SnapshotReceiver {
    fn new(
        reactions: impl Fn(SnapshotStep, usize) -> StepAnswer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { reactions: Box::new(reactions), received: Mutex::default() })
    }

    fn answer_at(peer: Arc<Self>, stream: DuplexStream) {
        tokio::spawn(serve(stream, peer));
    }

    fn count(&self, kind: SnapshotStep) -> usize {
        self.received.lock().unwrap().iter().filter(|it| **it == kind).count()
    }
}

/// What a node does that takes a snapshot.
fn usual(kind: SnapshotStep) -> StepAnswer {
    StepAnswer::Answer(match kind {
        SnapshotStep::Begin => PeerAnswer::SnapshotBegun(7),
        SnapshotStep::Piece => PeerAnswer::Done,
        SnapshotStep::Install => {
            PeerAnswer::SnapshotInstalled(SnapshotResponse::new(Vote::new_committed(1, 1)))
        }
    })
}

fn refusal() -> StepAnswer {
    StepAnswer::Answer(PeerAnswer::Failed("no space left".to_owned()))
}

type SentSnapshot = Result<SnapshotResponse<u64>, StreamingError<Consensus, Fatal<u64>>>;

/// The way to a node, and a snapshot to send there.
struct SnapshotSender {
    connection: PeerConnection<WayToReceiver>,
    snapshot: Snapshot<Consensus>,
    _dir: tempfile::TempDir,
}

impl SnapshotSender {
    async fn new(peer: Option<&Arc<SnapshotReceiver>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut state: StateMachine<Consensus, Applier> =
            StateMachine::open(dir.path(), Options::new(), Applier::new()).unwrap();
        let snapshot = state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let way = WayToReceiver(peer.cloned());
        let connection = network(way).connection_to(Some(2), "two");
        Self { connection, snapshot, _dir: dir }
    }

    /// Sends the snapshot, as openraft does.
    async fn send(&mut self) -> SentSnapshot {
        let Snapshot { meta, snapshot } = &self.snapshot;
        let snapshot = Snapshot { meta: meta.clone(), snapshot: snapshot.clone() };
        let (vote, option) = (Vote::new_committed(1, 1), RPCOption::new(Duration::from_secs(60)));
        self.connection.full_snapshot(vote, snapshot, std::future::pending(), option).await
    }

    /// Returns how many milliseconds some attempts take, none of which succeeds.
    async fn failing(&mut self, times: usize) -> u128 {
        let begun = Instant::now();
        for _ in 0..times {
            let sent = self.send().await;
            assert!(matches!(sent, Err(StreamingError::Network(_))), "{sent:?}");
        }
        begun.elapsed().as_millis()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_or_refuses_is_not_sent_a_snapshot_without_a_pause() {
    assert_eq!(SnapshotSender::new(None).await.failing(10).await, 10 * 500);
    for refused in [SnapshotStep::Piece, SnapshotStep::Install] {
        let peer = SnapshotReceiver::new(
            move |kind, _| {
                if kind == refused { refusal() } else { usual(kind) }
            },
        );
        let mut sender = SnapshotSender::new(Some(&peer)).await;
        // Half a second, which doubles nine times, and five minutes after that.
        assert_eq!(sender.failing(12).await, 1023 * 500 + 2 * 300_000);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_a_node_refuses_makes_the_pause_longer() {
    // The third and the fourth attempt are refused from the beginning, the next two get lost.
    let peer = SnapshotReceiver::new(|kind, before| match (kind, before) {
        (SnapshotStep::Begin, 2 | 3) | (SnapshotStep::Install, _) => refusal(),
        (SnapshotStep::Begin, 4 | 5) => StepAnswer::Hang,
        (kind, _) => usual(kind),
    });
    let mut sender = SnapshotSender::new(Some(&peer)).await;
    assert_eq!(sender.failing(2).await, 500 + 1000);
    assert_eq!(sender.failing(2).await, 2 * 500);
    assert_eq!(sender.failing(2).await, 2 * (30_000 + 500));
    assert_eq!(sender.failing(1).await, 2000);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_on_the_way_does_not_make_the_pause_longer() {
    let peer = SnapshotReceiver::new(|kind, _| match kind {
        SnapshotStep::Piece => StepAnswer::Hang,
        kind => usual(kind),
    });
    let mut sender = SnapshotSender::new(Some(&peer)).await;
    assert_eq!(sender.failing(5).await, 5 * (30_000 + 500));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_long_to_install_a_snapshot_is_not_sent_it_again() {
    let peer = SnapshotReceiver::new(|kind, before| match kind {
        SnapshotStep::Install if before < 100 => StepAnswer::Hang,
        kind => usual(kind),
    });
    let mut sender = SnapshotSender::new(Some(&peer)).await;
    let idle = Arc::clone(&sender.connection.network.idle);
    // It answers the heartbeats of its leader.
    let heartbeats = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            idle.silent.asked(2);
            idle.silent.heard(2);
        }
    });
    let files = sender.snapshot.snapshot.files().unwrap().len();
    let sent = sender.send().await;
    assert!(sent.is_ok(), "{sent:?}");
    heartbeats.abort();
    assert_eq!((peer.count(SnapshotStep::Begin), peer.count(SnapshotStep::Piece)), (1, files));
    assert_eq!(peer.count(SnapshotStep::Install), 101);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_nothing_while_it_installs_a_snapshot_is_given_up() {
    let peer = SnapshotReceiver::new(|kind, _| match kind {
        SnapshotStep::Install => StepAnswer::Hang,
        kind => usual(kind),
    });
    let mut sender = SnapshotSender::new(Some(&peer)).await;
    assert_eq!(sender.failing(1).await, 30_000 + 500);
    assert_eq!(peer.count(SnapshotStep::Install), 1);
}
