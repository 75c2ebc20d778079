//! Rows and blocks: what an index says about entries, encoded as on disk.
//!
//! - A row describes one put or tombstone: key, timestamp, expiry and offset.
//! - Rows are sorted by key, and the rows of a key newest first. If a put and a tombstone have the
//!   same timestamp, the put comes first and counts, since a merge makes a tombstone of an expired
//!   put with the put's timestamp.
//! - A block's checksum covers its segment and its number, so that no block passes for another.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use crate::entry::{ALIGNMENT, Flags};
use crate::segment::SegmentId;
use crate::segment::read::scan::Scanned;
use crate::value::{Lend, Value};

// A row: key size, word, timestamp, expiry if there is one, key.
const FIXED_SIZE: usize = 2 + 4 + 8;
pub(super) const CHECKSUM_SIZE: usize = 4;

/// What an index says about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    /// Offset / 8 in 26 bits, four zero bits, two flags.
    word: u32,
    pub(crate) timestamp: u64,
    pub(crate) expiry: Option<u64>,
}

impl<'a> Row<'a> {
    const OFFSET_SHIFT: u32 = 6;
    const TOMBSTONE: u32 = 0b10;
    const EXPIRES: u32 = 0b01;

    pub(super) fn of(entry: &Scanned<'a>) -> Self {
        let header = &entry.header;
        let units = u32::try_from(entry.offset / ALIGNMENT).unwrap_or(u32::MAX);
        let flag = |flag, bit| if header.flags.has(flag) { bit } else { 0 };
        let word = units << Self::OFFSET_SHIFT
            | flag(Flags::TOMBSTONE, Self::TOMBSTONE)
            | flag(Flags::EXPIRES, Self::EXPIRES);
        Self { key: entry.key, word, timestamp: header.timestamp, expiry: header.expiry }
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.word >> Self::OFFSET_SHIFT) * ALIGNMENT
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.word & Self::TOMBSTONE != 0
    }

    /// The order of rows. The offset only decides the order of two otherwise equal rows.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let rest = |row: &Self| (row.is_tombstone(), row.offset());
        let newer = || other.timestamp.cmp(&self.timestamp);
        self.key.cmp(other.key).then_with(newer).then_with(|| rest(self).cmp(&rest(other)))
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        let key_size = u16::try_from(self.key.len()).unwrap_or(u16::MAX);
        bytes.extend(key_size.to_be_bytes());
        bytes.extend(self.word.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.expiry.iter().flat_map(|expiry| expiry.to_be_bytes()));
        bytes.extend_from_slice(self.key);
    }

    /// Decodes the row at the front of these bytes. Returns it with its size.
    #[inline]
    pub(super) fn decode(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (key_size, rest) = bytes.split_first_chunk()?;
        let (word, rest) = rest.split_first_chunk()?;
        let (timestamp, mut rest) = rest.split_first_chunk()?;
        let key_size = usize::from(u16::from_be_bytes(*key_size));
        let (word, timestamp) = (u32::from_be_bytes(*word), u64::from_be_bytes(*timestamp));
        let (mut size, mut expiry) = (FIXED_SIZE + key_size, None);
        if word & Self::EXPIRES != 0 {
            let (encoded, behind) = rest.split_first_chunk()?;
            (expiry, rest, size) = (Some(u64::from_be_bytes(*encoded)), behind, size + 8);
        }
        Some((Self { key: rest.get(..key_size)?, word, timestamp, expiry }, size))
    }
}

/// A place between rows: before all rows of a key with timestamps up to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeekTarget<'a> {
    pub(super) key: &'a [u8],
    pub(super) timestamp: u64,
}

impl<'a> SeekTarget<'a> {
    /// The place before all rows of a key. No timestamp is that high.
    pub(super) fn before(key: &'a [u8]) -> Self {
        Self { key, timestamp: u64::MAX }
    }

    /// The place after all rows of a key. No timestamp is that low.
    pub(super) fn behind(key: &'a [u8]) -> Self {
        Self { key, timestamp: 0 }
    }

    /// Returns whether a row lies before this place.
    #[inline]
    pub(super) fn is_behind(&self, row: &Row<'_>) -> bool {
        match row.key.cmp(self.key) {
            Ordering::Less => true,
            Ordering::Equal => row.timestamp > self.timestamp,
            Ordering::Greater => false,
        }
    }
}

/// Rows that are read and checked together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// The start of each row.
    starts: Vec<u32>,
}

impl Block {
    /// Decodes a block with its checksum. Returns `None` if the block is invalid or has no rows.
    pub(super) fn decode(mut bytes: Vec<u8>, id: SegmentId, number: usize) -> Option<Self> {
        let (rows, checksum) = bytes.split_last_chunk::<CHECKSUM_SIZE>()?;
        if checksum_of(id, number, rows).to_be_bytes() != *checksum {
            return None;
        }
        let (mut starts, mut start) = (Vec::with_capacity(rows.len() / (2 * FIXED_SIZE)), 0);
        while let Some(rest) = rows.get(start..).filter(|rest| !rest.is_empty()) {
            let (row, size) = Row::decode(rest)?;
            // Zero and all ones stand for the places around the rows of a key.
            if row.timestamp == 0 || row.timestamp == u64::MAX {
                return None;
            }
            starts.push(u32::try_from(start).ok()?);
            start += size;
        }
        bytes.truncate(start);
        (!starts.is_empty()).then_some(Self { bytes, starts })
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Returns a row, which must exist.
    #[inline]
    pub(super) fn row(&self, at: usize) -> Row<'_> {
        let row = self.encoded_from(at).and_then(Row::decode);
        row.map_or(Row { key: &[], word: 0, timestamp: 0, expiry: None }, |(row, _)| row)
    }

    #[inline]
    fn encoded_from(&self, at: usize) -> Option<&[u8]> {
        self.bytes.get(*self.starts.get(at)? as usize..)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|at| self.row(at))
    }

    /// Returns the number of rows before a place.
    pub(super) fn len_before(&self, target: &SeekTarget<'_>) -> usize {
        partition(0..self.len(), |at| target.is_behind(&self.row(at)))
    }

    /// Lends the key of a row. The caller knows its size.
    pub(super) fn lend_key(self: Arc<Self>, at: usize, key_size: usize) -> Value {
        let end = self.starts.get(at + 1).map_or(self.bytes.len(), |start| *start as usize);
        Value::new(self, end.saturating_sub(key_size)..end)
    }
}

impl Lend for Block {
    fn lend(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}

pub(super) fn checksum_of(id: SegmentId, number: usize, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&id.0.to_be_bytes());
    sum.update(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
    sum.update(bytes);
    sum.finalize()
}

/// Returns the first number in a range for which a test fails. The test must also fail for all
/// numbers after it.
pub(super) fn partition(range: Range<usize>, mut passes: impl FnMut(usize) -> bool) -> usize {
    let Range { start: mut low, end: mut high } = range;
    while low < high {
        let middle = low + (high - low) / 2;
        if passes(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
