//! The keydir: where the newest entry of every key lies, without the keys.
//!
//! - Exact, always: slots are found by hash bits, and the caller's closure, which can read the
//!   log, says whose they are. Slots with equal bits are different keys.
//! - Never touches the disk and knows no segment but by its number.
//! - 4,096 shards, each behind a lock. A writer holds its shard's lock from the look-up to the
//!   publication, so that the order of the log is the order of the keydir for every key.
//! - Filled newest entry first, by the rebuild rule in [`Shard::fill`].

mod hash;
mod table;

use parking_lot::{Mutex, MutexGuard};

pub(crate) use hash::{KeyHash, KeyHasher};

use crate::error::Result;
use table::{SlotFlags, Table};

const SHARD_COUNT: usize = 1 << hash::SHARD_BITS;

/// Where an entry lies, as a slot has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// The segment's number among the open ones, below 2^18.
    pub(crate) segment: u32,
    /// In bytes; a multiple of 8 below 512 MiB.
    pub(crate) offset: u64,
}

/// What a look-up through a whole chain has found.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// The key's own slot, with what the closure made of it.
    pub(crate) own: Option<(Address, T)>,
    /// Whether another key with the same hash bits has a slot.
    pub(crate) others: bool,
}

/// An entry that a shard is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) hash: KeyHash,
    pub(crate) address: Address,
    pub(crate) tombstone: bool,
    pub(crate) collides: bool,
}

/// All shards.
#[derive(Debug)]
pub(crate) struct Keydir {
    hasher: KeyHasher,
    /// Taken in ascending order where several are.
    shards: Box<[Mutex<Table>]>,
}

impl Keydir {
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        Self { hasher, shards: (0..SHARD_COUNT).map(|_| Mutex::default()).collect() }
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// Locks the shard of a key.
    pub(crate) fn shard(&self, hash: KeyHash) -> Shard<'_> {
        self.lock(hash.shard())
    }

    /// Locks the shards of several keys, in order.
    pub(crate) fn shards(&self, hashes: impl Iterator<Item = KeyHash>) -> LockedShards<'_> {
        let mut numbers: Vec<usize> = hashes.map(KeyHash::shard).collect();
        numbers.sort_unstable();
        numbers.dedup();
        LockedShards(numbers.into_iter().map(|number| (number, self.lock(number))).collect())
    }

    /// Locks all shards.
    pub(crate) fn all_shards(&self) -> LockedShards<'_> {
        LockedShards((0..SHARD_COUNT).map(|number| (number, self.lock(number))).collect())
    }

    /// Locks one shard after the other, to read what it holds.
    pub(crate) fn each_shard(&self) -> impl Iterator<Item = Shard<'_>> {
        (0..SHARD_COUNT).map(|number| self.lock(number))
    }

    /// Locks a shard by its number; nothing behind the last.
    pub(crate) fn nth_shard(&self, number: usize) -> Option<Shard<'_>> {
        (number < SHARD_COUNT).then(|| self.lock(number))
    }

    pub(crate) fn len(&self) -> u64 {
        self.each_shard().map(|shard| shard.table.len() as u64).sum()
    }

    /// Returns the memory that the keydir takes, in bytes.
    pub(crate) fn size(&self) -> u64 {
        let tables: usize = self.each_shard().map(|shard| shard.table.size()).sum();
        (tables + SHARD_COUNT * size_of::<Mutex<Table>>()) as u64
    }

    fn lock(&self, number: usize) -> Shard<'_> {
        let Some(shard) = self.shards.get(number) else {
            unreachable!("a shard's number has as many bits as there are shards")
        };
        Shard { table: shard.lock() }
    }
}

/// Several shards, locked.
#[derive(Debug)]
pub(crate) struct LockedShards<'a>(Vec<(usize, Shard<'a>)>);

impl<'a> LockedShards<'a> {
    /// Returns the shard of a key that was named when the shards were locked.
    pub(crate) fn of(&mut self, hash: KeyHash) -> &mut Shard<'a> {
        let found = self.0.binary_search_by_key(&hash.shard(), |(number, _)| *number);
        match found.ok().and_then(|at| self.0.get_mut(at)) {
            Some((_, shard)) => shard,
            None => unreachable!("the shard of {hash:?} was not locked"),
        }
    }

    /// Empties the shards.
    pub(crate) fn clear(&mut self) {
        self.0.iter_mut().for_each(|(_, shard)| shard.table.clear());
    }
}

/// One shard, locked.
#[derive(Debug)]
pub(crate) struct Shard<'a> {
    table: MutexGuard<'a, Table>,
}

impl Shard<'_> {
    /// Finds a key's slot. `own` reads the entry and answers if it is the key's.
    pub(crate) fn get<T>(
        &self,
        hash: KeyHash,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Option<(Address, T)>> {
        for (address, _) in self.table.probe(hash) {
            if let Some(found) = own(address)? {
                return Ok(Some((address, found)));
            }
        }
        Ok(None)
    }

    /// Finds a key's slot, and whether other keys share its hash bits: probes to the end of the
    /// chain, past the key's own slot.
    pub(crate) fn find<T>(
        &self,
        hash: KeyHash,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        let mut found = Found { own: None, others: false };
        for (address, _) in self.table.probe(hash) {
            // A key has one slot, so once it is found every other slot is another key's.
            match if found.own.is_none() { own(address)? } else { None } {
                Some(made) => found.own = Some((address, made)),
                None => found.others = true,
            }
        }
        Ok(found)
    }

    /// Publishes a key's newest entry, in place of the one that `old` names.
    pub(crate) fn publish(&mut self, hash: KeyHash, old: Option<Address>, new: Address) {
        let replaced = old.is_some_and(|old| self.table.replace(hash, old, new));
        if !replaced {
            self.table.insert(hash, new, SlotFlags::default());
        }
    }

    /// Removes a key's slot.
    pub(crate) fn remove(&mut self, hash: KeyHash, address: Address) {
        self.table.remove(hash, address);
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.table.addresses()
    }

    /// Makes room for entries to be filled in. Without it a table that is filled in the order of
    /// its buckets would be crowded at one end for as long as it grows.
    pub(crate) fn reserve(&mut self, additional: usize) {
        self.table.reserve(additional);
    }

    /// Fills in an entry unless a newer one has killed it; says whether it is live or holds its
    /// place as a tombstone.
    ///
    /// Entries come newest first. One with the hash bits of a held entry is dead if that one is
    /// not flagged *collides* (then no other key with these bits had a slot when it was written,
    /// so whatever is older is the same key, or was deleted), or if their keys are equal.
    pub(crate) fn fill(
        &mut self,
        entry: Filling,
        mut same_key: impl FnMut(Address, Address) -> Result<bool>,
    ) -> Result<bool> {
        for (held, flags) in self.table.probe(entry.hash) {
            if !flags.has(SlotFlags::COLLIDES) || same_key(held, entry.address)? {
                return Ok(false);
            }
        }
        let flags = SlotFlags::default()
            .with_if(entry.tombstone, SlotFlags::TOMBSTONE)
            .with_if(entry.collides, SlotFlags::COLLIDES);
        self.table.insert(entry.hash, entry.address, flags);
        Ok(true)
    }

    /// Lets go of the tombstones that held their places while the shard was filled.
    pub(crate) fn filled(&mut self) {
        self.table.sweep(SlotFlags::TOMBSTONE);
        self.table.shrink();
    }
}

#[cfg(test)]
mod tests;
