//! Entries in order, and THE torn-tail rule.
//!
//! - A scan reads with `pread` and checks everything. It needs a fixed amount of memory whatever
//!   the sizes on disk say: values are summed as they stream by.
//! - *The log ends* at the first invalid entry, at a batch without its end, or where a segment has
//!   no end entry. *Unless* a valid entry after that place, in this or a later segment, carries a
//!   durable mark above that place: then durable data is damaged. [`Scan::next`] implements the
//!   first half of the rule, [`find_mark_above`] the second.

use std::ops::{ControlFlow, Range};
use std::path::Path;

pub(crate) use super::stored::refusal;
use crate::entry::{
    ALIGNMENT, BodySum, Flags, HEADER_SIZE, HEADER_SIZE_MAX, Header, Invalid, Salt,
};
use crate::error::{Error, Result};
use crate::fs::{File, is_failed_read};
use crate::mistake::{Mistake, made};
use crate::segment::{FIRST_OFFSET, Place, SegmentId};

/// Number of bytes that are read ahead, which is the memory that a scan needs.
pub(crate) const WINDOW_SIZE: usize = 256 << 10;
/// Smallest unit, in bytes, in which a disk read can fail.
pub(crate) const PAGE_SIZE: u64 = 4 << 10;
/// Maximum checksum work after a bad place, as a multiple of the bytes there.
pub(crate) const SEARCH_WORK: u64 = 4;

/// A valid entry, without its value.
#[derive(Debug)]
pub(crate) struct Scanned<'a> {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
}

impl Scanned<'_> {
    /// Returns whether the batch of the entry continues after it.
    pub(crate) fn continues(&self) -> bool {
        self.header.flags.has(Flags::CONTINUES) && !made(Mistake::BatchTorn)
    }
}

/// Where and why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The segment's end entry, which names the next segment.
    End { next: SegmentId, offset: u64, timestamp: u64 },
    /// Zeros, or no room for an entry: nothing has been appended here yet.
    Nothing { offset: u64 },
    /// An invalid entry.
    Bad { offset: u64, invalid: Invalid },
}

/// Reads a segment's entries in order.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    window: Window<'a>,
    id: SegmentId,
    offset: u64,
    key: Vec<u8>,
}

impl<'a> Scan<'a> {
    /// Scans from the first entry on, up to `end` bytes from the start of the file.
    pub(crate) fn new(file: &'a File, id: SegmentId, end: u64) -> Self {
        Self::behind(Place::new(id, FIRST_OFFSET), file, end)
    }

    /// Scans from a place at which an entry starts, or will start.
    pub(crate) fn behind(place: Place, file: &'a File, end: u64) -> Self {
        let Place { segment: id, offset } = place;
        Self { window: Window::new(file, end), id, offset, key: Vec::new() }
    }

    /// Returns the next entry, or why there is none. Must not be called again after a stop.
    pub(crate) fn next(&mut self) -> Result<std::result::Result<Scanned<'_>, Stop>> {
        let offset = self.offset;
        let header = match self.window.checked(self.id, offset, &mut self.key)? {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Err(Stop::Nothing { offset })),
            Err(invalid) => return Ok(Err(Stop::Bad { offset, invalid })),
        };
        self.offset += header.entry_size();
        if header.flags.has(Flags::END) {
            let value_offset = offset + header.size() as u64;
            let value = self.window.peek(value_offset, 4)?;
            let next = value.try_into().map_or(0, u32::from_be_bytes);
            let (next, offset) = (SegmentId(next), self.offset);
            return Ok(Err(Stop::End { next, offset, timestamp: header.timestamp }));
        }
        Ok(Ok(Scanned { offset, header, key: &self.key }))
    }
}

