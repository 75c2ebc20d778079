//! Interprets an input as a list of choices, and corrects checksums after a change.
//!
//! The layouts of `docs/format.md` are repeated here independently. A test checks that repairing
//! what the store has written changes nothing.

use crate::entry::{ALIGNMENT, BodySum, Entry, HEADER_SIZE, Salt};
use crate::segment::{FIRST_OFFSET, SegmentId};

/// Choices, taken off the front of an input. At its end they are all zero.
#[derive(Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Returns a number below a limit, as far as two bytes reach.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        number % limit.max(1)
    }

    /// Returns the next `size` bytes, or as many as are left.
    pub(crate) fn take(&mut self, size: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Returns up to 63 bytes, or up to 1 KiB for the highest choices.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let size = usize::from(self.byte());
        self.take(if size < 192 { size % 64 } else { (size - 191) * 16 })
    }
}

/// Writes the correct checksum at the end of the bytes.
fn sum_up(bytes: &mut [u8]) {
    if let Some((summed, checksum)) = bytes.split_last_chunk_mut() {
        *checksum = crc32fast::hash(summed).to_be_bytes();
    }
}

/// Writes the correct checksum into the entry at the start of the bytes, if they decode as one.
/// Returns the entry's size.
pub(crate) fn repair_entry(bytes: &mut [u8], salt: Salt) -> Option<usize> {
    let entry = Entry::decode(bytes).ok()??;
    let body = BodySum::of(entry.key(), entry.value());
    let header = entry.header().ok()?;
    let size = usize::try_from(header.entry_size()).unwrap();
    let encoded = header.encode(body, salt);
    bytes[..HEADER_SIZE].copy_from_slice(&encoded.as_slice()[..HEADER_SIZE]);
    Some(size)
}

/// Writes the correct checksums into a segment, as far as entries follow each other.
pub(crate) fn repair_log(bytes: &mut [u8], id: SegmentId) {
    let header_size = usize::try_from(FIRST_OFFSET).unwrap();
    if bytes.len() < header_size {
        return;
    }
    sum_up(&mut bytes[..header_size]);
    let mut offset = header_size;
    while let Some(rest) = bytes.get_mut(offset..)
        && let Some(size) = repair_entry(rest, Salt::new(id.0, offset as u64))
    {
        offset += size;
    }
}

/// Size in bytes of a hint's summary, and of a block of slots with its checksum.
pub(crate) const SUMMARY_SIZE: usize = 512;
pub(crate) const BLOCK_SIZE: usize = 255 * 16 + 4;

/// Size in bytes of an index's header.
pub(crate) const INDEX_HEADER_SIZE: usize = 96;

/// Writes the correct checksums into an index, as far as its header and directory locate its parts.
pub(crate) fn repair_index(bytes: &mut [u8], id: SegmentId) {
    let (header, rest) = bytes.split_at_mut(INDEX_HEADER_SIZE.min(bytes.len()));
    sum_up(header);
    let field = |at: usize| {
        let field = header.get(at..at + 8)?.try_into().ok()?;
        usize::try_from(u64::from_be_bytes(field)).ok()
    };
    let (Some(count), Some(size)) = (field(56), field(64)) else { return };
    if size > rest.len() {
        return;
    }
    let (mut blocks, directory) = rest.split_at_mut(size);
    let mut leads = &directory[..];
    for number in 0..count {
        let Some((size, after)) = leads.split_first_chunk() else { break };
        let Some((key_size, after)) = after.split_first_chunk() else { break };
        let size = u32::from_be_bytes(*size) as usize;
        let Some((block, others)) = blocks.split_at_mut_checked(size) else { break };
        sum_up_numbered(block, id, number);
        blocks = others;
        leads = after.get(usize::from(u16::from_be_bytes(*key_size))..).unwrap_or_default();
    }
    sum_up_numbered(directory, id, count);
}

/// Writes a checksum that covers the segment's id and a number at the end of the bytes.
fn sum_up_numbered(bytes: &mut [u8], id: SegmentId, number: usize) {
    if let Some((summed, checksum)) = bytes.split_last_chunk_mut() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let summed = [&id.0.to_be_bytes(), &number.to_be_bytes(), &*summed].concat();
        *checksum = crc32fast::hash(&summed).to_be_bytes();
    }
}

/// Writes the correct checksums into a hint.
pub(crate) fn repair_hint(bytes: &mut [u8], id: SegmentId) {
    let (summary, blocks) = bytes.split_at_mut(SUMMARY_SIZE.min(bytes.len()));
    sum_up(summary);
    for (at, block) in (0..).zip(blocks.chunks_mut(BLOCK_SIZE)) {
        sum_up_numbered(block, id, at);
    }
}

/// Writes the correct checksum below the lines of a manifest, in place of the last line.
pub(crate) fn repair_manifest(bytes: &mut Vec<u8>) {
    while bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    let checksum = crc32fast::hash(bytes);
    bytes.extend(format!("checksum {checksum:08x}\n").into_bytes());
}

/// Rounds down to where an entry may start.
pub(crate) fn aligned(offset: usize) -> usize {
    offset - offset % usize::try_from(ALIGNMENT).unwrap()
}
