//! The change feed: followers read the log in order.
//!
//! - A follower holds the segment that it is reading. No merge waits for a reader.
//! - A change is returned once a slot names it, so no later get of the key finds an older value.
//! - A reader moves to the next segment under the log's lock, and only from a segment that no
//!   longer grows. The manifest has then recorded whether a segment in between was removed.
//! - Merged segments are skipped: their entries were returned before, or their history is gone.
//! - A waiting follower is woken only for its own prefix, see `log::waiters`, and skips the rest.
//! - A position lies right after a put or a delete, or where a clear has restarted the log. It
//!   never follows a note of the log itself, which may be removed.

pub(crate) mod backlog;
pub(crate) mod change;
pub(crate) mod part;
pub(crate) mod position;
#[cfg_attr(
    not(any(feature = "cluster", test)),
    expect(dead_code, reason = "clusters alone look for places")
)]
pub(crate) mod seek;
mod unread;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Reader, Role};
use crate::entry::Flags;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::manifest::Manifest;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place, Segment, ignore_unknown_codec};
use crate::store::changes::change::{Change, has_more_in_batch};
use crate::store::changes::position::Position;
use crate::sync::Instant;

/// Changes of a store in commit order, from [`Reader::changes`].
///
/// It owns its state: it can be sent to another thread, and if it outlives the store, it still
/// returns everything committed before the store was closed.
///
/// A waiting follower is woken only by changes of its [prefix](Self::prefix) and costs writers next
/// to nothing. It holds the segment that it is reading, along with that segment's disk space, but
/// never blocks a merge: changes that it has not reached yet may be gone by then. As an iterator,
/// it waits for further changes. It ends after the first error, or when the store is closed and
/// everything has been returned.
#[must_use = "changes are read one by one"]
pub struct Changes {
    pub(super) inner: Arc<Inner>,
    /// Reads the current segment.
    pub(super) walk: Option<Walk>,
    /// After the last change that was returned or skipped.
    pub(super) at: Place,
    /// Readable end of the segment as of the last check.
    pub(super) end: u64,
    /// Everything unread before this place has other prefixes.
    pub(super) clean: Place,
    pub(super) prefix: Vec<u8>,
    pub(super) durable: bool,
    /// The offset of the change that was returned last, and the place that was passed before it.
    last: Option<(u64, Place)>,
    /// Whether the iterator has returned an error, after which it ends.
    failed: bool,
}

/// The next step at the end of what was readable.
enum Next {
    /// The segment has more by now.
    More,
    /// The log continues in this segment.
    Segment(Arc<Segment>),
    /// This is the end for now.
    Nothing,
}

impl Reader {
    /// Returns the changes committed after a position, past and future: every put, with its expiry,
    /// and every delete.
    ///
    /// Start at [`Position::START`] for all changes, or at [`position`](Self::position) for those
    /// from now on. To resume, in this process or a later one, start at the
    /// [position](Change::position) of the last change that you handled.
    ///
    /// Changes are read from the log. A merge removes history, except for what
    /// [`keep_history`](crate::Options::keep_history) keeps. A follower that missed changes gets
    /// [`HistoryGone`](Error::HistoryGone) and must *resync*: copy all keys and values of a
    /// [`snapshot`](Self::snapshot), and continue from its [position](crate::Snapshot::position).
    ///
    /// A [`ReadOnly`](crate::ReadOnly) store returns the changes that it knows of. It does not wait
    /// for more, except for a refresh in progress. Each value keeps its segment alive, so drop
    /// values that you have processed.
    ///
    /// # Errors
    ///
    /// [`HistoryGone`](Error::HistoryGone), [`PositionLost`](Error::PositionLost) and
    /// [`ForeignPosition`](Error::ForeignPosition), all of which require a resync
    /// ([`needs_resync`](Error::needs_resync)); [`InvalidPosition`](Error::InvalidPosition) for a
    /// position that the store never returned.
    ///
    /// ```
    /// use bitcask::{Operation, Position};
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.delete("key")?;
    ///
    /// let mut changes = db.changes(Position::START)?;
    /// let put = changes.try_recv()?.expect("two changes were made");
    /// assert_eq!(put.key, "key");
    /// assert!(matches!(put.operation, Operation::Put { value, .. } if value == "value"));
    ///
    /// // Another follower, which starts after the first change.
    /// let mut rest = db.changes(put.position)?;
    /// assert_eq!(rest.try_recv()?.unwrap().operation, Operation::Delete);
    /// assert_eq!(rest.try_recv()?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn changes(&self, since: Position) -> Result<Changes> {
        Changes::begin(&self.inner, since)
    }

    /// Returns the changes of keys with a prefix, from now on.
    ///
    /// # Errors
    ///
    /// As [`changes`](Self::changes).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let watch = db.watch_prefix("user/")?;
    /// let watcher = std::thread::spawn(move || watch.map(|change| change.unwrap().key).collect());
    /// db.put("user/1", "Ada")?;
    /// db.put("order/1", "a pencil")?;
    /// db.close()?;
    /// let seen: Vec<_> = watcher.join().unwrap();
    /// assert_eq!(seen, ["user/1"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Changes> {
        loop {
            match self.changes(self.position()) {
                // A merge or a clear has run between the two calls.
                Err(error) if error.needs_resync() => {}
                changes => return Ok(changes?.prefix(prefix)),
            }
        }
    }
}

