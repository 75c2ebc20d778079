//! Values that are read without a lock: published, replaced, and freed when no reader is left.
//!
//! - A reader holds a [`Guard`] and borrows published values through it. A value that is replaced
//!   meanwhile stays intact until all guards of that time are dropped (epoch-based reclamation:
//!   Fraser, "Practical lock-freedom", 2004).
//! - Pinning costs a few instructions and never waits. A long-lived guard keeps only its own
//!   store's retired memory from being freed.
//! - Retired values wait in a list of the store. Its values are handled in batches, one at a time.
//!   While a guard holds a batch back, the list only grows, so retrying costs no memory.

#[cfg(not(all(test, shuttle)))]
mod barrier;
#[cfg(not(all(test, any(loom, shuttle))))]
mod handles;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(all(test, any(loom, shuttle))))]
mod own;
mod pointers;
mod published;
#[cfg(all(test, any(loom, shuttle)))]
mod twin;

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(all(test, any(loom, shuttle))))]
use own as machine;
#[cfg(all(test, any(loom, shuttle)))]
use twin as machine;

use crate::counters::{CountedGet, Stripe, Stripes, Writing};
#[cfg(not(all(test, any(loom, shuttle))))]
use crate::process::Opener;
use crate::stats::Counters;
use crate::sync::{Instant, Mutex, yield_now};
pub(crate) use machine::move_to_other_side;
pub(crate) use pointers::{Atomic, Loaded};
pub(crate) use published::{GuardOwner, Published};

/// Maximum number of consecutive attempts without progress before freeing is left to a later call.
const SETTLE_TRIES: usize = if cfg!(all(test, loom)) { 4 } else { 16 };
/// Number of attempts before the thread yields the processor. Short reads end within them.
const HASTY_TRIES: usize = 4;
/// Maximum number of batches that one call waits for, however fast other threads retire.
const SETTLE_BATCHES: usize = 1000;

/// Number of retired values that a passing thread frees, even a reader.
const FREED_IN_PASSING: usize = 8;

/// Number of retired values from which a thread that has other work closes a batch. Looking for
/// guards interrupts all threads of the process.
const BATCH_LEN_MIN: usize = if cfg!(any(test, bitcask_fuzzing)) { 1 } else { 16 };

/// A store's own collector, so that a long read of another store delays nothing here.
#[derive(Clone)]
pub(crate) struct Collector(Arc<Core>);

/// A guard borrows the collector, so nothing is pinned when this is dropped.
#[derive(Default)]
struct Core {
    machine: machine::Machine,
    /// Lock 9. What is freed is freed without it.
    limbo: Mutex<Limbo>,
    /// Counted by threads that pin, and found by them in the same way.
    stripes: Stripes,
    /// The process whose values these are.
    #[cfg(not(all(test, any(loom, shuttle))))]
    opener: Opener,
}

/// Retired values on their way to being freed.
#[derive(Default)]
struct Limbo {
    /// Values retired since the awaited batch was closed.
    retired: VecDeque<Retired>,
    /// The batch that waits for the guards of its time to be dropped.
    awaited: VecDeque<Retired>,
    /// The guards of that time. `None` while they are being looked for.
    wait: Option<machine::Wait>,
    /// Values that no guard can reach, ready to be freed.
    unseen: VecDeque<Retired>,
    /// Number of batches that have passed.
    passed: u64,
}

struct Retired {
    since: Instant,
    free: Box<dyn FnOnce(&machine::Machine) + Send>,
}

impl Limbo {
    fn left(&self) -> usize {
        self.retired.len() + self.awaited.len() + self.unseen.len()
    }

    /// Closes the next batch, if enough values are retired, unless one is under way. Returns
    /// whether it did.
    fn close_batch(&mut self, len_min: usize) -> bool {
        let is_due = self.awaited.is_empty() && self.retired.len() >= len_min.max(1);
        if is_due {
            self.awaited = std::mem::take(&mut self.retired);
        }
        is_due
    }

    /// Starts to wait for the guards of the batch, or opens the batch again.
    fn await_guards(&mut self, wait: Option<machine::Wait>) {
        if wait.is_none() {
            self.awaited.append(&mut self.retired);
            self.retired = std::mem::take(&mut self.awaited);
        }
        self.wait = wait;
    }

