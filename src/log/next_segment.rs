//! The next segment: created ahead by a thread, or by the writer that needs it.
//!
//! - A prepared segment is durable, has its file name, and is empty. It becomes part of the log
//!   only when the end entry of the previous segment names it. Until then, opening removes it, like
//!   any segment after the end of the log, and so does closing.
//! - Its id is taken when its creation begins. A segment that is started meanwhile has a higher id;
//!   then the prepared one is too late, and is removed.
//! - Preparing never makes a write fail, except that a failed sync on the way poisons the store.

use std::sync::Arc;

use super::LogWriter;
use super::state::{ActiveSegment, Log};
use crate::error::{Error, Result};
use crate::fs;
use crate::options::AppendMode;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::HintBuilder;
use crate::segment::limit::Need;
use crate::segment::write::active::Active;
use crate::segment::write::room::AHEAD;
use crate::segment::{SegmentId, sidecar};

impl Log {
    /// Returns whether the active segment is full enough to create the next one.
    fn wants_next(&self, segment_size: u64, segment_entries: u64) -> bool {
        let is_quarter_full = |active: &Active| {
            let segment_size = segment_size.min(active.capacity());
            let (size, entries) = (active.end().offset, active.entries());
            size >= segment_size / 4 || entries >= segment_entries / 4 && entries > 0
        };
        self.prepared.is_none() && self.active().is_some_and(is_quarter_full)
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

    /// Returns an id whose segment could not be created, unless a later one was taken since, or a
    /// foreign file has its name.
    fn give_back(&mut self, id: SegmentId, error: &Error) {
        if !fs::already_exists(error) && id.0.checked_add(1) == Some(self.next_id.0) {
            self.next_id = id;
        }
    }
}

impl LogWriter {
    /// Does the work that can be done ahead of the writers.
    pub(crate) fn prepare(&self) {
        // A failed sync has poisoned the store. Any other failure is met again by the writer that
        // needs the space.
        let _ = self.make_room_ahead();
        let _ = self.keep_reserve();
        let _ = self.prepare_next();
    }

    /// Prepares space ahead of the writers: in the active segment, and in the next one when the
    /// active one is nearly full.
    fn make_room_ahead(&self) -> Result<()> {
        let (active, end, prepared) = {
            let log = self.lock();
            let Some(active) = log.active() else { return Ok(()) };
            let prepared = log.prepared.as_ref().map(|prepared| Arc::clone(prepared.room()));
            (Arc::clone(active.room()), active.end().offset, prepared)
        };
        active.go_ahead(end)?;
        match prepared {
            Some(next) if end + AHEAD > self.context.segment_size => {
                next.set_populated_ahead(active.is_populated_ahead());
                next.go_ahead(AHEAD / 2)
            }
            _ => Ok(()),
        }
    }

    /// Creates the next segment, if the active one is full enough.
    pub(crate) fn prepare_next(&self) -> Result<()> {
        let is_short = !sidecar::has_files_left(&self.context.fs, self.context.dir.path())?;
        if is_short || self.is_reserve_used() {
            return Ok(());
        }
        let id = self.begin_next()?;
        id.map_or(Ok(()), |id| self.finish_next(id))
    }

    /// Takes an id for the next segment, if it is time to create that.
    pub(crate) fn begin_next(&self) -> Result<Option<SegmentId>> {
        let mut log = self.lock();
        if !log.wants_next(self.context.segment_size, self.context.segment_entries) {
            return Ok(None);
        }
        self.check()?;
        log.take_id().map(Some)
    }

    /// Creates the next segment, and hands it to the log if it is in time.
    pub(crate) fn finish_next(&self, id: SegmentId) -> Result<()> {
        let created = self
            .capacity_for(0)
            .and_then(|capacity| self.create(id, Kind::Log, capacity, self.context.append_mode));
        let mut log = self.lock();
        let next = created.inspect_err(|error| log.give_back(id, error))?;
        let in_time = log.active().is_some_and(|active| active.segment().id() < id);
        if in_time && log.prepared.is_none() {
            log.prepared = Some(next);
            return Ok(());
        }
        drop(log);
        self.give_up(&next)
    }

    /// Removes the prepared segment, if there is one: it takes space, and can be created again.
    pub(crate) fn give_up_prepared(&self) {
        let prepared = self.lock().prepared.take();
        if let Some(prepared) = prepared {
            let _ = self.give_up(&prepared);
        }
    }

