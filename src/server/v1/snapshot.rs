//! All of the store at one moment, for followers: `GET /v1/snapshot`.
//!
//! - The answer is a sequence of frames (`frames`). The first has the position of the moment, the
//!   last says how many there were, and has a checksum of all.
//! - It is produced while it is sent, so it needs little memory. It keeps the segments of its
//!   moment on the disk as long as it takes.
//! - The history after its position is kept until the follower has stored some of it (`leases`).
//! - While no key is found, for example among many that have expired, the position is sent again
//!   every second. Otherwise the follower would take the leader for gone.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::Error;
use crate::server::body::{MemoryWait, reserve_size, reserve_value, size_in_memory};
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::frames::{self, FRAMES, Frame, FrameHeader, FrameKind, SnapshotSum};
use crate::server::leases::{self, LeaseToken};
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::{ChannelStream, PieceWriter, Unheard};
use crate::store::{Bitcask, Expiry, Position, Snapshot};
use crate::value::Admitted;

/// Number of pieces that wait for the client.
const PIECES_AHEAD: usize = 4;
/// How often the position is sent again.
const REPEATED: Duration = Duration::from_secs(1);
/// Time between two attempts to get memory.
const MEMORY_WAIT: Duration = Duration::from_millis(50);

/// Lock 0: the frames of a snapshot on their way, until the last one. It is held while the client
/// receives too slowly.
type SharedFrames = Mutex<Option<FrameSender>>;

/// Read all keys and values of one moment, as followers need them.
#[utoipa::path(
    get, path = "/v1/snapshot", tag = "v1", operation_id = "v1_snapshot",
    responses(
        (status = 200, description = "Frames: a position, the keys and values, a checksum", body = Vec<u8>, content_type = "application/vnd.bitcask.frames"),
        (status = 503, description = "There are too many followers", body = FailureBody),
    )
)]
pub(in super::super) async fn read(
    State(state): State<SharedServer>,
) -> Result<Response, ApiFailure> {
    let (permit, begun) = (state.stream()?, Instant::now());
    let reading = state.on_pool(|state| {
        let lease = state.db.lease_history(leases::size_max(&state.db));
        let snapshot = state.db.snapshot();
        lease.move_to(snapshot.position());
        // A follower must not have what a power loss takes from its leader.
        state.db.sync()?;
        Ok::<_, Error>((snapshot, lease))
    });
    let (snapshot, lease) = reading.await?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let writer = PieceWriter::new(sender);
    let frames = FrameSender { position: snapshot.position(), sum: SnapshotSum::default(), writer };
    let frames = Arc::new(Mutex::new(Some(frames)));
    let body = Body::from_stream(ChannelStream(receiver));
    let mut response = stream_response(FRAMES, &state.db, body);
    let token = LeaseToken::new();
    response.headers_mut().insert(frames::LEASE, token.header());
    tokio::spawn(repeat_position(Arc::downgrade(&frames)));
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = write(&state, &snapshot, &frames);
        let ended = frames.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sender) = ended else { return };
        match written {
            Ok(()) => {
                let now = Instant::now();
                // Before the client has the end, and asks for what comes next.
                let len_max = state.options.streams_max;
                let position = snapshot.position();
                state.leases.wait_for((token, lease), position, begun, now, len_max);
                if sender.end().is_err() {
                    state.leases.end(token);
                }
            }
            Err(Interrupted::Unheard) => {}
            Err(interrupted) => {
                tracing::error!(target: "bitcask::server", event = "snapshot_failed", error = %interrupted);
                sender.writer.fail(interrupted);
            }
        }
    });
    Ok(response)
}

