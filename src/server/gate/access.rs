//! The access log: an event when a request begins, and one when its answer does.
//!
//! The names are those of bitcaskpy: `http_request_start`, `http_request_end` and, for a failure of
//! the server, `http_request_error`. If nobody listens, nothing is prepared.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use tracing::Level;

use super::PeerAddress;
use super::request_id::RequestId;

/// Maximum length of a path in the log, in bytes.
const PATH_LEN_MAX: usize = 512;

/// What the log says about a request. Keys are part of paths, and so of the log; values are not.
#[derive(Debug)]
pub(super) struct AccessNote {
    id: RequestId,
    method: Method,
    path: String,
    client: String,
}

impl AccessNote {
    /// Reports that a request begins. Returns `None` if nobody listens.
    pub(super) fn begin(
        request: &Request,
        id: &RequestId,
        peer: Option<PeerAddress>,
    ) -> Option<Self> {
        if !tracing::enabled!(target: "bitcask::server", Level::ERROR) {
            return None;
        }
        // What is not printable is percent-encoded in a path.
        let path: String = request.uri().path().chars().take(PATH_LEN_MAX).collect();
        let client =
            peer.map_or_else(|| "-".to_owned(), |PeerAddress(address)| address.to_string());
        let note = Self { id: id.clone(), method: request.method().clone(), path, client };
        tracing::info!(
            target: "bitcask::server",
            event = "http_request_start",
            request_id = note.id.as_str(),
            method = %note.method,
            path = note.path.as_str(),
            client = note.client.as_str()
        );
        Some(note)
    }

    /// Reports how a request was answered.
    pub(super) fn end(&self, status: StatusCode, took: Duration) {
        let duration_ms = took.as_secs_f64() * 1000.0;
        let status_code = status.as_u16();
        let (request_id, method) = (self.id.as_str(), self.method.as_str());
        let (path, client) = (self.path.as_str(), self.client.as_str());
        if status.is_server_error() {
            tracing::error!(
                target: "bitcask::server",
                event = "http_request_error",
                request_id,
                method,
                path,
                client,
                status_code,
                duration_ms
            );
        } else {
            tracing::info!(
                target: "bitcask::server",
                event = "http_request_end",
                request_id,
                method,
                path,
                client,
                status_code,
                duration_ms
            );
        }
    }
}
