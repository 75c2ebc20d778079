//! What threads share: atomics and mutexes, or those of the model checker.
//!
//! - What decides in which order things are seen comes from here, so that the models in
//!   `loom_tests` run the same code. What only counts, or is never held while something else is
//!   read, need not.

#[cfg(not(all(test, loom)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[cfg(all(test, loom))]
pub(crate) use loom::sync::MutexGuard;
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The model checker's mutex, which is locked as ours is.
#[cfg(all(test, loom))]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(all(test, loom))]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Nobody waits in a model.
#[cfg(all(test, loom))]
#[derive(Debug, Default)]
pub(crate) struct Condvar;

#[cfg(all(test, loom))]
impl Condvar {
    pub(crate) fn notify_all(&self) {}

    pub(crate) fn wait<T>(&self, _: &mut MutexGuard<'_, T>) {
        unreachable!("nobody waits in a model")
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: std::time::Instant) {
        self.wait(guard);
    }
}
