//! Which segments a merge takes, and why: a pure function of figures, policy and hour.
//!
//! - Every plan that is not empty makes progress: a segment joins because a merge frees a part of
//!   it, or small segments are folded into fewer. So without writes, repeated planning ends.
//! - Tombstones of a merged segment count as live while there is an older segment, since the merge
//!   that wrote it found that they are needed. Tombstones of a log segment count as dead. If a
//!   merge keeps them, they are in a merged segment from then on.
//! - Segments that are kept for their history join no plan. Their dead entries trigger nothing.
//! - All of this requires that outputs are filled up to the limits of the log's segments and are
//!   marked as merged.

#[cfg(test)]
mod overwrite_tests;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::options::AutoMerge;
use crate::segment::FIRST_OFFSET;
use crate::stats::{MergePlan, MergeReason, PlannedSegment, SegmentStats};

const _: () = assert!(SegmentStats::HEADER_SIZE == FIRST_OFFSET);

/// Size in bytes of the entries in a log segment that do not belong to keys: its end entry, and a
/// mark. So few bytes are not worth a merge that has to copy anything.
const NOTES_SIZE: u64 = 64;

/// The segments that a plan may choose from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool<'a> {
    /// All sealed segments, oldest first.
    pub(crate) segments: &'a [SegmentStats],
    /// Segments that an earlier merge could not read. They are merged only if the caller names
    /// them.
    pub(crate) damaged: &'a BTreeSet<u32>,
    /// Size in bytes at which a segment is full; `segment_entries` is the number of entries at
    /// which it is.
    pub(crate) segment_size: u64,
    pub(crate) segment_entries: u64,
}

/// The circumstances of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlanContext {
    /// Hour of the day, in UTC.
    pub(crate) hour: u8,
    /// Whether nothing was written since the last plan.
    pub(crate) idle: bool,
}

impl PlanContext {
    /// Makes a context of a time in microseconds since the epoch.
    pub(crate) fn new(time: u64, idle: bool) -> Self {
        const HOUR: u64 = 3600 * 1_000_000;
        Self { hour: (time / HOUR % 24) as u8, idle }
    }
}

/// Plans a merge by policy.
pub(crate) fn plan_auto(pool: Pool<'_>, policy: &AutoMerge, at: PlanContext) -> MergePlan {
    let mut candidates = candidates(pool, policy, at.idle);
    if !is_open(policy.window, at.hour) || !is_triggered(&candidates, policy, at.idle) {
        return MergePlan::default();
    }
    cut(&mut candidates, policy.bytes_max);
    plan(&candidates)
}

/// Plans an explicit merge: everything that is worth merging in an idle store, at any hour.
pub(crate) fn plan_now(pool: Pool<'_>, policy: &AutoMerge) -> MergePlan {
    plan(&candidates(pool, policy, true))
}

/// Plans a merge of all segments, except those that are kept for their history.
pub(crate) fn plan_all(segments: &[SegmentStats]) -> MergePlan {
    let free = segments.iter().filter(|stats| !stats.history);
    let planned = free.map(|stats| PlannedSegment::new(stats, MergeReason::Forced));
    MergePlan { segments: planned.collect() }
}

/// Plans a merge of segments that the caller names.
pub(crate) fn plan_chosen(segments: &[SegmentStats], ids: &BTreeSet<u32>) -> Result<MergePlan> {
    let known: BTreeSet<u32> = segments.iter().map(|stats| stats.id).collect();
    if let Some(unknown) = ids.difference(&known).next() {
        return Err(Error::InvalidOption {
            name: "segments",
            value: unknown.to_string(),
            reason: "no sealed segment has this id",
        });
    }
    let chosen = || segments.iter().filter(|stats| ids.contains(&stats.id));
    if let Some(kept) = chosen().find(|stats| stats.history) {
        return Err(Error::InvalidOption {
            name: "segments",
            value: kept.id.to_string(),
            reason: "the segment is kept for its history, by `Options::keep_history` or for a follower; \
                     leave it out",
        });
    }
    let planned = chosen().map(|stats| PlannedSegment::new(stats, MergeReason::Chosen));
    Ok(MergePlan { segments: planned.collect() })
}

/// Returns whether a merge of this segment alone frees something.
pub(crate) fn frees_something(stats: &SegmentStats) -> bool {
    Candidate::new(stats, false).reclaimable > 0
}

/// A sealed segment that a plan considers.
#[derive(Debug)]
struct Candidate<'a> {
    stats: &'a SegmentStats,
    /// Dead bytes that are no longer needed.
    dead: u64,
    /// Bytes that a merge frees, as far as is known. Expired entries count.
    reclaimable: u64,
    /// Whether the segment can be folded with its neighbours.
    small: bool,
    /// Why the segment joins, or `None` if it does not.
    reason: Option<MergeReason>,
}

impl<'a> Candidate<'a> {
    fn new(stats: &'a SegmentStats, is_oldest: bool) -> Self {
        let needed = if stats.merged && !is_oldest { stats.tombstone_size } else { 0 };
        let content = stats.content_size();
        let at_stake = content.saturating_sub(needed);
        let mut dead = at_stake.saturating_sub(stats.live_size);
        let mut reclaimable = dead.saturating_add(stats.expired_size).min(at_stake);
        if reclaimable <= NOTES_SIZE && reclaimable < content {
            (dead, reclaimable) = (0, 0);
        }
        Self { stats, dead, reclaimable, small: false, reason: None }
    }

    /// Makes a candidate that never joins.
    fn left_out(stats: &'a SegmentStats) -> Self {
        Self { stats, dead: 0, reclaimable: 0, small: false, reason: None }
    }

