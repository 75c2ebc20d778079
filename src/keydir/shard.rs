//! One shard: a table that is read without a lock, and the lock of its single writer.
//!
//! - A shard has no table until it is filled, newest entry first, by the rebuild rule in
//!   [`Fill::add`]. The table is then published whole. A failed fill has no effect.
//! - Tables grow by a third or a half. Every other shard uses different sizes, so that they don't
//!   all grow together: the total memory then stays close to its average.
//! - A table four times as long as needed is replaced by a smaller one with room for half as many
//!   slots again. The next change of size thus takes a number of puts or deletes in proportion to
//!   the slots.

use super::memory::{Arena, Length, Pairs, PublishedPairs};
#[cfg(not(all(test, any(loom, shuttle))))]
use super::slot::NO_SLOTS;
use super::slot::{Pair, SlotFlags};
use super::table::Table;
use super::{Address, Filling, Found};
use crate::epoch::{Collector, Guard};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::mistake::{Mistake, made};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// A shard's place in the array of shards, in its own cache line, so that shards don't slow each
/// other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Home {
    table: PublishedPairs,
    /// The time of the last removal of a slot.
    removed_at: AtomicU64,
    /// Lock 4: held by the one that changes the shard.
    counts: Mutex<ShardCounts>,
}

/// Ratio of a table's length to the needed length from which the table shrinks.
const SHRINK_FROM: usize = 4;

/// Number of free slots from which a table is replaced ahead of the writer that would need to.
/// Other shards get thousands of puts for each put of one shard, so this is enough time.
const SPARE: usize = 16;
/// Number of bucket pairs from which it is worth replacing a table ahead.
const AHEAD_FROM: usize = if cfg!(test) { 8 } else { 64 };

/// Slots in use.
#[derive(Debug, Default, Clone, Copy)]
struct ShardCounts {
    live: u32,
    removed: u32,
}

impl Home {
    /// Returns the table, or `None` if it is not filled yet.
    #[inline]
    pub(super) fn table<'a>(&'a self, guard: &'a Guard<'_>) -> Option<Table<'a>> {
        self.table.get(guard).map(Table::from)
    }

    /// Returns whether a slot may have been removed since a time in the log. Called after a lookup
    /// that found nothing, it shows whether the key may have had a slot then. The time is stored
    /// before the slot is removed, both with Release, and a lookup reads slots with Acquire.
    pub(super) fn has_removed_since(&self, time: u64) -> bool {
        self.removed_at.load(Ordering::Acquire) > time
    }

    #[inline]
    pub(super) fn lock<'a>(
        &'a self,
        number: usize,
        arena: &'a Arena,
        collector: &'a Collector,
    ) -> Shard<'a> {
        Shard { home: self, number, arena, counts: self.counts.lock(), guard: collector.pin() }
    }
}

/// One shard, locked by its writer.
#[derive(Debug)]
pub(crate) struct Shard<'a> {
    home: &'a Home,
    number: usize,
    arena: &'a Arena,
    counts: MutexGuard<'a, ShardCounts>,
    guard: Guard<'a>,
}

