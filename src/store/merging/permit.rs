//! The turn to merge, and how a merge is asked to stop.
//!
//! - Merges run one at a time; each takes the turn. An operation that cannot wait for a merge to
//!   end (`clear`, closing) asks it to stop. The merge stops after the run of entries that it is
//!   copying.
//! - The turn is taken before all locks. A merge's own callback that asks for the turn gets an
//!   error, since it would wait for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::control::{CurrentPolicy, Pauses};
use super::lease::HistoryLeases;
use crate::counters::Recorder;
use crate::error::{Error, Result};
use crate::merge::Merge;
use crate::options::MergePolicy;
use crate::segment::SegmentId;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, ThreadId, current_thread};

/// State of the turn to merge.
#[derive(Debug)]
pub(crate) struct MergeControl {
    /// The current policy.
    pub(crate) policy: Arc<CurrentPolicy>,
    /// Pauses, and whether a merge is running.
    pub(crate) pauses: Arc<Pauses>,
    /// History that followers still need.
    pub(crate) leases: Arc<HistoryLeases>,
    /// Lock 1: the merge whose copies could not be published.
    pending: Mutex<Option<Merge>>,
    /// Lock 8: the thread that has the turn.
    thread: Mutex<Option<ThreadId>>,
    /// Number of requests to stop merging.
    stops: AtomicUsize,
    /// Lock 8: the segments that a merge could not read.
    damaged: Mutex<BTreeSet<u32>>,
    /// How long merges took.
    pub(crate) latency: Recorder,
    /// Lock 8: the number of entries appended as of the last check whether a merge is due.
    seen_appends: Mutex<Option<u64>>,
}

/// The turn to merge, or to prevent merges.
#[derive(Debug)]
pub(crate) struct MergePermit<'a> {
    merging: &'a MergeControl,
    pub(crate) pending: MutexGuard<'a, Option<Merge>>,
}

impl Drop for MergePermit<'_> {
    fn drop(&mut self) {
        self.merging.pauses.end();
        *self.merging.thread.lock() = None;
    }
}

impl MergeControl {
    pub(crate) fn new(policy: MergePolicy) -> Self {
        Self {
            policy: Arc::new(CurrentPolicy::new(policy)),
            pauses: Arc::default(),
            leases: Arc::default(),
            pending: Mutex::default(),
            thread: Mutex::default(),
            stops: AtomicUsize::default(),
            damaged: Mutex::default(),
            latency: Recorder::default(),
            seen_appends: Mutex::default(),
        }
    }

    /// Waits for the turn. Returns an error to a merge's own callback, which would wait forever.
    pub(crate) fn turn(&self) -> Result<MergePermit<'_>> {
        let this = current_thread();
        if *self.thread.lock() == Some(this) {
            return Err(Error::WithinMerge);
        }
        let pending = self.pending.lock();
        *self.thread.lock() = Some(this);
        Ok(MergePermit { merging: self, pending })
    }

    /// Stops a merge in progress and takes the turn.
    pub(crate) fn interrupt(&self) -> Result<MergePermit<'_>> {
        self.stops.fetch_add(1, Ordering::Relaxed);
        let turn = self.turn();
        self.stops.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// Stops merges until [`reopen`](Self::reopen) is called.
    pub(crate) fn close(&self) {
        self.stops.fetch_add(1, Ordering::Relaxed);
    }

    /// Allows merges again after a [`close`](Self::close).
    pub(crate) fn reopen(&self) {
        self.stops.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn is_to_stop(&self) -> bool {
        self.stops.load(Ordering::Relaxed) > 0
    }

    /// Records a segment that could not be read, so that merges do not try it again and again.
    pub(crate) fn note_damage(&self, id: SegmentId) {
        self.damaged.lock().insert(id.0);
    }

    /// Returns the segments that could not be read.
    pub(crate) fn damaged(&self) -> BTreeSet<u32> {
        self.damaged.lock().clone()
    }

    /// Records the number of appended entries. Returns the number at the last check.
    pub(crate) fn look(&self, appends: u64) -> Option<u64> {
        self.seen_appends.lock().replace(appends)
    }

    /// Ensures that the next check does not take the store for idle, however soon it comes.
    pub(crate) fn disturb(&self) {
        if let Some(seen) = self.seen_appends.lock().as_mut() {
            *seen = u64::MAX;
        }
    }
}
