//! The time of day, in microseconds since the Unix epoch.
//!
//! - Time as this module tells it never runs backwards while a store is open, and never stands still:
//!   it goes on from the highest time seen, as fast as the machine's monotonic clock does. So an entry
//!   which was once expired stays so, whatever is done to the clock.
//! - All that is kept is therefore how far the time of day is ahead of the monotonic clock. One look at
//!   the monotonic clock tells the time; the clock on the wall is looked at now and then.
//! - The log may be from a time that has not come by the clock: then the clock was ahead when that was
//!   written, or is behind now. What was written at such a time expires by the log's own time, which goes
//!   on from its last entry; what was written before expires by the clock. See [`Now`].
//! - What a clock tells that has jumped ahead is good enough to hide a value, but not to destroy it. See
//!   `trust`.
//! - Tests hold clocks whose hands they move.

#[cfg(test)]
mod tests;
mod trust;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trust::Trust;

/// Times at or above this are refused when they are read from disk: year 294,247.
pub(crate) const TIME_MAX: u64 = i64::MAX as u64;

/// Microseconds between two looks at the clock on the wall. One that was set ahead,
/// or a machine that has slept, is noticed so much later.
const LOOK_INTERVAL: u64 = 1000;

/// The log may be ahead of the clock by so many microseconds and count as of the same time: each entry
/// is later than the one before, so many at once are ahead of any clock for a while.
const BURST: u64 = 100_000;

/// A clock that never runs backwards, and never stands still.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    ahead: Arc<Offsets>,
    source: TimeSource,
    look_interval: u64,
}

/// How far times are ahead of the monotonic clock, in microseconds. They only rise.
#[derive(Debug)]
struct Offsets {
    /// The highest that the clock on the wall has shown.
    wall: AtomicU64,
    /// That, or the log's own time where the log is ahead of the clock.
    highest: AtomicU64,
    /// What was written up to this time expires by the clock, and all else by the log's time. There is
    /// none as long as the two are the same.
    boundary: AtomicU64,
    /// When the clock on the wall is to be looked at again, by the monotonic clock.
    next_look: AtomicU64,
    /// Lock 8: whether the clock on the wall is believed.
    trust: Mutex<Trust>,
}

impl Offsets {
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
enum TimeSource {
    /// The system's, and a moment from which the monotonic clock counts.
    System(Instant),
    #[cfg(any(test, bitcask_fuzzing))]
    Hands(Hands),
}

/// A moment, by what expiry is judged at it.
///
/// There are two times, which are the same nearly always: `low` for what was written up to `boundary`,
/// and `high`, which is never lower, for what was written later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    low: u64,
    high: u64,
    boundary: u64,
}

impl Now {
    /// One time for all.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn at(time: u64) -> Self {
        Self { low: time, high: time, boundary: u64::MAX }
    }

    /// Returns the time by which an entry expires that was written at `timestamp`.
    pub(crate) fn of(&self, timestamp: u64) -> u64 {
        if timestamp <= self.boundary { self.low } else { self.high }
    }

    /// Returns whether the time of an entry is over that was written at `timestamp`.
    pub(crate) fn is_over(&self, timestamp: u64, expiry: u64) -> bool {
        expiry <= self.of(timestamp)
    }

    /// Returns when an entry expires that was written at `timestamp`.
    pub(crate) fn deadline(&self, timestamp: u64, expiry: u64) -> Deadline {
        Deadline::new(self.boundary, timestamp, expiry)
    }

    /// Returns a time up to which everything has expired, whenever it was written.
    pub(crate) fn lowest(&self) -> u64 {
        self.low
    }

    /// Returns the time that the next entry gets, if it is later than that of the one before.
    pub(crate) fn highest(&self) -> u64 {
        self.high
    }
}

/// When the first of some entries expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    low: u64,
    high: u64,
}

impl Default for Deadline {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Deadline {
    /// None of them does.
    pub(crate) const NEVER: Self = Self { low: u64::MAX, high: u64::MAX };

    fn new(boundary: u64, timestamp: u64, expiry: u64) -> Self {
        if timestamp <= boundary {
            Self { low: expiry, ..Self::NEVER }
        } else {
            Self { high: expiry, ..Self::NEVER }
        }
    }

