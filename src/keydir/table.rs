//! One shard's table: buckets of four slots, found by the fingerprint, probed in order.
//!
//! - A slot is 16 bytes and holds no key: a fingerprint, and the address of the newest entry.
//! - Several slots may have the same hash bits; they are different keys. The caller compares.
//! - A probe ends at the first bucket with an empty slot. Removed slots are not empty, and count
//!   in the load, so there always is one.

use super::Address;
use super::hash::KeyHash;

const BUCKET_LEN: usize = 4;
/// The most slots in use, removed ones among them, in eighths of all.
const LOAD_MAX_EIGHTHS: usize = 7;

/// A slot: word 0 is the fingerprint, or says that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    fingerprint: u64,
    /// Offset / 8 in 26 bits, segment number in 18, extra hash bits in 12, flags in 8.
    word: u64,
}

impl Slot {
    const EMPTY: Self = Self { fingerprint: 0, word: 0 };
    const REMOVED: Self = Self { fingerprint: 1, word: 0 };

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

    fn is_live(self) -> bool {
        self.fingerprint > 1
    }

    fn has(self, hash: KeyHash) -> bool {
        self.fingerprint == hash.fingerprint
            && (self.word >> Self::EXTRA_SHIFT & Self::EXTRA_MASK) as u16 == hash.extra
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

type Bucket = [Slot; BUCKET_LEN];

/// A shard's slots.
#[derive(Debug, Default)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    live: usize,
    removed: usize,
}

impl Table {
    /// Returns the addresses of all slots with these hash bits, and their flags.
    pub(super) fn probe(&self, hash: KeyHash) -> impl Iterator<Item = (Address, SlotFlags)> {
        let found = self.chain(hash).filter(move |(_, slot)| slot.has(hash));
        found.map(|(_, slot)| (slot.address(), slot.flags()))
    }

    /// Adds a slot; there may be others with the same hash bits.
    pub(super) fn insert(&mut self, hash: KeyHash, address: Address, flags: SlotFlags) {
        self.make_room();
        let free = self.chain(hash).find(|(_, slot)| !slot.is_live()).map(|(at, _)| at);
        let Some(slot) = free.and_then(|at| self.slot(at)) else {
            unreachable!("the load is below one, so every chain has a free slot")
        };
        let reused = *slot == Slot::REMOVED;
        *slot = Slot::new(hash, address, flags);
        self.live += 1;
        self.removed -= usize::from(reused);
    }

    /// Makes a slot name another entry of its key. Says whether there was such a slot.
    pub(super) fn replace(&mut self, hash: KeyHash, old: Address, new: Address) -> bool {
        self.change(hash, old, Slot::new(hash, new, SlotFlags::default()))
    }

    /// Removes a slot. Says whether there was such a slot.
    pub(super) fn remove(&mut self, hash: KeyHash, address: Address) -> bool {
        let removed = self.change(hash, address, Slot::REMOVED);
        self.live -= usize::from(removed);
        self.removed += usize::from(removed);
        removed
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.slots().map(Slot::address)
    }

    /// Removes all slots with a flag.
    pub(super) fn sweep(&mut self, flag: SlotFlags) {
        for slot in self.buckets.as_flattened_mut() {
            if slot.is_live() && slot.flags().has(flag) {
                *slot = Slot::REMOVED;
                self.live -= 1;
                self.removed += 1;
            }
        }
    }

