//! Reclaiming space on a full disk.
//!
//! - A merge that runs out of space continues with one segment at a time: first the segments
//!   without live entries, then those with the least to copy. Each frees the space that the next
//!   one needs.
//! - It may use the reserve, and the space of derived files; see `log::reserve`.

use std::collections::BTreeSet;

use super::Inner;
use crate::error::{Error, Result};
use crate::merge::{Host as _, Merge, frees_something};
use crate::segment::space::check_space;
use crate::segment::{SegmentId, sidecar};
use crate::stats::{MergePlan, MergeReason, MergeReport};

/// Space that a merged segment takes in addition to its entries: header, the rest of a block, file
/// names.
const COPY_ROOM: u64 = if cfg!(any(test, bitcask_fuzzing)) { 512 } else { 16 << 10 };

impl Inner {
    /// Returns an error if a file of this size, which can wait, would take the last space on the
    /// disk.
    pub(super) fn check_space(&self, size: u64) -> Result<()> {
        check_space(&self.fs, &self.dir, self.options.segment_size, size)
    }

    /// Reclaims space on a full disk: merges the segments of a plan one by one, as long as the next
    /// one has no live entries or there is space to copy them, and no stop is requested. Returns
    /// whether all of them were merged. Skips segments that were to be folded if copying them would
    /// free nothing; the result is then `false`.
    pub(super) fn merge_one_by_one(
        &self,
        pending: &mut Option<Merge>,
        plan: &MergePlan,
        report: &mut MergeReport,
        mut run: impl FnMut(&mut Merge) -> Result<bool>,
    ) -> Result<bool> {
        self.publish(pending)?;
        self.log()?.give_up_prepared();
        self.segments.free_retired();
        let small = plan.segments.iter().filter(|planned| planned.reason == MergeReason::Small);
        let small: BTreeSet<u32> = small.map(|planned| planned.id).collect();
        let mut in_vain = self.segment_stats();
        in_vain.retain(|each| small.contains(&each.id) && !frees_something(each));
        let mut left: BTreeSet<u32> = plan.segments.iter().map(|planned| planned.id).collect();
        left.retain(|id| in_vain.iter().all(|each| each.id != *id));
        let (mut failed, mut has_given_up, mut is_new) = (BTreeSet::new(), false, false);
        while !self.writer()?.merging.is_to_stop() {
            let listed = self.segment_stats();
            left.retain(|id| listed.iter().any(|each| each.id == *id));
            let open = listed.iter().filter(|each| left.contains(&each.id));
            let next =
                open.filter(|each| !failed.contains(&each.id)).min_by_key(|each| each.live_size);
            let needed = |live_size| if live_size == 0 { 0 } else { live_size + COPY_ROOM };
            match next.map(|next| (next.id, needed(next.live_size))) {
                None if left.is_empty() => return Ok(in_vain.is_empty()),
                Some((id, needed)) if self.fs.available_space(self.dir.path())? >= needed => {
                    match self.merge_one(pending, SegmentId(id), report, &mut run) {
                        Ok(false) => return Ok(false),
                        // Its copies may be the only entries that some slots name, so nothing else
                        // is merged before they are listed.
                        Err(error) if error.is_no_space() && pending.is_some() => return Ok(false),
                        // Tombstones that are still needed take space too, and others may take the
                        // space first.
                        Err(error) if error.is_no_space() => drop(failed.insert(id)),
                        merged => {
                            merged?;
                            is_new = true;
                        }
                    }
                    // A single segment without dead entries stays as it is.
                    if !failed.contains(&id) {
                        left.remove(&id);
                    }
                }
                Some((id, needed)) if !has_given_up => {
                    has_given_up = true;
                    self.free_space_for(SegmentId(id), needed)?;
                }
                // The space freed since may be enough for these.
                _ if is_new => {
                    failed.clear();
                    (has_given_up, is_new) = (false, false);
                }
                _ => break,
            }
        }
        Ok(false)
    }

    /// Merges one segment, and makes sure that its space is freed. Returns whether the merge
    /// finished.
    fn merge_one(
        &self,
        pending: &mut Option<Merge>,
        id: SegmentId,
        report: &mut MergeReport,
        run: &mut impl FnMut(&mut Merge) -> Result<bool>,
    ) -> Result<bool> {
        self.publish(pending)?;
        let ids = BTreeSet::from([id]);
        let merge = pending.insert(Merge::begin(&self.merge_context(), &ids).taking_last_space());
        let run = run(merge);
        self.here()?;
        merge.publish(self)?;
        report.add(&merge.report(matches!(run, Ok(false))));
        *pending = None;
        // By now no reader has it mapped.
        self.segments.free_retired();
        run
    }

    /// Gives up the reserve and derived files until the space is available, starting with the files
    /// derived from the segment that is to be merged.
    ///
    /// If all of that would not be enough, gives up nothing.
    fn free_space_for(&self, id: SegmentId, needed: u64) -> Result<()> {
        let left = self.fs.available_space(self.dir.path())?;
        let can_go = self.log()?.reserve_size() + sidecar::derived_size(&self.fs, &self.dir);
        if left + can_go < needed {
            return Ok(());
        }
        for path in [self.dir.index(id), self.dir.hint(id)] {
            self.fs.remove(&path)?;
        }
        let check_room = || {
            let is_enough = self.fs.available_space(self.dir.path())? >= needed;
            is_enough.then_some(()).ok_or(Error::NoSpace { path: self.dir.path().into() })
        };
        match self.log()?.making_room(check_room) {
            Err(error) if !error.is_no_space() => Err(error),
            _ => Ok(()),
        }
    }
}
