//! What can still be done on a full disk: a reserve of room, and who may use it.
//!
//! - Room is set aside behind the end of `LOCK`, where it takes no name and no inode. What gives room back
//!   may use it: deletes, merges, clears. A put may not; once the reserve was used a put grows the log
//!   only when the reserve is there again, or else puts would use up what deletes have set free.
//! - Behind the reserve there are the files that can be derived, see `segment::sidecar`.
//! - A merge that finds no room goes on with one segment at a time: those first that are dead altogether,
//!   then those of which the least has to be copied. Each gives back what the next one needs.

use std::collections::BTreeSet;

use super::Inner;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::merge::{Host as _, Merge, gives_back};
use crate::segment::space::check_space;
use crate::segment::{SegmentId, sidecar};
use crate::stats::{MergePlan, MergeReason, MergeReport};
use crate::sync::unmodeled::Mutex;

/// The reserve is at least so large, where a segment is.
const RESERVE_MIN: u64 = 64 << 10;
/// The reserve is at most so large: as much as half of a segment of the usual size.
const RESERVE_MAX: u64 = 64 << 20;
/// As much of the disk is left to others, in reserves, before there is one.
const RESERVES_LEFT: u64 = 4;
/// What a merged segment takes besides the entries: header, the rest of a block, names.
const COPY_ROOM: u64 = if cfg!(any(test, bitcask_fuzzing)) { 512 } else { 16 << 10 };

/// The room that is set aside.
#[derive(Debug, Default)]
pub(super) struct Reserve(Mutex<ReserveState>);

#[derive(Debug, Default)]
struct ReserveState {
    /// In bytes, as far as this process knows.
    size: u64,
    /// Whether it was used, and is not there again.
    is_used: bool,
}

impl ReserveState {
    /// Gives the room back to the disk, for whoever is quick.
    fn give_up(&mut self, lock_file: &File) {
        self.size = 0;
        self.is_used = true;
        // A cut to the size that a file has is nothing to some file systems.
        let _ = lock_file.size().and_then(|size| {
            lock_file.set_size(size + 1)?;
            lock_file.set_size(size)
        });
    }
}

impl Inner {
    /// Refuses if a file of this size, which can wait, would take the last space on the disk.
    pub(super) fn check_space(&self, size: u64) -> Result<()> {
        check_space(&self.fs, &self.dir, self.options.segment_size, size)
    }

    /// Sets room aside, if there is more of it than the reserve takes.
    pub(super) fn keep_reserve(&self) -> Result<()> {
        self.fill_reserve(RESERVES_LEFT)
    }

    /// Refuses a put for which the log would have to grow, if the reserve was used and can't be had again.
    pub(super) fn require_reserve(&self) -> Result<()> {
        if self.reserve.0.lock().is_used { self.fill_reserve(1) } else { Ok(()) }
    }

    fn fill_reserve(&self, left: u64) -> Result<()> {
        let writer = self.writer()?;
        self.commit.check()?;
        let mut held = self.reserve.0.lock();
        let size = self.options.segment_size.min(self.reserve_wanted());
        let size = size.min(self.fs.file_size_limit());
        if held.size >= size - size / 4 {
            return Ok(());
        }
        if self.fs.available_space(self.dir.path())? < size.saturating_mul(left) {
            return Err(Error::NoSpace { path: self.dir.path().into() });
        }
        match writer.lock_file.reserve(size) {
            Err(error) if error.is_no_space() => Err(error),
            // Where none can be set aside for another reason there is none, and nobody waits for it.
            reserved => {
                *held = ReserveState { size: reserved.map_or(0, |()| size), is_used: false };
                Ok(())
            }
        }
    }

    /// A part of the log, which grows with it.
    fn reserve_wanted(&self) -> u64 {
        let sealed: u64 =
            self.manifest.get(|manifest| manifest.sealed.iter().map(|each| each.length).sum());
        (sealed / 16).clamp(RESERVE_MIN, RESERVE_MAX)
    }

    /// Returns how much is set aside.
    pub(super) fn reserve_size(&self) -> u64 {
        self.reserve.0.lock().size
    }

