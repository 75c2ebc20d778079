//! The changes of all shards, as server-sent events: `GET /v1/changes`.
//!
//! - Any node answers, whoever leads. The events are those of a server without a cluster, and each
//!   says which shard it is of.
//! - The last change of an entry has an id: the position of all shards behind it. So a client that
//!   resumes there gets no entry twice, and none in part.
//! - Each stream has a thread. Two pieces wait for the client at most, and a client that receives
//!   nothing is given up.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::{HttpFailure, HttpState};
use crate::cluster::changes::position::ClusterPosition;
use crate::cluster::changes::{ClusterChanges, ShardStep};
use crate::cluster::error::ClusterError;
use crate::cluster::network::PeerTransport;
use crate::dialect;
use crate::server::{ChangeEvent, ChannelStream, PieceWriter, Unheard, percent_decoded};
use crate::store::{Change, Operation};

/// Maximum number of streams at the same time.
pub(super) const STREAMS_MAX: usize = 64;
/// Number of pieces that wait for the client.
const PIECES_AHEAD: usize = 2;
/// How long a client may take to receive one piece of at most 64 KiB.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a stream waits for a change before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(250);
/// How long nothing has to happen until the position is sent.
const POSITION_AFTER: Duration = Duration::from_secs(5);
/// Size above which a value is left out of its event, in bytes.
const VALUE_SIZE_MAX: u64 = 16 << 20;

/// What a client wants to follow.
#[derive(Debug, Default)]
struct WantedFeed {
    since: Option<ClusterPosition>,
    prefix: Vec<u8>,
    shard: Option<u64>,
}

impl WantedFeed {
    fn read(uri: &Uri, headers: &HeaderMap) -> Result<Self, HttpFailure> {
        let wrong = |what: String| HttpFailure::new(StatusCode::BAD_REQUEST, what);
        let mut wanted = Self::default();
        let mut since = None;
        let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = percent_decoded(value, true)
                .ok_or_else(|| wrong(format!("`{name}` has a broken escape")))?;
            match name {
                "since" => since = Some(value),
                "prefix" => wanted.prefix = value,
                "shard" => {
                    let number = std::str::from_utf8(&value).ok().and_then(|it| it.parse().ok());
                    let shard: u64 =
                        number.ok_or_else(|| wrong("`shard` has to be a number".into()))?;
                    wanted.shard = Some(shard);
                }
                _ => {
                    let known = "since, prefix, shard";
                    return Err(wrong(format!(
                        "the parameter `{name}` is unknown; there are: {known}"
                    )));
                }
            }
        }
        let last = headers.get(dialect::LAST_EVENT_ID).map(|it| it.as_bytes().to_vec());
        if let Some(text) = last.or(since) {
            let position = String::from_utf8_lossy(&text).parse::<ClusterPosition>();
            wanted.since = Some(position.map_err(|error| wrong(error.to_string()))?);
        }
        Ok(wanted)
    }
}

/// Why there are no changes, or no more.
#[derive(Serialize)]
struct FeedRefusal {
    detail: String,
    code: &'static str,
    /// The oldest position that this node has the changes of.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
}

impl FeedRefusal {
    fn new(error: &ClusterError) -> Self {
        let (code, oldest) = match error {
            ClusterError::HistoryGone { oldest } => {
                (dialect::HISTORY_GONE, Some(oldest.to_string()))
            }
            ClusterError::ForeignPosition { .. } => ("invalid_position", None),
            ClusterError::Refused(_) => ("invalid_request", None),
            _ => ("unavailable", None),
        };
        Self { detail: error.to_string(), code, oldest }
    }
}

/// Answers with the changes since a position, or from now on.
pub(super) async fn follow<T: PeerTransport>(
    State(state): State<HttpState<T>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match begin(state, &uri, &headers).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(&uri),
    }
}

