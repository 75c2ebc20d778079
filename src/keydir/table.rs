//! One shard's table: buckets of four slots, found by the fingerprint, probed in order.
//!
//! - A slot is 16 bytes and holds no key: a fingerprint, and the address of the newest entry.
//! - Several slots may have the same hash bits; they are different keys. The caller compares.
//! - A probe ends at the first empty slot. Removed slots are not empty, and count in the load, so
//!   there always is one.
//! - Anybody reads without a lock; one writer at a time, the one that has locked the shard,
//!   changes slots in place, or makes a larger or smaller table, which then is published in this one's
//!   stead.
//!
//! # Why a reader that takes no lock is right
//!
//! A look-up takes effect (linearizes) at some moment between its start and its end, and returns
//! what held at that moment. For that:
//!
//! 1. An entry's bytes, and its segment's number in the set of segments, are stored before the
//!    Release store that publishes the slot, and are never rewritten while a guard is held from
//!    which the slot could be seen. A reader loads both words of a slot with Acquire, so it sees
//!    them whole.
//! 2. A slot only goes from empty or removed to live, from live to live with another address of
//!    the same key, and from live to removed. An insert stores the word, then the fingerprint,
//!    *both* with Release; so who sees the fingerprint sees this word or a later one, and who sees
//!    a later word sees the entry that it names.
//! 3. A reader that has matched a fingerprint may read the word of another key, if the slot was
//!    removed and used again in between. It compares the key in the log, finds another, and goes
//!    on. If it misses its own key then, the key was deleted after the look-up had started: the
//!    miss takes effect just after that delete.
//! 4. A live slot never moves within a table: a key that is there throughout is found. An insert
//!    uses the first free slot of the chain, at or before the empty slot that ends it for others.
//! 5. Another table, larger or smaller, is filled by the one writer before it is published, and the old one is not
//!    changed afterwards: who still reads it sees the moment of the change. It is freed when all
//!    guards of that time are gone ([`crate::epoch`]).
//!
//! `loom_tests.rs` checks this on a tiny table under every order that its model checker knows, but
//! for what [`crate::epoch`] does: in 1 that nothing is rewritten, in 5 when a table is freed. Those
//! are checked on whole stores, in `store/loom_tests.rs`.

use super::{Address, Found};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::sync::{AtomicU64, Ordering};

const BUCKET_LEN: usize = 4;
/// The most slots in use, removed ones among them, in eighths of all.
const LOAD_MAX_EIGHTHS: usize = 7;

/// Word 0 of a slot that was never used: every probe ends here.
const EMPTY: u64 = 0;
/// Word 0 of a slot that can be used again.
const REMOVED: u64 = 1;

/// A slot's two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Above [`REMOVED`].
    fingerprint: u64,
    /// Offset / 8 in 26 bits, segment number in 18, extra hash bits in 12, flags in 8.
    word: u64,
}

impl Slot {
    const OFFSET_SHIFT: u32 = 38;
    const SEGMENT_SHIFT: u32 = 20;
    const SEGMENT_MASK: u64 = (1 << 18) - 1;
    const EXTRA_SHIFT: u32 = 8;
    const EXTRA_MASK: u64 = (1 << 12) - 1;
    const FLAGS_MASK: u64 = (1 << 8) - 1;

    fn new(hash: KeyHash, address: Address, flags: SlotFlags) -> Self {
        let word = (address.offset / 8) << Self::OFFSET_SHIFT
            | (u64::from(address.segment) & Self::SEGMENT_MASK) << Self::SEGMENT_SHIFT
            | (u64::from(hash.extra) & Self::EXTRA_MASK) << Self::EXTRA_SHIFT
            | u64::from(flags.0);
        Self { fingerprint: hash.fingerprint, word }
    }

    fn has(self, hash: KeyHash) -> bool {
        self.fingerprint == hash.fingerprint && self.hash().extra == hash.extra
    }

    fn address(self) -> Address {
        Address {
            segment: (self.word >> Self::SEGMENT_SHIFT & Self::SEGMENT_MASK) as u32,
            offset: (self.word >> Self::OFFSET_SHIFT) * 8,
        }
    }

    fn flags(self) -> SlotFlags {
        SlotFlags((self.word & Self::FLAGS_MASK) as u8)
    }

    fn hash(self) -> KeyHash {
        let extra = (self.word >> Self::EXTRA_SHIFT & Self::EXTRA_MASK) as u16;
        KeyHash { fingerprint: self.fingerprint, extra }
    }
}

/// What a slot has to know while its shard is filled.
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

/// A slot where it lies, shared with those who read it.
#[derive(Debug, Default)]
struct Cell {
    fingerprint: AtomicU64,
    word: AtomicU64,
}

