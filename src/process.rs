//! Which process this is: the one that has opened a store, or one that was forked from it.
//!
//! - A fork copies memory and descriptors, and of all threads only the one that called it. What another
//!   thread had locked stays locked for ever in the child, and nobody does the background's work there.
//!   So a store is its opener's alone, and whoever else has a copy of it is refused.
//! - `fork` has the number of forks raised in the child, so that asking costs one load. A process that
//!   was made by a bare `clone` is told by its id alone, which takes a system call: that is asked where
//!   a store is opened, closed or dropped.

#![expect(unsafe_code, reason = "the foreign call that has the C library tell of a fork")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// How many forks lie between the first process that has opened a store and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that has opened a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opener {
    pid: u32,
    forks: u64,
}

impl Default for Opener {
    /// This process.
    fn default() -> Self {
        Self { pid: std::process::id(), forks: FORKS.load(Ordering::Relaxed) }
    }
}

impl Opener {
    /// Returns this process, whose forks are told of from now on.
    pub(crate) fn this() -> io::Result<Self> {
        static WATCHED: AtomicBool = AtomicBool::new(false);
        // Two threads may both come to this, and then a fork counts twice. A lock would be one more that
        // a fork can find locked.
        if !WATCHED.load(Ordering::Acquire) {
            match watch_forks() {
                0 => WATCHED.store(true, Ordering::Release),
                code => return Err(io::Error::from_raw_os_error(code)),
            }
        }
        Ok(Self::default())
    }

    /// Returns whether this is the process that has opened the store, as far as `fork` tells.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }

    /// Returns whether this is that process, however it was made. Takes a system call.
    pub(crate) fn is_surely_here(self) -> bool {
        self.is_here() && std::process::id() == self.pid
    }

    /// Refuses where this is not the process that has opened the store, as far as `fork` tells.
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_here() { Ok(()) } else { Err(self.refusal()) }
    }

    /// Returns the error for a process that has not opened the store.
    #[cold]
    pub(crate) fn refusal(self) -> Error {
        Error::Forked { opener: self.pid, process: std::process::id() }
    }
}

/// Has the C library raise the number of forks in each child from now on; returns its error code.
#[cfg(not(miri))]
fn watch_forks() -> i32 {
    unsafe extern "C" {
        // As POSIX has it. Not every release of `libc` declares it for every C library.
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

/// The interpreter neither forks nor knows the call.
#[cfg(miri)]
fn watch_forks() -> i32 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_opens_is_the_one_that_may_go_on() {
        let opener = Opener::this().unwrap();
        assert!(opener.is_here() && opener.is_surely_here());
        opener.check().unwrap();
    }

    #[test]
    fn a_fork_is_told_by_its_number_and_a_clone_by_its_id() {
        let opener = Opener::this().unwrap();
        let forked = Opener { forks: opener.forks + 1, ..opener };
        assert!(!forked.is_here() && !forked.is_surely_here());
        let told = forked.check().unwrap_err().to_string();
        assert!(told.contains(&format!("process {}", opener.pid)), "{told}");
        let cloned = Opener { pid: opener.pid + 1, ..opener };
        assert!(cloned.is_here() && !cloned.is_surely_here());
    }
}
