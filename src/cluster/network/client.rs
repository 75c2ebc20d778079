//! Asks other nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, Vote};

use tokio::task::JoinHandle;

use super::entries::{EntriesName, make_voter};
use super::messages::{MESSAGE_SIZE_MAX, PEER_PATH, PeerAnswer, PeerRequest, Recipient};
use super::progress::SnapshotProgress;
use super::silence::SilentPeers;
use super::transport::PeerTransport;
use crate::cluster::consensus::Consensus;
use crate::cluster::state_age::{PastMoment, StateAge};
use crate::mistake::{Mistake, made};

/// Maximum number of connections to an address that nobody uses.
const IDLE_MAX: usize = 64;
/// Time to connect, for a question that must not be asked twice.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Time for entries. They have at most a few megabytes, or are one large request.
const ENTRIES_TIME: Duration = Duration::from_secs(10);

/// The way to the other nodes of a group.
#[derive(Clone)]
pub(crate) struct PeerNetwork<T> {
    pub(crate) transport: T,
    pub(crate) group: u64,
    /// The cluster, if the node that asks belongs to one.
    pub(crate) cluster: Option<u128>,
    pub(crate) secret: Arc<str>,
    pub(crate) idle: Arc<IdlePeers>,
    /// The snapshots that the group is sending.
    pub(crate) progress: Arc<SnapshotProgress>,
    /// What the node knows of the age of the group's state.
    pub(crate) age: Arc<StateAge>,
}

/// Connections that nobody uses, by address. openraft asks for a new connection for each question
/// whether a leader still leads.
#[derive(Debug, Default)]
pub(crate) struct IdlePeers {
    /// The nodes that do not answer on any connection.
    pub(crate) silent: SilentPeers,
    /// Lock 9: the connections, each only for a moment.
    by_address: Mutex<BTreeMap<String, Vec<SendRequest<Body>>>>,
}

impl IdlePeers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<SendRequest<Body>>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a connection to an address that is still open.
    fn take(&self, address: &str) -> Option<SendRequest<Body>> {
        let mut all = self.lock();
        let idle = all.get_mut(address)?;
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn give_back(&self, address: &str, sender: SendRequest<Body>) {
        let mut all = self.lock();
        let idle = all.entry(address.to_owned()).or_default();
        if sender.is_ready() && idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }
}

impl<T> Drop for PeerConnection<T> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.network.idle.give_back(&self.address, sender);
        }
    }
}

/// Why a question that must not be asked twice has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskFailure {
    /// It was not sent.
    NotSent,
    /// The other node may have it, or not.
    Unknown,
}

fn unknown(_: io::Error) -> AskFailure {
    AskFailure::Unknown
}

/// A connection to another node, which is made when it is needed.
pub(crate) struct PeerConnection<T> {
    pub(super) network: PeerNetwork<T>,
    address: String,
    /// The node that is meant, if the caller knows it.
    pub(super) target: Option<u64>,
    sender: Option<SendRequest<Body>>,
    /// Entries that are on their way, although openraft waits for them no longer.
    sending: Option<SendingEntries<T>>,
    /// Number of snapshots that the node was sent and did not accept, since it accepted one.
    pub(super) failed_transfers: u32,
}

/// Entries on their way to another node. openraft gives them the time of a heartbeat, and sends
/// them again after that. On a slow network, large ones would never arrive.
struct SendingEntries<T> {
    entries: EntriesName,
    task: JoinHandle<(PeerConnection<T>, io::Result<PeerAnswer>)>,
}

impl<T> fmt::Debug for PeerNetwork<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNetwork").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<T: PeerTransport> PeerNetwork<T> {
    pub(crate) fn connection(&self, address: &str) -> PeerConnection<T> {
        self.connection_to(None, address)
    }

    /// Returns a connection to a node. Whatever else answers at the address does nothing.
    pub(crate) fn connection_to(&self, target: Option<u64>, address: &str) -> PeerConnection<T> {
        let (network, address, sender, sending) = (self.clone(), address.to_owned(), None, None);
        PeerConnection { network, address, target, sender, sending, failed_transfers: 0 }
    }
}

