//! Mutexes and condition variables that do not poison, and that survive a fork.
//!
//! - They wrap std's, each of which is a word that the kernel waits on. Locks that keep their
//!   waiters in a process-wide table would not do: a forked child inherits the table with the
//!   parent's waiters of that moment, but not their threads. A thread in the child that waits, for
//!   a store opened there, would run into those stale waiters.
//! - If a thread panics while it holds a lock, the guarded value stays as it was at that point.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, TryLockError};
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

    /// Takes the lock if no one holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Releases the lock, runs a closure, and takes the lock again.
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

/// A condition variable that knows whether any thread waits: std's makes a system call to wake even
/// if no thread waits. The thread that makes the awaited change holds the lock meanwhile. So either
/// it sees the waiter, or the thread that is about to wait sees the change.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    waiting: AtomicUsize,
    changed: std::sync::Condvar,
}

impl Condvar {
    /// Wakes the waiting threads. The caller holds the lock, or has held it since the change.
    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
    }

    /// Wakes one of the waiting threads. The same applies to the caller as for `notify_all`.
    pub(crate) fn notify_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.changed.notify_one();
        }
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Waits until notified, or until a moment.
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