    /// Returns why the segment is merged for its own sake, or `None` if it is not.
    fn own_reason(&self, policy: &AutoMerge, idle: bool) -> Option<MergeReason> {
        let is_large = |part| self.reaches(part, policy.dead_percent);
        if is_large(self.dead) {
            Some(MergeReason::DeadRatio)
        } else if self.dead >= policy.dead_size {
            Some(MergeReason::DeadSize)
        } else if is_large(self.reclaimable) || self.reclaimable >= policy.dead_size {
            Some(MergeReason::Expired)
        } else if idle && self.reaches(self.reclaimable, policy.idle_dead_percent) {
            Some(MergeReason::Idle)
        } else {
            None
        }
    }

    fn joins(&self) -> bool {
        self.reason.is_some()
    }

    /// Returns the maximum number of bytes that a merge copies, without the tombstones of the log.
    /// Expired entries may count as dead.
    fn copied(&self) -> u64 {
        self.stats.content_size() - self.dead
    }

    /// Returns whether a part of the entries is at least this percentage of them.
    fn reaches(&self, part: u64, percent: u8) -> bool {
        let whole = u128::from(self.stats.content_size());
        part > 0 && u128::from(part) * 100 >= whole * u128::from(percent)
    }

    /// Returns the share that a merge frees, as a number for sorting.
    fn share(&self) -> u128 {
        (u128::from(self.reclaimable) << 32) / u128::from(self.stats.content_size().max(1))
    }
}

/// The limits below which a segment is small. Two small segments always fit in one segment and in
/// one merge, and several neighbours become fewer, however their entries fall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small<'a> {
    damaged: &'a BTreeSet<u32>,
    size: u64,
    entries: u64,
}

impl<'a> Small<'a> {
    pub(super) fn new(pool: Pool<'a>, policy: &AutoMerge) -> Self {
        let size = policy.small_size.min(pool.segment_size / 4).min(policy.bytes_max / 2);
        Self { damaged: pool.damaged, size, entries: pool.segment_entries / 4 }
    }

    pub(super) fn is(&self, stats: &SegmentStats) -> bool {
        let is_left_out = stats.history || self.damaged.contains(&stats.id);
        stats.size < self.size && stats.entries < self.entries && !is_left_out
    }
}

/// Applies the thresholds to all segments, oldest first.
fn candidates<'a>(pool: Pool<'a>, policy: &AutoMerge, idle: bool) -> Vec<Candidate<'a>> {
    let small = Small::new(pool, policy);
    let candidate = |(at, stats): (usize, &'a SegmentStats)| {
        if stats.history || pool.damaged.contains(&stats.id) {
            return Candidate::left_out(stats);
        }
        let mut candidate = Candidate::new(stats, at == 0);
        candidate.small = small.is(stats);
        candidate.reason = candidate.own_reason(policy, idle);
        candidate
    };
    let mut candidates: Vec<_> = pool.segments.iter().enumerate().map(candidate).collect();
    fold(&mut candidates);
    candidates
}

/// Lets small segments join if their neighbours join or are small too.
fn fold(candidates: &mut [Candidate<'_>]) {
    let may = |candidate: &Candidate<'_>| candidate.small || candidate.joins();
    for neighbours in candidates.chunk_by_mut(|a, b| may(a) && may(b)) {
        if neighbours.len() > 1 {
            for candidate in neighbours {
                candidate.reason = candidate.reason.or(Some(MergeReason::Small));
            }
        }
    }
}

fn is_triggered(candidates: &[Candidate<'_>], policy: &AutoMerge, idle: bool) -> bool {
    let reach = |percent| candidates.iter().any(|each| each.reaches(each.reclaimable, percent));
    let reclaimable = candidates.iter().map(|each| u128::from(each.reclaimable)).sum::<u128>();
    let foldable = candidates.iter().filter(|each| each.reason == Some(MergeReason::Small));
    reach(policy.trigger_dead_percent)
        || idle && reach(policy.idle_dead_percent)
        || reclaimable >= u128::from(policy.trigger_dead_size)
        || foldable.count() as u64 >= policy.small_count
}

/// Removes segments from the plan until a merge copies at most `bytes_max`: first small segments,
/// youngest first, then the ones with the smallest share to free. One segment always stays.
fn cut(candidates: &mut [Candidate<'_>], bytes_max: u64) {
    let mut joining: Vec<_> = candidates.iter_mut().filter(|each| each.joins()).collect();
    // Small segments are ordered by age alone, so the first two of them are neighbours.
    joining.sort_by_key(|each| match each.reason {
        Some(MergeReason::Small) => Reverse(0),
        _ => Reverse(each.share()),
    });
    let mut copied = 0_u64;
    for (rank, candidate) in joining.into_iter().enumerate() {
        copied = copied.saturating_add(candidate.copied());
        if rank > 0 && copied > bytes_max {
            candidate.reason = None;
        }
    }
    // A small segment may have lost its neighbours.
    for neighbours in candidates.chunk_by_mut(|a, b| a.joins() && b.joins()) {
        if let [candidate] = neighbours {
            candidate.reason = candidate.reason.filter(|reason| *reason != MergeReason::Small);
        }
    }
}

fn plan(candidates: &[Candidate<'_>]) -> MergePlan {
    let planned = |candidate: &Candidate<'_>| {
        candidate.reason.map(|reason| PlannedSegment::new(candidate.stats, reason))
    };
    MergePlan { segments: candidates.iter().filter_map(planned).collect() }
}

/// Returns whether an hour lies in a window of hours.
pub(super) fn is_open(window: Option<(u8, u8)>, hour: u8) -> bool {
    match window {
        None => true,
        Some((from, to)) if from < to => (from..to).contains(&hour),
        Some((from, to)) => hour >= from || hour < to,
    }
}
