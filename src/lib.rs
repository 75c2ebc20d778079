//! An embedded key-value store: an append-only log of segment files, an in-memory keydir that knows
//! where every live key is, and clear promises about what survives a crash.
//!
//! ```
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let db = Bitcask::open(path, Options::default())?;
//! db.put("answer", b"42")?;
//! assert_eq!(db.get("answer")?.as_deref(), Some(&b"42"[..]));
//! db.close()
//! # }
//! ```
//!
//! A store is a directory. Every put and every delete is an entry at the end of a log of segment
//! files, and entries are never changed in place. The keydir takes 20 to 31 bytes per key: it
//! records where the key's newest entry lies, and the key itself is read from there.
//!
//! # Opening
//!
//! [`Bitcask::open`] opens a store for reading and writing, and creates it if it does not exist.
//! Only one process at a time can have it open for writing. [`ReadOnly::open`] opens it for
//! reading, in any number of other processes, which catch up with the writer when they call
//! [`refresh`](ReadOnly::refresh). Both dereference to [`Reader`], which has all read operations.
//!
//! Share a [`Bitcask`] between threads by reference or in an [`Arc`](std::sync::Arc): all methods
//! take `&self`. All calls block; there is no async runtime.
//!
//! # Writing
//!
//! [`put`](Bitcask::put) and [`delete`](Bitcask::delete) change one key. A [`Batch`] changes
//! several, all or none, even after a crash. Methods whose names end in `_opt` take
//! [`WriteOptions`]: a time to live, and whether this write has to be durable when it returns.
//!
//! ```
//! use std::time::Duration;
//! use bitcask::{Batch, Bitcask, Options, WriteOptions};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! let hour = WriteOptions::new().ttl(Duration::from_secs(3600));
//! db.put_opt("session/ann", "token", hour)?;
//! let mut batch = Batch::new();
//! batch.put("order/8", "new").delete("cart/ann");
//! db.write(&batch)?;
//! # db.close()
//! # }
//! ```
//!
//! [`update`](Bitcask::update), [`put_if_absent`](Bitcask::put_if_absent) and
//! [`compare_and_swap`](Bitcask::compare_and_swap) depend on what the key holds, and are atomic
//! between threads.
//!
//! # Reading
//!
//! [`get`](Reader::get) returns a [`Value`], which borrows the mapped file and stays valid for as
//! long as you keep it, whatever happens to the key. [`get_with`](Reader::get_with) passes the
//! bytes to a closure and allocates nothing. [`get_many`](Reader::get_many) reads several keys
//! faster than one by one. Methods whose names end in `_with` take a closure.
//!
//! ```
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! db.put("ann", "blue")?;
//! db.put("bob", "green")?;
//! assert_eq!(db.get("ann")?.expect("it was just put"), "blue");
//! assert_eq!(db.get_with("bob", |color| color.len())?, Some(5));
//! let colors = db.get_many(&["ann", "bob", "cid"])?;
//! assert!(colors[1].is_some() && colors[2].is_none());
//! # db.close()
//! # }
//! ```
//!
//! # Scanning
//!
//! [`range`](Reader::range) and [`prefix`](Reader::prefix) return the keys in the order of their
//! bytes, from either end, as of the moment of the call:
//!
//! ```
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! for day in ["2026-11-26", "2026-11-27", "2026-11-28"] {
//!     db.put(format!("log/{day}"), "...")?;
//! }
//! let (newest, _) = db.prefix("log/").next_back().expect("three keys begin with this")?;
//! assert_eq!(newest, "log/2026-11-28");
//! # db.close()
//! # }
//! ```
//!
//! # Snapshots
//!
//! [`snapshot`](Reader::snapshot) returns the store as it is now, in less than a microsecond. A
//! [`Snapshot`] is read and scanned as a store is, and can be kept for as long as you like;
//! meanwhile, the disk space of its segments is not reclaimed.
//!
//! ```
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! db.put("key", "old")?;
//! let snapshot = db.snapshot();
//! db.put("key", "new")?;
//! assert_eq!(snapshot.get("key")?.expect("it was there"), "old");
//! # drop(snapshot);
//! # db.close()
//! # }
//! ```
//!
//! # Transactions
//!
//! [`transaction`](Bitcask::transaction) runs a closure that reads and writes any keys, and commits
//! all of its writes at one moment, as if no other write had happened meanwhile. If anything that
//! it has read has changed, the closure runs again.
//!
//! ```
//! use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! db.put("queue/1", "job")?;
//! let job = db.transaction(|tx| {
//!     let Some((key, job)) = tx.prefix("queue/").next().transpose()? else { return Ok(None) };
//!     tx.delete(key);
//!     Ok(Some(job))
//! })?;
//! assert_eq!(job.as_deref(), Some(&b"job"[..]));
//! # db.close()
//! # }
//! ```
//!
//! # Following changes
//!
//! [`changes`](Reader::changes) returns every put and delete since a [`Position`], in order, and
//! can wait for more. Store the position with what you derive from the changes, and continue from
//! there after a restart. Merges remove history; [`Options::keep_history`] keeps some for followers
//! that are away.
//!
//! ```
//! use bitcask::{Bitcask, Options, Position};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! db.put("key", "value")?;
//! let mut changes = db.changes(Position::START)?;
//! let change = changes.try_recv()?.expect("one change was made");
//! assert_eq!(change.key, "key");
//! let position = change.position.to_bytes(); // To be stored.
//!
//! db.delete("key")?;
//! let mut changes = db.changes(Position::from_bytes(position))?;
//! assert!(changes.try_recv()?.is_some() && changes.try_recv()?.is_none());
//! # db.close()
//! # }
//! ```
//!
//! # Merging
//!
//! Overwritten and deleted entries take disk space until a merge. By default, a background thread
//! merges when that is worthwhile; [`Options::merge_policy`] sets when that is.
//! [`merge`](Bitcask::merge) merges immediately, and [`needs_merge`](Bitcask::needs_merge) returns
//! which segments the policy would merge now. [`pause_merges`](Bitcask::pause_merges) stops merges
//! for a while.
//!
//! ```
//! use bitcask::{Bitcask, MergeOptions, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let db = Bitcask::open(dir.path(), Options::default())?;
//! for round in 0..100_u32 {
//!     db.put("key", round.to_be_bytes())?;
//! }
//! let report = db.merge_opt(MergeOptions::new().force(true))?;
//! assert_eq!(report.live_entries, 1);
//! # db.close()
//! # }
//! ```
//!
//! # Backing up and repairing
//!
//! [`backup`](Bitcask::backup) makes a consistent copy while the store is in use, mostly by hard
//! links. [`verify`](Reader::verify) checks every entry. If a store does not open because durable
//! data is damaged, [`repair`] reports what is wrong and copies what is intact into a new store.
//!
//! ```
//! use std::ops::ControlFlow;
//! use bitcask::{Bitcask, Options, repair};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let [path, copy, salvaged] = ["a", "b", "c"].map(|name| dir.path().join(name));
//! let db = Bitcask::open(&path, Options::default())?;
//! db.put("key", "value")?;
//! db.backup(&copy)?;
//! assert!(db.verify()?.is_clean());
//! db.close()?;
//!
//! // A store that is not open:
//! assert!(repair::verify(&path)?.is_clean());
//! let report = repair::salvage(&path, &salvaged, |_| ControlFlow::Continue(()))?;
//! assert!(report.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! The feature `import` adds the module `import`, which reads the stores of bitcaskpy, pybitcask,
//! Basho's bitcask and prologic's bitcask.
//!
//! # Tuning
//!
//! [`Options::sync_policy`] determines what a power loss can take and how long a write takes,
//! [`Options::segment_size`] how much a merge handles at a time, and `Options::compression` whether
//! values are compressed. If a program has many stores, they can share their threads:
//! [`Options::background`]. [`Reader::stats`] reports sizes, and how close the store is to its
//! limits; [`Reader::counters`] what the store has done, and how long that took.
//!
//! ```
//! use bitcask::{Bitcask, Options, SyncPolicy};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let options = Options::new().sync_policy(SyncPolicy::Always).segment_size(16 << 20);
//! let db = Bitcask::open(dir.path(), options)?;
//! db.put("key", "value")?; // It is durable when this returns.
//! assert!(db.stats().syncs > 0);
//! assert_eq!(db.counters().puts, 1);
//! # db.close()
//! # }
//! ```
//!
//! # Optional features
//!
//! - `client`: the module `client` has a server's store as a [`ReadStore`] and a [`WriteStore`].
//! - `lz4` and `zstd`: values are compressed if the options ask for it.
//! - `resp`: the module `resp` serves a store to clients of Redis.
//! - `serde`: the module `typed` has typed keys and values, with ranges in the order of the type.
//! - `metrics`: `MetricsPublisher` publishes counters, gauges and histograms through the facade of
//!   that name.
//! - `server`: the module `server` serves a store over HTTP.
//! - `tracing`: spans and events of opening, recovery, seals, syncs, merges, failures and slow
//!   operations.
//!
//! # Further pages
//!
//! - [`cookbook`]: recipes for sessions, caches, indexes, queues, async code and more.
//! - [`migration`]: the calls of other stores and those of this one side by side.
//! - [`format`](mod@format): every byte on disk.
//!
//! # Promises
//!
//! 1. If [`Bitcask::sync`] has returned, or a write under [`SyncPolicy::Always`], the data survives
//!    a kill, a kernel crash and a power loss.
//! 2. Under every policy, a write that has returned survives the death of the process.
//! 3. Recovery restores the state after some prefix of the writes, which includes everything up to
//!    the last sync. A batch is recovered as a whole or not at all.
//! 4. A deleted key does not return, and no read returns bytes that were not written under its key.
//! 5. If data that is known to be durable is damaged, opening fails with [`Error::Corrupt`].
//!    Anything else that opening cannot read is set aside, and [`Reader::recovery`] reports it.
//! 6. After a write fails half-way or a sync fails, writes are refused and reads continue. If the
//!    disk is full, the write fails and the store stays usable.

#![warn(clippy::disallowed_methods)]
#![cfg_attr(
    any(test, bitcask_fuzzing),
    expect(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "what tests and fuzz targets share fails loudly; the rest is linted without it"
    )
)]
#![cfg_attr(
    all(bitcask_fuzzing, not(test)),
    expect(dead_code, reason = "only tests use some of this")
)]
#![cfg_attr(
    all(loom, test),
    expect(dead_code, unused_imports, reason = "tests that no model needs are left out")
)]

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!("bitcask needs a 64-bit Unix system: it maps whole segments");

