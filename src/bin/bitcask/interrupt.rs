//! Ctrl-C.
//!
//! - A store survives the end of its process at any moment. So Ctrl-C ends the program at once,
//!   unless some work is under way that can do better: it looks at [`is_requested`], stops, closes
//!   the store, and says how far it came.
//! - A second Ctrl-C ends the program at once in any case.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use crate::exit::Exit;
use crate::failure::Failure;

/// Whether Ctrl-C was pressed.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// Whether a press of Ctrl-C was handled before.
static HANDLED: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C ends the program at once.
static AT_ONCE: AtomicBool = AtomicBool::new(true);

/// Begins to listen for Ctrl-C.
pub(crate) fn listen() -> Result<(), Failure> {
    let code = i32::from(Exit::Interrupted.code());
    // The actions run in this order. A press is noted first, so none is lost from here on, and
    // `at_once` misses none. The last action makes the next press a second one.
    let noted = flag::register(SIGINT, &REQUESTED);
    let at_once = flag::register_conditional_shutdown(SIGINT, code, &AT_ONCE);
    let second = flag::register_conditional_shutdown(SIGINT, code, &HANDLED);
    let handled = flag::register(SIGINT, &HANDLED);
    // Without these, Ctrl-C kills the program, and the store survives that too.
    let _ = (noted, at_once, second, handled);
    check()
}

/// Work that stops by itself after Ctrl-C, for as long as this exists.
#[derive(Debug)]
pub(crate) struct StoppableWork;

impl StoppableWork {
    pub(crate) fn begin() -> Self {
        AT_ONCE.store(false, Ordering::SeqCst);
        Self
    }
}

impl Drop for StoppableWork {
    fn drop(&mut self) {
        AT_ONCE.store(true, Ordering::SeqCst);
    }
}

/// Returns the flag that says whether Ctrl-C was pressed.
pub(crate) fn requested_flag() -> &'static AtomicBool {
    &REQUESTED
}

/// Waits for something that Ctrl-C cannot stop otherwise, such as input.
pub(crate) fn at_once<T>(wait: impl FnOnce() -> T) -> Result<T, Failure> {
    let before = AT_ONCE.swap(true, Ordering::SeqCst);
    // Either this sees the request, or the handler sees that it has to end the program.
    let result = if is_requested() { Err(Failure::Interrupted) } else { Ok(wait()) };
    AT_ONCE.store(before, Ordering::SeqCst);
    result
}

/// Divides a duration, so that a request is noticed soon by those who look between two parts.
pub(crate) fn slices(whole: Duration) -> impl Iterator<Item = Duration> {
    let mut left = whole;
    std::iter::from_fn(move || {
        let slice = left.min(SLICE);
        left -= slice;
        (!slice.is_zero()).then_some(slice)
    })
}

/// Longest time for which nobody looks whether Ctrl-C was pressed.
const SLICE: Duration = Duration::from_millis(50);

/// Waits, but not any longer after Ctrl-C.
pub(crate) fn sleep(duration: Duration) {
    slices(duration).take_while(|_| !is_requested()).for_each(std::thread::sleep);
}

/// Returns whether Ctrl-C was pressed.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Returns whether work continues, as callbacks of the library want to know it.
pub(crate) fn flow() -> ControlFlow<()> {
    if is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Returns an error if Ctrl-C was pressed.
pub(crate) fn check() -> Result<(), Failure> {
    if is_requested() { Err(Failure::Interrupted) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_short_and_add_up() {
        for millis in [0, 1, 50, 51, 3_600_000] {
            let whole = Duration::from_millis(millis);
            assert_eq!(slices(whole).sum::<Duration>(), whole);
            assert!(slices(whole).all(|slice| slice <= SLICE && !slice.is_zero()));
        }
    }
}