    /// Tries something that takes room and helps to give more back. Where there is none, the reserve is
    /// given up for it, and then what can be derived. What is tried must not lock the log.
    pub(super) fn making_room<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let result = attempt();
        if !result.as_ref().is_err_and(Error::is_no_space) {
            return result;
        }
        // Nobody sets it aside again before this was tried.
        let mut held = self.reserve.0.lock();
        held.give_up(&self.writer()?.lock_file);
        sidecar::making_room(&self.fs, &self.dir, attempt)
    }

    /// Tries again what has found no room, once the next segment and whatever else can go have gone.
    pub(super) fn unless_given_way<T>(
        &self,
        error: Error,
        attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        if !error.is_no_space() {
            return Err(error);
        }
        self.give_up_prepared();
        self.making_room(attempt)
    }

    /// Returns whether the reserve was used, and is not there again.
    pub(super) fn is_reserve_used(&self) -> bool {
        self.reserve.0.lock().is_used
    }

    /// Gives up the next segment, if it has been prepared: it takes room, and can be made again.
    fn give_up_prepared(&self) {
        let prepared = self.writer().ok().and_then(|writer| writer.log.lock().prepared.take());
        if let Some(prepared) = prepared {
            let _ = self.give_up(&prepared);
        }
    }

    /// Gives space back on a full disk: merges the segments of a plan one by one, as long as one is dead
    /// altogether, or what it holds can be copied, and nobody asks it to stop. Returns whether all of them
    /// are done: not those that were to be folded, and of which a copy gives nothing back.
    pub(super) fn squeeze(
        &self,
        pending: &mut Option<Merge>,
        plan: &MergePlan,
        report: &mut MergeReport,
        mut run: impl FnMut(&mut Merge) -> Result<bool>,
    ) -> Result<bool> {
        self.publish(pending)?;
        self.give_up_prepared();
        self.segments.free_retired();
        let small = plan.segments.iter().filter(|planned| planned.reason == MergeReason::Small);
        let small: BTreeSet<u32> = small.map(|planned| planned.id).collect();
        let mut in_vain = self.segment_stats();
        in_vain.retain(|each| small.contains(&each.id) && !gives_back(each));
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
                        // What it has copied may be all that slots name: nothing else is merged before
                        // that is listed.
                        Err(error) if error.is_no_space() && pending.is_some() => return Ok(false),
                        // Tombstones that are needed take room too, and somebody else may be quicker.
                        Err(error) if error.is_no_space() => drop(failed.insert(id)),
                        merged => {
                            merged?;
                            is_new = true;
                        }
                    }
                    // One that is all alive and alone stays as it is.
                    if !failed.contains(&id) {
                        left.remove(&id);
                    }
                }
                Some((id, needed)) if !has_given_up => {
                    has_given_up = true;
                    self.give_way_for(SegmentId(id), needed)?;
                }
                // What has been given back since may do for these.
                _ if is_new => {
                    failed.clear();
                    (has_given_up, is_new) = (false, false);
                }
                _ => break,
            }
        }
        Ok(false)
    }

    /// Merges one segment, and sees to it that it gives its room back. Returns whether it came to its end.
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
        // Nobody has it mapped any more.
        self.segments.free_retired();
        run
    }

    /// Gives up the reserve, and what can be derived, until there is so much room; first what is derived
    /// from a segment that is to be merged.
    ///
    /// If all of it would not do, all of it stays.
    fn give_way_for(&self, id: SegmentId, needed: u64) -> Result<()> {
        let left = self.fs.available_space(self.dir.path())?;
        let can_go = self.reserve_size() + sidecar::derived_size(&self.fs, &self.dir);
        if left + can_go < needed {
            return Ok(());
        }
        for path in [self.dir.index(id), self.dir.hint(id)] {
            self.fs.remove(&path)?;
        }
        let look = || {
            let is_enough = self.fs.available_space(self.dir.path())? >= needed;
            is_enough.then_some(()).ok_or(Error::NoSpace { path: self.dir.path().into() })
        };
        match self.making_room(look) {
            Err(error) if !error.is_no_space() => Err(error),
            _ => Ok(()),
        }
    }
}
