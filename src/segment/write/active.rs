//! The active segment: it is created, grown, appended to, and ended here.
//!
//! - There is one writer at a time, which the store's append lock ensures.
//! - Room is made ready before anything is written to it (see [`Room`]). Running out of room is the
//!   one failure that leaves the segment as it was. After any other failure the caller has to stop
//!   writing.
//! - Appended bytes become readable only when all of them are written.
//! - [`Sink`] brings the bytes to their place: it copies them into a mapping, or writes them.
//!   [`Usage`] decides where the mapping is worth its pages.
//! - The segment always keeps room for an end entry.

use std::sync::Arc;

use super::draft::Draft;
use super::room::{AHEAD, GROWTH_MIN, Room};
use super::sink::Sink;
use super::usage::Usage;
use crate::entry::{END_SIZE_MAX, Mark, Salt, padded};
use crate::error::Result;
use crate::fs::{Access, File, Fs};
use crate::mistake::{Mistake, made};
use crate::options::AppendMode;
use crate::segment::budget::Wanted;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::read::map::Bytes;
use crate::segment::{Dir, FIRST_OFFSET, Place, Segment, SegmentId};

/// Size in bytes from which room is made ready ahead of the writers. This is before they have used
/// up the room that the first of them populated.
const AHEAD_FROM: u64 = 192 << 10;

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    segment: Arc<Segment>,
    file: File,
    sink: Sink,
    /// The offset of the next entry.
    end: u64,
    room: Arc<Room>,
    /// The offset from which work may have to be done ahead of the writers.
    ahead_at: u64,
    usage: Usage,
    /// The size to which the segment may grow.
    capacity: u64,
    /// Puts and deletes so far.
    entries: u64,
}

impl Active {
    /// Creates a segment: temporary name, header, sync, name, directory sync.
    ///
    /// A file that already has the name stays as it is, and the error is an `Io` of kind
    /// `AlreadyExists`. A failure leaves at most a temporary file behind. The caller has to check
    /// whether it was a sync that failed.
    pub(crate) fn create(
        fs: &Fs,
        dir: &Dir,
        header: SegmentHeader,
        capacity: u64,
        mode: AppendMode,
    ) -> Result<Self> {
        let path = dir.log(header.id);
        let temporary = Dir::temporary(&path);
        let create = || {
            let file = fs.open(&temporary, Access::Create)?;
            // If the first step does not fit on the disk, the header may. `reserve` tries to get
            // the rest.
            let step = file.allocate(capacity.min(GROWTH_MIN));
            step.or_else(|_| file.allocate(FIRST_OFFSET + END_SIZE_MAX))?;
            file.write_at(&header.encode(), 0)?;
            let file = file.renamed(&path);
            let allocated = file.size()?;
            let (sink, map) = Sink::new(&file, capacity, mode);
            let room = Room::new(&file, map.clone(), sink.has_target(), capacity, allocated);
            // The segment may never get more than an end entry.
            room.reserve_exactly(FIRST_OFFSET + END_SIZE_MAX)?;
            if !made(Mistake::HeaderNotSynced) {
                file.sync()?;
            }
            if made(Mistake::CreateNotSynced) {
                fs.rename_new(&temporary, &path)?;
            } else {
                fs.rename_new_and_sync(&temporary, &path)?;
            }
            Ok((file, sink, map, Arc::new(room)))
        };
        let (file, sink, map, room) = create().inspect_err(|_| {
            // Best effort: if it can't be removed now, the next open removes it.
            let _ = fs.remove(&temporary);
        })?;
        let bytes = if let Some(map) = map {
            Bytes::shared(map, FIRST_OFFSET)
        } else {
            // The output of a merge is as good as sealed.
            let is_log = header.kind == Kind::Log;
            let wanted = if is_log { Wanted::New } else { Wanted::Sealed };
            Bytes::mapped(fs, &file, FIRST_OFFSET, capacity, wanted)
        };
        let segment = Arc::new(Segment::new(header.id, &path, header.kind, bytes));
        let ahead_at = AHEAD_FROM.min(capacity / 4);
        let (usage, end, entries) = (Usage::new(&file, FIRST_OFFSET), FIRST_OFFSET, 0);
        Ok(Self { segment, file, sink, end, room, ahead_at, usage, capacity, entries })
    }

