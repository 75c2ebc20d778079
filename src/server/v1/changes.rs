//! The change feed, as server-sent events or as frames: `GET /v1/changes`.
//!
//! - A follower has a thread of its own, which waits in the store. The number of followers is
//!   limited.
//! - Changes are sent in pieces, however large they are. Two pieces wait for the client at most. A
//!   client that does not read its changes is disconnected like any other that does not read its
//!   answer.
//! - A value that takes memory of its own waits until there is memory for it, before it is
//!   decompressed. A follower hears of the leader meanwhile, even within a batch. A value that an
//!   event leaves out needs none.
//! - A follower of this crate asks for frames instead of events. They carry values of any size, and
//!   say every second how far behind the follower is. No merge removes what it has not read yet, up
//!   to a limit (`leases`).
//! - An event's id is the position behind its change. When nothing happens, the follower gets an
//!   event `position` now and then, so that it can resume without reading again what its prefix has
//!   skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::change_event::{ChangeEvent, frame_of, lag};
use super::snapshot::{stream_response, write_frame};
use crate::dialect;
use crate::error::Error;
use crate::server::body::{MemoryWait, reserve_size, size_in_memory};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::frames::{FRAMES, Frame, FrameKind};
use crate::server::leases::{self, LeaseToken};
use crate::server::query::QueryParameters;
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::{ChannelStream, PieceWriter, Unheard};
use crate::store::changes::part::Received;
use crate::store::{Change, Changes, HistoryLease, Operation, Position};
use crate::value::Value;

/// How long a follower waits for a change before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(250);
/// Size of other changes after which a follower with a prefix looks likewise, in bytes.
const PART_SIZE: u64 = 4 << 20;
/// How long nothing has to happen until the position is sent as an event.
const POSITION_AFTER: Duration = Duration::from_secs(10);
/// How often the position is sent as a frame.
const REPORTED: Duration = Duration::from_secs(1);
/// Number of pieces that wait for the client.
const PIECES_AHEAD: usize = 2;
/// The type of a body of events.
const EVENTS: &str = "text/event-stream";

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
        (status = 200, description = "Changes, without an end", body = ChangeEvent<'static>, content_type = "text/event-stream"),
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
    let form = match query.bytes("format") {
        None | Some(b"events") => FeedForm::Events,
        Some(b"frames") => FeedForm::Frames,
        Some(_) => return Err(ApiFailure::invalid("`format` has to be events or frames")),
    };
    let prefix = query.bytes("prefix").unwrap_or_default().to_vec();
    let wanted = WantedChanges { prefix, durable };
    let permit = state.stream()?;
    let begun = state.on_pool(move |state| {
        let leased = since.filter(|_| matches!(form, FeedForm::Frames));
        // Before the changes, so that what is there then stays.
        let lease =
            leased.map(|since| state.db.lease_history_since(since, leases::size_max(&state.db)));
        let changes = wanted.begin(state, since)?;
        Ok::<_, Error>((changes, lease))
    });
    let (changes, lease) = begun.await?;
    if let (Some(token), Some(since)) = (LeaseToken::read(&headers), since) {
        state.leases.note_request(token, since);
    }
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let body = Body::from_stream(ChannelStream(receiver));
    let response = stream_response(form.content_type(), &state.db, body);
    let (writer, reported, is_in_batch) = (PieceWriter::new(sender), Instant::now(), false);
    let (waiting, memory, between) = (None, None, changes.resume_position());
    let feed = FeedStream {
        state,
        changes,
        lease,
        waiting,
        memory,
        form,
        writer,
        is_in_batch,
        between,
        reported,
    };
    tokio::task::spawn_blocking(move || {
        let _permit: OwnedSemaphorePermit = permit;
        feed.run();
    });
    Ok(response)
}

/// Which changes a follower wants.
struct WantedChanges {
    prefix: Vec<u8>,
    durable: bool,
}

impl WantedChanges {
    /// Returns these changes since a position, or from now on.
    fn begin(&self, state: &ServerState, since: Option<Position>) -> Result<Changes, Error> {
        let changes = match since {
            Some(since) => state.db.changes(since)?.prefix(&self.prefix),
            None => state.db.watch_prefix(&self.prefix)?,
        };
        Ok(if self.durable { changes.durable() } else { changes })
    }
}

/// How changes are sent.
#[derive(Debug, Clone, Copy)]
enum FeedForm {
    Events,
    Frames,
}

impl FeedForm {
    fn content_type(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Frames => FRAMES,
        }
    }

    /// Returns how often the position is sent: among events, if nothing else is.
    fn period(self) -> Duration {
        match self {
            Self::Events => POSITION_AFTER,
            Self::Frames => REPORTED,
        }
    }
}

/// Sends changes until nobody wants them any more.
struct FeedStream {
    state: Arc<ServerState>,
    changes: Changes,
    /// Keeps the history that was not read yet.
    lease: Option<HistoryLease>,
    /// The next change's wait for memory that was not there.
    waiting: Option<MemoryWait>,
    /// The memory of the next change.
    memory: Option<OwnedSemaphorePermit>,
    form: FeedForm,
    writer: PieceWriter,
    /// Whether the last change was not the last one of its batch.
    is_in_batch: bool,
    /// The position behind the last batch that was sent as a whole, at least.
    between: Position,
    /// When the position was sent last, or the last change as an event.
    reported: Instant,
}

