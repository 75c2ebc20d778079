//! A background thread. A store runs a few of them, and more while its keydir is being filled.
//!
//! - The thread knows nothing of the work. It calls a closure, which returns how long the thread
//!   may sleep, and calls it again after that time or when woken. When the closure returns `None`,
//!   the thread ends.

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

    /// Makes the thread run its work soon.
    pub(crate) fn wake(&self) {
        self.state().woken = true;
        self.changed.notify_one();
    }

    /// Returns whether `wake` was called since the last call; for tests that run the work
    /// themselves.
    #[cfg(test)]
    pub(crate) fn take_woken(&self) -> bool {
        std::mem::take(&mut self.state().woken)
    }

    fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_one();
    }

    /// Sleeps until woken, or for at most the given time. Returns whether the thread should
    /// continue.
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

/// The running thread. Dropping the `Worker` stops the thread and waits for it.
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
        // Work that runs a caller's function may drop the worker on its own thread, which can't
        // join itself.
        if let Some(thread) = self.thread.take_if(|thread| thread.thread().id() != this) {
            // The work does not panic; if it did, nothing remains to be done.
            let _ = thread.join();
        }
    }
}
