//! One shard's table: buckets of four slots, found by the fingerprint, probed in order.
//!
//! - A slot is 16 bytes and holds no key: a fingerprint, and the address of the newest entry.
//! - Several slots may have the same hash bits; they belong to different keys. The caller compares.
//! - A probe ends at the first empty slot. Removed slots are not empty and count towards the load,
//!   so there always is an empty slot.
//! - Any thread reads without a lock. One writer at a time, the one that has locked the shard,
//!   changes slots in place, or fills a larger or smaller table that is then published instead of
//!   this one.
//!
//! # Why a reader without a lock is correct
//!
//! A lookup takes effect (linearizes) at some moment between its start and its end, and returns
//! what was true at that moment. This rests on five properties:
//!
//! 1. An entry's bytes, and its segment's number in the set of segments, are stored before the
//!    Release store that publishes the slot. They are never rewritten while a guard is held through
//!    which the slot could be seen. A reader loads both words of a slot with Acquire, so it sees
//!    the bytes whole.
//! 2. A slot only changes from empty or removed to live, from live to live with another address of
//!    the same key, and from live to removed. An insert stores the word, then the fingerprint,
//!    *both* with Release. A reader that sees the fingerprint therefore sees this word or a later
//!    one, and a reader that sees a later word sees the entry that it names.
//! 3. A reader that has matched a fingerprint may read the word of another key, if the slot was
//!    removed and reused in between. It compares the key in the log, finds a different one, and
//!    continues. If it then misses its own key, the key was deleted after the lookup had started:
//!    the miss takes effect just after that delete.
//! 4. A live slot never moves within a table, so a key that is present throughout is found. An
//!    insert uses the first free slot of the chain, at or before the empty slot that ends the chain
//!    for others.
//! 5. The writer fills a larger or smaller table before it publishes it, and does not change the
//!    old table afterwards. A reader that still uses the old table sees the moment of the change.
//!    The old table is freed when all guards of that time are dropped ([`crate::epoch`]).
//!
//! `loom_tests.rs` checks this on a tiny table under every order that its model checker knows,
//! except for the part of [`crate::epoch`]: in 1 that nothing is rewritten, in 5 when a table is
//! freed. `store/loom_tests.rs` checks those on whole stores.

use super::{Address, Found};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::sync::{AtomicU64, Ordering};

const BUCKET_LEN: usize = 4;
/// Largest share of slots in use, in eighths, including removed slots.
const LOAD_MAX_EIGHTHS: usize = 7;

/// Word 0 of a slot that was never used: every probe ends here.
const EMPTY: u64 = 0;
/// Word 0 of a slot that can be reused.
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
struct Cell {
    fingerprint: AtomicU64,
    word: AtomicU64,
}

impl Cell {
    #[cfg(not(all(test, any(loom, shuttle))))]
    const fn empty() -> Self {
        Self { fingerprint: AtomicU64::new(EMPTY), word: AtomicU64::new(0) }
    }

    fn load_word(&self, fingerprint: u64) -> Slot {
        Slot { fingerprint, word: self.word.load(Ordering::Acquire) }
    }

    /// Stores the word first: a reader that sees the fingerprint must see this word, or a later
    /// one.
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

impl Bucket {
    /// Returns the first cell that was never used.
    fn unused(&self) -> Option<&Cell> {
        self.0.iter().find(|cell| cell.fingerprint.load(Ordering::Relaxed) == EMPTY)
    }
}

/// The unit of tables: two buckets, for the sake of alignment.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Pair([Bucket; 2]);

/// The table of every shard that has no slot, so that a small store does not need 4,096 of them.
/// Only read: an insert replaces it first. The checkers' atomics cannot lie in a static.
#[cfg(not(all(test, any(loom, shuttle))))]
pub(super) static NO_SLOTS: [Pair; 1] =
    [Pair([const { Bucket([const { Cell::empty() }; BUCKET_LEN]) }; 2])];

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
    /// Returns the smallest number of bucket pairs that can hold this many slots.
    pub(super) fn pairs_for(slots: usize) -> usize {
        (slots * 8).div_ceil(LOAD_MAX_EIGHTHS * BUCKET_LEN * 2)
    }

