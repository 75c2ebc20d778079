//! Pointers that are loaded under a guard, with room for a tag in their lowest bits.

#![expect(unsafe_code, reason = "the target of a shared pointer is borrowed, and freed once")]

use std::fmt;
use std::marker::PhantomData;

#[cfg(all(test, loom))]
use ::loom::sync::atomic::AtomicPtr;
#[cfg(all(test, shuttle))]
use ::shuttle::sync::atomic::AtomicPtr;
#[cfg(not(all(test, any(loom, shuttle))))]
use std::sync::atomic::AtomicPtr;

use super::Guard;
use crate::sync::Ordering;

/// A pointer that threads load and replace. It owns nothing.
pub(crate) struct Atomic<T>(AtomicPtr<T>);

impl<T> Default for Atomic<T> {
    fn default() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }
}

impl<T> Atomic<T> {
    pub(super) fn null() -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn load<'g>(&self, ordering: Ordering, guard: &'g Guard<'_>) -> Loaded<'g, T> {
        let shared = Loaded::new(self.0.load(ordering));
        guard.check(shared.as_raw());
        shared
    }

    pub(crate) fn store(&self, new: Loaded<'_, T>, ordering: Ordering) {
        self.0.store(new.pointer, ordering);
    }

    pub(super) fn swap<'g>(
        &self,
        new: Loaded<'_, T>,
        ordering: Ordering,
        _: &'g Guard<'_>,
    ) -> Loaded<'g, T> {
        Loaded::new(self.0.swap(new.pointer, ordering))
    }

    /// Returns the target, if there is one.
    ///
    /// # Safety
    ///
    /// The pointer came from a `Box`, and no one else has it.
    pub(super) unsafe fn into_box(mut self) -> Option<Box<T>> {
        #[cfg(all(test, loom))]
        let pointer = self.0.with_mut(|pointer| *pointer);
        #[cfg(not(all(test, loom)))]
        let pointer = *self.0.get_mut();
        // SAFETY: guaranteed by the caller.
        (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
    }
}

impl<T> fmt::Debug for Atomic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Atomic").finish_non_exhaustive()
    }
}

/// A loaded pointer, perhaps null, whose target stays for as long as the guard.
#[derive(Debug)]
pub(crate) struct Loaded<'g, T> {
    pointer: *mut T,
    guard: PhantomData<(&'g (), *const T)>,
}

impl<T> Clone for Loaded<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Loaded<'_, T> {}

impl<T> From<*const T> for Loaded<'_, T> {
    fn from(pointer: *const T) -> Self {
        Self::new(pointer.cast_mut())
    }
}

impl<'g, T> Loaded<'g, T> {
    const TAG: usize = align_of::<T>() - 1;

    #[inline]
    fn new(pointer: *mut T) -> Self {
        Self { pointer, guard: PhantomData }
    }

    pub(super) fn null() -> Self {
        Self::new(std::ptr::null_mut())
    }

    #[inline]
    pub(crate) fn is_null(self) -> bool {
        self.as_raw().is_null()
    }

    #[inline]
    pub(crate) fn tag(self) -> usize {
        self.pointer.addr() & Self::TAG
    }

    pub(crate) fn with_tag(self, tag: usize) -> Self {
        let untagged = self.as_raw().cast_mut();
        Self::new(untagged.map_addr(|addr| addr | (tag & Self::TAG)))
    }

    /// Returns the address without the tag.
    #[inline]
    pub(crate) fn as_raw(self) -> *const T {
        self.pointer.map_addr(|addr| addr & !Self::TAG)
    }

    /// Borrows the target.
    ///
    /// # Safety
    ///
    /// The pointer is null, or its target is initialized, is not freed before the guard is dropped,
    /// and no one changes it.
    #[inline]
    pub(super) unsafe fn as_ref(self) -> Option<&'g T> {
        // SAFETY: guaranteed by the caller.
        unsafe { self.as_raw().as_ref() }
    }
}
