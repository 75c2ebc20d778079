//! The directory of a run: where its blocks lie, and the keys that lead to them. This part of a run
//! is always in memory.
//!
//! The key that leads to a block is the shortest key above all keys before the block and not above
//! the block's first key. For the first block, it is the block's first key. So a directory is
//! small, however long the keys are.

use std::ops::{Bound, Range};

use super::block::{CHECKSUM_SIZE, checksum_of, partition};
use crate::segment::SegmentId;

/// The blocks of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// The keys that lead to blocks, concatenated.
    keys: Vec<u8>,
    leads: Vec<Lead>,
    /// The last key of all.
    pub(super) last: Vec<u8>,
    pub(super) rows: u64,
}

/// The end of a block, and the end of the key that leads to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lead {
    key_end: usize,
    end: u64,
}

impl Directory {
    /// Returns the number of blocks.
    pub(super) fn len(&self) -> usize {
        self.leads.len()
    }

    fn lead(&self, at: usize) -> Lead {
        self.leads.get(at).copied().unwrap_or_default()
    }

    fn before(&self, at: usize) -> Lead {
        at.checked_sub(1).map(|before| self.lead(before)).unwrap_or_default()
    }

    /// Returns the key that leads to a block, or an empty key if there is no such block.
    pub(super) fn key(&self, at: usize) -> &[u8] {
        self.keys.get(self.before(at).key_end..self.lead(at).key_end).unwrap_or_default()
    }

    /// Returns the byte range of a block among the others.
    pub(super) fn range(&self, at: usize) -> Range<u64> {
        self.before(at).end..self.lead(at).end
    }

    /// Returns the size of all blocks in bytes.
    pub(super) fn blocks_size(&self) -> u64 {
        self.before(self.len()).end
    }

    /// Begins a block.
    pub(super) fn begin(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.leads.push(Lead { key_end: self.keys.len(), end: 0 });
    }

    /// Ends the block that was begun last.
    pub(super) fn end(&mut self, end: u64) {
        if let Some(last) = self.leads.last_mut() {
            last.end = end;
        }
    }

    /// Returns the blocks that may hold rows of a key, or rows next to the key's place.
    pub(super) fn blocks_of(&self, key: &[u8]) -> Range<usize> {
        let below = partition(0..self.len(), |at| self.key(at) < key);
        let up_to = partition(below..self.len(), |at| self.key(at) <= key);
        below.saturating_sub(1)..up_to.max(1)
    }

    /// Returns whether the run may hold a key.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        self.len() > 0 && self.key(0) <= key && key <= self.last.as_slice()
    }

    /// Returns whether the run may hold keys in a range.
    pub(super) fn overlaps(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> bool {
        let starts = match start {
            Bound::Included(start) => start <= self.last.as_slice(),
            Bound::Excluded(start) => start < self.last.as_slice(),
            Bound::Unbounded => true,
        };
        let ends = match end {
            Bound::Included(end) => end >= self.key(0),
            Bound::Excluded(end) => end > self.key(0),
            Bound::Unbounded => true,
        };
        self.len() > 0 && starts && ends
    }

    pub(super) fn encode(&self, id: SegmentId) -> Vec<u8> {
        let size = |key: &[u8]| u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut bytes = Vec::new();
        for at in 0..self.len() {
            let Range { start, end } = self.range(at);
            bytes.extend(u32::try_from(end - start).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend(size(self.key(at)));
            bytes.extend_from_slice(self.key(at));
        }
        bytes.extend(size(&self.last));
        bytes.extend_from_slice(&self.last);
        bytes.extend(checksum_of(id, self.len(), &bytes).to_be_bytes());
        bytes
    }

    /// Decodes a directory of `len` blocks. Returns `None` if it is invalid or inconsistent.
    pub(super) fn decode(bytes: &[u8], id: SegmentId, len: usize, rows: u64) -> Option<Self> {
        let (mut rest, checksum) = bytes.split_last_chunk::<CHECKSUM_SIZE>()?;
        if checksum_of(id, len, rest).to_be_bytes() != *checksum {
            return None;
        }
        let mut directory = Self { rows, ..Self::default() };
        let mut end = 0;
        for _ in 0..len {
            let (size, behind) = rest.split_first_chunk()?;
            let (key, behind) = key(behind)?;
            end += u64::from(u32::from_be_bytes(*size));
            directory.begin(key);
            directory.end(end);
            rest = behind;
        }
        let (last, rest) = key(rest)?;
        directory.last = last.to_vec();
        let is_sorted = (1..len).all(|at| directory.key(at - 1) <= directory.key(at));
        let is_above = directory.key(len.saturating_sub(1)) <= last;
        (rest.is_empty() && is_sorted && is_above).then_some(directory)
    }
}

/// Takes a key off the front. Its size precedes it.
fn key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}
