//! The open segments of a store, and reading an entry out of one.
//!
//! - A segment has a number in memory, 18 bits, which keydir slots name it by; its id, 32 bits,
//!   names it on disk.
//! - A number is used again only when its segment has left the set, and it leaves when no slot
//!   names it. Values hold the segment itself, never its number.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::header::{Identity, SegmentHeader};
use super::map::Bytes;
use super::{Dir, SegmentId};
use crate::entry::{Entry, HEADER_SIZE_MAX, Header, Invalid, Salt};
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::value::{Lend, Value};

/// As many segments as a slot's number can tell apart.
pub(crate) const SEGMENTS_LIMIT: u64 = 1 << 18;

/// An open segment, readable up to its end.
#[derive(Debug)]
pub(crate) struct Segment {
    id: SegmentId,
    path: PathBuf,
    bytes: Bytes,
    /// Bytes of the entries here that slots name.
    live_size: AtomicU64,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, path: &Path, bytes: Bytes) -> Self {
        Self { id, path: path.to_path_buf(), bytes, live_size: AtomicU64::new(0) }
    }

    /// Opens a sealed segment of a known length, mapped.
    pub(crate) fn sealed(
        fs: &Fs,
        dir: &Dir,
        id: SegmentId,
        length: u64,
        identity: Identity,
    ) -> Result<Self> {
        let path = dir.log(id);
        let file = open_listed(fs, &path)?;
        SegmentHeader::read(&file, id, identity)?;
        let size = file.size()?;
        if size < length {
            let reason = format!("the file ends here, the manifest lists {length} bytes");
            return Err(Error::corrupt(&path, size, reason));
        }
        Ok(Self::new(id, &path, Bytes::mapped(&file, length, length)))
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the bytes of header and entries.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.end()
    }

    /// Makes what was appended below `end` readable.
    pub(crate) fn advance(&self, end: u64) {
        self.bytes.advance(end);
    }

    /// Lets go of the pages that a mapping uses; for a store that is closed after a failed sync.
    pub(crate) fn release_pages(&self) {
        self.bytes.release_pages();
    }

    pub(crate) fn live_size(&self) -> u64 {
        self.live_size.load(Ordering::Relaxed)
    }

    /// Accounts an entry that a slot names now.
    pub(crate) fn gained(&self, entry_size: u64) {
        self.live_size.fetch_add(entry_size, Ordering::Relaxed);
    }

    /// Accounts an entry that no slot names any more.
    pub(crate) fn lost(&self, entry_size: u64) {
        // An old entry's size is not checked before it is overwritten: damaged, it may be too much.
        let less = |size: u64| Some(size.saturating_sub(entry_size));
        let _ = self.live_size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Reads the entry at an offset that a slot or a hint named. Its checksum is the caller's to
    /// check; nothing in it can reach beyond the segment.
    pub(crate) fn entry(self: &Arc<Self>, offset: u64) -> Result<StoredEntry<'_>> {
        let room = self.size().saturating_sub(offset);
        let head = self.read(offset, room.min(HEADER_SIZE_MAX as u64))?;
        let header = match Header::decode(&head) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(self.corrupt(offset, "there are zeros instead of an entry")),
            Err(invalid) => return Err(self.invalid(offset, invalid)),
        };
        let size = header.entry_size();
        if size > room {
            return Err(self.invalid(offset, Invalid::Short));
        }
        Ok(StoredEntry { segment: self, offset, header, bytes: self.read(offset, size)? })
    }

    fn read(&self, offset: u64, size: u64) -> Result<Cow<'_, [u8]>> {
        let bytes = self.bytes.read(offset, size)?;
        bytes.ok_or_else(|| self.corrupt(offset, "the segment ends before this"))
    }

    fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::corrupt(&self.path, offset, reason)
    }

    fn invalid(&self, offset: u64, invalid: Invalid) -> Error {
        refusal(&self.path, offset, invalid)
    }
}

impl Lend for Segment {
    fn lend(&self, range: Range<usize>) -> &[u8] {
        self.bytes.lend(range).unwrap_or_default()
    }
}

