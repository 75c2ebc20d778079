//! From rotated to sealed, and from everything to nothing.
//!
//! - Segments are sealed strictly in the order of their ids, once everything in them is published:
//!   cut, sync, hint, directory sync, manifest. A crash in between leaves an unsealed segment, which
//!   opening seals.
//! - `clear` is one manifest write; the files go afterwards.

use std::sync::Arc;

use super::log::{ActiveSegment, Log, Rotated};
use super::{Bitcask, Inner};
use crate::error::Result;
use crate::manifest::{Manifest, Sealed};
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::hint::{Hint, HintSource};
use crate::segment::limit::Need;
use crate::segment::{FIRST_OFFSET, Place, SegmentId};

impl Bitcask {
    /// Removes all keys, and gives their disk space back.
    ///
    /// Positions from before are gone with what was removed; in a store that holds nothing, nothing is
    /// done, and they stay good.
    ///
    /// All or nothing, and durable when it returns: after a crash either everything is there or
    /// the store is empty. Values that are held stay readable. Waits for a [`backup`](Self::backup)
    /// that is being made, and for a segment that is being sealed; then reads and writes of other
    /// threads wait too.
    ///
    /// # Errors
    ///
    /// [`NoSpace`](crate::Error::NoSpace) and
    /// [`Poisoned`](crate::Error::Poisoned) if nothing was removed. If only the old files could
    /// not be unlinked the store is empty all the same, and the next open removes them.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.clear()?;
    /// assert!(db.is_empty()?);
    /// # db.close()
    /// # }
    /// ```
    pub fn clear(&self) -> Result<()> {
        let inner = &self.inner;
        let writer = inner.writer()?;
        let mut turn = writer.merging.interrupt()?;
        // As a merge does, and before there are guards of its own.
        inner.segments.free_retired();
        let _files = writer.files.lock();
        let _maintenance = writer.maintenance.lock();
        let mut shards = inner.all_shards();
        let mut log = writer.log.lock();
        inner.commit.check()?;
        // Where nothing was ever put, or all of it is gone, there is nothing to forget either.
        if log.holds_nothing() && inner.manifest.get(|manifest| manifest.sealed.is_empty()) {
            return Ok(());
        }
        let fresh = inner.restart_log(&mut log)?;
        // A clear has no timestamp of its own: what scans find to be gone from now on is there for
        // snapshots of the last entry's.
        *inner.gaps.lock() = Arc::default();
        shards.clear(log.next_timestamp());
        *turn.pending = None;
        inner.filler.forget();
        let mut removed = Vec::new();
        for (number, _) in inner.segments.all() {
            if Some(number) != fresh {
                removed.extend(inner.segments.remove(number));
            }
        }
        drop((log, shards));
        removed.sort_by_key(|segment| segment.id());
        let each = removed.iter().map(|segment| inner.unlink(segment));
        let result = each.fold(Ok(()), Result::and);
        inner.segments.free_retired();
        result
    }
}

