//! One shard: a table that is read without a lock, and the lock of its one writer.
//!
//! - A shard has no table until it is filled, newest entry first, by the rebuild rule in
//!   [`Fill::add`]. The table is then published whole; a fill that fails leaves nothing behind.
//! - Tables grow by a third or a half. Every other shard has other sizes, so that they don't all
//!   grow at once: the memory of all is then never far from what it is on average.
//! - A table of four times the room that it needs gives way to a smaller one, which has room for half as
//!   many slots again: it takes as many puts or deletes as a part of its slots before the next change.

use super::memory::{Arena, Length, Pairs, PublishedPairs};
use super::table::{Pair, SlotFlags, Table};
use super::{Address, Filling, Found};
use crate::epoch::{Collector, Guard};
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::mistake::{Mistake, made};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// A shard where it lies. A cache line of its own, so that shards don't slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Home {
    table: PublishedPairs,
    /// The time of the last removal of a slot.
    removed_at: AtomicU64,
    /// Lock 4: held by the one that changes the shard.
    counts: Mutex<ShardCounts>,
}

/// A table shrinks when it is so many times as long as it has to be.
const SHRINK_FROM: usize = 4;

/// Slots in use.
#[derive(Debug, Default, Clone, Copy)]
struct ShardCounts {
    live: u32,
    removed: u32,
}

impl Home {
    /// Returns the table; nothing as long as it is not filled.
    pub(super) fn table<'a>(&'a self, guard: &'a Guard<'_>) -> Option<Table<'a>> {
        self.table.get(guard).map(Table::from)
    }

    /// Returns whether a slot may have gone since a time in the log. Asked behind a look-up that found
    /// nothing, it tells whether there may have been something then: the time is stored before the
    /// slot goes, both with Release, and a look-up reads slots with Acquire.
    pub(super) fn has_removed_since(&self, time: u64) -> bool {
        self.removed_at.load(Ordering::Acquire) > time
    }

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

    /// Returns the memory that the shard takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Home>() + self.home.table.get(&self.guard).map_or(0, size_of_val)
    }

    /// Finds a key's slot, and whether other keys share its hash bits: probes to the end of the
    /// chain, past the key's own slot. `own` reads the entry and answers if it is the key's.
    pub(crate) fn find<T>(
        &self,
        hash: KeyHash,
        own: impl FnMut(Address) -> Result<Option<T>>,
    ) -> Result<Found<T>> {
        self.table().find_all(hash, own)
    }

    /// Publishes a key's newest entry, in place of the one that `old` names.
    pub(crate) fn publish(&mut self, hash: KeyHash, old: Option<Address>, new: Address) {
        let replaced = old.is_some_and(|old| self.table().replace(hash, old, new));
        if !replaced {
            self.make_room();
            let reused = self.table().insert(hash, new, SlotFlags::default());
            self.counts.inserted(reused);
        }
    }

    /// Makes the slot that names an entry name a copy of it. Says whether there still was one.
    pub(crate) fn relocate(&mut self, hash: KeyHash, old: Address, new: Address) -> bool {
        if made(Mistake::SlotNotCompared)
            && let Ok(Some(found)) = self.table().find(hash, |found, _| Ok(Some(found)))
        {
            return self.table().replace(hash, found, new);
        }
        self.table().replace(hash, old, new)
    }

    /// Removes the slot that names an entry, at a time in the log that no entry before the removal
    /// has reached, but the one that removes it. Says whether there still was one.
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
        }
        removed
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.table().addresses()
    }

    /// Begins to fill the shard, with at most as many entries as this.
    ///
    /// The room is made first: a table that is filled in the order of its buckets would be crowded
    /// at one end for as long as it grows.
    pub(crate) fn start_filling(&self, at_most: usize) -> Fill {
        let pairs = self.arena.table(length_for(at_most, self.number));
        Fill { pairs, counts: ShardCounts::default() }
    }

    /// Publishes what the shard was filled with. What it held before may be gone at this time in the
    /// log.
    pub(crate) fn filled(&mut self, mut fill: Fill, time: u64) {
        self.note_removal(time);
        fill.finish(self.arena, self.number);
        *self.counts = fill.counts;
        self.home.table.replace(fill.pairs, &self.guard);
    }

    fn note_removal(&mut self, time: u64) {
        // One writer at a time.
        let time = time.max(self.home.removed_at.load(Ordering::Relaxed));
        self.home.removed_at.store(time, Ordering::Release);
    }

    /// Empties the shard at a time in the log; it is filled then.
    pub(crate) fn clear(&mut self, time: u64) {
        let least = length_for(0, self.number);
        let is_fresh = self.counts.live + self.counts.removed == 0;
        if is_fresh
            && self.home.table(&self.guard).is_some_and(|table| table.pairs_len() == least.get())
        {
            self.note_removal(time);
            return;
        }
        let empty = self.start_filling(0);
        self.filled(empty, time);
    }

    fn table(&self) -> Table<'_> {
        match self.home.table(&self.guard) {
            Some(table) => table,
            None => unreachable!("shard {} is used before it is filled", self.number),
        }
    }

    /// Grows the table, or clears removed slots out of it, before an insert would overload it.
    fn make_room(&mut self) {
        let (live, removed) = (self.counts.live as usize, self.counts.removed as usize);
        let len = self.home.table.get(&self.guard).map_or(0, <[Pair]>::len);
        if Table::pairs_for(live + removed + 1) <= len {
            return;
        }
        // Where it is removed slots that fill the table, it is as large as it has to be.
        let crowded = Table::pairs_for(live + 1) > len * 3 / 4;
        self.rebuild(if crowded { len + 1 } else { len });
    }

    /// Puts a table of another length in the place of this one, without removed slots.
    #[cold]
    fn rebuild(&mut self, wanted: usize) {
        let pairs = self.arena.table(Length::at_least(wanted, self.number));
        self.table().copy_to(Table::from(&*pairs));
        self.home.table.replace(pairs, &self.guard);
        self.counts.removed = 0;
    }

    /// Returns where the table lies. While the shard is locked none comes to lie where another one was.
    #[cfg(test)]
    pub(super) fn table_addr(&self) -> usize {
        self.home.table.get(&self.guard).map_or(0, |pairs| pairs.as_ptr().addr())
    }
}

