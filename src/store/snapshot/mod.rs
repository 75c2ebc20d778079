//! Snapshots: views of the store at one moment.
//!
//! - A version number is a timestamp. The timestamps of the log strictly increase, and a merge
//!   preserves them. A snapshot consists of the timestamp of the last entry at its moment, and of
//!   the segments of that moment, which it pins.
//! - Of each key, a snapshot sees the entry with the highest timestamp that is not above its own.
//!   As long as the key has not changed since, the keydir names that entry. Otherwise, the snapshot
//!   looks in the segments' hints.
//! - The clock of its moment decides whether a key has expired.
//!
//! # Why it is one moment
//!
//! Timestamp, segments and clock are read under the lock of the log, so nothing is appended
//! meanwhile. Entries in flight at that moment must reach the keydir before a lookup can trust it;
//! [`at_one_moment`](crate::log::LogWriter::at_one_moment) waits for them. From then on, nothing
//! that the snapshot sees can be dropped: a merge drops only entries that were overwritten, were
//! deleted or have expired, and any entry that this happens to after the snapshot's moment is in a
//! pinned segment.

pub(crate) mod pins;
mod read;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Reader, Role};
use crate::clock::Now;
use crate::epoch::Guard;
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::log::Log;
use crate::mistake::{Mistake, made};
use crate::segment::hint::{HintFile, HintSlot, HintSource};
use crate::segment::index::{Gaps, Part};
use crate::segment::{Segment, StoredEntry, index};
use crate::store::changes::position::Position;
use crate::store::snapshot::pins::Pinned;
use crate::sync::yield_now;

impl Reader {
    /// Returns a view of the store at this moment. No later write, delete, expiry, merge or
    /// [`clear`](crate::Bitcask::clear) changes it.
    ///
    /// Takes less than a microsecond unless it has to wait for a write in flight, whatever the size
    /// of the store, and negligible memory. In a read-only store, it waits for a
    /// [`refresh`](crate::ReadOnly::refresh) in progress. While the snapshot exists, the disk space
    /// of its segments is not reclaimed; [`stats`](Self::stats) shows how much it keeps. A snapshot
    /// may outlive the store, which can then be opened again.
    ///
    /// A snapshot contains a batch or a transaction entirely or not at all.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "then")?;
    /// let snapshot = db.snapshot();
    /// db.put("key", "now")?;
    /// assert_eq!(snapshot.get("key")?.unwrap(), "then");
    /// assert_eq!(db.get("key")?.unwrap(), "now");
    /// # drop(snapshot);
    /// # db.close()
    /// # }
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        let inner = &self.inner;
        let view = if inner.here().is_ok() { Inner::view(inner) } else { View::of_nothing(inner) };
        Snapshot { view: Arc::new(view) }
    }
}

/// The store as it was at one moment, from [`Reader::snapshot`].
///
/// Cheap to clone and to share between threads. A lookup costs the same as in the store as long as
/// the key has not changed since; after that, it costs some reads of each segment's hint.
#[derive(Clone)]
#[must_use = "a snapshot pins segments for as long as it exists"]
pub struct Snapshot {
    pub(super) view: Arc<View>,
}

/// State shared by the clones of a snapshot.
pub(crate) struct View {
    pub(super) inner: Arc<Inner>,
    /// Its number in `Pins`.
    number: u64,
    pub(super) segments: Pinned,
    /// Timestamp of the last visible entry.
    pub(super) time: u64,
    /// The time that decides what has expired.
    pub(super) now: Now,
    /// Position after the last visible entry.
    position: Position,
    /// Ranges known to hold no keys.
    pub(super) gaps: Arc<Gaps>,
}

