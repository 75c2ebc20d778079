//! The time of day, in microseconds since the Unix epoch.
//!
//! - While a store is open, this clock never runs backwards and never stands still. It continues
//!   from the highest time seen, at the speed of the machine's monotonic clock. An expired entry
//!   therefore stays expired, even if the wall clock is changed.
//! - The clock only has to remember how far the time of day is ahead of the monotonic clock. Most
//!   readings of the time read only the monotonic clock; the wall clock is read now and then.
//! - The log may contain times that the wall clock has not reached yet: the clock was ahead when
//!   they were written, or it is behind now. Entries with such times expire by the log's own time,
//!   which continues from its last entry. Earlier entries expire by the wall clock. See [`Now`].
//! - A wall clock that has jumped ahead is trusted to hide a value, but not to destroy it. See
//!   `trust`.
//! - A store that replicas have to keep equal is given the time by its owner. See `given`.
//! - Tests use clocks whose hands they move.

mod age;
#[cfg_attr(
    not(feature = "raft"),
    cfg_attr(
        not(test),
        expect(dead_code, reason = "only state machines give their stores the time")
    )
)]
mod given;
#[cfg(any(test, bitcask_fuzzing))]
mod hands;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use age::Ages;
pub(crate) use given::GivenTime;
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) use hands::Hands;
use trust::Trust;

/// Upper bound of times, exclusive: times from disk that reach it are refused. It is in the year
/// 294,247.
pub(crate) const TIME_MAX: u64 = i64::MAX as u64;

/// Microseconds between two readings of the wall clock. The clock notices after this delay that the
/// wall clock was set ahead, or that the machine has slept.
const LOOK_INTERVAL: u64 = 1000;

/// Microseconds by which the log may be ahead of the clock and still count as of the same time.
/// Each entry's time is later than that of the entry before, so a burst of writes runs ahead of any
/// clock for a while.
const BURST: u64 = 100_000;

/// A clock that never runs backwards and never stands still.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    ahead: Arc<Offsets>,
    source: TimeSource,
    look_interval: u64,
}

/// How far times are ahead of the monotonic clock, in microseconds. The offsets only rise.
#[derive(Debug)]
struct Offsets {
    /// The offset of the highest time that the wall clock has shown.
    wall: AtomicU64,
    /// The same offset, or that of the log's own time if the log is ahead of the wall clock.
    highest: AtomicU64,
    /// Entries written up to this time expire by the wall clock, later ones by the log's time. It
    /// is `u64::MAX` as long as the two are the same.
    boundary: AtomicU64,
    /// The offset of the last time in the log when the store was opened.
    log: AtomicU64,
    /// When the store was opened, by the monotonic clock.
    opened: AtomicU64,
    /// When to read the wall clock again, by the monotonic clock.
    next_look: AtomicU64,
    /// Lock 8: whether the wall clock is believed.
    trust: Mutex<Trust>,
}

impl Offsets {
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
enum TimeSource {
    /// The system's clock, and the moment from which the monotonic clock counts.
    System(Instant),
    /// The time that its owner gives, and the moment from which the monotonic clock counts.
    Given(GivenTime, Instant),
    #[cfg(any(test, bitcask_fuzzing))]
    Hands(Hands),
}

/// The moment at which expiry is judged.
///
/// It consists of two times, which are nearly always equal: `low` applies to entries written up to
/// `boundary`, and `high`, which is never lower, to entries written later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    low: u64,
    high: u64,
    boundary: u64,
}

impl Now {
    /// Returns a moment with one time for all entries.
    pub(crate) fn at(time: u64) -> Self {
        Self { low: time, high: time, boundary: u64::MAX }
    }

    /// Returns the time by which the expiry of an entry written at `timestamp` is judged.
    pub(crate) fn of(&self, timestamp: u64) -> u64 {
        if timestamp <= self.boundary { self.low } else { self.high }
    }

    /// Returns whether an entry written at `timestamp` has expired.
    pub(crate) fn is_over(&self, timestamp: u64, expiry: u64) -> bool {
        expiry <= self.of(timestamp)
    }

