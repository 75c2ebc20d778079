//! A collector for models and schedules. It promises what `crossbeam_epoch` promises, and as little
//! more as possible. Each store has its own, as without models.
//!
//! - A flush notes the retired values. A later flush frees them once no guard is left that existed
//!   when they were noted.
//! - A thread that pins after a flush sees everything that the flushing and the retiring threads
//!   had seen. A thread that frees sees everything that the awaited readers have done. The
//!   collector orders nothing else: the rest of it is hidden from the model checker.
//! - Loading a pointer after its target was freed panics immediately.

#![expect(unsafe_code, reason = "as in the crate that it replaces")]

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(loom)]
use loom::sync::atomic::AtomicPtr;
#[cfg(shuttle)]
use shuttle::sync::atomic::AtomicPtr;

use super::Core;
use crate::counters::Stripe;
use crate::sync::{AtomicUsize, Ordering};

type Deferred = Box<dyn FnOnce()>;

#[derive(Default)]
pub(super) struct Collector {
    /// Released by a flush, and acquired by every later pin.
    flushed: AtomicUsize,
    /// Released by a thread that retires, and acquired by the next flush.
    retired: AtomicUsize,
    /// Released by a thread that unpins, and acquired by a thread that frees.
    unpinned: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    guards: BTreeSet<usize>,
    next_guard: usize,
    /// Not yet noted by a flush.
    retired: Vec<Deferred>,
    /// Noted values, with the guards that each waits for.
    noted: Vec<(BTreeSet<usize>, Deferred)>,
    /// The addresses of freed values.
    freed: BTreeSet<usize>,
}

// SAFETY: deferred closures are `Send`, as `defer` requires, and the model checker runs one thread
// at a time.
unsafe impl Send for State {}

impl Collector {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> usize {
        self.flushed.fetch_add(0, Ordering::Acquire);
        let mut state = self.state();
        state.next_guard += 1;
        let number = state.next_guard;
        state.guards.insert(number);
        number
    }
}

pub(crate) struct Guard {
    number: usize,
    core: Arc<Core>,
}

pub(super) fn pin(core: &Arc<Core>) -> (Guard, &Stripe) {
    let guard = Guard { number: core.machine.register(), core: Arc::clone(core) };
    (guard, core.stripes.shared())
}

/// # Safety
///
/// The same as for the machinery that it replaces.
pub(super) unsafe fn free<T>(collector: &Collector, pointer: *const T) {
    assert!(collector.state().freed.insert(pointer.addr()), "freed twice");
    // SAFETY: the pointer came from `Owned` and no one uses it any more, as the caller guarantees.
    drop(unsafe { Box::from_raw(pointer.cast_mut()) });
}

impl Guard {
    fn collector(&self) -> &Collector {
        &self.core.machine
    }

    fn unregister(&self) {
        self.collector().unpinned.fetch_add(0, Ordering::Release);
        self.collector().state().guards.remove(&self.number);
    }

    pub(super) fn defer<R>(&self, call: impl FnOnce() -> R + Send + 'static) {
        self.collector().retired.fetch_add(0, Ordering::Release);
        self.collector().state().retired.push(Box::new(move || drop(call())));
    }

    pub(super) fn flush(&self) {
        let collector = self.collector();
        collector.retired.fetch_add(0, Ordering::Acquire);
        let retired = std::mem::take(&mut collector.state().retired);
        collector.flushed.fetch_add(0, Ordering::AcqRel);
        {
            let mut state = collector.state();
            let guards = state.guards.clone();
            state.noted.extend(retired.into_iter().map(|deferred| (guards.clone(), deferred)));
        }
        collector.unpinned.fetch_add(0, Ordering::Acquire);
        let free = {
            let State { guards, noted, .. } = &mut *collector.state();
            let (free, held) = std::mem::take(noted)
                .into_iter()
                .partition::<Vec<_>, _>(|(awaited, _)| awaited.is_disjoint(guards));
            *noted = held;
            free
        };
        for (_, deferred) in free {
            deferred();
        }
    }

    pub(super) fn repin_after<R>(&mut self, call: impl FnOnce() -> R) -> R {
        self.unregister();
        let result = call();
        self.number = self.collector().register();
        result
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.unregister();
    }
}

#[derive(Debug)]
pub(crate) struct Atomic<T>(AtomicPtr<T>);

impl<T> Default for Atomic<T> {
    fn default() -> Self {
        Self::null()
    }
}

impl<T> Atomic<T> {
    pub(crate) fn null() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(crate) fn load<'g>(&self, ordering: Ordering, guard: &'g Guard) -> Shared<'g, T> {
        let shared = Shared::new(self.0.load(ordering));
        let state = guard.collector().state();
        assert!(!state.freed.contains(&shared.untagged().addr()), "read after it was freed");
        shared
    }

    pub(crate) fn store(&self, new: Shared<'_, T>, ordering: Ordering) {
        self.0.store(new.pointer, ordering);
    }

    pub(crate) fn swap<'g>(
        &self,
        new: Shared<'_, T>,
        ordering: Ordering,
        _: &'g Guard,
    ) -> Shared<'g, T> {
        Shared::new(self.0.swap(new.pointer, ordering))
    }

    /// # Safety
    ///
    /// The same as for `crossbeam_epoch`.
    pub(crate) unsafe fn try_into_owned(mut self) -> Option<Owned<T>> {
        #[cfg(loom)]
        let pointer = self.0.with_mut(|pointer| *pointer);
        #[cfg(shuttle)]
        let pointer = *self.0.get_mut();
        // SAFETY: the pointer came from `Owned` and no one else has it, as the caller guarantees.
        (!pointer.is_null()).then(|| Owned(unsafe { Box::from_raw(pointer) }))
    }
}

#[derive(Debug)]
pub(crate) struct Owned<T>(Box<T>);

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Box::new(value))
    }

    pub(super) fn into_shared(self, guard: &Guard) -> Shared<'_, T> {
        let pointer = Box::into_raw(self.0);
        guard.collector().state().freed.remove(&pointer.addr());
        Shared::new(pointer)
    }
}

#[derive(Debug)]
pub(crate) struct Shared<'g, T> {
    pointer: *mut T,
    guard: PhantomData<(&'g (), *const T)>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

impl<T> From<*const T> for Shared<'_, T> {
    fn from(pointer: *const T) -> Self {
        Self::new(pointer.cast_mut())
    }
}

impl<'g, T> Shared<'g, T> {
    fn new(pointer: *mut T) -> Self {
        Self { pointer, guard: PhantomData }
    }

    fn untagged(self) -> *mut T {
        self.pointer.map_addr(|addr| addr & !(align_of::<T>() - 1))
    }

    pub(crate) fn null() -> Self {
        Self::new(std::ptr::null_mut())
    }

    pub(crate) fn is_null(self) -> bool {
        self.untagged().is_null()
    }

    pub(crate) fn tag(self) -> usize {
        self.pointer.addr() & (align_of::<T>() - 1)
    }

    pub(crate) fn with_tag(self, tag: usize) -> Self {
        Self::new(self.untagged().map_addr(|addr| addr | tag))
    }

    pub(crate) fn as_raw(self) -> *const T {
        self.untagged()
    }

    /// # Safety
    ///
    /// The same as for `crossbeam_epoch`.
    pub(crate) unsafe fn as_ref(self) -> Option<&'g T> {
        // SAFETY: guaranteed by the caller.
        unsafe { self.untagged().as_ref() }
    }
}
