//! Why a call of the client fails.

use std::time::Duration;

use crate::dialect;
use crate::value::Value;

/// An error of [`Client`](super::Client).
///
/// Every error that has to do with a request has the request's id, which is also in the log of the
/// server. A key that does not exist is not an error, and neither is a failed compare-and-swap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server could not be reached, or the connection broke before the whole answer was there.
    #[error("{} {url}: {reason} (request {request_id})", what_broke(*.was_sent))]
    Connection {
        /// The server.
        url: String,
        /// What has happened.
        reason: String,
        /// Whether the request, or a part of it, may have reached the server. If it was a write, it
        /// may have taken effect.
        was_sent: bool,
        /// The id of the request.
        request_id: String,
    },
    /// The server has not answered in time. A write may still take effect.
    #[error(
        "the server at {url} has not answered within {after:?} (request {request_id}); a write \
             may still take effect"
    )]
    Timeout {
        /// The server.
        url: String,
        /// The [timeout](super::ClientOptions::timeout).
        after: Duration,
        /// The id of the request.
        request_id: String,
    },
    /// No request was sent, because several in a row have failed. See
    /// [`ClientOptions::circuit_breaker`](super::ClientOptions::circuit_breaker).
    #[error(
        "nothing was sent to {url}, since the last requests have failed; try again in \
             {retry_after:?} (request {request_id})"
    )]
    CircuitOpen {
        /// The server.
        url: String,
        /// The time after which the next request is sent.
        retry_after: Duration,
        /// The id of the request.
        request_id: String,
    },
    /// The server has refused the request, or has failed.
    #[error("the server has answered with status {status}: {detail} (request {request_id})")]
    Server {
        /// The status of HTTP.
        status: u16,
        /// What is wrong, for programs: `no_space` or `history_gone` for example. `docs/server.md`
        /// has more.
        code: Option<String>,
        /// What is wrong, for people.
        detail: String,
        /// The id of the request.
        request_id: String,
    },
    /// The answer, or a change of the feed, is larger than the
    /// [limit](super::ClientOptions::answer_size_limit). A feed continues behind that change.
    #[error("the answer has more than {limit} bytes, the client's limit (request {request_id})")]
    AnswerTooLarge {
        /// The limit, in bytes.
        limit: u64,
        /// The id of the request.
        request_id: String,
    },
    /// The answer is not one that a server of this crate gives.
    #[error("the answer of {url} is not understood: {reason} (request {request_id})")]
    InvalidAnswer {
        /// The server.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// The id of the request.
        request_id: String,
    },
    /// The change feed has left out a value that is too large for it. Read the key, and go on with
    /// the changes behind this one.
    #[error(
        "the change feed has left out the value of a key, which has {size} bytes; read it with \
             `get` (request {request_id})"
    )]
    ValueLeftOut {
        /// The key that was put.
        key: Value,
        /// The size of the value, in bytes.
        size: u64,
        /// The id of the request.
        request_id: String,
    },
    /// A key was changed by others during each of several attempts. Nothing was changed.
    #[error(
        "the key was changed by others during each of {attempts} attempts; nothing was changed \
             (request {request_id})"
    )]
    Conflict {
        /// The number of attempts.
        attempts: u32,
        /// The id of the last request.
        request_id: String,
    },
    /// The request cannot be expressed in HTTP. Nothing was sent.
    #[error("nothing was sent: {reason}")]
    InvalidRequest {
        /// What is wrong.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("the client option {name} is {value}: {reason}")]
    InvalidClientOption {
        /// The method of [`ClientOptions`](super::ClientOptions).
        name: &'static str,
        /// The value.
        value: String,
        /// What is expected.
        reason: String,
    },
}

/// Returns how the error of a connection begins.
fn what_broke(was_sent: bool) -> &'static str {
    if was_sent { "no whole answer has come from" } else { "no server answers at" }
}

impl ClientError {
    /// Returns the id of the request, which is also in the log of the server if the request has
    /// reached it. `None` if there was no request.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Connection { request_id, .. }
            | Self::Timeout { request_id, .. }
            | Self::CircuitOpen { request_id, .. }
            | Self::Server { request_id, .. }
            | Self::AnswerTooLarge { request_id, .. }
            | Self::InvalidAnswer { request_id, .. }
            | Self::ValueLeftOut { request_id, .. }
            | Self::Conflict { request_id, .. } => Some(request_id),
            Self::InvalidRequest { .. } | Self::InvalidClientOption { .. } => None,
        }
    }

    /// Returns whether a write that has failed like this may have taken effect all the same, now or
    /// later.
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Connection { was_sent, .. } => *was_sent,
            Self::Timeout { .. } | Self::AnswerTooLarge { .. } | Self::InvalidAnswer { .. } => true,
            Self::Server { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Returns whether the changes after a position are gone: read all keys, and follow the changes
    /// from then on.
    pub fn is_history_gone(&self) -> bool {
        matches!(self, Self::Server { code: Some(code), .. } if code == dialect::HISTORY_GONE)
    }
}
