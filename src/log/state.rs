//! The state that the lock of the log guards: the active segment, the segments that wait to be
//! sealed, and the figures from which an entry gets its place, its timestamp and its mark.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::commit::Unsynced;
use super::waiters::Waiters;
use crate::fs::File;
use crate::mistake::{Mistake, made};
use crate::segment::hint::HintBuilder;
use crate::segment::write::active::Active;
use crate::segment::write::room::Room;
use crate::segment::{Place, Segment, SegmentId};
use crate::stats::{Counters, Stats};
use crate::sync::Instant;

/// Number of bytes that the hints of the segments that wait to be sealed, and of the active one
/// when it is full, may take: as many as that of a full segment with entries of 512 bytes. With
/// more, a load of small entries would take more memory for each key than seals do.
const HINTS_SIZE_MAX: u64 = if cfg!(test) { 32 << 10 } else { 4 << 20 };

/// Minimum time between two looks at the log for idleness. The work that looks may be woken at any
/// moment, and twice in a row.
const IDLE_AFTER: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(1) };

/// The end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) active: Option<ActiveSegment>,
    /// The segment in which the log will continue, if it has been created already.
    pub(super) prepared: Option<Active>,
    /// Full segments that are not sealed yet, oldest first.
    pub(super) rotated: VecDeque<Rotated>,
    /// Full segments that no sync has covered yet.
    pub(super) unsynced: Vec<(SegmentId, File)>,
    pub(super) next_id: SegmentId,
    pub(super) last_timestamp: u64,
    /// Highest place that a mark in the log names.
    pub(super) marked: Place,
    /// The place after the last entry that needs a sync; marks do not.
    pub(super) end: Place,
    /// When the oldest entry that waits for a sync was appended.
    pub(super) dirty_since: Option<Instant>,
    /// When the last sync began. Some time later, a separate mark is due, unless an entry has
    /// carried the mark.
    pub(super) synced_at: Option<Instant>,
    /// Whether nothing needs a sync or a mark until the next append, which wakes the work that
    /// syncs and marks.
    pub(super) is_at_rest: bool,
    /// Numbers of puts and deletes, and of deletes alone.
    pub(super) appends: u64,
    pub(super) deletes: u64,
    pub(super) appended_size: u64,
    /// When the log was last looked at for idleness, and the number of puts and deletes then.
    last_look: (Instant, u64),
    /// Whether the store is closed, so that nothing more will be appended.
    is_closed: bool,
    /// The waiting followers.
    pub(crate) waiters: Waiters,
}

/// A segment that is being appended to, with the number by which slots name it.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) active: Active,
    pub(crate) number: u32,
    /// The hint so far, unless it was given up. The seal then reads the segment.
    pub(super) hint: Option<HintBuilder>,
}

/// A full segment that waits to be sealed.
#[derive(Debug, Clone)]
pub(super) struct Rotated {
    pub(super) segment: Arc<Segment>,
    pub(super) number: u32,
    pub(super) file: File,
    pub(super) room: Arc<Room>,
    /// Number of puts and deletes in it.
    pub(super) entries: u64,
    /// Everything that its hint lists, unless that was given up, or a seal has taken it.
    pub(super) hint: Option<HintBuilder>,
}

/// An unsealed segment with entries. Sealing truncates its file, but never below this length.
#[derive(Debug)]
pub(crate) struct UnsealedFile {
    pub(crate) id: SegmentId,
    pub(crate) file: File,
    pub(crate) length: u64,
}

