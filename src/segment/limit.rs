//! Who may have the last segments that a store can address.
//!
//! - Puts may not have them. What makes room does: a delete, which may need a segment to be written to,
//!   and a merge and a clear, which write new ones before the old go. So there is always a way out.

use super::{SEGMENTS_LIMIT, Segments};
use crate::error::{Error, Result};

/// Left to deletes, merges and clears.
const LEFT_BY_PUTS: u64 = 64;
/// Left to merges and clears.
const LEFT_BY_DELETES: u64 = 32;

/// What a new segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Put,
    /// Nothing but deletes; or what is active has to end before it can be merged.
    Delete,
    /// A merge or a clear.
    GiveBack,
}

/// Returns how many segments a store may have before it takes no more puts.
pub(crate) fn segments_limit() -> u64 {
    limit() - LEFT_BY_PUTS
}

fn limit() -> u64 {
    #[cfg(test)]
    if let Some(limit) = allowed::limit() {
        return limit;
    }
    SEGMENTS_LIMIT
}

impl Segments {
    /// Refuses a new segment, if those that are left are for others.
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

/// What tests allow.
#[cfg(test)]
pub(crate) mod allowed {
    use std::cell::Cell;

    thread_local! {
        static LIMIT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Has this thread take so many segments for as many as there can be.
    pub(crate) fn only(segments: u64) {
        LIMIT.set(Some(segments));
    }

    pub(super) fn limit() -> Option<u64> {
        LIMIT.get()
    }
}