impl Shard<'_> {
    /// Returns whether the shard's entries are in its table. Before that it can only be filled.
    pub(crate) fn is_filled(&self) -> bool {
        self.home.table(&self.guard).is_some()
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.live as usize
    }

    /// Returns the size of the shard in memory, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Home>() + self.own_len() * size_of::<Pair>()
    }

    /// Finds a key's slot, and whether other keys share its hash bits: probes to the end of the
    /// chain, past the key's own slot. `own` reads the entry and returns `Some` if it is the key's.
    #[inline]
    pub(crate) fn find<T>(
        &self,
        hash: KeyHash,
        own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        self.table().find_all(hash, own)
    }

    /// Publishes a key's newest entry, in place of the one at `old`.
    pub(crate) fn publish(&mut self, hash: KeyHash, old: Option<Address>, new: Address) {
        let replaced = old.is_some_and(|old| self.table().replace(hash, old, new));
        if !replaced {
            if self.make_room(1) {
                self.guard.flush_many();
            }
            let reused = self.table().insert(hash, new, SlotFlags::default());
            self.counts.inserted(reused);
            if !reused && self.has_become_crowded() {
                self.arena.crowded.note(self.number);
            }
        }
    }

    /// Points the slot that names an entry at a copy of it. Returns whether there still was such a
    /// slot.
    pub(crate) fn relocate(&mut self, hash: KeyHash, old: Address, new: Address) -> bool {
        if made(Mistake::SlotNotCompared)
            && let Some((_, found)) = self.table().probe(hash).next()
        {
            return self.table().replace(hash, found.address(), new);
        }
        self.table().replace(hash, old, new)
    }

    /// Removes the slot that names an entry. `time` is a time in the log that only the removing
    /// entry, and no entry before it, has reached. Returns whether there still was such a slot.
    pub(crate) fn remove(&mut self, hash: KeyHash, address: Address, time: u64) -> bool {
        if !made(Mistake::RemovalNotedLate) {
            self.note_removal(time);
        }
        let table = self.table();
        let (removed, len) = (table.remove(hash, address), table.pairs_len());
        if made(Mistake::RemovalNotedLate) {
            self.note_removal(time);
        }
        self.counts.removed(u32::from(removed));
        let needed = Table::pairs_for(self.counts.live as usize + 1);
        if len >= SHRINK_FROM * needed {
            self.rebuild(needed + needed / 2);
            self.guard.flush_many();
        }
        removed
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.table().addresses()
    }

    /// Returns the hash bits and the address of every slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (KeyHash, Address)> {
        self.table().hashed_addresses()
    }

    /// Starts filling the shard with at most this many entries.
    ///
    /// The table gets its full length first: a table that is filled in the order of its buckets
    /// would be crowded at one end as long as it grows.
    pub(crate) fn start_filling(&self, at_most: usize) -> Fill {
        let pairs = self.arena.table(length_for(at_most, self.number));
        Fill { pairs, counts: ShardCounts::default() }
    }

    /// Publishes the filled table. `time` is a time in the log by which the shard's earlier content
    /// may have been removed.
    pub(crate) fn filled(&mut self, mut fill: Fill, time: u64) {
        self.note_removal(time);
        fill.finish(self.arena, self.number);
        *self.counts = fill.counts;
        if self.counts.live > 0 {
            self.home.table.replace(fill.pairs, &self.guard);
            self.guard.flush_many();
        } else {
            self.empty();
        }
    }

    /// Publishes a table without slots.
    fn empty(&mut self) {
        *self.counts = ShardCounts::default();
        #[cfg(not(all(test, any(loom, shuttle))))]
        self.home.table.replace_with_none(&self.guard);
        #[cfg(all(test, any(loom, shuttle)))]
        self.home.table.replace(self.arena.table(length_for(0, self.number)), &self.guard);
        self.guard.flush_many();
    }

    /// Returns the length of the shard's own table, or zero if it shares the one without slots.
    fn own_len(&self) -> usize {
        let pairs = self.home.table.get(&self.guard).unwrap_or_default();
        #[cfg(not(all(test, any(loom, shuttle))))]
        if std::ptr::eq(pairs.as_ptr(), NO_SLOTS.as_ptr()) {
            return 0;
        }
        pairs.len()
    }

    fn note_removal(&mut self, time: u64) {
        // There is one writer at a time.
        let time = time.max(self.home.removed_at.load(Ordering::Relaxed));
        self.home.removed_at.store(time, Ordering::Release);
    }

    /// Empties the shard, as of a time in the log. Afterwards it counts as filled.
    pub(crate) fn clear(&mut self, time: u64) {
        self.note_removal(time);
        let is_fresh = self.counts.live + self.counts.removed == 0;
        if !self.is_filled() || !is_fresh || self.own_len() > length_for(0, self.number).get() {
            self.empty();
        }
    }

    fn table(&self) -> Table<'_> {
        match self.home.table(&self.guard) {
            Some(table) => table,
            None => unreachable!("shard {} was used before it was filled", self.number),
        }
    }

    /// Returns whether the last insert has left exactly [`SPARE`] free slots in a large table.
    fn has_become_crowded(&self) -> bool {
        let (len, used) = (self.own_len(), self.counts.used());
        let fits = |more| Table::pairs_for(used + more) <= len;
        len >= AHEAD_FROM && fits(SPARE) && !fits(SPARE + 1)
    }

    /// Does ahead of a writer what it would soon need to do itself, and leaves it to the caller to
    /// free the old table, without the lock of the shard.
    pub(super) fn grow_ahead(&mut self) {
        if self.is_filled() && self.own_len() >= AHEAD_FROM {
            self.make_room(SPARE + 1);
        }
    }

    /// Before inserts would overload the table, grows it or clears removed slots out of it. Returns
    /// whether it did.
    fn make_room(&mut self, inserts: usize) -> bool {
        let live = self.counts.live as usize;
        let len = self.own_len();
        if Table::pairs_for(self.counts.used() + inserts) <= len {
            return false;
        }
        // If it is removed slots that fill the table, it is already large enough.
        let crowded = Table::pairs_for(live + 1) > len * 3 / 4;
        self.rebuild(if crowded { len + 1 } else { len });
        true
    }

    /// Replaces the table by one of another length, without removed slots.
    #[cold]
    fn rebuild(&mut self, wanted: usize) {
        let pairs = self.arena.table(Length::at_least(wanted, self.number));
        self.table().copy_to(Table::from(&*pairs));
        self.home.table.replace(pairs, &self.guard);
        self.counts.removed = 0;
    }

    /// Returns the table's address. While the shard is locked, no table reuses the address of
    /// another.
    #[cfg(test)]
    pub(super) fn table_addr(&self) -> usize {
        self.home.table.get(&self.guard).map_or(0, |pairs| pairs.as_ptr().addr())
    }
}

