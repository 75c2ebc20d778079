//! Leases on history: what a follower still has to read, and no merge removes.
//!
//! - A lease keeps the log from its position on, as `keep_history` would, until it is dropped. It
//!   moves with its follower. Leases are not stored, and end with the process.
//! - A lease keeps a limited number of bytes. As long as more lies behind its position, it keeps
//!   nothing. So a follower that is too slow costs no more disk space than the limit.
//! - While the disk has no room for one more segment, leases keep nothing either: a follower must
//!   not fill the disk of its leader.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::LogPart;
use crate::segment::{Place, SegmentId};
use crate::store::{Bitcask, Position, Writer};
use crate::sync::Mutex;

/// All leases of a store. Lock 9.
#[derive(Debug, Default)]
pub(crate) struct HistoryLeases(Mutex<LeaseTable>);

#[derive(Debug, Default)]
struct LeaseTable {
    /// Number of leases ever given.
    next: u64,
    leases: BTreeMap<u64, LeasedHistory>,
}

/// What a lease keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeasedHistory {
    from: Place,
    /// Maximum size of the log behind that place, in bytes.
    size_max: u64,
}

impl LeasedHistory {
    pub(super) fn segment(self) -> SegmentId {
        self.from.segment
    }

    /// Returns the oldest segment that this keeps, or `None` if it keeps none. `log` lists the
    /// segments of the log from the youngest to the oldest.
    pub(super) fn oldest(self, log: &[LogPart], len_max: usize) -> Option<SegmentId> {
        let Self { from, size_max } = self;
        let (mut oldest, mut size) = (None, 0_u64);
        for (at, part) in log.iter().enumerate() {
            let unread = match part.id.cmp(&from.segment) {
                std::cmp::Ordering::Greater => part.size,
                std::cmp::Ordering::Equal => part.end.saturating_sub(from.offset).min(part.size),
                std::cmp::Ordering::Less => break,
            };
            size = size.saturating_add(unread);
            if size > size_max || at >= len_max {
                return None;
            }
            // A segment that was read to its end is not needed.
            if unread > 0 {
                oldest = Some(part.id);
            }
        }
        oldest
    }
}

impl HistoryLeases {
    fn add(self: &Arc<Self>, from: Place, size_max: u64) -> HistoryLease {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.leases.insert(number, LeasedHistory { from, size_max });
        HistoryLease { leases: Arc::clone(self), number }
    }

    pub(super) fn all(&self) -> Vec<LeasedHistory> {
        self.0.lock().leases.values().copied().collect()
    }
}

/// A lease on a store's history, from [`Bitcask::lease_history`]. Dropping it ends it.
#[derive(Debug)]
#[must_use = "history is kept for as long as this is held"]
pub struct HistoryLease {
    leases: Arc<HistoryLeases>,
    number: u64,
}

impl HistoryLease {
    /// Gives up the history before a position, which the follower has read by now. An earlier
    /// position changes nothing.
    pub fn move_to(&self, position: Position) {
        if let Some(lease) = self.leases.0.lock().leases.get_mut(&self.number) {
            lease.from = lease.from.max(position.place());
        }
    }
}

impl Drop for HistoryLease {
    fn drop(&mut self) {
        self.leases.0.lock().leases.remove(&self.number);
    }
}

impl Bitcask {
    /// Keeps the history from now on, until the lease is dropped: no merge removes a later
    /// [change](crate::Reader::changes), as long as at most `size_max` bytes have been appended
    /// since, and the disk has room for one more segment.
    ///
    /// It is for the time in which a follower copies a [snapshot](crate::Reader::snapshot). Without
    /// a lease or [`keep_history`](crate::Options::keep_history), a merge may remove the changes
    /// since the snapshot before the follower has asked for them, and it would need another
    /// snapshot, perhaps again and again. Take the lease before the snapshot. A lease does not
    /// survive the process, and does not stop a [`clear`](Self::clear).
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let lease = db.lease_history(1 << 30);
    /// let snapshot = db.snapshot();
    /// // While the snapshot is copied, the store changes, and is merged.
    /// db.put("key", "1")?;
    /// db.put("key", "2")?;
    /// db.merge_opt(MergeOptions::new().force(true))?;
    /// let mut changes = db.changes(snapshot.position())?;
    /// assert_eq!(changes.by_ref().take(2).count(), 2);
    /// lease.move_to(changes.resume_position());
    /// # drop((snapshot, changes, lease));
    /// # db.close()
    /// # }
    /// ```
    pub fn lease_history(&self, size_max: u64) -> HistoryLease {
        self.leased(size_max, |leases, writer| {
            // Under the lock of the log, so that everything that is sealed from then on is kept: a
            // merge that was planned before has only older segments.
            writer.log.at_one_moment(&self.inner.keydir, |log| {
                leases.add(self.inner.position_of(log).place(), size_max)
            })
        })
    }

