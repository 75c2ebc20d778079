//! What snapshots need: segments, whose files stay until the last snapshot that needs them is gone.
//!
//! - A snapshot notes the segments of its moment, and is noted here, in one step. Who removes a
//!   segment takes it out of the set first, and then asks here; so either the snapshot has it and it
//!   is kept, or no snapshot has it.
//! - A snapshot that outlives its store goes on with what is mapped, or open, and removes nothing.
//! - A segment without a mapping is read by its file's name, or through a descriptor that is taken before
//!   the name goes. Where none can be had, the name stays until one can, or nobody holds the segment.
//! - Where writing has failed, recovery may cut the files that a snapshot goes on with, and a value
//!   that is held: then it is a copy that they go on with.
//! - On disk such a segment is a leftover as any that a merge or a clear has not come to remove: it
//!   is listed nowhere, and opening removes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use crate::error::Result;
use crate::segment::Segment;
use crate::stats::Stats;
use crate::store::Inner;
use crate::sync::Mutex;

/// The segments of a moment.
pub(crate) type Pinned = Arc<[Arc<Segment>]>;

/// All snapshots that there are. Lock 6.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<PinState>);

#[derive(Debug, Default)]
struct PinState {
    /// How many snapshots there were before.
    next: u64,
    /// By number, so the oldest first.
    snapshots: BTreeMap<u64, (Instant, Pinned)>,
    /// Removed from the store, and kept for a snapshot.
    kept: Vec<PinnedSegment>,
    /// Removed from the store, and kept for want of a descriptor that holders could read on with.
    late: Vec<Arc<Segment>>,
}

/// A segment, and the first and the last of the snapshots that have it.
#[derive(Debug)]
struct PinnedSegment {
    segment: Arc<Segment>,
    first: u64,
    last: u64,
}

impl PinState {
    /// Returns the numbers of the first and the last snapshot that have a segment.
    fn pinned_by(&self, segment: &Arc<Segment>) -> Option<(u64, u64)> {
        let mut last: Option<(&Pinned, bool)> = None;
        let mut has = |pinned| {
            // Those of snapshots taken between two changes of the set are the same.
            let known = last.filter(|(last, _)| Arc::ptr_eq(last, pinned)).map(|(_, has)| has);
            let has =
                known.unwrap_or_else(|| pinned.iter().any(|other| Arc::ptr_eq(other, segment)));
            last = Some((pinned, has));
            has
        };
        let mut numbers = self.snapshots.iter().filter(|(_, (_, pinned))| has(pinned));
        let first = *numbers.next()?.0;
        Some((first, numbers.last().map_or(first, |(number, _)| *number)))
    }
}

impl Pins {
    /// Notes a snapshot of the segments that a closure names; returns its number.
    pub(crate) fn pin(&self, segments: impl FnOnce() -> Pinned) -> (u64, Pinned) {
        let mut held = self.0.lock();
        let (number, pinned) = (held.next, segments());
        held.next += 1;
        held.snapshots.insert(number, (Instant::now(), Arc::clone(&pinned)));
        (number, pinned)
    }

    /// Forgets a snapshot; returns the segments that were kept for it alone.
    fn unpin(&self, number: u64) -> Vec<Arc<Segment>> {
        let mut held = self.0.lock();
        held.snapshots.remove(&number);
        let kept = std::mem::take(&mut held.kept);
        // A segment comes into the set once, and leaves it once: of the snapshots between the first
        // and the last that have it each one has it.
        let is_pinned =
            |kept: &PinnedSegment| held.snapshots.range(kept.first..=kept.last).next().is_some();
        let (kept, free): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_pinned);
        held.kept = kept;
        free.into_iter().map(|kept| kept.segment).collect()
    }

    /// Keeps a segment that was removed from the store, if a snapshot needs it; says whether one does.
    fn keep(&self, segment: &Arc<Segment>) -> bool {
        let mut held = self.0.lock();
        let pinned_by = held.pinned_by(segment);
        if let Some((first, last)) = pinned_by {
            held.kept.push(PinnedSegment { segment: Arc::clone(segment), first, last });
        }
        pinned_by.is_some()
    }

    #[cfg(test)]
    pub(crate) fn count_of(&self) -> usize {
        self.0.lock().snapshots.len()
    }

    /// Gives up what is kept: the store is being closed, and who opens it next removes its leftovers.
    fn give_up(&self) -> Vec<Arc<Segment>> {
        let kept = std::mem::take(&mut self.0.lock().kept);
        kept.into_iter().map(|kept| kept.segment).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().snapshots.is_empty()
    }

    /// Tells of what is held.
    pub(crate) fn count(&self, stats: &mut Stats) {
        let held = self.0.lock();
        stats.snapshots = held.snapshots.len() as u64;
        stats.oldest_snapshot = held.snapshots.values().next().map(|(since, _)| since.elapsed());
        stats.pinned_segments = held.kept.len() as u64;
        stats.pinned_size = held.kept.iter().map(|kept| kept.segment.size()).sum();
    }
}