    /// Returns that of the entries of both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.min(other.high) }
    }

    pub(crate) fn is_never(self) -> bool {
        self == Self::NEVER
    }

    pub(crate) fn is_over(self, now: &Now) -> bool {
        self.low <= now.low || self.high <= now.high
    }
}

impl Clock {
    /// The system's clock.
    pub(crate) fn system() -> Self {
        Self::new(TimeSource::System(Instant::now()), LOOK_INTERVAL)
    }

    fn new(source: TimeSource, look_interval: u64) -> Self {
        let ahead = Arc::new(Offsets {
            wall: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            boundary: AtomicU64::new(u64::MAX),
            next_look: AtomicU64::new(0),
            trust: Mutex::default(),
        });
        let clock = Self { ahead, source, look_interval };
        let (steady, wall) = clock.look();
        *clock.ahead.trust() = Trust::new(wall.saturating_sub(steady));
        clock
    }

    /// Returns a clock of its own, which knows nothing yet of any log: a store that is opened takes one.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.source.clone(), self.look_interval)
    }

    /// Returns the time, in microseconds since the epoch: no lower one than ever before.
    pub(crate) fn now(&self) -> u64 {
        self.steady().saturating_add(self.ahead.highest.load(Ordering::Relaxed)).min(TIME_MAX - 1)
    }

    /// Returns whether the clock on the wall shows far less than a time in the log.
    pub(crate) fn is_behind(&self, timestamp: u64) -> bool {
        timestamp > self.wall().saturating_add(BURST)
    }

    /// Returns what expiry is judged by.
    pub(crate) fn read(&self) -> Now {
        let (steady, ahead) = (self.steady(), &*self.ahead);
        let low = steady.saturating_add(ahead.wall.load(Ordering::Relaxed)).min(TIME_MAX - 1);
        // Where the two are the same they rise together, but not at once.
        let boundary = ahead.boundary.load(Ordering::Acquire);
        let high = steady.saturating_add(ahead.highest.load(Ordering::Relaxed)).min(TIME_MAX - 1);
        Now { low, high: high.max(low), boundary }
    }

    /// Returns what expiry is judged by where that is for good: nothing is over that a clock which is
    /// wrong now, and is set right, would show to be still to come.
    pub(crate) fn certain(&self) -> Now {
        let (steady, _) = self.look();
        let believed = self.ahead.trust().believed();
        let low = steady.saturating_add(believed).min(TIME_MAX - 1);
        let judged = self.read();
        let boundary = match judged.boundary {
            u64::MAX => low + BURST,
            boundary => boundary.max(low + BURST),
        };
        Now { low: low.min(judged.low), boundary, high: judged.high }
    }

    /// Returns when an entry expires that was written at `timestamp`. Looks at no clock.
    pub(crate) fn deadline(&self, timestamp: u64, expiry: u64) -> Deadline {
        Deadline::new(self.ahead.boundary.load(Ordering::Acquire), timestamp, expiry)
    }

    /// Returns the time `ttl` from now, or `None` if that is beyond the end of time.
    pub(crate) fn after(&self, ttl: Duration) -> Option<u64> {
        let ttl = u64::try_from(ttl.as_micros()).ok()?;
        self.now().checked_add(ttl).filter(|time| *time < TIME_MAX - 1)
    }

    /// Returns the expiry that has an entry which is written now expire when one does that was written at
    /// `timestamp`.
    pub(crate) fn same_expiry(&self, timestamp: u64, expiry: u64) -> u64 {
        let now = self.read();
        let ahead = now.of(now.highest()).saturating_sub(now.of(timestamp));
        expiry.saturating_add(ahead)
    }

    /// Returns the time of day as the clock on the wall shows it, right or wrong.
    pub(crate) fn wall(&self) -> u64 {
        match &self.source {
            TimeSource::System(_) => micros_since_epoch(SystemTime::now()),
            #[cfg(any(test, bitcask_fuzzing))]
            TimeSource::Hands(hands) => hands.wall.load(Ordering::Relaxed),
        }
    }

    /// Goes on from the last time of a log that is opened, where that is ahead. Where it is far behind,
    /// the clock may have jumped since.
    pub(crate) fn resume(&self, last_timestamp: u64) {
        self.reach(last_timestamp);
        let (steady, wall) = self.look();
        if last_timestamp > 0 {
            let wall = wall.saturating_sub(steady);
            let log = last_timestamp.saturating_sub(steady);
            *self.ahead.trust() = Trust::since(log.min(wall), steady, wall);
        }
    }

    /// Goes on from a time that is in the log, if it has not come yet by far.
    pub(crate) fn reach(&self, timestamp: u64) {
        let (steady, _) = self.look();
        let now = self.read();
        if timestamp <= now.high.saturating_add(BURST) {
            return;
        }
        // In this order: as long as nothing is ahead it does not matter where the boundary is. It stays,
        // so that nothing that has expired is alive again.
        let (ahead, none) = (&*self.ahead, u64::MAX);
        let (set, kept) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = ahead.boundary.compare_exchange(none, now.low + BURST, set, kept);
        ahead.highest.fetch_max(timestamp.saturating_sub(steady), Ordering::AcqRel);
    }

    /// Returns the monotonic time, and looks at the clock on the wall first if that is due.
    fn steady(&self) -> u64 {
        let steady = self.monotonic();
        let is_due = steady >= self.ahead.next_look.load(Ordering::Relaxed);
        let steady = if is_due { self.look().0 } else { steady };
        #[cfg(any(test, bitcask_fuzzing))]
        if let TimeSource::Hands(hands) = &self.source {
            hands.looks.fetch_add(1, Ordering::Release);
        }
        steady
    }

    /// Looks at both clocks; returns the monotonic time, and that on the wall.
    #[cold]
    fn look(&self) -> (u64, u64) {
        // In this order: whatever happens between the two, the wall is not taken to be further ahead than
        // it was. One that is behind is made good by the next look.
        let wall = self.wall();
        let steady = self.monotonic();
        let (ahead, by) = (&*self.ahead, wall.saturating_sub(steady));
        ahead.highest.fetch_max(by, Ordering::AcqRel);
        ahead.wall.fetch_max(by, Ordering::AcqRel);
        ahead.trust().note(steady, by);
        ahead.next_look.store(steady.saturating_add(self.look_interval), Ordering::Relaxed);
        (steady, wall)
    }

    fn monotonic(&self) -> u64 {
        match &self.source {
            TimeSource::System(start) => {
                let since = start.elapsed();
                let micros = since.as_secs().saturating_mul(1_000_000);
                micros.saturating_add(since.subsec_micros().into())
            }
            #[cfg(any(test, bitcask_fuzzing))]
            TimeSource::Hands(hands) => hands.steady.load(Ordering::Relaxed),
        }
    }
}

