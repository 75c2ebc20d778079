//! Mutexes and condition variables that do not poison, and that a fork can't leave entangled.
//!
//! - They are std's, each of which is a word that the kernel waits at. Locks that keep their waiters in a
//!   table of the process would not do: a forked child has the table with the waiters that its parent had
//!   at that moment, but not their threads. Whoever waited in the child, for a store of its own, would
//!   come upon what is left of them.
//! - A panic while a lock is held leaves what it guards as it was then.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub(crate) use std::sync::MutexGuard;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the lock, runs a closure, and takes it again.
    pub(crate) fn unlocked<'a, R>(
        &'a self,
        guard: MutexGuard<'a, T>,
        run: impl FnOnce() -> R,
    ) -> (MutexGuard<'a, T>, R) {
        drop(guard);
        let result = run();
        (self.lock(), result)
    }
}

/// A condition variable of which it is known whether anybody waits: std's takes a system call to wake
/// nobody. Who changes what is waited for holds the lock meanwhile, so either it sees that somebody waits,
/// or whoever is about to sees the change.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    waiting: AtomicUsize,
    changed: std::sync::Condvar,
}

impl Condvar {
    /// Wakes those who wait. The lock is held, or was held since the change.
    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Waits until it is notified, or for so long.
    pub(crate) fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        until: Instant,
    ) -> MutexGuard<'a, T> {
        let at_most = until.saturating_duration_since(Instant::now());
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = self.changed.wait_timeout(guard, at_most);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
