//! The files of another store: read through a buffer, and never changed.
//!
//! - A file is opened for reading only. Nothing in its directory is created, locked or removed.
//! - A size that a file states is compared with the file's own size before anything is allocated.
//! - The size of a file is the one that it had at the start of the import. What its owner appends
//!   later is not read.

use std::ops::Range;
use std::path::PathBuf;

use crate::error::Result;
use crate::fs::{Access, File, Fs};

/// Size of the buffer in bytes, and the largest piece that is read in one call. A key of the
/// largest size fits.
pub(super) const WINDOW: usize = 64 << 10;

/// Number of bytes that the search for records after damage may read, for each byte of the file.
const SEARCH_FACTOR: u64 = 64;

/// Number of bytes that the search may read in any file.
const SEARCH_MIN: u64 = 16 << 20;

/// A file of the other store.
#[derive(Debug, Clone)]
pub(super) struct SourceEntry {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Where the file begins among all files, which are counted one after the other.
    pub(super) start: u64,
}

/// An open file of the other store.
#[derive(Debug)]
pub(super) struct SourceFile {
    file: File,
    size: u64,
    /// The bytes from `buffer_start`.
    buffer: Vec<u8>,
    buffer_start: u64,
    /// Bytes that have been handed out or read so far.
    work: u64,
    /// The amount of work at which a search gives up.
    work_limit: u64,
}

impl SourceFile {
    pub(super) fn open(fs: &Fs, entry: &SourceEntry) -> Result<Self> {
        let file = fs.open(&entry.path, Access::Read)?;
        Ok(Self {
            file,
            size: entry.size,
            buffer: Vec::new(),
            buffer_start: 0,
            work: 0,
            work_limit: 0,
        })
    }

    /// Returns the size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Begins a search after damage. The limit on its work is that of the whole file, so that many
    /// small searches cost no more than a large one.
    pub(super) fn begin_search(&mut self) {
        if self.work_limit == 0 {
            let limit = self.size.saturating_mul(SEARCH_FACTOR).saturating_add(SEARCH_MIN);
            self.work_limit = self.work.saturating_add(limit);
        }
    }

    /// Returns whether a search in this file has to give up.
    pub(super) fn is_exhausted(&self) -> bool {
        self.work >= self.work_limit
    }

    /// Returns the `size` bytes at an offset, or fewer at the end of the file. Returns at most
    /// [`WINDOW`] bytes.
    pub(super) fn bytes(&mut self, offset: u64, size: usize) -> Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(WINDOW);
        let size = size.min(WINDOW).min(left);
        let is_buffered = offset >= self.buffer_start
            && offset.saturating_add(size as u64)
                <= self.buffer_start.saturating_add(self.buffer.len() as u64);
        if !is_buffered {
            self.fill(offset, left)?;
        }
        self.work = self.work.saturating_add(size as u64);
        let at = usize::try_from(offset.saturating_sub(self.buffer_start)).unwrap_or(usize::MAX);
        let rest = self.buffer.get(at..).unwrap_or_default();
        Ok(rest.get(..size).unwrap_or(rest))
    }

    fn fill(&mut self, offset: u64, left: usize) -> Result<()> {
        self.buffer.resize(WINDOW.min(left), 0);
        let read_size = self.file.read_at(&mut self.buffer, offset)?;
        self.buffer.truncate(read_size);
        self.buffer_start = offset;
        self.work = self.work.saturating_add(read_size as u64);
        Ok(())
    }

    /// Returns `N` bytes, or `None` if the file ends before.
    pub(super) fn array<const N: usize>(&mut self, offset: u64) -> Result<Option<[u8; N]>> {
        Ok(self.bytes(offset, N)?.try_into().ok())
    }

    /// Returns one byte, or `None` at the end of the file.
    pub(super) fn byte(&mut self, offset: u64) -> Result<Option<u8>> {
        Ok(self.bytes(offset, 1)?.first().copied())
    }

    /// Returns the CRC-32 of a range that lies within the file, or `None` if the file has become
    /// shorter.
    pub(super) fn crc(&mut self, range: Range<u64>) -> Result<Option<u32>> {
        self.crc_after(&[], range)
    }

    /// Returns the CRC-32 of some bytes and a range behind them.
    pub(super) fn crc_after(&mut self, bytes: &[u8], range: Range<u64>) -> Result<Option<u32>> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        let mut offset = range.start;
        while offset < range.end {
            let wanted = usize::try_from(range.end - offset).unwrap_or(WINDOW);
            let bytes = self.bytes(offset, wanted)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            hasher.update(bytes);
            offset += bytes.len() as u64;
        }
        Ok(Some(hasher.finalize()))
    }

    /// Returns the bytes of a range, or `None` if it does not lie within the file. Allocates memory
    /// only for bytes that the file has.
    pub(super) fn read(&mut self, range: Range<u64>) -> Result<Option<Vec<u8>>> {
        let is_within = range.start <= range.end && range.end <= self.size.min(self.file.size()?);
        let size = range.end.saturating_sub(range.start);
        let Some(size) = usize::try_from(size).ok().filter(|_| is_within) else { return Ok(None) };
        let mut bytes = vec![0; size];
        let read_size = self.file.read_at(&mut bytes, range.start)?;
        Ok((read_size == size).then_some(bytes))
    }
}
