//! The readable bytes of a segment: a shared mapping of its file, or the file itself.
//!
//! - Readable is what lies below `end`. Bytes there were written before `end` was moved past them,
//!   and are never written again, nor cut off while anybody can read them.
//! - The mapping may be longer than the file, which grows under it; nothing beyond `end` is
//!   touched.
//! - Where a mapping can't be had (the kernel allows 65,530 of them), and in stores opened
//!   read-only, the file is read instead.
//!
//! A sector that can't be read turns a mapped read into a signal (SIGBUS) that ends the process.
//! Whatever is read to be checked is therefore read from the file, in `scan`.

#![expect(unsafe_code, reason = "a mapping's bytes have to be made a slice")]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use crate::error::{Error, Result};
use crate::fs::{Backing, File};
use crate::sync::{AtomicU64, Ordering};

/// The readable bytes of a segment.
#[derive(Debug)]
pub(crate) struct Bytes {
    source: Source,
    end: AtomicU64,
}

#[derive(Debug)]
enum Source {
    Map(Arc<MmapRaw>),
    #[cfg(any(test, bitcask_fuzzing))]
    Twin(crate::fs::twin::TwinMap),
    File(File),
}

impl Bytes {
    /// Maps a file whose first `end` bytes are written, for as far as it may grow. Falls back to
    /// the file where the kernel has no mapping left.
    pub(crate) fn mapped(file: &File, end: u64, capacity: u64) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let source = match file.backing() {
            Backing::Disk(disk) => match MmapOptions::new().len(capacity).map_raw_read_only(disk) {
                Ok(map) => {
                    // Without this a read of one entry reads megabytes around it. It is advice,
                    // so a refusal changes nothing.
                    let _ = map.advise(Advice::Random);
                    Source::Map(Arc::new(map))
                }
                Err(_) => Source::File(file.clone()),
            },
            #[cfg(any(test, bitcask_fuzzing))]
            Backing::Twin(twin) => match twin.map(capacity) {
                Ok(map) => Source::Twin(map),
                Err(_) => Source::File(file.clone()),
            },
        };
        Self { source, end: AtomicU64::new(end) }
    }

    /// Reads through a mapping that somebody else writes, beyond `end`.
    pub(crate) fn shared(map: Arc<MmapRaw>, end: u64) -> Self {
        Self { source: Source::Map(map), end: AtomicU64::new(end) }
    }

    /// Reads a file whose first `end` bytes are written with a call per read.
    pub(crate) fn unmapped(file: &File, end: u64) -> Self {
        Self { source: Source::File(file.clone()), end: AtomicU64::new(end) }
    }

    /// Returns up to where bytes can be read.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Makes what was written below `end` readable; it is never written again.
    pub(crate) fn advance(&self, end: u64) {
        // One writer at a time, so nobody else moves it in between.
        if end > self.end.load(Ordering::Relaxed) {
            self.end.store(end, Ordering::Release);
        }
    }

    /// Lets go of the pages of a mapping; they are had again from the file when they are read.
    ///
    /// After a failed sync the kernel may hold pages that are not on the disk. As long as a mapping
    /// uses them, a recovery could not have them dropped and read anew.
    pub(crate) fn release_pages(&self) {
        if let Source::Map(map) = &self.source {
            // SAFETY: in a shared mapping of a file this drops entries of the page table and no
            // content: who reads the bytes afterwards, through a slice that was lent before too,
            // gets them from the file again. Nothing is stored any more: the store is poisoned.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// Reads `size` bytes, without a copy where they are mapped. Nothing if they reach beyond the
    /// end, or the file is shorter than it was.
    pub(crate) fn read(&self, offset: u64, size: u64) -> Result<Option<Cow<'_, [u8]>>> {
        let Some(range) = self.readable(offset, size) else { return Ok(None) };
        if let Some(lent) = self.lend(range.clone()) {
            return Ok(Some(Cow::Borrowed(lent)));
        }
        match &self.source {
            Source::Map(_) => Ok(None),
            #[cfg(any(test, bitcask_fuzzing))]
            Source::Twin(_) => Ok(None),
            Source::File(file) => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(range.len()).map_err(|_| {
                    Error::corrupt(file.path(), offset, "the entry does not fit in memory")
                })?;
                bytes.resize(range.len(), 0);
                let whole = file.read_at(&mut bytes, offset)? == bytes.len();
                Ok(whole.then_some(Cow::Owned(bytes)))
            }
        }
    }

    /// Lends mapped bytes; nothing if they are not readable, or not mapped.
    pub(crate) fn lend(&self, range: Range<usize>) -> Option<&[u8]> {
        self.readable(range.start as u64, range.len() as u64)?;
        match &self.source {
            Source::Map(map) if range.start <= range.end && range.end <= map.len() => {
                let start = map.as_ptr().wrapping_add(range.start);
                // SAFETY: the range lies within the mapping, which lives as long as `self`. It
                // lies below `end` too, so the bytes were written before the Acquire load that
                // `readable` made, no one writes them again, and the file is not cut below them:
                // `append::Active`, whose `Sink` stores at or above `end` alone, and recovery are the
                // only writers and keep to that; the LOCK file keeps other processes' away.
                Some(unsafe { std::slice::from_raw_parts(start, range.len()) })
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Source::Twin(map) => map.bytes(range),
            _ => None,
        }
    }

    /// Lends mapped bytes from an offset up to the end; nothing if they are not mapped.
    pub(crate) fn lend_from(&self, offset: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.lend(start..usize::try_from(self.end()).ok()?)
    }

    fn readable(&self, offset: u64, size: u64) -> Option<Range<usize>> {
        let end = offset.checked_add(size).filter(|end| *end <= self.end())?;
        Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    }
}