mod error;
mod mistake;
mod process;
mod value;

mod clock;
mod stats;

mod codec;

mod sync;

mod trace;

mod background;
mod options;

mod counters;
mod epoch;
mod prefetch;

mod fs;

mod entry;
mod key_hash;

mod keydir;
mod segment;

mod manifest;

mod log;
mod recovery;

mod merge;

mod store;

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod dialect;
mod followed;
pub mod inspect;
pub mod repair;

#[cfg(any(feature = "metrics", feature = "server"))]
mod figures;
#[cfg(any(feature = "resp", feature = "server"))]
mod listener;

#[cfg(feature = "cluster")]
pub mod cluster;
// Tests and fuzz targets have it in every build.
#[cfg(any(feature = "import", test, bitcask_fuzzing))]
pub mod import;
#[cfg(feature = "metrics")]
mod publish;
#[cfg(feature = "raft")]
pub mod raft;
#[cfg(any(feature = "resp", feature = "server"))]
#[cfg_attr(
    not(feature = "server"),
    expect(dead_code, reason = "the server is what follows; the Redis port only looks")
)]
mod replica;
#[cfg(feature = "resp")]
pub mod resp;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "serde")]
pub mod typed;
// Tests and fuzz targets have it in every build.
#[cfg(any(feature = "resp", test, bitcask_fuzzing))]
mod wire;

