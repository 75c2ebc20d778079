//! What locks promise, whichever implementation they wrap.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::{Condvar, Instant, Mutex, MutexGuard};

#[test]
fn a_panic_under_a_lock_leaves_it_usable() {
    let mutex = Mutex::new(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        *mutex.lock() = 2;
        let _held = mutex.lock_in_order();
    }));
    assert!(panicked.is_err());
    assert_eq!(*mutex.lock(), 2);
}

impl Mutex<i32> {
    fn lock_in_order(&self) -> MutexGuard<'_, i32> {
        let _held = self.lock();
        panic!("on purpose")
    }
}

#[test]
fn a_lock_is_released_while_a_closure_runs_without_it() {
    let mutex = Mutex::new(1);
    let (guard, ()) = mutex.unlocked(mutex.lock(), || *mutex.lock() += 1);
    assert_eq!(*guard, 2);
}

#[test]
fn a_waiter_is_notified_and_its_time_runs_out() {
    let (mutex, condvar) = (Mutex::new(false), Condvar::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            *mutex.lock() = true;
            condvar.notify_all();
        });
        let mut guard = mutex.lock();
        while !*guard {
            guard = condvar.wait(guard);
        }
    });
    let mut guard = mutex.lock();
    guard = condvar.wait_until(guard, Instant::now());
    let far = Instant::now() + Duration::from_secs(1 << 30);
    std::thread::scope(|scope| {
        *guard = false;
        scope.spawn(|| {
            *mutex.lock() = true;
            condvar.notify_all();
        });
        while !*guard {
            guard = condvar.wait_until(guard, far);
            assert!(Instant::now() < far);
        }
    });
}

#[test]
fn one_thread_at_a_time_has_a_lock_and_each_gets_it() {
    const EACH: usize = if cfg!(miri) { 20 } else { 20_000 };
    let (mutex, condvar) = (Mutex::new((0, 0)), Condvar::default());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut held = mutex.lock();
                    held.0 += 1;
                    std::hint::black_box(&mut *held).1 += 1;
                    condvar.notify_all();
                }
            });
        }
        let mut held = mutex.lock();
        while held.0 < 6 * EACH {
            held = condvar.wait(held);
        }
    });
    assert_eq!(*mutex.lock(), (6 * EACH, 6 * EACH));
}

#[test]
fn a_closure_that_panics_without_the_lock_leaves_it_usable() {
    let mutex = Mutex::new(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = mutex.unlocked(mutex.lock(), || panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    *mutex.lock() = 2;
    assert_eq!(*mutex.lock(), 2);
}