impl ShardCounts {
    fn inserted(&mut self, reused: bool) {
        self.live += 1;
        self.removed -= u32::from(reused);
    }

    fn removed(&mut self, slots: u32) {
        self.live -= slots;
        self.removed += slots;
    }
}

/// A table that is being filled, and that nobody else sees yet.
#[derive(Debug)]
pub(crate) struct Fill {
    pairs: Pairs,
    counts: ShardCounts,
}

impl Fill {
    /// Fills in an entry unless a newer one has killed it; says whether it is live or holds its
    /// place as a tombstone.
    ///
    /// Entries come newest first. One with the hash bits of a held entry is dead if that one is
    /// not flagged *collides* (then no other key with these bits had a slot when it was written,
    /// so whatever is older is the same key, or was deleted), or if their keys are equal.
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

    /// Lets go of the tombstones, which have held their places, and of room for entries that
    /// turned out to be dead.
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

/// Returns the length of a shard's table for as many slots.
fn length_for(slots: usize, shard: usize) -> Length {
    Length::at_least(Table::pairs_for(slots), shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_grow_at_different_times_so_that_all_take_about_what_they_take_on_average() {
        let arena = Arena::default();
        for slots in (500..5000).step_by(7) {
            let size = |shard| size_of_val(&*arena.table(length_for(slots, shard)));
            let two = size(0) + size(1);
            assert!(two * 10 > slots * 2 * 182, "{two} bytes for {slots} slots, twice");
            assert!(two * 10 < slots * 2 * 257, "{two} bytes for {slots} slots, twice");
        }
    }
}
