//! One open segment, and how an entry is read from it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::counts::SegmentCounts;
use super::header::{Identity, Kind, SegmentHeader};
use super::hint::Summary;
use super::{Dir, FIRST_OFFSET, Place, SegmentId, index, open_listed};
use crate::entry::{END_SIZE_MAX, Entry, HEADER_SIZE, Invalid, Layout, padded};
use crate::error::{Error, Result};
use crate::fs::{Fs, Lock};
use crate::prefetch::prefetch;
use crate::segment::budget::Wanted;
use crate::segment::read::map::Bytes;
use crate::segment::read::scan::too_short;
use crate::segment::read::stored::{StoredEntry, refusal};

/// The sizes of end entries and of entries that only carry a mark.
const NOTE_SIZES: [u64; 2] = [padded(HEADER_SIZE as u64 + 4), END_SIZE_MAX];

/// Number of bytes that a processor loads together. No processor that we know of loads fewer.
const CACHE_LINE: usize = 64;

/// An open segment, which can be read up to its end.
#[derive(Debug)]
pub(crate) struct Segment {
    id: SegmentId,
    path: PathBuf,
    pub(super) bytes: Bytes,
    kind: Kind,
    /// The hint's summary of all entries, once the segment is sealed.
    summary: OnceLock<Summary>,
    /// When this process sealed the segment, by the monotonic clock.
    sealed_at: OnceLock<u64>,
    pub(super) counts: SegmentCounts,
    pub(super) index: index::SegmentIndex,
    /// A lock that keeps others from the file for as long as the segment is held.
    pub(super) lock: OnceLock<Arc<Lock>>,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, path: &Path, kind: Kind, bytes: Bytes) -> Self {
        let (path, summary) = (path.to_path_buf(), OnceLock::new());
        let sealed_at = OnceLock::new();
        let (counts, index) = (SegmentCounts::default(), index::SegmentIndex::default());
        Self { id, path, bytes, kind, summary, sealed_at, counts, index, lock: OnceLock::new() }
    }

    /// Opens a sealed segment of a known length. It is mapped if `is_wanted` is set and a mapping
    /// is available.
    pub(crate) fn sealed(
        fs: &Fs,
        dir: &Dir,
        id: SegmentId,
        length: u64,
        identity: Identity,
        is_wanted: bool,
    ) -> Result<Self> {
        let path = dir.log(id);
        let file = open_listed(fs, &path)?;
        let kind = SegmentHeader::read(&file, id, identity)?.kind;
        let size = file.size()?;
        if size < length {
            return Err(Error::corrupt(&path, size, too_short(length)));
        }
        let bytes = if is_wanted {
            Bytes::mapped(fs, &file, length, length, Wanted::Sealed)
        } else {
            Bytes::unmapped(fs, &file, length)
        };
        Ok(Self::new(id, &path, kind, bytes))
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Records the hint's summary when the segment is sealed.
    pub(crate) fn summarize(&self, summary: Summary) {
        // A segment is sealed once, so the cell is empty.
        let _ = self.summary.set(summary);
    }

    /// Returns the hint's summary, or `None` if the segment is not sealed.
    pub(crate) fn summary(&self) -> Option<&Summary> {
        self.summary.get()
    }

    /// Records when this process sealed the segment, by the monotonic clock.
    pub(crate) fn note_sealed(&self, steady: u64) {
        let _ = self.sealed_at.set(steady);
    }

    /// Returns when this process sealed the segment, or `None` if it did not.
    pub(crate) fn sealed_at(&self) -> Option<u64> {
        self.sealed_at.get().copied()
    }

    /// Returns the size of header and entries in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.end()
    }

    /// Returns the place after the last put or delete. Entries after that place are notes of the
    /// log itself.
    pub(crate) fn last_end(self: &Arc<Self>) -> Place {
        let mut end = self.size();
        let note_before = |end: u64| {
            NOTE_SIZES.into_iter().filter_map(|size| end.checked_sub(size)).find(|offset| {
                let stored = (*offset >= FIRST_OFFSET).then(|| self.entry(*offset).ok()).flatten();
                stored.is_some_and(|stored| {
                    let Layout { flags, .. } = stored.layout;
                    let fits = offset + stored.layout.entry_size() == end
                        && !flags.are_of_a_put_or_delete();
                    fits && stored.check().is_ok()
                })
            })
        };
        while let Some(offset) = note_before(end) {
            end = offset;
        }
        Place::new(self.id, end)
    }

    /// Makes the bytes appended below `end` readable.
    pub(crate) fn advance(&self, end: u64) {
        self.bytes.advance(end);
    }

    /// Releases the pages of a mapping; see [`Bytes::release_pages`].
    pub(crate) fn release_pages(&self) {
        self.bytes.release_pages();
    }

    /// Reads the entry at an offset that a slot or a hint names. The caller must verify its
    /// checksum. Whatever sizes it states, the returned entry does not reach beyond the segment.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn entry(self: &Arc<Self>, offset: u64) -> Result<StoredEntry<'_>> {
        let Some(rest) = self.bytes.lend_from(offset) else { return self.entry_on_demand(offset) };
        // An entry may take several cache lines, which should be loaded at the same time.
        prefetch_lines(rest);
        let layout = match Layout::plain(rest) {
            Some(layout) => layout,
            None => self.decode(rest, offset)?,
        };
        let bytes = usize::try_from(layout.entry_size()).ok().and_then(|size| rest.get(..size));
        let Some(bytes) = bytes else { return Err(self.invalid(offset, Invalid::Short)) };
        Ok(StoredEntry { segment: self, offset, layout, bytes: Cow::Borrowed(bytes) })
    }

    /// Returns the entry at an offset if it is in mapped memory, and a put without optional fields.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn plain_entry(&self, offset: u64) -> Option<Entry<'_>> {
        let rest = self.bytes.lend_from(offset)?;
        prefetch_lines(rest);
        let layout = Layout::plain(rest)?;
        let size = usize::try_from(layout.entry_size()).ok()?;
        Some(Entry::new(layout, rest.get(..size)?))
    }

    #[inline(never)]
    pub(super) fn decode(&self, bytes: &[u8], offset: u64) -> Result<Layout> {
        match Layout::decode(bytes) {
            Ok(Some(layout)) => Ok(layout),
            Ok(None) => Err(self.corrupt(offset, "zeros instead of an entry")),
            Err(invalid) => Err(self.invalid(offset, invalid)),
        }
    }

    /// Prefetches the first part of an entry that will be read.
    pub(crate) fn prefetch(&self, offset: u64) {
        self.bytes.lend_from(offset).into_iter().for_each(prefetch_lines);
    }

    /// Asks the system to read bytes that are needed soon.
    pub(crate) fn read_ahead(&self, range: Range<u64>) {
        self.bytes.read_ahead(range);
    }

    #[cold]
    pub(super) fn corrupt(&self, offset: u64, reason: &str) -> Error {
        Error::corrupt(&self.path, offset, reason)
    }

    #[cold]
    pub(super) fn invalid(&self, offset: u64, invalid: Invalid) -> Error {
        refusal(&self.path, offset, invalid)
    }
}

/// Prefetches the number of bytes that a small entry takes.
#[inline]
fn prefetch_lines(bytes: &[u8]) {
    for at in [0, CACHE_LINE, 2 * CACHE_LINE] {
        bytes.get(at).into_iter().for_each(prefetch);
    }
}
