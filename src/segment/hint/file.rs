//! The format of a hint on disk, and reading parts of it.
//!
//! - The summary has a checksum, and is followed by blocks of slots. The checksum of each block
//!   covers its segment and its number. `docs/format.md` specifies the bytes.
//! - Hash bits are spread evenly, so the place of a shard's slots is guessed. Slots whose checksums
//!   match then show whether the guess was right, or how far off it was.
//! - The file is opened for each read, since a store may have more hints than a process may have
//!   open files. The slots of a small hint are read with its summary and kept, since there may be
//!   many small hints.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EXPIRY_STEPS, Hint, HintSlot, HintSource, SLOT_SIZE, Summary};
use crate::clock::TIME_MAX;
use crate::entry::HEADER_SIZE;
use crate::error::Result;
use crate::fs::{Access, File, Fs};
use crate::keydir::SHARD_COUNT;
use crate::mistake::{Mistake, made};
use crate::segment::header::Identity;
use crate::segment::{Dir, SegmentId, sidecar};

/// The version of hints. It changes independently, since hints can be rebuilt.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"bc-hint\0";
const SUMMARY_SIZE: usize = 512;
/// Number of slots in a block. Each block has a checksum, so it can be read and trusted by itself.
const BLOCK_LEN: usize = 255;
const BLOCK_SIZE: usize = BLOCK_LEN * SLOT_SIZE + CHECKSUM_SIZE;
const CHECKSUM_SIZE: usize = 4;
/// Size in bytes of the slots of a small hint, plus one byte, which a small hint does not have.
const SMALL_SIZE: usize = 16 * SLOT_SIZE + CHECKSUM_SIZE + 1;
/// The approximate size in bytes of the pieces in which a hint is written.
pub(super) const PIECE_SIZE: usize = if cfg!(test) { 1 << 13 } else { 1 << 20 };

// Fields of the summary, in the order of `docs/format.md`.
const FIELDS_AT: usize = 16;
const FIELDS_LEN: usize = 11;
const STEPS_AT: usize = FIELDS_AT + FIELDS_LEN * 8;
const TOMBSTONE_SIZE_AT: usize = STEPS_AT + EXPIRY_STEPS * 16;
const SUMMARY_CHECKSUM_AT: usize = SUMMARY_SIZE - CHECKSUM_SIZE;

const _: () = assert!(TOMBSTONE_SIZE_AT + 8 <= SUMMARY_CHECKSUM_AT);

/// A hint on disk with a valid summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HintFile {
    path: PathBuf,
    source: HintSource,
    summary: Summary,
    /// All slots, if they are few and their checksums match.
    slots: Option<Arc<[HintSlot]>>,
}

impl HintFile {
    /// Opens the hint of a segment. Returns `None` if there is none, or if it can't be read or
    /// used.
    pub(crate) fn open(fs: &Fs, dir: &Dir, source: HintSource) -> Option<Self> {
        let path = dir.hint(source.id);
        let file = fs.open(&path, Access::Read).ok()?;
        let mut bytes = [0; SUMMARY_SIZE + SMALL_SIZE];
        let read_size = file.read_at(&mut bytes, 0).ok()?;
        let (head, rest) = bytes.split_first_chunk()?;
        let summary = Summary::decode(head, source)?;
        let size = encoded_size(summary.entries);
        let blocks = (read_size as u64 == size).then(|| rest.get(..read_size - SUMMARY_SIZE));
        let slots = blocks.flatten().and_then(|blocks| decode_blocks(blocks, source.id, 0));
        let slots = slots.filter(|slots| is_in_order(slots)).map(Arc::from);
        let whole = slots.is_some() || file.size().ok()? == size;
        whole.then_some(Self { path, source, summary, slots })
    }

