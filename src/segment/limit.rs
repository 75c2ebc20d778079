//! Which operations may use the last segments that a store can address.
//!
//! Puts may not. Operations that free space may: a delete may need a new segment to be written to,
//! and merges and clears write new segments before they remove the old ones. So a store that is
//! full of segments can always be emptied.

use super::{SEGMENTS_LIMIT, Segments};
use crate::error::{Error, Result};

/// Number of segments that puts leave to deletes, merges and clears.
const LEFT_BY_PUTS: u64 = 64;
/// Number of segments that deletes leave to merges and clears.
const LEFT_BY_DELETES: u64 = 32;

/// One in this many segments may be kept for its history.
const HISTORY_SHARE: u64 = 8;

/// What a new segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Put,
    /// Deletes only, or ending the active segment so that it can be merged.
    Delete,
    /// A merge or a clear.
    FreeSpace,
}

/// Returns how many segments a store may have before it accepts no more puts.
pub(crate) fn segments_limit() -> u64 {
    limit() - LEFT_BY_PUTS
}

/// Returns how many sealed segments may be kept for their history.
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
    /// Refuses a new segment if the remaining segments are reserved for other needs.
    pub(crate) fn refuse_beyond(&self, need: Need) -> Result<()> {
        let left = match need {
            Need::Put => LEFT_BY_PUTS,
            Need::Delete => LEFT_BY_DELETES,
            Need::FreeSpace => 0,
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
