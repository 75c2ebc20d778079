//! A value that is published, replaced, and read under a guard.

#![expect(unsafe_code, reason = "the target of a pointer is borrowed, and freed once")]

use std::fmt;
#[cfg(debug_assertions)]
use std::sync::Arc;

use super::{Atomic, Guard, Loaded};
use crate::sync::Ordering;

/// The store whose guards read a value: the one that published it. A guard of another store would
/// not keep the value alive. Builds with debug assertions check this; other builds contain none of
/// it.
#[derive(Debug, Default)]
pub(crate) struct GuardOwner(#[cfg(debug_assertions)] std::sync::OnceLock<usize>);

impl GuardOwner {
    #[inline]
    pub(crate) fn check(&self, guard: &Guard<'_>) {
        #[cfg(debug_assertions)]
        {
            let core = Arc::as_ptr(guard.core).addr();
            assert_eq!(*self.0.get_or_init(|| core), core, "a guard of another store");
        }
        let _ = (self, guard);
    }
}

/// An optional value that can be read while it is being replaced.
pub(crate) struct Published<T> {
    pointer: Atomic<T>,
    reader: GuardOwner,
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self { pointer: Atomic::null(), reader: GuardOwner::default() }
    }
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Borrows the value that is published now.
    #[inline]
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard<'_>) -> Option<&'a T> {
        self.reader.check(guard);
        let shared = self.pointer.load(Ordering::Acquire, guard);
        // SAFETY: a pointer that is not null came from a `Box` in `replace`, which published it
        // with a swap that this Acquire load synchronizes with, so the value is initialized and
        // seen whole. It is freed in two places. The closure that `replace` retires frees it after
        // all guards that existed when it was unlinked are dropped, this one among them. `drop`
        // frees it too, but needs the `self` that the result borrows. There is no `&mut` to it
        // before that.
        unsafe { shared.as_ref() }
    }

    /// Publishes another value, or none. The previous value is freed when no reader is left.
    pub(crate) fn replace(&self, new: Option<T>, guard: &Guard<'_>) {
        self.reader.check(guard);
        let new = new.map_or_else(Loaded::null, |new| {
            let pointer = Box::into_raw(Box::new(new)).cast_const();
            guard.core.machine.note_made(pointer);
            Loaded::from(pointer)
        });
        let old = self.pointer.swap(new, Ordering::AcqRel, guard);
        if !old.is_null() {
            let old = std::sync::atomic::AtomicPtr::new(old.as_raw().cast_mut());
            guard.push(Box::new(move |collector| {
                let old = old.into_inner();
                collector.note_freed(old.cast_const());
                // SAFETY: the swap has unlinked the value and returned it to this thread alone, so
                // it is retired once, and it came from a `Box`. Any thread that still borrowed it
                // held a guard from before the swap, and those guards are dropped. It may be freed
                // on another thread: `T` is `Send`.
                drop(unsafe { Box::from_raw(old) });
            }));
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.pointer);
        // SAFETY: `&mut self` means that nothing borrows from this any more and that no other
        // thread can take the pointer. It came from a `Box`.
        drop(unsafe { last.into_box() });
    }
}

impl<T> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}
