//! How the nodes of a cluster talk to each other: HTTP/1.1 on a port of its own.
//!
//! - `client` asks, `server` answers, and `messages` says what. Bodies are those of postcard.
//! - Each request carries the secret of the cluster, and a node that does not know it answers
//!   nothing. What is sent is not encrypted: the port belongs into a private network.
//! - A snapshot is sent file by file, and installed when all of it is there.

pub(super) mod client;
#[cfg(test)]
mod client_tests;
mod entries;
pub(super) mod messages;
pub(super) mod progress;
mod sending;
#[cfg(test)]
mod sending_tests;
pub(super) mod server;
mod silence;
pub(super) mod transport;

pub(crate) use client::{AskFailure, IdlePeers, PeerNetwork};
pub(crate) use progress::SnapshotProgress;
pub use progress::SnapshotTransfer;
pub(crate) use transport::{PeerTransport, Tcp};
