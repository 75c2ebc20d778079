//! The process in which something was opened, and whether this process was forked from it.
//!
//! - A fork copies memory, but only the thread that forks. A lock that another thread holds at that
//!   moment stays locked in the child. So whatever can be locked without the interpreter's lock is
//!   refused in a child before it is locked.
//! - The interpreter raises a counter in each child, so the check costs one load.

use std::sync::atomic::{AtomicU64, Ordering};

use bitcask::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

/// Number of forks between this process and the one that imported the module.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// A process.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pid: u32,
    forks: u64,
}

impl Origin {
    /// Returns this process.
    pub(crate) fn here() -> Self {
        Self { pid: std::process::id(), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Raises `Forked` in a child.
    pub(crate) fn check(self) -> PyResult<()> {
        if FORKS.load(Ordering::Relaxed) == self.forks { Ok(()) } else { Err(self.refusal()) }
    }

    /// Returns whether this is the process, even before the counter has been raised. Takes a system
    /// call.
    pub(crate) fn is_surely_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks && std::process::id() == self.pid
    }

    /// Returns the exception for a child.
    #[cold]
    pub(crate) fn refusal(self) -> PyErr {
        raise(Error::Forked { opener: self.pid, process: std::process::id() })
    }
}

#[pyfunction]
fn _forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Makes the interpreter count forks.
pub(crate) fn watch_forks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let handlers = PyDict::new(py);
    handlers.set_item("after_in_child", wrap_pyfunction!(_forked, module)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&handlers)).map(drop)
}
