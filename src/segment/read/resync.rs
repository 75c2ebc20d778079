//! Finds everything in a segment that is still valid, whatever lies between.
//!
//! - Entries start at multiples of 8, and their checksums cover their place. So each such place
//!   after damage is tried, and an entry that is valid there was written there.
//! - The work is linear in the size of the file, whatever sizes its bytes claim: a header must be
//!   plausible before anything is checksummed, and failed checksums have a budget.
//! - A part of the file that can't be read is damage like any other.
//! - Memory is needed for a window and a key.

use std::ops::Range;

use super::scan::{PAGE_SIZE, SEARCH_WORK, Scan, Scanned, WINDOW_SIZE, Window};
use crate::entry::{ALIGNMENT, Entry, Flags, HEADER_SIZE_MAX, Header, Invalid};
use crate::error::{Error, Result};
use crate::fs::{File, is_failed_read};
use crate::options::SEGMENT_SIZE_LIMIT;
use crate::segment::{FIRST_OFFSET, SegmentId};

/// Number of bytes that each tried place adds to the budget. Small entries are thus found even
/// where crafted bytes have used up the rest.
const PLACE_WORK: u64 = 64;
/// How far an entry's timestamp may be ahead of all known ones, in microseconds, for an entry of
/// any size to be tried in the first search: ten years.
const TIME_AHEAD: u64 = 10 * 365 * 86_400 * 1_000_000;
/// Size in bytes up to which entries are tried whatever their timestamp. The clock may have been
/// far ahead when everything was written, and no other evidence of that may be left. With random
/// bytes this adds less than a byte to the cost of each place. Trying larger entries would use up
/// the budget.
const ANY_TIME_SIZE: u64 = 1 << 20;

/// Bytes that are not entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LostBytes {
    pub(crate) bytes: Range<u64>,
    pub(crate) reason: String,
}

/// What lies in a segment from one offset to the next.
#[derive(Debug)]
pub(crate) enum ResyncItem<'a> {
    /// A valid entry that is not an end entry.
    Entry(Scanned<'a>),
    /// A valid entry that uses something that this build does not support.
    Strange(Scanned<'a>, Invalid),
    /// An end entry.
    End { next: SegmentId, timestamp: u64 },
    /// No entry.
    Lost(LostBytes),
}

/// Walks over the valid parts of a segment, in order.
#[derive(Debug)]
pub(crate) struct ResyncWalk<'a> {
    window: Window<'a>,
    id: SegmentId,
    offset: u64,
    end: u64,
    limit: u64,
    /// Entries start below this offset, unless the file is damaged.
    starts_below: u64,
    /// The latest known timestamp. It becomes the highest possible one when a search has found only
    /// entries that are far later.
    latest: u64,
    work: u64,
    /// The first place that has not added anything to the budget yet.
    unpaid: u64,
    key: Vec<u8>,
}

/// The result of a search.
enum Searched {
    Found(u64),
    /// `passed_over` says whether any bytes looked like an entry except for the timestamp.
    Nothing {
        passed_over: bool,
    },
}

impl<'a> ResyncWalk<'a> {
    /// Walks over these bytes of a file, in which entries may reach up to `limit`. Large entries
    /// whose timestamp is far ahead of `latest`, and of all that have been found, are tried last.
    pub(crate) fn new(
        file: &'a File,
        id: SegmentId,
        bytes: Range<u64>,
        limit: u64,
        latest: u64,
    ) -> Result<Self> {
        let starts_below = bytes.end.min(file.size()?).min(SEGMENT_SIZE_LIMIT);
        Ok(Self {
            window: Window::over_bad_pages(file, limit),
            id,
            offset: bytes.start,
            end: bytes.end,
            limit,
            starts_below,
            latest,
            work: SEARCH_WORK * starts_below + WINDOW_SIZE as u64,
            unpaid: bytes.start,
            key: Vec::new(),
        })
    }