impl<T: PeerTransport> PeerConnection<T> {
    /// Asks the node. A connection on which something has failed is not used again. The question
    /// may reach the node twice.
    pub(crate) async fn ask(
        &mut self,
        request: &PeerRequest,
        time: Duration,
    ) -> io::Result<PeerAnswer> {
        if let Some(target) = self.target {
            self.network.idle.silent.asked(target);
        }
        let asked = tokio::time::timeout(time, self.ask_patiently(request)).await;
        let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Some(target) = self.target.filter(|_| asked.is_ok()) {
            self.network.idle.silent.heard(target);
        }
        if asked.is_err() {
            self.sender = None;
        }
        asked
    }

    async fn ask_patiently(&mut self, request: &PeerRequest) -> io::Result<PeerAnswer> {
        let body = self.body(request)?;
        let sender = self.sender.take().filter(|sender| !sender.is_closed());
        if let Some(sender) = sender.or_else(|| self.network.idle.take(&self.address)) {
            // The other node may have gone since, without a word. All requests may be repeated.
            if let Ok(answer) = self.exchange(sender, body.clone()).await {
                return Ok(answer);
            }
        }
        let sender = self.connect().await?;
        self.exchange(sender, body).await
    }

    /// Asks the node, and never twice.
    pub(crate) async fn ask_once(
        &mut self,
        request: &PeerRequest,
        time: Duration,
    ) -> Result<PeerAnswer, AskFailure> {
        let asked = tokio::time::timeout(time, self.ask_at_most_once(request)).await;
        asked.unwrap_or(Err(AskFailure::Unknown))
    }

    async fn ask_at_most_once(&mut self, request: &PeerRequest) -> Result<PeerAnswer, AskFailure> {
        let not_sent = |_| AskFailure::NotSent;
        let body = self.body(request).map_err(not_sent)?;
        if let Some(mut sender) = self.network.idle.take(&self.address) {
            let message = self.message(body.clone()).map_err(not_sent)?;
            match sender.try_send_request(message).await {
                Ok(response) => return self.received(sender, response).await.map_err(unknown),
                Err(mut failed) => {
                    // A message that comes back was not sent: the connection was closed meanwhile.
                    if failed.take_message().is_none() {
                        return Err(AskFailure::Unknown);
                    }
                }
            }
        }
        let connected = tokio::time::timeout(CONNECT_TIME, self.connect()).await;
        let Ok(Ok(sender)) = connected else { return Err(AskFailure::NotSent) };
        self.exchange(sender, body).await.map_err(unknown)
    }

    fn body(&self, request: &PeerRequest) -> io::Result<Bytes> {
        let recipient = Recipient { cluster: self.network.cluster, node: self.target };
        let body = postcard::to_stdvec(&(recipient, request)).map_err(io::Error::other)?;
        Ok(Bytes::from(body))
    }

    fn message(&self, body: Bytes) -> io::Result<Request<Body>> {
        Request::builder()
            .method(Method::POST)
            .uri(format!("{PEER_PATH}{}", self.network.group))
            .header(HOST, "bitcask")
            .header(AUTHORIZATION, format!("Bearer {}", self.network.secret))
            .body(Body::from(body))
            .map_err(io::Error::other)
    }

    async fn exchange(
        &mut self,
        mut sender: SendRequest<Body>,
        body: Bytes,
    ) -> io::Result<PeerAnswer> {
        let request = self.message(body)?;
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        self.received(sender, response).await
    }

