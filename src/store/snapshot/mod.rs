//! A view of the store as it was at one moment.
//!
//! - A version number is a time: those of the log rise strictly, and a merge keeps them. A snapshot
//!   is the time of the last entry of its moment, and the segments of that moment, which stay.
//! - Of each key it sees the entry with the highest time that is not above its own. That is the one
//!   that the keydir names, as long as the key was not changed since; otherwise the hints of the
//!   segments are asked.
//! - Whether a key has expired is judged by the clock of its moment.
//!
//! # Why it is one moment
//!
//! Time, segments and clock are noted under the lock of the log, so that nothing is appended
//! meanwhile. What is in flight then has to be in the keydir before a look-up trusts it:
//! [`at_one_moment`](crate::log::LogWriter::at_one_moment) waits for that. Nothing that the snapshot
//! sees can be dropped from then on: a merge drops what was overwritten, deleted, or has expired, and
//! whatever is so later than this moment is in a segment that is pinned now.

pub(crate) mod pins;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, Reader, Role};
use crate::clock::Now;
use crate::entry::Header;
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
use crate::value::Value;

impl Reader {
    /// Returns a view of the store as it is now, which nothing changes any more: no write, delete,
    /// expiry, merge or [`clear`](crate::Bitcask::clear).
    ///
    /// Takes microseconds at any size of the store, and no memory to speak of; in a store opened
    /// read-only, a [`refresh`](crate::ReadOnly::refresh) under way is waited for. As long as it is there
    /// the disk space of its segments is not given back: [`stats`](Self::stats) shows what is kept so.
    /// It may outlive the store, which can then be opened again.
    ///
    /// A batch or a transaction is in it whole or not at all.
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
/// Cheap to clone and to share between threads. A look-up costs what one in the store does, as long
/// as the key was not changed since; then it costs some reads of the hint of each segment.
#[derive(Clone)]
#[must_use = "a snapshot pins segments for as long as it is there"]
pub struct Snapshot {
    pub(super) view: Arc<View>,
}

/// What a snapshot's clones share.
pub(crate) struct View {
    pub(super) inner: Arc<Inner>,
    /// Its number among those that pin segments.
    number: u64,
    pub(super) segments: Pinned,
    /// Of the last entry that it sees.
    pub(super) time: u64,
    /// For what expires.
    pub(super) now: Now,
    /// Behind the last entry that it sees.
    position: Position,
    /// What is known of stretches of keys that hold nothing.
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
    /// Returns the value that a key had, or `None` if it was absent or expired.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let (view, guard) = (&self.view, self.view.inner.pin());
        let stored = view.lookup(key.as_ref(), &guard)?;
        stored.map(|stored| view.inner.value(&stored)).transpose()
    }

    /// Calls a closure with the value that a key had, and returns what it makes of it; `None`, without
    /// a call, if the key was absent or expired. See [`Reader::get_with`].
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let (view, guard) = (&self.view, self.view.inner.pin());
        let Some(stored) = view.lookup(key.as_ref(), &guard)? else { return Ok(None) };
        view.inner.check(&stored)?;
        Ok(Some(read(&stored.raw_value()?)))
    }

    /// Returns the values that several keys had, in their order; `None` for one that was absent or
    /// expired.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`], for the first key that can't be read.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Returns the number of bytes of the value that a key had, without the value; see
    /// [`Reader::value_len`].
    ///
    /// # Errors
    ///
    /// As [`Reader::get`], if the key itself can't be read.
    pub fn value_len(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        let guard = self.view.inner.pin();
        let stored = self.view.lookup(key.as_ref(), &guard)?;
        Ok(stored.map(|stored| stored.raw_size().into()))
    }

    /// Returns whether a key was there and not expired, without a copy or a check of its value.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`], if the key itself can't be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.view.lookup(key.as_ref(), &self.view.inner.pin())?.is_some())
    }

    /// Returns where its moment is in the log: what was put and deleted since is what
    /// [`changes`](Reader::changes) tells from there on.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// let snapshot = db.snapshot();
    /// db.put("b", "2")?;
    /// // A copy begins with the snapshot, and goes on with the changes.
    /// assert_eq!(snapshot.iter().count(), 1);
    /// let mut changes = db.changes(snapshot.position())?;
    /// assert_eq!(changes.try_recv()?.expect("b was put since").key, "b");
    /// # drop((snapshot, changes));
    /// # db.close()
    /// # }
    /// ```
    pub fn position(&self) -> Position {
        self.view.position
    }

    /// Returns how long ago it was taken.
    pub fn age(&self) -> Duration {
        let View { inner, now, .. } = &*self.view;
        // A clock that looks at the wall has a lock, which a forked child may find held for ever.
        let time = inner.here().map_or(0, |()| inner.clock.now());
        Duration::from_micros(time.saturating_sub(now.highest()))
    }
}

impl Inner {
    /// Notes the present moment.
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
                // Nobody appends, but a writer elsewhere, whose log is followed under this lock.
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
    /// The view that a forked child gets: each look at it is refused.
    fn of_nothing(inner: &Arc<Inner>) -> Self {
        let (inner, segments, gaps) = (Arc::clone(inner), Pinned::from([]), Arc::default());
        let (now, position) = (Now::default(), Position::START);
        Self { inner, number: u64::MAX, segments, time: 0, now, position, gaps }
    }

    /// Returns whether an entry's time is not over, and not before this moment either.
    fn is_alive(&self, header: &Header) -> bool {
        !header.is_tombstone() && !header.is_expired(&self.now)
    }

    /// Returns the entry that a key has in this view; `None` if the key is absent or expired there.
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
        if self.is_alive(&stored.header) {
            return Ok(Some(stored));
        }
        self.inner.check_absent(&stored)?;
        Ok(None)
    }

    /// Looks for the newest entry of a key, in the segments of this moment, that is not too young.
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

    /// Looks in the entries that a hint names.
    fn newest_of(
        &self,
        segment: &Arc<Segment>,
        slots: &[HintSlot],
        key: &[u8],
    ) -> Result<Option<(Order, u64)>> {
        let mut newest = None;
        for slot in slots {
            let stored = segment.entry(slot.offset())?;
            let header = &stored.entry().header;
            let order = (header.timestamp, !header.is_tombstone());
            let is_newer = newest.is_none_or(|(found, _)| found < order);
            if header.timestamp <= self.time && is_newer && stored.is_of(key)? {
                newest = Some((order, slot.offset()));
            }
        }
        Ok(newest)
    }

    /// Looks in a segment that has no hint: it is not sealed, or the hint can't be used.
    fn newest_sorted(&self, segment: &Arc<Segment>, key: &[u8]) -> Result<Option<(Order, u64)>> {
        let runs = segment.runs(&self.inner.index)?;
        let parts: Vec<Part> = runs.into_iter().map(|run| (Arc::clone(segment), run)).collect();
        let newest = index::newest(&parts, key, self.time)?;
        Ok(newest.map(|version| ((version.timestamp, !version.is_tombstone), version.offset)))
    }
}

/// Orders versions of a key: by time, and where that is the same the put comes last. A merge makes a
/// tombstone of a put that has expired, with the same time; the put tells when it did.
type Order = (u64, bool);

impl Inner {
    /// Returns what a sealed segment's hint has with some hash bits; nothing if there is no hint.
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
