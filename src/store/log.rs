//! The end of the log: where an entry gets its place, its time and the mark that rides on it, and
//! where one segment follows the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::published::{Appended, Written};
use crate::clock::TIME_MAX;
use crate::commit::Unsynced;
use crate::entry::Mark;
use crate::epoch::Guard;
use crate::error::Result;
use crate::fs::File;
use crate::mistake::{Mistake, made};
use crate::options::{SEGMENT_SIZE_LIMIT, SyncPolicy};
use crate::segment::limit::Need;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::write::room::Room;
use crate::segment::{FIRST_OFFSET, Place, Segment, SegmentId};
use crate::stats::Stats;
use crate::store::changes::waiters::Waiters;
use crate::sync::Instant;

/// What a mark adds to an entry that would have none.
const MARK_ROOM: u64 = 8;

/// What a mark of its own takes: header, mark, padding.
const MARK_SIZE: u64 = 32;

/// The most that a batch may take on disk: all its entries have to be addressable.
pub(super) const BATCH_SIZE_LIMIT: u64 =
    SEGMENT_SIZE_LIMIT - FIRST_OFFSET - crate::entry::END_SIZE_MAX - MARK_ROOM;

/// What the append lock guards.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) active: Option<ActiveSegment>,
    /// The segment that the log is to go on in, if it is there already.
    pub(super) prepared: Option<Active>,
    /// Full segments that are not sealed yet, oldest first.
    pub(super) rotated: VecDeque<Rotated>,
    /// Those of them that no sync has covered yet.
    pub(super) unsynced: Vec<(SegmentId, File)>,
    pub(super) next_id: SegmentId,
    last_timestamp: u64,
    /// The highest place that a mark in the log names.
    pub(super) marked: Place,
    /// Behind the last entry that asks to be synced; marks do not.
    pub(super) end: Place,
    /// Since when an entry waits for a sync.
    pub(super) dirty_since: Option<Instant>,
    /// When the last sync began; a while after it a mark of its own is due, unless an entry has
    /// carried it.
    synced_at: Option<Instant>,
    appends: u64,
    appended_size: u64,
    /// Nothing will be appended any more: the store is closed.
    pub(super) closed: bool,
    /// Those who wait for it to go on.
    pub(super) waiters: Waiters,
}

#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) active: Active,
    pub(super) number: u32,
}

/// A full segment on its way to be sealed.
#[derive(Debug, Clone)]
pub(super) struct Rotated {
    pub(super) segment: Arc<Segment>,
    pub(super) number: u32,
    pub(super) file: File,
    pub(super) room: Arc<Room>,
    /// Puts and deletes in it.
    pub(super) entries: u64,
}

impl From<ActiveSegment> for Rotated {
    fn from(ActiveSegment { active, number }: ActiveSegment) -> Self {
        let (segment, room) = (Arc::clone(active.segment()), Arc::clone(active.room()));
        Self { segment, number, file: active.file().clone(), room, entries: active.entries() }
    }
}

impl Log {
    pub(super) fn new(next_id: SegmentId, last_timestamp: u64) -> Self {
        let start = Place::new(SegmentId(0), 0);
        Self {
            active: None,
            prepared: None,
            rotated: VecDeque::new(),
            unsynced: Vec::new(),
            next_id,
            last_timestamp,
            marked: start,
            end: start,
            dirty_since: None,
            synced_at: None,
            appends: 0,
            appended_size: 0,
            closed: false,
            waiters: Waiters::default(),
        }
    }

    pub(super) fn active(&self) -> Option<&Active> {
        self.active.as_ref().map(|numbered| &numbered.active)
    }

    /// Returns whether a segment is the one that is appended to.
    pub(super) fn is_active(&self, id: SegmentId) -> bool {
        self.active().is_some_and(|active| active.segment().id() == id)
    }

    pub(super) fn end(&self) -> Place {
        self.end
    }

    /// Returns whether slots name everything that has been appended. What is sealed they name anyway.
    pub(super) fn is_published(&self) -> bool {
        let is_published = |active: &Active| active.segment().is_published();
        self.active().is_none_or(is_published)
            && self.rotated.iter().all(|rotated| rotated.segment.is_published())
    }

    /// Returns whether there is no entry of a key in any unsealed segment.
    pub(super) fn holds_nothing(&self) -> bool {
        self.rotated.is_empty() && self.active().is_none_or(|active| active.entries() == 0)
    }

    /// Returns the unsealed segments, oldest first.
    pub(super) fn unsealed(&self) -> Vec<Arc<Segment>> {
        let rotated = self.rotated.iter().map(|rotated| Arc::clone(&rotated.segment));
        rotated.chain(self.active().map(|active| Arc::clone(active.segment()))).collect()
    }

