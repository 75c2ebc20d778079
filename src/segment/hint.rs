//! The `.hint` of a sealed segment: one slot an entry, so that the keydir is filled without
//! reading the log.
//!
//! - Derived, checksummed, deletable, rebuilt; never the truth. A hint that is missing, damaged,
//!   of another store or of another length than the manifest lists is built anew.
//! - Every entry of a key is listed, dead copies and tombstones too; end entries and lone marks
//!   are not.
//! - Sorted by hash bits, and where these are equal newest first, so that a shard of the keydir is
//!   one run, and the newest entry of a key comes before the ones it killed.

use std::cmp::Reverse;

use super::header::Identity;
use super::{Dir, SegmentId, scan};
use crate::entry::{ALIGNMENT, Flags, HEADER_SIZE};
use crate::error::Result;
use crate::fs::{Access, File, Fs, is_failed_sync};
use crate::keydir::KeyHash;

/// The version of hints; they can be built anew, so it moves on its own.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"bc-hint\0";
const SUMMARY_SIZE: usize = 512;
const SLOT_SIZE: usize = 16;
/// Slots between two checksums, so that a part of a hint can be read and trusted alone.
const BLOCK_LEN: usize = 255;
const CHECKSUM_SIZE: usize = 4;
/// Steps of the summary's account of bytes by expiry.
const EXPIRY_STEPS: usize = 16;

// Fields of the summary, in the order of `docs/format.md`.
const FIELDS_AT: usize = 16;
const FIELDS_LEN: usize = 11;
const STEPS_AT: usize = FIELDS_AT + FIELDS_LEN * 8;
const SUMMARY_CHECKSUM_AT: usize = SUMMARY_SIZE - CHECKSUM_SIZE;

const _: () = assert!(STEPS_AT + EXPIRY_STEPS * 16 <= SUMMARY_CHECKSUM_AT);

/// What a hint says of one entry, as the two words that are stored.
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
    /// All ones: ask the log.
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

    pub(crate) fn offset(self) -> u64 {
        (self.word >> Self::OFFSET_SHIFT) * ALIGNMENT
    }

    /// Returns the entry's size in bytes; nothing if it is too large to be told here.
    pub(crate) fn size(self) -> Option<u64> {
        let units = self.word >> Self::SIZE_SHIFT & Self::SIZE_MASK;
        (units != Self::SIZE_MASK).then_some(units * ALIGNMENT)
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.word & Self::TOMBSTONE != 0
    }

    pub(crate) fn collides(self) -> bool {
        self.word & Self::COLLIDES != 0
    }

    /// Equal hash bits stand newest first.
    fn order(&self) -> (KeyHash, Reverse<u64>) {
        (self.hash(), Reverse(self.offset()))
    }

    fn decode(bytes: &[u8; SLOT_SIZE]) -> Self {
        let [fingerprint, word] = words(bytes);
        Self { fingerprint, word }
    }
}

/// Counts over a segment's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Entries of keys: puts and tombstones.
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) key_size: u64,
    pub(crate) value_size: u64,
    /// The lowest and the highest timestamp of all entries, end entry and lone marks among them:
    /// the next entry's has to be later. Zero where there are none.
    pub(crate) first_timestamp: u64,
    pub(crate) last_timestamp: u64,
    /// Rising expiries, each with the bytes of the entries that expire then or after the step
    /// before.
    pub(crate) expiring: Vec<(u64, u64)>,
}

/// A hint in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) summary: Summary,
    pub(crate) slots: Vec<HintSlot>,
}

/// Gathers a hint from the entries of a segment, in any order.
#[derive(Debug, Default)]
pub(crate) struct HintBuilder {
    hint: Hint,
    expiring: Vec<(u64, u64)>,
}

impl HintBuilder {
    pub(crate) fn add(&mut self, entry: &scan::Scanned<'_>, hash: KeyHash) {
        let header = &entry.header;
        let summary = &mut self.hint.summary;
        if summary.first_timestamp == 0 {
            summary.first_timestamp = header.timestamp;
        }
        summary.first_timestamp = summary.first_timestamp.min(header.timestamp);
        if !header.is_of_a_key() {
            return;
        }
        let size = header.entry_size();
        summary.entries += 1;
        summary.tombstones += u64::from(header.is_tombstone());
        summary.key_size += u64::from(header.key_size);
        summary.value_size += u64::from(header.value_size);
        self.expiring.extend(header.expiry.map(|expiry| (expiry, size)));
        self.hint.slots.push(HintSlot::new(hash, entry.offset, size, header.flags));
    }

