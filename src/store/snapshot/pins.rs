//! Pins: segments whose files stay until the last snapshot that needs them is dropped.
//!
//! - A snapshot records the segments of its moment and is itself recorded here, in one step.
//!   Removing a segment takes it out of the set first and checks the pins afterwards. So either a
//!   snapshot has the segment and it is kept, or no snapshot has it.
//! - A snapshot that outlives its store continues with the segments that are mapped or open, and
//!   removes nothing.
//! - A segment without a mapping is read by its file's name, or through a descriptor opened before
//!   the name is removed. If no descriptor is available, the name stays until one is, or until
//!   nothing holds the segment.
//! - After a failed write or sync, recovery may cut the files that a snapshot or a held value still
//!   reads. In that case they continue with a copy.
//! - On disk, a pinned segment is a leftover like any that a merge or a clear did not get to
//!   remove: no manifest lists it, and the next open removes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use crate::error::Result;
use crate::segment::Segment;
use crate::stats::Stats;
use crate::store::Inner;
use crate::sync::Mutex;

/// The segments of one moment.
pub(crate) type Pinned = Arc<[Arc<Segment>]>;

/// All live snapshots. Lock 6.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<PinState>);

#[derive(Debug, Default)]
struct PinState {
    /// Number of snapshots ever taken.
    next: u64,
    /// By number, so oldest first.
    snapshots: BTreeMap<u64, (Instant, Pinned)>,
    /// Segments removed from the store but kept for a snapshot.
    kept: Vec<PinnedSegment>,
    /// Segments removed from the store but kept because no descriptor was available for their
    /// readers.
    late: Vec<Arc<Segment>>,
}

/// A kept segment, with the numbers of the first and last snapshots that have it.
#[derive(Debug)]
struct PinnedSegment {
    segment: Arc<Segment>,
    first: u64,
    last: u64,
}

impl PinState {
    /// Returns the numbers of the first and last snapshots that have a segment.
    fn pinned_by(&self, segment: &Arc<Segment>) -> Option<(u64, u64)> {
        let mut last: Option<(&Pinned, bool)> = None;
        let mut has = |pinned| {
            // Snapshots taken between the same two changes of the set share one list.
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
    /// Returns whether files remain to be removed because no descriptor was available.
    pub(crate) fn has_late(&self) -> bool {
        !self.0.lock().late.is_empty()
    }

    /// Registers a snapshot of the segments that the closure returns. Returns its number.
    pub(crate) fn pin(&self, segments: impl FnOnce() -> Pinned) -> (u64, Pinned) {
        let mut held = self.0.lock();
        let (number, pinned) = (held.next, segments());
        held.next += 1;
        held.snapshots.insert(number, (Instant::now(), Arc::clone(&pinned)));
        (number, pinned)
    }

    /// Removes a snapshot. Returns the segments that were kept only for it.
    fn unpin(&self, number: u64) -> Vec<Arc<Segment>> {
        let mut held = self.0.lock();
        held.snapshots.remove(&number);
        let kept = std::mem::take(&mut held.kept);
        // A segment enters the set once and leaves it once. So every snapshot numbered between its
        // first and its last one also has it.
        let is_pinned =
            |kept: &PinnedSegment| held.snapshots.range(kept.first..=kept.last).next().is_some();
        let (kept, free): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_pinned);
        held.kept = kept;
        free.into_iter().map(|kept| kept.segment).collect()
    }

    /// Keeps a removed segment if a snapshot needs it. Returns whether one does.
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

    /// Returns the kept segments and stops keeping them: the store is being closed, and the next
    /// open removes leftovers.
    fn give_up(&self) -> Vec<Arc<Segment>> {
        let kept = std::mem::take(&mut self.0.lock().kept);
        kept.into_iter().map(|kept| kept.segment).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().snapshots.is_empty()
    }

    /// Adds the snapshots' figures to the statistics.
    pub(crate) fn count(&self, stats: &mut Stats) {
        let held = self.0.lock();
        stats.snapshots = held.snapshots.len() as u64;
        stats.oldest_snapshot = held.snapshots.values().next().map(|(since, _)| since.elapsed());
        stats.pinned_segments = held.kept.len() as u64;
        stats.pinned_size = held.kept.iter().map(|kept| kept.segment.size()).sum();
    }
}

impl Inner {
    /// Removes the files of a segment that has left both the manifest and the set, or keeps them
    /// for as long as a snapshot needs them.
    pub(crate) fn unlink(&self, segment: &Arc<Segment>) -> Result<()> {
        if self.pins.keep(segment) { Ok(()) } else { self.remove_files(segment) }
    }

