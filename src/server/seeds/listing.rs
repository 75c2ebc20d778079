//! All keys in one answer, which is produced while it is sent: however many there are, a few pieces
//! of it are in memory.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::server::failure::ApiFailure;
use crate::server::reserved::is_reserved;
use crate::server::state::{ServerState, SharedServer};
use crate::server::stream::{ChannelStream, PieceWriter, Unheard};

/// Number of pieces that wait for the client.
const PIECES_AHEAD: usize = 2;

/// Returns the answer with all keys that are text.
pub(super) fn all_keys(state: &SharedServer) -> Result<Response, ApiFailure> {
    let permit = state.stream()?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut writer = PieceWriter::new(sender);
        match write_keys(&state, &mut writer) {
            Ok(()) => writer.finish(),
            Err(Broken::Unheard) => {}
            Err(Broken::Store(error)) => {
                tracing::error!(target: "bitcask::server", event = "listing_failed", error = %error);
                writer.fail(error);
            }
        }
    });
    let mut response = Response::new(Body::from_stream(ChannelStream(receiver)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// Why a listing is not complete.
enum Broken {
    Unheard,
    Store(Error),
}

impl From<Unheard> for Broken {
    fn from(_: Unheard) -> Self {
        Self::Unheard
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

fn write_keys(state: &ServerState, writer: &mut PieceWriter) -> Result<(), Broken> {
    let mut count: u64 = 0;
    writer.write(b"{\"keys\":[")?;
    for key in state.db.keys() {
        let key = key?;
        if is_reserved(&key) {
            continue;
        }
        let Ok(text) = std::str::from_utf8(&key) else { continue };
        let Ok(text) = serde_json::to_string(text) else { continue };
        if count > 0 {
            writer.write(b",")?;
        }
        writer.write(text.as_bytes())?;
        count += 1;
    }
    writer.write(format!("],\"count\":{count}}}").as_bytes())?;
    Ok(())
}
