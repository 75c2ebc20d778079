//! Where the next segment comes from: created ahead by a thread, or by the writer that needs it.
//!
//! - A prepared segment is durable, under its name, and empty. It is not part of the log before
//!   the end entry of the one before names it; until then opening removes it as it would any
//!   segment behind the end of the log, and close removes it itself.
//! - Its id is taken when its creation begins. A segment that is started meanwhile has a higher
//!   one: then the prepared one comes too late, and goes.
//! - Preparing fails no write. Only a sync that fails on the way poisons.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::log::{ActiveSegment, Log};
use super::threads::IDLE;
use crate::error::{Error, Result};
use crate::fs;
use crate::options::AppendMode;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::limit::Need;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::write::room::AHEAD;
use crate::segment::{SegmentId, sidecar};

impl Log {
    /// Returns whether the active segment is full enough for the next one to be worth its file.
    fn wants_next(&self, segment_size: u64, segment_entries: u64) -> bool {
        let begun = |active: &Active| {
            let segment_size = segment_size.min(active.capacity());
            let (size, entries) = (active.end().offset, active.entries());
            size >= segment_size / 4 || entries >= segment_entries / 4 && entries > 0
        };
        self.prepared.is_none() && self.active().is_some_and(begun)
    }

    /// Takes the next id, which is higher than that of any segment of the log.
    pub(super) fn take_id(&mut self) -> Result<SegmentId> {
        let id = self.next_id;
        let following = id.0.checked_add(1);
        self.next_id = following
            .map(SegmentId)
            .ok_or(Error::TooManySegments { limit: u64::from(u32::MAX) })?;
        Ok(id)
    }

    /// Gives back an id whose segment could not be created, unless another one was taken since, or some
    /// file that is not ours has its name.
    fn give_back(&mut self, id: SegmentId, error: &Error) {
        if !fs::is_there_already(error) && id.0.checked_add(1) == Some(self.next_id.0) {
            self.next_id = id;
        }
    }
}

impl Inner {
    /// Does what can be done ahead of the writers, and says how long to wait for more.
    pub(super) fn prepare_due(&self) -> Duration {
        // A failed sync is kept as poison. Whatever else fails here is met again by the writer
        // that needs it.
        let _ = self.make_room_ahead();
        let _ = self.keep_reserve();
        let _ = self.prepare_next();
        IDLE
    }

    /// Makes room ready ahead of the writers: in the active segment, and when that is nearly full
    /// in the next.
    fn make_room_ahead(&self) -> Result<()> {
        let (active, end, prepared) = {
            let log = self.writer()?.log.lock();
            let Some(active) = log.active() else { return Ok(()) };
            let prepared = log.prepared.as_ref().map(|prepared| Arc::clone(prepared.room()));
            (Arc::clone(active.room()), active.end().offset, prepared)
        };
        active.go_ahead(end)?;
        match prepared {
            Some(next) if end + AHEAD > self.options.segment_size => next.go_ahead(AHEAD / 2),
            _ => Ok(()),
        }
    }

    /// Creates the next segment, if the active one is full enough.
    pub(super) fn prepare_next(&self) -> Result<()> {
        let is_short = !sidecar::has_files_left(&self.fs, self.dir.path())?;
        if is_short || self.is_reserve_used() {
            return Ok(());
        }
        let id = self.begin_next()?;
        id.map_or(Ok(()), |id| self.finish_next(id))
    }

    /// Takes an id for the next segment, if it is time to create it.
    pub(super) fn begin_next(&self) -> Result<Option<SegmentId>> {
        let mut log = self.writer()?.log.lock();
        if !log.wants_next(self.options.segment_size, self.options.segment_entries) {
            return Ok(None);
        }
        self.commit.check()?;
        log.take_id().map(Some)
    }

    /// Creates the next segment, and hands it over if it comes in time.
    pub(super) fn finish_next(&self, id: SegmentId) -> Result<()> {
        let created = self
            .capacity_for(0)
            .and_then(|capacity| self.create(id, Kind::Log, capacity, self.options.append_mode));
        let mut log = self.writer()?.log.lock();
        let next = created.inspect_err(|error| log.give_back(id, error))?;
        let in_time = log.active().is_some_and(|active| active.segment().id() < id);
        if in_time && log.prepared.is_none() {
            log.prepared = Some(next);
            return Ok(());
        }
        drop(log);
        self.give_up(&next)
    }

    /// Removes a prepared segment that the log does not go on in. If that fails, or is undone by
    /// a crash, opening does it.
    pub(super) fn give_up(&self, prepared: &Active) -> Result<()> {
        self.fs.remove(prepared.file().path())
    }

    /// Returns how large a segment has to be that entries of this size fit in, and may be here: no larger
    /// than a file can be.
    pub(super) fn capacity_for(&self, size: u64) -> Result<u64> {
        let limit = self.fs.file_size_limit();
        let needed = Active::capacity_for(size, 0);
        if needed > limit {
            return Err(Error::FileTooLarge { size: needed, limit });
        }
        Ok(Active::capacity_for(size, self.options.segment_size.min(limit)))
    }

