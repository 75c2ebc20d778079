//! The change feed, as server-sent events or as frames: `GET /v1/changes`.
//!
//! - A follower has a thread of its own, which waits in the store. The number of followers is
//!   limited.
//! - Two events wait for the client at most. A client that does not read its events is disconnected
//!   like any other that does not read its answer.
//! - A follower of this crate asks for frames instead of events. They carry values of any size, and
//!   say every second how far behind the follower is.
//! - An event's id is the position behind its change. When nothing happens, the follower gets an
//!   event `position` now and then, so that it can resume without reading again what its prefix has
//!   skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Sender};
use utoipa::ToSchema;

use super::snapshot::{frames_response, micros, write_frame};
use super::times;
use crate::dialect;
use crate::error::Error;
use crate::server::bytes::{KeyField, text_or_base64};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::frames::{Frame, FrameKind, FrameLag};
use crate::server::query::QueryParameters;
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::{ChannelStream, PieceWriter};
use crate::store::{Backlog, Change, Changes, Operation, Position};

/// How long a follower waits for a change before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(250);
/// How long nothing has to happen until the position is sent as an event.
const POSITION_AFTER: Duration = Duration::from_secs(10);
/// How often the position is sent as a frame.
const REPORTED: Duration = Duration::from_secs(1);
/// How often a line is sent that keeps the connection open.
const ALIVE: Duration = Duration::from_secs(15);
/// Number of events that wait for the client.
const EVENTS_AHEAD: usize = 2;
/// Number of pieces of frames that wait for the client.
const PIECES_AHEAD: usize = 2;

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
        ("format" = Option<String>, Query, description = "events, or frames as followers need them"),
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
    let query = QueryParameters::read(&uri, &["since", "prefix", "durable", "format"])?;
    let (since, durable) = (begin(&query, &headers)?, query.flag("durable")?);
    let as_frames = match query.bytes("format") {
        None | Some(b"events") => false,
        Some(b"frames") => true,
        Some(_) => return Err(ApiFailure::invalid("`format` has to be events or frames")),
    };
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
    Ok(if as_frames {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        run(state, changes, permit, FeedForm::Frames(PieceWriter::new(sender)));
        frames_response(Body::from_stream(ChannelStream(receiver)))
    } else {
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        run(state, changes, permit, FeedForm::Events(sender));
        let events = Sse::new(ChannelStream(receiver)).keep_alive(KeepAlive::new().interval(ALIVE));
        let mut response = events.into_response();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}

/// Sends changes from a thread of their own.
fn run(state: SharedServer, changes: Changes, permit: OwnedSemaphorePermit, form: FeedForm) {
    let is_in_batch = false;
    let follower = FeedStream { state, changes, form, is_in_batch, reported: Instant::now() };
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        follower.run();
    });
}

/// Sends changes until nobody wants them any more.
struct FeedStream {
    state: Arc<ServerState>,
    changes: Changes,
    form: FeedForm,
    /// Whether the last change was not the last one of its batch.
    is_in_batch: bool,
    /// When the position was sent last, or the last change as an event.
    reported: Instant,
}

/// How changes are sent.
enum FeedForm {
    Events(Sender<EventResult>),
    Frames(PieceWriter),
}

impl FeedStream {
    fn run(mut self) {
        // Tells the client where it begins, even if there is no change for long.
        let mut sent = self.send_position();
        while sent && !self.is_unheard() && !self.state.stop.is_raised() {
            let change = match self.changes.try_recv() {
                Ok(None) => {
                    // Nothing more for now, so the client gets what there is.
                    sent = self.flush();
                    self.changes.recv_timeout(WAIT)
                }
                change => change,
            };
            match change {
                // What the server keeps for itself stands before everything else of its batch.
                Ok(Some(change)) if is_reserved(&change.key) => {}
                Ok(Some(change)) => sent = sent && self.send_change(&change),
                Ok(None) => {}
                Err(error) => {
                    self.send_error(error);
                    return;
                }
            }
            if !self.is_in_batch && self.reported.elapsed() >= self.form.period() {
                sent = sent && self.send_position();
            }
        }
        if let FeedForm::Frames(writer) = self.form {
            writer.finish();
        }
    }

