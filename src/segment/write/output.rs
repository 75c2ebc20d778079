//! A sealed segment that a merge, a salvage or an import fills: its file and its hint.
//!
//! - Copies keep the timestamps of their originals, so an output is a *merged* segment: only there
//!   may timestamps fall.
//! - An output is never appended to once it is synced. Its hint is written after that, and the
//!   owner lists it in the manifest last.
//! - Space is allocated in small steps, and the owner may refuse each step: copying can wait, and
//!   writers can't.

use std::sync::Arc;

use super::active::Active;
use super::draft::Draft;
use crate::error::Result;
use crate::fs::Fs;
use crate::key_hash::KeyHash;
use crate::mistake::{Mistake, made};
use crate::options::AppendMode;
use crate::segment::header::{Identity, Kind, SegmentHeader};
use crate::segment::hint::{HintBuilder, HintSource};
use crate::segment::read::scan::Scanned;
use crate::segment::{Dir, FIRST_OFFSET, Segment, SegmentId};

/// A sealed segment that is being made.
#[derive(Debug)]
pub(crate) struct Output {
    active: Active,
    hint: HintBuilder,
    identity: Identity,
}

impl Output {
    /// Creates the file of an output; see [`Active::create`] for what a failure leaves behind.
    pub(crate) fn create(
        fs: &Fs,
        dir: &Dir,
        id: SegmentId,
        identity: Identity,
        created: u64,
        capacity: u64,
    ) -> Result<Self> {
        let header = SegmentHeader { kind: Kind::Merged, id, identity, created };
        // Copies are written in large pieces, which a system call does faster than a mapping.
        Active::create(fs, dir, header, capacity, AppendMode::Positioned)
            .map(|active| Self::new(active, identity))
    }

    /// Makes an output from a merged segment that has just been created.
    pub(crate) fn new(active: Active, identity: Identity) -> Self {
        Self { active, hint: HintBuilder::default(), identity }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        self.active.segment()
    }

    /// Returns whether an entry of this size belongs in the next output.
    pub(crate) fn is_full(&self, size: u64, segment_size: u64, segment_entries: u64) -> bool {
        !self.active.has_room(size, segment_size) || self.active.entries() >= segment_entries
    }

    /// Appends a copy, which can be read after [`flush`](Self::flush). `check_space` may refuse
    /// before the file grows.
    ///
    /// The hint lists the copy only after [`list`](Self::list), so that an owner that continues
    /// after a failed `flush` lists only flushed copies.
    pub(crate) fn append<'a>(
        &mut self,
        draft: &Draft<'a>,
        timestamp: u64,
        check_space: impl FnOnce() -> Result<()>,
    ) -> Result<Scanned<'a>> {
        self.active.reserve_for_copy(draft.header.entry_size(), check_space)?;
        let offset = self.active.append(draft, timestamp)?.offset;
        let mut header = draft.header;
        header.timestamp = timestamp;
        Ok(Scanned { offset, header, key: draft.key() })
    }

    /// Makes everything appended so far readable.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.active.flush()
    }

    /// Lists a copy in the hint, in the order of the appends.
    pub(crate) fn list(&mut self, copy: &Scanned<'_>, hash: KeyHash) {
        self.hint.add(copy, |_| hash);
    }

    /// Returns whether the output has no readable entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.segment().size() == FIRST_OFFSET
    }

    /// Cuts the file after the last readable entry, and syncs it. Nothing may be appended
    /// afterwards. May be called again after a failure, unless it was the sync that failed.
    pub(crate) fn sync(&self) -> Result<()> {
        self.active.room().cut(self.segment().size())?;
        if made(Mistake::OutputNotSynced) {
            return Ok(());
        }
        self.active.file().sync()
    }

    /// Writes the hint of a synced output and returns the segment, which can be listed from now on.
    ///
    /// If there is no space for the hint, it is left out. Only an error that ends writing is
    /// returned.
    pub(crate) fn finish(self, fs: &Fs, dir: &Dir) -> Result<Arc<Segment>> {
        let segment = Arc::clone(self.active.segment());
        let (id, length) = (segment.id(), segment.size());
        let hint = self.hint.finish();
        hint.write(fs, dir, HintSource { id, identity: self.identity, length })?;
        segment.summarize(hint.summary);
        Ok(segment)
    }
}
