//! Reads chosen entries of a sealed segment, in runs.
//!
//! - Entries are read with `pread` and checked, so a bad sector or a damaged entry is an error.
//! - Bytes between chosen entries are read too, if that is cheaper than another call.
//! - Memory is needed for one run, or for one entry that is larger.

use super::stored::refusal;
use crate::entry::{ALIGNMENT, BodySum, Header, Invalid, Salt};
use crate::error::{Error, Result};
use crate::fs::File;
use crate::segment::SegmentId;

/// Approximate number of bytes read at a time. Along with the data derived from them, they stay in
/// a processor's cache.
const RUN_SIZE: u64 = if cfg!(any(test, bitcask_fuzzing)) { 256 } else { 64 << 10 };
/// Maximum distance in bytes between entries that are read with one call.
const GAP_MAX: u64 = 16 << 10;

/// The place and the size of a chosen entry, both in units of [`ALIGNMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: u32,
    size: u32,
}

impl Extent {
    fn offset(self) -> u64 {
        u64::from(self.offset) * ALIGNMENT
    }

    fn end(self) -> u64 {
        self.offset() + u64::from(self.size) * ALIGNMENT
    }
}

/// The chosen entries, and how far they have been read.
#[derive(Debug, Default)]
pub(crate) struct LiveEntries {
    chosen: Vec<Extent>,
    next: usize,
    run: EntryRun,
}

/// The bytes of consecutive chosen entries.
#[derive(Debug, Default)]
struct EntryRun {
    /// The bytes read last, and behind them those of earlier runs.
    bytes: Vec<u8>,
    /// Number of bytes read last.
    len: usize,
    /// The offset of the first one.
    start: u64,
}

/// A chosen entry that is valid.
#[derive(Debug, Clone)]
pub(crate) struct LiveEntry<'a> {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) body: BodySum,
    /// The whole entry as it is stored, without padding.
    pub(crate) bytes: &'a [u8],
}

impl<'a> LiveEntry<'a> {
    /// Decodes an entry that was read from an offset. Does not check its checksum.
    pub(crate) fn decode(bytes: &'a [u8], offset: u64) -> Result<Self, Invalid> {
        let header = Header::decode(bytes)?.ok_or(Invalid::Checksum)?;
        let body = bytes.get(header.size()..).unwrap_or_default();
        let (key, rest) =
            body.split_at_checked(usize::from(header.key_size)).ok_or(Invalid::Short)?;
        let value = rest.get(..header.value_size as usize).ok_or(Invalid::Short)?;
        // Key and value are adjacent.
        let size = key.len() + value.len();
        let mut sum = BodySum::default();
        sum.update(body.get(..size).unwrap_or_default());
        let bytes = bytes.get(..header.size() + size).ok_or(Invalid::Short)?;
        Ok(Self { offset, header, key, value, body: sum, bytes })
    }
}

impl LiveEntries {
    /// Chooses an entry. The order does not matter.
    pub(crate) fn add(&mut self, offset: u64, size: u64) {
        let units = |bytes: u64| u32::try_from(bytes / ALIGNMENT).unwrap_or(u32::MAX);
        self.chosen.push(Extent { offset: units(offset), size: units(size) });
    }

    /// Sorts the chosen entries into the order in which they are read.
    pub(crate) fn sort(&mut self) {
        // One number for both compares faster than two.
        self.chosen
            .sort_unstable_by_key(|pick| u64::from(pick.offset) << 32 | u64::from(pick.size));
    }

    /// Returns the offset of the next chosen entry, or `None` if all have been read.
    pub(crate) fn read_until(&self) -> Option<u64> {
        self.chosen.get(self.next).map(|pick| pick.offset())
    }

    /// Reads the next run, or returns `None` if all entries have been read.
    pub(crate) fn read(
        &mut self,
        file: &File,
        id: SegmentId,
    ) -> Result<Option<Vec<LiveEntry<'_>>>> {
        let rest = self.chosen.get(self.next..).unwrap_or_default();
        let Some(first) = rest.first() else { return Ok(None) };
        let continues = |pair: &[Extent]| match pair {
            [a, b] => {
                b.offset() - a.end().min(b.offset()) <= GAP_MAX
                    && b.end() - first.offset() <= RUN_SIZE
            }
            _ => false,
        };
        let len = 1 + rest.windows(2).take_while(|pair| continues(pair)).count();
        let run = rest.get(..len).unwrap_or_default();
        let end = run.last().map_or(0, |last| last.end());
        self.run.read(file, first.offset(), end)?;
        self.next += len;
        let mut entries = Vec::with_capacity(len);
        for pick in run {
            match self.run.entry(*pick, id) {
                Ok(entry) => entries.push(entry),
                Err(invalid) => return Err(refusal(file.path(), pick.offset(), invalid)),
            }
        }
        Ok(Some(entries))
    }
}

impl EntryRun {
    fn read(&mut self, file: &File, start: u64, end: u64) -> Result<()> {
        let size = usize::try_from(end - start).unwrap_or(usize::MAX);
        (self.start, self.len) = (start, 0);
        if self.bytes.len() < size {
            self.bytes.clear();
            // A hint can state sizes up to 64 MiB. Larger sizes were read from the segment and
            // checked.
            self.bytes.try_reserve_exact(size).map_err(|_| {
                Error::corrupt(file.path(), start, "the entry does not fit in memory")
            })?;
            self.bytes.resize(size, 0);
        }
        self.len = file.read_at(self.bytes.get_mut(..size).unwrap_or_default(), start)?;
        Ok(())
    }

    fn entry(&self, pick: Extent, id: SegmentId) -> Result<LiveEntry<'_>, Invalid> {
        let from = usize::try_from(pick.offset() - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(from..self.len).unwrap_or_default();
        let entry = LiveEntry::decode(bytes, pick.offset())?;
        let salt = Salt::new(id.0, entry.offset);
        match entry.header.check(entry.bytes, entry.body.clone(), salt) {
            // The checksum is right. A copy does not need to know what the value means.
            Ok(()) | Err(Invalid::UnknownCodec(_)) => Ok(entry),
            Err(invalid) => Err(invalid),
        }
    }
}
