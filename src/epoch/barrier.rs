//! Memory barriers between threads that read all the time and threads that seldom free something.
//!
//! - A reader must enter before it loads a pointer, and processors let loads overtake stores. A
//!   fence on the reader's side prevents that, but it also makes the loads of a get wait for those
//!   of the get before.
//! - Linux can put the fence on the other side: `membarrier` makes every running thread of the
//!   process execute one. So readers only keep the compiler from reordering, and a thread that
//!   frees makes the system call (Desnoyers and others, "User-level implementations of
//!   read-copy-update", 2012).
//! - The process has to register for it, which takes up to some fifteen milliseconds if it has
//!   several threads. The background does that, or opening a store that has none. Until then, and
//!   where there is no such call, each side has its own fence.

#![cfg_attr(
    all(target_os = "linux", not(any(miri, all(test, loom)))),
    expect(unsafe_code, reason = "a system call that std and libc do not wrap")
)]

#[cfg(not(all(test, loom)))]
use std::sync::atomic::fence;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use std::sync::{Mutex, TryLockError};

#[cfg(all(test, loom))]
use ::loom::sync::atomic::fence;

/// Whether readers rely on the other side's system call.
static IS_ON_OTHER_SIDE: AtomicBool = AtomicBool::new(false);

/// Whether that was decided for good.
static IS_DECIDED: AtomicBool = AtomicBool::new(false);

/// Lock 9: held while that is decided, and while a thread relies on the fences of readers before.
/// Nobody waits for this lock, since a forked child may find it held forever.
static CHANGE: Mutex<()> = Mutex::new(());

/// The reader's side: separates entering from the loads that follow.
#[expect(clippy::inline_always, reason = "every get calls this")]
#[inline(always)]
pub(super) fn of_reader() {
    // Acquire: a reader that sees the change also sees what was unlinked before it.
    if IS_ON_OTHER_SIDE.load(Ordering::Acquire) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The other side: separates what was unlinked from looking for readers, which the closure does.
/// Returns `None` if that is impossible now.
///
/// A reader that the closure does not see as present sees everything that was unlinked before.
pub(super) fn of_other_side<T>(look: impl FnOnce() -> T) -> Option<T> {
    if IS_ON_OTHER_SIDE.load(Ordering::Acquire) {
        return membarrier::fence_all_threads().then(look);
    }
    // In models nothing ever decides, and the lock belongs to all models that run at the same time.
    if IS_DECIDED.load(Ordering::Acquire) || cfg!(all(test, loom)) {
        fence(Ordering::SeqCst);
        return Some(look());
    }
    // A reader without a fence loads its pointers after the change. If that comes after `look`, it
    // sees what was unlinked before.
    let _unchanged = match CHANGE.try_lock() {
        Ok(unchanged) => unchanged,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    if IS_ON_OTHER_SIDE.load(Ordering::Acquire) {
        return membarrier::fence_all_threads().then(look);
    }
    fence(Ordering::SeqCst);
    Some(look())
}

/// Moves the readers' fences to the other side, if the system can do that. May take milliseconds
/// the first time.
pub(crate) fn move_to_other_side() {
    if IS_DECIDED.load(Ordering::Acquire) {
        return;
    }
    let can_move = membarrier::register();
    // If a thread is looking for readers right now, a later call decides.
    let _change = match CHANGE.try_lock() {
        Ok(change) => change,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    if can_move {
        IS_ON_OTHER_SIDE.store(true, Ordering::Release);
    }
    IS_DECIDED.store(true, Ordering::Release);
}

// Android is left out: some versions end a process that makes the call.
#[cfg(all(target_os = "linux", not(any(miri, all(test, loom)))))]
mod membarrier {
    // The values in Linux's `include/uapi/linux/membarrier.h`.
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn call(command: libc::c_int) -> bool {
        let (flags, cpu): (libc::c_uint, libc::c_int) = (0, 0);
        // SAFETY: the call takes three integers, and neither reads nor writes memory of the
        // process.
        unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) == 0 }
    }

    /// Registers the process. Returns `false` if the system does not know the call, or refuses it.
    pub(super) fn register() -> bool {
        call(REGISTER_PRIVATE_EXPEDITED)
    }

    /// Makes every running thread of the process execute a fence; the others execute one when they
    /// are scheduled. Fails if a filter of system calls refuses it since the registration.
    pub(super) fn fence_all_threads() -> bool {
        call(PRIVATE_EXPEDITED) || (register() && call(PRIVATE_EXPEDITED))
    }
}

#[cfg(not(all(target_os = "linux", not(any(miri, all(test, loom))))))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn fence_all_threads() -> bool {
        unreachable!("no process can register")
    }
}