    /// Returns the ids of the unsealed segments, oldest first.
    pub(super) fn ids(&self) -> Vec<SegmentId> {
        let rotated = self.rotated.iter().map(|rotated| rotated.segment.id());
        rotated.chain(self.active().map(|active| active.segment().id())).collect()
    }

    /// Returns the time of the last entry.
    pub(super) fn last_timestamp(&self) -> u64 {
        self.last_timestamp
    }

    /// Returns a time that the next entry will have reached, and none before it has.
    pub(super) fn next_timestamp(&self) -> u64 {
        self.last_timestamp + 1
    }

    pub(super) fn dirty(&self) -> (Option<Instant>, Place) {
        (self.dirty_since, self.end)
    }

    pub(super) fn appends(&self) -> u64 {
        self.appends
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.appends = self.appends;
        stats.appended_size = self.appended_size;
    }

    /// Returns the id of the segment that follows the oldest rotated one, if there is one.
    pub(super) fn after_oldest(&self) -> Option<SegmentId> {
        let rotated = self.rotated.get(1).map(|rotated| rotated.segment.id());
        rotated.or_else(|| self.active().map(|active| active.segment().id()))
    }

    /// Lets go of the oldest rotated segment, which is sealed now.
    pub(super) fn sealed_oldest(&mut self) {
        if let Some(sealed) = self.rotated.pop_front() {
            self.unsynced.retain(|(id, _)| *id != sealed.segment.id());
        }
    }

    /// Stops appending: the active segment becomes the youngest rotated one.
    pub(super) fn stop(&mut self) {
        self.rotated.extend(self.active.take().map(Rotated::from));
    }

    /// Gives up the unsealed segments, each with its file, and all that could store to them.
    pub(super) fn give_up(&mut self) -> Vec<(Arc<Segment>, File)> {
        self.stop();
        self.prepared = None;
        self.rotated.drain(..).map(|rotated| (rotated.segment, rotated.file)).collect()
    }

    pub(super) fn unsynced(&mut self) -> Unsynced {
        let mut files: Vec<File> = self.unsynced.drain(..).map(|(_, file)| file).collect();
        if made(Mistake::RotatedNotSynced) {
            files.clear();
        }
        self.dirty_since = None;
        self.synced_at = Some(Instant::now());
        let end = match &self.active {
            Some(ActiveSegment { active, .. }) => {
                files.push(active.file().clone());
                active.end()
            }
            None => self.end,
        };
        Unsynced { files, end }
    }
}

