//! What is counted of a segment while it is in use: the bytes that slots name, and the appends that they
//! do not name yet.

use super::Segment;
use crate::mistake::{Mistake, made};
use crate::sync::{AtomicU64, Ordering};

/// Figures that writers change, apart from what readers look at all the time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SegmentCounts {
    /// Bytes of the entries here that slots name.
    live_size: AtomicU64,
    /// Appends here that are not published.
    in_flight: AtomicU64,
}

/// An append that the log has and the keydir does not have yet. It counts as published when this is
/// dropped.
#[derive(Debug)]
#[must_use = "an append is in flight for as long as this is held"]
pub(crate) struct InFlight<'a>(&'a Segment);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !made(Mistake::CountLoweredEarly) {
            self.0.counts.in_flight.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Segment {
    pub(crate) fn live_size(&self) -> u64 {
        self.counts.live_size.load(Ordering::Relaxed)
    }

    /// Takes note of an append that no slot names yet. The caller holds the lock of the log.
    pub(crate) fn begin_append(&self) -> InFlight<'_> {
        if !made(Mistake::CountLoweredEarly) {
            self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        InFlight(self)
    }

    /// Returns whether every append that the caller can know of has been published. Once nothing is
    /// appended to the segment any more, the answer stays `true`.
    pub(crate) fn is_published(&self) -> bool {
        self.counts.in_flight.load(Ordering::Acquire) == 0
    }

    /// Accounts an entry that a slot names now.
    pub(crate) fn gained(&self, entry_size: u64) {
        self.counts.live_size.fetch_add(entry_size, Ordering::Relaxed);
    }

    /// Accounts an entry that no slot names any more.
    pub(crate) fn lost(&self, entry_size: u64) {
        // An old entry's size is not checked before it is overwritten: damaged, it may be too much.
        let less = |size: u64| Some(size.saturating_sub(entry_size));
        let _ = self.counts.live_size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}
