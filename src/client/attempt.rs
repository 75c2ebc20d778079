//! Attempts that have failed: what happened, and whether another one makes sense.

use std::io;
use std::time::Duration;

use ureq::Error::{self, Io};
use ureq::Timeout;

use super::error::ClientError;
use crate::dialect;

/// Statuses of a server, or of a proxy before it, that cannot answer at the moment.
const UNAVAILABLE: [u16; 3] = [502, 503, 504];
/// The status of a server to which this client sends too many requests.
const TOO_MANY_REQUESTS: u16 = 429;

/// An attempt that has failed.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    pub(super) error: ClientError,
    /// Whether another attempt may succeed.
    pub(super) is_passing: bool,
}

/// What an attempt says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerSign {
    Works,
    Fails,
    /// Nothing was sent.
    None,
}

impl FailedAttempt {
    /// Returns the failure of an attempt that would fail again.
    pub(super) fn lasting(error: ClientError) -> Self {
        Self { error, is_passing: false }
    }

    /// Returns the failure of an attempt that the server, or a proxy, has refused.
    pub(super) fn refused(
        status: u16,
        code: Option<String>,
        detail: String,
        request_id: String,
    ) -> Self {
        // A store that accepts no more writes stays like that, and can be read.
        let is_poisoned = code.as_deref() == Some(dialect::POISONED);
        // What has taken too long would take as long again, and may still be under way.
        let has_timed_out = code.as_deref() == Some(dialect::TIMED_OUT);
        let is_unavailable = UNAVAILABLE.contains(&status) && !is_poisoned && !has_timed_out;
        let error = ClientError::Server { status, code, detail, request_id };
        Self { error, is_passing: is_unavailable || status == TOO_MANY_REQUESTS }
    }

    /// Returns the failure of an attempt without a whole answer.
    pub(super) fn broken(error: &Error, url: &str, timeout: Duration, id: &str) -> Self {
        let (url, request_id) = (url.to_owned(), id.to_owned());
        let was_sent = match error {
            Error::Timeout(Timeout::Resolve | Timeout::Connect)
            | Error::HostNotFound
            | Error::ConnectionFailed
            | Error::Tls(_)
            | Error::Rustls(_)
            | Error::Pem(_)
            | Error::BadUri(_)
            | Error::Http(_) => false,
            Io(error) => !is_of_connecting(error) && !is_of_certificate(error),
            _ => true,
        };
        let reason = match error {
            Error::Timeout(_) if was_sent => {
                let error = ClientError::Timeout { url, after: timeout, request_id };
                return Self::lasting(error);
            }
            Error::Timeout(_) => "the connection has taken too long".into(),
            Error::HostNotFound => "there is no such host".into(),
            Io(error) => error.to_string(),
            other => other.to_string(),
        };
        // A certificate that is wrong stays wrong. A failed handshake is invalid data.
        let is_passing = match error {
            Error::Tls(_) | Error::Rustls(_) | Error::Pem(_) => false,
            Io(error) => error.kind() != io::ErrorKind::InvalidData,
            _ => true,
        };
        Self { error: ClientError::Connection { url, reason, was_sent, request_id }, is_passing }
    }

    /// Returns whether the request may have reached the server.
    pub(super) fn was_sent(&self) -> bool {
        !matches!(self.error, ClientError::Connection { was_sent: false, .. })
    }

    /// Returns what the attempt says about the server.
    pub(super) fn sign(&self) -> ServerSign {
        match &self.error {
            ClientError::Connection { .. } | ClientError::Timeout { .. } => ServerSign::Fails,
            ClientError::Server { status, code, .. } if *status != TOO_MANY_REQUESTS => {
                let has_timed_out = code.as_deref() == Some(dialect::TIMED_OUT);
                let fails = self.is_passing || has_timed_out;
                if fails { ServerSign::Fails } else { ServerSign::Works }
            }
            ClientError::Server { .. }
            | ClientError::AnswerTooLarge { .. }
            | ClientError::InvalidAnswer { .. } => ServerSign::Works,
            _ => ServerSign::None,
        }
    }
}

/// Returns whether only an attempt to connect ends with this error. Others, such as a host that is
/// not reachable, also end connections that have worked.
fn is_of_connecting(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::ConnectionRefused)
}

/// Returns whether the certificate of a server was refused: then nothing was sent to it. Only the
/// text of rustls says so.
fn is_of_certificate(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
        && error.to_string().starts_with("invalid peer certificate")
}
