//! An open store that can be closed while other threads call it.
//!
//! - A call holds the store until it has returned. `close` lets no further call in, waits for those
//!   that are inside, and then closes the store. It returns once the store is closed, whichever
//!   thread closes it, or if a signal handler raises, such as that of Ctrl-C.
//! - A call runs no code of Python. So no call waits for the program, and a garbage collection
//!   within a call can't wait for that call to end.
//! - In a forked process, calls are refused before they take a lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcask::{Bitcask, Error, ReadOnly, Reader, Result};
use pyo3::prelude::*;

use crate::errors::{closed, raise};
use crate::origin::Origin;

/// How long to wait until signals are looked at.
const SIGNALS_INTERVAL: Duration = Duration::from_millis(50);

/// A store, opened in one of two ways.
pub(crate) enum Opened {
    Writer(Bitcask),
    Follower(ReadOnly),
}

impl Opened {
    pub(crate) fn writer(&self) -> Result<&Bitcask> {
        match self {
            Self::Writer(db) => Ok(db),
            Self::Follower(_) => Err(Error::ReadOnly),
        }
    }

    pub(crate) fn reader(&self) -> &Reader {
        match self {
            Self::Writer(db) => db,
            Self::Follower(db) => db,
        }
    }

    fn close(self) -> Result<()> {
        match self {
            Self::Writer(db) => db.close(),
            Self::Follower(db) => db.close(),
        }
    }
}

/// The way to a store.
pub(crate) struct Gate {
    origin: Origin,
    /// Whether further calls are refused. Set before `state` is locked, and read under its lock by
    /// calls that enter.
    is_closed: AtomicBool,
    state: Mutex<State>,
    /// Notified when a call has left, and when the store has been closed.
    changed: Condvar,
}

struct State {
    /// `None` once a thread closes the store.
    opened: Option<Arc<Opened>>,
    calls: usize,
    /// Whether the store has been closed, or has failed to.
    is_over: bool,
}

impl State {
    fn is_waited_for(&self) -> bool {
        self.calls > 0 || (self.opened.is_none() && !self.is_over)
    }
}

impl Gate {
    pub(crate) fn new(opened: Opened) -> Self {
        let state = State { opened: Some(Arc::new(opened)), calls: 0, is_over: false };
        Self {
            origin: Origin::here(),
            is_closed: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the store without the interpreter's lock.
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Opened) -> Result<T> + Send,
    ) -> PyResult<T> {
        let result = {
            let inside = self.enter()?;
            py.detach(|| call(&inside.opened))
        };
        // Only now, because an exception is an object of Python.
        result.map_err(raise)
    }

    fn enter(&self) -> PyResult<Inside<'_>> {
        if !self.is_closed() {
            self.origin.check()?;
            let mut state = self.lock();
            if let Some(opened) = state.opened.clone().filter(|_| !self.is_closed()) {
                state.calls += 1;
                return Ok(Inside { opened, _leaving: Leaving(self) });
            }
        }
        Err(closed("store"))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Closes the store once all calls have left, or waits until another thread has closed it.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.origin.is_surely_here() {
            return self.leave_to_parent();
        }
        self.is_closed.store(true, Ordering::Relaxed);
        loop {
            match py.detach(|| self.try_close()) {
                Some(result) => return result.map_err(raise),
                None => py.check_signals()?,
            }
        }
    }

    /// Closes the store if no call is inside after a while. Returns `None` if this has to be called
    /// again.
    fn try_close(&self) -> Option<Result<()>> {
        let waited =
            self.changed.wait_timeout_while(self.lock(), SIGNALS_INTERVAL, |s| s.is_waited_for());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_waited_for() {
            return None;
        }
        let opened = state.opened.take();
        drop(state);
        // All calls have dropped theirs.
        let result = opened.and_then(Arc::into_inner).map_or(Ok(()), Opened::close);
        self.lock().is_over = true;
        self.changed.notify_all();
        Some(result)
    }

    /// Gives up the store in a forked process, which frees its lock there. If another thread was
    /// inside a call when the process was forked, that thread holds the store forever, and the lock
    /// is freed when the child ends.
    fn leave_to_parent(&self) -> PyResult<()> {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let opened = self.state.try_lock().ok().and_then(|mut state| state.opened.take());
        match opened.and_then(Arc::into_inner) {
            Some(opened) => opened.close().map_err(raise),
            None => Err(self.origin.refusal()),
        }
    }
}

/// A call that is inside the gate.
struct Inside<'a> {
    // Dropped in this order: the store, and then the place in the gate.
    opened: Arc<Opened>,
    _leaving: Leaving<'a>,
}

struct Leaving<'a>(&'a Gate);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().calls -= 1;
        self.0.changed.notify_all();
    }
}