/// Returns a time of day in microseconds since the epoch: zero if it is before that, and the last one
/// that there is if it is later.
pub(crate) fn micros_since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = since.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(since.subsec_micros().into()).min(TIME_MAX - 1)
}

/// Returns a time of the log as the standard library has it.
pub(crate) fn system_time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// Two clocks whose hands a test moves, that on the wall and the monotonic one; time stands still
/// otherwise.
#[cfg(any(test, bitcask_fuzzing))]
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    wall: Arc<AtomicU64>,
    steady: Arc<AtomicU64>,
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
        let steady = Arc::new(AtomicU64::new(5_000_000));
        Self { wall: Arc::new(AtomicU64::new(time)), steady, looks: Arc::default() }
    }

    /// A fresh clock with these hands, as a store that is opened makes one.
    pub(crate) fn clock(&self) -> Clock {
        Clock::new(TimeSource::Hands(self.clone()), 0)
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_micros()).unwrap();
        self.steady.fetch_add(by, Ordering::Relaxed);
        self.wall.fetch_add(by, Ordering::Relaxed);
    }

    /// Returns how often anybody has asked a clock with these hands for the time.
    #[cfg(test)]
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// Sets the clock on the wall back.
    pub(crate) fn step_back(&self, by: Duration) {
        self.wall.fetch_sub(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// Sets the clock on the wall ahead, as it also is when a machine has slept.
    #[cfg(test)]
    pub(crate) fn jump(&self, by: Duration) {
        self.wall.fetch_add(u64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }
}