    /// Gives back the room that was reserved for entries which turned out to be dead.
    pub(super) fn shrink(&mut self) {
        let needed = (self.live * 8).div_ceil(LOAD_MAX_EIGHTHS * BUCKET_LEN);
        if self.buckets.len() > needed * 3 / 2 {
            self.rebuild(needed);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Returns the memory that the table takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn change(&mut self, hash: KeyHash, old: Address, new: Slot) -> bool {
        let is_it = |slot: &Slot| slot.has(hash) && slot.address() == old;
        let found = self.chain(hash).find(|(_, slot)| is_it(slot)).map(|(at, _)| at);
        let slot = found.and_then(|at| self.slot(at));
        slot.map(|slot| *slot = new).is_some()
    }

    fn slot(&mut self, at: usize) -> Option<&mut Slot> {
        self.buckets.as_flattened_mut().get_mut(at)
    }

    fn slots(&self) -> impl Iterator<Item = Slot> {
        self.buckets.as_flattened().iter().copied().filter(|slot| slot.is_live())
    }

    /// The slots that a key with this hash may lie in, by number, the first empty one last.
    fn chain(&self, hash: KeyHash) -> impl Iterator<Item = (usize, Slot)> {
        let slots = self.buckets.as_flattened();
        let start = hash.bucket(self.buckets.len()) * BUCKET_LEN;
        let (before, after) = slots.split_at_checked(start).unwrap_or((slots, &[]));
        let numbered = (start..).zip(after).chain((0..).zip(before));
        let mut ended = false;
        numbered.map(|(at, slot)| (at, *slot)).take_while(move |(_, slot)| {
            let go_on = !ended;
            ended = *slot == Slot::EMPTY;
            go_on
        })
    }

    /// Makes room for this many slots more.
    pub(super) fn reserve(&mut self, additional: usize) {
        let needed = (self.live + self.removed + additional) * 8;
        let buckets = needed.div_ceil(LOAD_MAX_EIGHTHS * BUCKET_LEN);
        if buckets > self.buckets.len() {
            self.rebuild(buckets);
        }
    }

    /// Grows the table, or clears removed slots out of it, before an insert would overload it.
    fn make_room(&mut self) {
        let len = self.buckets.len() * BUCKET_LEN;
        if (self.live + self.removed + 1) * 8 <= len * LOAD_MAX_EIGHTHS {
            return;
        }
        // By 3/2, or not at all where it is removed slots that fill the table.
        let crowded = (self.live + 1) * 8 > len * LOAD_MAX_EIGHTHS * 3 / 4;
        let buckets = self.buckets.len();
        self.rebuild(if crowded { (buckets * 3 / 2).max(buckets + 1) } else { buckets });
    }

    fn rebuild(&mut self, buckets: usize) {
        let grown = Self { buckets: vec![[Slot::EMPTY; BUCKET_LEN]; buckets], live: 0, removed: 0 };
        let old = std::mem::replace(self, grown);
        for slot in old.slots() {
            let free = self.chain(slot.hash()).find(|(_, slot)| !slot.is_live());
            if let Some(free) = free.and_then(|(at, _)| self.slot(at)) {
                *free = slot;
                self.live += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(at: u64) -> KeyHash {
        let fingerprint = (at + 2).wrapping_mul(0x9E37_79B9_7F4A_7C15).max(2);
        KeyHash { fingerprint, extra: (at % 4096) as u16 }
    }

    fn address(at: u64) -> Address {
        Address { segment: (at % (1 << 18)) as u32, offset: at * 8 }
    }

    #[test]
    fn a_table_finds_what_was_put_through_growth_and_removal() {
        let mut table = Table::default();
        for at in 0..1000 {
            table.insert(hash(at), address(at), SlotFlags::default());
        }
        for at in (0..1000).step_by(2) {
            assert!(table.remove(hash(at), address(at)));
            assert!(!table.remove(hash(at), address(at)));
        }
        for at in (1..1000).step_by(2) {
            assert!(table.replace(hash(at), address(at), address(at + 5000)));
        }
        for at in 0..1000 {
            let found: Vec<_> = table.probe(hash(at)).map(|(address, _)| address).collect();
            let expected = if at % 2 == 0 { vec![] } else { vec![address(at + 5000)] };
            assert_eq!(found, expected, "{at}");
        }
        assert_eq!(table.len(), 500);
        assert_eq!(table.addresses().count(), 500);
    }

    #[test]
    fn equal_hash_bits_live_side_by_side() {
        let mut table = Table::default();
        for at in 0..20 {
            table.insert(hash(7), address(at), SlotFlags::default());
        }
        assert_eq!(table.probe(hash(7)).count(), 20);
        assert!(table.remove(hash(7), address(3)));
        assert_eq!(table.probe(hash(7)).count(), 19);
        assert!(table.probe(hash(7)).all(|(found, _)| found != address(3)));
    }

    #[test]
    fn a_table_that_only_turns_over_does_not_grow() {
        let mut table = Table::default();
        for at in 0..100_000 {
            table.insert(hash(at), address(at), SlotFlags::default());
            if at >= 100 {
                assert!(table.remove(hash(at - 100), address(at - 100)));
            }
        }
        assert_eq!(table.len(), 100);
        assert!(table.size() < 16 * 300, "{}", table.size());
    }

    #[test]
    fn the_extremes_of_a_slot_fit() {
        let mut table = Table::default();
        let hash = KeyHash { fingerprint: u64::MAX, extra: 0xfff };
        let address = Address { segment: (1 << 18) - 1, offset: (512 << 20) - 8 };
        table.insert(hash, address, SlotFlags::TOMBSTONE);
        assert_eq!(table.probe(hash).collect::<Vec<_>>(), [(address, SlotFlags::TOMBSTONE)]);
        table.sweep(SlotFlags::TOMBSTONE);
        assert_eq!(table.len(), 0);
    }
}