/// Why a feed ends before the server does.
enum FeedEnd {
    Unheard,
    Store(Error),
}

impl From<Unheard> for FeedEnd {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<Error> for FeedEnd {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl FeedStream {
    fn run(mut self) {
        match self.send_all() {
            Ok(()) => self.writer.finish(),
            Err(FeedEnd::Unheard) => {}
            Err(FeedEnd::Store(error)) => self.send_error(error),
        }
    }

    /// Sends changes until the server stops.
    fn send_all(&mut self) -> Result<(), FeedEnd> {
        // Tells the client where it begins, even if there is no change for long.
        self.send_position()?;
        while !self.state.stop.is_raised() {
            if self.writer.is_unheard() {
                return Err(FeedEnd::Unheard);
            }
            if self.has_memory() {
                self.send_next()?;
            }
            if self.reported.elapsed() >= self.form.period() {
                self.report()?;
            }
        }
        Ok(())
    }

    /// Lets the follower hear of the leader. One that hears nothing gives up, and would begin the
    /// batch again.
    fn report(&mut self) -> Result<(), Unheard> {
        let is_waiting = self.waiting.is_some();
        match self.form {
            _ if !self.is_in_batch => self.send_position(),
            FeedForm::Frames if is_waiting => self.send_position(),
            FeedForm::Events if is_waiting => {
                // A comment, since no position within a batch is one to begin at.
                self.reported = Instant::now();
                self.writer.write(b":\n\n")?;
                self.writer.flush()
            }
            FeedForm::Events | FeedForm::Frames => Ok(()),
        }
    }

    /// Waits for a change for a while, and sends it.
    fn send_next(&mut self) -> Result<(), FeedEnd> {
        let (state, mut memory) = (Arc::clone(&self.state), self.memory.take());
        let size_max = match self.form {
            FeedForm::Events => state.options.body_size_limit,
            FeedForm::Frames => u64::MAX,
        };
        let mut admits = |size| size <= size_max && reserve_size(&state, &mut memory, size).is_ok();
        let received = match self.changes.try_recv_part(PART_SIZE, &mut admits)? {
            Received::Nothing => {
                self.writer.flush()?;
                self.changes.recv_part_timeout(WAIT, &mut admits)?
            }
            received => received,
        };
        // With the size of a value that is left out, and how much memory is missing.
        let (mut change, left_out, missing) = match received {
            Received::Change(change) => {
                let value = value_of(&change);
                let left_out = value.map(|it| it.len() as u64).filter(|size| *size > size_max);
                let size = value.filter(|_| left_out.is_none()).map_or(0, size_in_memory);
                let is_missing = reserve_size(&state, &mut memory, size).is_err();
                (change, left_out, is_missing.then_some(size))
            }
            Received::WithoutValue(change, size) if size > size_max => (change, Some(size), None),
            Received::WithoutValue(change, size) => (change, None, Some(size)),
            // The client gets what there is before anything more is looked for.
            Received::Part => return Ok(self.writer.flush()?),
            Received::Nothing => return Ok(()),
        };
        let is_seen = |key: &[u8]| !is_reserved(key);
        if !is_seen(&change.key) {
            return Ok(());
        }
        if let Some(size) = missing {
            // Waits without the value, which is read again once there is memory for it.
            self.waiting = Some(MemoryWait::new(&state, size));
            drop(change);
            self.changes.step_back();
            return Ok(self.writer.flush()?);
        }
        if change.batch_continues {
            // What the server keeps for itself may be all that follows in the batch.
            change.batch_continues = self.changes.batch_has_more(is_seen)?;
        }
        self.send_change(&change, left_out)?;
        drop(memory);
        Ok(())
    }

    /// Returns whether there is memory for the next change, and takes it. Waits for a while if
    /// there is none.
    fn has_memory(&mut self) -> bool {
        let Some(wait) = &mut self.waiting else { return true };
        self.memory = wait.wait(WAIT);
        if self.memory.is_some() {
            self.waiting = None;
        }
        self.memory.is_some()
    }

    fn send_position(&mut self) -> Result<(), Unheard> {
        if !self.is_in_batch {
            self.between = self.changes.resume_position();
        }
        let position = self.between;
        if let Some(lease) = &self.lease {
            lease.move_to(position);
        }
        match self.form {
            FeedForm::Events => {
                let event = format!("event: position\nid: {position}\ndata: {{}}\n\n");
                self.writer.write(event.as_bytes())?;
            }
            FeedForm::Frames => {
                let value = self.changes.backlog().map(|backlog| lag(&backlog).encode());
                let (kind, value) = (FrameKind::Position, value.unwrap_or_default());
                let (key, continues, expiry) = (Vec::new(), false, None);
                let frame = Frame { kind, continues, expiry, position, key, value };
                write_frame(&mut self.writer, &frame)?;
            }
        }
        self.writer.flush()?;
        // At the end, so that changes are sent between two reports, however long one takes.
        self.reported = Instant::now();
        Ok(())
    }

