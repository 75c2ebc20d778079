//! The `.hint` of a sealed segment: one slot for each entry, so that the keydir can be filled
//! without reading the log.
//!
//! - A hint is derived and checksummed, can be deleted, and is never authoritative. It is rebuilt
//!   if it is missing, damaged, of another store, or for another length than the manifest lists.
//! - Every entry of a key is listed, including dead copies and tombstones. End entries and entries
//!   that only carry a mark are not.
//! - Slots are sorted by hash bits, and slots with equal bits newest first. So the slots of a
//!   keydir shard are contiguous, and the newest entry of a key comes before the entries that it
//!   superseded.
//! - `file` knows the hint's format on disk, and reads parts of it.

mod file;
mod known;
mod pieces;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::ops::Range;
use std::sync::Arc;

use super::header::Identity;
use super::{FIRST_OFFSET, Segment, SegmentId, ignore_unknown_codec};
use crate::entry::{ALIGNMENT, Flags, Header};
use crate::error::Result;
use crate::fs::File;
use crate::key_hash::KeyHash;
use crate::segment::read::scan;

pub(crate) use file::HintFile;
pub(crate) use known::SegmentHint;
use pieces::Pieces;

const SLOT_SIZE: usize = 16;
/// Number of steps in which the summary records bytes by expiry.
const EXPIRY_STEPS: usize = 16;

/// What a hint says about one entry, as the two words that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HintSlot {
    fingerprint: u64,
    /// Offset / 8 in 26 bits, extra hash bits in 12, size / 8 in 23, three flags.
    word: u64,
}

const _: () = assert!(size_of::<HintSlot>() == SLOT_SIZE);

impl HintSlot {
    const OFFSET_SHIFT: u32 = 38;
    const EXTRA_SHIFT: u32 = 26;
    const EXTRA_MASK: u64 = (1 << 12) - 1;
    const SIZE_SHIFT: u32 = 3;
    /// All ones mean that the size is only in the log.
    const SIZE_MASK: u64 = (1 << 23) - 1;
    const TOMBSTONE: u64 = 0b100;
    const EXPIRES: u64 = 0b010;
    const COLLIDES: u64 = 0b001;

    pub(crate) fn new(hash: KeyHash, offset: u64, size: u64, flags: Flags) -> Self {
        let flag = |flag: Flags, bit: u64| if flags.has(flag) { bit } else { 0 };
        let word = (offset / ALIGNMENT) << Self::OFFSET_SHIFT
            | (u64::from(hash.extra) & Self::EXTRA_MASK) << Self::EXTRA_SHIFT
            | (size / ALIGNMENT).min(Self::SIZE_MASK) << Self::SIZE_SHIFT
            | flag(Flags::TOMBSTONE, Self::TOMBSTONE)
            | flag(Flags::EXPIRES, Self::EXPIRES)
            | flag(Flags::COLLIDES, Self::COLLIDES);
        Self { fingerprint: hash.fingerprint, word }
    }

    pub(crate) fn hash(self) -> KeyHash {
        let extra = (self.word >> Self::EXTRA_SHIFT & Self::EXTRA_MASK) as u16;
        KeyHash { fingerprint: self.fingerprint, extra }
    }

    pub(crate) fn shard(self) -> usize {
        self.hash().shard()
    }

    pub(crate) fn offset(self) -> u64 {
        (self.word >> Self::OFFSET_SHIFT) * ALIGNMENT
    }

    /// Returns the entry's size in bytes, or `None` if it is too large for a slot.
    pub(crate) fn size(self) -> Option<u64> {
        let units = self.word >> Self::SIZE_SHIFT & Self::SIZE_MASK;
        (units != Self::SIZE_MASK).then_some(units * ALIGNMENT)
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.word & Self::TOMBSTONE != 0
    }

    /// Returns whether the entry has an expiry.
    pub(crate) fn expires(self) -> bool {
        self.word & Self::EXPIRES != 0
    }

    pub(crate) fn collides(self) -> bool {
        self.word & Self::COLLIDES != 0
    }

    /// Slots with equal hash bits are ordered newest first.
    fn order(&self, other: &Self) -> Ordering {
        let rest = |slot: &Self| (slot.hash().extra, Reverse(slot.offset()));
        self.fingerprint.cmp(&other.fingerprint).then_with(|| rest(self).cmp(&rest(other)))
    }
}

/// Totals over a segment's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Puts and tombstones.
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Bytes of the tombstones.
    pub(crate) tombstone_size: u64,
    pub(crate) key_size: u64,
    pub(crate) value_size: u64,
    /// The lowest and the highest timestamp of all entries, including end entries and entries that
    /// only carry a mark. The next entry's timestamp has to be later. Both are zero if there are no
    /// entries.
    pub(crate) first_timestamp: u64,
    pub(crate) last_timestamp: u64,
    /// Ascending expiries, each with the bytes of the entries that expire after the preceding one
    /// and no later than this one.
    pub(crate) expiring: Vec<(u64, u64)>,
}

impl Summary {
    /// Returns the size of the hint's file in bytes.
    pub(crate) fn hint_size(&self) -> u64 {
        file::encoded_size(self.entries)
    }

    /// Returns roughly how many bytes belong to expired entries, including dead ones.
    pub(crate) fn expired_size(&self, now: u64) -> u64 {
        let over = self.expiring.iter().take_while(|(expiry, _)| *expiry <= now);
        over.map(|(_, size)| size).sum()
    }
}

