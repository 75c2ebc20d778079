//! What makes a machine unkind: neighbours that keep it busy, and threads that get little of it.

#![expect(unsafe_code, reason = "the standard library has no word for a thread's priority")]

use std::path::Path;
use std::{hint, thread};

use tempfile::TempDir;

/// How many threads run at once here.
pub(super) fn processors() -> u64 {
    thread::available_parallelism().map_or(1, |number| number.get() as u64)
}

/// Keeps a processor busy.
pub(super) fn spin(is_over: impl Fn() -> bool) {
    while !is_over() {
        for _ in 0..1000 {
            hint::spin_loop();
        }
    }
}

/// Has the calling thread run only when nobody else wants to.
pub(super) fn step_back() {
    // Anywhere else it is the whole process that has a priority, or the thread's number is not told.
    #[cfg(target_os = "linux")]
    {
        // SAFETY: both calls take and return numbers alone.
        let result = unsafe {
            let thread = libc::id_t::try_from(libc::gettid()).unwrap();
            libc::setpriority(libc::PRIO_PROCESS, thread, 19)
        };
        assert_eq!(result, 0, "a thread may always step back");
    }
}

/// A directory in memory, where there is one: what is looked for is between threads, and a disk
/// that is waited for gives them fewer occasions.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = if memory.is_dir() { tempfile::tempdir_in(memory).ok() } else { None };
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}
