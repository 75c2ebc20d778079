//! What is counted and timed on the path of gets and writes.
//!
//! - Each thread that uses a store has its own counters there, a *stripe*, on cache lines that no
//!   other thread writes. The thread adds with a load and a store. An atomic addition would make
//!   all later loads wait, and the loads of successive gets could not overlap.
//! - A thread finds its stripe with its handle to the store's collector, see `epoch::handles`. When
//!   the thread ends, another one continues with the stripe. Totals are sums over all stripes.
//! - One in [`SAMPLE`] gets, and one in as many writes, is timed. Reading the clock twice takes as
//!   long as a get.
//! - Of the operations that are timed, slow ones are reported, see `trace`.
//! - Threads that cannot get their own stripe share one. They add atomically, and time nothing. In
//!   models and schedules, all threads do.
//! - A stripe also says whether its thread reads the store, see `presence`.
//! - Counters order nothing, so their atomics are always the machine's, and checkers ignore them.
//! - The log counts what writers append, under its lock.

pub(crate) mod presence;
mod recorder;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::stats::Counters;
use crate::sync::Instant;
use crate::trace;
use presence::Presence;

pub(crate) use presence::{Crowd, Visit};
#[cfg(not(all(test, any(loom, shuttle))))]
pub(crate) use presence::{CrowdSide, CrowdWait};
pub(crate) use recorder::Recorder;

/// Number of operations of which one is timed; a power of two.
const SAMPLE: u64 = 128;
/// Maximum number of stripes of a store. With their durations they take at most 1.3 MiB.
const STRIPES_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// Maximum number of attempts to lock the list of stripes. The lock is held for microseconds,
/// except in a forked child, where it may be held forever.
const LOCK_TRIES: usize = 1000;

/// What one thread at a time has in a store: counters to which it adds, and whether it reads. Any
/// number of threads add if the stripe is shared.
/// Aligned to the pairs of cache lines that processors fetch together.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Stripe {
    /// Whether the thread reads. Not kept if the stripe is shared.
    pub(crate) presence: Presence,
    hits: AtomicU64,
    misses: AtomicU64,
    bytes_read: AtomicU64,
    conflicts: AtomicU64,
    /// Number of writes begun, which determines whether a write is timed. Not kept if shared.
    writes: AtomicU64,
    /// An operation is special if its number has none of these bits: one in [`SAMPLE`], or every
    /// one if the stripe is shared.
    mask: u64,
    is_taken: AtomicBool,
    get_latency: Recorder,
    write_latency: Recorder,
}

/// How a get is counted.
#[derive(Debug)]
enum Pace {
    Plain,
    Timed(Instant),
    /// Its stripe is shared.
    Shared,
}

/// A get in progress. It counts once its outcome is known.
#[derive(Debug)]
#[must_use = "a get counts once its outcome is known"]
pub(crate) struct CountedGet<'a> {
    stripe: &'a Stripe,
    pace: Pace,
}

/// A write in progress, and when it began if it is timed.
#[derive(Debug)]
#[must_use = "the time until the end of the write is recorded"]
pub(crate) struct Writing<'a> {
    stripe: &'a Stripe,
    started: Option<Instant>,
}

impl Stripe {
    fn new(mask: u64) -> Self {
        Self {
            presence: Presence::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            mask,
            is_taken: AtomicBool::new(true),
            get_latency: Recorder::default(),
            write_latency: Recorder::default(),
        }
    }

    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.mask == 0
    }

    /// Begins a get that may be timed.
    #[inline]
    pub(crate) fn read(&self) -> CountedGet<'_> {
        let number = self.hits.load(Ordering::Relaxed) + self.misses.load(Ordering::Relaxed);
        let pace = if number & self.mask == 0 { self.special_pace(number) } else { Pace::Plain };
        CountedGet { stripe: self, pace }
    }

    /// Returns whether the next get is neither timed nor counted in a shared stripe, so that
    /// `plain_hit` or `plain_miss` may count it.
    #[inline]
    pub(crate) fn is_plain_read(&self) -> bool {
        // Checkers run one thread at a time, so those may add to a shared stripe in any way.
        if cfg!(all(test, any(loom, shuttle))) {
            return true;
        }
        let number = self.hits.load(Ordering::Relaxed) + self.misses.load(Ordering::Relaxed);
        number & self.mask != 0
    }

    #[inline]
    pub(crate) fn plain_hit(&self, size: u32) {
        add(&self.hits, 1);
        add(&self.bytes_read, size.into());
    }

    #[inline]
    pub(crate) fn plain_miss(&self) {
        add(&self.misses, 1);
    }

    /// Begins a get that is not timed.
    #[inline]
    pub(crate) fn read_untimed(&self) -> CountedGet<'_> {
        CountedGet { stripe: self, pace: if self.is_shared() { Pace::Shared } else { Pace::Plain } }
    }

    #[cold]
    fn special_pace(&self, number: u64) -> Pace {
        match number {
            _ if self.is_shared() => Pace::Shared,
            // A thread that hardly uses the store needs no memory for durations.
            0 => Pace::Plain,
            _ => Pace::Timed(Instant::now()),
        }
    }

    /// Begins a write.
    #[inline]
    pub(crate) fn write(&self) -> Writing<'_> {
        let number = self.writes.load(Ordering::Relaxed);
        let is_special = number & self.mask == 0;
        let started = if is_special { self.special_start(number) } else { None };
        self.writes.store(number + 1, Ordering::Relaxed);
        Writing { stripe: self, started }
    }

    #[cold]
    fn special_start(&self, number: u64) -> Option<Instant> {
        (number > 0 && !self.is_shared()).then(Instant::now)
    }

    #[cold]
    pub(crate) fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets another thread continue with the stripe.
    #[cfg_attr(all(test, shuttle), expect(dead_code, reason = "all tasks share one thread"))]
    pub(crate) fn hand_on(&self) {
        // What this thread has counted is seen by the next one, which continues from there.
        self.is_taken.store(false, Ordering::Release);
    }

    fn add_to(&self, counters: &mut Counters) {
        counters.hits += self.hits.load(Ordering::Relaxed);
        counters.misses += self.misses.load(Ordering::Relaxed);
        counters.bytes_read += self.bytes_read.load(Ordering::Relaxed);
        counters.conflicts += self.conflicts.load(Ordering::Relaxed);
        self.get_latency.add_to(&mut counters.get_latency);
        self.write_latency.add_to(&mut counters.write_latency);
    }
}

