//! Values that are read without a lock: published, replaced, and freed when no reader is left.
//!
//! - A reader holds a [`Guard`] and borrows published values through it. A value that is replaced
//!   meanwhile stays intact until all guards of that time are dropped (epoch-based reclamation:
//!   Fraser, "Practical lock-freedom", 2004).
//! - Pinning costs some nanoseconds and never waits. A long-lived guard keeps only its own store's
//!   retired memory from being freed.
//! - Retired values wait in a list of the store. The machinery below handles one batch of them at a
//!   time. While a guard holds that batch back, nothing more is queued, so retrying costs no
//!   memory.

#![expect(unsafe_code, reason = "the target of a shared pointer is borrowed, and freed once")]

#[cfg(not(all(test, any(loom, shuttle))))]
mod handles;
#[cfg(all(test, any(loom, shuttle)))]
mod twin;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(all(test, any(loom, shuttle))))]
use own as machine;
#[cfg(all(test, any(loom, shuttle)))]
use twin as machine;

use crate::counters::{CountedGet, Stripe, Stripes, Writing};
use crate::stats::Counters;
use crate::sync::{Instant, Mutex, Ordering, yield_now};
use machine::Owned;
pub(crate) use machine::{Atomic, Shared};

/// The crate that reports when all guards of a time are dropped.
#[cfg(not(all(test, any(loom, shuttle))))]
mod own {
    pub(crate) use crossbeam_epoch::{Atomic, Shared};
    pub(super) use crossbeam_epoch::{Collector, Guard, Owned};

    pub(super) use crate::epoch::handles::pin;

    /// Frees the target of a shared pointer.
    ///
    /// # Safety
    ///
    /// The pointer came from `Owned`, no one uses it any more, and it is freed only once.
    pub(super) unsafe fn free<T>(_: &Collector, pointer: *const T) {
        // SAFETY: guaranteed by the caller.
        drop(unsafe { Shared::from(pointer).into_owned() });
    }
}

/// Maximum number of consecutive attempts without progress before freeing is left to a later call.
const SETTLE_TRIES: usize = if cfg!(all(test, loom)) { 4 } else { 16 };
/// Number of attempts before the thread yields the processor. Short reads end within them.
const HASTY_TRIES: usize = 4;
/// Maximum number of batches that one call waits for, however fast other threads retire.
const SETTLE_BATCHES: usize = 1000;

/// Number of retired values that a passing thread frees, even a reader.
const FREED_IN_PASSING: usize = 8;

/// A store's own collector, so that a long read of another store delays nothing here, and deferred
/// work of other code in the process does not run within this crate's locks.
#[derive(Clone)]
pub(crate) struct Collector(Arc<Core>);

/// A guard borrows the collector, so nothing is pinned when this is dropped.
#[derive(Default)]
struct Core {
    machine: machine::Collector,
    /// Lock 9. What is freed is freed without it.
    limbo: Mutex<Limbo>,
    /// Counted by threads that pin, and found by them in the same way.
    stripes: Stripes,
}

/// Retired values on their way to being freed.
#[derive(Default)]
struct Limbo {
    /// Values retired since the awaited batch was closed.
    retired: VecDeque<Retired>,
    /// The batch that waits for the guards of its time to be dropped.
    awaited: VecDeque<Retired>,
    /// Values that no guard can reach, ready to be freed.
    unseen: VecDeque<Retired>,
    /// Number of batches that have passed.
    passed: u64,
}

struct Retired {
    since: Instant,
    free: Box<dyn FnOnce(&machine::Collector) + Send>,
}

impl Limbo {
    fn left(&self) -> usize {
        self.retired.len() + self.awaited.len() + self.unseen.len()
    }

    /// Closes the next batch unless one is under way. Returns whether a new batch was closed.
    fn close_batch(&mut self) -> bool {
        let is_due = self.awaited.is_empty() && !self.retired.is_empty();
        if is_due {
            self.awaited = std::mem::take(&mut self.retired);
        }
        is_due
    }
}

impl Core {
    /// Records that no guard can reach the awaited batch any more.
    fn pass(&self) {
        {
            let limbo = &mut *self.limbo.lock();
            limbo.unseen.append(&mut limbo.awaited);
            limbo.awaited = VecDeque::new();
            limbo.passed += 1;
        }
        self.free(FREED_IN_PASSING);
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
        let (machine, stripe) = machine::pin(&self.0);
        Guard { machine, core: &self.0, stripe }
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
            self.pin().flush();
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
    machine: machine::Guard,
    core: &'a Arc<Core>,
    /// The counters of this thread.
    stripe: &'a Stripe,
}

impl<'a> Guard<'a> {
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

    /// Returns the machinery's guard, with which pointers are loaded.
    #[inline]
    pub(crate) fn machine(&self) -> &machine::Guard {
        &self.machine
    }

