//! Appending entries: space, timestamp, mark, bytes; and what the caller holds until slots name the
//! entries.

use std::time::Duration;

use super::LogWriter;
use super::state::{ActiveSegment, Log};
use crate::clock::TIME_MAX;
use crate::entry::{END_SIZE_MAX, Mark};
use crate::epoch::Guard;
use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use crate::options::{SEGMENT_SIZE_LIMIT, SyncPolicy};
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{FIRST_OFFSET, InFlight, Place, Segment};
use crate::sync::Instant;

/// Bytes that a mark adds to an entry without one.
const MARK_ROOM: u64 = 8;

/// Size of a separate mark: header, mark, padding.
const MARK_SIZE: u64 = 32;

/// Maximum size of a batch on disk: all of its entries must be addressable.
pub(crate) const BATCH_SIZE_LIMIT: u64 =
    SEGMENT_SIZE_LIMIT - FIRST_OFFSET - END_SIZE_MAX - MARK_ROOM;

/// Number of timestamps that puts and deletes leave for the log's own notes.
const TIMES_LEFT: u64 = 1 << 20;

/// Entries that are in the log but that no slot names yet.
///
/// As long as this is held, the entries count as in flight: their segment is not sealed, and no
/// snapshot, position or backup that includes them is returned. They stop counting when this is
/// dropped, however the caller exits.
#[derive(Debug)]
#[must_use = "the entries are in flight for as long as this is held"]
pub(crate) struct Appended<'a> {
    pub(crate) segment: &'a Segment,
    in_flight: InFlight<'a>,
    /// The number by which slots name the segment.
    pub(crate) number: u32,
    /// Offset of the first entry; the others follow without a gap.
    offset: u64,
    /// Timestamp of the last entry.
    pub(crate) timestamp: u64,
    written: Written,
}

/// What remains to be done once slots name the entries.
#[derive(Debug)]
pub(crate) struct Written {
    /// The place up to which the log must be durable for all of the entries to be durable.
    pub(crate) end: Place,
    /// Number of full segments that wait to be sealed.
    pub(crate) backlog: usize,
}

impl Appended<'_> {
    /// Records that slots name the entries. The caller still holds the locks of their shards, so a
    /// thread that must wait for the publication can wait for those locks.
    pub(crate) fn published(self) -> Written {
        drop(self.in_flight);
        self.written
    }

    /// Returns the offset of each entry, in order, with its size on disk.
    pub(crate) fn offsets(&self, drafts: &[Draft<'_>]) -> impl Iterator<Item = (u64, u64)> {
        let mut end = self.offset;
        drafts.iter().map(move |draft| {
            let (offset, size) = (end, draft.header.entry_size());
            end += size;
            (offset, size)
        })
    }
}

