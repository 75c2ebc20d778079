//! What threads share: atomics, mutexes and condition variables, or those of a checker; and time and
//! threads, as far as they decide what happens next.
//!
//! - What decides in which order things are seen comes from here. So the models in `loom_tests` run
//!   the same code under every order that the memory model allows, and the schedules in
//!   `store/tests/schedules` run whole stores under a scheduler of their own. What only counts, or is
//!   never held while something else is read, need not.
//! - What is in [`unmodeled`] the scheduler controls too. The models leave it out: it is no part of
//!   what they check, and would multiply the orders that they have to go through.

#[cfg(not(all(test, shuttle)))]
mod locks;
#[cfg(all(test, loom))]
mod loom;
#[cfg(all(test, shuttle))]
mod shuttle;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

#[cfg(all(test, loom))]
use self::loom as ours;
#[cfg(not(all(test, any(loom, shuttle))))]
use self::native as ours;
#[cfg(all(test, shuttle))]
use self::shuttle as ours;

pub(crate) use ours::{
    AtomicU64, AtomicUsize, Condvar, Instant, Mutex, MutexGuard, Ordering, ThreadId,
    available_parallelism, current_thread, sleep, unmodeled, yield_now,
};

/// Those of the machine.
#[cfg(not(all(test, shuttle)))]
mod native {
    pub(crate) use crate::sync::locks::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::thread::{ThreadId, sleep, yield_now};
    pub(crate) use std::time::Instant;

    pub(crate) mod unmodeled {
        pub(crate) use crate::sync::native::{Condvar, Mutex, MutexGuard};
        pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};
    }

    pub(crate) fn current_thread() -> ThreadId {
        std::thread::current().id()
    }

    /// Returns how many threads can run at once.
    pub(crate) fn available_parallelism() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
