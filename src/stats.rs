//! Figures about a store, as plain data: at one moment, and since it was opened (`counters` and
//! `histogram`). `merge` holds the figures about merges.

mod counters;
mod histogram;
mod merge;

use std::time::Duration;

pub use counters::Counters;
pub use histogram::Histogram;
pub use merge::{MergePlan, MergeProgress, MergeReason, MergeReport, PlannedSegment};

pub(crate) use histogram::{BUCKET_COUNT, bucket_of};

/// Figures about a store at one moment, from [`Reader::stats`](crate::Reader::stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the keydir. This includes expired keys until a merge, or a change of the key,
    /// removes them. [`Snapshot::len`](crate::Snapshot::len) counts only keys that have not
    /// expired.
    pub keys: u64,
    /// Parts of the keydir, out of 4,096, that have not been filled since the store was opened.
    /// Until this is 0, `keys` and `live_size` cover only the filled parts, and the rest of the log
    /// counts as dead.
    pub unfilled_shards: u64,
    /// Segments, including the active one.
    pub segments: u64,
    /// Sealed segments: listed in the manifest, synced, and never written again.
    pub sealed_segments: u64,
    /// Maximum number of segments. When it is reached, the store accepts no more puts. Deletes,
    /// merges and clears may add a few more.
    pub segments_limit: u64,
    /// Segments of this store without a mapping: their files are opened for each read.
    pub unmapped_segments: u64,
    /// Mappings of segments, over all stores of this process.
    pub mappings: u64,
    /// Maximum number of mappings for segments, over all stores of this process: a quarter of what
    /// the kernel allows the process. Further segments are not mapped.
    pub mappings_limit: u64,
    /// Files that are open, over all stores of this process.
    pub descriptors: u64,
    /// Size of the log in bytes: headers and entries of all segments, without preallocated space.
    pub log_size: u64,
    /// Size in bytes of the entries to which the keydir points.
    pub live_size: u64,
    /// Size in bytes of the part of the log that merges could free, except for `history_size`:
    /// overwritten and deleted entries, and tombstones.
    pub dead_size: u64,
    /// Sealed segments that merges leave alone for their history, by
    /// [`Options::keep_history`](crate::Options::keep_history). Always 0 in a read-only store.
    pub history_segments: u64,
    /// The part of `dead_size` in those segments: the disk space that keeping history costs, and
    /// that no merge frees as long as they are kept.
    pub history_size: u64,
    /// Size of the keydir in memory, in bytes.
    pub keydir_size: u64,
    /// Puts and deletes appended since the store was opened.
    pub appends: u64,
    /// Bytes appended since the store was opened.
    pub appended_size: u64,
    /// Syncs of the log since the store was opened.
    pub syncs: u64,
    /// Snapshots that have not been dropped, including those of ordered iterators and transactions.
    pub snapshots: u64,
    /// Age of the oldest snapshot.
    pub oldest_snapshot: Option<Duration>,
    /// Segments that no longer belong to the store, but whose files stay because a snapshot needs
    /// them.
    pub pinned_segments: u64,
    /// Size of those segments in bytes: the space that dropping all snapshots would free.
    pub pinned_size: u64,
    /// Segments that no longer belong to the store, but are still open because a call may be
    /// reading them. Their memory, and the disk space of their files, is freed about a second after
    /// all calls of that time have returned. In a store opened read-only, it is freed with the next
    /// refresh. If segments stay for longer, the usual cause is a closure passed to
    /// [`get_with`](crate::Reader::get_with) or a similar method that does not return.
    pub retired_segments: u64,
    /// How long the oldest of them, or the oldest replaced table of the keydir, has been waiting.
    pub oldest_retired: Option<Duration>,
    /// Disk space in bytes that is reserved for future writes: after the end of the active segment,
    /// for the next manifest, and for deletes, merges and [`clear`](crate::Bitcask::clear) once the
    /// disk is full. A low value means that the disk is full, or nearly so.
    pub reserve_size: u64,
}

impl Stats {
    /// Returns the dead share of the log, from 0 to 1.
    pub fn dead_ratio(&self) -> f64 {
        if self.log_size == 0 { 0.0 } else { ratio(self.dead_size, self.log_size) }
    }
}

/// Figures about one sealed segment.
///
/// All sizes are in bytes. A segment's age is its position in a list of segments, the oldest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentStats {
    /// The segment's id, which is its file's name.
    pub id: u32,
    /// Size of the file: its header and all entries.
    pub size: u64,
    /// Size of the entries to which the keydir points.
    pub live_size: u64,
    /// Size of the tombstones.
    pub tombstone_size: u64,
    /// Size of the entries, including dead ones, that have certainly expired. Entries that have
    /// expired only because the clock jumped count a day later. This is an estimate that is never
    /// too high: a segment records expiry in 16 steps.
    pub expired_size: u64,
    /// Puts and deletes.
    pub entries: u64,
    /// Whether a merge wrote the segment.
    pub merged: bool,
    /// Whether merges leave the segment alone for its history, by
    /// [`Options::keep_history`](crate::Options::keep_history).
    pub history: bool,
}

impl SegmentStats {
    /// Size of a segment's header in bytes.
    pub(crate) const HEADER_SIZE: u64 = 64;

    /// Returns the size of the entries: everything except the file's header.
    pub(crate) fn content_size(&self) -> u64 {
        self.size.saturating_sub(Self::HEADER_SIZE)
    }

    /// Returns the size of the entries to which the keydir does not point: overwritten and deleted
    /// entries, and tombstones.
    pub fn dead_size(&self) -> u64 {
        self.content_size().saturating_sub(self.live_size)
    }

    /// Returns the dead share of the entries, from 0 to 1.
    pub fn dead_ratio(&self) -> f64 {
        let content = self.content_size();
        if content == 0 { 0.0 } else { ratio(self.dead_size(), content) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people needs fewer than 53 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_except_header_and_live_entries_is_dead() {
        let stats = SegmentStats { size: 64 + 400, live_size: 100, ..SegmentStats::default() };
        assert_eq!(stats.dead_size(), 300);
        assert!((stats.dead_ratio() - 0.75).abs() < f64::EPSILON);
    }

    #[test]
    fn a_segment_without_entries_has_no_dead_bytes() {
        for size in [0, 64] {
            let stats = SegmentStats { size, ..SegmentStats::default() };
            assert_eq!(stats.dead_size(), 0);
            assert!(stats.dead_ratio().abs() < f64::EPSILON);
        }
    }
}