impl Drop for View {
    fn drop(&mut self) {
        if Inner::is_kept_here(&self.inner) {
            self.inner.unpin(self.number);
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("path", &self.view.inner.dir.path())
            .field("position", &self.view.position)
            .field("time", &self.view.time)
            .field("segments", &self.view.segments.len())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Returns the snapshot's position in the log. [`changes`](Reader::changes) from this position
    /// returns every put and delete made since.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot();
    /// db.put("b", "2")?;
    /// // A replica starts with the snapshot and continues with the changes.
    /// assert_eq!(snapshot.iter().count(), 1);
    /// let mut changes = db.changes(snapshot.position())?;
    /// assert_eq!(changes.try_recv()?.expect("b was put after the snapshot").key, "b");
    /// # drop((snapshot, changes));
    /// # db.close()
    /// # }
    /// ```
    pub fn position(&self) -> Position {
        self.view.position
    }

    /// Returns the time since the snapshot was taken.
    pub fn age(&self) -> Duration {
        let View { inner, now, .. } = &*self.view;
        // Reading the system clock takes a lock, which may be locked forever in a forked child.
        let time = inner.here().map_or(0, |()| inner.clock.now());
        Duration::from_micros(time.saturating_sub(now.highest()))
    }
}

impl Inner {
    /// Creates a view of the present moment.
    pub(super) fn view(this: &Arc<Self>) -> View {
        let of_moment = |time, position| {
            let (number, segments) = this.pins.pin(|| this.segments.whole());
            let (inner, now) = (Arc::clone(this), this.clock.read());
            let gaps = Arc::clone(&this.gaps.lock());
            View { inner, number, segments, time, now, position, gaps }
        };
        let writer = match &this.role {
            Role::Writer(writer) => writer,
            Role::Follower(follower) => {
                // Only a writer in another process appends. Its log is followed under this lock.
                let known = follower.refreshing.lock();
                return of_moment(known.last_timestamp, this.position_read(&known));
            }
        };
        if made(Mistake::PinnedLate) {
            let note = |log: &Log| (log.last_timestamp(), this.position_of(log));
            let (time, position) = writer.log.at_one_moment(&this.keydir, note);
            yield_now();
            return of_moment(time, position);
        }
        let note = |log: &Log| of_moment(log.last_timestamp(), this.position_of(log));
        writer.log.at_one_moment(&this.keydir, note)
    }
}

impl View {
    /// Returns the view that a forked child gets, which refuses every lookup.
    fn of_nothing(inner: &Arc<Inner>) -> Self {
        let (inner, segments, gaps) = (Arc::clone(inner), Pinned::from([]), Arc::default());
        let (now, position) = (Now::default(), Position::START);
        Self { inner, number: u64::MAX, segments, time: 0, now, position, gaps }
    }

    /// Returns whether an entry is a put that had not expired at this moment.
    fn is_alive(&self, stored: &StoredEntry<'_>) -> bool {
        !stored.is_tombstone() && !stored.entry().is_expired(&self.now)
    }

    /// Pins the published slots and segments for reading. Fails in a forked child before it takes
    /// any lock.
    pub(super) fn pin(&self) -> Result<Guard<'_>> {
        self.inner.here()?;
        Ok(self.inner.pin())
    }

    /// Returns the entry of a key in this view, or `None` if the key is absent or expired there.
    pub(super) fn lookup<'a>(
        &'a self,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        let hash = self.inner.keydir.hash(key);
        let newest = self.inner.lookup(hash, key, guard)?;
        let has_changed = match &newest {
            Some(stored) => stored.timestamp() > self.time,
            None => self.inner.keydir.has_removed_since(hash, self.time),
        };
        let seen = if has_changed { self.older(hash, key)? } else { newest };
        let Some(stored) = seen else { return Ok(None) };
        if self.is_alive(&stored) {
            return Ok(Some(stored));
        }
        self.inner.check_absent(&stored)?;
        Ok(None)
    }

    /// Searches the segments of this moment for the newest entry of a key that is no younger than
    /// the view.
    fn older(&self, hash: KeyHash, key: &[u8]) -> Result<Option<StoredEntry<'_>>> {
        let mut newest: Option<(Order, &Arc<Segment>, u64)> = None;
        for segment in self.segments.iter() {
            let times =
                segment.summary().map(|summary| (summary.first_timestamp, summary.last_timestamp));
            let found = newest.as_ref().map_or(0, |((time, _), ..)| *time);
            if times.is_some_and(|(first, last)| first > self.time || last < found) {
                continue;
            }
            let older = match self.inner.slots_of(segment, hash) {
                Some(slots) => self.newest_of(segment, &slots, key)?,
                None => self.newest_sorted(segment, key)?,
            };
            if let Some((order, offset)) = older
                && newest.as_ref().is_none_or(|(found, ..)| *found < order)
            {
                newest = Some((order, segment, offset));
            }
        }
        newest.map(|(_, segment, offset)| segment.entry(offset)).transpose()
    }

    /// Searches the entries that a hint names.
    fn newest_of(
        &self,
        segment: &Arc<Segment>,
        slots: &[HintSlot],
        key: &[u8],
    ) -> Result<Option<(Order, u64)>> {
        let mut newest = None;
        for slot in slots {
            let stored = segment.entry(slot.offset())?;
            let order = (stored.timestamp(), !stored.is_tombstone());
            let is_newer = newest.is_none_or(|(found, _)| found < order);
            if stored.timestamp() <= self.time && is_newer && stored.is_of(key)? {
                newest = Some((order, slot.offset()));
            }
        }
        Ok(newest)
    }

    /// Searches a segment without a usable hint: it is not sealed, or its hint is missing or bad.
    fn newest_sorted(&self, segment: &Arc<Segment>, key: &[u8]) -> Result<Option<(Order, u64)>> {
        let runs = segment.runs(&self.inner.index)?;
        let parts: Vec<Part> = runs.into_iter().map(|run| (Arc::clone(segment), run)).collect();
        let newest = index::newest(&parts, key, self.time)?;
        Ok(newest.map(|version| ((version.timestamp, !version.is_tombstone), version.offset)))
    }
}

/// Orders versions of a key by timestamp; between equal timestamps, the put comes last. A merge
/// turns an expired put into a tombstone with the same timestamp; the put still records when it
/// expired.
type Order = (u64, bool);

impl Inner {
    /// Returns the slots of a sealed segment's hint for some hash bits, or `None` if there is no
    /// hint.
    fn slots_of(&self, segment: &Segment, hash: KeyHash) -> Option<Vec<HintSlot>> {
        segment.summary()?;
        let source =
            HintSource { id: segment.id(), identity: self.identity, length: segment.size() };
        let shards = hash.shard()..hash.shard() + 1;
        let mut slots = HintFile::open(&self.fs, &self.dir, source)?.slots(&self.fs, &shards)?;
        slots.retain(|slot| slot.hash() == hash);
        Some(slots)
    }
}