/// Returns an answer whose body is produced while it is sent. It says how large keys and values may
/// be, which a follower must be able to store.
pub(super) fn stream_response(content_type: &'static str, db: &Bitcask, body: Body) -> Response {
    let mut response = Response::new(body);
    let (headers, options) = (response.headers_mut(), db.options());
    headers.insert(frames::KEY_SIZE_LIMIT, options.get_key_size_limit().into());
    headers.insert(frames::VALUE_SIZE_LIMIT, options.get_value_size_limit().into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes a frame, and returns its header.
pub(super) fn write_frame<B: AsRef<[u8]>>(
    writer: &mut PieceWriter,
    frame: &Frame<B>,
) -> Result<FrameHeader, Unheard> {
    let header = frame.header();
    writer.write(&header)?;
    writer.write(frame.key.as_ref())?;
    writer.write(frame.value.as_ref())?;
    Ok(header)
}

/// Sends something of a snapshot that is not complete.
fn send(
    frames: &SharedFrames,
    send: impl FnOnce(&mut FrameSender) -> Result<(), Unheard>,
) -> Result<(), Interrupted> {
    let mut sender = frames.lock().map_err(|_| Interrupted::Panicked)?;
    Ok(sender.as_mut().map_or(Ok(()), send)?)
}

/// Sends the position again and again, until all frames are sent.
async fn repeat_position(frames: Weak<SharedFrames>) {
    loop {
        tokio::time::sleep(REPEATED).await;
        let Some(frames) = frames.upgrade() else { return };
        match frames.try_lock() {
            Ok(mut sender) => match sender.as_mut() {
                Some(sender) => sender.repeat_position(),
                None => return,
            },
            // A frame is just being sent.
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Poisoned(_)) => return,
        }
    }
}

/// Sends the frames of a snapshot, and counts them.
struct FrameSender {
    position: Position,
    sum: SnapshotSum,
    writer: PieceWriter,
}

impl FrameSender {
    fn send(&mut self, frame: &Frame<&[u8]>) -> Result<(), Unheard> {
        self.sum.add(&write_frame(&mut self.writer, frame)?);
        Ok(())
    }

    fn send_position(&mut self) -> Result<(), Unheard> {
        self.send(&frame_at(self.position, FrameKind::Position, b"", b""))
    }

    /// Sends the position again, with all that has been gathered. A client that has not received
    /// what came before needs no such sign.
    ///
    /// The caller must not wait. If the position would complete a piece, the piece alone is the
    /// sign.
    fn repeat_position(&mut self) {
        if !self.writer.has_room() {
            return;
        }
        let header = frame_at(self.position, FrameKind::Position, b"", b"").header();
        if self.writer.try_write(&header) {
            self.sum.add(&header);
        }
        self.writer.try_flush();
    }

    fn end(self) -> Result<(), Unheard> {
        let Self { position, sum, mut writer } = self;
        let sum = sum.finish();
        write_frame(&mut writer, &frame_at(position, FrameKind::End, b"", &sum))?;
        writer.finish();
        Ok(())
    }
}

/// Why a snapshot is not complete.
enum Interrupted {
    Unheard,
    Store(Error),
    /// A thread has panicked while it held the frames, so some may be missing.
    Panicked,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unheard => f.write_str("nobody receives the snapshot"),
            Self::Store(error) => error.fmt(f),
            Self::Panicked => f.write_str("a thread of the snapshot has panicked"),
        }
    }
}

impl From<Unheard> for Interrupted {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

fn write(
    state: &Arc<ServerState>,
    snapshot: &Snapshot,
    frames: &SharedFrames,
) -> Result<(), Interrupted> {
    let position = snapshot.position();
    send(frames, FrameSender::send_position)?;
    let mut entries = snapshot.iter();
    loop {
        let mut memory = None;
        let mut admits = |size| reserve_size(state, &mut memory, size).is_ok();
        let Some(entry) = entries.next_admitted(&mut admits) else { break };
        let (key, value, expiry) = entry?;
        if is_reserved(&key) {
            continue;
        }
        if state.stop.is_raised() {
            return Err(Interrupted::Unheard);
        }
        let admitted = match value {
            Admitted::Value(value) if reserve_value(state, &mut memory, &value).is_ok() => {
                Ok(value)
            }
            Admitted::Value(value) => Err(size_in_memory(&value)),
            Admitted::Size(size) => Err(size),
        };
        let value = match admitted {
            Ok(value) => value,
            Err(size) => {
                // Waits without the value and its memory, and reads it again.
                drop(memory.take());
                memory = Some(await_memory(state, frames, MemoryWait::new(state, size))?);
                let Some(again) = snapshot.get(&key)? else { continue };
                again
            }
        };
        let expiry = match expiry {
            Expiry::At(time) => Some(micros(time)),
            Expiry::Never => None,
        };
        let frame = Frame { expiry, ..frame_at(position, FrameKind::Put, &key, &value) };
        send(frames, |sender| sender.send(&frame))?;
        drop(memory);
    }
    // The last of what was sent may have been the repeated position.
    send(frames, |_| Ok(()))
}

/// Waits until there is memory for a value.
fn await_memory(
    state: &ServerState,
    frames: &SharedFrames,
    mut wait: MemoryWait,
) -> Result<OwnedSemaphorePermit, Interrupted> {
    loop {
        if let Some(memory) = wait.wait(MEMORY_WAIT) {
            return Ok(memory);
        }
        let mut is_over = state.stop.is_raised();
        send(frames, |sender| {
            is_over |= sender.writer.is_unheard();
            Ok(())
        })?;
        if is_over {
            return Err(Interrupted::Unheard);
        }
    }
}

fn frame_at<'a>(
    position: Position,
    kind: FrameKind,
    key: &'a [u8],
    value: &'a [u8],
) -> Frame<&'a [u8]> {
    Frame { kind, continues: false, expiry: None, position, key, value }
}

