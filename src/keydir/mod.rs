//! The keydir: where the newest entry of every key lies, without the keys.
//!
//! - It is always exact. Slots are found by hash bits, and the caller's closure, which can read the
//!   log, decides to which key a slot belongs. Slots with equal bits belong to different keys.
//! - It never touches the disk, and knows a segment only by its number.
//! - It has 4,096 shards. Reading takes no lock. A writer holds its shard's lock from the lookup to
//!   the publication, so for every key the keydir has the order of the log.
//! - A shard has to be filled before it is used. When and from what is decided elsewhere.

mod crowded;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod shard;
mod table;

pub(crate) use shard::Shard;

use crate::epoch::{Collector, Guard};
use crate::error::Result;
use crate::key_hash::{KeyHash, KeyHasher, SHARD_BITS};
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

/// The result of a lookup without a lock.
#[derive(Debug)]
pub(crate) enum Lookup<T> {
    Found(T),
    Absent,
    /// The shard has to be filled first.
    Unfilled,
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
    /// The store's collector: its guards protect everything else that the store publishes, too.
    collector: Collector,
}

impl Keydir {
    /// Creates a keydir whose shards are not filled yet.
    pub(crate) fn new(hasher: KeyHasher) -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Home::default()).collect();
        Self { hasher, shards, arena: Arena::default(), collector: Collector::new() }
    }

    pub(crate) fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Returns a guard that keeps tables intact for their readers.
    #[inline]
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.collector.pin()
    }

    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    /// Finds a key's slot without a lock. `own` reads the entry and returns `Some` if it is the
    /// key's.
    pub(crate) fn get<T>(
        &self,
        hash: KeyHash,
        guard: &Guard<'_>,
        mut own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Lookup<T>> {
        let Some(table) = self.home(hash.shard()).table(guard) else { return Ok(Lookup::Unfilled) };
        let found = table.find(hash, |address, _| own(address))?;
        Ok(found.map_or(Lookup::Absent, Lookup::Found))
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
        let is_it = |address| Ok((address == entry).then_some(()));
        matches!(self.get(hash, guard, is_it), Ok(Lookup::Found(())))
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
        let table = self.home(hash.shard()).table(guard)?;
        table.find(hash, |address, _| Ok(Some(address))).ok()?
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
        }
    }

    /// Returns the size of the keydir in memory, in bytes.
    pub(crate) fn size(&self) -> u64 {
        (0..SHARD_COUNT).map(|number| self.shard(number).size() as u64).sum()
    }

    fn home(&self, number: usize) -> &Home {
        match self.shards.get(number) {
            Some(home) => home,
            None => unreachable!("shard {number} is out of range"),
        }
    }
}

/// Several shards, locked.
#[derive(Debug)]
pub(crate) struct LockedShards<'a>(Vec<Shard<'a>>);

impl<'a> LockedShards<'a> {
    /// Takes shards that were locked in ascending order.
    pub(crate) fn new(shards: Vec<Shard<'a>>) -> Self {
        Self(shards)
    }

    /// Returns the shard of a key, which must be among them.
    pub(crate) fn of(&mut self, hash: KeyHash) -> &mut Shard<'a> {
        let found = self.0.binary_search_by_key(&hash.shard(), Shard::number);
        match found.ok().and_then(|at| self.0.get_mut(at)) {
            Some(shard) => shard,
            None => unreachable!("the shard of {hash:?} was not locked"),
        }
    }

    /// Empties the shards, as of a time in the log.
    pub(crate) fn clear(&mut self, time: u64) {
        self.0.iter_mut().for_each(|shard| shard.clear(time));
    }
}

#[cfg(test)]
mod tests;
