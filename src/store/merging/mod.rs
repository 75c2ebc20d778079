//! Merge operations, and the automatic merge thread.
//!
//! - `crate::merge` does the merge itself; this module provides what it needs from the store.
//! - Copies that a merge could not publish for lack of space are kept with the turn to merge, and
//!   published before the next merge begins.

pub(crate) mod control;
pub(crate) mod fold;
pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod permit;
pub(crate) mod rate_limit;
mod reported;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Bitcask, Inner};
use crate::error::{Error, Result};
use crate::fs::is_failed_read;
use crate::merge::{Host, Merge, MergeContext, PlanContext, Pool, plan_auto};
use crate::options::{AutoMerge, MergeOptions, MergePolicy, Options};
use crate::segment::header::Kind;
use crate::segment::write::active::Active;
use crate::segment::write::output::Output;
use crate::segment::{FIRST_OFFSET, Segment, SegmentId};
use crate::stats::{MergePlan, MergeProgress, MergeReport, SegmentStats};
use crate::store::merging::history::KeptHistory;
use crate::store::merging::rate_limit::RateLimiter;
use crate::sync::Instant;

impl Bitcask {
    /// Reclaims the disk space of overwritten, deleted and expired entries, where that is
    /// worthwhile.
    ///
    /// Copies the live entries of some sealed segments to new ones and removes the old ones. Reads
    /// and writes continue meanwhile. A held [`Value`](crate::Value) stays valid, and keeps its
    /// segment's disk space occupied. [`MergeOptions`] determine which segments are merged; the
    /// active segment never is, nor are segments that
    /// [`keep_history`](crate::Options::keep_history) keeps. If another merge is in progress, waits
    /// for it.
    ///
    /// Needs disk space for one segment, whatever the size of the store, and leaves the last 32 MiB
    /// (or a quarter of a segment, if that is less) to others. Segments without live entries are
    /// removed in any case. Takes 8 bytes of memory for each live entry of one segment, 16 for each
    /// entry of a new one, the size of the largest entry, and at most 64 MiB for the entries that
    /// tombstones may shadow. If it writes [in the order of keys](MergeOptions::ordered), it takes
    /// up to 64 MiB of memory and disk space more; if space is short, it orders less at a time.
    ///
    /// # Errors
    ///
    /// [`MergesPaused`](Error::MergesPaused) during a [pause](Self::pause_merges).
    /// [`NoSpace`](Error::NoSpace), [`Corrupt`](Error::Corrupt), and any other error that stopped
    /// the merge. The merge keeps what it has finished by then, and no data is lost.
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for round in 0..10 {
    ///     db.put("key", vec![round; 1000])?;
    /// }
    /// let report = db.merge_opt(MergeOptions::new().force(true))?;
    /// assert_eq!(report.live_entries, 1);
    /// assert!(report.freed_size() > 9000);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "compact")]
    #[doc(alias = "vacuum")]
    pub fn merge(&self) -> Result<MergeReport> {
        self.merge_opt(MergeOptions::new())
    }

    /// Merges with options; see [`merge`](Self::merge).
    ///
    /// With [`MergeOptions::force`], the active segment is sealed first, so that all dead space is
    /// reclaimed.
    ///
    /// # Errors
    ///
    /// As [`merge`](Self::merge), and [`InvalidOption`](Error::InvalidOption) for an invalid value
    /// or an id that no sealed segment has.
    pub fn merge_opt(&self, mut options: MergeOptions<'_>) -> Result<MergeReport> {
        options.check()?;
        let inner = &self.inner;
        inner.refuse_if_paused()?;
        if options.force && options.segments.is_none() {
            let rotated = unless_full(inner.log()?.rotate_active());
            // Sealed segments can still be merged.
            if !matches!(rotated, Err(Error::TooManySegments { .. })) {
                rotated?;
            }
        }
        unless_full(inner.seal_rotated())?;
        let pace = RateLimiter::constant(options.bytes_per_second);
        let (force, chosen) = (options.force, options.segments.take());
        let plan = |inner: &Inner| inner.plan_explicit(force, chosen.as_ref());
        let ordered = options.ordered.or(inner.auto_merge().ordered);
        let mut keep_going = |_: &MergeProgress| ControlFlow::Continue(());
        match &mut options.progress {
            Some(progress) => inner.merge(plan, ordered, pace, progress),
            None => inner.merge(plan, ordered, pace, &mut keep_going),
        }
    }
}

impl Host for Inner {
    fn merge_context(&self) -> MergeContext<'_> {
        MergeContext {
            fs: &self.fs,
            dir: &self.dir,
            clock: &self.clock,
            identity: self.identity,
            keydir: &self.keydir,
            segments: &self.segments,
            manifest: &self.manifest,
            segment_size: self.options.segment_size,
            segment_entries: self.options.segment_entries,
        }
    }

    fn create_output(&self, size: u64) -> Result<(Output, u32)> {
        let created = self.log()?.create_merged(size)?;
        Ok((Output::new(created.active, self.identity), created.number))
    }