    /// Removes a prepared segment that the log does not use. If that fails, or if a crash undoes
    /// it, the next open removes it.
    pub(super) fn give_up(&self, prepared: &Active) -> Result<()> {
        self.context.fs.remove(prepared.file().path())
    }

    /// Returns the capacity of a new segment for entries of this size, or an error if a file cannot
    /// be that large.
    pub(super) fn capacity_for(&self, size: u64) -> Result<u64> {
        let limit = self.context.fs.file_size_limit();
        let needed = Active::capacity_for(size, 0);
        if needed > limit {
            return Err(Error::FileTooLarge { size: needed, limit });
        }
        Ok(Active::capacity_for(size, self.context.segment_size.min(limit)))
    }

    /// Returns the segment in which the log continues: the prepared one if entries of this size fit
    /// into it, otherwise a new one. A failure leaves the log as it was, except that an id may
    /// never be used.
    pub(super) fn start_segment(
        &self,
        log: &mut Log,
        size: u64,
        need: Need,
    ) -> Result<ActiveSegment> {
        self.context.segments.refuse_beyond(need)?;
        let capacity = self.capacity_for(size)?;
        if let Some(prepared) = log.prepared.take_if(|prepared| prepared.capacity() >= capacity) {
            return self.number(prepared);
        }
        let next = self.create_next(log, capacity)?;
        let id = next.active.segment().id();
        if log.active().is_none() && log.rotated.is_empty() {
            // This is the first segment since the store was opened or cleared. From here on, an
            // open reports it as missing if its file does not exist.
            let update = self.context.manifest.update(|manifest| {
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

    /// Creates a segment, and assigns it a number.
    pub(crate) fn create_next(&self, log: &mut Log, capacity: u64) -> Result<ActiveSegment> {
        let id = log.take_id()?;
        let created = self.create(id, Kind::Log, capacity, self.context.append_mode);
        self.number(created.inspect_err(|error| log.give_back(id, error))?)
    }

    /// Creates an empty merged segment with space for entries of this size, and assigns it a
    /// number. If there is no space, removes the prepared segment and derived files to make some.
    pub(crate) fn create_merged(&self, size: u64) -> Result<ActiveSegment> {
        self.check()?;
        self.context.segments.refuse_beyond(Need::FreeSpace)?;
        let id = self.lock().take_id()?;
        let capacity = self.capacity_for(size)?;
        // Merged segments are written in large pieces, for which a system call is faster than a
        // mapping.
        let create = || self.create(id, Kind::Merged, capacity, AppendMode::Positioned);
        let active = create().or_else(|error| {
            if !error.is_no_space() {
                return Err(error);
            }
            self.give_up_prepared();
            self.making_room(create)
        })?;
        self.number(active)
    }

    /// Reserves the id of a segment in the manifest, and creates its file.
    fn create(&self, id: SegmentId, kind: Kind, capacity: u64, mode: AppendMode) -> Result<Active> {
        if self.context.manifest.get(|manifest| manifest.bound) <= id {
            let update = self.context.manifest.update(|manifest| manifest.reserve(id));
            update.map_err(|error| self.poison_if_sync_failed(error))?;
        }
        let (identity, created) = (self.context.identity, self.context.clock.now());
        let header = SegmentHeader { kind, id, identity, created };
        Active::create(&self.context.fs, &self.context.dir, header, capacity, mode)
            .map_err(|error| self.poison_if_sync_failed(error))
    }

    /// Adds a segment to the set, which assigns the number by which slots name it.
    fn number(&self, active: Active) -> Result<ActiveSegment> {
        match self.context.segments.add(Arc::clone(active.segment())) {
            Ok(number) => Ok(ActiveSegment { active, number, hint: Some(HintBuilder::default()) }),
            Err(error) => {
                let _ = self.give_up(&active);
                Err(error)
            }
        }
    }

    /// Drops a segment that holds no entry. If its file cannot be removed now, the next open
    /// removes it.
    pub(super) fn discard(&self, number: u32, id: SegmentId) {
        self.context.segments.remove(number);
        let _ = self.context.fs.remove(&self.context.dir.log(id));
    }

    /// Drops a fresh segment after the manifest could not be updated to name it.
    pub(crate) fn take_back(&self, number: u32, id: SegmentId, error: Error) -> Error {
        if error.is_no_space() {
            self.discard(number, id);
        } else {
            // The manifest on disk may name it nevertheless. If it does not, the next open removes
            // it.
            self.context.segments.remove(number);
        }
        self.poison_if_sync_failed(error)
    }
}