    /// Returns the next item, or `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<ResyncItem<'_>>> {
        let offset = self.offset;
        if offset >= self.end {
            return Ok(None);
        }
        let (header, strange) = match self.look(offset)? {
            Ok(found) => found,
            Err(reason) => {
                self.offset = self.search(offset + ALIGNMENT)?;
                return Ok(Some(ResyncItem::Lost(LostBytes {
                    bytes: offset..self.offset,
                    reason,
                })));
            }
        };
        self.offset += header.entry_size();
        // If this machine's clock has lost the date, the clock of the entry's writer may have been
        // right.
        self.latest = self.latest.max(header.timestamp);
        if header.flags.has(Flags::END) && strange.is_none() {
            let value = self.window.peek(offset + header.size() as u64, 4)?;
            let next = SegmentId(value.try_into().map_or(0, u32::from_be_bytes));
            return Ok(Some(ResyncItem::End { next, timestamp: header.timestamp }));
        }
        let entry = Scanned { offset, header, key: &self.key };
        Ok(Some(match strange {
            Some(invalid) => ResyncItem::Strange(entry, invalid),
            None => ResyncItem::Entry(entry),
        }))
    }

    /// Returns how far the walk has come.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads one place. Returns the entry and what this build does not support of it, or why there
    /// is no entry.
    fn look(&mut self, offset: u64) -> Result<Result<(Header, Option<Invalid>), String>> {
        if offset >= self.starts_below {
            return Ok(Err("the file ends before this".to_owned()));
        }
        match self.window.checked(self.id, offset, &mut self.key) {
            Ok(Ok(Some(header))) => Ok(Ok((header, None))),
            Ok(Ok(None)) => Ok(Err("zeros instead of an entry".to_owned())),
            Ok(Err(invalid @ (Invalid::UnknownFlags(_) | Invalid::UnknownCodec(_)))) => {
                let decoded = Header::decode(self.window.peek(offset, HEADER_SIZE_MAX)?);
                let header = decoded.ok().flatten().ok_or_else(|| invalid.to_string());
                Ok(header.map(|header| (header, Some(invalid))))
            }
            Ok(Err(invalid)) => Ok(Err(invalid.to_string())),
            Err(error) if is_failed_read(&error) => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Returns the offset of the next valid entry at or after `from`, or the end if there is none.
    ///
    /// If it finds none, but some were passed over only because of their timestamps, those
    /// timestamps may be right, with no other evidence left. From then on timestamps are ignored,
    /// and these entries are tried with the rest of the budget. So no place is tried more than
    /// twice.
    fn search(&mut self, from: u64) -> Result<u64> {
        let mut searched = self.search_up_to(self.latest.saturating_add(TIME_AHEAD), from)?;
        if matches!(searched, Searched::Nothing { passed_over: true }) {
            self.latest = u64::MAX;
            searched = self.search_up_to(u64::MAX, from)?;
        }
        Ok(match searched {
            Searched::Found(offset) => offset,
            Searched::Nothing { .. } => self.end,
        })
    }

    /// Searches for an entry that is small, or no later than `latest`.
    ///
    /// Headers with flags that this build does not know are passed over. Among the others, one in
    /// two thousand headers of random bytes is plausible.
    fn search_up_to(&mut self, latest: u64, from: u64) -> Result<Searched> {
        let (mut offset, mut passed_over) = (from, false);
        while offset < self.starts_below {
            let head = match self.window.peek(offset, HEADER_SIZE_MAX) {
                Ok(head) => head,
                Err(error) if is_failed_read(&error) => {
                    offset = (offset + 1).next_multiple_of(PAGE_SIZE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if offset >= self.unpaid {
                self.work = self.work.saturating_add(PLACE_WORK);
                self.unpaid = offset + 1;
            }
            if let Ok(Some(header)) = Header::decode(head)
                && header.entry_size() <= self.limit.saturating_sub(offset)
                && !matches!(header.flags.understood(), Err(Invalid::UnknownFlags(_)))
                && header.entry_size() <= self.work
            {
                if header.timestamp > latest && header.entry_size() > ANY_TIME_SIZE {
                    passed_over = true;
                } else if self.look(offset)?.is_ok() {
                    return Ok(Searched::Found(offset));
                } else {
                    self.work -= header.entry_size();
                }
            }
            offset += ALIGNMENT;
        }
        Ok(Searched::Nothing { passed_over })
    }
}

/// Returns the timestamp of a segment's first entry, if that entry is valid and quick to read.
pub(crate) fn first_time(file: &File, id: SegmentId) -> Result<Option<u64>> {
    let end = file.size()?.min(FIRST_OFFSET + ANY_TIME_SIZE);
    match Scan::new(file, id, end).next() {
        Ok(Ok(entry)) => Ok(Some(entry.header.timestamp)),
        Ok(Err(_)) => Ok(None),
        Err(error) if is_failed_read(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the timestamp of an entry that is known to be valid, if it belongs to this key.
pub(crate) fn time_if_of(file: &File, offset: u64, key: &[u8]) -> Result<Option<u64>> {
    let mut bytes = vec![0; HEADER_SIZE_MAX + key.len()];
    let read_size = file.read_at(&mut bytes, offset)?;
    bytes.truncate(read_size);
    let Ok(Some(header)) = Header::decode(&bytes) else {
        return Err(Error::corrupt(file.path(), offset, "there is no entry here any more"));
    };
    let is_of = usize::from(header.key_size) == key.len()
        && Entry::new(header.layout(), &bytes).key() == key;
    Ok(is_of.then_some(header.timestamp))
}