#[cfg(doctest)]
mod doc_pages;
#[cfg(test)]
mod format_tests;
#[cfg(any(test, bitcask_fuzzing))]
mod testing;
#[cfg(all(any(test, bitcask_fuzzing), not(loom)))]
#[doc(hidden)]
pub use testing::fuzzing;

pub mod cookbook;
#[doc = include_str!("../docs/format.md")]
pub mod format {}
pub mod migration;

pub use background::Background;
pub use error::{Error, Result};
pub use options::{
    AppendMode, AutoMerge, Compression, History, MergeOptions, MergePolicy, Options, SyncPolicy,
    TransactionOptions, WriteOptions,
};
#[cfg(feature = "metrics")]
pub use publish::MetricsPublisher;
pub use recovery::{Cut, RecoveryReport};
#[cfg(any(feature = "resp", feature = "server"))]
pub use replica::{Replica, ReplicaLag};
pub use stats::{
    Counters, Histogram, MergePlan, MergeProgress, MergeReason, MergeReport, PlannedSegment,
    SegmentStats, Stats,
};
pub use store::{
    Backlog, BackupReport, Batch, Bitcask, Change, Changes, CompareAndSwapError, Damage, Expiry,
    HistoryLease, KeyRange, MergePause, Operation, Position, Range, RangeKeys, ReadOnly, ReadStore,
    Reader, Snapshot, Transaction, TransactionRange, Ttl, UnorderedIter, UnorderedKeys,
    VerifyProgress, VerifyReport, Version, WriteStore,
};
pub use value::Value;