/// The error for an entry that does not check, in data that should.
pub(crate) fn refusal(path: &Path, offset: u64, invalid: Invalid) -> Error {
    let path = path.to_path_buf();
    match invalid {
        Invalid::UnknownCodec(codec) => Error::UnsupportedCodec { path, offset, codec },
        Invalid::UnknownFlags(flags) => Error::UnsupportedFlags { path, offset, flags },
        _ => Error::Corrupt { path, offset, reason: invalid.to_string() },
    }
}

/// Opens a segment that the manifest or the log names.
pub(crate) fn open_listed(fs: &Fs, path: &Path) -> Result<File> {
    fs.open_if_exists(path)?.ok_or_else(|| Error::MissingSegment { path: path.to_path_buf() })
}

/// An entry as it lies in a segment.
#[derive(Debug)]
pub(crate) struct StoredEntry<'a> {
    segment: &'a Arc<Segment>,
    offset: u64,
    header: Header,
    bytes: Cow<'a, [u8]>,
}

impl StoredEntry<'_> {
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry::new(self.header, &self.bytes)
    }

    /// Checks the entry's checksum, and that this build can read its value.
    pub(crate) fn check(&self) -> Result<()> {
        let salt = Salt::new(self.segment.id.0, self.offset);
        self.entry().check(salt).map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    /// Checks that this build can read the entry's value, and nothing else.
    pub(crate) fn understood(&self) -> Result<()> {
        self.header.understood().map_err(|invalid| self.segment.invalid(self.offset, invalid))
    }

    /// Makes a part of the entry a value that keeps the segment readable.
    pub(crate) fn lend(&self, part: Range<usize>) -> Value {
        match &self.bytes {
            Cow::Borrowed(_) => {
                let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
                let range = start.saturating_add(part.start)..start.saturating_add(part.end);
                Value::new(Arc::clone(self.segment) as Arc<dyn Lend>, range)
            }
            Cow::Owned(bytes) => Value::from(bytes.get(part).unwrap_or_default().to_vec()),
        }
    }
}

/// All open segments of a store, by number.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    numbered: RwLock<Numbered>,
}

#[derive(Debug, Default)]
struct Numbered {
    segments: Vec<Option<Arc<Segment>>>,
    /// Numbers that have been let go.
    free: Vec<u32>,
}

impl Segments {
    /// Adds a segment; returns the number that slots name it by.
    pub(crate) fn add(&self, segment: Arc<Segment>) -> Result<u32> {
        let mut numbered = self.numbered.write();
        if let Some(number) = numbered.free.pop() {
            if let Some(slot) = numbered.segments.get_mut(number as usize) {
                *slot = Some(segment);
            }
            return Ok(number);
        }
        match u32::try_from(numbered.segments.len()) {
            Ok(number) if u64::from(number) < SEGMENTS_LIMIT => {
                numbered.segments.push(Some(segment));
                Ok(number)
            }
            _ => Err(Error::TooManySegments { limit: SEGMENTS_LIMIT }),
        }
    }

    /// Returns the segment that a slot names.
    pub(crate) fn get(&self, number: u32) -> Arc<Segment> {
        match self.numbered.read().segments.get(number as usize) {
            Some(Some(segment)) => Arc::clone(segment),
            _ => unreachable!("segment number {number} is named by a slot and is not in the set"),
        }
    }

    /// Lets go of a segment that no slot names. Who holds it can still read it.
    pub(crate) fn remove(&self, number: u32) -> Option<Arc<Segment>> {
        let mut numbered = self.numbered.write();
        let segment = numbered.segments.get_mut(number as usize)?.take()?;
        numbered.free.push(number);
        Some(segment)
    }

    /// Returns all segments with their numbers.
    pub(crate) fn all(&self) -> Vec<(u32, Arc<Segment>)> {
        let numbered = self.numbered.read();
        let numbers = (0..).zip(&numbered.segments);
        numbers.filter_map(|(number, slot)| Some((number, slot.clone()?))).collect()
    }
}