    /// Keeps the history from a position on, as [`lease_history`](Self::lease_history) does from
    /// now on. Begin to read the [changes](crate::Reader::changes) from the position afterwards:
    /// that fails if they are gone already. A merge that is running keeps them from then on.
    ///
    /// ```
    /// # use bitcask::{Bitcask, MergeOptions, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let position = db.position();
    /// db.put("key", "1")?;
    /// let lease = db.lease_history_since(position, 1 << 30);
    /// db.delete("key")?;
    /// db.merge_opt(MergeOptions::new().force(true))?;
    /// assert_eq!(db.changes(position)?.take(2).count(), 2);
    /// # drop(lease);
    /// # db.close()
    /// # }
    /// ```
    pub fn lease_history_since(&self, position: Position, size_max: u64) -> HistoryLease {
        self.leased(size_max, |leases, writer| {
            // A merge has removed its inputs by now, or sees the lease before it does.
            let _maintenance = writer.log.lock_maintenance();
            leases.add(position.place(), size_max)
        })
    }

    fn leased(
        &self,
        size_max: u64,
        lease: impl FnOnce(&Arc<HistoryLeases>, &Writer) -> HistoryLease,
    ) -> HistoryLease {
        match self.inner.writer() {
            Ok(writer) => lease(&writer.merging.leases, writer),
            // In a forked child, which merges nothing.
            Err(_) => Arc::<HistoryLeases>::default().add(Place::new(SegmentId(0), 0), size_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::FIRST_OFFSET;

    /// Returns a log of segments with 100 bytes each, and the youngest with 10, the youngest first.
    fn log() -> Vec<LogPart> {
        let part = |id, size| LogPart {
            id: SegmentId(id),
            size,
            end: FIRST_OFFSET + size,
            sealed: (id < 9).then_some((0, None)),
        };
        [(9, 10), (8, 100), (7, 100), (5, 100)].map(|(id, size)| part(id, size)).to_vec()
    }

    fn oldest(segment: u32, read: u64, size_max: u64) -> Option<u32> {
        let from = Place::new(SegmentId(segment), FIRST_OFFSET + read);
        LeasedHistory { from, size_max }.oldest(&log(), 10).map(|id| id.0)
    }

    #[test]
    fn a_lease_keeps_what_is_unread_up_to_its_limit() {
        assert_eq!(oldest(9, 10, 100), None);
        assert_eq!(oldest(9, 0, 100), Some(9));
        assert_eq!(oldest(8, 50, 60), Some(8));
        assert_eq!(oldest(8, 49, 60), None, "61 bytes lie behind");
        assert_eq!(oldest(7, 0, 210), Some(7));
        assert_eq!(oldest(7, 0, 209), None);
        // A segment that was read to its end is not kept.
        assert_eq!(oldest(7, 100, u64::MAX), Some(8));
        assert_eq!(oldest(6, 0, u64::MAX), Some(7));
        assert_eq!(oldest(0, 0, u64::MAX), Some(5));
        let all = LeasedHistory { from: Place::new(SegmentId(0), 0), size_max: u64::MAX };
        assert_eq!(all.oldest(&log(), 3), None, "too many segments");
        assert_eq!(all.oldest(&log(), 4), Some(SegmentId(5)));
    }

    #[test]
    fn a_lease_moves_forward_and_ends_when_it_is_dropped() {
        let leases = Arc::<HistoryLeases>::default();
        let place = |segment| Place::new(SegmentId(segment), FIRST_OFFSET);
        let lease = leases.add(place(3), 5);
        let other = leases.add(place(4), 6);
        lease.move_to(Position::new(1, place(8)));
        lease.move_to(Position::new(1, place(2)));
        let from = || leases.all().iter().map(|it| it.from.segment.0).collect::<Vec<_>>();
        assert_eq!(from(), [8, 4]);
        drop(lease);
        assert_eq!(from(), [4]);
        drop(other);
        assert!(from().is_empty());
    }
}
