//! The keydir: where the newest entry of every key lies, without the keys.
//!
//! - It is always exact. Slots are found by hash bits, and the caller's closure, which can read the
//!   log, decides to which key a slot belongs. Slots with equal bits belong to different keys.
//! - It never touches the disk, and knows a segment only by its number.
//! - It has 4,096 shards. Reading takes no lock. A writer holds its shard's lock from the lookup to
//!   the publication, so for every key the keydir has the order of the log.
//! - A shard has to be filled before it is used. When and from what is decided elsewhere.

mod crowded;
mod locked;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod shard;
mod slot;
mod table;

pub(crate) use locked::{LockedShards, ShardSet};
pub(crate) use shard::Shard;

use crate::epoch::{Collector, Guard};
use crate::error::Result;
use crate::key_hash::{KeyHash, KeyHasher, SHARD_BITS};
use crate::sync::{AtomicU64, Ordering};
use memory::Arena;
use shard::Home;

pub(crate) const SHARD_COUNT: usize = 1 << SHARD_BITS;

/// The place of an entry, as a slot stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// The segment's number among the open ones, below 2^18.
    pub(crate) segment: u32,
    /// In bytes; a multiple of 8 below 512 MiB.
    pub(crate) offset: u64,
}

/// The result of a lookup through a whole chain.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// The key's own slot, with the closure's result for it.
    pub(crate) own: Option<(Address, T)>,
    /// Whether another key with the same hash bits has a slot.
    pub(crate) others: bool,
}

/// An entry with which a shard is filled.
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
    /// Several shards are locked in ascending order.
    shards: Box<[Home]>,
    arena: Arena,
    /// One while all shards are being emptied, one after the other, otherwise zero.
    clearing: AtomicU64,
    /// The store's collector: its guards protect everything else that the store publishes, too.
    collector: Collector,
}

impl Keydir {
    /// Creates a keydir whose shards are not filled yet.
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Home::default()).collect();
        let (arena, clearing) = (Arena::default(), AtomicU64::new(0));
        Self { hasher, shards, arena, clearing, collector: Collector::new() }
    }

    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Returns a guard that keeps tables intact for their readers.
    #[inline]
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.collector.pin()
    }

    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// Returns the addresses with a key's hash bits, without a lock; at most one of them is that of
    /// the key's own entry. Returns `None` if the shard has to be filled first.
    #[inline]
    pub(crate) fn addresses<'a>(
        &'a self,
        hash: KeyHash,
        guard: &'a Guard<'_>,
    ) -> Option<impl Iterator<Item = Address>> {
        let table = self.home(hash.shard()).table(guard)?;
        Some(table.probe(hash).map(|(_, slot)| slot.address()))
    }

    /// Returns whether all shards are being emptied. A thread that has seen one shard emptied sees
    /// this before it can see the content of another one: it then waits for any shard's lock.
    #[inline]
    pub(crate) fn is_clearing(&self) -> bool {
        self.clearing.load(Ordering::Acquire) > 0
    }

    /// Empties all shards, which are locked, as of a time in the log.
    pub(crate) fn clear(&self, shards: &mut LockedShards<'_>, time: u64) {
        self.clearing.store(1, Ordering::Release);
        shards.clear(time);
        self.clearing.store(0, Ordering::Release);
    }

    /// Finds a key's slot, and whether other keys share its hash bits, without a lock. Returns
    /// `None` if the shard has to be filled first. Another key that has a slot throughout is
    /// noticed; one that gains or loses its slot meanwhile may or may not be.
    pub(crate) fn find_all<T>(
        &self,
        hash: KeyHash,
        guard: &Guard<'_>,
        own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Option<Found<T>>> {
        let table = self.home(hash.shard()).table(guard);
        table.map(|table| table.find_all(hash, own)).transpose()
    }

    /// Returns whether a slot names this entry, without a lock. The shard must be filled.
    pub(crate) fn names(&self, hash: KeyHash, entry: Address, guard: &Guard<'_>) -> bool {
        self.addresses(hash, guard).is_some_and(|mut addresses| addresses.any(|it| it == entry))
    }

    /// Returns whether a slot in the key's shard may have been removed since a time in the log; see
    /// `Home::has_removed_since`.
    pub(crate) fn has_removed_since(&self, hash: KeyHash, time: u64) -> bool {
        self.home(hash.shard()).has_removed_since(time)
    }

    /// Waits until each shard's present writer has finished. Every change of a slot seen before the
    /// call is then accounted for.
    pub(crate) fn wait_for_writers(&self) {
        (0..SHARD_COUNT).for_each(|number| drop(self.shard(number)));
    }

    /// Returns the first address with a key's hash bits, if any: most likely the key's.
    pub(crate) fn likely(&self, hash: KeyHash, guard: &Guard<'_>) -> Option<Address> {
        self.addresses(hash, guard)?.next()
    }

    /// Prefetches the memory that a lookup of the key reads first.
    pub(crate) fn prefetch(&self, hash: KeyHash, guard: &Guard<'_>) {
        if let Some(table) = self.home(hash.shard()).table(guard) {
            table.prefetch(hash);
        }
    }

    /// Locks a shard by its number, which is below [`SHARD_COUNT`].
    #[inline]
    pub(crate) fn shard(&self, number: usize) -> Shard<'_> {
        self.home(number).lock(number, &self.arena, &self.collector)
    }

    /// Replaces the large tables that are nearly full, so that their writers need not, and prepares
    /// memory for the tables after those, which may take milliseconds.
    pub(crate) fn prepare(&self) {
        self.arena.prepare();
        for number in self.arena.crowded.take() {
            self.shard(number).grow_ahead();
            // Freeing may take a system call, for which no writer to the shard should wait.
            self.collector.pin().flush_many();
        }
    }

    /// Returns the size of the keydir in memory, in bytes.
    pub(crate) fn size(&self) -> u64 {
        (0..SHARD_COUNT).map(|number| self.shard(number).size() as u64).sum()
    }

    #[inline]
    fn home(&self, number: usize) -> &Home {
        match self.shards.get(number) {
            Some(home) => home,
            None => unreachable!("shard {number} is out of range"),
        }
    }
}

#[cfg(test)]
mod tests;
