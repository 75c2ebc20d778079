//! The follower's requests to its leader.
//!
//! - A thread of its own sends each request and reads its answer. It has nothing of the store, so
//!   the follower can end while that thread still waits for the leader.
//! - A few pieces of the answer wait for the follower at most.
//! - A leader that says nothing for a while counts as gone: it reports its position every second.

use std::io::{self, Read};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use uuid::Uuid;

use super::options::FollowOptions;
use super::stopping::FollowStop;
use crate::server::error::ServerError;
use crate::server::frames;

/// How long the leader may take to accept a connection.
const CONNECTED: Duration = Duration::from_secs(10);
/// How long the leader may take to begin its answer.
const ANSWERED: Duration = Duration::from_secs(60);
/// How long the leader may say nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the follower looks whether it has to end.
const LOOKED: Duration = Duration::from_millis(20);
/// Size of a piece of an answer, in bytes.
const PIECE_SIZE: usize = 64 << 10;
/// Number of pieces that wait for the follower.
const PIECES_AHEAD: usize = 8;
/// Maximum size of a refusal, in bytes.
const REFUSAL_SIZE_MAX: u64 = 64 << 10;

/// A leader that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    agent: Agent,
    url: String,
    token: Option<String>,
}

/// Why a request has failed.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The leader has refused it. The code is empty if what answers is no server of this crate.
    Refused { status: u16, code: String, detail: String },
    /// The leader cannot be reached.
    Failed(String),
    /// The follower has to end.
    Stopped,
}

/// What a leader says about itself when its answer begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeaderLimits {
    /// Maximum size of a key in bytes, if the leader tells it.
    pub(super) key_size: Option<u64>,
    /// Maximum size of a value in bytes, if the leader tells it.
    pub(super) value_size: Option<u64>,
    /// What the leader calls the lease of the history behind a snapshot.
    pub(super) lease: Option<Uuid>,
}

/// What the thread of a request sends.
enum AnswerPiece {
    Begun(LeaderLimits),
    Bytes(Vec<u8>),
    Error(LinkError),
}

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
struct LeaderRefusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: serde_json::Value,
}

impl Leader {
    pub(super) fn new(url: String, options: &FollowOptions) -> Result<Self, ServerError> {
        let roots = match &options.authority {
            None => RootCerts::PlatformVerifier,
            Some(pem) => RootCerts::from(certificates(pem)?),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECTED))
            .timeout_recv_response(Some(ANSWERED))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .tls_config(TlsConfig::builder().root_certs(roots).build());
        let agent = config.user_agent("bitcask-follower").build().new_agent();
        Ok(Self { agent, url, token: options.token.clone() })
    }

    /// Sends a request, and waits until its answer begins. `lease` is that of the snapshot behind
    /// which the request goes on.
    pub(super) fn open(
        &self,
        target: &str,
        lease: Option<Uuid>,
        stop: &FollowStop,
    ) -> Result<LeaderLink, LinkError> {
        let (sender, receiver) = sync_channel(PIECES_AHEAD);
        let (leader, url) = (self.clone(), format!("{}{target}", self.url));
        let asked = move || leader.ask(&url, lease, &sender);
        let thread = thread::Builder::new().name("bitcask-link".into()).spawn(asked);
        thread.map_err(|error| LinkError::Failed(format!("cannot start a thread: {error}")))?;
        let (piece, limits) = (Vec::new(), LeaderLimits::default());
        let mut link = LeaderLink { receiver, limits, piece, at: 0, stop: stop.clone() };
        match link.receive() {
            Ok(Some(AnswerPiece::Begun(limits))) => Ok(LeaderLink { limits, ..link }),
            Ok(Some(AnswerPiece::Bytes(_))) => Ok(link),
            Ok(Some(AnswerPiece::Error(error))) => Err(error),
            Ok(None) => Err(LinkError::Failed("the request has ended without an answer".into())),
            Err(Halted) => Err(LinkError::Stopped),
        }
    }

    /// Sends a request, and passes on what is answered until nobody wants it any more.
    fn ask(&self, url: &str, lease: Option<Uuid>, sender: &SyncSender<AnswerPiece>) {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(lease) = lease {
            request = request.header(frames::LEASE, lease.to_string());
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => {
                let _ = sender.send(AnswerPiece::Error(LinkError::Failed(error.to_string())));
                return;
            }
        };
        let status = response.status().as_u16();
        let limits = LeaderLimits {
            key_size: header(&response, frames::KEY_SIZE_LIMIT),
            value_size: header(&response, frames::VALUE_SIZE_LIMIT),
            lease: header(&response, frames::LEASE),
        };
        let mut body = response.into_body().into_reader();
        if status != 200 {
            let _ = sender.send(AnswerPiece::Error(refusal(status, body)));
            return;
        }
        let mut is_wanted = sender.send(AnswerPiece::Begun(limits)).is_ok();
        while is_wanted {
            let mut piece = vec![0; PIECE_SIZE];
            let Ok(size @ 1..) = body.read(&mut piece) else { return };
            piece.truncate(size);
            is_wanted = sender.send(AnswerPiece::Bytes(piece)).is_ok();
        }
    }
}

fn header<T: FromStr>(response: &Response<ureq::Body>, name: &str) -> Option<T> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

fn refusal(status: u16, body: impl Read) -> LinkError {
    let mut text = Vec::new();
    // Whatever has arrived says more than nothing.
    let _ = body.take(REFUSAL_SIZE_MAX).read_to_end(&mut text);
    let LeaderRefusal { code, detail } = serde_json::from_slice(&text).unwrap_or_default();
    let detail = detail.as_str().unwrap_or_default().to_owned();
    LinkError::Refused { status, code, detail }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, ServerError> {
    let wrong = |reason: String| ServerError::Tls { reason };
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        let item = item.map_err(|error| wrong(format!("the leader's authority: {error}")))?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("there is no certificate of the leader's authority".into()));
    }
    Ok(certificates)
}

/// The follower has to end.
struct Halted;

/// An answer that is being received.
pub(super) struct LeaderLink {
    receiver: Receiver<AnswerPiece>,
    limits: LeaderLimits,
    piece: Vec<u8>,
    /// How much of the piece has been read.
    at: usize,
    stop: FollowStop,
}

impl LeaderLink {
    pub(super) fn limits(&self) -> LeaderLimits {
        self.limits
    }

    /// Returns whether more has arrived already.
    pub(super) fn has_more(&mut self) -> bool {
        if self.at < self.piece.len() {
            return true;
        }
        match self.receiver.try_recv() {
            Ok(AnswerPiece::Bytes(piece)) => {
                (self.piece, self.at) = (piece, 0);
                true
            }
            // Nothing yet, or the end, which the next read finds.
            _ => false,
        }
    }

    /// Waits for a piece. Returns `None` at the end of the answer.
    fn receive(&mut self) -> Result<Option<AnswerPiece>, Halted> {
        loop {
            if self.stop.is_raised() {
                return Err(Halted);
            }
            match self.receiver.recv_timeout(LOOKED) {
                Ok(piece) => return Ok(Some(piece)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Read for LeaderLink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receive() {
                Ok(Some(AnswerPiece::Bytes(piece))) => (self.piece, self.at) = (piece, 0),
                Ok(Some(AnswerPiece::Begun(_) | AnswerPiece::Error(_)) | None) => return Ok(0),
                Err(Halted) => return Err(io::Error::other("the follower ends")),
            }
        }
        let mut left = self.piece.get(self.at..).unwrap_or_default();
        let size = left.read(buffer)?;
        self.at += size;
        Ok(size)
    }
}