impl Cell {
    fn load_word(&self, fingerprint: u64) -> Slot {
        Slot { fingerprint, word: self.word.load(Ordering::Acquire) }
    }

    /// The word first: who sees the fingerprint has to see it, or a later one.
    fn store(&self, slot: Slot) {
        self.word.store(slot.word, Ordering::Release);
        self.fingerprint.store(slot.fingerprint, Ordering::Release);
    }

    fn remove(&self) {
        self.fingerprint.store(REMOVED, Ordering::Release);
    }
}

/// A cache line of slots.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Cell; BUCKET_LEN]);

/// What tables are counted in: two buckets, for their alignment's sake.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Pair([Bucket; 2]);

/// A shard's slots, borrowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    pairs: &'a [Pair],
}

impl<'a> From<&'a [Pair]> for Table<'a> {
    fn from(pairs: &'a [Pair]) -> Self {
        Self { pairs }
    }
}

impl<'a> Table<'a> {
    /// Returns the fewest pairs of buckets that this many slots may be in.
    pub(super) fn pairs_for(slots: usize) -> usize {
        (slots * 8).div_ceil(LOAD_MAX_EIGHTHS * BUCKET_LEN * 2)
    }

    /// Shows all slots with these hash bits to a closure, until it has made something of one.
    pub(super) fn find<T>(
        self,
        hash: KeyHash,
        mut make: impl FnMut(Address, SlotFlags) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let found = self.walk(hash, |cell, fingerprint| {
            if fingerprint != hash.fingerprint {
                return None;
            }
            let slot = cell.load_word(fingerprint);
            if slot.has(hash) { make(slot.address(), slot.flags()).transpose() } else { None }
        });
        found.transpose()
    }

    /// Finds a key's slot, and whether other keys share its hash bits: probes to the end of the
    /// chain, past the key's own slot. `own` reads the entry and answers if it is the key's.
    pub(super) fn find_all<T>(
        self,
        hash: KeyHash,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        let mut found = Found { own: None, others: false };
        self.find(hash, |address, _| {
            // A key has one slot, so once it is found every other slot is another key's.
            match if found.own.is_none() { own(address)? } else { None } {
                Some(made) => found.own = Some((address, made)),
                None => found.others = true,
            }
            Ok(None::<()>)
        })?;
        Ok(found)
    }

    /// Adds a slot; there may be others with the same hash bits. The caller has seen to room.
    /// Says whether a removed slot was used again.
    pub(super) fn insert(self, hash: KeyHash, address: Address, flags: SlotFlags) -> bool {
        self.insert_slot(Slot::new(hash, address, flags))
    }

    /// Adds a slot unless a closure, which is shown all slots with these hash bits, says no. Says
    /// whether it was added. For tables from which nothing was removed.
    pub(super) fn insert_unless(
        self,
        hash: KeyHash,
        address: Address,
        flags: SlotFlags,
        mut refuses: impl FnMut(Address, SlotFlags) -> Result<bool>,
    ) -> Result<bool> {
        let (new, mut added) = (Slot::new(hash, address, flags), false);
        let no = self.walk(hash, |cell, fingerprint| {
            if fingerprint == EMPTY {
                cell.store(new);
                added = true;
            } else if fingerprint == hash.fingerprint {
                let slot = cell.load_word(fingerprint);
                if slot.has(hash) {
                    let no = refuses(slot.address(), slot.flags());
                    return no.map(|no| no.then_some(())).transpose();
                }
            }
            None
        });
        if no.transpose()?.is_none() && !added {
            unreachable!("the load is below one, so every chain has a free slot")
        }
        Ok(added)
    }

    /// Makes a slot name another entry of its key. Says whether there was such a slot.
    pub(super) fn replace(self, hash: KeyHash, old: Address, new: Address) -> bool {
        let new = Slot::new(hash, new, SlotFlags::default());
        self.cell(hash, old).map(|cell| cell.store(new)).is_some()
    }

    /// Removes a slot. Says whether there was such a slot.
    pub(super) fn remove(self, hash: KeyHash, address: Address) -> bool {
        self.cell(hash, address).map(Cell::remove).is_some()
    }

    /// Removes all slots with a flag; returns how many those were.
    pub(super) fn sweep(self, flag: SlotFlags) -> u32 {
        let flagged = self.slots().filter(|(_, slot)| slot.flags().has(flag));
        flagged.map(|(cell, _)| cell.remove()).map(|()| 1).sum()
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = Address> + 'a {
        self.slots().map(|(_, slot)| slot.address())
    }

    /// Copies all slots into an empty table. Buckets rise with the fingerprint, whatever their
    /// number, so this is one sweep over both.
    pub(super) fn copy_to(self, other: Table<'_>) {
        for (_, slot) in self.slots() {
            other.insert_slot(slot);
        }
    }

