//! Mutexes and condition variables that do not poison, and that a fork can't leave entangled.
//!
//! - They are std's, each of which is a word that the kernel waits at. Locks that keep their waiters in a
//!   table of the process would not do: a forked child has the table with the waiters that its parent had
//!   at that moment, but not their threads. Whoever waited in the child, for a store of its own, would
//!   come upon what is left of them.
//! - A panic while a lock is held leaves what it guards as it was then.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.held()) }
    }

    #[inline]
    fn held(&self) -> std::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only within `unlocked` and `wait`.
    held: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    /// Runs a closure without the lock.
    pub(crate) fn unlocked<R>(guard: &mut Self, run: impl FnOnce() -> R) -> R {
        guard.held = None;
        let result = run();
        guard.held = Some(guard.mutex.held());
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.held {
            Some(held) => held,
            None => unreachable!("a guard that can be borrowed holds its lock"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.held {
            Some(held) => held,
            None => unreachable!("a guard that can be borrowed holds its lock"),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
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

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.held.take() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            guard.held = Some(self.changed.wait(held).unwrap_or_else(PoisonError::into_inner));
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until it is told, or for so long; says whether time is up.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> bool {
        let at_most = until.saturating_duration_since(Instant::now());
        if let Some(held) = guard.held.take() {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let waited = self.changed.wait_timeout(held, at_most);
            guard.held = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        until <= Instant::now()
    }
}
