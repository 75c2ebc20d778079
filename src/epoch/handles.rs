//! The stores that a thread uses, each with the thread's stripe there.
//!
//! - Each thread has a list of handles, the most recently used one at the front. Pinning for the
//!   same store again costs one comparison more than the pinning itself.
//! - The list is short. Handles of dropped stores leave it when the thread uses another store for
//!   the first time. Until then such a handle keeps a few kilobytes, and nothing that the store had
//!   retired.
//! - A thread that is ending, and code that runs while the list is being changed, shares a stripe.

#![expect(unsafe_code, reason = "the handle at the front is found without reading the list")]

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

use super::Core;
use crate::counters::Stripe;

/// Maximum number of handles per thread. A thread that alternates between more stores than this
/// claims a stripe each time.
const HANDLES_MAX: usize = 64;

/// The store at the front of the list, and the thread's stripe there; null if the list is empty.
#[derive(Clone, Copy)]
struct Front {
    core: *const Core,
    stripe: *const Stripe,
}

const NO_FRONT: Front = Front { core: ptr::null(), stripe: ptr::null() };

thread_local! {
    /// It has no destructor, so no access checks whether one has run.
    static FRONT: Cell<Front> = const { Cell::new(NO_FRONT) };
    static HANDLES: Handles = const { Handles(RefCell::new(Vec::new())) };
}

struct Handles(RefCell<Vec<StoreHandle>>);

struct StoreHandle {
    /// As long as this exists, nothing else can lie at the core's address.
    core: Weak<Core>,
    /// The stripe of this thread alone, if there is one.
    stripe: Option<Arc<Stripe>>,
}

impl StoreHandle {
    fn is_of(&self, core: &Arc<Core>) -> bool {
        ptr::eq(self.core.as_ptr(), Arc::as_ptr(core))
    }
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        // A guard that this thread still holds uses the stripe, which therefore stays taken.
        if let Some(stripe) = self.stripe.as_ref().filter(|it| it.presence.visit().is_none()) {
            stripe.hand_on();
        }
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        FRONT.set(NO_FRONT);
    }
}

/// Returns the stripe of this thread, or one that threads share.
#[expect(clippy::inline_always, reason = "every get pins")]
#[inline(always)]
pub(super) fn stripe(core: &Arc<Core>) -> &Stripe {
    let front = FRONT.get();
    let stripe =
        if ptr::eq(front.core, Arc::as_ptr(core)) { front.stripe } else { other_stripe(core) };
    // SAFETY: `other_stripe` has taken the pointer from the stripes of this core, which lie in the
    // core or in a list from which none is removed. The result borrows the core.
    unsafe { &*stripe }
}

