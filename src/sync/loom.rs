//! The model checker's versions. No thread waits in a model, and time and threads are the
//! machine's.

pub(crate) use super::native::{
    Instant, ThreadId, available_parallelism, current_thread, sleep, unmodeled, yield_now,
};
pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The model checker's mutex, with the interface of this crate's mutex.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes the lock if no one holds it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // No model panics.
        self.0.try_lock().ok()
    }
}

/// No thread waits in a model.
#[derive(Debug, Default)]
pub(crate) struct Condvar;

impl Condvar {
    pub(crate) fn notify_all(&self) {}

    pub(crate) fn wait<'a, T>(&self, _: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        unreachable!("no thread waits in a model")
    }

    pub(crate) fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: Instant,
    ) -> MutexGuard<'a, T> {
        self.wait(guard)
    }
}
