//! How far a follower is behind.

use std::time::SystemTime;

use super::Changes;
use crate::clock::system_time;
use crate::error::Result;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place};

/// Number of changes that are counted one by one. Further ones are estimated by their size.
const COUNTED: u64 = 1000;
/// Size of the changes that are counted one by one, in bytes. They may lie on a slow disk, and a
/// server counts them every second.
const COUNTED_SIZE: u64 = 4 << 20;

/// What a follower has not read yet, from [`Changes::backlog`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Number of puts and deletes. Above 1,000, or if they have more than 4 MiB, it is an estimate.
    pub changes: u64,
    /// Size of these changes in the log, in bytes.
    pub size: u64,
    /// The time of the first of them on the store's clock.
    pub oldest: Option<SystemTime>,
}

impl Backlog {
    /// Returns whether no further change is counted one by one.
    fn is_estimate(&self) -> bool {
        self.changes >= COUNTED || self.size >= COUNTED_SIZE
    }
}

impl Changes {
    /// Returns what lies between this follower and the end of the log, whatever its prefix. It also
    /// includes changes that are not durable yet, which a follower of [durable](Self::durable)
    /// changes does not get before they are. Reads up to 1,000 changes, or 4 MiB of them, without
    /// their values.
    ///
    /// # Errors
    ///
    /// The errors of [`get`](crate::Reader::get) if an entry is damaged where it begins.
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
            while !backlog.is_estimate()
                && let Some(stored) = walk.skim(u64::MAX)?
            {
                backlog.oldest.get_or_insert(system_time(stored.timestamp()));
                backlog.changes += 1;
                backlog.size += stored.layout.entry_size();
            }
            left += segment.size().saturating_sub(walk.offset());
        }
        if backlog.is_estimate() {
            let counted = u128::from(backlog.size.max(1));
            let estimate = u128::from(left) * u128::from(backlog.changes) / counted;
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

#[cfg(test)]
mod tests {
    use crate::fs::Access;
    use crate::options::Options;
    use crate::segment::FIRST_OFFSET;
    use crate::store::{Bitcask, Position};

    /// A leader counts every second what a follower has not read. When it read all of the values,
    /// a follower that was behind by large ones heard nothing for longer than it waits.
    #[test]
    #[cfg(not(miri))]
    fn what_was_not_read_yet_is_counted_without_its_values() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        let changes = db.changes(Position::START).unwrap();
        db.put("k", vec![b'x'; 1 << 20]).unwrap();
        let size = changes.backlog().unwrap().size;
        for _ in 1..10 {
            db.put("k", vec![b'x'; 1 << 20]).unwrap();
        }
        let id = db.inner.writer().unwrap().log.lock().end().segment;
        let file = db.inner.fs.open(&db.inner.dir.log(id), Access::Write).unwrap();
        // A value among the first 4 MiB, and a header behind them.
        file.write_at(&[8], FIRST_OFFSET + size / 2).unwrap();
        file.write_at(&[0; 16], FIRST_OFFSET + 6 * size).unwrap();
        let backlog = changes.backlog().unwrap();
        assert_eq!((backlog.changes, backlog.size), (10, 10 * size));
    }
}
