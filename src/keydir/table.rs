//! One shard's table: buckets of four slots, found by the fingerprint, probed in order.
//!
//! - A slot is 16 bytes and holds no key: a fingerprint, and the address of the newest entry.
//! - Several slots may have the same hash bits; they belong to different keys. The caller compares.
//! - Each bucket records which hashes have overflowed from it into later buckets: the filter of 24
//!   bits in its slots' words. A probe continues with the next bucket only if the filter has its
//!   hash's bit, so that nearly all probes for absent keys end in the first bucket.
//! - Nothing has overflowed from a bucket with an empty slot, so probes end there at the latest.
//!   Removed slots are not empty and count towards the load, so there always is an empty slot.
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
//!    insert uses the first free slot of the chain. Before it stores a slot in a later bucket,
//!    it sets its hash's bit in the filter of every bucket that it passes, with Release. Bits
//!    are never cleared within a table. A reader that could have seen the slot therefore sees
//!    the bits that lead to it, and one that misses a bit looked before the insert was
//!    complete.
//! 5. The writer fills a larger or smaller table before it publishes it, and does not change the
//!    old table afterwards. A reader that still uses the old table sees the moment of the change.
//!    The old table is freed when all guards of that time are dropped ([`crate::epoch`]).
//!
//! `loom_tests.rs` checks this on a tiny table under every order that its model checker knows,
//! except for the part of [`crate::epoch`]: in 1 that nothing is rewritten, in 5 when a table is
//! freed. `store/loom_tests.rs` checks those on whole stores.

use super::slot::{BUCKET_LEN, Bucket, Cell, EMPTY, Pair, REMOVED, Slot, SlotFlags};
use super::{Address, Found};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::sync::Ordering;

/// Largest share of slots in use, in eighths, including removed slots.
const LOAD_MAX_EIGHTHS: usize = 7;

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

    /// Returns the slots with these hash bits.
    #[inline]
    pub(super) fn probe(self, hash: KeyHash) -> Probe<'a> {
        Probe::new(self, hash)
    }

    /// Finds a key's slot, and whether other keys share its hash bits. `own` reads the entry and
    /// returns `Some` if it is the key's.
    #[inline]
    pub(super) fn find_all<T>(
        self,
        hash: KeyHash,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        let mut found = Found { own: None, others: false };
        for (_, slot) in self.probe(hash) {
            let address = slot.address();
            // A key has one slot, so once it is found every other slot belongs to another key.
            match if found.own.is_none() { own(address)? } else { None } {
                Some(made) => found.own = Some((address, made)),
                None => found.others = true,
            }
        }
        Ok(found)
    }

    /// Adds a slot; others with the same hash bits may exist. The caller has ensured that there is
    /// room. Returns whether a removed slot was reused.
    pub(super) fn insert(self, hash: KeyHash, address: Address, flags: SlotFlags) -> bool {
        self.insert_slot(Slot::new(hash, address, flags))
    }

    /// Adds a slot unless `refuses`, which sees all slots with these hash bits, returns `true`.
    /// Returns whether the slot was added.
    pub(super) fn insert_unless(
        self,
        hash: KeyHash,
        address: Address,
        flags: SlotFlags,
        mut refuses: impl FnMut(Address, SlotFlags) -> Result<bool>,
    ) -> Result<bool> {
        for (_, slot) in self.probe(hash) {
            if refuses(slot.address(), slot.flags())? {
                return Ok(false);
            }
        }
        self.insert(hash, address, flags);
        Ok(true)
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
        for (_, slot) in self.slots() {
            other.insert_slot(slot);
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

    #[inline]
    fn buckets_len(self) -> usize {
        self.pairs.len() * 2
    }

    #[inline]
    fn bucket(self, at: usize) -> Option<&'a Bucket> {
        self.pairs.get(at / 2)?.0.get(at % 2)
    }

    /// Returns the number of the bucket in which a probe continues.
    fn after(self, at: usize) -> usize {
        if at + 1 == self.buckets_len() { 0 } else { at + 1 }
    }

    fn insert_slot(self, slot: Slot) -> bool {
        let hash = slot.hash();
        let mut at = hash.bucket(self.buckets_len());
        for _ in 0..self.buckets_len() {
            let Some(bucket) = self.bucket(at) else { break };
            for cell in &bucket.0 {
                let fingerprint = cell.fingerprint.load(Ordering::Relaxed);
                if fingerprint == EMPTY || fingerprint == REMOVED {
                    cell.store(slot);
                    return fingerprint == REMOVED;
                }
            }

            bucket.pass(hash);
            at = self.after(at);
        }
        unreachable!("the load is below one, so every chain has a free slot")
    }

    fn cell(self, hash: KeyHash, address: Address) -> Option<&'a Cell> {
        self.probe(hash).find(|(_, slot)| slot.address() == address).map(|(cell, _)| cell)
    }

    fn slots(self) -> impl Iterator<Item = (&'a Cell, Slot)> {
        let buckets = self.pairs.iter().flat_map(|pair| &pair.0);
        buckets.flat_map(|bucket| &bucket.0).filter_map(|cell| {
            let fingerprint = cell.fingerprint.load(Ordering::Acquire);
            (fingerprint > REMOVED).then(|| (cell, cell.load_word(fingerprint)))
        })
    }
}