/// Reads a sealed segment. Anything but entries up to its listed length is corruption.
///
/// Returns the timestamp of the end entry, if there is one.
pub(crate) fn for_each_sealed(
    file: &File,
    id: SegmentId,
    length: u64,
    mut visit: impl FnMut(Scanned<'_>),
) -> Result<Option<u64>> {
    try_for_each_sealed(file, id, length, |entry| {
        visit(entry);
        ControlFlow::Continue(())
    })
}

/// Reads a sealed segment until the closure stops it. What follows is then not checked.
pub(crate) fn try_for_each_sealed(
    file: &File,
    id: SegmentId,
    length: u64,
    mut visit: impl FnMut(Scanned<'_>) -> ControlFlow<()>,
) -> Result<Option<u64>> {
    let mut scan = Scan::new(file, id, length);
    let mut in_batch = false;
    let stop = loop {
        match scan.next()? {
            Ok(entry) => {
                in_batch = entry.continues();
                if visit(entry).is_break() {
                    return Ok(None);
                }
            }
            Err(stop) => break stop,
        }
    };
    let corrupt = |offset, reason| Err(Error::corrupt(file.path(), offset, reason));
    match stop {
        Stop::Bad { offset, invalid } => Err(refusal(file.path(), offset, invalid)),
        Stop::End { offset, .. } | Stop::Nothing { offset } if offset == length && in_batch => {
            corrupt(offset, "the segment ends within a batch")
        }
        Stop::End { offset, timestamp, .. } if offset == length => Ok(Some(timestamp)),
        Stop::Nothing { offset } if offset == length => Ok(None),
        Stop::End { offset, .. } => corrupt(offset, "more bytes follow the end entry"),
        Stop::Nothing { offset } => corrupt(offset, "zeros instead of an entry"),
    }
}

/// Reads the key of an entry that a hint names, and checks the entry.
pub(crate) fn key_at(file: &File, id: SegmentId, offset: u64, end: u64) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    match Window::new(file, end).checked(id, offset, &mut key)? {
        // The key can be read whether or not the value can.
        Ok(Some(_)) | Err(Invalid::UnknownCodec(_)) => Ok(key),
        Ok(None) => Err(Error::corrupt(file.path(), offset, "there is no entry here")),
        Err(invalid) => Err(refusal(file.path(), offset, invalid)),
    }
}

/// Reads the size of an entry that a hint names, from its header alone.
pub(crate) fn size_at(file: &File, offset: u64, end: u64) -> Result<u64> {
    match Header::decode(Window::new(file, end).peek(offset, HEADER_SIZE_MAX)?) {
        Ok(Some(header)) if header.entry_size() <= end - offset => Ok(header.entry_size()),
        Ok(Some(_)) => Err(refusal(file.path(), offset, Invalid::Short)),
        Ok(None) => Err(Error::corrupt(file.path(), offset, "there is no entry here")),
        Err(invalid) => Err(refusal(file.path(), offset, invalid)),
    }
}

/// Searches after a bad place for a valid entry that carries a mark above that place.
///
/// Headers are tested before anything is checksummed: known flags, sizes that fit, a timestamp that
/// is not before `since`, and a mark between `bad` and the entry. Hardly any other bytes pass these
/// tests. Timestamps have no upper limit, since clocks are set ahead and set right again. So the
/// search costs little more than reading the file. If crafted bytes make it cost more, it ends with
/// an error, and nothing is cut.
pub(crate) fn find_mark_above(
    file: &File,
    id: SegmentId,
    from: u64,
    bad: Place,
    since: u64,
) -> Result<Option<u64>> {
    let size = file.size()?;
    let content_end = end_of_content(file, from)?;
    let mut window = Window::new(file, size);
    let mut work = SEARCH_WORK * size.saturating_sub(from) + WINDOW_SIZE as u64;
    let mut offset = from;
    while offset < content_end {
        let plausible = |header: &Header| {
            let mark = header.mark.map(Place::from);
            mark.is_some_and(|mark| bad < mark && mark <= Place::new(id, offset))
                && header.timestamp >= since
                && header.entry_size() <= size - offset
        };
        let head = window.peek(offset, HEADER_SIZE_MAX)?;
        if let Ok(Some(header)) = Header::decode(head)
            && plausible(&header)
        {
            let Some(left) = work.checked_sub(header.entry_size()) else {
                return Err(search_given_up(file.path(), offset));
            };
            work = left;
            // An entry that a newer build wrote is evidence too.
            let checked = window.checked(id, offset, &mut Vec::new())?;
            if matches!(
                checked,
                Ok(Some(_)) | Err(Invalid::UnknownFlags(_) | Invalid::UnknownCodec(_))
            ) {
                return Ok(Some(offset));
            }
        }
        offset += ALIGNMENT;
    }
    Ok(None)
}

/// Why an end entry is invalid that does not lead to a later segment.
pub(crate) const END_LEADS_BACK: &str = "the end entry names a segment that is not younger";

/// Returns why a file that should have this many bytes is corrupt where it ends.
pub(crate) fn too_short(written: u64) -> String {
    format!("the file ends here, but {written} bytes were written")
}

fn search_given_up(path: &Path, offset: u64) -> Error {
    let reason = "the bytes after a torn entry look like entries too often to tell a torn tail \
                  from damage";
    Error::corrupt(path, offset, reason)
}

/// Returns the offset after the last byte that is not zero, or `from` if there is none at or after
/// `from`.
pub(crate) fn end_of_content(file: &File, from: u64) -> Result<u64> {
    let size = file.size()?;
    let mut window = Window::new(file, size);
    let (mut offset, mut end) = (from, from);
    while offset < size {
        let bytes = window.peek(offset, WINDOW_SIZE)?;
        if bytes.is_empty() {
            break;
        }
        // Allocated space is long and mostly zeros. This is much faster than a search.
        let is_zero = bytes.iter().fold(0, |all, byte| all | byte) == 0;
        if !is_zero && let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = offset + last as u64 + 1;
        }
        offset += bytes.len() as u64;
    }
    Ok(end)
}