    /// Reads the last timestamp in a hint with a valid summary, whatever store and segment it
    /// belongs to.
    pub(crate) fn last_timestamp(fs: &Fs, path: &Path) -> Option<u64> {
        let mut head = [0; SUMMARY_SIZE];
        fs.open(path, Access::Read).ok()?.read_at(&mut head, 0).ok()?;
        let [.., last_timestamp, _] = checked_fields(&head)?;
        Some(last_timestamp)
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Reads all slots of these shards. Returns `None` if that is not possible, or if a block that
    /// was read is invalid.
    pub(crate) fn slots(&self, fs: &Fs, shards: &Range<usize>) -> Option<Vec<HintSlot>> {
        if let Some(slots) = &self.slots {
            let start = slots.partition_point(|slot| slot.shard() < shards.start);
            let end = slots.partition_point(|slot| slot.shard() < shards.end);
            return slots.get(start..end).map(<[_]>::to_vec);
        }
        let file = fs.open(&self.path, Access::Read).ok()?;
        let block_count = self.summary.entries.div_ceil(BLOCK_LEN as u64);
        let mut blocks = self.guess(shards);
        let mut slots = self.read(&file, blocks.clone())?;
        // A slot of another shard on either side shows that no slot is missing.
        loop {
            let more = blocks.end - blocks.start;
            let first = slots.first().map(|slot| slot.shard());
            let last = slots.last().map(|slot| slot.shard());
            if blocks.start > 0 && first.is_some_and(|first| first >= shards.start) {
                let from = blocks.start.saturating_sub(more);
                let before = self.read(&file, from..blocks.start)?;
                slots.splice(..0, before);
                blocks.start = from;
            } else if blocks.end < block_count && last.is_some_and(|last| last < shards.end) {
                let to = block_count.min(blocks.end + more);
                slots.append(&mut self.read(&file, blocks.end..to)?);
                blocks.end = to;
            } else {
                break;
            }
        }
        if !is_in_order(&slots) {
            return None;
        }
        slots.truncate(slots.partition_point(|slot| slot.shard() < shards.end));
        slots.drain(..slots.partition_point(|slot| slot.shard() < shards.start));
        Some(slots)
    }

    /// Returns the blocks in which the slots of these shards should lie: at least one, if the hint
    /// has any.
    fn guess(&self, shards: &Range<usize>) -> Range<u64> {
        let entries = self.summary.entries;
        // Two standard deviations of the number of slots below the middle.
        let margin = entries.isqrt();
        let below = |shard: usize| entries * shard as u64 / SHARD_COUNT as u64;
        let start = below(shards.start).saturating_sub(margin) / BLOCK_LEN as u64;
        let end = (below(shards.end) + margin).min(entries).div_ceil(BLOCK_LEN as u64);
        start..end
    }

    /// Reads blocks, all of which must be valid.
    fn read(&self, file: &File, blocks: Range<u64>) -> Option<Vec<HintSlot>> {
        let starts_at =
            |block: u64| encoded_size(self.summary.entries.min(block * BLOCK_LEN as u64));
        let (start, end) = (starts_at(blocks.start), starts_at(blocks.end));
        let mut bytes = vec![0; usize::try_from(end - start).ok()?];
        let whole = file.read_at(&mut bytes, start).ok()? == bytes.len();
        decode_blocks(whole.then_some(&bytes)?, self.source.id, u32::try_from(blocks.start).ok()?)
    }
}

impl Hint {
    /// Writes the hint next to its segment and syncs it. The caller syncs the directory.
    ///
    /// If the hint can't be written, for lack of space or of a file descriptor, the store does
    /// without it until the next open. Only an error that ends writing is returned.
    pub(crate) fn write(&self, fs: &Fs, dir: &Dir, source: HintSource) -> Result<()> {
        let path = dir.hint(source.id);
        sidecar::write(fs, &path, |write| self.encode_in_pieces(source, write)).map(drop)
    }

    /// Passes the encoded hint to a closure in pieces. Encoded as a whole, it would take as much
    /// memory again as its slots.
    fn encode_in_pieces(
        &self,
        source: HintSource,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut bytes = self.summary.encode(source);
        for (at, block) in (0..).zip(self.slots.chunks(BLOCK_LEN)) {
            if bytes.len() >= PIECE_SIZE {
                write(&bytes)?;
                bytes.clear();
            }
            let start = bytes.len();
            let slots = block.iter().flat_map(|slot| [slot.fingerprint, slot.word]);
            bytes.extend(slots.flat_map(u64::to_be_bytes));
            let sum = block_sum(source.id, at, bytes.get(start..).unwrap_or_default());
            bytes.extend(sum.to_be_bytes());
        }
        write(&bytes)
    }

    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn encode(&self, source: HintSource) -> Vec<u8> {
        let mut bytes = Vec::new();
        let gather = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        self.encode_in_pieces(source, gather).unwrap();
        bytes
    }

    /// Decodes a hint. Returns `None` if any part of it is invalid, or if it is another segment's.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn decode(bytes: &[u8], source: HintSource) -> Option<Self> {
        let (head, blocks) = bytes.split_first_chunk()?;
        let summary = Summary::decode(head, source)?;
        let whole = bytes.len() as u64 == encoded_size(summary.entries);
        let slots = decode_blocks(whole.then_some(blocks)?, source.id, 0)?;
        Some(Self { summary, slots })
    }
}