    pub(crate) fn finish(mut self) -> Hint {
        self.hint.slots.sort_unstable_by_key(HintSlot::order);
        self.expiring.sort_unstable();
        let step_len = self.expiring.len().div_ceil(EXPIRY_STEPS).max(1);
        let step = |step: &[(u64, u64)]| {
            let expiry = step.last().map_or(0, |(expiry, _)| *expiry);
            (expiry, step.iter().map(|(_, size)| size).sum())
        };
        self.hint.summary.expiring = self.expiring.chunks(step_len).map(step).collect();
        self.hint
    }
}

/// The segment that a hint was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: SegmentId,
    pub(crate) identity: Identity,
    /// The segment's length in bytes.
    pub(crate) length: u64,
}

impl Hint {
    /// Builds the hint of a sealed segment from its entries, each of which has to check.
    pub(crate) fn build(
        file: &File,
        source: Source,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        let mut builder = HintBuilder::default();
        let last_timestamp = scan::for_each_sealed(file, source.id, source.length, |entry| {
            builder.add(&entry, hash(entry.key));
        })?;
        let mut hint = builder.finish();
        hint.summary.last_timestamp = last_timestamp;
        Ok(hint)
    }

    /// Writes the hint beside its segment, synced; the caller syncs the directory.
    ///
    /// Where it can't be written (no space, no file descriptor) the store does without it until
    /// the next open. Only a sync that failed is an error.
    pub(crate) fn write(&self, fs: &Fs, dir: &Dir, source: Source) -> Result<()> {
        let path = dir.hint(source.id);
        let temporary = Dir::temporary(&path);
        let write = || {
            let file = fs.open(&temporary, Access::Create)?;
            file.write_at(&self.encode(source), 0)?;
            file.sync()?;
            fs.rename(&temporary, &path)
        };
        write().or_else(|error| {
            // Best effort: what can't be removed now is removed at the next open.
            let _ = fs.remove(&temporary);
            if is_failed_sync(&error) { Err(error) } else { Ok(()) }
        })
    }

    /// Reads the hint of a segment; nothing if there is none, or it can't be read or used.
    pub(crate) fn read(fs: &Fs, dir: &Dir, source: Source) -> Option<Self> {
        let file = fs.open(&dir.hint(source.id), Access::Read).ok()?;
        // Every slot stands for an entry of at least a header, which bounds what makes sense.
        let slots_max = source.length / HEADER_SIZE as u64;
        let size = file.size().ok().filter(|size| *size <= encoded_size(slots_max))?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        let read_size = file.read_at(&mut bytes, 0).ok()?;
        bytes.truncate(read_size);
        Self::decode(&bytes, source)
    }

    pub(crate) fn encode(&self, source: Source) -> Vec<u8> {
        let summary = &self.summary;
        let fields: [u64; FIELDS_LEN] = [
            u64::from(source.id.0),
            source.identity.store_id,
            source.identity.hash_seed,
            source.length,
            summary.entries,
            summary.tombstones,
            summary.key_size,
            summary.value_size,
            summary.first_timestamp,
            summary.last_timestamp,
            summary.expiring.len() as u64,
        ];
        let steps = summary.expiring.iter().flat_map(|(expiry, size)| [*expiry, *size]);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        bytes.resize(FIELDS_AT, 0);
        bytes.extend(fields.into_iter().chain(steps).flat_map(u64::to_be_bytes));
        bytes.resize(SUMMARY_CHECKSUM_AT, 0);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        for (at, block) in (0..).zip(self.slots.chunks(BLOCK_LEN)) {
            let start = bytes.len();
            let slots = block.iter().flat_map(|slot| [slot.fingerprint, slot.word]);
            bytes.extend(slots.flat_map(u64::to_be_bytes));
            let sum = block_sum(source.id, at, bytes.get(start..).unwrap_or_default());
            bytes.extend(sum.to_be_bytes());
        }
        bytes
    }

