//! The memory that files and their mappings share.
//!
//! - An arena never moves and never grows, so a slice of it can be lent for as long as a map lives,
//!   while other bytes of it are written.
//! - Lent bytes are never written again. This makes the lending sound, and the arena checks it: the
//!   store promises the same, and a test that breaks the promise panics here.
//! - Bytes are lent forever. The end of a borrow can't be observed, and no log needs it.

#![expect(unsafe_code, reason = "a mapping lends some bytes while others of its file are written")]

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A fixed number of bytes, initially all zero.
pub(crate) struct Arena {
    cells: Box<[UnsafeCell<u8>]>,
    /// The ranges that must not be written any more. Locked during every copy into or out of
    /// `cells`.
    lent: Mutex<Ranges>,
}

// SAFETY: only `write`, `zero`, `read` and `lend` touch the cells. All of them take the lock first,
// so no two of them run concurrently. Slices returned by `lend` are read without the lock, but
// their bytes are never written again: `write` and `zero` check that under the lock.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(capacity: usize) -> Self {
        // Zeroed by the allocator, which leaves large arenas to the kernel until they are touched.
        let bytes = Box::into_raw(vec![0_u8; capacity].into_boxed_slice());
        // SAFETY: the pointer was just returned by `Box::into_raw`, and `UnsafeCell<u8>` has the
        // layout of `u8`, so the box owns the allocation and will free it.
        let cells = unsafe { Box::from_raw(bytes as *mut [UnsafeCell<u8>]) };
        Self { cells, lent: Mutex::default() }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.cells.len()
    }

    /// Writes as much as fits. An arena that is too small is an old one, whose maps see no further
    /// bytes.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let range = self.clip(offset..offset + bytes.len());
        let lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!lent.touch(&range), "bytes {range:?} of a file are rewritten after being lent");
        // SAFETY: `clip` keeps the range inside the cells and no longer than `bytes`. Nothing else
        // touches it meanwhile, because the lock is held and no part of the range was ever lent.
        // For the same reason `bytes` does not overlap it.
        unsafe { self.at(range.start).copy_from_nonoverlapping(bytes.as_ptr(), range.len()) };
    }

    /// Writes zeros and returns `true`, unless some of the bytes were lent.
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

    /// Fills the buffer from an offset, up to the end of the arena.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) {
        let range = self.clip(offset..offset + buffer.len());
        let _lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `clip` keeps the range inside the cells and no longer than `buffer`, which is
        // borrowed uniquely and so does not overlap it. Nothing writes meanwhile: the lock is held.
        unsafe { self.at(range.start).copy_to_nonoverlapping(buffer.as_mut_ptr(), range.len()) };
    }

    /// Lends bytes, which never change from now on. Returns `None` if the range is out of bounds.
    fn lend(&self, range: Range<usize>) -> Option<&[u8]> {
        self.cells.get(range.clone())?;
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).add(&range);
        // SAFETY: the range is inside the cells, which live as long as `self` is borrowed. It was
        // marked as lent under the lock, so all earlier writes to it have ended and no other will
        // follow.
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
    /// Maps the first `size` bytes of an arena that has at least that many.
    pub(crate) fn new(arena: Arc<Arena>, size: usize) -> Self {
        assert!(size <= arena.capacity());
        Self { arena, size }
    }

    /// Returns bytes of the mapping, or `None` if the range exceeds it.
    pub(crate) fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.end > self.size { None } else { self.arena.lend(range) }
    }
}

/// A set of numbers, stored as ranges from start to end that neither overlap nor touch.
#[derive(Default)]
struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    fn touch(&self, range: &Range<usize>) -> bool {
        // Of the ranges that start before the end, the last one also ends last.
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