async fn begin<T: PeerTransport>(
    state: HttpState<T>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, HttpFailure> {
    let wanted = WantedFeed::read(uri, headers)?;
    let permit = Arc::clone(&state.streams).try_acquire_owned().map_err(|_| {
        let detail = format!("{STREAMS_MAX} clients follow the changes of this node already");
        HttpFailure::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    })?;
    let node = Arc::clone(&state.node);
    let begun = tokio::task::spawn_blocking(move || {
        let changes = node.changes(wanted.since.as_ref(), wanted.shard)?;
        Ok(changes.prefix(wanted.prefix))
    });
    let begun = begun.await.unwrap_or_else(|error| Err(ClusterError::Stopped(error.to_string())));
    let changes = match begun {
        Ok(changes) => changes,
        Err(error) => {
            let HttpFailure::Status(status, _) = state.failure(&error) else {
                return Err(state.failure(&error));
            };
            return Ok((status, axum::Json(FeedRefusal::new(&error))).into_response());
        }
    };
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let stream = ChangeStream {
        changes,
        writer: PieceWriter::new(sender).patience(CLIENT_PATIENCE),
        stop: state.stop,
        reported: Instant::now(),
        is_in_entry: false,
    };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        stream.run();
    });
    let mut response = Response::new(Body::from_stream(ChannelStream(receiver)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Sends changes until nobody wants them any more.
struct ChangeStream {
    changes: ClusterChanges,
    writer: PieceWriter,
    stop: watch::Receiver<bool>,
    /// When an id was sent last.
    reported: Instant,
    /// Whether the last change was not the last one of its entry.
    is_in_entry: bool,
}

/// A change, as the data of an event.
#[derive(Serialize)]
struct ShardChangeEvent<'a> {
    shard: u64,
    #[serde(flatten)]
    change: ChangeEvent<'a>,
}

/// The data of the event `position`.
#[derive(Serialize)]
struct PositionEvent {
    /// Seconds since the node last had all that the leaders had committed.
    age: f64,
    /// The shards in which the node has not come to the position yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<u64>,
}

/// Why a stream ends before the node does.
enum StreamEnd {
    Unheard,
    Failed(ClusterError),
}

impl From<Unheard> for StreamEnd {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<ClusterError> for StreamEnd {
    fn from(error: ClusterError) -> Self {
        Self::Failed(error)
    }
}

impl ChangeStream {
    fn run(mut self) {
        match self.send_all() {
            Ok(()) => self.writer.finish(),
            Err(StreamEnd::Unheard) => {}
            Err(StreamEnd::Failed(error)) => {
                // If nobody hears it, it does not matter.
                if self.send_event("error", None, &FeedRefusal::new(&error)).is_ok() {
                    self.writer.finish();
                }
            }
        }
    }

    /// Sends changes until the node stops.
    fn send_all(&mut self) -> Result<(), StreamEnd> {
        // Tells the client where it begins, even if there is no change for long.
        self.send_position()?;
        while !*self.stop.borrow() {
            if self.writer.is_unheard() {
                return Err(StreamEnd::Unheard);
            }
            let found = match self.changes.step()? {
                ShardStep::Change(shard, change) => Some((shard, change)),
                ShardStep::More => None,
                ShardStep::Nothing => {
                    self.writer.flush()?;
                    self.changes.recv(Instant::now().checked_add(WAIT))?
                }
            };
            if let Some((shard, change)) = found {
                self.send_change(shard, &change)?;
            }
            if self.reported.elapsed() >= POSITION_AFTER && !self.is_in_entry {
                self.send_position()?;
            }
        }
        Ok(())
    }

    fn send_change(&mut self, shard: u64, change: &Change) -> Result<(), Unheard> {
        self.is_in_entry = change.batch_continues;
        let size = match &change.operation {
            Operation::Put { value, .. } => value.len() as u64,
            Operation::Delete => 0,
        };
        let (name, event) = ChangeEvent::new(change, Some(size).filter(|it| *it > VALUE_SIZE_MAX));
        let position = (!self.is_in_entry).then(|| self.changes.position().clone());
        self.send_event(name, position.as_ref(), &ShardChangeEvent { shard, change: event })
    }

    fn send_position(&mut self) -> Result<(), Unheard> {
        let age = self.changes.age().as_secs_f64();
        let event = PositionEvent { age, waiting: self.changes.waiting() };
        let position = self.changes.position().clone();
        self.send_event("position", Some(&position), &event)?;
        self.writer.flush()
    }

    fn send_event<D: Serialize>(
        &mut self,
        name: &str,
        position: Option<&ClusterPosition>,
        data: &D,
    ) -> Result<(), Unheard> {
        let mut head = format!("event: {name}\n");
        if let Some(position) = position {
            self.reported = Instant::now();
            let _ = writeln!(head, "id: {position}");
        }
        self.writer.write(head.as_bytes())?;
        self.writer.write(b"data: ")?;
        self.writer.write_json(data)?;
        self.writer.write(b"\n\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, last: Option<&'static str>) -> Result<WantedFeed, HttpFailure> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert(dialect::LAST_EVENT_ID, HeaderValue::from_static(last));
        }
        WantedFeed::read(&format!("/v1/changes{query}").parse().unwrap(), &headers)
    }

    #[test]
    fn a_position_comes_from_the_header_before_the_query() {
        let wanted = read("?since=start&prefix=a%2F+&shard=3", None).unwrap();
        assert_eq!(wanted.since, Some(ClusterPosition::START));
        assert_eq!((&*wanted.prefix, wanted.shard), (&b"a/ "[..], Some(3)));
        let wanted = read("?since=start", Some("00000000000000ab-1:5@2")).unwrap();
        assert_eq!(wanted.since.unwrap().index(1), 5);
        assert!(read("", None).unwrap().since.is_none());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in ["?since=5", "?since=%", "?shard=x", "?shard=-1", "?sinc=start"] {
            assert!(read(query, None).is_err(), "{query}");
        }
        assert!(read("?since=start", Some("7")).is_err());
    }
}