    /// Returns how large a segment has to be to hold entries of this size.
    pub(crate) fn capacity_for(size: u64, segment_size: u64) -> u64 {
        (FIRST_OFFSET + size + END_SIZE_MAX).max(segment_size)
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn end(&self) -> Place {
        Place::new(self.segment.id(), self.end)
    }

    /// Returns the size to which the segment may grow.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Returns whether entries of this size fit and leave room for an end entry.
    pub(crate) fn has_room(&self, size: u64, segment_size: u64) -> bool {
        // An entry larger than the segment size gets a separate segment, as its first entry. If
        // that entry was not written for lack of space, others must not use the capacity reserved
        // for it.
        let first = self.end == FIRST_OFFSET;
        let limit = if first { self.capacity } else { self.capacity.min(segment_size) };
        self.end + size + END_SIZE_MAX <= limit
    }

    /// Returns whether room is ready for entries of this size and an end entry.
    #[inline]
    pub(crate) fn is_ready(&self, size: u64) -> bool {
        let needed = self.end + size + END_SIZE_MAX;
        needed <= self.room.ready() || self.is_written(size) && needed <= self.room.allocated()
    }

    /// Returns whether entries of this size are written where the room is not populated, instead of
    /// populating it.
    fn is_written(&self, size: u64) -> bool {
        self.sink.has_target() && (self.usage.is_large(size) || !self.room.is_populated_ahead())
    }

    /// Returns how many allocated bytes have not been appended to yet.
    pub(crate) fn unused_size(&self) -> u64 {
        self.room.allocated().saturating_sub(self.end)
    }

    /// Makes room ready for entries of this size and an end entry. A failure changes nothing.
    pub(crate) fn reserve(&mut self, size: u64) -> Result<()> {
        let needed = self.end + size + END_SIZE_MAX;
        if self.is_written(size) {
            self.room.reserve_unpopulated(needed)
        } else {
            self.room.reserve(needed)
        }
    }

    /// Makes room ready for a copy of this size. `check_space` may refuse before the file grows.
    pub(crate) fn reserve_for_copy(
        &mut self,
        size: u64,
        check_space: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let needed = self.end + size + END_SIZE_MAX;
        if needed <= self.room.ready() {
            return Ok(());
        }
        check_space()?;
        self.room.reserve_for_copies(needed)
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Returns whether work may have to be done ahead of the writers. After that, returns `false`
    /// until enough has been appended again.
    pub(crate) fn is_time_to_go_ahead(&mut self) -> bool {
        let is_time = self.end >= self.ahead_at;
        if is_time {
            // The next time comes when half of the room made ready now is used up.
            self.ahead_at = self.end + self.end.min(AHEAD).min(self.capacity / 2) / 2;
            self.room.set_populated_ahead(self.usage.populates_ahead());
        }
        is_time
    }

    /// Appends an entry whose room has been reserved. It can be read after `flush`.
    ///
    /// After a failure, part of the entry may be on the disk, so nothing may be appended after it.
    pub(crate) fn append(&mut self, draft: &Draft<'_>, timestamp: u64) -> Result<Place> {
        let place = self.end();
        let mut header = draft.header;
        header.timestamp = timestamp;
        if made(Mistake::ReadableEarly) {
            self.segment.advance(place.offset + header.entry_size());
        }
        let encoded = header.encode(draft.body.clone(), Salt::new(place.segment.0, place.offset));
        self.sink.begin(&self.room, self.end + header.entry_size());
        for part in [encoded.as_slice(), draft.key, &draft.value] {
            self.sink.write(&self.room, self.end, part)?;
            self.end += part.len() as u64;
        }
        // The padding is already zero, like all allocated room.
        self.end = padded(self.end);
        self.entries += u64::from(header.is_put_or_delete());
        Ok(place)
    }

    /// Makes everything appended so far readable.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.sink.flush()?;
        self.room.pass(self.end);
        self.usage.note_append(self.end);
        self.segment.advance(self.end);
        Ok(())
    }

    /// Takes over what the segment before has shown about the writers.
    pub(crate) fn continue_from(&mut self, before: &Self) {
        self.room.set_populated_ahead(before.room.is_populated_ahead());
    }

    /// Ends the segment with an entry that names the next one. Nothing is appended after it.
    pub(crate) fn finish(
        &mut self,
        next: SegmentId,
        mark: Option<Mark>,
        timestamp: u64,
    ) -> Result<()> {
        let next = next.0.to_be_bytes();
        let mut draft = Draft::end(&next);
        draft.header = draft.header.with_mark(mark);
        self.append(&draft, timestamp)?;
        self.flush()
    }
}
