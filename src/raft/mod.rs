//! Storage for [openraft](https://docs.rs/openraft/0.9): the feature `raft`.
//!
//! [`LogStore`] keeps the log and the vote of a Raft node, and [`StateMachine`] what the log leads
//! to, each in a store of this crate. With them, a program that has a network of its own becomes a
//! replicated store. This is the only public module in which types of openraft appear.
//!
//! What the two promise:
//!
//! - A vote is durable when [`save_vote`](openraft::storage::RaftLogStorage::save_vote) returns,
//!   and entries are durable before openraft hears of it. Groups of one node can share a log, and
//!   then share its syncs.
//! - After a crash, the log is what it was, up to some entry that is not older than the last
//!   durable one. There is never a gap.
//! - A request takes effect together with its place in the log, or not at all, so each is applied
//!   once. Applying does not wait for the disk: after a crash, openraft applies again what was
//!   lost, out of the log.
//! - A snapshot consists of hard links to files that never change again. A snapshot that is missing
//!   on disk is an error, never an empty state.
//!
//! # What a program provides
//!
//! A type configuration whose entries are [`openraft::Entry`] and whose snapshots are
//! [`SnapshotFiles`], and an implementation of [`Apply`], which makes the changes of a request in a
//! transaction. The network is the program's. It sends a snapshot file by file: see
//! [`SnapshotFiles`].
//!
//! Requests, ids of nodes and nodes are stored with [postcard](https://docs.rs/postcard), without
//! the names of fields. So their types must not depend on these: serde's `untagged`, `tag`,
//! `flatten` and `skip_serializing_if` do, and so do types such as `serde_json::Value`. An entry
//! that could not be decoded again is refused before it is written, which stops the node. One that
//! would become another value is not noticed: that can happen with `skip_serializing_if`.
//!
//! Keys that begin with `\0raft` belong to the state machine.
//!
//! After [`shutdown`](openraft::Raft::shutdown), tasks of openraft may keep the two open for a
//! moment. Until then, opening them again returns [`Locked`](crate::Error::Locked).
//!
//! ```
//! use bitcask::raft::{Apply, LogStore, SnapshotFiles, StateMachine};
//! use bitcask::{Error, Options, Transaction};
//! use openraft::storage::RaftStateMachine as _;
//! use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};
//!
//! openraft::declare_raft_types!(
//!     /// Requests set a key to a value, and are answered with the value before.
//!     Cluster:
//!         D = (String, String),
//!         R = Option<String>,
//!         SnapshotData = SnapshotFiles,
//! );
//!
//! struct Swap;
//!
//! impl Apply<Cluster> for Swap {
//!     fn apply(
//!         &self,
//!         tx: &mut Transaction,
//!         (key, value): &(String, String),
//!     ) -> bitcask::Result<Option<String>> {
//!         let before = tx.get(key)?.map(|before| String::from_utf8_lossy(&before).into_owned());
//!         tx.put(key, value);
//!         Ok(before)
//!     }
//!
//!     fn without_request(&self) -> Option<String> {
//!         None
//!     }
//!
//!     fn refused(&self, _request: &(String, String), _error: &Error) -> Option<String> {
//!         None
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let log = LogStore::<Cluster>::open(dir.path().join("log"), Options::default())?;
//! let mut state = StateMachine::open(dir.path().join("state"), Options::default(), Swap)?;
//! let log = log.purging_after(&state);
//! // `openraft::Raft::new(id, config, network, log, state)` takes both. Here, an entry is applied
//! // by hand.
//! let log_id = LogId::new(CommittedLeaderId::new(1, 1), 0);
//! let payload = EntryPayload::Normal(("greeting".into(), "hello".into()));
//! let answers = state.apply([Entry { log_id, payload }]).await?;
//! assert_eq!(answers, [None]);
//! assert_eq!(state.store().get("greeting")?.as_deref(), Some(&b"hello"[..]));
//! # drop(log);
//! # Ok(())
//! # }
//! ```

#![expect(clippy::result_large_err, reason = "the error is openraft's, and its traits want it")]

// - `log` has the log and the vote, `state` the state machine and its snapshots.
// - What touches a store or the disk is in plain, blocking functions, which tests run on a disk
//   that crashes. The traits of openraft are thin layers around them.

mod blocking;
mod encoding;
mod failure;
mod log;
mod state;
#[cfg(test)]
mod tests;

#[cfg_attr(
    not(feature = "cluster"),
    expect(unused_imports, reason = "clusters alone need it")
)]
pub(crate) use blocking::blocking;
#[cfg(all(test, feature = "cluster"))]
pub(crate) use encoding::{decode, encode_checked};
pub use log::{LogReader, LogStore};
pub use state::apply::Apply;
#[cfg(feature = "cluster")]
pub(crate) use state::copies::open_copy;
#[cfg(feature = "cluster")]
pub(crate) use state::feed::{EntryFeed, EntryPlace, EntryStep, FeedFailure};
pub use state::files::{SnapshotFile, SnapshotFiles};
#[cfg(feature = "cluster")]
pub(crate) use state::limits::{REQUEST_SIZE_MAX, WRITE_OVERHEAD};
pub use state::{SnapshotBuilder, StateMachine, StateStore};
