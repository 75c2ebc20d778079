//! A slot of a table, and the bucket in which it lies with its bucket's filter.
//!
//! `table` says why readers without a lock see slots as they should.

use super::Address;
use crate::key_hash::KeyHash;
use crate::sync::{AtomicU64, Ordering};

pub(super) const BUCKET_LEN: usize = 4;
/// Number of bits of a bucket's filter in each of its slots' words, above the flags.
const FILTER_BITS: u64 = 6;
const FILTER_SHIFT: u32 = 2;
/// Word 0 of a slot that was never used. Nothing overflows from its bucket.
pub(super) const EMPTY: u64 = 0;
/// Word 0 of a slot that can be reused.
pub(super) const REMOVED: u64 = 1;

/// A slot's two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Above [`REMOVED`].
    fingerprint: u64,
    /// Offset / 8 in 26 bits, segment number in 18, extra hash bits in 12, a quarter of the
    /// bucket's filter in 6, flags in 2.
    word: u64,
}

impl Slot {
    const OFFSET_SHIFT: u32 = 38;
    const SEGMENT_SHIFT: u32 = 20;
    const SEGMENT_MASK: u64 = (1 << 18) - 1;
    const EXTRA_SHIFT: u32 = 8;
    const EXTRA_MASK: u64 = (1 << 12) - 1;
    /// The part of a word that belongs to the bucket and not to the slot.
    const FILTER_MASK: u64 = ((1 << FILTER_BITS) - 1) << FILTER_SHIFT;
    const FLAGS_MASK: u64 = (1 << FILTER_SHIFT) - 1;

    pub(super) fn new(hash: KeyHash, address: Address, flags: SlotFlags) -> Self {
        let word = (address.offset / 8) << Self::OFFSET_SHIFT
            | (u64::from(address.segment) & Self::SEGMENT_MASK) << Self::SEGMENT_SHIFT
            | (u64::from(hash.extra) & Self::EXTRA_MASK) << Self::EXTRA_SHIFT
            | u64::from(flags.0);
        Self { fingerprint: hash.fingerprint, word }
    }

    #[inline]
    pub(super) fn has(self, hash: KeyHash) -> bool {
        self.fingerprint == hash.fingerprint && self.hash().extra == hash.extra
    }

    #[inline]
    pub(super) fn address(self) -> Address {
        Address {
            segment: (self.word >> Self::SEGMENT_SHIFT & Self::SEGMENT_MASK) as u32,
            offset: (self.word >> Self::OFFSET_SHIFT) * 8,
        }
    }

    pub(super) fn flags(self) -> SlotFlags {
        SlotFlags((self.word & Self::FLAGS_MASK) as u8)
    }

    #[inline]
    pub(super) fn hash(self) -> KeyHash {
        let extra = (self.word >> Self::EXTRA_SHIFT & Self::EXTRA_MASK) as u16;
        KeyHash { fingerprint: self.fingerprint, extra }
    }
}

/// Facts about a slot that matter only while its shard is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SlotFlags(u8);

impl SlotFlags {
    /// A delete that holds its place until the shard is filled.
    pub(super) const TOMBSTONE: Self = Self(1);
    /// The entry was flagged *collides*.
    pub(super) const COLLIDES: Self = Self(2);

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn with_if(self, condition: bool, flag: Self) -> Self {
        if condition { Self(self.0 | flag.0) } else { self }
    }
}

/// A slot in the table, shared with readers.
#[derive(Debug, Default)]
pub(super) struct Cell {
    pub(super) fingerprint: AtomicU64,
    word: AtomicU64,
}

impl Cell {
    #[cfg(not(all(test, any(loom, shuttle))))]
    const fn empty() -> Self {
        Self { fingerprint: AtomicU64::new(EMPTY), word: AtomicU64::new(0) }
    }

    #[inline]
    pub(super) fn load_word(&self, fingerprint: u64) -> Slot {
        Slot { fingerprint, word: self.word.load(Ordering::Acquire) }
    }

    /// Stores the word first: a reader that sees the fingerprint must see this word, or a later
    /// one. Keeps the cell's part of the filter.
    pub(super) fn store(&self, slot: Slot) {
        // There is one writer at a time, so nothing changes the filter in between.
        let filter = self.word.load(Ordering::Relaxed) & Slot::FILTER_MASK;
        let word = slot.word & !Slot::FILTER_MASK | filter;
        self.word.store(word, Ordering::Release);
        self.fingerprint.store(slot.fingerprint, Ordering::Release);
    }

    pub(super) fn remove(&self) {
        self.fingerprint.store(REMOVED, Ordering::Release);
    }
}

/// A cache line of slots.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket(pub(super) [Cell; BUCKET_LEN]);

impl Bucket {
    /// Returns which cells have a hash's fingerprint, a bit for each.
    #[inline]
    pub(super) fn matches(&self, hash: KeyHash) -> u32 {
        let is_match = |cell: &Cell| cell.fingerprint.load(Ordering::Acquire) == hash.fingerprint;
        let cells = self.0.iter().rev();
        cells.fold(0, |matches, cell| matches << 1 | u32::from(is_match(cell)))
    }

    /// Returns the cell with the part of the filter that has a hash's bit, and the bit.
    #[inline]
    fn filter(&self, hash: KeyHash) -> (&Cell, u64) {
        // The lowest bits of the fingerprint do not decide on the bucket.
        let [first, second, third, fourth] = &self.0;
        let cell = match hash.fingerprint % 4 {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        };
        let bit = ((hash.fingerprint >> 2 & 0xffff) * FILTER_BITS) >> 16;
        (cell, 1 << FILTER_SHIFT << bit)
    }

    /// Returns whether a slot with this hash may lie in a later bucket.
    #[inline]
    pub(super) fn is_passed_by(&self, hash: KeyHash) -> bool {
        let (cell, bit) = self.filter(hash);
        cell.word.load(Ordering::Acquire) & bit != 0
    }

    /// Records that a slot with this hash is about to be stored in a later bucket.
    pub(super) fn pass(&self, hash: KeyHash) {
        let (cell, bit) = self.filter(hash);
        // There is one writer at a time.
        cell.word.store(cell.word.load(Ordering::Relaxed) | bit, Ordering::Release);
    }
}

/// The unit of tables: two buckets, for the sake of alignment.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Pair(pub(super) [Bucket; 2]);

/// The table of every shard that has no slot, so that a small store does not need 4,096 of them.
/// Only read: an insert replaces it first. The checkers' atomics cannot lie in a static.
#[cfg(not(all(test, any(loom, shuttle))))]
pub(super) static NO_SLOTS: [Pair; 1] =
    [Pair([const { Bucket([const { Cell::empty() }; BUCKET_LEN]) }; 2])];