impl Inner {
    /// Appends entries, all in one segment, and of keys whose shards the caller has locked. They are
    /// in flight until the caller has published them.
    ///
    /// A failure before the first byte is written changes nothing; any later one poisons.
    pub(super) fn append<'a>(
        &'a self,
        log: &mut Log,
        drafts: &mut [Draft<'_>],
        guard: &'a Guard<'_>,
    ) -> Result<Appended<'a>> {
        self.commit.check()?;
        let now = self.clock.now();
        self.refuse_end_of_time(now.max(log.last_timestamp), drafts.len())?;
        let size = drafts.iter().map(|draft| draft.header.entry_size()).sum::<u64>() + MARK_ROOM;
        self.make_room(log, size, drafts)?;
        if let Some(draft) = drafts.first_mut() {
            draft.header = draft.header.with_mark(self.due_mark(log));
        }
        let (number, offset, end) =
            Self::write(log, drafts, now).map_err(|error| self.commit.poison(error))?;
        let segment = self.segments.get(number, guard);
        let in_flight = segment.begin_append();
        log.waiters.appended(drafts, log.end);
        log.end = end;
        log.appends += drafts.len() as u64;
        log.appended_size += end.offset - offset;
        if log.dirty_since.is_none() {
            log.dirty_since = Some(Instant::now());
            if matches!(self.options.sync_policy, SyncPolicy::Interval(_)) {
                self.sync_signal.wake();
            }
        }
        let (timestamp, backlog) = (log.last_timestamp, log.rotated.len());
        let written = Written { end, backlog };
        Ok(Appended { segment, in_flight, number, offset, timestamp, written })
    }

    /// Writes entries to the active segment, now; returns its number, and where they begin and end.
    fn write(log: &mut Log, drafts: &[Draft<'_>], now: u64) -> Result<(u32, u64, Place)> {
        let Some(ActiveSegment { active, number }) = &mut log.active else {
            unreachable!("room was made in an active segment")
        };
        let offset = active.end().offset;
        for draft in drafts {
            log.last_timestamp = next_timestamp(log.last_timestamp, now);
            active.append(draft, log.last_timestamp)?;
        }
        active.flush()?;
        if let Some(mark) = drafts.first().and_then(|draft| draft.header.mark) {
            log.marked = mark.into();
        }
        Ok((*number, offset, active.end()))
    }

    /// Returns the mark that the next entry has to carry.
    fn due_mark(&self, log: &Log) -> Option<Mark> {
        let durable = if made(Mistake::MarkAhead) { log.end } else { self.commit.durable() };
        (durable > log.marked).then(|| durable.into())
    }

    /// Appends a mark of its own if the last sync is long past and no entry has carried it.
    pub(super) fn mark_if_due(&self, delay: Duration) -> Result<()> {
        let writer = self.writer()?;
        let mut log = writer.log.lock();
        let due = log.synced_at.is_some_and(|at| at.elapsed() >= delay);
        let segment_size = self.options.segment_size;
        let has_room = log.active().is_some_and(|active| active.has_room(MARK_SIZE, segment_size));
        if !due || !has_room || self.commit.durable() <= log.marked {
            return Ok(());
        }
        self.commit.check()?;
        if let Some(ActiveSegment { active, .. }) = &mut log.active {
            active.reserve(MARK_SIZE)?;
        }
        let mut draft = Draft::mark_only();
        draft.header = draft.header.with_mark(self.due_mark(&log));
        Self::write(&mut log, &[draft], self.clock.now())
            .map_err(|error| self.commit.poison(error))?;
        Ok(())
    }

    /// Waits until the log is durable up to a place.
    pub(super) fn sync_to(&self, place: Place) -> Result<()> {
        let writer = self.writer()?;
        if self.commit.durable() >= place {
            return Ok(());
        }
        self.commit.wait(place, || writer.log.lock().unsynced(), || self.fs.check())?;
        writer.log.lock().waiters.synced();
        Ok(())
    }

    /// Sees to an active segment with room for entries of this size; rotates if need be.
    fn make_room(&self, log: &mut Log, size: u64, drafts: &[Draft<'_>]) -> Result<()> {
        let count = drafts.len() as u64;
        let full = |active: &Active| {
            let entries = active.entries();
            !active.has_room(size, self.options.segment_size)
                || entries > 0 && entries + count > self.options.segment_entries
        };
        match &log.active {
            None => log.active = Some(self.start_for(log, size, drafts)?),
            Some(current) if full(&current.active) => {
                let next = self.start_for(log, size, drafts)?;
                self.rotate(log, next).map_err(|error| self.commit.poison(error))?;
            }
            Some(_) => {}
        }
        if log.active().is_some_and(|active| !active.is_ready(size)) {
            self.grow(log, size, drafts)?;
        }
        if let Some(ActiveSegment { active, .. }) = &mut log.active
            && active.is_time_to_go_ahead()
        {
            self.prepare_signal.wake();
        }
        Ok(())
    }

    /// Ends the active segment, unless it is empty, so that all there is can be sealed.
    pub(super) fn rotate_active(&self) -> Result<()> {
        let mut log = self.writer()?.log.lock();
        self.commit.check()?;
        if log.active().is_some_and(|active| active.entries() > 0) {
            let next = self.making_room(|| self.start_segment(&mut log, 0, Need::Delete))?;
            self.rotate(&mut log, next).map_err(|error| self.commit.poison(error))?;
        }
        Ok(())
    }

    /// Ends the active segment and goes on in the next one.
    pub(super) fn rotate(&self, log: &mut Log, next: ActiveSegment) -> Result<()> {
        // The end entry may be lost with the rest of the segment, so the next one's first entry
        // repeats its mark.
        let mark = self.due_mark(log);
        log.last_timestamp = next_timestamp(log.last_timestamp, self.clock.now());
        let timestamp = log.last_timestamp;
        let next_id = next.active.segment().id();
        if let Some(mut full) = log.active.replace(next) {
            let finished = full.active.finish(next_id, mark, timestamp);
            // Also if that failed: it is still a part of the log.
            let rotated = Rotated::from(full);
            log.unsynced.push((rotated.segment.id(), rotated.file.clone()));
            log.rotated.push_back(rotated);
            log.waiters.ended();
            finished?;
            self.seal_signal.wake();
        }
        Ok(())
    }
}

/// Returns the time of an entry that is appended now: later than that of any before it.
fn next_timestamp(last: u64, now: u64) -> u64 {
    now.max(last.saturating_add(1)).min(TIME_MAX - 1)
}