    /// Calls a closure once all present guards are dropped, or when the store is. The closure may
    /// run wherever a thread pins, so it must not pin or flush, nor take a lock under which a
    /// thread pins.
    pub(crate) fn retire(&self, free: impl FnOnce() + Send + 'static) {
        self.push(Box::new(|_| free()));
    }

    fn push(&self, free: Box<dyn FnOnce(&machine::Collector) + Send>) {
        let since = Instant::now();
        self.core.limbo.lock().retired.push_back(Retired { since, free });
    }

    /// Processes the retired values as far as guards allow. Queues nothing while they don't.
    pub(crate) fn flush(&self) {
        // The machinery is notified by a pinned thread that has taken the retired values under the
        // lock. For the machinery, everything unlinked before that was unlinked by this thread.
        if self.core.limbo.lock().close_batch() {
            let core = Arc::downgrade(self.core);
            self.machine.defer(move || core.upgrade().map(|core| core.pass()));
        }
        self.machine.flush();
        self.core.free(FREED_IN_PASSING);
    }

    /// Unpins while a closure runs.
    pub(crate) fn repin_after<T>(&mut self, call: impl FnOnce() -> T) -> T {
        self.machine.repin_after(call)
    }
}

impl fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// The store whose guards read a value: the one that published it. A guard of another store would
/// not keep the value alive. Builds with debug assertions check this; other builds contain none of
/// it.
#[derive(Debug, Default)]
pub(crate) struct GuardOwner(#[cfg(debug_assertions)] std::sync::OnceLock<usize>);

impl GuardOwner {
    #[inline]
    pub(crate) fn check(&self, guard: &Guard<'_>) {
        #[cfg(debug_assertions)]
        {
            let core = Arc::as_ptr(guard.core).addr();
            assert_eq!(*self.0.get_or_init(|| core), core, "a guard of another store");
        }
        let _ = (self, guard);
    }
}

/// An optional value that can be read while it is being replaced.
pub(crate) struct Published<T> {
    pointer: Atomic<T>,
    reader: GuardOwner,
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self { pointer: Atomic::null(), reader: GuardOwner::default() }
    }
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Borrows the value that is published now.
    #[inline]
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard<'_>) -> Option<&'a T> {
        self.reader.check(guard);
        let shared = self.pointer.load(Ordering::Acquire, guard.machine());
        // SAFETY: a pointer that is not null came from `Owned` in `replace`, which published it
        // with a swap that this Acquire load synchronizes with, so the value is initialized and
        // seen whole. It is freed in two places. The closure that `replace` retires frees it after
        // all guards that existed when it was unlinked are dropped, this one among them. `drop`
        // frees it too, but needs the `self` that the result borrows. There is no `&mut` to it
        // before that.
        unsafe { shared.as_ref() }
    }

    /// Publishes another value, or none. The previous value is freed when no reader is left.
    pub(crate) fn replace(&self, new: Option<T>, guard: &Guard<'_>) {
        self.reader.check(guard);
        let new = new.map_or_else(Shared::null, |new| Owned::new(new).into_shared(guard.machine()));
        let old = self.pointer.swap(new, Ordering::AcqRel, guard.machine());
        if !old.is_null() {
            let old = std::sync::atomic::AtomicPtr::new(old.as_raw().cast_mut());
            guard.push(Box::new(move |collector| {
                // SAFETY: the swap has unlinked the value and returned it to this thread alone, so
                // it is retired once, and it came from `Owned`. Any thread that still borrowed it
                // held a guard from before the swap, and those guards are dropped. It may be freed
                // on another thread: `T` is `Send`.
                unsafe { machine::free(collector, old.into_inner().cast_const()) }
            }));
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.pointer);
        // SAFETY: `&mut self` means that nothing borrows from this any more and that no other
        // thread can take the pointer. It came from `Owned`.
        drop(unsafe { last.try_into_owned() });
    }
}

impl<T> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

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
    fn other_users_of_the_collector_crate_neither_run_here_nor_hold_anything_back() {
        let theirs = crossbeam_epoch::pin();
        let (theirs_freed, freed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Counted(Arc::clone(&theirs_freed), 1);
        theirs.defer(move || drop(counted));
        let (collector, published) = (Collector::new(), Published::default());
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &collector.pin());
        published.replace(None, &collector.pin());
        collector.free_retired();
        assert_eq!(freed.load(Ordering::Relaxed), 1);
        drop(theirs);
        (0..1000).for_each(|_| collector.pin().flush());
        assert_eq!(theirs_freed.load(Ordering::Relaxed), 0);
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
    fn a_passing_thread_frees_a_few_values() {
        let freed = Arc::new(AtomicUsize::new(0));
        let collector = Collector::new();
        for _ in 0..100 {
            let counted = Counted(Arc::clone(&freed), 1);
            collector.pin().retire(move || drop(counted));
        }
        collector.pin().flush();
        // The crate collects during some of the pins.
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