    async fn received(
        &mut self,
        sender: SendRequest<Body>,
        response: Response<Incoming>,
    ) -> io::Result<PeerAnswer> {
        let status = response.status();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MESSAGE_SIZE_MAX).await;
        let body = body.map_err(io::Error::other)?;
        self.sender = Some(sender);
        if status != StatusCode::OK {
            let reason = String::from_utf8_lossy(&body);
            // The node has failed behind what it was asked for, which may be done.
            if status.is_server_error() {
                let text = format!("{} answers {status}: {reason}", self.address);
                return Err(io::Error::other(text));
            }
            return Ok(refusal(&self.address, status, &reason));
        }
        postcard::from_bytes(&body).map_err(io::Error::other)
    }

    /// Sends entries. If the caller goes away meanwhile, they stay on their way, and whoever sends
    /// the same entries next waits for the answer to them.
    async fn append(
        &mut self,
        rpc: AppendEntriesRequest<Consensus>,
        answered: Option<PastMoment>,
    ) -> io::Result<PeerAnswer> {
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let entries = EntriesName { vote: rpc.vote, previous: rpc.prev_log_id, last };
        if let Some(sending) = &mut self.sending {
            let ended = (&mut sending.task).await;
            let sent = sending.entries;
            self.sending = None;
            if let Ok((mut connection, answer)) = ended {
                self.sender = connection.sender.take();
                if let Some(answer) = entries.answered(sent, answer) {
                    return answer;
                }
            }
        }
        let mut connection = self.network.connection_to(self.target, &self.address);
        connection.sender = self.sender.take();
        let task = tokio::spawn(async move {
            let request = PeerRequest::Append(rpc, answered.map(PastMoment::millis));
            let answer = connection.ask(&request, ENTRIES_TIME).await;
            (connection, answer)
        });
        let sending = self.sending.insert(SendingEntries { entries, task });
        let ended = (&mut sending.task).await;
        self.sending = None;
        let (mut connection, answer) = ended.map_err(io::Error::other)?;
        self.sender = connection.sender.take();
        answer
    }

    async fn connect(&self) -> io::Result<SendRequest<Body>> {
        let stream = self.network.transport.connect(&self.address).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with the sender, or when the other node is gone. The sender then reports that.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

/// Returns the answer of a node, or of something else, that refuses the message itself.
fn refusal(address: &str, status: StatusCode, reason: &str) -> PeerAnswer {
    let text = format!("{address} answers {status}: {reason}");
    match status {
        // Neither the secret nor the version of a node changes while somebody waits for it.
        StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => PeerAnswer::Refused(text),
        // Another port may answer with any code.
        StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            let text = format!("{text} (is a node listening for other nodes there?)");
            PeerAnswer::Refused(text)
        }
        _ => PeerAnswer::Failed(text),
    }
}

/// Returns the error for an answer that is none to the question.
pub(super) fn odd(answer: &PeerAnswer) -> io::Error {
    match answer {
        PeerAnswer::Failed(reason) | PeerAnswer::Refused(reason) => {
            io::Error::other(reason.clone())
        }
        answer => io::Error::other(format!("the answer is {answer:?}")),
    }
}

type Failed = RPCError<u64, BasicNode, RaftError<u64>>;

/// openraft waits longer before it asks a node again that it cannot reach.
fn unreachable(error: &io::Error) -> Failed {
    RPCError::Unreachable(Unreachable::new(error))
}

impl<T: PeerTransport> RaftNetworkFactory<Consensus> for PeerNetwork<T> {
    type Network = PeerConnection<T>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> PeerConnection<T> {
        self.connection_to(Some(target), &node.addr)
    }
}

impl<T: PeerTransport> RaftNetwork<Consensus> for PeerConnection<T> {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Consensus>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        if made(Mistake::NewVoterNotAsked) && make_voter(&rpc.entries, self.target) {
            return Ok(AppendEntriesResponse::Success);
        }
        // What is committed by now may be more than openraft has just put into the request.
        let answered = self.network.age.answered();
        // Only what has entries may outlive the one that sends it. It is asked for once per
        // heartbeat, and the question whether a leader still leads as often as clients read.
        let answer = if rpc.entries.is_empty() {
            let request = PeerRequest::Append(rpc, answered.map(PastMoment::millis));
            self.ask(&request, option.hard_ttl()).await
        } else {
            self.append(rpc, answered).await
        };
        match answer {
            Ok(PeerAnswer::Appended(response)) => Ok(response),
            Ok(other) => Err(unreachable(&odd(&other))),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        match self.ask(&PeerRequest::Vote(rpc), option.hard_ttl()).await {
            Ok(PeerAnswer::Voted(response)) => Ok(response),
            Ok(other) => Err(unreachable(&odd(&other))),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Consensus>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Consensus, Fatal<u64>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_patiently(vote, &snapshot) => sent,
        }
    }
}