    /// Removes a snapshot, and the files that were kept only for it.
    pub(crate) fn unpin(&self, number: u64) {
        for segment in self.pins.unpin(number) {
            // If this fails, the next open removes the files.
            let _ = self.remove_files(&segment);
        }
        if self.pins.has_late() {
            self.look_again();
        }
    }

    /// Prepares snapshots for the closing of the store: they must continue without the file names
    /// in its directory, which belong to the next opener from then on. If that is impossible, the
    /// store cannot be opened until they are dropped.
    pub(crate) fn prepare_to_outlive(this: &Arc<Self>) {
        if !this.pins.is_empty() {
            // Shards are filled from hints. Accessing a shard that cannot be filled returns the
            // error.
            let _ = this.filler.fill_all(&this.keydir);
        }
        this.remove_late();
        let kept = this.pins.give_up();
        // A snapshot or a follower can reach any segment.
        if Arc::strong_count(this) > 1 {
            let all = this.segments.all().into_iter().map(|(_, segment)| segment);
            this.keep_lock_for(all.chain(kept.iter().cloned()).filter(|seg| !seg.keep_readable()));
        }
        // After a failed write, the removal is left to the next open.
        for segment in kept.iter().filter(|_| this.is_sound()) {
            let _ = this.remove_files(segment);
        }
    }

    /// Makes segments hold the store's lock. Does nothing if there are no segments.
    fn keep_lock_for(&self, segments: impl Iterator<Item = Arc<Segment>>) {
        let mut segments = segments.peekable();
        if segments.peek().is_some()
            && let Ok(writer) = self.writer()
            && let Some(lock) = writer.lock.lock().take().map(Arc::new)
        {
            segments.for_each(|segment| segment.hold_lock(&lock));
        }
    }

    /// Leaves the unsealed segments to recovery when the store is closed after a failed write or
    /// sync. Snapshots and values that still use them stay valid. If that requires the files as
    /// they are, the store cannot be opened until they are dropped.
    pub(crate) fn leave_to_recovery(this: &Arc<Self>) {
        let Ok(writer) = this.writer() else { return };
        // Nothing is stored from here on: giving up the end of the log gives up everything that
        // could store.
        let mut stuck = writer.log.lock().give_up();
        // A snapshot or a follower holds all of this, and can reach any segment.
        let is_shared = Arc::strong_count(this) > 1;
        // A thread that has dropped its snapshot may still hold a value. This fence makes the
        // references that it counted earlier visible.
        fence(Ordering::Acquire);
        stuck.retain(|(segment, file)| !this.segments.detach(segment, file, is_shared));
        this.keep_lock_for(stuck.into_iter().map(|(segment, _)| segment));
    }

    /// Retries the removals that failed for lack of a descriptor.
    pub(crate) fn remove_late(&self) {
        let late = std::mem::take(&mut self.pins.0.lock().late);
        for segment in late {
            // If this fails, the next open removes the files.
            let _ = self.remove_files(&segment);
        }
    }

    fn remove_files(&self, segment: &Arc<Segment>) -> Result<()> {
        // Holders without a mapping continue with an open file. Segments removed earlier may still
        // occupy descriptors.
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