    /// Passes the slots with these hash bits to a closure until it returns `Some`.
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
    /// chain, past the key's own slot. `own` reads the entry and returns `Some` if it is the key's.
    pub(super) fn find_all<T>(
        self,
        hash: KeyHash,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        let mut found = Found { own: None, others: false };
        self.find(hash, |address, _| {
            // A key has one slot, so once it is found every other slot belongs to another key.
            match if found.own.is_none() { own(address)? } else { None } {
                Some(made) => found.own = Some((address, made)),
                None => found.others = true,
            }
            Ok(None::<()>)
        })?;
        Ok(found)
    }

    /// Adds a slot; others with the same hash bits may exist. The caller has ensured that there is
    /// room. Returns whether a removed slot was reused.
    pub(super) fn insert(self, hash: KeyHash, address: Address, flags: SlotFlags) -> bool {
        self.insert_slot(Slot::new(hash, address, flags))
    }

    /// Adds a slot unless `refuses`, which sees all slots with these hash bits, returns `true`.
    /// Returns whether the slot was added. Only for tables from which nothing was removed.
    pub(super) fn insert_unless(
        self,
        hash: KeyHash,
        address: Address,
        flags: SlotFlags,
        mut refuses: impl FnMut(Address, SlotFlags) -> Result<bool>,
    ) -> Result<bool> {
        let (new, mut added) = (Slot::new(hash, address, flags), false);
        let refusal = self.walk(hash, |cell, fingerprint| {
            if fingerprint == EMPTY {
                cell.store(new);
                added = true;
            } else if fingerprint == hash.fingerprint {
                let slot = cell.load_word(fingerprint);
                if slot.has(hash) {
                    let refusal = refuses(slot.address(), slot.flags());
                    return refusal.map(|refused| refused.then_some(())).transpose();
                }
            }
            None
        });
        if refusal.transpose()?.is_none() && !added {
            unreachable!("the load is below one, so every chain has a free slot")
        }
        Ok(added)
    }

    /// Points a slot at another entry of its key. Returns whether there was such a slot.
    pub(super) fn replace(self, hash: KeyHash, old: Address, new: Address) -> bool {
        let new = Slot::new(hash, new, SlotFlags::default());
        self.cell(hash, old).map(|cell| cell.store(new)).is_some()
    }

    /// Removes a slot. Returns whether there was such a slot.
    pub(super) fn remove(self, hash: KeyHash, address: Address) -> bool {
        self.cell(hash, address).map(Cell::remove).is_some()
    }

    /// Removes all slots with a flag, and returns how many there were.
    pub(super) fn sweep(self, flag: SlotFlags) -> u32 {
        let flagged = self.slots().filter(|(_, slot)| slot.flags().has(flag));
        flagged.map(|(cell, _)| cell.remove()).map(|()| 1).sum()
    }

    pub(super) fn addresses(self) -> impl Iterator<Item = Address> + 'a {
        self.slots().map(|(_, slot)| slot.address())
    }

    pub(super) fn hashed_addresses(self) -> impl Iterator<Item = (KeyHash, Address)> + 'a {
        self.slots().map(|(_, slot)| (slot.hash(), slot.address()))
    }

    /// Copies all slots into an empty table. Bucket numbers rise with the fingerprint in tables of
    /// any length, so this is one sweep over both.
    pub(super) fn copy_to(self, other: Table<'_>) {
        let len = other.buckets_len();
        for bucket in self.pairs.iter().flat_map(|pair| &pair.0) {
            for cell in &bucket.0 {
                let fingerprint = cell.fingerprint.load(Ordering::Acquire);
                if fingerprint <= REMOVED {
                    continue;
                }
                let slot = cell.load_word(fingerprint);
                // Nearly all slots find room in their first bucket.
                match other.bucket(slot.hash().bucket(len)).and_then(Bucket::unused) {
                    Some(unused) => unused.store(slot),
                    None => drop(other.insert_slot(slot)),
                }
            }
        }
    }

    /// Prefetches the memory that a lookup reads first.
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

    /// Visits the slots in which a key with this hash may lie, up to and including the first empty
    /// one, until `visit` returns `Some`.
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
        // The removed slot is reused before the chain gets longer.
        assert!(table.insert(hash, address(30), SlotFlags::default()));
        assert_eq!(addresses(table, hash)[3].0, address(30));
    }

    #[test]
    fn extreme_values_fit_into_a_slot() {
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