/// The slots with the same hash bits, in the order in which a probe finds them.
#[derive(Debug)]
pub(super) struct Probe<'a> {
    table: Table<'a>,
    hash: KeyHash,
    /// The bucket that is probed.
    bucket: Option<&'a Bucket>,
    at: usize,
    /// Number of buckets that have not been probed.
    left: usize,
    /// The bucket's cells whose fingerprints match and that have not been returned, a bit for each.
    matches: u32,
}

impl<'a> Probe<'a> {
    #[inline]
    fn new(table: Table<'a>, hash: KeyHash) -> Self {
        let left = table.buckets_len();
        let at = hash.bucket(left);
        let bucket = table.bucket(at);
        let matches = bucket.map_or(0, |bucket| bucket.matches(hash));
        Self { table, hash, bucket, at, left, matches }
    }

    /// Continues with the next bucket.
    #[inline(never)]
    fn advance(&mut self) {
        self.at = self.table.after(self.at);
        self.left -= 1;
        self.bucket = if self.left == 0 { None } else { self.table.bucket(self.at) };
        self.matches = self.bucket.map_or(0, |bucket| bucket.matches(self.hash));
    }
}

impl<'a> Iterator for Probe<'a> {
    type Item = (&'a Cell, Slot);

    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let bucket = self.bucket?;
            while self.matches != 0 {
                let cell = bucket.0.get(self.matches.trailing_zeros() as usize)?;
                self.matches &= self.matches - 1;
                let slot = cell.load_word(self.hash.fingerprint);
                if slot.has(self.hash) {
                    return Some((cell, slot));
                }
            }
            if !bucket.is_passed_by(self.hash) {
                return None;
            }
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(len: usize) -> Vec<Pair> {
        (0..len).map(|_| Pair::default()).collect()
    }

    fn addresses(table: Table<'_>, hash: KeyHash) -> Vec<(Address, SlotFlags)> {
        table.probe(hash).map(|(_, slot)| (slot.address(), slot.flags())).collect()
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

    fn nth_hash(number: u64) -> KeyHash {
        crate::key_hash::KeyHasher::new(1).hash(&number.to_be_bytes())
    }

    /// Returns how many probes for keys that are absent continue after their first bucket, in
    /// percent.
    fn passing_percent(table: Table<'_>) -> usize {
        let absent = (10_000..20_000).map(nth_hash);
        absent.filter(|hash| Probe::new(table, *hash).bucket.unwrap().is_passed_by(*hash)).count()
            / 100
    }

    #[test]
    fn hardly_any_probe_for_an_absent_key_reads_a_second_bucket() {
        let (pairs, others) = (pairs(256), pairs(256));
        let (table, copy) = (Table::from(&*pairs), Table::from(&*others));
        let address = |number: u64| Address { segment: 1, offset: number * 8 };
        // A load of 70 %, the average of tables that grow.
        let len = 256 * 8 * 7 / 10;
        for number in 0..len {
            table.insert(nth_hash(number), address(number), SlotFlags::default());
        }
        assert!((1..=3).contains(&passing_percent(table)), "{}", passing_percent(table));
        for number in 0..len {
            assert_eq!(addresses(table, nth_hash(number))[0].0, address(number));
            assert!(number % 4 == 0 || table.remove(nth_hash(number), address(number)));
        }
        // What overflowed from a bucket once is forgotten with the table.
        table.copy_to(copy);
        assert_eq!(passing_percent(copy), 0);
        for number in (0..len).step_by(4) {
            assert_eq!(addresses(copy, nth_hash(number))[0].0, address(number));
        }
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