impl Inner {
    /// Makes a fresh, empty segment the whole log, and returns its number. Where there is no room for one
    /// the log is nothing at all until somebody writes. The caller holds all locks.
    fn restart_log(&self, log: &mut Log) -> Result<Option<u32>> {
        self.segments.refuse_beyond(Need::GiveBack)?;
        let capacity = self.capacity_for(0)?;
        match self.making_room(|| self.create_next(log, capacity)) {
            Ok(fresh) => self.restart_in(log, fresh).map(Some),
            Err(error) if error.is_no_space() => {
                // It is never used: what comes next lies above it.
                let id = log.take_id()?;
                let next = log.next_id;
                let update = self.forget_all(log, id, |manifest| {
                    (manifest.log, manifest.log_exists) = (next, false);
                });
                update.map_err(|error| self.poison_if_sync_failed(error))?;
                self.begin_at(log, Place::new(id, FIRST_OFFSET), None);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same with a segment that is there, and in the set, already.
    pub(super) fn restart_in(&self, log: &mut Log, fresh: ActiveSegment) -> Result<u32> {
        let (id, number) = (fresh.active.segment().id(), fresh.number);
        let update = self.forget_all(log, id, |manifest| {
            (manifest.log, manifest.log_exists) = (id, true);
        });
        update.map_err(|error| self.take_back(number, id, error))?;
        self.begin_at(log, fresh.active.end(), Some(fresh));
        Ok(number)
    }

    /// Has the manifest say that nothing before a segment counts any more.
    fn forget_all(
        &self,
        log: &Log,
        id: SegmentId,
        go_on: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        self.manifest.update(|manifest| {
            manifest.sealed.clear();
            // A clear is no entry.
            manifest.forget_before(Place::new(id, FIRST_OFFSET));
            manifest.note_time(log.last_timestamp());
            manifest.reserve(log.next_id);
            go_on(manifest);
        })
    }

    /// Has the log begin at a place, behind which there is nothing yet.
    fn begin_at(&self, log: &mut Log, place: Place, active: Option<ActiveSegment>) {
        log.rotated.clear();
        log.unsynced.clear();
        log.end = place;
        log.dirty_since = None;
        log.active = active;
        if let Some(late) = log.prepared.take() {
            let _ = self.give_up(&late);
        }
        // What was there before is gone for good, and what is to come lies above this.
        self.commit.advance(log.end);
        log.marked = log.end;
        log.waiters.cleared();
    }

    /// Seals what has been rotated by now, oldest first. What writers rotate meanwhile does not
    /// count: they may be faster.
    pub(super) fn seal_rotated(&self) -> Result<()> {
        let mut left = self.writer()?.log.lock().rotated.len();
        while left > 0 && self.seal_oldest()? {
            left -= 1;
        }
        Ok(())
    }

    /// Seals the oldest segment that has been rotated; says whether there was one.
    pub(super) fn seal_oldest(&self) -> Result<bool> {
        let writer = self.writer()?;
        let _maintenance = writer.maintenance.lock();
        let (oldest, next) = {
            let log = writer.log.lock();
            (log.rotated.front().cloned(), log.after_oldest())
        };
        let Some(oldest) = oldest else { return Ok(false) };
        self.commit.check()?;
        self.await_published(&oldest.segment);
        self.seal(&oldest, next).map_err(|error| {
            // What is only in the way can be waited out: the segment stays as it is, unsealed.
            if error.is_corruption() {
                self.commit.poison(error)
            } else {
                self.poison_if_sync_failed(error)
            }
        })?;
        let mut log = writer.log.lock();
        log.sealed_oldest();
        log.waiters.synced();
        Ok(true)
    }

    /// Seals everything, the active segment too; the last thing a store does.
    pub(super) fn seal_all(&self) -> Result<()> {
        let Ok(writer) = self.writer() else { return Ok(()) };
        self.commit.check()?;
        // Best effort: without them the next open has to read the segments.
        while self.write_hint().unwrap_or(false) {}
        let end = writer.log.lock().end();
        self.sync_to(end)?;
        let (unused, last_timestamp) = {
            let mut log = writer.log.lock();
            log.stop();
            (log.prepared.take(), log.last_timestamp())
        };
        // What follows syncs the directory.
        let given_up = unused.map_or(Ok(()), |unused| self.give_up(&unused));
        let sealed = self.seal_rotated().and(given_up);
        if sealed.is_ok() && self.clock.is_behind(last_timestamp) {
            // The next open goes on from here. Best effort: otherwise it does so from the last entry.
            let _ = self.manifest.update(|manifest| manifest.note_time(self.clock.now()));
        }
        sealed
    }

    fn seal(&self, rotated: &Rotated, next: Option<SegmentId>) -> Result<()> {
        let Rotated { segment, number, file, room, entries } = rotated;
        let (id, length) = (segment.id(), segment.size());
        let go_on = |manifest: &mut Manifest| {
            manifest.log = next.unwrap_or(manifest.bound);
            manifest.log_exists = next.is_some();
        };
        if *entries == 0 {
            // There may be marks in it, which have times too.
            let time = self.writer()?.log.lock().last_timestamp();
            self.manifest.update(|manifest| {
                if length > FIRST_OFFSET {
                    manifest.note_time(time);
                }
                go_on(manifest);
            })?;
            self.discard(*number, id);
            return Ok(());
        }
        room.cut(length)?;
        if !made(Mistake::SealNotSynced) {
            file.sync()?;
        }
        let source = HintSource { id, identity: self.identity, length };
        let hint = Hint::build(file, source, |key| self.keydir.hash(key))?;
        hint.write(&self.fs, &self.dir, source)?;
        segment.summarize(hint.summary);
        self.fs.sync_dir(self.dir.path())?;
        self.manifest.update(|manifest| {
            manifest.sealed.push(Sealed { id, kind: Kind::Log, length });
            go_on(manifest);
        })
    }
}
