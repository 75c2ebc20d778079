//! Sorts rows, and cuts them into blocks.
//!
//! The result depends on the rows alone. Blocks get the same numbers whenever an index is built, so
//! a scan whose index is lost half-way continues with the rebuilt one.

use super::block::{CHECKSUM_SIZE, Row, checksum_of};
use super::directory::Directory;
use crate::segment::SegmentId;
use crate::segment::read::scan::Scanned;

/// The largest size of a block in bytes. A row that would exceed it begins the next block.
pub(super) const BLOCK_SIZE_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 256 } else { 4096 };

/// Sorted rows in blocks, and their directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(super) blocks: Vec<u8>,
    pub(super) directory: Directory,
}

/// Collects rows in any order.
#[derive(Debug, Default)]
pub(crate) struct RunBuilder {
    /// Encoded rows.
    bytes: Vec<u8>,
    /// The start of each row, and the first bytes of its key, which are compared first.
    starts: Vec<(u64, usize)>,
    /// The highest timestamp of all rows.
    pub(super) time: u64,
}

impl RunBuilder {
    /// Adds an entry, if it is a put or a delete. The caller makes sure that its batch is complete.
    pub(crate) fn add(&mut self, entry: &Scanned<'_>) {
        if entry.header.is_put_or_delete() {
            self.push(&Row::of(entry));
        }
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.starts.push((prefix(row.key), self.bytes.len()));
        self.time = self.time.max(row.timestamp);
        row.encode(&mut self.bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(crate) fn finish(mut self, id: SegmentId) -> Encoded {
        let mut starts = std::mem::take(&mut self.starts);
        // A stable sort is fast if parts of the rows are already sorted.
        starts.sort_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| match (self.decoded(a.1), self.decoded(b.1)) {
                (Some((a, _)), Some((b, _))) => a.order(&b),
                _ => unreachable!("all rows were encoded here"),
            })
        });
        let mut cutter = Cutter::new(id, self.bytes.len());
        for (_, start) in starts {
            if let Some((row, size)) = self.decoded(start) {
                let encoded = self.bytes.get(start..start + size).unwrap_or_default();
                cutter.add(row.key, encoded);
            }
        }
        cutter.finish()
    }

    fn decoded(&self, start: usize) -> Option<(Row<'_>, usize)> {
        self.bytes.get(start..).and_then(Row::decode)
    }
}

/// Returns the first bytes of a key as a number. Numbers that differ have the order of their keys.
#[inline]
pub(super) fn prefix(key: &[u8]) -> u64 {
    if let Some((first, _)) = key.split_first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let shifted = |sum: u64, (at, byte): (u32, &u8)| sum | u64::from(*byte) << (56 - 8 * at);
    (0..).zip(key).fold(0, shifted)
}

/// Returns the length of the prefix that two keys share, in bytes.
pub(super) fn common_size(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Cuts sorted rows into blocks.
struct Cutter {
    id: SegmentId,
    encoded: Encoded,
    /// The start of the block that is being filled.
    start: usize,
    last: Vec<u8>,
}

impl Cutter {
    fn new(id: SegmentId, size: usize) -> Self {
        let blocks = Vec::with_capacity(size + (size / BLOCK_SIZE_MAX + 1) * 2 * CHECKSUM_SIZE);
        let encoded = Encoded { blocks, directory: Directory::default() };
        Self { id, encoded, start: 0, last: Vec::new() }
    }

    fn add(&mut self, key: &[u8], row: &[u8]) {
        let size = self.encoded.blocks.len() - self.start;
        if size > 0 && size + row.len() + CHECKSUM_SIZE > BLOCK_SIZE_MAX {
            self.end_block();
        }
        let Encoded { blocks, directory } = &mut self.encoded;
        if blocks.len() == self.start {
            // The shortest key above all preceding ones, which may be shorter than the row's own
            // key.
            let size =
                if directory.len() == 0 { key.len() } else { common_size(&self.last, key) + 1 };
            directory.begin(key.get(..size).unwrap_or(key));
        }
        directory.rows += 1;
        blocks.extend_from_slice(row);
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    fn end_block(&mut self) {
        let Encoded { blocks, directory } = &mut self.encoded;
        let rows = blocks.get(self.start..).unwrap_or_default();
        let sum = checksum_of(self.id, directory.len() - 1, rows);
        blocks.extend(sum.to_be_bytes());
        self.start = blocks.len();
        directory.end(self.start as u64);
    }

    fn finish(mut self) -> Encoded {
        if self.encoded.blocks.len() > self.start {
            self.end_block();
        }
        self.encoded.directory.last = self.last;
        self.encoded.blocks.shrink_to_fit();
        self.encoded
    }
}
