//! Figures about a store at one moment, plain data. `merge` has those about a merge.

mod merge;

use std::time::Duration;

pub use merge::{MergePlan, MergeProgress, MergeReason, MergeReport, PlannedSegment};

/// Figures about a store at one moment, from [`Reader::stats`](crate::Reader::stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that the keydir holds, expired ones that nothing has removed yet among them: these count until
    /// a merge, or a change of the key, has removed them. [`Snapshot::len`](crate::Snapshot::len) counts those
    /// that are there.
    pub keys: u64,
    /// Parts of the keydir, of 4,096, whose keys have not been gathered since the store was opened. Until it
    /// is 0, `keys` and `live_size` count only what has been gathered, and the rest of the log counts as
    /// dead.
    pub unfilled_shards: u64,
    /// Segments, the active one among them.
    pub segments: u64,
    /// Segments that are sealed: listed in the manifest, synced, never written again.
    pub sealed_segments: u64,
    /// The most segments that the store may have: with so many it takes no more puts. Deletes, merges and
    /// clears may have some more.
    pub segments_limit: u64,
    /// Segments of this store that have no mapping: their files are opened for each read.
    pub unmapped_segments: u64,
    /// Mappings that segments of all stores of this process have.
    pub mappings: u64,
    /// The most mappings that segments of all stores of this process may have: a quarter of what the
    /// kernel allows the process. Segments beyond them do without.
    pub mappings_limit: u64,
    /// Files that all stores of this process have open.
    pub descriptors: u64,
    /// Bytes of log: headers and entries of all segments, preallocated room not counted.
    pub log_size: u64,
    /// Bytes of the entries that the keydir points to.
    pub live_size: u64,
    /// Bytes of log that a merge could give back: overwritten, deleted, and tombstones.
    pub dead_size: u64,
    /// Memory that the keydir takes, in bytes.
    pub keydir_size: u64,
    /// Entries appended since the store was opened: puts and deletes.
    pub appends: u64,
    /// Bytes appended since the store was opened.
    pub appended_size: u64,
    /// Times that the log was synced since the store was opened.
    pub syncs: u64,
    /// Snapshots that have not been dropped, those that ordered iterators and transactions hold
    /// among them.
    pub snapshots: u64,
    /// How long the oldest of them has been there.
    pub oldest_snapshot: Option<Duration>,
    /// Segments that are no part of the store any more, and whose files stay because a snapshot
    /// needs them.
    pub pinned_segments: u64,
    /// Bytes of those segments: what dropping all snapshots would give back.
    pub pinned_size: u64,
    /// Segments that are no part of the store any more, and that are still open because a call may be
    /// reading them. Their memory, and the disk space of their files, comes back a second or so after all
    /// calls of that time have returned; in a store opened read-only, with the next refresh. If they stay
    /// for longer, the usual cause is a closure given to [`get_with`](crate::Reader::get_with) or one of
    /// its kin that does not return.
    pub retired_segments: u64,
    /// How long the oldest of them has waited, or the oldest table of the keydir that was replaced.
    pub oldest_retired: Option<Duration>,
    /// Bytes that are set aside on the disk for what is still to be written: behind the end of the active
    /// segment, for the next manifest, and for deletes, merges and [`clear`](crate::Bitcask::clear) once
    /// the disk is full. Where it gets low the disk is full, or nearly so.
    pub reserve_size: u64,
}

impl Stats {
    /// Returns the part of the log that is dead, from 0 to 1.
    pub fn dead_ratio(&self) -> f64 {
        if self.log_size == 0 { 0.0 } else { ratio(self.dead_size, self.log_size) }
    }
}

/// Figures about one sealed segment.
///
/// All sizes are in bytes. Age is the place in a list: the oldest segment is the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// The segment's id, which is its file's name.
    pub id: u32,
    /// Size of the file: its header and all entries.
    pub size: u64,
    /// Size of the entries that the keydir points to.
    pub live_size: u64,
    /// Size of the tombstones.
    pub tombstone_size: u64,
    /// Size of the entries whose time to live is over for certain, dead ones among them: what only a jump
    /// of the clock has ended counts a day later. An estimate that is never too high: a segment keeps
    /// account of it in 16 steps.
    pub expired_size: u64,
    /// Puts and deletes.
    pub entries: u64,
    /// Whether a merge wrote it.
    pub merged: bool,
}

impl SegmentStats {
    /// The size of a segment's header.
    pub(crate) const HEADER_SIZE: u64 = 64;

    /// Returns the size of the entries: all but the file's header.
    pub(crate) fn content_size(&self) -> u64 {
        self.size.saturating_sub(Self::HEADER_SIZE)
    }

    /// Returns the size of the entries that the keydir does not point to: what was overwritten or
    /// deleted, and tombstones.
    pub fn dead_size(&self) -> u64 {
        self.content_size().saturating_sub(self.live_size)
    }

    /// Returns the part of the entries that is dead, from 0 to 1.
    pub fn dead_ratio(&self) -> f64 {
        let content = self.content_size();
        if content == 0 { 0.0 } else { ratio(self.dead_size(), content) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people needs no 53 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_live_nor_header_is_dead() {
        let stats = SegmentStats { size: 64 + 400, live_size: 100, ..SegmentStats::default() };
        assert_eq!(stats.dead_size(), 300);
        assert!((stats.dead_ratio() - 0.75).abs() < f64::EPSILON);
    }

    #[test]
    fn a_segment_without_entries_has_nothing_dead() {
        for size in [0, 64] {
            let stats = SegmentStats { size, ..SegmentStats::default() };
            assert_eq!(stats.dead_size(), 0);
            assert!(stats.dead_ratio().abs() < f64::EPSILON);
        }
    }
}