    /// Notes that no guard can reach the awaited batch any more, if that is so.
    fn pass(&mut self, core: &Core) {
        if self.wait.as_mut().is_some_and(|wait| wait.is_over(core)) {
            self.wait = None;
            self.unseen.append(&mut self.awaited);
            self.awaited = VecDeque::new();
            self.passed += 1;
        }
    }
}

impl Core {
    /// Processes the retired values as far as guards allow, if there are enough.
    fn flush(&self, len_min: usize) {
        let is_closed = {
            let limbo = &mut *self.limbo.lock();
            limbo.pass(self);
            limbo.close_batch(len_min)
        };
        if is_closed {
            // Everything in the batch was unlinked before it was retired, under the lock.
            let wait = machine::Wait::new(self);
            let limbo = &mut *self.limbo.lock();
            limbo.await_guards(wait);
            limbo.pass(self);
        }
        self.free(FREED_IN_PASSING);
    }

    /// Frees a few values whose guards were dropped after the last flush. A reader that passes does
    /// not wait for the lock. In a forked child, nothing is freed: what frees a value may take a
    /// lock, which the child may find held forever.
    #[cfg(not(all(test, any(loom, shuttle))))]
    #[cold]
    #[inline(never)]
    fn look_in_passing(&self) {
        if !self.opener.is_here() {
            return;
        }
        let Some(mut limbo) = self.limbo.try_lock() else { return };
        limbo.pass(self);
        let is_any = !limbo.unseen.is_empty();
        drop(limbo);
        if is_any {
            self.free(FREED_IN_PASSING);
        }
    }

    /// Frees up to `at_most` of the unreachable values.
    fn free(&self, at_most: usize) {
        for _ in 0..at_most {
            let next = {
                let unseen = &mut self.limbo.lock().unseen;
                let next = unseen.pop_front();
                if unseen.is_empty() {
                    *unseen = VecDeque::new();
                }
                next
            };
            let Some(Retired { free, .. }) = next else { return };
            free(&self.machine);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let limbo = std::mem::take(&mut *self.limbo.lock());
        for Retired { free, .. } in
            limbo.unseen.into_iter().chain(limbo.awaited).chain(limbo.retired)
        {
            free(&self.machine);
        }
    }
}

impl Collector {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    #[inline]
    pub(crate) fn pin(&self) -> Guard<'_> {
        let (core, stripe) = (&self.0, machine::stripe(&self.0));
        Guard { entered: machine::Entered::new(core, stripe), core, stripe, here: PhantomData }
    }

    /// Adds what the store's threads have counted.
    pub(crate) fn count(&self, counters: &mut Counters) {
        self.0.stripes.add_to(counters);
    }

    /// Frees the unreachable values, as far as that is possible without waiting. A guard that can
    /// reach the others prevents freeing them, and so does one that the caller holds.
    pub(crate) fn free_retired(&self) {
        let (mut in_vain, mut batches) = (0, 0);
        while in_vain < SETTLE_TRIES && batches < SETTLE_BATCHES && self.left() > 0 {
            let before = self.0.limbo.lock().passed;
            self.0.flush(1);
            self.0.free(usize::MAX);
            if self.0.limbo.lock().passed > before {
                (in_vain, batches) = (0, batches + 1);
            } else {
                in_vain += 1;
                if in_vain > HASTY_TRIES {
                    yield_now();
                }
            }
        }
    }

    /// Returns the number of values that are retired and not yet freed.
    pub(crate) fn left(&self) -> usize {
        self.0.limbo.lock().left()
    }

    /// Returns how long the oldest retired value has waited to be freed.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let limbo = self.0.limbo.lock();
        let mut oldest_first = [&limbo.unseen, &limbo.awaited, &limbo.retired].into_iter();
        let oldest = oldest_first.find_map(VecDeque::front);
        oldest.map(|retired| retired.since.elapsed())
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No figures: they are behind a lock, which a forked child may find held forever.
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

/// Keeps a store's published values intact for its holder.
pub(crate) struct Guard<'a> {
    entered: machine::Entered,
    core: &'a Arc<Core>,
    /// The counters of this thread.
    stripe: &'a Stripe,
    /// It is dropped by the thread that has entered.
    here: PhantomData<*const ()>,
}