impl LogWriter {
    /// Appends entries to one segment. The caller has locked the shards of their keys, and the log.
    /// The entries are in flight until the caller has published them.
    ///
    /// A failure before the first byte is written changes nothing. Any later failure poisons the
    /// store.
    pub(crate) fn append<'a>(
        &'a self,
        log: &mut Log,
        drafts: &mut [Draft<'_>],
        guard: &'a Guard<'_>,
    ) -> Result<Appended<'a>> {
        self.check()?;
        let now = self.context.clock.now();
        self.refuse_end_of_time(now.max(log.last_timestamp), drafts.len())?;
        let size = drafts.iter().map(|draft| draft.header.entry_size()).sum::<u64>() + MARK_ROOM;
        self.make_room(log, size, drafts)?;
        if let Some(draft) = drafts.first_mut() {
            draft.header = draft.header.with_mark(self.due_mark(log));
        }
        let (number, offset, end) =
            self.write(log, drafts, now).map_err(|error| self.poison(error))?;
        let segment = self.context.segments.get(number, guard);
        let in_flight = segment.begin_append();
        log.waiters.appended(drafts, log.end);
        log.end = end;
        log.appends += drafts.len() as u64;
        log.deletes +=
            drafts.iter().map(|draft| u64::from(draft.header.is_tombstone())).sum::<u64>();
        log.appended_size += end.offset - offset;
        if log.dirty_since.is_none() {
            log.dirty_since = Some(Instant::now());
            let was_at_rest = std::mem::take(&mut log.is_at_rest);
            if was_at_rest || matches!(self.sync_policy(), SyncPolicy::Interval(_)) {
                self.sync_signal.wake();
            }
        }
        let (timestamp, backlog) = (log.last_timestamp, log.rotated.len());
        let written = Written { end, backlog };
        Ok(Appended { segment, in_flight, number, offset, timestamp, written })
    }

    /// Writes entries to the active segment, at time `now`. Returns the segment's number, and where
    /// the entries begin and end.
    fn write(&self, log: &mut Log, drafts: &[Draft<'_>], now: u64) -> Result<(u32, u64, Place)> {
        let Some(ActiveSegment { active, number, hint }) = &mut log.active else {
            unreachable!("`make_room` provides an active segment")
        };
        let offset = active.end().offset;
        for draft in drafts {
            log.last_timestamp = next_timestamp(log.last_timestamp, now);
            let place = active.append(draft, log.last_timestamp)?;
            if let Some(hint) = hint {
                hint.add_appended(&draft.header, place.offset, log.last_timestamp, || {
                    draft.hash.unwrap_or_else(|| self.context.hasher.hash(draft.key()))
                });
            }
        }
        active.flush()?;
        if let Some(mark) = drafts.first().and_then(|draft| draft.header.mark) {
            log.marked = mark.into();
        }
        Ok((*number, offset, active.end()))
    }

    /// Returns an error if there are not enough timestamps left for the entries.
    fn refuse_end_of_time(&self, time: u64, count: usize) -> Result<()> {
        let has_time = TIME_MAX.saturating_sub(time) > TIMES_LEFT + count as u64;
        let refusal = || Error::EndOfTime { path: self.context.dir.path().into() };
        has_time.then_some(()).ok_or_else(refusal)
    }

    /// Provides an active segment with space for entries of this size. Rotates if the active one is
    /// full.
    fn make_room(&self, log: &mut Log, size: u64, drafts: &[Draft<'_>]) -> Result<()> {
        let count = drafts.len() as u64;
        let full = |active: &Active| {
            let entries = active.entries();
            !active.has_room(size, self.context.segment_size)
                || entries > 0 && entries + count > self.context.segment_entries
        };
        match &log.active {
            None => log.active = Some(self.start_for(log, size, drafts)?),
            Some(current) if full(&current.active) => {
                let next = self.start_for(log, size, drafts)?;
                self.rotate(log, next).map_err(|error| self.poison(error))?;
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
            log.limit_hints();
        }
        Ok(())
    }

    /// Returns the mark that the next entry must carry, if any.
    pub(super) fn due_mark(&self, log: &Log) -> Option<Mark> {
        let durable = if made(Mistake::MarkAhead) { log.end } else { self.durable() };
        (durable > log.marked).then(|| durable.into())
    }

    /// Appends a separate mark if the last sync was longer than `delay` ago and no entry has
    /// carried the mark.
    pub(crate) fn mark_if_due(&self, delay: Duration) -> Result<()> {
        let mut log = self.lock();
        let due = log.synced_at.is_some_and(|at| at.elapsed() >= delay);
        let segment_size = self.context.segment_size;
        let has_room = log.active().is_some_and(|active| active.has_room(MARK_SIZE, segment_size));
        if !due || !has_room || self.durable() <= log.marked {
            return Ok(());
        }
        self.check()?;
        if let Some(ActiveSegment { active, .. }) = &mut log.active {
            active.reserve(MARK_SIZE)?;
        }
        let mut draft = Draft::mark_only();
        draft.header = draft.header.with_mark(self.due_mark(&log));
        self.write(&mut log, &[draft], self.context.clock.now())
            .map_err(|error| self.poison(error))?;
        Ok(())
    }

    /// Returns whether nothing needs a sync or a mark until the next append. If so, that append
    /// wakes the work that syncs and marks.
    pub(crate) fn come_to_rest(&self) -> bool {
        let mut log = self.lock();
        // Everything that a mark covers has been synced.
        log.is_at_rest = log.marked >= log.end;
        log.is_at_rest
    }

    /// Returns whether the log has come to rest and nothing was appended since.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lock().is_at_rest
    }
}

/// Returns the timestamp of an entry that is appended now: later than that of any entry before it.
pub(super) fn next_timestamp(last: u64, now: u64) -> u64 {
    now.max(last.saturating_add(1)).min(TIME_MAX - 1)
}
