//! Restarting the log when the store is cleared: one write of the manifest, after which nothing
//! earlier counts any more.

use super::LogWriter;
use super::state::{ActiveSegment, Log};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::segment::limit::Need;
use crate::segment::{FIRST_OFFSET, Place, SegmentId};

impl LogWriter {
    /// Makes a fresh, empty segment the whole log. Returns its number. If there is no space for a
    /// segment, the log has none until the next write, and this returns `None`.
    ///
    /// The caller holds all locks from `files` to the log, and clears the keydir next.
    pub(crate) fn restart(&self, log: &mut Log) -> Result<Option<u32>> {
        self.context.segments.refuse_beyond(Need::FreeSpace)?;
        let capacity = self.capacity_for(0)?;
        match self.making_room(|| self.create_next(log, capacity)) {
            Ok(fresh) => self.restart_in(log, fresh).map(Some),
            Err(error) if error.is_no_space() => {
                // This id is never used: all later ones are higher.
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

    /// Makes a segment that has been created and numbered the whole log. Returns its number.
    pub(crate) fn restart_in(&self, log: &mut Log, fresh: ActiveSegment) -> Result<u32> {
        let (id, number) = (fresh.active.segment().id(), fresh.number);
        let update = self.forget_all(log, id, |manifest| {
            (manifest.log, manifest.log_exists) = (id, true);
        });
        update.map_err(|error| self.take_back(number, id, error))?;
        self.begin_at(log, fresh.active.end(), Some(fresh));
        Ok(number)
    }

    /// Records in the manifest that nothing before a segment counts any more.
    fn forget_all(
        &self,
        log: &Log,
        id: SegmentId,
        go_on: impl FnOnce(&mut Manifest),
    ) -> Result<()> {
        self.context.manifest.update(|manifest| {
            manifest.sealed.clear();
            // A clear is not an entry.
            manifest.forget_before(Place::new(id, FIRST_OFFSET));
            manifest.note_time(log.last_timestamp());
            manifest.reserve(log.next_id);
            go_on(manifest);
        })
    }

    /// Begins the log at a place after which there is nothing yet.
    fn begin_at(&self, log: &mut Log, place: Place, active: Option<ActiveSegment>) {
        log.rotated.clear();
        log.unsynced.clear();
        log.end = place;
        log.dirty_since = None;
        log.active = active;
        if let Some(late) = log.prepared.take() {
            let _ = self.give_up(&late);
        }
        // Everything before this place is gone for good, and everything to come lies after it.
        self.commit.advance(log.end);
        log.marked = log.end;
        log.waiters.cleared();
    }
}