    /// Decodes a hint; nothing if any of it does not check or it is another segment's.
    pub(crate) fn decode(bytes: &[u8], source: Source) -> Option<Self> {
        let (head, blocks) = bytes.split_at_checked(SUMMARY_SIZE)?;
        let (summed, checksum) = head.split_at_checked(SUMMARY_CHECKSUM_AT)?;
        let version = summed.strip_prefix(MAGIC)?.get(..2)?;
        if crc32fast::hash(summed).to_be_bytes() != checksum || version != VERSION.to_be_bytes() {
            return None;
        }
        let fields: [u64; FIELDS_LEN] = words(summed.get(FIELDS_AT..STEPS_AT)?);
        let [id, store_id, hash_seed, length, entries, tombstones, rest @ ..] = fields;
        let [key_size, value_size, first_timestamp, last_timestamp, steps] = rest;
        let identity = Identity { store_id, hash_seed };
        let found = Source { id: SegmentId(u32::try_from(id).ok()?), identity, length };
        let steps = usize::try_from(steps).ok().filter(|steps| *steps <= EXPIRY_STEPS)?;
        if found != source || blocks.len() as u64 + SUMMARY_SIZE as u64 != encoded_size(entries) {
            return None;
        }
        let pairs: [u64; 2 * EXPIRY_STEPS] =
            words(summed.get(STEPS_AT..STEPS_AT + EXPIRY_STEPS * 16)?);
        let (pairs, _) = pairs.as_chunks::<2>();
        let expiring = pairs.iter().take(steps).map(|[expiry, size]| (*expiry, *size)).collect();
        let mut slots = Vec::with_capacity(usize::try_from(entries).ok()?);
        for (at, block) in (0..).zip(blocks.chunks(BLOCK_LEN * SLOT_SIZE + CHECKSUM_SIZE)) {
            let (block, checksum) = block.split_last_chunk::<CHECKSUM_SIZE>()?;
            if block_sum(source.id, at, block).to_be_bytes() != *checksum {
                return None;
            }
            let (encoded, rest) = block.as_chunks::<SLOT_SIZE>();
            slots.extend(encoded.iter().map(HintSlot::decode));
            rest.is_empty().then_some(())?;
        }
        let summary = Summary {
            entries,
            tombstones,
            key_size,
            value_size,
            first_timestamp,
            last_timestamp,
            expiring,
        };
        Some(Self { summary, slots })
    }
}

/// The size of a hint with this many slots.
fn encoded_size(slots: u64) -> u64 {
    let blocks = slots.div_ceil(BLOCK_LEN as u64);
    (SUMMARY_SIZE as u64)
        .saturating_add(slots.saturating_mul(SLOT_SIZE as u64))
        .saturating_add(blocks.saturating_mul(CHECKSUM_SIZE as u64))
}

/// A block's checksum knows its segment and its number, so that no block passes for another.
fn block_sum(id: SegmentId, at: u32, block: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.0.to_be_bytes());
    sum.update(&at.to_be_bytes());
    sum.update(block);
    sum.finalize()
}

/// Decodes consecutive words; missing ones are zero.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let (encoded, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| encoded.get(at).map_or(0, |word| u64::from_be_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLLIDES: Flags = Flags::COLLIDES;

    fn source() -> Source {
        let identity = Identity { store_id: 1, hash_seed: 2 };
        Source { id: SegmentId(3), identity, length: 1 << 20 }
    }

    fn hint(len: u64) -> Hint {
        let slot = |at: u64| {
            let hash = KeyHash { fingerprint: at * 7, extra: (at % 4096) as u16 };
            HintSlot::new(
                hash,
                64 + at * 32,
                32,
                Flags::default().with_if(at.is_multiple_of(2), COLLIDES),
            )
        };
        let summary = Summary {
            entries: len,
            tombstones: 4,
            key_size: 5,
            value_size: 6,
            first_timestamp: 7,
            last_timestamp: 8,
            expiring: vec![(9, 10), (11, 12)],
        };
        Hint { summary, slots: (0..len).map(slot).collect() }
    }

    #[test]
    fn a_hint_is_read_as_it_was_written() {
        for len in [0, 1, 254, 255, 256, 1000] {
            let bytes = hint(len).encode(source());
            assert_eq!(bytes.len() as u64, encoded_size(len));
            assert_eq!(Hint::decode(&bytes, source()), Some(hint(len)));
        }
    }

    #[test]
    fn a_damaged_cut_or_foreign_hint_is_not_used() {
        let bytes = hint(300).encode(source());
        for at in 0..bytes.len() {
            for mask in [0x01, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                assert_eq!(Hint::decode(&damaged, source()), None, "byte {at}");
            }
            assert_eq!(Hint::decode(&bytes[..at], source()), None, "cut at {at}");
        }
        let mut doubled = bytes.clone();
        doubled.extend_from_slice(&bytes);
        assert_eq!(Hint::decode(&doubled, source()), None);
        assert_eq!(Hint::decode(&bytes, Source { length: 5, ..source() }), None);
        assert_eq!(Hint::decode(&bytes, Source { id: SegmentId(4), ..source() }), None);
    }

    #[test]
    fn the_extremes_of_a_slot_fit() {
        let hash = KeyHash { fingerprint: u64::MAX, extra: 0xfff };
        let flags = Flags::TOMBSTONE.with(COLLIDES).with(Flags::EXPIRES);
        let (offset, size) = ((512 << 20) - 8, ((1 << 23) - 2) * 8);
        let slot = HintSlot::new(hash, offset, size, flags);
        assert_eq!((slot.hash(), slot.offset(), slot.size()), (hash, offset, Some(size)));
        assert!(slot.is_tombstone() && slot.collides());
        assert_eq!(HintSlot::new(hash, 64, size + 8, COLLIDES).size(), None);
        assert_eq!(HintSlot::new(hash, 64, 4 << 30, COLLIDES).size(), None);
    }
}