    fn is_unheard(&self) -> bool {
        match &self.form {
            FeedForm::Events(sender) => sender.is_closed(),
            FeedForm::Frames(writer) => writer.is_unheard(),
        }
    }

    fn flush(&mut self) -> bool {
        match &mut self.form {
            FeedForm::Events(_) => true,
            FeedForm::Frames(writer) => writer.flush().is_ok(),
        }
    }

    /// Sends the position. Returns whether the client still listens, as do all that send.
    fn send_position(&mut self) -> bool {
        self.reported = Instant::now();
        let position = self.changes.resume_position();
        match &mut self.form {
            FeedForm::Events(sender) => {
                let event = SseEvent::default().event("position").id(position.to_string());
                sender.blocking_send(Ok(event.data("{}"))).is_ok()
            }
            FeedForm::Frames(writer) => {
                let value = self.changes.backlog().map(|backlog| lag(&backlog).encode());
                let (kind, value) = (FrameKind::Position, value.unwrap_or_default());
                let (key, continues, expiry) = (Vec::new(), false, None);
                let frame = Frame { kind, continues, expiry, position, key, value };
                write_frame(writer, &frame).is_ok() && writer.flush().is_ok()
            }
        }
    }

    fn send_change(&mut self, change: &Change) -> bool {
        self.is_in_batch = change.batch_continues;
        match &mut self.form {
            FeedForm::Events(sender) => {
                self.reported = Instant::now();
                let (name, data) = ChangeEvent::new(change, self.state.options.body_size_limit);
                let event = SseEvent::default().event(name).id(change.position.to_string());
                event.json_data(data).is_ok_and(|event| sender.blocking_send(Ok(event)).is_ok())
            }
            FeedForm::Frames(writer) => write_frame(writer, &frame_of(change)).is_ok(),
        }
    }

    fn send_error(&mut self, error: Error) {
        let failure = ApiFailure::from(error);
        match &mut self.form {
            FeedForm::Events(sender) => {
                let body = FailureBody { detail: failure.detail, code: Some(failure.code) };
                let event = SseEvent::default().event("error").json_data(body);
                if let Ok(event) = event {
                    let _ = sender.blocking_send(Ok(event));
                }
            }
            FeedForm::Frames(writer) => {
                let (kind, key, value) = (FrameKind::Failure, "", failure.code);
                let position = self.changes.resume_position();
                let frame = Frame { kind, continues: false, expiry: None, position, key, value };
                let _ = write_frame(writer, &frame).and_then(|_| writer.flush());
            }
        }
    }
}

impl FeedForm {
    /// Returns how often the position is sent: among events, if nothing else is.
    fn period(&self) -> Duration {
        match self {
            Self::Events(_) => POSITION_AFTER,
            Self::Frames(_) => REPORTED,
        }
    }
}

/// Returns the frame of a change.
fn frame_of(change: &Change) -> Frame<&[u8]> {
    let (continues, position, key) = (change.batch_continues, change.position, &*change.key);
    let (kind, expiry, value) = match &change.operation {
        Operation::Delete => (FrameKind::Delete, None, &b""[..]),
        Operation::Put { value, expires_at } => (FrameKind::Put, expires_at.map(micros), &**value),
    };
    Frame { kind, continues, expiry, position, key, value }
}

/// Returns how far behind a follower is.
fn lag(backlog: &Backlog) -> FrameLag {
    let age = backlog.oldest.map(|oldest| oldest.elapsed().unwrap_or_default());
    let age = u64::try_from(age.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
    FrameLag { size: backlog.size, changes: backlog.changes, age }
}
