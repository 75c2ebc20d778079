//! Questions to nodes that do not answer, or late, or not with 200.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, RaftNetwork as _, ServerState, Vote,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::client::{AskFailure, PeerNetwork};
use super::messages::{PeerAnswer, PeerRequest, Recipient};
use super::server::{PeerNode, serve};
use super::transport::{PeerTransport, Tcp};
use crate::cluster::consensus::Consensus;
use crate::cluster::group::GroupMetrics;

pub(super) fn network<T: PeerTransport>(transport: T) -> PeerNetwork<T> {
    let (idle, progress, age) = (Arc::default(), Arc::default(), Arc::default());
    let (cluster, secret) = (None, Arc::from("secret"));
    PeerNetwork { transport, group: 1, cluster, secret, idle, progress, age }
}

/// Returns what is said of a question that a node answers with a status.
async fn asked(status: u16) -> Result<PeerAnswer, AskFailure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 10];
        stream.read_exact(&mut head).await.unwrap();
        let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 3\r\n\r\nwhy");
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Until the other side is done.
        drop(stream.read_to_end(&mut Vec::new()).await);
    });
    let mut connection = network(Tcp).connection_to(Some(1), &address);
    connection.ask_once(&PeerRequest::ReadIndex, Duration::from_secs(10)).await
}

#[tokio::test]
async fn a_node_that_fails_behind_a_request_may_have_done_it() {
    for status in [500, 503] {
        assert_eq!(asked(status).await.unwrap_err(), AskFailure::Unknown, "{status}");
    }
    for status in [400, 401, 404, 413] {
        let answer = asked(status).await.unwrap();
        let is_refused = matches!(answer, PeerAnswer::Failed(_) | PeerAnswer::Refused(_));
        assert!(is_refused, "{status}: {answer:?}");
    }
}

/// The way to a node.
#[derive(Clone)]
struct WayToSlowPeer(Arc<SlowPeer>);

impl PeerTransport for WayToSlowPeer {
    type Stream = DuplexStream;

    async fn connect(&self, _: &str) -> io::Result<DuplexStream> {
        let (here, there) = tokio::io::duplex(1 << 16);
        SlowPeer::answer_at(Arc::clone(&self.0), there);
        Ok(here)
    }
}

/// A node that takes the first entries only when it is told to.
#[derive(Default)]
struct SlowPeer {
    /// How old its leader says that it is.
    ages: Mutex<Vec<Option<u64>>>,
    goes_on: Notify,
}

impl SlowPeer {
    fn answer_at(peer: Arc<Self>, stream: DuplexStream) {
        tokio::spawn(serve(stream, peer));
    }
}

impl PeerNode for SlowPeer {
    fn secret(&self) -> &'static str {
        "secret"
    }

    async fn answer(&self, _: Recipient, _: u64, request: PeerRequest) -> PeerAnswer {
        match request {
            PeerRequest::Append(_, age) => {
                let count = {
                    let mut ages = self.ages.lock().unwrap();
                    ages.push(age);
                    ages.len()
                };
                if count == 1 {
                    self.goes_on.notified().await;
                }
                PeerAnswer::Appended(AppendEntriesResponse::Success)
            }
            request => panic!("{request:?}"),
        }
    }
}

/// What the leader has committed by the time they are sent is not what they say.
#[tokio::test(start_paused = true)]
async fn entries_tell_the_age_that_their_leader_had_when_they_were_made() {
    let peer = Arc::new(SlowPeer::default());
    let network = network(WayToSlowPeer(Arc::clone(&peer)));
    let answered = |millis| {
        let mut metrics = GroupMetrics::new_initial(1);
        (metrics.state, metrics.current_leader) = (ServerState::Leader, Some(1));
        metrics.millis_since_quorum_ack = Some(millis);
        network.age.report(&metrics);
    };
    let entries = |term| AppendEntriesRequest {
        vote: Vote::new_committed(term, 1),
        prev_log_id: None,
        entries: vec![Entry::<Consensus> {
            log_id: LogId::new(CommittedLeaderId::new(term, 1), 0),
            payload: EntryPayload::Blank,
        }],
        leader_commit: None,
    };
    let option = || RPCOption::new(Duration::from_secs(60));
    let pause = Duration::from_millis(100);
    let mut connection = network.connection_to(Some(2), "two");
    answered(1000);
    let first = connection.append_entries(entries(1), option());
    assert!(tokio::time::timeout(pause, first).await.is_err());
    let meanwhile = async {
        tokio::time::sleep(pause).await;
        answered(0);
        peer.goes_on.notify_one();
    };
    let (second, ()) = tokio::join!(connection.append_entries(entries(2), option()), meanwhile);
    assert!(matches!(second, Ok(AppendEntriesResponse::Success)), "{second:?}");
    assert_eq!(*peer.ages.lock().unwrap(), [Some(1000), Some(1200)]);
}
