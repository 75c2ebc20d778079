//! Things that are read without a lock: published, replaced, and retired when nobody reads them.
//!
//! - A reader holds a [`Guard`] and borrows what is published from it; what is replaced meanwhile
//!   stays as it is until all guards of that time are gone (epoch-based reclamation: Fraser,
//!   "Practical lock-freedom", 2004).
//! - Pinning costs some nanoseconds and never waits. A guard that is held for long keeps memory
//!   from being freed, and nothing else.

#![expect(unsafe_code, reason = "what a shared pointer names has to be borrowed, and freed once")]

use std::fmt;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Owned, Shared};

pub(crate) use crossbeam_epoch::{Guard, pin};

/// Something that can be read while it is being replaced, or nothing.
pub(crate) struct Published<T>(Atomic<T>);

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self(Atomic::null())
    }
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Borrows what is published now.
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard) -> Option<&'a T> {
        let shared = self.0.load(Ordering::Acquire, guard);
        // SAFETY: a pointer that is not null came from `Owned` in `replace`, which published it
        // with a swap that this Acquire load synchronizes with, so the value is initialized and
        // seen whole. It is freed in two places: by `replace`, after all guards are gone that were
        // there when it was unlinked, this one among them; and by `drop`, which needs the `self`
        // that the result borrows. Nobody has a `&mut` to it before that.
        unsafe { shared.as_ref() }
    }

    /// Publishes something else, or nothing; what was there is freed when nobody reads it.
    pub(crate) fn replace(&self, new: Option<T>, guard: &Guard) {
        let new = new.map_or_else(Shared::null, |new| Owned::new(new).into_shared(guard));
        let old = self.0.swap(new, Ordering::AcqRel, guard);
        if !old.is_null() {
            // SAFETY: the swap has unlinked `old`, and handed it to this thread alone, so it is
            // retired once. Who still borrows it holds a guard from before the swap, which
            // `defer_destroy` waits for. It may be freed on another thread: `T` is `Send`.
            unsafe { guard.defer_destroy(old) }
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let last = std::mem::take(&mut self.0);
        // SAFETY: `&mut self`: nobody borrows from this any more, and nobody else can take the
        // pointer. It came from `Owned`.
        drop(unsafe { last.try_into_owned() });
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.get(&pin())).finish()
    }
}

/// Items in a number that a [`Length`] can tell.
#[derive(Debug)]
pub(crate) struct Slice<T> {
    items: Box<[T]>,
    length: Length,
}

/// A length that seven bits tell: 4, 5, 6 or 7 quarters of a power of two, rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length {
    tag: usize,
}

impl Length {
    const TAGS: usize = 1 << 7;

    /// Returns the shortest length of a row that is at least `wanted`.
    ///
    /// There are two rows, of every other length: each next one is longer by a third or a half.
    pub(crate) fn at_least(wanted: usize, row: usize) -> Self {
        let row = (row % 2..Self::TAGS).step_by(2).map(|tag| Self { tag });
        let long_enough = row.skip_while(|length| length.get() < wanted);
        // The last one takes more memory than there can be.
        long_enough.take(1).last().unwrap_or(Self { tag: Self::TAGS - 1 })
    }

    const fn get(self) -> usize {
        (4 + self.tag % 4) << (self.tag / 4) >> 2
    }
}

impl<T: Default> Slice<T> {
    pub(crate) fn new(length: Length) -> Self {
        Self { items: (0..length.get()).map(|_| T::default()).collect(), length }
    }
}

impl<T> Slice<T> {
    pub(crate) fn length(&self) -> Length {
        self.length
    }
}

impl<T> Deref for Slice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

/// A slice that can be read while it is being replaced, or nothing.
///
/// Its length is told by the low bits of the pointer, so that an item is found with one load less,
/// and from a place that is likely in the cache. `T` is aligned to that many bits.
pub(crate) struct PublishedSlice<T>(Atomic<T>);

impl<T> Default for PublishedSlice<T> {
    fn default() -> Self {
        Self(Atomic::null())
    }
}

impl<T: Send + Sync + 'static> PublishedSlice<T> {
    const ALIGNED: () = assert!(align_of::<T>() >= Length::TAGS);

    /// Borrows what is published now.
    pub(crate) fn get<'a>(&'a self, guard: &'a Guard) -> Option<&'a [T]> {
        let shared = self.0.load(Ordering::Acquire, guard);
        if shared.is_null() {
            return None;
        }
        let length = Length { tag: shared.tag() };
        // SAFETY: a pointer that is not null came from a box in `replace`, and its tag from the
        // length of that box. It was published with a swap that this Acquire load synchronizes
        // with, so all items are seen initialized. They are freed in two places: by `replace`,
        // after all guards are gone that were there when they were unlinked, this one among them;
        // and by `drop`, which needs the `self` that the result borrows. Nobody has a `&mut` to
        // them before that.
        Some(unsafe { std::slice::from_raw_parts(shared.as_raw(), length.get()) })
    }

    /// Publishes another slice; what was there is freed when nobody reads it.
    pub(crate) fn replace(&self, new: Slice<T>, guard: &Guard) {
        let () = Self::ALIGNED;
        let first = Box::into_raw(new.items).cast::<T>();
        let new = Shared::from(first.cast_const()).with_tag(new.length.tag);
        let old = self.0.swap(new, Ordering::AcqRel, guard);
        if !old.is_null() {
            let (first, length) = (old.as_raw().cast_mut(), Length { tag: old.tag() });
            // SAFETY: the swap has unlinked the old items, and handed them to this thread alone,
            // so they are retired once, as what they came from. Who still borrows them holds a
            // guard from before the swap, which the deferred call waits for. It may be made on
            // another thread: `T` is `Send`, and the closure owns what it uses.
            unsafe { guard.defer_unchecked(move || free(first, length)) }
        }
    }
}