/// A part of a file in memory, which moves along the file.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    file: &'a File,
    /// Nothing at or after this offset is read.
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Where a read has failed, if the window may continue after it. Such a part is read page by
    /// page.
    bad: Option<Range<u64>>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a File, limit: u64) -> Self {
        Self { file, limit, start: 0, bytes: Vec::new(), bad: None }
    }

    /// Returns a window that can continue after a failed read, and that holds the bytes before it.
    pub(crate) fn over_bad_pages(file: &'a File, limit: u64) -> Self {
        Self { bad: Some(0..0), ..Self::new(file, limit) }
    }

    /// Returns up to `size` bytes at an offset. There are fewer where the file or the limit ends,
    /// or if the window is full.
    pub(crate) fn peek(&mut self, offset: u64, size: usize) -> Result<&[u8]> {
        let size = size.min(WINDOW_SIZE);
        let wanted = offset.saturating_add(size as u64).min(self.limit);
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || wanted > held.end {
            self.load(offset, size).or_else(|error| match &mut self.bad {
                Some(bad) if is_failed_read(&error) && !bad.contains(&offset) => {
                    *bad = offset..offset + WINDOW_SIZE as u64;
                    self.load(offset, size)
                }
                _ => Err(error),
            })?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let held = self.bytes.get(from..).unwrap_or_default();
        Ok(held.get(..size).unwrap_or(held))
    }

    fn load(&mut self, offset: u64, size: usize) -> Result<()> {
        let is_bad = self.bad.as_ref().is_some_and(|bad| bad.contains(&offset));
        let end = if is_bad {
            (offset + size as u64).next_multiple_of(PAGE_SIZE)
        } else {
            offset.saturating_add(WINDOW_SIZE as u64)
        };
        let room = end.min(self.limit).saturating_sub(offset);
        // If the read fails, the window holds nothing.
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(usize::try_from(room).unwrap_or(WINDOW_SIZE), 0);
        let read_size = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(read_size);
        (self.start, self.bytes) = (offset, bytes);
        Ok(())
    }

    /// Reads and checks the entry at an offset, and stores its key. Returns `None` if there is no
    /// entry there yet.
    pub(crate) fn checked(
        &mut self,
        id: SegmentId,
        offset: u64,
        key: &mut Vec<u8>,
    ) -> Result<std::result::Result<Option<Header>, Invalid>> {
        let room = self.limit.saturating_sub(offset);
        let mut head = [0; HEADER_SIZE_MAX];
        let peeked = self.peek(offset, HEADER_SIZE_MAX)?;
        if peeked.len() < HEADER_SIZE {
            return Ok(if peeked.iter().all(|byte| *byte == 0) {
                Ok(None)
            } else {
                Err(Invalid::Short)
            });
        }
        for (target, source) in head.iter_mut().zip(peeked) {
            *target = *source;
        }
        let head = head.get(..peeked.len()).unwrap_or_default();
        let header = match Header::decode(head) {
            Ok(Some(header)) if header.entry_size() <= room => header,
            Ok(Some(_)) => return Ok(Err(Invalid::Short)),
            Ok(None) => return Ok(Ok(None)),
            Err(invalid) => return Ok(Err(invalid)),
        };
        let body = offset + header.size() as u64;
        key.clear();
        key.extend_from_slice(self.peek(body, usize::from(header.key_size))?);
        let sum = self.sum(body, u64::from(header.key_size) + u64::from(header.value_size))?;
        let checked = header.check(head, sum, Salt::new(id.0, offset));
        let checked = if made(Mistake::ChecksumOff) { Ok(()) } else { checked };
        Ok(checked.map(|()| Some(header)))
    }

    fn sum(&mut self, mut offset: u64, size: u64) -> Result<BodySum> {
        let mut sum = BodySum::default();
        let end = offset + size;
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let bytes = self.peek(offset, left)?;
            if bytes.is_empty() {
                break;
            }
            sum.update(bytes);
            offset += bytes.len() as u64;
        }
        Ok(sum)
    }
}