    fn sync_log(&self) -> Result<()> {
        let log = self.log()?;
        log.check()?;
        log.sync()
    }

    fn exclusively(&self, change: &mut dyn FnMut(Option<SegmentId>) -> Result<()>) -> Result<()> {
        let writer = self.writer()?;
        let _files = writer.files.lock();
        let _maintenance = writer.log.lock_maintenance();
        writer.log.check()?;
        change(self.leased_history(&writer.merging.leases))
    }

    fn next_timestamp(&self) -> u64 {
        self.log().map_or(0, |log| log.lock().next_timestamp())
    }

    fn unlink(&self, segment: &Arc<Segment>) {
        // If this fails, the next open removes the files.
        let _ = self.unlink(segment);
    }

    fn poison_if_sync_failed(&self, error: Error) -> Error {
        match self.log() {
            Ok(log) => log.poison_if_sync_failed(error),
            Err(_) => error,
        }
    }
}

impl Inner {
    /// Returns the policy's settings, or the defaults for an explicit merge under a manual policy.
    fn auto_merge(&self) -> AutoMerge {
        let policy = match (self.writer(), &self.options.merge_policy) {
            (Ok(writer), _) => writer.merging.policy.auto(),
            // A reader has no policy of its own but that of its options.
            (Err(_), MergePolicy::Auto(auto)) => Some(auto.clone()),
            (Err(_), MergePolicy::Manual) => None,
        };
        policy.unwrap_or_default()
    }

    pub(super) fn segment_stats(&self) -> Vec<SegmentStats> {
        self.segment_stats_with(self.kept_history())
    }

    /// Returns the figures of the sealed segments, given which of them are kept.
    fn segment_stats_with(&self, kept: KeptHistory) -> Vec<SegmentStats> {
        let _ = self.filler.fill_all(&self.keydir);
        let open: BTreeMap<SegmentId, Arc<Segment>> =
            self.segments.all().into_iter().map(|(_, segment)| (segment.id(), segment)).collect();
        let now = self.clock.certain().lowest();
        let stats = |id: SegmentId| {
            let segment = open.get(&id)?;
            let summary = segment.summary()?;
            Some(SegmentStats {
                id: id.0,
                size: segment.size(),
                live_size: segment.live_size(),
                tombstone_size: summary.tombstone_size,
                expired_size: summary.expired_size(now),
                entries: summary.entries,
                merged: segment.kind() == Kind::Merged,
                history: kept.holds(segment),
            })
        };
        let listed = self.manifest.get(|manifest| manifest.sealed.clone());
        listed.iter().filter_map(|sealed| stats(sealed.id)).collect()
    }

    fn plan_auto(&self, auto: &AutoMerge, idle: bool) -> MergePlan {
        let Ok(writer) = self.writer() else { return MergePlan::default() };
        let moment = PlanContext::new(self.clock.wall(), idle);
        let damaged = writer.merging.damaged();
        plan_auto(self.pool(&self.segment_stats(), &damaged), auto, moment)
    }

