//! The report on opening a store.

use std::path::PathBuf;

/// What opening a store found and did, from [`Reader::recovery`](crate::Reader::recovery).
///
/// After a clean close there is nothing to report, and [`is_clean`](Self::is_clean) returns `true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Unsealed segments, whose entries were recovered one by one.
    pub recovered_segments: u64,
    /// Puts and deletes recovered from them.
    pub recovered_entries: u64,
    /// What was cut off, oldest first: remains of writes that a crash interrupted before they were
    /// durable.
    ///
    /// A read-only open cuts nothing, and reports what it left out. If another process is writing,
    /// that may be a write in progress.
    pub cuts: Vec<Cut>,
    /// Files left behind by an interrupted operation, which were removed.
    pub leftovers: Vec<PathBuf>,
    /// Hints that were missing or unusable and were rebuilt. A hint whose damage is found only
    /// later, when a part of it is read, is rebuilt too, but does not count here.
    pub rebuilt_hints: u64,
    /// Sealed segments that got no mapping, because the process's mappings for segments were used
    /// up or the system refused one. Their files are opened for each read. See
    /// [`Stats::mappings`](crate::Stats::mappings).
    pub unmapped_segments: u64,
}

impl RecoveryReport {
    /// Returns whether the store had been closed properly and nothing had to be done.
    pub fn is_clean(&self) -> bool {
        let unmapped_segments = self.unmapped_segments;
        *self == Self { unmapped_segments, ..Self::default() }
    }
}

/// Bytes after the end of the log that could not be read as entries and were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment that was cut, or removed as a whole.
    pub path: PathBuf,
    /// Where it was cut, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes were set aside, not counting trailing zeros.
    pub size: u64,
    /// Where the bytes are now, or `None` if the store was opened read-only.
    pub quarantine: Option<PathBuf>,
    /// Why the log ends there.
    pub reason: String,
}
