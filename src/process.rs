//! The process that opened a store, and whether this process is a fork of it.
//!
//! - A fork copies memory and descriptors, but only the thread that called it. A lock held by any
//!   other thread stays locked forever in the child, and no background thread runs there. A store
//!   therefore belongs to the process that opened it, and calls from a forked copy are refused.
//! - An `atfork` handler in the child raises a counter, so the check costs one load. A process made
//!   by a bare `clone` runs no handler and differs only in its process id. Reading the id takes a
//!   system call, so only opening, closing and dropping a store do it.

#![expect(unsafe_code, reason = "the foreign call that registers a handler for forks")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Number of forks between this process and the first process that opened a store.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that opened a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opener {
    pid: u32,
    forks: u64,
}

impl Default for Opener {
    /// Returns this process.
    fn default() -> Self {
        Self { pid: std::process::id(), forks: FORKS.load(Ordering::Relaxed) }
    }
}

impl Opener {
    /// Returns this process, and starts counting forks.
    pub(crate) fn this() -> io::Result<Self> {
        static WATCHED: AtomicBool = AtomicBool::new(false);
        // Two threads may both get here, and then each fork counts twice, which does no harm. A
        // lock against that would be one more lock that a fork can find held.
        if !WATCHED.load(Ordering::Acquire) {
            match watch_forks() {
                0 => WATCHED.store(true, Ordering::Release),
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        Ok(Self::default())
    }

    /// Returns whether this is the process that opened the store, as far as the count of forks
    /// shows.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }

    /// Returns whether this is the process that opened the store, however it was created. Takes a
    /// system call.
    pub(crate) fn is_surely_here(self) -> bool {
        self.is_here() && std::process::id() == self.pid
    }

    /// Returns the opener of a store in a process that was forked from its own.
    #[cfg(test)]
    pub(crate) fn of_parent() -> Self {
        let this = Self::default();
        Self { forks: this.forks.wrapping_sub(1), ..this }
    }

    /// Returns an error if the count of forks shows that this is not the process that opened the
    /// store.
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(self.refusal()) }
    }

    /// Returns the error for a process that did not open the store.
    #[cold]
    pub(crate) fn refusal(self) -> Error {
        Error::Forked { opener: self.pid, process: std::process::id() }
    }
}

/// Makes the C library raise the number of forks in every future child. Returns the C library's
/// error code.
#[cfg(not(miri))]
fn watch_forks() -> i32 {
    unsafe extern "C" {
        // As POSIX declares it. Not every release of `libc` declares it for every C library.
        safe fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> i32;
    }
    extern "C" fn forked() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    pthread_atfork(None, None, Some(forked))
}

/// The interpreter does not fork, and does not support the call.
#[cfg(miri)]
fn watch_forks() -> i32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opening_process_passes_the_check() {
        let opener = Opener::this().unwrap();
        assert!(opener.is_here() && opener.is_surely_here());
        opener.check().unwrap();
    }

    #[test]
    fn a_fork_is_detected_by_the_count_and_a_clone_by_its_id() {
        let opener = Opener::this().unwrap();
        let forked = Opener::of_parent();
        assert!(!forked.is_here() && !forked.is_surely_here());
        let message = forked.check().unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", opener.pid)), "{message}");
        let cloned = Opener { pid: opener.pid + 1, ..opener };
        assert!(cloned.is_here() && !cloned.is_surely_here());
    }
}
