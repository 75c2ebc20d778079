//! What threads share: atomics, mutexes and condition variables, or a checker's versions of them;
//! also time and threads, as far as they influence what happens next.
//!
//! - Everything that decides the order in which threads see changes comes from here. The models in
//!   `loom_tests` thus run the same code under every order that the memory model allows, and the
//!   schedules in `store/tests/schedules` run whole stores under their own scheduler. Plain
//!   counters, and locks that are never held while anything else is read, are exempt.
//! - The scheduler also controls the types in [`unmodeled`]. The models leave them out: they do not
//!   check them, and including them would multiply the number of orders to explore.

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

/// The machine's own versions.
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

    /// Returns how many threads can run in parallel.
    pub(crate) fn available_parallelism() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
