//! Waiting for appends in flight: those that the log has and the keydir does not have yet.
//!
//! ARCHITECTURE.md says under "The window between log and keydir" what has to wait for them, and why. A
//! writer in flight holds the locks of its shards, and waits for nobody before it releases them. So to
//! wait for it is to lock these shards, which the log does not know: the store does it, as a
//! [`Publisher`]. It may meet a writer there that is about to append, and has to create a segment first;
//! or a clear, which replaces the manifest.

use super::LogWriter;
use super::state::Log;
use crate::mistake::{Mistake, made};
use crate::segment::Segment;
use crate::sync::yield_now;

/// The number of attempts to find the log without an append in flight, before the publisher is asked to
/// wait for those that there are.
const ATTEMPTS: usize = if cfg!(all(test, loom)) { 0 } else { 32 };

/// The part of the store that publishes what the log has appended.
pub(crate) trait Publisher {
    /// Waits until all entries are published that had been appended when this was called.
    fn wait_for_writers(&self);
}

/// Waits until slots name everything in a segment that nothing is appended to any more.
pub(super) fn await_published(segment: &Segment, publisher: &impl Publisher) {
    if !segment.is_published() && !made(Mistake::SealedInFlight) {
        publisher.wait_for_writers();
    }
}

impl LogWriter {
    /// Notes something of the log at one moment, and returns it once slots name everything that had been
    /// appended by then.
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
