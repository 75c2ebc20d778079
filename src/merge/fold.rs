//! Which small segments are folded when a store is opened or closed. Like `plan`, a pure function.
//!
//! - Every open that writes leaves a segment. A program that starts often and never runs for long
//!   would accumulate them without limit, because it ends before the policy is checked.
//! - Nothing is folded as long as there are few small segments. After that, a group of neighbours
//!   of bounded size is folded. The group begins with a young segment. An older one joins if it is
//!   at most twice as large as all younger ones in the group. So a folded segment is folded again
//!   only along with at least half as many new bytes, and the work per entry grows with the
//!   logarithm of the total.
//! - The size of a segment counts as the bytes that a merge would copy from it. So dead entries are
//!   removed whatever their size, and the remaining size is bounded by the live entries. A program
//!   that never runs for long has no other merges.
//! - The youngest segments stay as they are, so that a follower that is a little behind finds the
//!   history that it needs next.
//! - Repeated folding ends, as repeated planning does (see `plan`): each fold leaves fewer segments
//!   than its group had.

use super::plan::{Pool, Small, is_open};
use crate::options::AutoMerge;
use crate::stats::{MergePlan, MergeReason, PlannedSegment, SegmentStats};

/// Small segments that a store may have before some are folded.
pub(crate) const SMALL_MAX: u64 = 32;
/// Number of the youngest segments, which are never folded.
const YOUNGEST: usize = 8;
/// Maximum number of segments folded at a time.
const GROUP_MAX: usize = 256;

/// When to fold, and how much at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoldLimits {
    /// Small segments that a store may have before some are folded.
    pub(crate) small_max: u64,
    /// Maximum size of a group, in bytes.
    pub(crate) size_max: u64,
}

/// Plans to fold one group of small segments.
pub(crate) fn plan_fold(
    pool: Pool<'_>,
    policy: &AutoMerge,
    hour: u8,
    bounds: FoldLimits,
) -> MergePlan {
    let small = Small::new(pool, policy);
    let small = |stats: &SegmentStats| small.is(&SegmentStats { size: weight(stats), ..*stats });
    let count = pool.segments.iter().filter(|stats| small(stats)).count() as u64;
    if !is_open(policy.window, hour) || count <= bounds.small_max.max(policy.small_count) {
        return MergePlan::default();
    }
    let older = pool.segments.len().saturating_sub(YOUNGEST);
    let older = pool.segments.get(..older).unwrap_or_default();
    let size_max = bounds.size_max.min(policy.bytes_max);
    let neighbours = older.chunk_by(|a, b| small(a) && small(b));
    // The youngest group comes first, and among groups of the same length the youngest wins.
    let groups = neighbours.rev().flat_map(|neighbours| groups(neighbours, size_max));
    let best = groups.reduce(|best, group| if group.len() > best.len() { group } else { best });
    // A segment that is not small forms a separate group here.
    let best = best.filter(|group| group.len() > 1).unwrap_or_default();
    let planned = best.iter().map(|stats| PlannedSegment::new(stats, MergeReason::Small));
    MergePlan { segments: planned.collect() }
}

/// Returns the maximum number of bytes that a merge leaves of a segment.
fn weight(stats: &SegmentStats) -> u64 {
    let left = SegmentStats::HEADER_SIZE.saturating_add(stats.live_size);
    left.saturating_add(stats.tombstone_size).min(stats.size)
}

