//! The memory that files and their mappings share.
//!
//! - An arena never moves and never grows, so that a slice of it can be lent for as long as a map
//!   lives, while other bytes of it are written.
//! - Bytes that were lent are never written again. This is what makes the lending sound, and it
//!   is checked, not trusted: the store promises the same, and a test that breaks it panics here.
//! - Lent is for ever. When a borrow ends cannot be seen, and no log needs it.

#![expect(unsafe_code, reason = "a mapping lends some bytes while the file under it gets others")]

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a fixed number, all zero at first.
pub(crate) struct Arena {
    cells: Box<[UnsafeCell<u8>]>,
    /// What may not be written any more. Held during every copy in or out of `cells`.
    lent: Mutex<Ranges>,
}

// SAFETY: the cells are touched in `write`, `zero`, `read` and `lend` alone. All take the lock
// first, so no two of them run at once. What `lend` gives away is read without the lock, but never
// written again: `write` and `zero` ask under the lock.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(capacity: usize) -> Self {
        // Zeroed by the allocator, which leaves large arenas to the kernel until they are touched.
        let bytes = Box::into_raw(vec![0_u8; capacity].into_boxed_slice());
        // SAFETY: the pointer comes from `Box::into_raw` just now, and `UnsafeCell<u8>` has the
        // layout of `u8`, so the box owns and will free what was allocated.
        let cells = unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) };
        Self { cells, lent: Mutex::default() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// Writes as much as there is room for: a small arena is an old one, whose maps see no more.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let range = self.clip(offset..offset + bytes.len());
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!lent.touch(&range), "bytes {range:?} of a file are rewritten after being lent");
        // SAFETY: `clip` keeps the range inside the cells and no longer than `bytes`. Nobody else
        // touches it meanwhile, because the lock is held and nothing of the range was ever lent;
        // for the same reason `bytes` is no part of it.
        unsafe { self.at(range.start).copy_from_nonoverlapping(bytes.as_ptr(), range.len()) };
    }

    /// Writes zeros, unless some of the bytes were lent; says whether it did.
    pub(crate) fn zero(&self, range: Range<usize>) -> bool {
        let range = self.clip(range);
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if lent.touch(&range) {
            return false;
        }
        // SAFETY: as in `write`.
        unsafe { self.at(range.start).write_bytes(0, range.len()) };
        true
    }

    /// Fills the buffer from an offset, as far as the arena goes.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let range = self.clip(offset..offset + buffer.len());
        let _lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `clip` keeps the range inside the cells and no longer than `buffer`, which is
        // borrowed uniquely and so no part of it. Nobody writes meanwhile: the lock is held.
        unsafe { self.at(range.start).copy_to_nonoverlapping(buffer.as_mut_ptr(), range.len()) };
    }

    /// Lends bytes, which stay what they are from now on. None if the range is not inside.
    fn lend(&self, range: Range<usize>) -> Option<&[u8]> {
        self.cells.get(range.clone())?;
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).add(&range);
        // SAFETY: the range is inside the cells, which live as long as `self` is borrowed. It is
        // marked as lent, and was so under the lock, so all writes to it are over and no other
        // will come.
        Some(unsafe { std::slice::from_raw_parts(self.at(range.start), range.len()) })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        UnsafeCell::raw_get(self.cells.as_ptr().wrapping_add(offset))
    }

    fn clip(&self, range: Range<usize>) -> Range<usize> {
        let start = range.start.min(self.capacity());
        start..range.end.clamp(start, self.capacity())
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// A mapping of a file for reading. It keeps its bytes, whatever happens to the file.
#[derive(Debug, Clone)]
pub(crate) struct TwinMap {
    arena: Arc<Arena>,
    size: usize,
}

impl TwinMap {
    /// Maps the first `size` bytes of an arena that has as many.
    pub(crate) fn new(arena: Arc<Arena>, size: usize) -> Self {
        assert!(size <= arena.capacity());
        Self { arena, size }
    }

    /// Returns bytes of the mapping; none if the range reaches out of it.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.end > self.size { None } else { self.arena.lend(range) }
    }
}

/// A set of numbers, kept as ranges that neither overlap nor touch: start to end.
#[derive(Default)]
struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    fn touch(&self, range: &Range<usize>) -> bool {
        // Of the ranges that start before the end, the last also ends last.
        let last = self.0.range(..range.end).next_back();
        !range.is_empty() && last.is_some_and(|(_, end)| *end > range.start)
    }

    fn add(&mut self, range: &Range<usize>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&other_start, &other_end)) = self.0.range(..=end).next_back()
            && other_end >= start
        {
            self.0.remove(&other_start);
            (start, end) = (start.min(other_start), end.max(other_end));
        }
        self.0.insert(start, end);
    }
}