impl<T> Drop for PublishedSlice<T> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: nobody borrows from this any more, and nobody else can take the
        // pointer, which needs no guard therefore; if it is not null it came from a box of the
        // length that its tag tells.
        unsafe {
            let last = self.0.load(Ordering::Relaxed, crossbeam_epoch::unprotected());
            if !last.is_null() {
                free(last.as_raw().cast_mut(), Length { tag: last.tag() });
            }
        }
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for PublishedSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublishedSlice").field(&self.get(&pin())).finish()
    }
}

/// Frees the items of a slice.
///
/// # Safety
///
/// They came from a box of this length, and nobody uses them any more.
unsafe fn free<T>(first: *mut T, length: Length) {
    let items = ptr::slice_from_raw_parts_mut(first, length.get());
    // SAFETY: what the caller promises.
    drop(unsafe { Box::from_raw(items) });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    /// Counts how often it is freed, and knows when it was.
    struct Counted(Arc<AtomicUsize>, u64);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1 = 0;
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_a_guard_has_seen_stays_until_it_is_gone() {
        let freed = Arc::new(AtomicUsize::new(0));
        let published = Published::default();
        let guard = pin();
        assert!(published.get(&guard).is_none());
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &guard);
        let first = published.get(&guard).unwrap();
        published.replace(Some(Counted(Arc::clone(&freed), 2)), &guard);
        guard.flush();
        assert_eq!((first.1, published.get(&guard).unwrap().1), (1, 2));
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        drop(guard);
        drop(published);
        // The second one at once, the first one when the epoch has moved on.
        assert!(freed.load(Ordering::Relaxed) >= 1);
    }

    #[test]
    fn readers_see_whole_values_while_they_are_replaced_and_each_is_freed_once() {
        const VALUES: u64 = if cfg!(miri) { 50 } else { 5_000 };
        let freed = Arc::new(AtomicUsize::new(0));
        let published = Published::default();
        published.replace(Some(Counted(Arc::clone(&freed), 1)), &pin());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 1;
                    while last < VALUES {
                        let seen = published.get(&pin()).unwrap().1;
                        assert!(seen >= last, "{seen} after {last}");
                        last = seen;
                        thread::yield_now();
                    }
                });
            }
            for value in 2..=VALUES {
                published.replace(Some(Counted(Arc::clone(&freed), value)), &pin());
            }
        });
        drop(published);
        assert!(freed.load(Ordering::Relaxed) as u64 <= VALUES);
    }

    #[test]
    fn lengths_rise_by_a_third_or_a_half_and_the_rows_alternate() {
        for row in 0..2 {
            let mut length = Length::at_least(0, row);
            assert_eq!(length.get(), 1);
            while length.get() < 1 << 24 {
                let longer = Length::at_least(length.get() + 1, row);
                assert!(longer.get() > length.get());
                assert!(longer.get() <= (length.get() * 3).div_ceil(2), "{length:?}");
                length = longer;
            }
        }
        assert_eq!(Length::at_least(4, 0).get(), 4);
        assert_eq!(Length::at_least(4, 1).get(), 5);
        assert_eq!(Length::at_least(9, 1).get(), 10);
        assert!(Length::at_least(usize::MAX, 0).get() > 1 << 31);
    }

    /// Aligned as the tag needs it.
    #[derive(Default)]
    #[repr(align(128))]
    struct Aligned(Option<Counted>);

    #[test]
    fn slices_are_seen_whole_while_they_are_replaced_and_freed_once() {
        const ROUNDS: usize = if cfg!(miri) { 12 } else { 60 };
        let freed = Arc::new(AtomicUsize::new(0));
        let published = PublishedSlice::default();
        assert!(published.get(&pin()).is_none());
        let publish = |wanted: usize| {
            let mut slice: Slice<Aligned> = Slice::new(Length::at_least(wanted, wanted));
            for item in &mut slice.items {
                item.0 = Some(Counted(Arc::clone(&freed), wanted as u64));
            }
            let len = slice.len();
            published.replace(slice, &pin());
            len
        };
        let mut made = publish(1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 1;
                    while last < ROUNDS as u64 {
                        let guard = pin();
                        let seen = published.get(&guard).unwrap();
                        last = seen[0].0.as_ref().unwrap().1;
                        assert!(seen.iter().all(|item| item.0.as_ref().unwrap().1 == last));
                        thread::yield_now();
                    }
                });
            }
            made += (2..=ROUNDS).map(publish).sum::<usize>();
        });
        drop(published);
        assert!(freed.load(Ordering::Relaxed) <= made);
    }
}
