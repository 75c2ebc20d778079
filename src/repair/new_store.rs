//! The store that a salvage writes: its segments are outputs with one entry for each key.
//!
//! Each segment is durable and has its hint before the next one is begun. The manifest is written
//! last, and makes a store of the directory.

use crate::error::Result;
use crate::fs::Fs;
use crate::key_hash::KeyHash;
use crate::manifest::{Manifest, Sealed};
use crate::options::Options;
use crate::segment::header::Identity;
use crate::segment::read::pick::LiveEntry;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::write::output::Output;
use crate::segment::{Dir, SegmentId};

/// A store that is being made.
pub(super) struct NewStore<'a> {
    fs: &'a Fs,
    dir: &'a Dir,
    options: &'a Options,
    identity: Identity,
    /// The time at which the segments are created, for their headers.
    created: u64,
    output: Option<Output>,
    sealed: Vec<Sealed>,
    next_id: u32,
}

impl<'a> NewStore<'a> {
    pub(super) fn new(
        fs: &'a Fs,
        dir: &'a Dir,
        options: &'a Options,
        identity: Identity,
        created: u64,
    ) -> Self {
        Self { fs, dir, options, identity, created, output: None, sealed: Vec::new(), next_id: 1 }
    }

    /// Returns all ids that have been used, for cleaning up.
    pub(super) fn ids(&self) -> impl Iterator<Item = SegmentId> + use<> {
        (1..self.next_id).map(SegmentId)
    }

    /// Returns the bytes of all finished segments.
    pub(super) fn size(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.length).sum()
    }

    /// Writes a copy of an entry. `collides` says whether another key has the same hash bits.
    pub(super) fn copy(
        &mut self,
        entry: &LiveEntry<'_>,
        hash: KeyHash,
        collides: bool,
    ) -> Result<()> {
        let draft = Draft::copy(entry, collides);
        let size = draft.header.entry_size();
        let Options { segment_size, segment_entries, .. } = *self.options;
        let is_full = |output: &Output| output.is_full(size, segment_size, segment_entries);
        if self.output.as_ref().is_some_and(is_full) {
            self.finish_output()?;
        }
        let output = match &mut self.output {
            Some(output) => output,
            none => {
                let id = SegmentId(self.next_id);
                self.next_id += 1;
                let capacity = Active::capacity_for(size, segment_size);
                let (fs, dir) = (self.fs, self.dir);
                none.insert(Output::create(fs, dir, id, self.identity, self.created, capacity)?)
            }
        };
        let copy = output.append(&draft, entry.header.timestamp, || Ok(()))?;
        output.list(&copy, hash);
        Ok(())
    }

    /// Turns the output, if there is one, into a sealed segment.
    fn finish_output(&mut self) -> Result<()> {
        let Some(mut output) = self.output.take() else { return Ok(()) };
        output.flush()?;
        output.sync()?;
        self.sealed.push(Sealed::of(&*output.finish(self.fs, self.dir)?));
        Ok(())
    }

    /// Writes the manifest, which makes all of it a durable store. `last_timestamp` is no earlier
    /// than the timestamp of any entry that the store was made from.
    ///
    /// The names of the segments are durable already. Those of hints need not be, as hints can be
    /// rebuilt.
    pub(super) fn finish(&mut self, last_timestamp: u64) -> Result<()> {
        self.finish_output()?;
        let (bound, sealed) = (SegmentId(self.next_id), self.sealed.clone());
        let mut manifest = Manifest { log: bound, bound, sealed, ..Manifest::new(self.identity) };
        manifest.note_time(last_timestamp);
        manifest.write(self.fs, self.dir)
    }
}
