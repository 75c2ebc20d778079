//! The time of day, in microseconds since the Unix epoch.
//!
//! - Time as this module tells it never runs backwards while a store is open: expiry is judged by
//!   the highest time seen, so that an entry which was once expired stays so.
//! - Tests hold a clock whose hands they move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Times at or above this are refused when they are read from disk: year 294,247.
pub(crate) const TIME_MAX: u64 = i64::MAX as u64;

/// A clock that never runs backwards.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    highest: Arc<AtomicU64>,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    System,
    #[cfg(any(test, bitcask_fuzzing))]
    Hands(Hands),
}

impl Clock {
    /// The system's clock.
    pub(crate) fn system() -> Self {
        Self { highest: Arc::default(), source: Source::System }
    }

    /// Returns the highest time seen so far, in microseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        let now = self.wall();
        self.highest.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Returns the time `ttl` from now. One beyond the end of time is the end of time.
    pub(crate) fn after(&self, ttl: Duration) -> u64 {
        let ttl = u64::try_from(ttl.as_micros()).unwrap_or(TIME_MAX);
        self.now().saturating_add(ttl).min(TIME_MAX - 1)
    }

    fn wall(&self) -> u64 {
        match &self.source {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let micros = since.as_secs().saturating_mul(1_000_000);
                micros.saturating_add(since.subsec_micros().into()).min(TIME_MAX - 1)
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Source::Hands(Hands { time, looks }) => {
                let now = time.load(Ordering::Relaxed);
                looks.fetch_add(1, Ordering::Release);
                now
            }
        }
    }
}

/// Returns a time of the log as the standard library has it.
pub(crate) fn system_time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// A clock whose hands a test moves; time stands still otherwise.
#[cfg(any(test, bitcask_fuzzing))]
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    time: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
}

#[cfg(any(test, bitcask_fuzzing))]
impl Hands {
    /// Starts at a fixed moment, far enough from zero to be moved back.
    pub(crate) fn new() -> Self {
        Self::at(1_700_000_000_000_000)
    }

    /// Starts at this moment.
    pub(crate) fn at(time: u64) -> Self {
        Self { time: Arc::new(AtomicU64::new(time)), looks: Arc::default() }
    }

    /// A fresh clock with these hands, as a store that is opened makes one.
    pub(crate) fn clock(&self) -> Clock {
        Clock { highest: Arc::default(), source: Source::Hands(self.clone()) }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.time.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// Returns how often anybody has looked at a clock with these hands.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    pub(crate) fn step_back(&self, by: Duration) {
        self.time.fetch_sub(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards_while_a_store_is_open() {
        let hands = Hands::new();
        let clock = hands.clock();
        let first = clock.now();
        hands.step_back(Duration::from_secs(60));
        assert_eq!(clock.now(), first);
        hands.advance(Duration::from_secs(61));
        assert_eq!(clock.now(), first + 1_000_000);
    }

    #[test]
    fn an_endless_ttl_ends_with_time() {
        let clock = Hands::new().clock();
        assert_eq!(clock.after(Duration::MAX), TIME_MAX - 1);
    }
}
