//! Mutexes and condition variables of one word each, at which the kernel has threads wait; for Linux.
//!
//! - As `locks`, and quicker: nothing is asked about panics, and nobody is woken where nobody waits.
//! - A mutex is free, held, or held and waited for. Who has waited holds it as waited for, since there may be
//!   others: at worst that is a call to the kernel in vain. (Drepper, "Futexes are tricky", 2011.)

#![expect(unsafe_code, reason = "what a lock guards is shared, and changed by who holds it")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const FREE: u32 = 0;
const HELD: u32 = 1;
const WAITED_FOR: u32 = 2;

/// As often it is looked whether a lock comes free before the kernel is asked to wait.
const SPINS: usize = 100;

#[derive(Default)]
pub(crate) struct Mutex<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: of all threads that share it only the one that holds it has a reference to the value, and that
// one may send the value elsewhere or drop it: so `T` has to be `Send`, and need not be `Sync`.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.acquire();
        MutexGuard { mutex: self, stays_here: PhantomData }
    }

    #[inline]
    fn acquire(&self) {
        let taken = self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            self.acquire_slowly();
        }
    }

    #[cold]
    fn acquire_slowly(&self) {
        for _ in 0..SPINS {
            match self.state.load(Ordering::Relaxed) {
                HELD => std::hint::spin_loop(),
                _ => break,
            }
        }
        let taken = self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_ok() {
            return;
        }
        while self.state.swap(WAITED_FOR, Ordering::Acquire) != FREE {
            wait(&self.state, WAITED_FOR, None);
        }
    }

    #[inline]
    fn release(&self) {
        if self.state.swap(FREE, Ordering::Release) == WAITED_FOR {
            wake(&self.state, 1);
        }
    }
}

/// What a lock guards is not shown: looking would take it.
impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// It is let go by the thread that took it.
    stays_here: PhantomData<*const ()>,
}

impl<T> MutexGuard<'_, T> {
    /// Runs a closure without the lock.
    pub(crate) fn unlocked<R>(guard: &mut Self, run: impl FnOnce() -> R) -> R {
        // Also after a panic, since the guard lets go of it then.
        struct Taken<'a, T>(&'a Mutex<T>);
        impl<T> Drop for Taken<'_, T> {
            fn drop(&mut self) {
                self.0.acquire();
            }
        }
        guard.mutex.release();
        let _taken = Taken(guard.mutex);
        run()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.release();
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock for as long as it can be borrowed: `unlocked` borrows it
        // mutably until it holds the lock again. Nobody else has a reference meanwhile.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this one is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Who changes what is waited for holds the lock meanwhile, so either it sees that somebody waits, or
/// whoever is about to sees the change.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    waiting: AtomicU32,
    /// How often it was told.
    told: AtomicU32,
}

impl Condvar {
    /// Wakes those who wait. The lock is held, or was held since the change.
    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.told.fetch_add(1, Ordering::Release);
            wake(&self.told, i32::MAX);
        }
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_for(guard, None);
    }

    /// Waits until it is told, or for so long; says whether time is up.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> bool {
        self.wait_for(guard, Some(until.saturating_duration_since(Instant::now())));
        until <= Instant::now()
    }

    fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, at_most: Option<Duration>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let told = self.told.load(Ordering::Acquire);
        MutexGuard::unlocked(guard, || wait(&self.told, told, at_most));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until somebody wakes those who wait at a word, for a time at most, or not at all if there is
/// something else in it. May return for no reason.
fn wait(word: &AtomicU32, expected: u32, at_most: Option<Duration>) {
    let at_most = at_most.map(|at_most| libc::timespec {
        tv_sec: libc::time_t::try_from(at_most.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    });
    let time = at_most.as_ref().map_or(ptr::null(), ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word and the time, both of which live until the call returns. Whatever
    // it answers, the caller looks again at what it waits for.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, time) };
}

/// Wakes some of those who wait at a word.
#[cold]
fn wake(word: &AtomicU32, count: i32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel only takes the address, to find who waits there. The word may belong to somebody
    // else by now: then a wait of theirs returns for no reason, which all are prepared for.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
}