    /// Starts the next segment for entries of this size. Those that do nothing but give room back may have
    /// it of the reserve.
    pub(super) fn start_for(
        &self,
        log: &mut Log,
        size: u64,
        drafts: &[Draft<'_>],
    ) -> Result<ActiveSegment> {
        if gives_back(drafts) {
            return self.making_room(|| self.start_segment(log, size, Need::Delete));
        }
        self.require_reserve()?;
        self.start_segment(log, size, Need::Put)
    }

    /// Makes room ready for such entries in the active segment, or in the next one, where a file can't
    /// be so large.
    pub(super) fn grow(&self, log: &mut Log, size: u64, drafts: &[Draft<'_>]) -> Result<()> {
        let reserve = |log: &mut Log| match &mut log.active {
            Some(ActiveSegment { active, .. }) => active.reserve(size),
            None => Ok(()),
        };
        let grown = if gives_back(drafts) {
            self.making_room(|| reserve(log))
        } else {
            self.require_reserve().and_then(|()| reserve(log))
        };
        match grown {
            Err(error) if fs::is_too_large(&error) => {
                let next = self.start_for(log, size, drafts)?;
                self.rotate(log, next).map_err(|error| self.commit.poison(error))?;
                reserve(log)
            }
            grown => grown,
        }
    }

    /// Returns the segment that the log goes on in: the prepared one, if entries of this size fit
    /// in it, or a new one. A failure leaves the log as it was, but for an id that is never used.
    pub(super) fn start_segment(
        &self,
        log: &mut Log,
        size: u64,
        need: Need,
    ) -> Result<ActiveSegment> {
        self.segments.refuse_beyond(need)?;
        let capacity = self.capacity_for(size)?;
        if let Some(prepared) = log.prepared.take_if(|prepared| prepared.capacity() >= capacity) {
            return self.number(prepared);
        }
        let next = self.create_next(log, capacity)?;
        let id = next.active.segment().id();
        if log.active().is_none() && log.rotated.is_empty() {
            // The first one since the store was opened or emptied: from here on it is missed if
            // it is not there.
            let update = self.manifest.update(|manifest| {
                manifest.log = id;
                manifest.log_exists = true;
                manifest.reserve(log.next_id);
            });
            update.map_err(|error| self.take_back(next.number, id, error))?;
        }
        if let Some(late) = log.prepared.take() {
            let _ = self.give_up(&late);
        }
        Ok(next)
    }

    /// Creates a segment, and has it among those that slots can name.
    pub(super) fn create_next(&self, log: &mut Log, capacity: u64) -> Result<ActiveSegment> {
        let id = log.take_id()?;
        let created = self.create(id, Kind::Log, capacity, self.options.append_mode);
        self.number(created.inspect_err(|error| log.give_back(id, error))?)
    }

    /// Creates the file of a segment, once its id is reserved.
    pub(super) fn create(
        &self,
        id: SegmentId,
        kind: Kind,
        capacity: u64,
        mode: AppendMode,
    ) -> Result<Active> {
        if self.manifest.get(|manifest| manifest.bound) <= id {
            let update = self.manifest.update(|manifest| manifest.reserve(id));
            update.map_err(|error| self.poison_if_sync_failed(error))?;
        }
        let (identity, created) = (self.identity, self.clock.now());
        let header = SegmentHeader { kind, id, identity, created };
        Active::create(&self.fs, &self.dir, header, capacity, mode)
            .map_err(|error| self.poison_if_sync_failed(error))
    }

    /// Gives a segment the number that slots name it by.
    pub(super) fn number(&self, active: Active) -> Result<ActiveSegment> {
        match self.segments.add(Arc::clone(active.segment())) {
            Ok(number) => Ok(ActiveSegment { active, number }),
            Err(error) => {
                let _ = self.give_up(&active);
                Err(error)
            }
        }
    }

    /// Forgets a segment that holds no entry. What can't be removed now is removed at the next
    /// open.
    pub(super) fn discard(&self, number: u32, id: SegmentId) {
        self.segments.remove(number);
        let _ = self.fs.remove(&self.dir.log(id));
    }

    /// Lets go of a fresh segment that the manifest could not be made to name.
    pub(super) fn take_back(&self, number: u32, id: SegmentId, error: Error) -> Error {
        if error.is_no_space() {
            self.discard(number, id);
        } else {
            // The manifest on disk may name it all the same; if not, opening removes it.
            self.segments.remove(number);
        }
        self.poison_if_sync_failed(error)
    }

    /// Poisons the store if it was a sync that failed; then nobody knows what is on disk. Or if it was
    /// found that the directory is not its own any more.
    pub(super) fn poison_if_sync_failed(&self, error: Error) -> Error {
        if fs::ends_writing(&error) { self.commit.poison(error) } else { error }
    }
}

/// Returns whether entries do nothing but set room free that others take.
fn gives_back(drafts: &[Draft<'_>]) -> bool {
    drafts.iter().all(|draft| draft.header.is_tombstone())
}
