//! All of the store at one moment, for followers: `GET /v1/snapshot`.
//!
//! - The answer is a sequence of frames (`frames`). The first has the position of the moment, the
//!   last says how many there were, and has a checksum of all.
//! - It is produced while it is sent, so it needs little memory. It keeps the segments of its
//!   moment on the disk as long as it takes.
//! - While no key is found, for example among many that have expired, the position is sent again
//!   every second. Otherwise the follower would take the leader for gone.

use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::frames::{FRAMES, Frame, FrameHeader, FrameKind, SnapshotSum};
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::{ChannelStream, PieceWriter, Unheard};
use crate::store::{Expiry, Position, Snapshot};

/// Number of pieces that wait for the client.
const PIECES_AHEAD: usize = 4;
/// How often the position is sent again.
const REPEATED: Duration = Duration::from_secs(1);

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
    let permit = state.stream()?;
    let snapshot = state.on_pool(|state| {
        let snapshot = state.db.snapshot();
        // A follower must not have what a power loss takes from its leader.
        state.db.sync()?;
        Ok::<_, Error>(snapshot)
    });
    let snapshot = snapshot.await?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let writer = PieceWriter::new(sender);
    let frames = FrameSender { position: snapshot.position(), sum: SnapshotSum::default(), writer };
    let frames = Arc::new(Mutex::new(Some(frames)));
    tokio::spawn(repeat_position(Arc::downgrade(&frames)));
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = write(&state, &snapshot, &frames);
        let Some(sender) = held(&frames).take() else { return };
        match written {
            Ok(()) => sender.end(),
            Err(Interrupted::Unheard) => {}
            Err(Interrupted::Store(error)) => {
                tracing::error!(target: "bitcask::server", event = "snapshot_failed", error = %error);
                sender.writer.fail(&error);
            }
        }
    });
    Ok(frames_response(Body::from_stream(ChannelStream(receiver))))
}

/// Returns an answer whose body are frames.
pub(super) fn frames_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FRAMES));
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

fn held(frames: &SharedFrames) -> std::sync::MutexGuard<'_, Option<FrameSender>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn repeat_position(&mut self) {
        if self.writer.has_room() && self.send_position().is_ok() {
            self.writer.try_flush();
        }
    }

    fn end(self) {
        let Self { position, sum, mut writer } = self;
        let sum = sum.finish();
        // If nobody hears the end, it does not matter.
        if write_frame(&mut writer, &frame_at(position, FrameKind::End, b"", &sum)).is_ok() {
            writer.finish();
        }
    }
}

/// Why a snapshot is not complete.
enum Interrupted {
    Unheard,
    Store(Error),
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
    held(frames).as_mut().map_or(Ok(()), FrameSender::send_position)?;
    for pair in snapshot {
        let (key, value) = pair?;
        if is_reserved(&key) {
            continue;
        }
        if state.stop.is_raised() {
            return Err(Interrupted::Unheard);
        }
        let expiry = match snapshot.expiry(&key)? {
            Some(Expiry::At(time)) => Some(micros(time)),
            _ => None,
        };
        let frame = Frame { expiry, ..frame_at(position, FrameKind::Put, &key, &value) };
        held(frames).as_mut().map_or(Ok(()), |sender| sender.send(&frame))?;
    }
    Ok(())
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
    use super::*;
    use crate::server::frames::read_frame;

    #[test]
    fn a_position_that_is_repeated_arrives_at_once_and_counts() {
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let position = Position::from_bytes([3; 16]);
        let writer = PieceWriter::new(sender);
        let mut frames = FrameSender { position, sum: SnapshotSum::default(), writer };
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
        frames.end();
        received.extend(pieces.try_recv().unwrap().unwrap());
        let (mut rest, mut sum) = (received.as_slice(), SnapshotSum::default());
        let mut kinds = Vec::new();
        loop {
            let (frame, header) = read_frame(&mut rest).unwrap();
            kinds.push(frame.kind);
            if frame.kind == FrameKind::End {
                assert_eq!(frame.value, sum.finish());
                break;
            }
            sum.add(&header);
        }
        assert!(rest.is_empty());
        assert_eq!(kinds.len(), 3 + PIECES_AHEAD + 1, "{kinds:?}");
        assert_eq!(kinds[..3], [FrameKind::Position, FrameKind::Put, FrameKind::Position]);
    }
}
