//! Folding of small segments: by the merge thread right after opening, and at close.
//!
//! - Opening does not wait for it, and closing waits for one group at most.
//! - A failed fold does not make the close fail, since everything stays as durable as it was. Only
//!   a failed sync does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::rate_limit::RateLimiter;
use crate::error::Result;
use crate::manifest::Sealed;
use crate::merge::{FoldLimits, PlanContext, SMALL_MAX, plan_fold};
use crate::options::AutoMerge;
use crate::stats::{MergePlan, MergeProgress, MergeReport};
use crate::store::Inner;

/// Maximum number of bytes folded at close.
const CLOSE_SIZE_MAX: u64 = 4 << 20;
/// Maximum number of bytes folded at a time in the background.
const OPEN_SIZE_MAX: u64 = 64 << 20;
/// Multiple of `SMALL_MAX` from which a fold is worth its cost to others.
const URGENT: u64 = 8;

impl Inner {
    /// Folds the small segments that earlier runs of the program have left, group by group.
    pub(crate) fn fold_backlog(&self, auto: &AutoMerge) {
        let Ok(writer) = self.writer() else { return };
        let bounds = FoldLimits { small_max: SMALL_MAX, size_max: OPEN_SIZE_MAX };
        if !self.may_be_folded(bounds) {
            return;
        }
        let may_continue = || !writer.merging.is_to_stop() && !writer.merging.policy.is_manual();
        while may_continue() && !self.plan_fold(auto, bounds).is_empty() {
            if !self.fold(auto, bounds, self.rate_by_policy()) {
                break;
            }
        }
    }

    /// Folds one group at close, unless that would take long, or a snapshot or follower outlives
    /// the store and would miss the history. With many more small segments, folds anyway.
    pub(crate) fn fold_at_close(this: &Arc<Self>) {
        let Ok(writer) = this.writer() else { return };
        let Some(auto) = &writer.merging.policy.auto() else { return };
        if writer.merging.pauses.is_paused() {
            return;
        }
        let is_quick = this.filler.is_nearly_done();
        let is_free = is_quick && Arc::strong_count(this) == 1;
        let small_max = if is_free { SMALL_MAX } else { URGENT * SMALL_MAX };
        let bounds = FoldLimits { small_max, size_max: CLOSE_SIZE_MAX };
        if !is_quick && this.count_short(auto) <= small_max {
            // Finding out which entries of the long segments are dead is not worth the time.
            return;
        }
        if this.may_be_folded(bounds) && !this.plan_fold(auto, bounds).is_empty() {
            this.fold(auto, bounds, RateLimiter::constant(None));
        }
    }

    /// Folds one group. Returns whether there are fewer segments now.
    fn fold(&self, auto: &AutoMerge, bounds: FoldLimits, pace: RateLimiter) -> bool {
        let before = self.sealed_len();
        let mut keep_going = |_: &MergeProgress| self.may_continue_by_policy();
        let plan = |this: &Self| Ok(this.plan_fold(auto, bounds));
        let result = self.merge(plan, auto.ordered, pace, &mut keep_going);
        Self::tell_finished(auto, &result);
        // On a full disk, segments without live entries may have been removed, which makes room to
        // fold the others.
        self.sealed_len() < before
    }

    /// Returns whether there are enough segments to justify filling the keydir in order to count
    /// the small ones.
    fn may_be_folded(&self, bounds: FoldLimits) -> bool {
        self.count_free(|_| true) > bounds.small_max
    }

    fn sealed_len(&self) -> u64 {
        self.manifest.get(|manifest| manifest.sealed.len() as u64)
    }

    /// Returns the number of segments that are small even if no entry in them is dead. Needs no
    /// keydir.
    fn count_short(&self, auto: &AutoMerge) -> u64 {
        let size = auto.small_size.min(self.options.segment_size / 4);
        self.count_free(|sealed| sealed.length < size)
    }

    /// Counts the sealed segments that a closure chooses, without those kept for their history.
    fn count_free(&self, is_it: impl Fn(&Sealed) -> bool) -> u64 {
        let kept = self.kept_history();
        let counts = |sealed: &&Sealed| is_it(sealed) && !kept.lists(sealed);
        self.manifest.get(|manifest| manifest.sealed.iter().filter(counts).count() as u64)
    }

    fn plan_fold(&self, auto: &AutoMerge, bounds: FoldLimits) -> MergePlan {
        let Ok(writer) = self.writer() else { return MergePlan::default() };
        let (segments, damaged) = (self.segment_stats(), writer.merging.damaged());
        let PlanContext { hour, .. } = PlanContext::new(self.clock.wall(), false);
        plan_fold(self.pool(&segments, &damaged), auto, hour, bounds)
    }

    /// Reports an automatic run to the policy's callback.
    pub(crate) fn tell_finished(auto: &AutoMerge, result: &Result<MergeReport>) {
        if let Some(on_finish) = &auto.on_finish {
            // The panic was already printed, and must not stop automatic merging for good.
            let call = AssertUnwindSafe(|| on_finish.call(result));
            drop(std::panic::catch_unwind(call));
        }
    }
}