impl Changes {
    /// Skips changes of keys without a prefix. The rest of a batch still counts as a batch.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        (self.prefix, self.clean) = (prefix.as_ref().to_vec(), self.at);
        self
    }

    /// Returns a change only once it is durable, so a crash cannot undo a change that was returned.
    ///
    /// Otherwise, a change is returned as soon as readers of the store can see it. If a crash then
    /// loses a change that the follower has seen, the follower gets
    /// [`PositionLost`](Error::PositionLost). To resync from durable data only, call
    /// [`sync`](crate::Bitcask::sync) after taking the snapshot. In a read-only store, only sealed
    /// segments count as durable.
    pub fn durable(mut self) -> Self {
        (self.durable, self.end) = (true, 0);
        self
    }

    /// Returns the current position. A follower that resumes there misses nothing.
    pub fn resume_position(&self) -> Position {
        self.inner.position_at(self.at)
    }

    /// Returns the next change, or `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`HistoryGone`](Error::HistoryGone) if a merge or a clear has removed the next changes; and
    /// the errors of [`get`](Reader::get) if an entry cannot be read.
    pub fn try_recv(&mut self) -> Result<Option<Change>> {
        // A part of this size ends only with the log.
        Ok(self.try_recv_part(u64::MAX, &mut |_| true)?.into_change())
    }

    /// Waits for the next change. Returns `None` if the store was closed and everything was
    /// returned. On a read-only store, this is the same as [`try_recv`](Self::try_recv).
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
    /// let mut changes = db.changes(db.position())?;
    /// let writer = std::thread::spawn({
    ///     let db = Arc::clone(&db);
    ///     move || db.put("key", "value")
    /// });
    /// assert_eq!(changes.recv()?.expect("the store is open").key, "key");
    /// # writer.join().unwrap()
    /// # }
    /// ```
    pub fn recv(&mut self) -> Result<Option<Change>> {
        Ok(self.wait(None, &mut |_| true)?.into_change())
    }

    /// Waits for the next change, for at most `timeout`. Returns `None` if none has arrived.
    ///
    /// # Errors
    ///
    /// As [`try_recv`](Self::try_recv).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Change>> {
        Ok(self.wait(Instant::now().checked_add(timeout), &mut |_| true)?.into_change())
    }

    fn begin(inner: &Arc<Inner>, since: Position) -> Result<Self> {
        inner.here()?;
        let (path, position) = (|| inner.dir.path().into(), || since.to_string());
        let at = since.place();
        let is_start = since == Position::START;
        if !is_start && since.store_id() != inner.identity.store_id {
            return Err(Error::ForeignPosition { path: path(), position: position() });
        }
        // In this order: the manifest records a segment's removal before it leaves the set.
        let segment = inner.log_segments().find(|segment| segment.id() == at.segment);
        match inner.manifest.get(Manifest::history).cmp(&at) {
            Ordering::Greater => {
                return Err(Error::HistoryGone { path: path(), position: position() });
            }
            Ordering::Less if segment.as_ref().is_none_or(|held| held.size() < at.offset) => {
                return Err(Error::PositionLost { path: path(), position: position() });
            }
            _ => {}
        }
        if let Some(segment) = &segment
            && at.offset < segment.size()
            && !segment
                .entry(at.offset)
                .is_ok_and(|entry| ignore_unknown_codec(entry.check()).is_ok())
        {
            let reason = "no change ends at this position";
            return Err(Error::InvalidPosition { position: position(), reason });
        }
        let walk = segment.map(|segment| Walk::new(&segment, at.offset));
        let (inner, prefix, last) = (Arc::clone(inner), Vec::new(), None);
        Ok(Self { inner, walk, at, end: 0, clean: at, prefix, durable: false, last, failed: false })
    }

    /// Returns the next change from the readable part of this segment, and the size of its value if
    /// that is not admitted. Stops once it has skipped `left` bytes of other changes, of which it
    /// subtracts them.
    fn read(
        &mut self,
        left: &mut u64,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(Change, Option<u64>)>> {
        self.inner.refuse_dead()?;
        let Some(walk) = &mut self.walk else { return Ok(None) };
        loop {
            let start = walk.offset();
            let segment = Arc::clone(walk.segment());
            let Some(stored) = walk.next(self.end)? else { return Ok(None) };
            let entry = stored.entry();
            let wanted = entry.key().starts_with(&self.prefix);
            let change = wanted.then(|| Change::of(&stored, admits)).transpose();
            let (continues, size) =
                (entry.layout.flags.has(Flags::CONTINUES), entry.layout.entry_size());
            let returned = change.and_then(|change| match change {
                Some((change, left_out)) if continues => {
                    let is_wanted = |key: &[u8]| key.starts_with(&self.prefix);
                    let more = has_more_in_batch(walk.clone(), self.end, is_wanted)?;
                    Ok(Some((Change { batch_continues: more, ..change }, left_out)))
                }
                change => Ok(change),
            });
            // On an error, the follower stays where it is.
            let returned = returned.inspect_err(|_| *walk = Walk::new(&segment, start))?;
            if let Some((change, _)) = &returned {
                self.inner.await_published(&segment, &change.key);
            }
            let before = std::mem::replace(&mut self.at, Place::new(segment.id(), walk.offset()));
            if let Some((mut change, left_out)) = returned {
                self.last = Some((start, before));
                change.position = self.inner.position_at(self.at);
                return Ok(Some((change, left_out)));
            }
            *left = left.saturating_sub(size);
            if *left == 0 {
                return Ok(None);
            }
        }
    }

    /// Determines the next step once everything readable was read.
    fn look(&mut self, log: Option<&Log>) -> Next {
        if let Some(walk) = &self.walk {
            let segment = walk.segment();
            self.end = self.inner.readable_end(segment, self.durable);
            if walk.offset() < self.end {
                return Next::More;
            }
            let is_active = log.is_some_and(|log| log.is_active(segment.id()));
            if is_active || walk.offset() < segment.size() {
                return Next::Nothing;
            }
        }
        let is_next = |segment: &Arc<Segment>| match &self.walk {
            // The same segment may have been reopened with more entries.
            Some(walk) if walk.segment().id() == segment.id() => walk.offset() < segment.size(),
            Some(walk) => walk.segment().id() < segment.id(),
            None => self.at.segment < segment.id(),
        };
        let next = self.inner.log_segments().filter(is_next).min_by_key(|segment| segment.id());
        next.map_or(Next::Nothing, Next::Segment)
    }

    /// Moves to another segment, unless one before it is gone.
    fn enter(&mut self, next: &Arc<Segment>) -> Result<()> {
        self.refuse_gone()?;
        let same = self.walk.as_ref().filter(|walk| walk.segment().id() == next.id());
        self.walk = Some(Walk::new(next, same.map_or(FIRST_OFFSET, Walk::offset)));
        self.end = 0;
        Ok(())
    }

    /// Returns an error if changes after the held segment existed and are gone, or if a refresh
    /// shows that a writer in another process has lost changes already returned.
    fn refuse_gone(&self) -> Result<()> {
        let (held, at) = (self.walk.as_ref().map(Walk::segment), self.at);
        let read = held.map_or(at, |held| Place::new(held.id(), held.size()));
        let has_it = |other: Arc<Segment>| other.id() == at.segment && other.size() >= at.offset;
        let is_follower = matches!(self.inner.role, Role::Follower(_));
        // In this order: the manifest drops a segment before the set does.
        let is_lost = is_follower && !self.inner.log_segments().any(has_it);
        let history = self.inner.manifest.get(Manifest::history);
        let (path, position) = (self.inner.dir.path().into(), self.resume_position().to_string());
        match history.cmp(&at) {
            _ if history > read => Err(Error::HistoryGone { path, position }),
            Ordering::Less if is_lost => Err(Error::PositionLost { path, position }),
            _ => Ok(()),
        }
    }
}

impl Iterator for Changes {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.recv();
        self.failed = next.is_err();
        next.transpose()
    }
}