/// Returns the stripe in a store that is not at the front of the list.
#[cold]
#[inline(never)]
fn other_stripe(core: &Arc<Core>) -> *const Stripe {
    let stripe = HANDLES.try_with(|handles| {
        let mut known = handles.0.try_borrow_mut().ok()?;
        FRONT.set(NO_FRONT);
        let mut gone = Vec::new();
        if let Some(at) = known.iter().position(|known| known.is_of(core)) {
            if let Some(front) = known.get_mut(..=at) {
                front.rotate_right(1);
            }
        } else {
            let is_gone = |known: &mut StoreHandle| known.core.strong_count() == 0;
            gone.extend(known.extract_if(.., is_gone));
            if known.len() >= HANDLES_MAX {
                gone.extend(known.pop());
            }
            let (core, stripe) = (Arc::downgrade(core), core.stripes.claim());
            known.insert(0, StoreHandle { core, stripe });
        }
        let first = known.first().filter(|first| first.is_of(core))?;
        let stripe = ptr::from_ref(first.stripe.as_deref().unwrap_or(core.stripes.shared()));
        FRONT.set(Front { core: Arc::as_ptr(core), stripe });
        Some(stripe)
    });
    stripe.ok().flatten().unwrap_or(core.stripes.shared())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::epoch::Collector;

    fn known() -> usize {
        HANDLES.with(|handles| handles.0.borrow().len())
    }

    #[test]
    fn handles_of_dropped_stores_do_not_pile_up() {
        thread::spawn(|| {
            for _ in 0..1000 {
                drop(Collector::new().pin());
                assert!(known() <= 1);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_keeps_a_few_handles_of_the_stores_it_used_last() {
        thread::spawn(|| {
            let collectors: Vec<_> = (0..3 * HANDLES_MAX).map(|_| Collector::new()).collect();
            let first = collectors.first().unwrap();
            for collector in &collectors {
                drop(collector.pin());
                drop(first.pin());
                assert!(known() <= HANDLES_MAX);
            }
            assert_eq!(known(), HANDLES_MAX);
            HANDLES.with(|handles| {
                let handles = handles.0.borrow();
                assert!(handles.first().unwrap().is_of(&first.0));
                let kept = collectors.iter().rev().take(HANDLES_MAX - 1);
                for (known, collector) in handles.iter().skip(1).zip(kept) {
                    assert!(known.is_of(&collector.0));
                }
            });
        })
        .join()
        .unwrap();
    }

    /// Counts how many times it is dropped.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn retire(collector: &Collector, freed: &Arc<AtomicUsize>) {
        let counted = Counted(Arc::clone(freed));
        collector.pin().retire(move || drop(counted));
    }

    #[test]
    fn retired_values_are_freed_with_their_store_even_if_handles_remain() {
        let freed = Arc::new(AtomicUsize::new(0));
        let collector = Collector::new();
        retire(&collector, &freed);
        let guard = collector.pin();
        // One batch is awaited, and another one follows.
        guard.flush();
        retire(&collector, &freed);
        drop(guard);
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        drop(collector);
        assert_eq!(freed.load(Ordering::Relaxed), 2);
    }

    /// Pins when its thread ends, both in the order in which thread-locals are dropped and in the
    /// other.
    struct Last(Collector, Arc<AtomicUsize>);

    impl Drop for Last {
        fn drop(&mut self) {
            retire(&self.0, &self.1);
            self.0.free_retired();
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    #[test]
    fn a_thread_that_is_ending_can_pin() {
        for used_before in [true, false] {
            let freed = Arc::new(AtomicUsize::new(0));
            let collector = Collector::new();
            let last = Last(collector.clone(), Arc::clone(&freed));
            let thread = thread::spawn(move || {
                if used_before {
                    drop(last.0.pin());
                }
                let collector = last.0.clone();
                LAST.set(Some(last));
                drop(collector.pin());
            });
            thread.join().unwrap();
            assert_eq!(freed.load(Ordering::Relaxed), 1);
            assert_eq!(collector.left(), 0);
        }
    }

    #[test]
    fn a_guard_may_outlive_its_handle_in_the_list() {
        thread::spawn(|| {
            let freed = Arc::new(AtomicUsize::new(0));
            let (held, others) = (Collector::new(), [(); HANDLES_MAX].map(|()| Collector::new()));
            let guard = held.pin();
            for other in &others {
                drop(other.pin());
            }
            HANDLES.with(|handles| {
                assert!(handles.0.borrow().iter().all(|known| !known.is_of(&held.0)));
            });
            retire(&held, &freed);
            held.free_retired();
            assert_eq!(freed.load(Ordering::Relaxed), 0);
            drop(guard);
            held.free_retired();
            assert_eq!(freed.load(Ordering::Relaxed), 1);
        })
        .join()
        .unwrap();
    }

    fn counted(collector: &Collector) -> (u64, usize) {
        let mut counters = crate::Counters::default();
        collector.count(&mut counters);
        (counters.hits, collector.0.stripes.len())
    }

    #[test]
    fn a_thread_continues_with_the_counters_of_one_that_has_ended() {
        let collector = Collector::new();
        for number in 1..=100 {
            let here = collector.clone();
            thread::spawn(move || here.pin().read().hit(0)).join().unwrap();
            assert_eq!(counted(&collector), (number, 1));
        }
    }

    #[test]
    fn threads_beyond_the_last_counters_share_some() {
        const THREADS: usize = 50;
        let collector = Collector::new();
        let barrier = std::sync::Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    collector.pin().read().hit(0);
                    barrier.wait();
                    (1..1000).for_each(|_| collector.pin().read().hit(0));
                });
            }
        });
        assert_eq!(counted(&collector), (1000 * THREADS as u64, 16));
    }

    #[test]
    fn counters_that_a_guard_may_still_use_are_not_handed_on() {
        let (held, others) = (Collector::new(), [(); HANDLES_MAX].map(|()| Collector::new()));
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = held.pin();
                for other in &others {
                    drop(other.pin());
                }
                scope.spawn(|| held.pin().read().hit(0)).join().unwrap();
                guard.read().hit(0);
            });
        });
        assert_eq!(counted(&held), (2, 2));
    }

    /// A forked child finds the list locked forever if another thread was using it.
    #[test]
    fn a_thread_that_cannot_look_for_counters_counts_all_the_same() {
        let collector = Collector::new();
        collector.0.stripes.locked(|| {
            let here = collector.clone();
            thread::spawn(move || here.pin().read().hit(0)).join().unwrap();
        });
        assert_eq!(counted(&collector), (1, 0));
    }
}
