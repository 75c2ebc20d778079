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
use crate::dialect::percent_encoded;

/// Length from which a path is cut off in the log, in bytes.
const PATH_LEN_MAX: usize = 512;

/// Returns the beginning of a path as printable ASCII. A client can send other characters without
/// an escape, and some of them would change how a terminal shows the line.
fn printable(path: &str) -> String {
    let mut text = String::with_capacity(path.len().min(PATH_LEN_MAX));
    for char in path.chars() {
        if char.is_ascii_graphic() {
            text.push(char);
        } else {
            text.push_str(&percent_encoded(char.encode_utf8(&mut [0; 4]).as_bytes()));
        }
        if text.len() >= PATH_LEN_MAX {
            break;
        }
    }
    text
}

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
        let path = printable(request.uri().path());
        let client =
            peer.map_or_else(|| "-".to_owned(), |PeerAddress { client, .. }| client.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_the_log_is_printable_and_not_too_long() {
        assert_eq!(printable("/kv/a%20b~"), "/kv/a%20b~");
        assert_eq!(printable("/kv/\u{9b}\u{202e}\u{e9}"), "/kv/%C2%9B%E2%80%AE%C3%A9");
        let long = printable(&"\u{202e}".repeat(PATH_LEN_MAX));
        assert!(long.len() >= PATH_LEN_MAX && long.len() < PATH_LEN_MAX + 9);
    }
}
