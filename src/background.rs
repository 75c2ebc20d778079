//! A thread for what can wait; a store has a few of them, and more while its keydir is filled.
//!
//! - Knows nothing of the work: it calls a closure, which says how long it may sleep, and calls it
//!   again then, or when it is woken. It ends when there is no more work for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Lock 8.
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    woken: bool,
    stopped: bool,
}

impl Signal {
    fn state(&self) -> MutexGuard<'_, SignalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the work looked at soon.
    pub(crate) fn wake(&self) {
        self.state().woken = true;
        self.changed.notify_one();
    }

    /// Returns whether the work was asked for since this was called last; for tests that do it.
    #[cfg(test)]
    pub(crate) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.state().woken)
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_one();
    }

    /// Sleeps until woken, or for a time; says whether to go on.
    fn sleep(&self, at_most: Duration) -> bool {
        let mut state = self.state();
        if !state.woken && !state.stopped {
            let waited = self.changed.wait_timeout(state, at_most);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.woken = false;
        !state.stopped
    }
}

/// The running thread; it is stopped and waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(
        signal: Arc<Signal>,
        mut work: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> std::io::Result<Self> {
        let sleeper = Arc::clone(&signal);
        let run = move || while work().is_some_and(|at_most| sleeper.sleep(at_most)) {};
        let thread = std::thread::Builder::new().name("bitcask".to_owned()).spawn(run)?;
        Ok(Self { signal, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.stop();
        let this = std::thread::current().id();
        // Work that calls a caller's function may end up here itself, and can't wait for itself.
        if let Some(thread) = self.thread.take_if(|thread| thread.thread().id() != this) {
            // The work does not panic; if it did, there is nothing left to do for it.
            let _ = thread.join();
        }
    }
}