    /// Returns when an entry written at `timestamp` expires.
    pub(crate) fn deadline(&self, timestamp: u64, expiry: u64) -> Deadline {
        Deadline::new(self.boundary, timestamp, expiry)
    }

    /// Returns a time up to which every expiry has passed, whenever the entry was written.
    pub(crate) fn lowest(&self) -> u64 {
        self.low
    }

    /// Returns the timestamp for the next entry, provided that it is later than that of the entry
    /// before.
    pub(crate) fn highest(&self) -> u64 {
        self.high
    }
}

/// The moment at which the first of several entries expires.
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
    /// No entry expires.
    pub(crate) const NEVER: Self = Self { low: u64::MAX, high: u64::MAX };

    fn new(boundary: u64, timestamp: u64, expiry: u64) -> Self {
        if timestamp <= boundary {
            Self { low: expiry, ..Self::NEVER }
        } else {
            Self { high: expiry, ..Self::NEVER }
        }
    }

    /// Returns the deadline for the entries of both.
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
    /// Returns the system's clock.
    pub(crate) fn system() -> Self {
        Self::new(TimeSource::System(Instant::now()), LOOK_INTERVAL)
    }

    fn new(source: TimeSource, look_interval: u64) -> Self {
        let ahead = Arc::new(Offsets {
            wall: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            boundary: AtomicU64::new(u64::MAX),
            log: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            trust: Mutex::default(),
        });
        let clock = Self { ahead, source, look_interval };
        let (steady, wall) = clock.look();
        *clock.ahead.trust() = Trust::new(wall.saturating_sub(steady));
        clock
    }

    /// Returns an independent clock that knows nothing of any log yet. Each open of a store takes
    /// one.
    pub(crate) fn fresh(&self) -> Self {
        Self::new(self.source.clone(), self.look_interval)
    }

    /// Returns the time, in microseconds since the epoch. It is never lower than any time before.
    pub(crate) fn now(&self) -> u64 {
        if let Some(time) = self.given() {
            return time;
        }
        self.steady().saturating_add(self.ahead.highest.load(Ordering::Relaxed)).min(TIME_MAX - 1)
    }

    /// Returns whether the wall clock is far behind a time in the log.
    pub(crate) fn is_behind(&self, timestamp: u64) -> bool {
        timestamp > self.wall().saturating_add(BURST)
    }

    /// Returns the present moment, for judging expiry.
    pub(crate) fn read(&self) -> Now {
        if let Some(time) = self.given() {
            return Now::at(time);
        }
        let (steady, ahead) = (self.steady(), &*self.ahead);
        let low = steady.saturating_add(ahead.wall.load(Ordering::Relaxed)).min(TIME_MAX - 1);
        // The two offsets are equal in the common case and rise together, but not in one step.
        let boundary = ahead.boundary.load(Ordering::Acquire);
        let high = steady.saturating_add(ahead.highest.load(Ordering::Relaxed)).min(TIME_MAX - 1);
        Now { low, high: high.max(low), boundary }
    }

    /// Returns the moment for judging expiry when the result can't be undone. An entry that has
    /// expired at this moment stays expired even if a wrong clock is set right.
    pub(crate) fn certain(&self) -> Now {
        if let Some(time) = self.given() {
            return Now::at(time);
        }
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

    /// Returns when an entry written at `timestamp` expires. Reads no clock.
    pub(crate) fn deadline(&self, timestamp: u64, expiry: u64) -> Deadline {
        Deadline::new(self.ahead.boundary.load(Ordering::Acquire), timestamp, expiry)
    }

    /// Returns the time `ttl` from now, or `None` if that is beyond the end of time.
    pub(crate) fn after(&self, ttl: Duration) -> Option<u64> {
        let ttl = u64::try_from(ttl.as_micros()).ok()?;
        self.now().checked_add(ttl).filter(|time| *time < TIME_MAX - 1)
    }

    /// Returns the expiry to write now for an entry that is to expire at a time of day. Entries
    /// that are written now expire by the log's time, which may be ahead.
    pub(crate) fn expiry_at(&self, time: u64) -> Option<u64> {
        let now = self.read();
        let expiry = time.saturating_add(now.highest().saturating_sub(now.lowest()));
        (time < TIME_MAX - 1 && expiry < TIME_MAX - 1).then_some(expiry)
    }

    /// Returns the expiry to write now for an entry that is to expire when one written at
    /// `timestamp` with this expiry does.
    pub(crate) fn same_expiry(&self, timestamp: u64, expiry: u64) -> u64 {
        let now = self.read();
        let ahead = now.of(now.highest()).saturating_sub(now.of(timestamp));
        expiry.saturating_add(ahead)
    }

    /// Returns the time that the wall clock shows, right or wrong.
    pub(crate) fn wall(&self) -> u64 {
        match &self.source {
            TimeSource::System(_) | TimeSource::Given(..) => micros_since_epoch(SystemTime::now()),
            #[cfg(any(test, bitcask_fuzzing))]
            TimeSource::Hands(hands) => hands.wall.load(Ordering::Relaxed),
        }
    }

    /// Continues from the last time of a log that is being opened, if that is ahead of the wall
    /// clock. If it is far behind, the wall clock may have jumped since that time.
    pub(crate) fn resume(&self, last_timestamp: u64) {
        self.reach(last_timestamp);
        let (steady, wall) = self.look();
        self.ahead.log.store(last_timestamp.saturating_sub(steady), Ordering::Relaxed);
        self.ahead.opened.store(steady, Ordering::Relaxed);
        if last_timestamp > 0 {
            let wall = wall.saturating_sub(steady);
            let log = last_timestamp.saturating_sub(steady);
            *self.ahead.trust() = Trust::since(log.min(wall), steady, wall);
        }
    }

    /// Continues from a time in the log if that is far ahead of this clock.
    pub(crate) fn reach(&self, timestamp: u64) {
        if self.given().is_some() {
            return;
        }
        let (steady, _) = self.look();
        let now = self.read();
        if timestamp <= now.high.saturating_add(BURST) {
            return;
        }
        // The order matters: as long as no offset is ahead, the boundary has no effect. A boundary
        // that is already set stays, so that no expired entry comes back to life.
        let (ahead, none) = (&*self.ahead, u64::MAX);
        let (set, kept) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = ahead.boundary.compare_exchange(none, now.low + BURST, set, kept);
        ahead.highest.fetch_max(timestamp.saturating_sub(steady), Ordering::AcqRel);
    }

    /// Returns the monotonic time, after reading the wall clock if that is due.
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

    /// Reads both clocks; returns the monotonic time and the wall clock's.
    #[cold]
    fn look(&self) -> (u64, u64) {
        // The order matters: whatever happens between the two readings, the wall clock's offset is
        // not overestimated. The next reading corrects an underestimate.
        let wall = self.wall();
        let steady = self.monotonic();
        let (ahead, by) = (&*self.ahead, wall.saturating_sub(steady));
        ahead.highest.fetch_max(by, Ordering::AcqRel);
        ahead.wall.fetch_max(by, Ordering::AcqRel);
        ahead.trust().note(steady, by);
        ahead.next_look.store(steady.saturating_add(self.look_interval), Ordering::Relaxed);
        (steady, wall)
    }

    /// Returns the time that the clock was given, if it is given the time.
    fn given(&self) -> Option<u64> {
        if let TimeSource::Given(time, _) = &self.source { Some(time.get()) } else { None }
    }

    /// Returns whether the clock is given the time, and so never goes back.
    pub(crate) fn is_given(&self) -> bool {
        self.given().is_some()
    }

    fn monotonic(&self) -> u64 {
        match &self.source {
            TimeSource::System(start) | TimeSource::Given(_, start) => {
                let since = start.elapsed();
                let micros = since.as_secs().saturating_mul(1_000_000);
                micros.saturating_add(since.subsec_micros().into())
            }
            #[cfg(any(test, bitcask_fuzzing))]
            TimeSource::Hands(hands) => hands.steady.load(Ordering::Relaxed),
        }
    }
}

/// Returns a time of day in microseconds since the epoch, limited to what the log can represent.
pub(crate) fn micros_since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = since.as_secs().saturating_mul(1_000_000);
    micros.saturating_add(since.subsec_micros().into()).min(TIME_MAX - 1)
}

/// Converts a time of the log to the standard library's type.
pub(crate) fn system_time(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}
