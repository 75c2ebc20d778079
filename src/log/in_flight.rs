//! Waiting for appends in flight: entries that are in the log but not yet in the keydir.
//!
//! The section "The window between log and keydir" of ARCHITECTURE.md explains what has to wait for
//! them, and why. A writer in flight holds the locks of its shards, and waits for nothing before it
//! releases them. So waiting for it means locking these shards. The log does not know them, so the
//! store does the waiting, as a [`Publisher`]. The holder of these locks may be a writer that still
//! has to create a segment before it appends, or a clear that is replacing the manifest.

use super::LogWriter;
use super::state::Log;
use crate::mistake::{Mistake, made};
use crate::segment::Segment;
use crate::sync::yield_now;

/// Number of attempts to find the log without an append in flight, before the publisher has to wait
/// for the appends.
const ATTEMPTS: usize = if cfg!(all(test, loom)) { 0 } else { 32 };

/// The part of the store that publishes what the log has appended.
pub(crate) trait Publisher {
    /// Waits until all entries appended before this call are published.
    fn wait_for_writers(&self);
}

/// Waits until slots name everything in a segment that no longer grows.
pub(super) fn await_published(segment: &Segment, publisher: &impl Publisher) {
    if !segment.is_published() && !made(Mistake::SealedInFlight) {
        publisher.wait_for_writers();
    }
}

impl LogWriter {
    /// Reads something from the log at one moment. Returns it once slots name everything appended
    /// by then.
    pub(crate) fn at_one_moment<T>(
        &self,
        publisher: &impl Publisher,
        mut note: impl FnMut(&Log) -> T,
    ) -> T {
        for _ in 0..ATTEMPTS {
            let log = self.lock();
            if log.is_published() || made(Mistake::MomentInFlight) {
                return note(&log);
            }
            drop(log);
            yield_now();
        }
        let log = self.lock();
        let (noted, is_published) = (note(&log), log.is_published());
        drop(log);
        if !is_published && !made(Mistake::MomentInFlight) {
            publisher.wait_for_writers();
        }
        noted
    }
}
