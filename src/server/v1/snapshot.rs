//! All of the store at one moment, for followers: `GET /v1/snapshot`.
//!
//! - The answer is a sequence of frames (`frames`). The first has the position of the moment, the
//!   last says how many there were, and has a checksum of all.
//! - It is produced while it is sent, so it needs little memory. It keeps the segments of its
//!   moment on the disk as long as it takes.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

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
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut writer = PieceWriter::new(sender);
        match write(&state, &snapshot, &mut writer) {
            Ok(()) => writer.finish(),
            Err(Interrupted::Unheard) => {}
            Err(Interrupted::Store(error)) => {
                tracing::error!(target: "bitcask::server", event = "snapshot_failed", error = %error);
                writer.fail(&error);
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
    writer: &mut PieceWriter,
) -> Result<(), Interrupted> {
    let (position, mut sum) = (snapshot.position(), SnapshotSum::default());
    sum.add(&write_frame(writer, &frame_at(position, FrameKind::Position, b"", b""))?);
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
        sum.add(&write_frame(writer, &frame)?);
    }
    write_frame(writer, &frame_at(position, FrameKind::End, b"", &sum.finish()))?;
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
