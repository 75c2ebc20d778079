//! The scheduler's versions: every call is a point at which another task may continue.
//!
//! - The tasks of a schedule take turns on one machine thread, so a task must not hold a lock of
//!   the machine while the scheduler switches tasks.
//! - Time is artificial: it advances by a microsecond with each reading, and sleeping yields.

use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Deref, DerefMut};
use std::sync::PoisonError;
use std::time::Duration;

pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use shuttle::thread::{ThreadId, yield_now};

pub(crate) mod unmodeled {
    pub(crate) use super::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
}

/// A mutex with the interface of this crate's mutex.
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, held }
    }

    /// Takes the lock if no one holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // A schedule in which a task panics has failed.
        let held = self.0.try_lock().ok()?;
        Some(MutexGuard { mutex: self, held })
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

/// Does not show the guarded value, since that would take the lock.
impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { mutex, held } = guard;
        let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex, held }
    }

    /// Yields once, whether or not it is notified.
    #[expect(clippy::unused_self, reason = "the signature is that of our own type")]
    pub(crate) fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Instant,
    ) -> MutexGuard<'a, T> {
        guard.mutex.unlocked(guard, yield_now).0
    }
}

/// A moment of a schedule, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

std::thread_local! {
    /// Number of readings of the time. All tasks are on one thread.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

impl Instant {
    pub(crate) fn now() -> Self {
        LOOKS.set(LOOKS.get() + 1);
        Self(LOOKS.get())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_micros(Self::now().0 - self.0)
    }

    pub(crate) fn checked_add(self, by: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(by.as_micros()).ok()?).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        self.checked_add(by).expect("a schedule is short")
    }
}

pub(crate) fn sleep(_: Duration) {
    yield_now();
}

pub(crate) fn current_thread() -> ThreadId {
    shuttle::thread::current().id()
}

/// All tasks of a schedule share one thread.
pub(crate) fn available_parallelism() -> usize {
    1
}
