//! Counters of a segment in use: the bytes that slots name, and the appends that no slot names yet.

use super::Segment;
use crate::mistake::{Mistake, made};
use crate::sync::{AtomicU64, Ordering};

/// Counters that writers change. They have their own cache line, away from what readers load all
/// the time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct SegmentCounts {
    /// Bytes of the segment's entries that slots name.
    live_size: AtomicU64,
    /// Appends to the segment that are not published.
    in_flight: AtomicU64,
}

/// An append that is in the log and not yet in the keydir. Dropping this marks it as published.
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

    /// Counts an append that no slot names yet. The caller holds the lock of the log.
    pub(crate) fn begin_append(&self) -> InFlight<'_> {
        if !made(Mistake::CountLoweredEarly) {
            self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        InFlight(self)
    }

    /// Returns whether every append that the caller can know of has been published. Once nothing
    /// more is appended to the segment, the answer stays `true`.
    pub(crate) fn is_published(&self) -> bool {
        self.counts.in_flight.load(Ordering::Acquire) == 0
    }

    /// Counts the bytes of an entry that a slot now names.
    pub(crate) fn gained(&self, entry_size: u64) {
        self.counts.live_size.fetch_add(entry_size, Ordering::Relaxed);
    }

    /// Discounts the bytes of an entry that no slot names any more.
    pub(crate) fn lost(&self, entry_size: u64) {
        // The size of an old entry is not checked before it is overwritten. A damaged size may be
        // too large.
        let less = |size: u64| Some(size.saturating_sub(entry_size));
        let _ = self.counts.live_size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}