impl Inner {
    /// Removes the files of a segment that the manifest lists no more and the set has no more; keeps
    /// them for as long as a snapshot needs them.
    pub(crate) fn unlink(&self, segment: &Arc<Segment>) -> Result<()> {
        if self.pins.keep(segment) { Ok(()) } else { self.remove_files(segment) }
    }

    /// Forgets a snapshot, and removes what was kept for it.
    pub(crate) fn unpin(&self, number: u64) {
        for segment in self.pins.unpin(number) {
            // What can't be removed now is removed at the next open.
            let _ = self.remove_files(&segment);
        }
    }

    /// Has snapshots go on without the names in the store's directory when it is closed: from then on
    /// they are somebody else's. Where that can't be done, the store can't be opened until they are gone.
    pub(crate) fn outlive(this: &Arc<Self>) {
        if !this.pins.is_empty() {
            // Shards are filled from hints. Who touches one that can't be filled is told why.
            let _ = this.filler.fill_all(&this.keydir);
        }
        this.remove_late();
        let kept = this.pins.give_up();
        // A snapshot or a follower comes to any segment.
        if Arc::strong_count(this) > 1 {
            let all = this.segments.all().into_iter().map(|(_, segment)| segment);
            this.keep_lock_for(all.chain(kept.iter().cloned()).filter(|seg| !seg.keep_readable()));
        }
        // Who can't write any more leaves it to the next opening.
        for segment in kept.iter().filter(|_| this.is_sound()) {
            let _ = this.remove_files(segment);
        }
    }

    /// Has segments keep the lock of the store, if there are any.
    fn keep_lock_for(&self, segments: impl Iterator<Item = Arc<Segment>>) {
        let mut segments = segments.peekable();
        if segments.peek().is_some()
            && let Ok(writer) = self.writer()
            && let Some(lock) = writer.lock.lock().take().map(Arc::new)
        {
            segments.for_each(|segment| segment.hold_lock(&lock));
        }
    }

    /// Leaves the unsealed segments to recovery, for a store that is closed after a failed write or
    /// sync. What others hold of them stays what it is: where that needs the files as they are, the
    /// store can't be opened until it is let go.
    pub(crate) fn leave_to_recovery(this: &Arc<Self>) {
        let Ok(writer) = this.writer() else { return };
        // Nothing is stored any more: what could is given up with the end of the log.
        let mut stuck = writer.log.lock().give_up();
        // A snapshot or a follower holds all of this, and comes to any segment.
        let is_shared = Arc::strong_count(this) > 1;
        // A thread that has dropped its snapshot may still hold a value: this makes what it had counted
        // before visible.
        fence(Ordering::Acquire);
        stuck.retain(|(segment, file)| !this.segments.detach(segment, file, is_shared));
        this.keep_lock_for(stuck.into_iter().map(|(segment, _)| segment));
    }

    /// Removes what could not be removed before, as far as that can be done now.
    pub(crate) fn remove_late(&self) {
        let late = std::mem::take(&mut self.pins.0.lock().late);
        for segment in late {
            // What can't be removed now is removed at the next open.
            let _ = self.remove_files(&segment);
        }
    }

    fn remove_files(&self, segment: &Arc<Segment>) -> Result<()> {
        // Who holds it without a mapping goes on with an open file. What was removed before may still
        // take descriptors.
        let stays = segment.keep_readable() || {
            self.segments.free_retired();
            let is_ours_alone = self.segments.is_quiescent() && Arc::strong_count(segment) == 1;
            is_ours_alone || segment.keep_readable()
        };
        if !stays {
            self.pins.0.lock().late.push(Arc::clone(segment));
            return Ok(());
        }
        let hint = self.fs.remove(&self.dir.hint(segment.id()));
        let index = self.fs.remove(&self.dir.index(segment.id()));
        hint.and(index).and(self.fs.remove(segment.path()))
    }
}