    pub(super) fn pool<'a>(
        &self,
        segments: &'a [SegmentStats],
        damaged: &'a BTreeSet<u32>,
    ) -> Pool<'a> {
        let Options { segment_size, segment_entries, .. } = self.options;
        Pool { segments, damaged, segment_size, segment_entries }
    }

    /// Waits for the turn, then merges the segments of a plan.
    fn merge_unreported(
        &self,
        plan: impl FnOnce(&Self) -> Result<MergePlan>,
        ordered: Option<bool>,
        mut pace: RateLimiter,
        progress: &mut dyn FnMut(&MergeProgress) -> ControlFlow<()>,
    ) -> Result<MergeReport> {
        let merging = &self.writer()?.merging;
        let started = Instant::now();
        let mut turn = merging.turn()?;
        merging.pauses.begin();
        self.log()?.check()?;
        merging.pauses.work(|| merging.is_to_stop());
        self.publish(&mut turn.pending)?;
        merging.pauses.rest();
        // Retired segments that no reader uses any more may occupy the last free numbers.
        self.segments.free_retired();
        // Only filled shards show which entries are live.
        self.filler.fill_all(&self.keydir)?;
        let plan = plan(self)?;
        merging.pauses.work(|| merging.is_to_stop());
        let ids = plan.segments.iter().map(|planned| SegmentId(planned.id)).collect();
        // From now on the merge is pending, whatever happens: its copies may be the only entries
        // that some slots name.
        let merge = Merge::begin(&self.merge_context(), &ids).ordered(self.or_as_scanned(ordered));
        let merge = turn.pending.insert(merge);
        let run = self.run(merge, &mut pace, progress);
        if !self.opener.is_here() {
            return Err(self.forget_held(turn));
        }
        // Publish the finished part, whatever stopped the merge.
        let published = merge.publish(self);
        let mut report = merge.report(matches!(run, Ok(false)));
        let last_read = merge.last_read();
        if !merge.is_pending() {
            *turn.pending = None;
        }
        let mut result = match published {
            // Poison outweighs whatever stopped the merge.
            Err(error) if error.is_poisoned() => Err(error),
            published => run.map(drop).and(published),
        };
        match &result {
            Err(error) if error.is_no_space() => {
                let run = |merge: &mut Merge| self.run(merge, &mut pace, progress);
                let finished = self.merge_one_by_one(&mut turn.pending, &plan, &mut report, run);
                if !self.opener.is_here() {
                    return Err(self.forget_held(turn));
                }
                // If this fails too, the disk stays full.
                if finished.unwrap_or(false) {
                    result = Ok(());
                }
            }
            // Wherever the damage is, this is the segment that cannot be merged.
            Err(error) if is_unreadable(error) => {
                let _ = last_read.map(|id| merging.note_damage(id));
            }
            _ => {}
        }
        drop(turn);
        self.free_or_leave_retired();
        report.duration = started.elapsed();
        if result.is_ok() && !plan.segments.is_empty() {
            merging.latency.record(report.duration);
        }
        result.map(|()| report)
    }

    /// Returns whether to merge in the order of keys: as the options say, or as scans have asked.
    fn or_as_scanned(&self, ordered: Option<bool>) -> bool {
        ordered.unwrap_or_else(|| self.ordered.load(Ordering::Relaxed))
    }

    /// Runs a merge. Returns whether it finished.
    fn run(
        &self,
        merge: &mut Merge,
        pace: &mut RateLimiter,
        progress: &mut dyn FnMut(&MergeProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        let merging = &self.writer()?.merging;
        while let Some(size) = merge.step(self)? {
            merging.pauses.rest();
            let mut stop = false;
            let mut is_to_stop = || {
                stop = stop || merging.is_to_stop() || progress(&merge.progress()).is_break();
                stop
            };
            is_to_stop();
            pace.keep(2 * size, &mut is_to_stop, || self.appends());
            self.here()?;
            if merging.pauses.work(|| is_to_stop() || !self.opener.is_here()) {
                pace.restart();
            }
            self.here()?;
            if stop {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Merges if the policy requires it. Returns how long to wait until the next check, or `None`
    /// if the policy needs no checks.
    pub(super) fn merge_due(&self) -> Option<Duration> {
        let writer = self.writer().ok()?;
        let auto = &writer.merging.policy.auto()?;
        if writer.merging.pauses.is_paused() {
            return Some(auto.check_interval);
        }
        let appends = self.appends();
        // The first check, right after opening, only records this figure and folds what earlier
        // runs of the program have left.
        let Some(before) = writer.merging.look(appends) else {
            self.fold_backlog(auto);
            return Some(auto.check_interval);
        };
        let idle = before == appends;
        let worthwhile = self.options.segment_size / 100 * u64::from(auto.idle_dead_percent);
        if idle && self.dead_in_active() > worthwhile {
            // In an idle store, nothing else seals the active segment, and its dead entries would
            // stay. The next writer reports any failure.
            let _ = writer.log.rotate_active().and_then(|()| self.seal_rotated());
        }
        if !self.plan_auto(auto, idle).is_empty() {
            self.merge_by_policy(auto, idle);
        }
        Some(auto.check_interval)
    }

    /// Returns the number of dead bytes among the active segment's entries.
    fn dead_in_active(&self) -> u64 {
        let Ok(writer) = self.writer() else { return 0 };
        let log = writer.log.lock();
        let segment = log.active().map(Active::segment);
        segment.map_or(0, |active| active.size().saturating_sub(FIRST_OFFSET + active.live_size()))
    }

    fn merge_by_policy(&self, auto: &AutoMerge, idle: bool) {
        let mut keep_going = |_: &MergeProgress| self.may_continue_by_policy();
        let pace = self.rate_by_policy();
        let plan = |this: &Self| Ok(this.plan_auto(auto, idle));
        let result = self.merge(plan, auto.ordered, pace, &mut keep_going);
        Self::tell_finished(auto, &result);
    }

    /// Publishes the copies of a pending merge, and removes it.
    pub(super) fn publish(&self, pending: &mut Option<Merge>) -> Result<()> {
        if let Some(merge) = pending {
            merge.publish(self)?;
        }
        *pending = None;
        Ok(())
    }

    /// Publishes what an earlier merge could not publish, as far as possible.
    pub(super) fn publish_pending(&self) -> Result<()> {
        let Ok(writer) = self.writer() else { return Ok(()) };
        self.publish(&mut writer.merging.interrupt()?.pending)
    }
}

/// Ignores a lack of space: existing segments can still be merged, which reclaims space.
fn unless_full(result: Result<()>) -> Result<()> {
    result.or_else(|error| if error.is_no_space() { Ok(()) } else { Err(error) })
}

/// Returns whether something on disk could not be read or decoded.
fn is_unreadable(error: &Error) -> bool {
    error.is_corruption() || error.is_unsupported() || is_failed_read(error)
}