impl ShardCounts {
    fn used(self) -> usize {
        self.live as usize + self.removed as usize
    }

    fn inserted(&mut self, reused: bool) {
        self.live += 1;
        self.removed -= u32::from(reused);
    }

    fn removed(&mut self, slots: u32) {
        self.live -= slots;
        self.removed += slots;
    }
}

/// A table that is being filled, and that no other thread sees yet.
#[derive(Debug)]
pub(crate) struct Fill {
    pairs: Pairs,
    counts: ShardCounts,
}

impl Fill {
    /// Adds an entry unless a newer one has superseded it. Returns whether it is live or holds its
    /// place as a tombstone.
    ///
    /// Entries come newest first. An entry with the hash bits of a held entry is dead in two cases.
    /// Either the held entry is not flagged *collides*: then no other key with these bits had a
    /// slot when it was written, so every older entry belongs to the same key or was deleted. Or
    /// their keys are equal.
    pub(crate) fn add(
        &mut self,
        entry: Filling,
        mut same_key: impl FnMut(Address, Address) -> Result<bool>,
    ) -> Result<bool> {
        let flags = SlotFlags::default()
            .with_if(entry.tombstone, SlotFlags::TOMBSTONE)
            .with_if(entry.collides, SlotFlags::COLLIDES);
        let is_killed_by = |held, flags: SlotFlags| {
            Ok(!flags.has(SlotFlags::COLLIDES) || same_key(held, entry.address)?)
        };
        let added = self.table().insert_unless(entry.hash, entry.address, flags, is_killed_by)?;
        if added {
            self.counts.inserted(false);
        }
        Ok(added)
    }

    /// Releases the tombstones, which have held their places, and the room for entries that turned
    /// out to be dead.
    fn finish(&mut self, arena: &Arena, shard: usize) {
        let tombstones = self.table().sweep(SlotFlags::TOMBSTONE);
        self.counts.removed(tombstones);
        let length = length_for(self.counts.live as usize, shard);
        if tombstones > 0 || length != self.pairs.length() {
            let pairs = arena.table(length);
            self.table().copy_to(Table::from(&*pairs));
            (self.pairs, self.counts.removed) = (pairs, 0);
        }
    }

    fn table(&self) -> Table<'_> {
        Table::from(&*self.pairs)
    }
}

/// Returns the length of a shard's table for this many slots.
fn length_for(slots: usize, shard: usize) -> Length {
    Length::at_least(Table::pairs_for(slots), shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_grow_at_different_times_so_that_total_memory_stays_near_its_average() {
        let arena = Arena::default();
        for slots in (500..5000).step_by(7) {
            let size = |shard| size_of_val(&*arena.table(length_for(slots, shard)));
            let two = size(0) + size(1);
            assert!(two * 10 > slots * 2 * 182, "{two} bytes for {slots} slots, twice");
            assert!(two * 10 < slots * 2 * 257, "{two} bytes for {slots} slots, twice");
        }
    }
}
