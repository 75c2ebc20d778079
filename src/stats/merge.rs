//! The plan, the progress and the report of a merge.

use std::fmt;
use std::time::Duration;

/// Which segments a merge will process, and why.
///
/// Computed without touching the disk. Empty if no merge is worthwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a plan merges nothing"]
pub struct MergePlan {
    /// The segments, oldest first.
    pub segments: Vec<PlannedSegment>,
}

impl MergePlan {
    /// Returns whether there is nothing to merge.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Returns the total size of the segments in bytes, which is the most that the merge reads.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Returns the size in bytes of the live entries in the segments: the amount that the merge
    /// copies, apart from tombstones that are still needed.
    pub fn live_size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live_size).sum()
    }
}

/// One segment of a [`MergePlan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedSegment {
    /// The segment's id, which is its file's name.
    pub id: u32,
    /// Why the segment was chosen.
    pub reason: MergeReason,
    /// The size of its file in bytes.
    pub size: u64,
    /// The size of its live entries in bytes.
    pub live_size: u64,
}

impl PlannedSegment {
    pub(crate) fn new(stats: &super::SegmentStats, reason: MergeReason) -> Self {
        Self { id: stats.id, reason, size: stats.size, live_size: stats.live_size }
    }
}

/// Why a segment is merged. Displayed as a phrase for people.
///
/// ```
/// assert_eq!(bitcask::MergeReason::Small.to_string(), "small, folded with its neighbours");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MergeReason {
    /// A large share of it is dead: [`AutoMerge::dead_percent`](crate::AutoMerge::dead_percent).
    DeadRatio,
    /// Many bytes of it are dead: [`AutoMerge::dead_size`](crate::AutoMerge::dead_size).
    DeadSize,
    /// The segment and an adjacent one are so small that they are better combined:
    /// [`AutoMerge::small_size`](crate::AutoMerge::small_size). Or the adjacent segment is merged
    /// for another reason.
    Small,
    /// Much of it is dead or has expired.
    Expired,
    /// Enough of it is dead for an idle store:
    /// [`AutoMerge::idle_dead_percent`](crate::AutoMerge::idle_dead_percent).
    Idle,
    /// The caller chose it: [`MergeOptions::segments`](crate::MergeOptions::segments).
    Chosen,
    /// The caller requested all segments: [`MergeOptions::force`](crate::MergeOptions::force).
    Forced,
}

impl fmt::Display for MergeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeadRatio => "a large part is dead",
            Self::DeadSize => "many bytes are dead",
            Self::Small => "small, folded with its neighbours",
            Self::Expired => "much is dead or expired",
            Self::Idle => "enough is dead for an idle store",
            Self::Chosen => "chosen by the caller",
            Self::Forced => "all segments were requested",
        })
    }
}

/// The progress of a merge, for the callback of
/// [`MergeOptions::progress`](crate::MergeOptions::progress).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeProgress {
    /// Segments completed.
    pub segments_done: u64,
    /// Segments in the whole run.
    pub segments_total: u64,
    /// Bytes processed: all of the completed segments, and a part of the one that is being read.
    pub read_size: u64,
    /// Total size in bytes of all segments in the run.
    pub total_size: u64,
    /// Bytes copied so far.
    pub copied_size: u64,
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeReport {
    /// Input segments that were merged and removed.
    pub segments_in: u64,
    /// Size of the input segments in bytes.
    pub size_in: u64,
    /// Output segments that were written.
    pub segments_out: u64,
    /// Size of the output segments in bytes.
    pub size_out: u64,
    /// Live entries that were copied.
    pub live_entries: u64,
    /// Tombstones that were kept because an older segment outside the merge may hold the key. This
    /// includes tombstones that replaced an expired entry.
    pub tombstones_kept: u64,
    /// Tombstones that were dropped.
    pub tombstones_dropped: u64,
    /// Expired entries that were dropped.
    pub expired_dropped: u64,
    /// Whether the merge was stopped early, by a callback or because the store was closed or
    /// cleared. The completed part of the work is kept.
    pub cancelled: bool,
    /// How long the merge took.
    pub duration: Duration,
}

impl MergeReport {
    /// Adds the figures of another merge in the same call.
    pub(crate) fn add(&mut self, other: &Self) {
        self.segments_in += other.segments_in;
        self.size_in += other.size_in;
        self.segments_out += other.segments_out;
        self.size_out += other.size_out;
        self.live_entries += other.live_entries;
        self.tombstones_kept += other.tombstones_kept;
        self.tombstones_dropped += other.tombstones_dropped;
        self.expired_dropped += other.expired_dropped;
    }

    /// Returns how many bytes of log were freed, not counting sidecar files.
    pub fn freed_size(&self) -> u64 {
        self.size_in.saturating_sub(self.size_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_adds_up_its_segments() {
        let segment = |id, size, live_size| PlannedSegment {
            id,
            reason: MergeReason::DeadRatio,
            size,
            live_size,
        };
        let plan = MergePlan { segments: vec![segment(1, 100, 10), segment(2, 50, 0)] };
        assert_eq!((plan.is_empty(), plan.size(), plan.live_size()), (false, 150, 10));
        assert!(MergePlan::default().is_empty());
    }

    #[test]
    fn the_freed_size_is_input_minus_output() {
        let report = MergeReport { size_in: 100, size_out: 30, ..MergeReport::default() };
        assert_eq!(report.freed_size(), 70);
        // Copied from a segment that still exists.
        let report = MergeReport { size_in: 0, size_out: 30, ..MergeReport::default() };
        assert_eq!(report.freed_size(), 0);
    }
}
