//! The segments of a fresh store, as a merge would write them: one entry for each key.
//!
//! - Entries keep their timestamps, so they go to segments of the kind *merged*: only there may times
//!   fall.
//! - Each segment is durable, and has its hint, before the next one is begun. The manifest comes last,
//!   and makes it a store.

use crate::error::Result;
use crate::fs::Fs;
use crate::key_hash::KeyHash;
use crate::manifest::{Manifest, Sealed};
use crate::options::{AppendMode, Options};
use crate::segment::header::{Identity, Kind, SegmentHeader};
use crate::segment::hint::{HintBuilder, HintSource};
use crate::segment::read::pick::LiveEntry;
use crate::segment::read::scan::Scanned;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{Dir, SegmentId};

/// A store that is being written.
pub(super) struct Output<'a> {
    fs: &'a Fs,
    dir: &'a Dir,
    options: &'a Options,
    identity: Identity,
    created: u64,
    open: Option<(Active, HintBuilder)>,
    sealed: Vec<Sealed>,
    next_id: u32,
}

impl<'a> Output<'a> {
    pub(super) fn new(
        fs: &'a Fs,
        dir: &'a Dir,
        options: &'a Options,
        identity: Identity,
        created: u64,
    ) -> Self {
        Self { fs, dir, options, identity, created, open: None, sealed: Vec::new(), next_id: 1 }
    }

    /// Returns all ids that have been used, for cleaning up.
    pub(super) fn ids(&self) -> impl Iterator<Item = SegmentId> + use<> {
        (1..self.next_id).map(SegmentId)
    }

    /// Returns the bytes of all finished segments.
    pub(super) fn size(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.length).sum()
    }

    /// Writes a copy of an entry. `collides` if another key has the same hash bits.
    pub(super) fn copy(
        &mut self,
        picked: &LiveEntry<'_>,
        hash: KeyHash,
        collides: bool,
    ) -> Result<()> {
        let draft = Draft::copy(picked, collides);
        let size = draft.header.entry_size();
        let Options { segment_size, segment_entries, .. } = *self.options;
        let is_full = |(active, _): &(Active, HintBuilder)| {
            !active.has_room(size, segment_size) || active.entries() >= segment_entries
        };
        if self.open.as_ref().is_some_and(is_full) {
            self.close()?;
        }
        let (active, hint) = match &mut self.open {
            Some(open) => open,
            none => {
                let id = SegmentId(self.next_id);
                self.next_id += 1;
                let (kind, identity, created) = (Kind::Merged, self.identity, self.created);
                let header = SegmentHeader { kind, id, identity, created };
                let capacity = Active::capacity_for(size, segment_size);
                let mode = AppendMode::Positioned;
                let active = Active::create(self.fs, self.dir, header, capacity, mode)?;
                none.insert((active, HintBuilder::default()))
            }
        };
        active.reserve_for_copy(size, || Ok(()))?;
        let offset = active.append(&draft, picked.header.timestamp)?.offset;
        let mut header = draft.header;
        header.timestamp = picked.header.timestamp;
        hint.add(&Scanned { offset, header, key: picked.key }, |_| hash);
        Ok(())
    }

    /// Makes the segment that is open a sealed one.
    fn close(&mut self) -> Result<()> {
        let Some((mut active, hint)) = self.open.take() else { return Ok(()) };
        active.flush()?;
        let (id, length) = (active.segment().id(), active.segment().size());
        active.room().cut(length)?;
        active.file().sync()?;
        let source = HintSource { id, identity: self.identity, length };
        hint.finish().write(self.fs, self.dir, source)?;
        self.sealed.push(Sealed { id, kind: Kind::Merged, length });
        Ok(())
    }

    /// Makes all of it a store, durably: the names of segments have been, those of hints are derived. No
    /// entry that it was made from has a later time than `time`.
    pub(super) fn finish(&mut self, time: u64) -> Result<()> {
        self.close()?;
        let (bound, sealed) = (SegmentId(self.next_id), self.sealed.clone());
        let mut manifest = Manifest { log: bound, bound, sealed, ..Manifest::new(self.identity) };
        manifest.note_time(time);
        manifest.write(self.fs, self.dir)
    }
}
