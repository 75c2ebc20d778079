//! What a merge is going to do, is doing, and has done.

use std::fmt;
use std::time::Duration;

/// Which segments a merge takes, and why.
///
/// Made without touching the disk. Empty if nothing is worth a merge.
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

    /// Returns the size of all its segments in bytes: what is read, at most.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Returns the size in bytes of the live entries in its segments: what is copied, but for
    /// tombstones that are still needed.
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
    /// Why it was chosen.
    pub reason: MergeReason,
    /// The size of its file in bytes.
    pub size: u64,
    /// The size in bytes of the entries in it that are live.
    pub live_size: u64,
}

impl PlannedSegment {
    pub(crate) fn new(stats: &super::SegmentStats, reason: MergeReason) -> Self {
        Self { id: stats.id, reason, size: stats.size, live_size: stats.live_size }
    }
}

/// Why a segment is merged. Shown as a phrase for people.
///
/// ```
/// assert_eq!(bitcask::MergeReason::Small.to_string(), "small, and so is its neighbour");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MergeReason {
    /// A large part of it is dead:
    /// [`AutoMerge::dead_percent`](crate::AutoMerge::dead_percent).
    DeadRatio,
    /// Many bytes of it are dead: [`AutoMerge::dead_size`](crate::AutoMerge::dead_size).
    DeadSize,
    /// It, and a segment beside it, are so small that they are better one:
    /// [`AutoMerge::small_size`](crate::AutoMerge::small_size). Or the segment beside it is merged
    /// for another reason.
    Small,
    /// Much of it is dead, or its time to live is over.
    Expired,
    /// Enough of it is dead for a store at rest:
    /// [`AutoMerge::idle_dead_percent`](crate::AutoMerge::idle_dead_percent).
    Idle,
    /// It was asked for: [`MergeOptions::segments`](crate::MergeOptions::segments).
    Chosen,
    /// All were asked for: [`MergeOptions::force`](crate::MergeOptions::force).
    Forced,
}

impl fmt::Display for MergeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeadRatio => "a large part is dead",
            Self::DeadSize => "many bytes are dead",
            Self::Small => "small, and so is its neighbour",
            Self::Expired => "much is dead or expired",
            Self::Idle => "enough is dead for a store at rest",
            Self::Chosen => "chosen by the caller",
            Self::Forced => "all were asked for",
        })
    }
}

/// How far a merge has come, for the callback of
/// [`MergeOptions::progress`](crate::MergeOptions::progress).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeProgress {
    /// Segments that are done.
    pub segments_done: u64,
    /// Segments of the whole run.
    pub segments_total: u64,
    /// Bytes that are done: of all segments that are, and of the one that is being read.
    pub read_size: u64,
    /// Bytes of all segments of the run.
    pub total_size: u64,
    /// Bytes that were copied so far.
    pub copied_size: u64,
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeReport {
    /// Segments that were copied from and are gone.
    pub segments_in: u64,
    /// Their size in bytes.
    pub size_in: u64,
    /// Segments that were written.
    pub segments_out: u64,
    /// Their size in bytes.
    pub size_out: u64,
    /// Live entries that were copied.
    pub live_entries: u64,
    /// Tombstones that were kept: an older segment that was not merged may hold the key. Those that
    /// took the place of an expired entry are among them.
    pub tombstones_kept: u64,
    /// Tombstones that were dropped.
    pub tombstones_dropped: u64,
    /// Expired entries that were dropped.
    pub expired_dropped: u64,
    /// Whether it was stopped before its end, by a callback or because the store was closed or
    /// cleared. What it had got through is done.
    pub cancelled: bool,
    /// How long it took.
    pub duration: Duration,
}

impl MergeReport {
    /// Adds what another merge of the same call did.
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

    /// Returns how many bytes of log were given back, sidecar files not counted.
    pub fn freed_size(&self) -> u64 {
        self.size_in.saturating_sub(self.size_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_sums_up_its_segments() {
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
    fn what_was_freed_is_what_went_in_and_did_not_come_out() {
        let report = MergeReport { size_in: 100, size_out: 30, ..MergeReport::default() };
        assert_eq!(report.freed_size(), 70);
        // Copied from a segment that is still there.
        let report = MergeReport { size_in: 0, size_out: 30, ..MergeReport::default() };
        assert_eq!(report.freed_size(), 0);
    }
}
