//! A mapping of a segment's file, and its share of the budget.

use std::fs::File;
use std::ops::{Deref, Range};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::segment::budget::{Unit, Wanted, take_mapping};

/// A shared mapping of a segment's file.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
    /// Given back after the memory is unmapped: fields are dropped in this order.
    _unit: Unit,
}

impl Mapping {
    /// Maps a file for reading, up to the size to which it may grow. Returns `None` if no mapping
    /// is available.
    pub(crate) fn to_read(file: &File, capacity: usize, wanted: Wanted) -> Option<Self> {
        Self::new(wanted, || MmapOptions::new().len(capacity).map_raw_read_only(file))
    }

    /// Maps a file that is stored to, in the same way.
    pub(crate) fn to_store(file: &File, capacity: usize) -> Option<Self> {
        Self::new(Wanted::New, || MmapOptions::new().len(capacity).map_raw(file))
    }

    fn new(wanted: Wanted, map: impl FnOnce() -> std::io::Result<MmapRaw>) -> Option<Self> {
        let unit = take_mapping(wanted)?;
        let raw = map().ok()?;
        // Without this advice, a read of one entry reads megabytes around it. A refusal changes
        // nothing.
        let _ = raw.advise(Advice::Random);
        Some(Self { raw, _unit: unit })
    }

    /// Asks the system to read a part of the file. Does not wait for it.
    pub(super) fn read_ahead(&self, part: Range<u64>) {
        let size = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or_default();
        let start = usize::try_from(part.start).unwrap_or(usize::MAX);
        let _ = self.raw.advise_range(Advice::WillNeed, start, size);
    }
}

impl Deref for Mapping {
    type Target = MmapRaw;

    fn deref(&self) -> &MmapRaw {
        &self.raw
    }
}
