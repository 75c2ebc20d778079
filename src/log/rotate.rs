//! Rotation: the active segment is ended, and the log continues in the next one.

use super::LogWriter;
use super::append::next_timestamp;
use super::state::{ActiveSegment, Log, Rotated};
use crate::error::Result;
use crate::fs;
use crate::segment::SegmentId;
use crate::segment::limit::Need;
use crate::segment::write::draft::Draft;
use crate::trace::Event;

impl LogWriter {
    /// Ends the active segment unless it is empty, so that everything in the log can be sealed.
    pub(crate) fn rotate_active(&self) -> Result<()> {
        let mut log = self.lock();
        self.check()?;
        if log.active().is_some_and(|active| active.entries() > 0) {
            let next = self.making_room(|| self.start_segment(&mut log, 0, Need::Delete))?;
            self.rotate(&mut log, next).map_err(|error| self.poison(error))?;
        }
        Ok(())
    }

    /// Ends the active segment and continues in the next one.
    pub(super) fn rotate(&self, log: &mut Log, mut next: ActiveSegment) -> Result<()> {
        // The end entry may be lost with the rest of the segment, so the next one's first entry
        // repeats its mark.
        let mark = self.due_mark(log);
        log.last_timestamp = next_timestamp(log.last_timestamp, self.context.clock.now());
        let timestamp = log.last_timestamp;
        let next_id = next.active.segment().id();
        if let Some(full) = log.active() {
            next.active.continue_from(full);
        }
        if let Some(mut full) = log.active.replace(next) {
            let finished = full.active.finish(next_id, mark, timestamp);
            full.hint.iter_mut().for_each(|hint| hint.end(timestamp));
            // Even if that failed: the segment is still part of the log.
            let rotated = Rotated::from(full);
            log.unsynced.push((rotated.segment.id(), rotated.file.clone()));
            log.rotated.push_back(rotated);
            log.waiters.ended();
            finished?;
            self.context.trace.note(rotated_to(next_id, log));
            self.seal_signal.wake();
        }
        Ok(())
    }

    /// Starts the next segment for entries of this size. Entries that only free space may take it
    /// from the reserve.
    pub(super) fn start_for(
        &self,
        log: &mut Log,
        size: u64,
        drafts: &[Draft<'_>],
    ) -> Result<ActiveSegment> {
        if only_frees_space(drafts) {
            return self.making_room(|| self.start_segment(log, size, Need::Delete));
        }
        self.require_reserve()?;
        self.start_segment(log, size, Need::Put)
    }

    /// Provides space for entries of this size in the active segment, or in the next one if a file
    /// cannot be that large.
    pub(super) fn grow(&self, log: &mut Log, size: u64, drafts: &[Draft<'_>]) -> Result<()> {
        let reserve = |log: &mut Log| match &mut log.active {
            Some(ActiveSegment { active, .. }) => active.reserve(size),
            None => Ok(()),
        };
        let grown = if only_frees_space(drafts) {
            self.making_room(|| reserve(log))
        } else {
            self.require_reserve().and_then(|()| reserve(log))
        };
        match grown {
            Err(error) if fs::is_too_large(&error) => {
                let next = self.start_for(log, size, drafts)?;
                self.rotate(log, next).map_err(|error| self.poison(error))?;
                reserve(log)
            }
            grown => grown,
        }
    }
}

/// Returns the event of the latest rotation.
fn rotated_to(next: SegmentId, log: &Log) -> Event<'static> {
    let rotated = log.rotated.back();
    let (segment, entries) = rotated.map_or((next, 0), |it| (it.segment.id(), it.entries));
    let size = rotated.map_or(0, |rotated| rotated.segment.size());
    Event::Rotated { segment: segment.0, next: next.0, size, entries }
}

/// Returns whether entries only free space.
fn only_frees_space(drafts: &[Draft<'_>]) -> bool {
    drafts.iter().all(|draft| draft.header.is_tombstone())
}
