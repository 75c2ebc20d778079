//! A wall clock and a monotonic clock whose hands a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, TimeSource};

/// A wall clock and a monotonic clock whose hands a test moves. Otherwise time stands still.
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    pub(super) wall: Arc<AtomicU64>,
    pub(super) steady: Arc<AtomicU64>,
    pub(super) looks: Arc<AtomicU64>,
}

impl Hands {
    /// Starts at a fixed moment, far enough from zero to be moved back.
    pub(crate) fn new() -> Self {
        Self::at(1_700_000_000_000_000)
    }

    /// Starts at a given moment.
    pub(crate) fn at(time: u64) -> Self {
        let steady = Arc::new(AtomicU64::new(5_000_000));
        Self { wall: Arc::new(AtomicU64::new(time)), steady, looks: Arc::default() }
    }

    /// Returns a fresh clock with these hands, like the one that opening a store creates.
    pub(crate) fn clock(&self) -> Clock {
        Clock::new(TimeSource::Hands(self.clone()), 0)
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_micros()).unwrap();
        self.steady.fetch_add(by, Ordering::Relaxed);
        self.wall.fetch_add(by, Ordering::Relaxed);
    }

    /// Returns how many times a clock with these hands was asked for the time.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// Sets the wall clock back.
    pub(crate) fn step_back(&self, by: Duration) {
        self.wall.fetch_sub(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// Sets the wall clock ahead, as also happens when a machine has slept.
    #[cfg(test)]
    pub(crate) fn jump(&self, by: Duration) {
        self.wall.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }
}