impl From<ActiveSegment> for Rotated {
    fn from(ActiveSegment { active, number, hint }: ActiveSegment) -> Self {
        let (segment, room) = (Arc::clone(active.segment()), Arc::clone(active.room()));
        let (file, entries) = (active.file().clone(), active.entries());
        Self { segment, number, file, room, entries, hint }
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
            is_at_rest: false,
            appends: 0,
            deletes: 0,
            appended_size: 0,
            last_look: (Instant::now(), 0),
            is_closed: false,
            waiters: Waiters::default(),
        }
    }

    pub(crate) fn active(&self) -> Option<&Active> {
        self.active.as_ref().map(|current| &current.active)
    }

    /// Returns whether the store is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns whether a segment is the active one.
    pub(crate) fn is_active(&self, id: SegmentId) -> bool {
        self.active().is_some_and(|active| active.segment().id() == id)
    }

    /// Returns the place after the last put or delete.
    pub(crate) fn end(&self) -> Place {
        self.end
    }

    /// Returns whether slots name everything that has been appended. Sealed segments need no check:
    /// slots name all of their entries.
    pub(crate) fn is_published(&self) -> bool {
        let is_published = |active: &Active| active.segment().is_published();
        self.active().is_none_or(is_published)
            && self.rotated.iter().all(|rotated| rotated.segment.is_published())
    }

    /// Returns whether no unsealed segment holds a put or a delete.
    pub(crate) fn holds_nothing(&self) -> bool {
        self.rotated.is_empty() && self.active().is_none_or(|active| active.entries() == 0)
    }

    /// Returns the unsealed segments, oldest first.
    pub(crate) fn unsealed(&self) -> Vec<Arc<Segment>> {
        let rotated = self.rotated.iter().map(|rotated| Arc::clone(&rotated.segment));
        rotated.chain(self.active().map(|active| Arc::clone(active.segment()))).collect()
    }

    /// Returns the unsealed segments that hold puts or deletes, oldest first, as files.
    pub(crate) fn unsealed_files(&self) -> Vec<UnsealedFile> {
        let rotated = self.rotated.iter().filter(|rotated| rotated.entries > 0).map(|rotated| {
            let (id, length) = (rotated.segment.id(), rotated.segment.size());
            UnsealedFile { id, file: rotated.file.clone(), length }
        });
        let active = self.active().filter(|active| active.entries() > 0).map(|active| {
            let end = active.end();
            UnsealedFile { id: end.segment, file: active.file().clone(), length: end.offset }
        });
        rotated.chain(active).collect()
    }

    /// Returns the ids of the unsealed segments, oldest first.
    pub(crate) fn ids(&self) -> Vec<SegmentId> {
        let rotated = self.rotated.iter().map(|rotated| rotated.segment.id());
        rotated.chain(self.active().map(|active| active.segment().id())).collect()
    }

    /// Returns the timestamp of the last entry.
    pub(crate) fn last_timestamp(&self) -> u64 {
        self.last_timestamp
    }

    /// Returns a timestamp that is later than that of every entry so far, and not later than that
    /// of the next one.
    pub(crate) fn next_timestamp(&self) -> u64 {
        self.last_timestamp + 1
    }

    /// Returns since when an entry has been waiting for a sync, and where the log ends.
    pub(super) fn dirty(&self) -> (Option<Instant>, Place) {
        (self.dirty_since, self.end)
    }

    /// Returns the number of appended entries.
    pub(crate) fn appends(&self) -> u64 {
        self.appends
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.appends = self.appends;
        stats.appended_size = self.appended_size;
        stats.reserve_size = self.active().map_or(0, Active::unused_size);
    }

    pub(super) fn count_entries(&self, counters: &mut Counters) {
        counters.puts = self.appends - self.deletes;
        counters.deletes = self.deletes;
        counters.bytes_written = self.appended_size;
    }

    /// Returns the id of the segment that follows the oldest rotated one, if there is one.
    pub(super) fn after_oldest(&self) -> Option<SegmentId> {
        let rotated = self.rotated.get(1).map(|rotated| rotated.segment.id());
        rotated.or_else(|| self.active().map(|active| active.segment().id()))
    }

    /// Returns the oldest rotated segment with its hint, which the log then no longer has.
    pub(super) fn begin_seal(&mut self) -> Option<Rotated> {
        let oldest = self.rotated.front_mut()?;
        let hint = oldest.hint.take();
        Some(Rotated { hint, ..oldest.clone() })
    }

    /// Gives up the hint of the active segment if the hints would take more memory than they may by
    /// the time the segment is full. Its entries so far show how many it will have.
    pub(super) fn limit_hints(&mut self) {
        let waiting = self.waiting_hints_size() as u64;
        let Some(ActiveSegment { active, hint, .. }) = &mut self.active else { return };
        let size = hint.as_ref().map_or(0, HintBuilder::size) as u64;
        let size_when_full = size * active.capacity() / active.end().offset.max(1);
        if waiting + size_when_full > HINTS_SIZE_MAX {
            *hint = None;
        }
    }

    /// Returns how much memory the hints of rotated segments take that no seal has taken, in bytes.
    fn waiting_hints_size(&self) -> usize {
        self.rotated.iter().filter_map(|rotated| rotated.hint.as_ref()).map(HintBuilder::size).sum()
    }

    /// Returns how much memory the hints of unsealed segments take, in bytes.
    #[cfg(test)]
    pub(crate) fn hints_size(&self) -> usize {
        let active = self.active.as_ref().and_then(|current| current.hint.as_ref());
        self.waiting_hints_size() + active.map_or(0, HintBuilder::size)
    }

    /// Gives up the hint of the active segment if nothing was appended since the last look.
    pub(super) fn give_up_idle_hint(&mut self) {
        let (looked_at, appends) = self.last_look;
        if looked_at.elapsed() < IDLE_AFTER {
            return;
        }
        self.last_look = (Instant::now(), self.appends);
        if appends == self.appends
            && let Some(ActiveSegment { hint, .. }) = &mut self.active
        {
            *hint = None;
        }
    }

    /// Removes the oldest rotated segment, which is sealed now.
    pub(super) fn sealed_oldest(&mut self) {
        if let Some(sealed) = self.rotated.pop_front() {
            self.unsynced.retain(|(id, _)| *id != sealed.segment.id());
        }
    }

    /// Stops appending: the active segment becomes the youngest rotated one.
    pub(super) fn stop(&mut self) {
        self.rotated.extend(self.active.take().map(Rotated::from));
    }

    /// Ends appending for good, and wakes the followers: there is nothing more to wait for.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.waiters.ended();
    }

    /// Gives up the unsealed segments, and everything that could write to them. Returns each
    /// segment with its file.
    pub(crate) fn give_up(&mut self) -> Vec<(Arc<Segment>, File)> {
        self.stop();
        self.prepared = None;
        self.rotated.drain(..).map(|rotated| (rotated.segment, rotated.file)).collect()
    }

    /// Returns what must be synced to make the whole log durable, and counts it as synced.
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
