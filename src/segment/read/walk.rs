//! Walks over a segment's puts and deletes in the order of the log, through the segment's readable
//! bytes.
//!
//! - A walk does not need the file's name. Like a get, it continues after the file has been
//!   removed.
//! - Each entry is checked, unless the walk skims. A walk also finds entries that are appended
//!   meanwhile, if `end` includes them.
//! - `scan` reads the file instead, so that a bad sector is an error. It is for data that has to be
//!   checked before it is trusted.

use std::sync::Arc;

use crate::error::Result;
use crate::segment::{FIRST_OFFSET, Segment, StoredEntry, ignore_unknown_codec};

/// A walk over a segment's entries, and how far it has come.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    segment: Arc<Segment>,
    offset: u64,
}

impl Walk {
    /// Begins at an offset at which an entry starts, or at the end.
    pub(crate) fn new(segment: &Arc<Segment>, offset: u64) -> Self {
        Self { segment: Arc::clone(segment), offset: offset.max(FIRST_OFFSET) }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Returns the offset of the next entry, if there is one.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next put or delete that starts below `end`. If this build can't read its value,
    /// reading the value returns the error.
    pub(crate) fn next(&mut self, end: u64) -> Result<Option<StoredEntry<'_>>> {
        self.step(end, |stored| ignore_unknown_codec(stored.check()))
    }

    /// Does the same without a look at keys and values, for callers that only estimate. Whoever
    /// reads a damaged entry later gets the error.
    pub(crate) fn skim(&mut self, end: u64) -> Result<Option<StoredEntry<'_>>> {
        self.step(end, |_| Ok(()))
    }

    #[inline]
    fn step(
        &mut self,
        end: u64,
        check: impl Fn(&StoredEntry<'_>) -> Result<()>,
    ) -> Result<Option<StoredEntry<'_>>> {
        let end = end.min(self.segment.size());
        while self.offset < end {
            let offset = self.offset;
            let stored = self.segment.entry(offset)?;
            check(&stored)?;
            self.offset += stored.layout.entry_size();
            if stored.layout.flags.are_of_a_put_or_delete() {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }
}