impl Summary {
    fn encode(&self, source: HintSource) -> Vec<u8> {
        let fields: [u64; FIELDS_LEN] = [
            u64::from(source.id.0),
            source.identity.store_id,
            source.identity.hash_seed,
            source.length,
            self.entries,
            self.tombstones,
            self.key_size,
            self.value_size,
            self.first_timestamp,
            self.last_timestamp,
            self.expiring.len() as u64,
        ];
        let steps = self.expiring.iter().flat_map(|(expiry, size)| [*expiry, *size]);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        bytes.resize(FIELDS_AT, 0);
        bytes.extend(fields.into_iter().chain(steps).flat_map(u64::to_be_bytes));
        bytes.resize(TOMBSTONE_SIZE_AT, 0);
        bytes.extend(self.tombstone_size.to_be_bytes());
        bytes.resize(SUMMARY_CHECKSUM_AT, 0);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    /// Decodes a summary. Returns `None` if it is invalid, implausible, or another segment's.
    fn decode(head: &[u8; SUMMARY_SIZE], source: HintSource) -> Option<Self> {
        let [id, store_id, hash_seed, length, entries, tombstones, rest @ ..] =
            checked_fields(head)?;
        let [key_size, value_size, first_timestamp, last_timestamp, steps] = rest;
        let identity = Identity { store_id, hash_seed };
        let found = HintSource { id: SegmentId(u32::try_from(id).ok()?), identity, length };
        let steps = usize::try_from(steps).ok().filter(|steps| *steps <= EXPIRY_STEPS)?;
        // Every slot stands for an entry with at least a header, which bounds the number of slots.
        if found != source || entries > source.length / HEADER_SIZE as u64 {
            return None;
        }
        // No entry has such a timestamp, and later entries would need even later timestamps.
        if last_timestamp >= TIME_MAX {
            return None;
        }
        let pairs: [u64; 2 * EXPIRY_STEPS] = words(head.get(STEPS_AT..TOMBSTONE_SIZE_AT)?);
        let [tombstone_size] = words(head.get(TOMBSTONE_SIZE_AT..)?);
        let (pairs, _) = pairs.as_chunks::<2>();
        let expiring = pairs.iter().take(steps).map(|[expiry, size]| (*expiry, *size)).collect();
        Some(Self {
            entries,
            tombstones,
            tombstone_size,
            key_size,
            value_size,
            first_timestamp,
            last_timestamp,
            expiring,
        })
    }
}

fn is_in_order(slots: &[HintSlot]) -> bool {
    slots.is_sorted_by(|a, b| a.order(b).is_lt())
}

/// Returns the numbers in a valid summary of this version.
fn checked_fields(head: &[u8; SUMMARY_SIZE]) -> Option<[u64; FIELDS_LEN]> {
    let (summed, checksum) = head.split_at_checked(SUMMARY_CHECKSUM_AT)?;
    let version = summed.strip_prefix(MAGIC)?.get(..2)?;
    if crc32fast::hash(summed).to_be_bytes() != checksum || version != VERSION.to_be_bytes() {
        return None;
    }
    Some(words(summed.get(FIELDS_AT..STEPS_AT)?))
}

/// Decodes consecutive blocks, the first of which has this number. Returns `None` if one is
/// invalid.
fn decode_blocks(bytes: &[u8], id: SegmentId, first: u32) -> Option<Vec<HintSlot>> {
    let mut slots = Vec::with_capacity(bytes.len() / SLOT_SIZE);
    for (at, block) in (first..).zip(bytes.chunks(BLOCK_SIZE)) {
        let (block, checksum) = block.split_last_chunk::<CHECKSUM_SIZE>()?;
        let is_good = block_sum(id, at, block).to_be_bytes() == *checksum;
        if !is_good && !made(Mistake::HintTrusted) {
            return None;
        }
        let (encoded, rest) = block.as_chunks::<SLOT_SIZE>();
        slots.extend(encoded.iter().map(|slot| {
            let [fingerprint, word] = words(slot);
            HintSlot { fingerprint, word }
        }));
        rest.is_empty().then_some(())?;
    }
    Some(slots)
}

/// Returns the size in bytes of a hint with this many slots.
pub(super) fn encoded_size(slots: u64) -> u64 {
    let blocks = slots.div_ceil(BLOCK_LEN as u64);
    (SUMMARY_SIZE as u64)
        .saturating_add(slots.saturating_mul(SLOT_SIZE as u64))
        .saturating_add(blocks.saturating_mul(CHECKSUM_SIZE as u64))
}

/// Returns the checksum of a block. It covers the segment and the block's number, so that no block
/// passes for another.
fn block_sum(id: SegmentId, at: u32, block: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.0.to_be_bytes());
    sum.update(&at.to_be_bytes());
    sum.update(block);
    sum.finalize()
}

/// Decodes consecutive words. Missing ones are zero.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let (encoded, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| encoded.get(at).map_or(0, |word| u64::from_be_bytes(*word)))
}
