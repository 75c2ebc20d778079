//! What opening a store has to tell.

use std::path::PathBuf;

/// What opening a store found and did, from [`Reader::recovery`](crate::Reader::recovery).
///
/// After a clean close there is nothing to tell: [`is_clean`](Self::is_clean) says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segments that had not been sealed, whose entries were recovered one by one.
    pub recovered_segments: u64,
    /// Puts and deletes that were recovered from them.
    pub recovered_entries: u64,
    /// What was cut off, oldest first: what a crash left of writes that were not yet durable.
    ///
    /// A read-only open cuts nothing, and tells what it left out; beside a writer that may be what
    /// was just being written.
    pub cuts: Vec<Cut>,
    /// Files that an interrupted operation had left behind, and that were removed.
    pub leftovers: Vec<PathBuf>,
    /// Hints that were missing or unusable, and were built anew. One whose damage is only found when
    /// a part of it is read, later, is built anew too, and does not count here.
    pub rebuilt_hints: u64,
    /// Sealed segments that got no mapping, since those that segments of this process may have were used
    /// up, or the system refused. Their files are opened for each read. See
    /// [`Stats::mappings`](crate::Stats::mappings).
    pub unmapped_segments: u64,
}

impl RecoveryReport {
    /// Returns whether the store had been closed in order and nothing had to be done.
    pub fn is_clean(&self) -> bool {
        let unmapped_segments = self.unmapped_segments;
        *self == Self { unmapped_segments, ..Self::default() }
    }
}

/// Bytes behind the end of the log that could not be read as entries, and were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment that was cut, or removed with all that was in it.
    pub path: PathBuf,
    /// Where it was cut, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes were set aside, zeros at the end not counted.
    pub size: u64,
    /// Where they are now; nothing if the store was opened read-only.
    pub quarantine: Option<PathBuf>,
    /// Why the log ends there.
    pub reason: String,
}