    fn send_change(&mut self, change: &Change, left_out: Option<u64>) -> Result<(), Unheard> {
        self.is_in_batch = change.batch_continues;
        if !self.is_in_batch {
            self.between = change.position;
        }
        match self.form {
            FeedForm::Events => {
                self.reported = Instant::now();
                let (name, data) = ChangeEvent::new(change, left_out);
                let head = format!("event: {name}\nid: {}\ndata: ", change.position);
                self.writer.write(head.as_bytes())?;
                self.writer.write_json(&data)?;
                self.writer.write(b"\n\n")?;
            }
            FeedForm::Frames => drop(write_frame(&mut self.writer, &frame_of(change))?),
        }
        Ok(())
    }

    /// Sends an error, which is the last of the feed. If nobody hears it, it does not matter.
    fn send_error(mut self, error: Error) {
        let failure = ApiFailure::from(error);
        let written = match self.form {
            FeedForm::Events => {
                let body = FailureBody { detail: failure.detail, code: Some(failure.code) };
                let head = self.writer.write(b"event: error\ndata: ");
                let event = head.and_then(|()| self.writer.write_json(&body));
                event.and_then(|()| self.writer.write(b"\n\n"))
            }
            FeedForm::Frames => {
                let (kind, key, value) = (FrameKind::Failure, "", failure.code);
                let position = self.changes.resume_position();
                let frame = Frame { kind, continues: false, expiry: None, position, key, value };
                write_frame(&mut self.writer, &frame).map(drop)
            }
        };
        if written.is_ok() {
            self.writer.finish();
        }
    }
}

/// Returns the value of a put.
fn value_of(change: &Change) -> Option<&Value> {
    match &change.operation {
        Operation::Put { value, .. } => Some(value),
        Operation::Delete => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::server::ServerOptions;
    use crate::store::{Batch, Bitcask};

    type Pieces = mpsc::Receiver<std::io::Result<axum::body::Bytes>>;

    fn feed_of(state: &Arc<ServerState>, form: FeedForm) -> (FeedStream, Pieces) {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let feed = FeedStream {
            state: Arc::clone(state),
            changes: state.db.changes(Position::START).unwrap(),
            lease: None,
            waiting: None,
            memory: None,
            form,
            writer: PieceWriter::new(sender),
            is_in_batch: false,
            between: Position::START,
            reported: Instant::now(),
        };
        (feed, pieces)
    }

    #[test]
    fn a_follower_by_events_hears_of_the_leader_while_a_batch_waits() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        db.write(Batch::new().put("a", "1").put("b", "2")).unwrap();
        let options = ServerOptions::new();
        let state = Arc::new(ServerState::new(Arc::new(db), options, None));
        let (mut feed, mut pieces) = feed_of(&state, FeedForm::Events);
        feed.send_next().unwrap_or_else(|_| panic!("the first change is sent"));
        assert!(feed.is_in_batch);
        feed.report().unwrap();
        assert!(pieces.try_recv().is_err(), "the rest of the batch comes at once");
        feed.waiting = Some(MemoryWait::new(&feed.state, 1));
        feed.report().unwrap();
        let sent = pieces.try_recv().unwrap().unwrap();
        assert!(sent.starts_with(b"event: put\n") && sent.ends_with(b"\n\n:\n\n"), "{sent:?}");
    }
    /// An event leaves out what is larger than a body. Waiting for all memory would refuse others.
    #[cfg(feature = "lz4")]
    #[test]
    fn an_event_without_its_value_waits_for_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().compression(crate::Compression::lz4());
        let db = Bitcask::open(dir.path(), options).unwrap();
        db.put("k", vec![b'x'; 2 << 20]).unwrap();
        let options = ServerOptions::new().body_size_limit(64 << 10).body_memory_limit(1 << 20);
        let state = Arc::new(ServerState::new(Arc::new(db), options, None));
        let others = Arc::clone(&state.body_pages).try_acquire_owned().unwrap();
        let (mut feed, mut pieces) = feed_of(&state, FeedForm::Events);
        feed.send_next().unwrap_or_else(|_| panic!("it is sent"));
        assert!(feed.waiting.is_none());
        feed.writer.flush().unwrap();
        let sent = pieces.try_recv().unwrap().unwrap();
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        assert!(sent.contains("\"value_size\":2097152") && !sent.contains("\"value\""), "{sent}");
        // A frame has the value, and needs the memory.
        let (mut feed, mut pieces) = feed_of(&state, FeedForm::Frames);
        feed.send_next().unwrap_or_else(|_| panic!("it waits"));
        assert!(feed.waiting.is_some() && pieces.try_recv().is_err());
        drop(others);
        while !feed.has_memory() {}
        std::thread::spawn(move || while pieces.blocking_recv().is_some() {});
        feed.send_next().unwrap_or_else(|_| panic!("there is memory now"));
        assert!(feed.waiting.is_none());
    }
}
