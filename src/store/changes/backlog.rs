//! How far a follower is behind.

use std::time::SystemTime;

use super::Changes;
use crate::clock::system_time;
use crate::error::Result;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place};

/// Number of changes that are counted one by one. Further ones are estimated by their size.
const COUNTED: u64 = 1000;

/// What a follower has not read yet, from [`Changes::backlog`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Number of puts and deletes. Above 1,000, it is an estimate.
    pub changes: u64,
    /// Size of these changes in the log, in bytes.
    pub size: u64,
    /// The time of the first of them on the store's clock.
    pub oldest: Option<SystemTime>,
}

impl Changes {
    /// Returns what lies between this follower and the end of the log, whatever its prefix. It also
    /// includes changes that are not durable yet, which a follower of [durable](Self::durable)
    /// changes does not get before they are. Reads up to 1,000 changes.
    ///
    /// # Errors
    ///
    /// The errors of [`get`](crate::Reader::get) if an entry cannot be read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let mut changes = db.changes(db.position())?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// assert_eq!(changes.backlog()?.changes, 2);
    /// assert!(changes.try_recv()?.is_some());
    /// assert_eq!(changes.backlog()?.changes, 1);
    /// # drop(changes);
    /// # db.close()
    /// # }
    /// ```
    pub fn backlog(&self) -> Result<Backlog> {
        self.inner.here()?;
        let from = self.next_place();
        let mut segments: Vec<_> = self.inner.log_segments().collect();
        segments.retain(|segment| segment.id() >= from.segment);
        segments.sort_by_key(|segment| segment.id());
        let (mut backlog, mut left) = (Backlog::default(), 0);
        for segment in segments {
            let is_first = segment.id() == from.segment;
            let mut walk = Walk::new(&segment, if is_first { from.offset } else { FIRST_OFFSET });
            while backlog.changes < COUNTED
                && let Some(stored) = walk.next(u64::MAX)?
            {
                backlog.oldest.get_or_insert(system_time(stored.timestamp()));
                backlog.changes += 1;
                backlog.size += stored.layout.entry_size();
            }
            left += segment.size().saturating_sub(walk.offset());
        }
        if backlog.changes == COUNTED {
            let counted = u128::from(backlog.size.max(1));
            let estimate = u128::from(left) * u128::from(COUNTED) / counted;
            backlog.changes += u64::try_from(estimate).unwrap_or(u64::MAX - COUNTED);
            backlog.size += left;
        }
        Ok(backlog)
    }

    /// Returns the place of the next read.
    pub(crate) fn next_place(&self) -> Place {
        self.walk.as_ref().map_or(self.at, |walk| Place::new(walk.segment().id(), walk.offset()))
    }
}