    /// Asks for the memory that a look-up will read first.
    pub(super) fn prefetch(self, hash: KeyHash) {
        if let Some(bucket) = self.bucket(hash.bucket(self.buckets_len())) {
            crate::prefetch::prefetch(bucket);
        }
    }

    pub(super) fn pairs_len(self) -> usize {
        self.pairs.len()
    }

    fn buckets_len(self) -> usize {
        self.pairs.len() * 2
    }

    fn bucket(self, at: usize) -> Option<&'a Bucket> {
        self.pairs.get(at / 2)?.0.get(at % 2)
    }

    fn insert_slot(self, slot: Slot) -> bool {
        let free = self.walk(slot.hash(), |cell, fingerprint| {
            (fingerprint <= REMOVED).then_some((cell, fingerprint == REMOVED))
        });
        let Some((cell, reused)) = free else {
            unreachable!("the load is below one, so every chain has a free slot")
        };
        cell.store(slot);
        reused
    }

    fn cell(self, hash: KeyHash, address: Address) -> Option<&'a Cell> {
        self.walk(hash, |cell, fingerprint| {
            let is_it = fingerprint == hash.fingerprint && {
                let slot = cell.load_word(fingerprint);
                slot.has(hash) && slot.address() == address
            };
            is_it.then_some(cell)
        })
    }

    fn slots(self) -> impl Iterator<Item = (&'a Cell, Slot)> {
        let buckets = self.pairs.iter().flat_map(|pair| &pair.0);
        buckets.flat_map(|bucket| &bucket.0).filter_map(|cell| {
            let fingerprint = cell.fingerprint.load(Ordering::Acquire);
            (fingerprint > REMOVED).then(|| (cell, cell.load_word(fingerprint)))
        })
    }

    /// Visits the slots that a key with this hash may lie in, the first empty one last, until
    /// `visit` has found what it looks for.
    fn walk<T>(
        self,
        hash: KeyHash,
        mut visit: impl FnMut(&'a Cell, u64) -> Option<T>,
    ) -> Option<T> {
        let len = self.buckets_len();
        let start = hash.bucket(len);
        for at in (start..len).chain(0..start) {
            for cell in &self.bucket(at)?.0 {
                let fingerprint = cell.fingerprint.load(Ordering::Acquire);
                if let Some(found) = visit(cell, fingerprint) {
                    return Some(found);
                }
                if fingerprint == EMPTY {
                    return None;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(len: usize) -> Vec<Pair> {
        (0..len).map(|_| Pair::default()).collect()
    }

    fn addresses(table: Table<'_>, hash: KeyHash) -> Vec<(Address, SlotFlags)> {
        let mut found = Vec::new();
        let gather = |address, flags| {
            found.push((address, flags));
            Ok(None::<()>)
        };
        table.find(hash, gather).unwrap();
        found
    }

    #[test]
    fn equal_hash_bits_live_side_by_side() {
        let pairs = pairs(Table::pairs_for(20));
        let table = Table::from(&*pairs);
        let hash = KeyHash { fingerprint: 7 << 60, extra: 7 };
        let address = |at: u64| Address { segment: 0, offset: at * 8 };
        for at in 0..20 {
            assert!(!table.insert(hash, address(at), SlotFlags::default()));
        }
        assert_eq!(addresses(table, hash).len(), 20);
        assert!(table.remove(hash, address(3)));
        assert!(!table.remove(hash, address(3)));
        assert_eq!(addresses(table, hash).len(), 19);
        assert!(addresses(table, hash).iter().all(|(found, _)| *found != address(3)));
        // The removed slot is used again, before the chain gets longer.
        assert!(table.insert(hash, address(30), SlotFlags::default()));
        assert_eq!(addresses(table, hash)[3].0, address(30));
    }

    #[test]
    fn the_extremes_of_a_slot_fit() {
        let (pairs, others) = (pairs(1), pairs(3));
        let (table, rebuilt) = (Table::from(&*pairs), Table::from(&*others));
        let hash = KeyHash { fingerprint: u64::MAX, extra: 0xfff };
        let address = Address { segment: (1 << 18) - 1, offset: (512 << 20) - 8 };
        table.insert(hash, address, SlotFlags::TOMBSTONE);
        assert_eq!(addresses(table, hash), [(address, SlotFlags::TOMBSTONE)]);
        table.copy_to(rebuilt);
        assert_eq!(addresses(rebuilt, hash), [(address, SlotFlags::TOMBSTONE)]);
        assert_eq!(table.sweep(SlotFlags::TOMBSTONE), 1);
        assert_eq!(addresses(table, hash), []);
    }
}
