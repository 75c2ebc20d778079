//! Which operations may take the last segments that a store can address.
//!
//! Puts may not take them. Operations that free space may: a delete, which may need a new segment
//! to be written to, and a merge and a clear, which write new segments before the old ones are
//! removed. So a store that is full of segments can always be emptied.

use super::{SEGMENTS_LIMIT, Segments};
use crate::error::{Error, Result};

/// Segments that puts leave to deletes, merges and clears.
const LEFT_BY_PUTS: u64 = 64;
/// Segments that deletes leave to merges and clears.
const LEFT_BY_DELETES: u64 = 32;

/// One segment of this many may be kept for its history.
const HISTORY_SHARE: u64 = 8;

/// What a new segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Put,
    /// Deletes alone, or ending the active segment so that it can be merged.
    Delete,
    /// A merge or a clear.
    GiveBack,
}

/// Returns how many segments a store may have before it takes no more puts.
pub(crate) fn segments_limit() -> u64 {
    limit() - LEFT_BY_PUTS
}

/// Returns how many sealed segments may be kept for the sake of their history.
pub(crate) fn history_limit() -> u64 {
    limit() / HISTORY_SHARE
}

fn limit() -> u64 {
    #[cfg(test)]
    if let Some(limit) = allowed::limit() {
        return limit;
    }
    SEGMENTS_LIMIT
}

impl Segments {
    /// Refuses a new segment if the segments that are left are reserved for other needs.
    pub(crate) fn refuse_beyond(&self, need: Need) -> Result<()> {
        let left = match need {
            Need::Put => LEFT_BY_PUTS,
            Need::Delete => LEFT_BY_DELETES,
            Need::GiveBack => 0,
        };
        let limit = limit() - left;
        if self.numbers_in_use() < limit { Ok(()) } else { Err(Error::TooManySegments { limit }) }
    }
}

/// Limits that tests set.
#[cfg(test)]
pub(crate) mod allowed {
    use std::cell::Cell;

    thread_local! {
        static LIMIT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Lowers the number of segments that this thread can use.
    pub(crate) fn only(segments: u64) {
        LIMIT.set(Some(segments));
    }

    pub(super) fn limit() -> Option<u64> {
        LIMIT.get()
    }
}