/// Divides neighbours into groups, youngest first.
fn groups(mut rest: &[SegmentStats], size_max: u64) -> impl Iterator<Item = &[SegmentStats]> {
    std::iter::from_fn(move || {
        let (youngest, older) = rest.split_last()?;
        let mut size = weight(youngest);
        let joins = |stats: &&SegmentStats| {
            let weight = weight(stats);
            let joins = weight / 2 <= size && size.saturating_add(weight) <= size_max;
            size += if joins { weight } else { 0 };
            joins
        };
        let len = 1 + older.iter().rev().take(GROUP_MAX - 1).take_while(joins).count();
        let (before, group) = rest.split_at(rest.len() - len);
        rest = before;
        Some(group)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BOUNDS: FoldLimits = FoldLimits { small_max: SMALL_MAX, size_max: 4 << 20 };

    fn segment(id: usize, size: u64) -> SegmentStats {
        let (id, live_size) = (u32::try_from(id).unwrap(), size - SegmentStats::HEADER_SIZE);
        SegmentStats { id, size, live_size, entries: 1, ..SegmentStats::default() }
    }

    fn store(sizes: impl IntoIterator<Item = u64>) -> Vec<SegmentStats> {
        sizes.into_iter().enumerate().map(|(id, size)| segment(id, size)).collect()
    }

    fn pool<'a>(segments: &'a [SegmentStats], damaged: &'a BTreeSet<u32>) -> Pool<'a> {
        Pool { segments, damaged, segment_size: 64 << 20, segment_entries: u64::MAX }
    }

    fn ids_of(segments: &[SegmentStats], damaged: &[u32], policy: &AutoMerge) -> Vec<u32> {
        let damaged = damaged.iter().copied().collect();
        let plan = plan_fold(pool(segments, &damaged), policy, 12, BOUNDS);
        assert!(plan.segments.iter().all(|planned| planned.reason == MergeReason::Small));
        plan.segments.iter().map(|planned| planned.id).collect()
    }

    fn ids(segments: &[SegmentStats]) -> Vec<u32> {
        ids_of(segments, &[], &AutoMerge::new())
    }

    fn range(ids: std::ops::Range<u32>) -> Vec<u32> {
        ids.collect()
    }

    #[test]
    fn a_few_segments_stay_and_many_are_folded_except_the_youngest() {
        assert!(ids(&store([200; 32])).is_empty());
        assert_eq!(ids(&store([200; 33])), range(0..25));
        // A large segment does not count, and separates its neighbours.
        let large = |at: usize| (0..34).map(move |id| if id == at { 20 << 20 } else { 200 });
        assert_eq!(ids(&store(large(10))), range(11..26));
        assert_eq!(ids(&store(large(20))), range(0..20));
    }

    #[test]
    fn an_older_segment_joins_if_it_is_at_most_twice_as_large_as_all_younger_ones() {
        let folded = |size: u64| store([size].into_iter().chain([200; 33]));
        assert_eq!(ids(&folded(25 * 400)), range(0..26));
        assert_eq!(ids(&folded(26 * 400)), range(1..26));
    }

    #[test]
    fn dead_bytes_do_not_count_towards_the_size() {
        let mut segments = store([20 << 20; 41]);
        assert!(ids(&segments).is_empty());
        for stats in &mut segments[..36] {
            stats.live_size = 100;
        }
        assert_eq!(ids(&segments), range(0..33));
        segments[20].tombstone_size = 20 << 20;
        assert_eq!(ids(&segments), range(0..20));
    }

    #[test]
    fn a_group_is_bounded_in_segments_and_in_bytes() {
        assert_eq!(ids(&store(vec![200; 3000])), range(2992 - 256..2992));
        assert_eq!(ids(&store([1 << 20; 40])), range(28..32));
        // Any two of them would be too large for a group.
        assert!(ids(&store([3 << 20; 40])).is_empty());
    }

    #[test]
    fn the_policy_determines_whether_when_and_what() {
        let segments = store([200; 41]);
        let folds = |policy: AutoMerge| !ids_of(&segments, &[], &policy).is_empty();
        assert!(folds(AutoMerge::new().small_count(40)));
        assert!(!folds(AutoMerge::new().small_count(41)));
        assert!(!folds(AutoMerge::new().small_size(0)));
        assert!(folds(AutoMerge::new().window(12, 13)));
        assert!(!folds(AutoMerge::new().window(13, 12)));
        assert_eq!(ids_of(&segments, &[30], &AutoMerge::new()), range(0..30));
    }

    #[test]
    fn segments_kept_for_their_history_are_neither_folded_nor_counted() {
        let kept = |first: usize, len: usize| -> Vec<SegmentStats> {
            let mut segments = store(vec![200; len]);
            segments[first..].iter_mut().for_each(|stats| stats.history = true);
            segments
        };
        assert!(ids(&kept(32, 1000)).is_empty(), "32 that may be folded are not too many");
        assert_eq!(ids(&kept(33, 1000)), range(0..33));
        // The youngest stay in any case.
        assert_eq!(ids(&kept(37, 40)), range(0..32));
    }

    /// Many runs, each of which leaves a segment and folds at its end.
    #[test]
    fn segments_stay_few_and_the_work_per_entry_grows_with_the_logarithm() {
        // No folded entry is dead.
        let (mut segments, mut copied, runs) = (Vec::new(), 0_u64, 100_000_usize);
        let none = BTreeSet::new();
        let mut most = 0;
        for id in 0..runs {
            segments.push(segment(id, 100));
            let plan = plan_fold(pool(&segments, &none), &AutoMerge::new(), 12, BOUNDS);
            if let Some(last) = plan.segments.last() {
                let size = plan.segments.iter().map(|planned| planned.size).sum();
                copied += size;
                let end = segments.iter().position(|stats| stats.id == last.id).unwrap() + 1;
                let folded = segment(usize::try_from(last.id).unwrap(), size);
                segments.splice(end - plan.segments.len()..end, [folded]);
            }
            most = most.max(segments.len());
        }
        assert!(most <= 48, "{most} segments");
        let written = 100 * runs as u64;
        assert!(copied < 14 * written, "{copied} bytes for {written}");
        assert_eq!(segments.iter().map(|stats| stats.size).sum::<u64>(), written);
    }

    #[test]
    fn a_backlog_is_folded_step_by_step_until_nothing_is_left_to_fold() {
        let mut segments = store((0..5_000).map(|id| 100 + id * 7919 % 3_000));
        let none = BTreeSet::new();
        let mut steps = 0;
        loop {
            let plan = plan_fold(pool(&segments, &none), &AutoMerge::new(), 12, BOUNDS);
            let Some(last) = plan.segments.last() else { break };
            assert!(plan.segments.len() > 1);
            let size = plan.segments.iter().map(|planned| planned.size).sum();
            let end = segments.iter().position(|stats| stats.id == last.id).unwrap() + 1;
            let folded = segment(usize::try_from(last.id).unwrap(), size);
            segments.splice(end - plan.segments.len()..end, [folded]);
            steps += 1;
        }
        assert!(segments.len() <= 40, "{} segments are left", segments.len());
        assert!(steps < 40, "{steps} steps");
    }
}