/// A hint in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) summary: Summary,
    pub(crate) slots: Vec<HintSlot>,
}

impl Hint {
    /// Returns the slots of these shards.
    pub(crate) fn slots_of(&self, shards: &Range<usize>) -> &[HintSlot] {
        let start = self.slots.partition_point(|slot| slot.shard() < shards.start);
        let end = self.slots.partition_point(|slot| slot.shard() < shards.end);
        self.slots.get(start..end).unwrap_or_default()
    }
}

/// Builds a hint from the entries of a segment, in the order of the log. A batch is listed only if
/// it is complete.
#[derive(Debug, Clone, Default)]
pub(crate) struct HintBuilder {
    summary: Summary,
    slots: Pieces<HintSlot>,
    /// The expiries of entries, with their sizes.
    expiring: Pieces<(u64, u64)>,
    /// The state before the current batch: the summary, the number of slots, and the number of
    /// expiries.
    before_batch: Option<(Summary, usize, usize)>,
}

impl HintBuilder {
    pub(crate) fn add(&mut self, entry: &scan::Scanned<'_>, hash: impl Fn(&[u8]) -> KeyHash) {
        if !entry.continues() {
            self.add_read(entry, hash);
            self.before_batch = None;
            return;
        }
        if self.before_batch.is_none() {
            let (slots, expiring) = (self.slots.len(), self.expiring.len());
            self.before_batch = Some((self.summary.clone(), slots, expiring));
        }
        self.add_read(entry, hash);
    }

    fn add_read(&mut self, entry: &scan::Scanned<'_>, hash: impl Fn(&[u8]) -> KeyHash) {
        let (header, timestamp) = (&entry.header, entry.header.timestamp);
        self.add_appended(header, entry.offset, timestamp, || hash(entry.key));
    }

    /// Adds an entry when it is appended. The batches of a segment that is appended to are complete
    /// when it is sealed.
    #[inline]
    pub(crate) fn add_appended(
        &mut self,
        header: &Header,
        offset: u64,
        timestamp: u64,
        hash: impl FnOnce() -> KeyHash,
    ) {
        let summary = &mut self.summary;
        if summary.first_timestamp == 0 {
            summary.first_timestamp = timestamp;
        }
        summary.first_timestamp = summary.first_timestamp.min(timestamp);
        summary.last_timestamp = summary.last_timestamp.max(timestamp);
        if !header.is_put_or_delete() {
            return;
        }
        let size = header.entry_size();
        summary.entries += 1;
        if header.is_tombstone() {
            summary.tombstones += 1;
            summary.tombstone_size += size;
        }
        summary.key_size += u64::from(header.key_size);
        summary.value_size += u64::from(header.value_size);
        if let Some(expiry) = header.expiry {
            self.expiring.push((expiry, size));
        }
        self.slots.push(HintSlot::new(hash(), offset, size, header.flags));
    }

    /// Records the timestamp of the segment's end entry.
    pub(crate) fn end(&mut self, timestamp: u64) {
        let last = &mut self.summary.last_timestamp;
        *last = timestamp.max(*last);
    }

    /// Returns how much memory the lists take, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.slots.len() * size_of::<HintSlot>() + self.expiring.len() * size_of::<(u64, u64)>()
    }

    pub(crate) fn finish(self) -> Hint {
        let Self { summary, slots, expiring, before_batch } = self;
        let whole = (summary, slots.len(), expiring.len());
        let (mut summary, slots_len, expiring_len) = before_batch.unwrap_or(whole);
        let mut slots = slots.into_vec(slots_len);
        slots.sort_unstable_by(HintSlot::order);
        let mut expiring = expiring.into_vec(expiring_len);
        expiring.sort_unstable();
        let step_len = expiring.len().div_ceil(EXPIRY_STEPS).max(1);
        let step = |step: &[(u64, u64)]| {
            let expiry = step.last().map_or(0, |(expiry, _)| *expiry);
            (expiry, step.iter().map(|(_, size)| size).sum())
        };
        summary.expiring = expiring.chunks(step_len).map(step).collect();
        Hint { summary, slots }
    }
}

/// The segment that a hint was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HintSource {
    pub(crate) id: SegmentId,
    pub(crate) identity: Identity,
    /// The segment's length in bytes.
    pub(crate) length: u64,
}

impl Hint {
    /// Builds the hint of a sealed segment from its entries, all of which must be valid.
    pub(crate) fn build(
        file: &File,
        source: HintSource,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        let mut builder = HintBuilder::default();
        let end = scan::for_each_sealed(file, source.id, source.length, |entry| {
            builder.add(&entry, &hash);
        })?;
        if let Some(timestamp) = end {
            builder.end(timestamp);
        }
        Ok(builder.finish())
    }

    /// Builds the hint from an open segment, whose file a writer in another process may have
    /// removed.
    pub(crate) fn build_from_segment(
        segment: &Arc<Segment>,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        let (mut builder, mut offset) = (HintBuilder::default(), FIRST_OFFSET);
        while offset < segment.size() {
            let stored = segment.entry(offset)?;
            ignore_unknown_codec(stored.check())?;
            let header = stored.header()?;
            builder.add(&scan::Scanned { offset, header, key: stored.entry().key() }, &hash);
            offset += header.entry_size();
        }
        Ok(builder.finish())
    }
}
