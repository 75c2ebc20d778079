//! An embedded key-value store: an append-only log of segment files, a keydir in memory that
//! knows where every live key is, and a plain promise about what survives a crash.
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
//! The store is a directory. Every put and every delete is an entry at the end of a log of
//! segment files, and entries are never rewritten. The keydir holds 16 bytes a key: where its
//! newest entry lies. The key itself is read from the log, where its value is.
//!
//! # Promises
//!
//! 1. What [`Bitcask::sync`] or a write under [`SyncPolicy::Always`] has returned for is there
//!    after a kill, a kernel crash, and a power loss.
//! 2. A write that has returned survives the death of the process under every policy.
//! 3. What is recovered is the state after some first part of the writes, at or after the last
//!    sync; a batch is there whole or not at all.
//! 4. A deleted key does not return, and no read returns bytes that were not written under its key.
//! 5. Damage to data known to be durable is an [`Error::Corrupt`]; whatever else opening can't
//!    read is set aside, and [`Reader::recovery`] tells of it.
//! 6. The first write or sync that fails half-way ends writing, reads go on; a full disk only fails
//!    the write that meets it.

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
    expect(dead_code, reason = "some of that only tests use")
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
mod options;

mod sync;

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

mod background;
mod store;

pub mod repair;

#[cfg(test)]
mod format_tests;
#[cfg(any(test, bitcask_fuzzing))]
mod testing;
#[cfg(all(any(test, bitcask_fuzzing), not(loom)))]
#[doc(hidden)]
pub use testing::fuzzing;

#[doc = include_str!("../docs/format.md")]
pub mod format {}

pub use error::{Error, Result};
pub use options::{
    AppendMode, AutoMerge, Compression, MergeOptions, MergePolicy, Options, SyncPolicy,
    TransactionOptions, WriteOptions,
};
pub use recovery::{Cut, RecoveryReport};
pub use stats::{
    MergePlan, MergeProgress, MergeReason, MergeReport, PlannedSegment, SegmentStats, Stats,
};
pub use store::{
    BackupReport, Batch, Bitcask, Change, Changes, CompareAndSwapError, Damage, Iter, KeyRange,
    Keys, MergePause, Operation, Position, Range, RangeKeys, ReadOnly, Reader, Snapshot,
    Transaction, TransactionRange, Ttl, VerifyProgress, VerifyReport, Version,
};
pub use value::Value;

/// The README's code, compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[derive(Debug)]
pub struct ReadmeDoctests;
