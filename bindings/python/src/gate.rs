//! An open store that can be closed while other threads call it.
//!
//! - A call enters the gate and holds the store until it leaves. `close` lets no further call in,
//!   waits for those that are inside, and then closes the store.
//! - Calls enter and leave with the interpreter's lock held, and a process that forks holds it too.
//!   So a forked child never finds the gate's lock taken.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bitcask::{Bitcask, Error, ReadOnly, Reader, Result};
use pyo3::prelude::*;

use crate::errors::{closed, raise};

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
    state: Mutex<State>,
    left: Condvar,
}

struct State {
    /// `None` once the store is closed, or is about to be.
    opened: Option<Arc<Opened>>,
    calls: usize,
}

impl Gate {
    pub(crate) fn new(opened: Opened) -> Self {
        let state = State { opened: Some(Arc::new(opened)), calls: 0 };
        Self { state: Mutex::new(state), left: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters, or raises `Closed`.
    pub(crate) fn enter(&self) -> PyResult<Call<'_>> {
        let mut state = self.lock();
        let opened = state.opened.clone().ok_or_else(|| closed("store"))?;
        state.calls += 1;
        Ok(Call { gate: self, opened: Some(opened) })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().opened.is_none()
    }

    /// Closes the store once all calls have left. Does nothing if it is closed already.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(opened) = self.lock().opened.take() else { return Ok(()) };
        let close = || {
            let mut state = self.lock();
            while state.calls > 0 {
                state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            // All calls have dropped theirs.
            Arc::into_inner(opened).map_or(Ok(()), Opened::close)
        };
        py.detach(close).map_err(raise)
    }
}

/// A call that is inside the gate.
pub(crate) struct Call<'a> {
    gate: &'a Gate,
    /// `None` only while it is dropped.
    opened: Option<Arc<Opened>>,
}

impl Deref for Call<'_> {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        match &self.opened {
            Some(opened) => opened,
            None => unreachable!("a call has its store until it is dropped"),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.opened = None;
        self.gate.lock().calls -= 1;
        self.gate.left.notify_all();
    }
}
