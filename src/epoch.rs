//! Things that are read without a lock: published, replaced, and retired when nobody reads them.
//!
//! - A reader holds a [`Guard`] and borrows what is published from it; what is replaced meanwhile
//!   stays as it is until all guards of that time are gone (epoch-based reclamation: Fraser,
//!   "Practical lock-freedom", 2004).
//! - Pinning costs some nanoseconds and never waits. A guard that is held for long keeps memory
//!   from being freed, and nothing else.

#![expect(unsafe_code, reason = "what a shared pointer names has to be borrowed, and freed once")]

#[cfg(all(test, any(loom, shuttle)))]
pub(crate) mod twin;

use std::fmt;

#[cfg(not(all(test, any(loom, shuttle))))]
use own as collector;
#[cfg(all(test, any(loom, shuttle)))]
use twin as collector;

use crate::sync::Ordering;
use collector::Owned;
pub(crate) use collector::{Atomic, Guard, Shared, pin};

/// A collector that this crate shares with nobody: what other code of the process defers does not run
/// within our locks, and who blocks it does not keep our memory from being freed.
#[cfg(not(all(test, any(loom, shuttle))))]
mod own {
    use std::sync::LazyLock;

    pub(crate) use crossbeam_epoch::{Atomic, Guard, Owned, Shared};
    use crossbeam_epoch::{Collector, LocalHandle};

    static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

    thread_local! {
        static HANDLE: LocalHandle = COLLECTOR.register();
    }

    pub(crate) fn pin() -> Guard {
        // A thread that is ending has no handle any more, and may still drop what has to be pinned for.
        HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| COLLECTOR.register().pin())
    }
}

/// Something that can be read while it is being replaced, or nothing.
pub(crate) struct Published<T>(Atomic<T>);

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self(Atomic::null())
    }
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Borrows what is published now.
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard) -> Option<&'a T> {
        let shared = self.0.load(Ordering::Acquire, guard);
        // SAFETY: a pointer that is not null came from `Owned` in `replace`, which published it
        // with a swap that this Acquire load synchronizes with, so the value is initialized and
        // seen whole. It is freed in two places: by `replace`, after all guards are gone that were
        // there when it was unlinked, this one among them; and by `drop`, which needs the `self`
        // that the result borrows. Nobody has a `&mut` to it before that.
        unsafe { shared.as_ref() }
    }

    /// Publishes something else, or nothing; what was there is freed when nobody reads it.
    pub(crate) fn replace(&self, new: Option<T>, guard: &Guard) {
        let new = new.map_or_else(Shared::null, |new| Owned::new(new).into_shared(guard));
        let old = self.0.swap(new, Ordering::AcqRel, guard);
        if !old.is_null() {
            // SAFETY: the swap has unlinked `old`, and handed it to this thread alone, so it is
            // retired once. Who still borrows it holds a guard from before the swap, which
            // `defer_destroy` waits for. It may be freed on another thread: `T` is `Send`.
            unsafe { guard.defer_destroy(old) }
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.0);
        // SAFETY: `&mut self`: nobody borrows from this any more, and nobody else can take the
        // pointer. It came from `Owned`.
        drop(unsafe { last.try_into_owned() });
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.get(&pin())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    /// Counts how often it is freed, and knows when it was.
    struct Counted(Arc<AtomicUsize>, u64);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1 = 0;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    #[cfg(not(any(loom, shuttle)))]
    fn other_users_of_the_collector_s_crate_neither_run_here_nor_hold_anything_back() {
        let theirs = crossbeam_epoch::pin();
        let (theirs_freed, freed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = Counted(Arc::clone(&theirs_freed), 1);
        theirs.defer(move || drop(counted));
        let published = Published::default();
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &pin());
        published.replace(None, &pin());
        while freed.load(Ordering::Relaxed) == 0 {
            pin().flush();
        }
        drop(theirs);
        (0..1000).for_each(|_| pin().flush());
        assert_eq!(theirs_freed.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_a_guard_has_seen_stays_until_it_is_gone() {
        let freed = Arc::new(AtomicUsize::new(0));
        let published = Published::default();
        let guard = pin();
        assert!(published.get(&guard).is_none());
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &guard);
        let first = published.get(&guard).unwrap();
        published.replace(Some(Counted(Arc::clone(&freed), 2)), &guard);
        guard.flush();
        assert_eq!((first.1, published.get(&guard).unwrap().1), (1, 2));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        drop(guard);
        drop(published);
        // The second one at once, the first one when the epoch has moved on.
        assert!(freed.load(Ordering::Relaxed) >= 1);
    }

    #[test]
    fn readers_see_whole_values_while_they_are_replaced_and_each_is_freed_once() {
        const VALUES: u64 = if cfg!(miri) { 50 } else { 5_000 };
        let freed = Arc::new(AtomicUsize::new(0));
        let published = Published::default();
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &pin());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 1;
                    while last < VALUES {
                        let seen = published.get(&pin()).unwrap().1;
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                        thread::yield_now();
                    }
                });
            }
            for value in 2..=VALUES {
                published.replace(Some(Counted(Arc::clone(&freed), value)), &pin());
            }
        });
        drop(published);
        // What was replaced goes as the epoch moves on, which other tests may hold up for a while.
        let all_are = |freed: &AtomicUsize| freed.load(Ordering::Relaxed) as u64 == VALUES;
        for _ in 0..10_000_000 {
            if all_are(&freed) {
                break;
            }
            pin().flush();
            thread::yield_now();
        }
        assert!(all_are(&freed), "{} of {VALUES} freed", freed.load(Ordering::Relaxed));
    }
}
