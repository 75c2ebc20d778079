//! A merge with its span and its event.

use std::ops::ControlFlow;

use super::rate_limit::RateLimiter;
use crate::error::Result;
use crate::stats::{MergePlan, MergeProgress, MergeReport};
use crate::store::Inner;
use crate::trace::{Event, Stage};

impl Inner {
    /// Waits for the turn, then merges the segments of a plan. Reports a merge that had something
    /// to merge, or that failed.
    pub(in crate::store) fn merge(
        &self,
        plan: impl FnOnce(&Self) -> Result<MergePlan>,
        ordered: Option<bool>,
        pace: RateLimiter,
        progress: &mut dyn FnMut(&MergeProgress) -> ControlFlow<()>,
    ) -> Result<MergeReport> {
        self.here()?;
        let span = self.trace.enter(Stage::Merge);
        let merged = self.merge_unreported(plan, ordered, pace, progress);
        if !self.opener.is_here() {
            // A callback has forked. The subscriber may hold locks that are never released here.
            return Err(self.forget_held(span));
        }
        match &merged {
            Ok(report) if report.segments_in > 0 => self.trace.report(Event::Merged { report }),
            Err(error) if !error.is_invalid_input() => {
                self.trace.report(Event::MergeFailed { error, took: span.took() });
            }
            _ => {}
        }
        merged
    }
}