/// Adds to a counter that no other thread adds to.
#[inline]
fn add(counter: &AtomicU64, number: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
}

impl CountedGet<'_> {
    /// Counts a get that has found its key, and the size of the value that it returns.
    #[inline]
    pub(crate) fn hit(self, size: u32) {
        let Pace::Plain = self.pace else { return self.end_special(Some(size)) };
        self.stripe.plain_hit(size);
    }

    /// Counts a get whose key is absent or expired.
    #[inline]
    pub(crate) fn miss(self) {
        let Pace::Plain = self.pace else { return self.end_special(None) };
        self.stripe.plain_miss();
    }

    /// Counts a get that returns only whether its key was found.
    #[inline]
    pub(crate) fn seen(self, found: bool) {
        if found { self.hit(0) } else { self.miss() }
    }

    #[cold]
    #[inline(never)]
    fn end_special(self, found: Option<u32>) {
        if let Pace::Timed(started) = self.pace {
            let took = started.elapsed();
            self.stripe.get_latency.record(took);
            trace::slow("get", took);
        }
        let Stripe { hits, misses, bytes_read, .. } = self.stripe;
        match found {
            Some(size) => {
                hits.fetch_add(1, Ordering::Relaxed);
                bytes_read.fetch_add(size.into(), Ordering::Relaxed);
            }
            None => drop(misses.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl Writing<'_> {
    /// Records how long the write took, if it is timed.
    #[inline]
    pub(crate) fn end(self) {
        if let Some(started) = self.started {
            self.record(started);
        }
    }

    #[cold]
    #[inline(never)]
    fn record(&self, started: Instant) {
        let took = started.elapsed();
        self.stripe.write_latency.record(took);
        trace::slow("write", took);
    }
}

/// All counters of a store that threads add to.
#[derive(Debug)]
pub(crate) struct Stripes {
    shared: Stripe,
    /// The guards of threads with the shared stripe.
    crowd: Crowd,
    /// Lock 9: the stripes of threads. None is ever removed. Code that a forked child can reach
    /// does not wait for this lock.
    owned: Mutex<Vec<Arc<Stripe>>>,
}

impl Default for Stripes {
    fn default() -> Self {
        Self { shared: Stripe::new(0), crowd: Crowd::new(), owned: Mutex::default() }
    }
}

impl Stripes {
    /// Returns the stripe that threads without their own stripe share.
    pub(crate) fn shared(&self) -> &Stripe {
        &self.shared
    }

    /// Returns the guards of threads with the shared stripe.
    #[cfg_attr(all(test, shuttle), expect(dead_code, reason = "all tasks share one thread"))]
    pub(crate) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// Returns a stripe for the calling thread alone, until it is handed on. It lives as long as
    /// `self`. Returns `None` if there are too many, or in a forked child if another thread was
    /// claiming one at the time of the fork.
    #[cfg_attr(all(test, shuttle), expect(dead_code, reason = "all tasks share one thread"))]
    pub(crate) fn claim(&self) -> Option<Arc<Stripe>> {
        let mut owned = self.try_owned()?;
        // Only threads that hold the lock take stripes. A load does not disturb those of others.
        let is_free = |stripe: &&Arc<Stripe>| !stripe.is_taken.load(Ordering::Acquire);
        if let Some(free) = owned.iter().find(is_free) {
            free.is_taken.store(true, Ordering::Relaxed);
            return Some(Arc::clone(free));
        }
        if owned.len() >= STRIPES_MAX {
            return None;
        }
        let stripe = Arc::new(Stripe::new(SAMPLE - 1));
        owned.push(Arc::clone(&stripe));
        Some(stripe)
    }

    /// Returns the visits of threads with their own stripe that are under way. Returns `None` in a
    /// forked child if another thread was claiming a stripe at the time of the fork.
    #[cfg_attr(all(test, shuttle), expect(dead_code, reason = "all tasks share one thread"))]
    pub(crate) fn visits(&self) -> Option<Vec<(Arc<Stripe>, Visit)>> {
        let owned = self.try_owned()?;
        let visit = |stripe: &Arc<Stripe>| Some((Arc::clone(stripe), stripe.presence.visit()?));
        Some(owned.iter().filter_map(visit).collect())
    }

    fn try_owned(&self) -> Option<MutexGuard<'_, Vec<Arc<Stripe>>>> {
        for _ in 0..LOCK_TRIES {
            match self.owned.try_lock() {
                Ok(owned) => return Some(owned),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
        None
    }

    pub(crate) fn add_to(&self, counters: &mut Counters) {
        self.shared.add_to(counters);
        for stripe in self.owned.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            stripe.add_to(counters);
        }
        counters.gets = counters.hits + counters.misses;
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
impl Stripes {
    pub(crate) fn len(&self) -> usize {
        self.owned.lock().unwrap().len()
    }

    /// Calls a closure while the list is locked.
    pub(crate) fn locked(&self, run: impl FnOnce()) {
        let _owned = self.owned.lock().unwrap();
        run();
    }
}
