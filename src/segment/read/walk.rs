//! A segment's puts and deletes in the order of the log, through what can be read of it.
//!
//! - Needs no file of the segment's name: it goes on when that is gone, as for a get.
//! - Each entry is checked. What is appended meanwhile is met if it is asked for.
//! - `scan` reads the file instead, so that a bad sector is an error; it is for whatever has to be
//!   known before it is trusted.

use std::sync::Arc;

use crate::error::Result;
use crate::segment::{FIRST_OFFSET, Segment, StoredEntry, ignore_unknown_codec};

/// How far a segment's entries have been gone through.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    segment: Arc<Segment>,
    offset: u64,
}

impl Walk {
    /// Begins at an offset where an entry starts, or the end.
    pub(crate) fn new(segment: &Arc<Segment>, offset: u64) -> Self {
        Self { segment: Arc::clone(segment), offset: offset.max(FIRST_OFFSET) }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Returns where the next entry starts, if there is one.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next put or delete that starts below `end`. A value that this build can't read
    /// is met when it is asked for.
    pub(crate) fn next(&mut self, end: u64) -> Result<Option<StoredEntry<'_>>> {
        let end = end.min(self.segment.size());
        while self.offset < end {
            let offset = self.offset;
            let stored = self.segment.entry(offset)?;
            ignore_unknown_codec(stored.check())?;
            self.offset += stored.entry().header.entry_size();
            if stored.entry().header.is_put_or_delete() {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }
}
