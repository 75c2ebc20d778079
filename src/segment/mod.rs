//! Segments: the files that make up the log.
//!
//! - A segment has an id that is never used again, and entries that are never rewritten.
//! - `names` is the only module that knows the names of files.
//! - Reading goes through [`Segment`], and appending through [`write::active::Active`]. Both know
//!   places, and neither knows what a key means.

pub(crate) mod budget;
mod counts;
mod detach;
pub(crate) mod header;
pub(crate) mod hint;
pub(crate) mod index;
pub(crate) mod limit;
mod names;
pub(crate) mod read;
#[expect(
    clippy::module_inception,
    reason = "the folder holds everything about segments, the file the type"
)]
mod segment;
mod set;
pub(crate) mod sidecar;
pub(crate) mod space;
pub(crate) mod write;

use std::path::Path;

use crate::entry::{ALIGNMENT, Mark};
use crate::error::{Error, Result};
use crate::fs::{File, Fs};

pub(crate) use counts::InFlight;
pub(crate) use names::{Dir, FileKind};
pub(crate) use read::stored::{StoredEntry, ignore_unknown_codec};
pub(crate) use segment::Segment;
pub(crate) use set::{SEGMENTS_LIMIT, Segments};

/// The size of a segment's header, which is the offset of its first entry.
pub(crate) const FIRST_OFFSET: u64 = header::SIZE as u64;

/// A segment's id. Younger segments have higher ids, and an id is never used again within a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u32);

impl std::fmt::Display for SegmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// Where an entry starts, or could start. Among unsealed segments, the order of places is the order
/// of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    /// In bytes from the start of the file.
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) fn new(segment: SegmentId, offset: u64) -> Self {
        Self { segment, offset }
    }

    /// Returns the place as one number. Numbers have the order of their places.
    pub(crate) fn pack(self) -> u64 {
        (u64::from(self.segment.0) << 32) | (self.offset / ALIGNMENT)
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        let segment = u32::try_from(packed >> 32).unwrap_or(u32::MAX);
        Self::new(SegmentId(segment), (packed & u64::from(u32::MAX)) * ALIGNMENT)
    }
}

impl From<Place> for Mark {
    fn from(place: Place) -> Self {
        Self { segment: place.segment.0, offset: place.offset }
    }
}

impl From<Mark> for Place {
    fn from(mark: Mark) -> Self {
        Self::new(SegmentId(mark.segment), mark.offset)
    }
}

/// Opens a segment that the manifest or the log names. A missing file is a `MissingSegment`.
pub(crate) fn open_listed(fs: &Fs, path: &Path) -> Result<File> {
    fs.open_if_exists(path)?.ok_or_else(|| Error::MissingSegment { path: path.to_path_buf() })
}
