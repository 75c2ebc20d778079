//! A time that its owner sets, for stores that replicas have to keep equal.
//!
//! - The clock stands still until its owner gives it a later time. So the changes that a replica
//!   has applied decide what has expired, and not the clock of its machine.
//! - The log of the store has no say: its timestamps run ahead of this clock, by a microsecond for
//!   each entry, and differ between replicas.
//! - Only the age of history and the hour of merges go by the machine's clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Clock, LOOK_INTERVAL, TIME_MAX, TimeSource};

/// Upper bound of given times, in microseconds: 35 years before the end of time. The timestamps of
/// entries run ahead, and must not reach that end.
const GIVEN_MAX: u64 = TIME_MAX - (1 << 50);

/// A time, in microseconds since the epoch. It starts at 0, when nothing has expired. Clones share
/// it.
#[derive(Debug, Clone, Default)]
pub(crate) struct GivenTime(Arc<AtomicU64>);

impl GivenTime {
    /// Returns a clock that shows this time.
    pub(crate) fn clock(&self) -> Clock {
        Clock::new(TimeSource::Given(self.clone(), Instant::now()), LOOK_INTERVAL)
    }

    /// Moves the time on. An earlier time has no effect, and there is a latest one.
    pub(crate) fn advance_to(&self, time: u64) {
        self.0.fetch_max(time.min(GIVEN_MAX), Ordering::AcqRel);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}
