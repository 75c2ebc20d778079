//! Why a server does not start, or has ended badly.

use std::io;
use std::path::PathBuf;

use crate::error::Error;

/// An error of [`Server`](super::Server).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address could not be resolved, or is in use, or may not be used by this process.
    #[error("cannot listen on {address}: {source}; choose another host or port")]
    Bind {
        /// The host and port that were asked for.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the TLS certificate and key: {reason}; both have to be in PEM form")]
    Tls {
        /// What is wrong.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("the server option {name} is {value}: {reason}")]
    InvalidServerOption {
        /// The method of [`ServerOptions`](super::ServerOptions).
        name: &'static str,
        /// The value that it was given.
        value: String,
        /// What is expected.
        reason: &'static str,
    },
    /// The threads of the server could not be started.
    #[error("cannot start the threads of the server: {source}; check the limits of the process")]
    Runtime {
        /// What the operating system said.
        source: io::Error,
    },
    /// The store cannot follow a leader, or be promoted, or be served without following. Nothing
    /// was changed.
    #[error("the store in {} {reason}", path.display())]
    Replication {
        /// The store's directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The store failed when it was closed, or read or written to follow a leader.
    #[error(transparent)]
    Store(#[from] Error),
}
