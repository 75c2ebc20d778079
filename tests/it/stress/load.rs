//! Makes the machine busy: threads that occupy the processors, and threads with a low priority.

#![expect(unsafe_code, reason = "the standard library cannot set a thread's priority")]

use std::{hint, thread};

/// Number of threads that can run in parallel here.
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

/// Lowers the calling thread's priority, so that it runs only when no other thread wants to.
pub(super) fn step_back() {
    // On other systems the priority belongs to the whole process, or the thread's id is
    // unavailable.
    #[cfg(target_os = "linux")]
    {
        // SAFETY: both calls take and return only numbers.
        let result = unsafe {
            let thread = libc::id_t::try_from(libc::gettid()).unwrap();
            libc::setpriority(libc::PRIO_PROCESS, thread, 19)
        };
        assert_eq!(result, 0, "a thread may always lower its priority");
    }
}