/// Returns a time of day in microseconds.
pub(super) fn micros(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;
    use crate::server::frames::{FRAME_HEADER_SIZE, read_frame};

    fn frames_of(position: Position) -> (FrameSender, mpsc::Receiver<std::io::Result<Bytes>>) {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let writer = PieceWriter::new(sender);
        (FrameSender { position, sum: SnapshotSum::default(), writer }, pieces)
    }

    /// Reads a snapshot. Returns its kinds of frames.
    fn read_all(mut rest: &[u8]) -> Vec<FrameKind> {
        let (mut sum, mut kinds) = (SnapshotSum::default(), Vec::new());
        while kinds.last() != Some(&FrameKind::End) {
            let (frame, header) = read_frame(&mut rest).unwrap();
            kinds.push(frame.kind);
            if frame.kind == FrameKind::End {
                assert_eq!(frame.value, sum.finish());
                break;
            }
            sum.add(&header);
        }
        assert!(rest.is_empty());
        kinds
    }

    #[test]
    fn a_position_that_would_complete_a_piece_is_not_repeated() {
        // As in the server, positions are repeated by a task, which must not wait.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let position = Position::from_bytes([3; 16]);
        // So much room is left in the piece, or a little more, or less.
        for room in 0..80 {
            let (mut frames, mut pieces) = frames_of(position);
            let value = vec![b'v'; (64 << 10) - FRAME_HEADER_SIZE - 1 - room];
            frames.send(&frame_at(position, FrameKind::Put, b"k", &value)).unwrap();
            let mut received = Vec::new();
            runtime.block_on(async { frames.repeat_position() });
            while let Ok(piece) = pieces.try_recv() {
                received.extend(piece.unwrap());
            }
            frames.end().unwrap();
            while let Ok(piece) = pieces.try_recv() {
                received.extend(piece.unwrap());
            }
            let kinds = read_all(&received);
            assert_eq!(kinds[0], FrameKind::Put, "{room}");
        }
    }

    #[test]
    fn a_snapshot_breaks_off_after_a_panic() {
        let (frames, _pieces) = frames_of(Position::from_bytes([3; 16]));
        let frames = Mutex::new(Some(frames));
        send(&frames, FrameSender::send_position).unwrap_or_else(|_| panic!("nothing is wrong"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = send(&frames, |_| panic!("as a thread that holds the frames"));
        }));
        assert!(panicked.is_err());
        let sent = send(&frames, FrameSender::send_position);
        assert!(matches!(sent, Err(Interrupted::Panicked)));
    }

    #[test]
    fn a_position_that_is_repeated_arrives_at_once_and_counts() {
        let position = Position::from_bytes([3; 16]);
        let (mut frames, mut pieces) = frames_of(position);
        frames.send_position().unwrap();
        frames.send(&frame_at(position, FrameKind::Put, b"k", b"v")).unwrap();
        frames.repeat_position();
        let mut received = pieces.try_recv().unwrap().unwrap().to_vec();
        // A client that receives nothing is not waited for.
        for _ in 0..2 * PIECES_AHEAD {
            frames.repeat_position();
        }
        while let Ok(piece) = pieces.try_recv() {
            received.extend(piece.unwrap());
        }
        frames.end().unwrap();
        received.extend(pieces.try_recv().unwrap().unwrap());
        let kinds = read_all(&received);
        assert_eq!(kinds.len(), 3 + PIECES_AHEAD + 1, "{kinds:?}");
        assert_eq!(kinds[..3], [FrameKind::Position, FrameKind::Put, FrameKind::Position]);
    }
}