impl<'a> Guard<'a> {
    /// Returns the counters of this thread.
    #[inline]
    pub(crate) fn stripe(&self) -> &'a Stripe {
        self.stripe
    }

    /// Begins a get that may be timed.
    #[inline]
    pub(crate) fn read(&self) -> CountedGet<'_> {
        self.stripe.read()
    }

    /// Begins a get that is not timed.
    #[inline]
    pub(crate) fn read_untimed(&self) -> CountedGet<'_> {
        self.stripe.read_untimed()
    }

    /// Begins a write. It may end after the guard is dropped.
    #[inline]
    pub(crate) fn write(&self) -> Writing<'a> {
        self.stripe.write()
    }

    /// Counts a change that was refused.
    pub(crate) fn count_conflict(&self) {
        self.stripe.count_conflict();
    }

    /// In models, checks that a pointer was not freed.
    #[inline]
    fn check<T>(&self, pointer: *const T) {
        self.entered.check(pointer);
    }

    /// Calls a closure once all present guards are dropped, or when the store is. The closure may
    /// run wherever a thread pins, so it must not pin or flush, nor take a lock under which a
    /// thread pins.
    pub(crate) fn retire(&self, free: impl FnOnce() + Send + 'static) {
        self.push(Box::new(|_| free()));
    }

    fn push(&self, free: Box<dyn FnOnce(&machine::Machine) + Send>) {
        let since = Instant::now();
        self.core.limbo.lock().retired.push_back(Retired { since, free });
    }

    /// Processes the retired values as far as guards allow.
    pub(crate) fn flush(&self) {
        self.core.flush(1);
    }

    /// The same, if many values are retired. Otherwise a later call of `free_retired` does it.
    pub(crate) fn flush_many(&self) {
        self.core.flush(BATCH_LEN_MIN);
    }

    /// Unpins while a closure runs.
    pub(crate) fn repin_after<T>(&mut self, call: impl FnOnce() -> T) -> T {
        /// Enters again, also if the closure panics.
        struct Away<'g, 'a>(&'g mut Guard<'a>);
        impl Drop for Away<'_, '_> {
            fn drop(&mut self) {
                // The thread may have used so many other stores that its stripe was handed on.
                self.0.stripe = machine::stripe(self.0.core);
                self.0.entered = machine::Entered::new(self.0.core, self.0.stripe);
            }
        }
        self.entered.leave(self.core, self.stripe);
        let _away = Away(self);
        call()
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.entered.leave(self.core, self.stripe);
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;
    use crate::sync::Ordering;

    /// Counts how many times it is freed. Its number is zero after that.
    struct Counted(Arc<AtomicUsize>, u64);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1 = 0;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn debug_output_takes_no_lock() {
        let collector = Collector::new();
        let held = collector.0.limbo.lock();
        assert_eq!(format!("{collector:?}"), "Collector { .. }");
        drop(held);
    }

    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn a_reader_of_one_store_holds_nothing_of_another_store_back() {
        let freed = Arc::new(AtomicUsize::new(0));
        let (read, other) = (Collector::new(), Collector::new());
        let reading = read.pin();
        for round in 0..1000 {
            let counted = Counted(Arc::clone(&freed), 1);
            other.pin().retire(move || drop(counted));
            other.free_retired();
            assert_eq!((freed.load(Ordering::Relaxed), other.left()), (round + 1, 0));
        }
        drop(reading);
    }

    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn a_long_read_queues_one_batch_and_the_rest_is_freed_after_it() {
        let freed = Arc::new(AtomicUsize::new(0));
        let collector = Collector::new();
        // Two separate guards, one nested in the other: only the first one matters.
        let (guard, nested) = (collector.pin(), collector.pin());
        for _ in 0..100 {
            let counted = Counted(Arc::clone(&freed), 1);
            collector.pin().retire(move || drop(counted));
            collector.free_retired();
        }
        drop(nested);
        let batches = || {
            let limbo = collector.0.limbo.lock();
            (limbo.awaited.len(), limbo.retired.len(), limbo.unseen.len(), limbo.passed)
        };
        assert_eq!(batches(), (1, 99, 0, 0));
        (0..10_000).for_each(|_| collector.free_retired());
        assert_eq!((batches(), freed.load(Ordering::Relaxed)), ((1, 99, 0, 0), 0));
        assert!(collector.oldest().is_some());
        drop(guard);
        collector.free_retired();
        assert_eq!((batches(), freed.load(Ordering::Relaxed)), ((0, 0, 0, 2), 100));
        assert_eq!(collector.oldest(), None);
    }

    /// A passing reader frees a few values and leaves the rest to calls that have the time.
    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn a_passing_thread_of_a_forked_child_frees_nothing() {
        let freed = Arc::new(AtomicUsize::new(0));
        let mut core = Core::default();
        core.opener = Opener::of_parent();
        let collector = Collector(Arc::new(core));
        let guard = collector.pin();
        let counted = Counted(Arc::clone(&freed), 1);
        guard.retire(move || drop(counted));
        guard.flush();
        drop(guard);
        (0..1000).for_each(|_| drop(collector.pin()));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        collector.free_retired();
        assert_eq!(freed.load(Ordering::Relaxed), 1);
    }

    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn a_passing_thread_frees_a_few_values() {
        let freed = Arc::new(AtomicUsize::new(0));
        let collector = Collector::new();
        // The first barrier of a process takes a moment, in which nothing is freed.
        collector.pin().retire(|| {});
        while collector.left() > 0 {
            collector.free_retired();
        }
        for _ in 0..100 {
            let counted = Counted(Arc::clone(&freed), 1);
            collector.pin().retire(move || drop(counted));
        }
        collector.pin().flush();
        // Some of the pins look.
        let mut pins = 0;
        while freed.load(Ordering::Relaxed) == 0 {
            drop(collector.pin());
            pins += 1;
            assert!(pins < 1000);
        }
        assert_eq!(freed.load(Ordering::Relaxed), FREED_IN_PASSING);
        collector.free_retired();
        assert_eq!(freed.load(Ordering::Relaxed), 100);
    }

    #[test]
    #[cfg(all(debug_assertions, not(any(loom, shuttle))))]
    fn a_guard_of_another_store_is_noticed() {
        let (one, other) = (Collector::new(), Collector::new());
        let published = Published::default();
        published.replace(Some(1), &one.pin());
        let read = || published.get(&other.pin()).copied();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).is_err());
        assert_eq!(published.get(&one.pin()), Some(&1));
    }

    #[test]
    fn a_value_that_a_guard_has_seen_stays_until_the_guard_is_dropped() {
        let freed = Arc::new(AtomicUsize::new(0));
        let (collector, published) = (Collector::new(), Published::default());
        let guard = collector.pin();
        assert!(published.get(&guard).is_none());
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &guard);
        let first = published.get(&guard).unwrap();
        published.replace(Some(Counted(Arc::clone(&freed), 2)), &guard);
        guard.flush();
        assert_eq!((first.1, published.get(&guard).unwrap().1), (1, 2));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        drop(guard);
        drop(published);
        assert_eq!(freed.load(Ordering::Relaxed), 1);
        drop(collector);
        assert_eq!(freed.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn readers_see_whole_values_while_they_are_replaced_and_each_is_freed_once() {
        const VALUES: u64 = if cfg!(miri) { 50 } else { 5_000 };
        let freed = Arc::new(AtomicUsize::new(0));
        let (collector, published) = (Collector::new(), Published::default());
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &collector.pin());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 1;
                    while last < VALUES {
                        let seen = published.get(&collector.pin()).unwrap().1;
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                        thread::yield_now();
                    }
                });
            }
            for value in 2..=VALUES {
                let guard = collector.pin();
                published.replace(Some(Counted(Arc::clone(&freed), value)), &guard);
                guard.flush();
            }
        });
        drop(published);
        collector.free_retired();
        assert_eq!(freed.load(Ordering::Relaxed) as u64, VALUES);
        assert_eq!(collector.left(), 0);
    }
}
