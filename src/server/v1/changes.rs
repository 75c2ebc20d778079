//! The change feed, as server-sent events: `GET /v1/changes`.
//!
//! - A follower has a thread of its own, which waits in the store. The number of followers is
//!   limited.
//! - Two events wait for the client at most. A client that does not read its events is disconnected
//!   like any other that does not read its answer.
//! - An event's id is the position behind its change. When nothing happens, the follower gets an
//!   event `position` now and then, so that it can resume without reading again what its prefix has
//!   skipped.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::mpsc::{self, Sender};
use utoipa::ToSchema;

use super::times;
use crate::dialect;
use crate::error::Error;
use crate::server::bytes::{KeyField, text_or_base64};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::query::QueryParameters;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::ChannelStream;
use crate::store::{Change, Changes, Operation, Position};

/// How long a follower waits for a change before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(250);
/// Number of waits without a change after which the position is sent.
const POSITION_AFTER: u32 = 40;
/// How often a line is sent that keeps the connection open.
const ALIVE: Duration = Duration::from_secs(15);
/// Number of events that wait for the client.
const EVENTS_AHEAD: usize = 2;

type EventResult = Result<SseEvent, std::convert::Infallible>;

/// A change, as the data of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ChangeEvent {
    #[serde(flatten)]
    key: KeyField,
    /// The value of a put, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The value of a put, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// The size of a value that is left out because it is larger than a body may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    timestamp: String,
    /// Whether the next change belongs to the same batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_continues: Option<bool>,
}

impl ChangeEvent {
    /// Returns the name and the data of a change's event.
    fn new(change: &Change, value_size_max: u64) -> (&'static str, Self) {
        let mut event = Self {
            key: KeyField::new(&change.key),
            value: None,
            value_base64: None,
            value_size: None,
            expires_at: None,
            timestamp: times::shown(change.timestamp),
            batch_continues: change.batch_continues.then_some(true),
        };
        match &change.operation {
            Operation::Delete => ("delete", event),
            Operation::Put { value, expires_at } => {
                if value.len() as u64 > value_size_max {
                    event.value_size = Some(value.len() as u64);
                } else {
                    (event.value, event.value_base64) = text_or_base64(value);
                }
                event.expires_at = expires_at.map(times::shown);
                ("put", event)
            }
        }
    }
}

/// Returns where a follower begins.
fn begin(query: &QueryParameters, headers: &HeaderMap) -> Result<Option<Position>, ApiFailure> {
    let last = headers.get(dialect::LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let Some(text) = last.or_else(|| query.bytes("since")) else { return Ok(None) };
    match std::str::from_utf8(text).map_err(|_| ApiFailure::invalid("`since` is not text"))? {
        "start" => Ok(Some(Position::START)),
        position => Ok(Some(position.parse::<Position>()?)),
    }
}

/// Follow changes as they are made, as server-sent events.
///
/// The event `put` has a key and its value, `delete` a key, and `position` only an id. The id of an
/// event is the position behind it: send it as `Last-Event-ID` to resume there. An event `error` is
/// the last one.
#[utoipa::path(
    get, path = "/v1/changes", tag = "v1", operation_id = "v1_changes",
    params(
        ("since" = Option<String>, Query, description = "A position, or start; otherwise from now on"),
        ("prefix" = Option<String>, Query, description = "What the keys begin with"),
        ("durable" = Option<bool>, Query, description = "Only changes that a crash cannot undo"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event; comes before since"),
    ),
    responses(
        (status = 200, description = "Changes, without an end", body = ChangeEvent, content_type = "text/event-stream"),
        (status = 400, description = "The position is wrong", body = FailureBody),
        (status = 410, description = "The changes after this position are gone; read all keys", body = FailureBody),
        (status = 503, description = "There are too many followers", body = FailureBody),
    )
)]
pub(in super::super) async fn follow(
    State(state): State<SharedServer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiFailure> {
    let query = QueryParameters::read(&uri, &["since", "prefix", "durable"])?;
    let (since, durable) = (begin(&query, &headers)?, query.flag("durable")?);
    let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
    let permit = state.stream()?;
    let changes = state.on_pool(move |state| {
        let changes = match since {
            Some(since) => state.db.changes(since)?.prefix(prefix),
            None => state.db.watch_prefix(prefix)?,
        };
        Ok::<_, Error>(if durable { changes.durable() } else { changes })
    });
    let changes = changes.await?;
    let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
    let follower = FeedStream { state: Arc::clone(&state), changes, sender };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        follower.run();
    });
    let events = Sse::new(ChannelStream(receiver)).keep_alive(KeepAlive::new().interval(ALIVE));
    let mut response = events.into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Sends changes until nobody wants them any more.
struct FeedStream {
    state: Arc<ServerState>,
    changes: Changes,
    sender: Sender<EventResult>,
}

impl FeedStream {
    fn run(mut self) {
        // Tells the client where it begins, even if there is no change for long.
        let mut sent = self.send_position();
        let mut idle = 0;
        while sent && !self.sender.is_closed() && !self.state.stop.is_raised() {
            match self.changes.recv_timeout(WAIT) {
                Ok(Some(change)) => {
                    idle = 0;
                    sent = self.send_change(&change);
                }
                Ok(None) => {
                    idle += 1;
                    if idle == POSITION_AFTER {
                        idle = 0;
                        sent = self.send_position();
                    }
                }
                Err(error) => {
                    self.send_error(error);
                    return;
                }
            }
        }
    }

    /// Sends an event. Returns whether the client still listens.
    fn send(&self, event: SseEvent) -> bool {
        self.sender.blocking_send(Ok(event)).is_ok()
    }

    fn send_position(&self) -> bool {
        let position = self.changes.resume_position().to_string();
        self.send(SseEvent::default().event("position").id(position).data("{}"))
    }

    fn send_change(&self, change: &Change) -> bool {
        let (name, data) = ChangeEvent::new(change, self.state.options.body_size_limit);
        let event = SseEvent::default().event(name).id(change.position.to_string());
        event.json_data(data).is_ok_and(|event| self.send(event))
    }

    fn send_error(&self, error: Error) {
        let failure = ApiFailure::from(error);
        let body = FailureBody { detail: failure.detail, code: Some(failure.code) };
        let event = SseEvent::default().event("error").json_data(body);
        if let Ok(event) = event {
            self.send(event);
        }
    }
}
