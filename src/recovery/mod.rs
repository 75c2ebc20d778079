//! From a directory to segments and a filled keydir.
//!
//! - Everything that can be refused is refused before anything is changed.
//! - Every step can crash and be run again; the one manifest write at the end is the commit.
//! - No old byte is ever rewritten, and none that could not be read is destroyed: it is copied to
//!   `quarantine/` first.
//! - `chain` finds the end of the log, `cut` makes it so, `fill` fills the keydir. The torn-tail
//!   rule itself is in `segment::scan`.

mod chain;
mod cut;
mod fill;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::fs::{File, Fs};
use crate::keydir::Keydir;
use crate::manifest::{Manifest, Sealed};
use crate::segment::hint::{Hint, Source};
use crate::segment::map::Bytes;
use crate::segment::{Dir, Segment, SegmentId, open_listed};

pub(crate) use fill::fill;
pub use report::{Cut, RecoveryReport};

/// What opening needs to know of its surroundings.
#[derive(Debug)]
pub(crate) struct Recovery<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) dir: &'a Dir,
    pub(crate) keydir: &'a Keydir,
    pub(crate) now: u64,
}

/// A store's segments as opening leaves them.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    /// Oldest first; with a hint where there can be none on disk.
    pub(crate) segments: Vec<(Arc<Segment>, Option<Hint>)>,
    pub(crate) report: RecoveryReport,
}

/// Files that the manifest does not list.
#[derive(Debug, Default)]
struct Unlisted {
    /// Segments behind the end of the log, oldest first.
    later: Vec<(SegmentId, File)>,
    /// What nothing needs any more.
    leftovers: Vec<PathBuf>,
}

impl Recovery<'_> {
    /// Makes a store that may have been interrupted anywhere ready to be written.
    pub(crate) fn for_writing(&self, mut manifest: Manifest) -> Result<Recovered> {
        let survey = self.survey()?;
        self.refuse_missing(&manifest, &survey)?;
        let chain = self.chain(&manifest, true)?;
        let Unlisted { later, leftovers } = self.unlisted(&manifest, &survey, &chain)?;
        self.refuse_damage(&chain, &later)?;
        let mut segments = self.open_sealed(&manifest, 0)?;
        if !leftovers.is_empty() || !chain.links.is_empty() {
            self.refuse_unreadable(&manifest)?;
        }

        if !leftovers.is_empty() {
            // The manifest may have been renamed just before a crash, and what makes a file a
            // leftover has to be durable before the file goes.
            self.fs.sync_dir(self.dir.path())?;
        }
        self.remove(&leftovers)?;
        let mut report = RecoveryReport { leftovers, ..chain.report() };
        if !chain.links.is_empty() {
            report.cuts = self.cut(&chain, &later)?;
            self.seal(&chain, &mut manifest)?;
            segments.extend(self.open_sealed(&manifest, segments.len())?);
        }
        Ok(Recovered { manifest, segments, report })
    }

    /// Reads a store as it is, beside a writer or without one, and changes nothing.
    pub(crate) fn for_reading(&self, manifest: Manifest) -> Result<Recovered> {
        let survey = self.survey()?;
        self.refuse_missing(&manifest, &survey)?;
        let mut segments = self.open_sealed(&manifest, 0)?;
        let chain = self.chain(&manifest, false)?;
        let Unlisted { later, .. } = self.unlisted(&manifest, &survey, &chain)?;
        self.refuse_damage(&chain, &later).or_else(|damage| {
            // What was bad is read again: a writer may have been in the middle of it, and a mark
            // above it says that by now it is there.
            if self.has_grown(&chain, &manifest)? { Ok(()) } else { Err(damage) }
        })?;
        for link in &chain.links {
            let source = Source { id: link.id, identity: manifest.identity, length: link.end };
            let hint = Hint::build(&link.file, source, |key| self.keydir.hash(key))?;
            let bytes = Bytes::unmapped(&link.file, link.end);
            let segment = Segment::new(link.id, link.file.path(), bytes);
            segments.push((Arc::new(segment), Some(hint)));
        }
        let cuts = chain.unread(&later)?.iter().map(cut::Unread::cut).collect();
        let report = RecoveryReport { cuts, ..chain.report() };
        Ok(Recovered { manifest, segments, report })
    }

    /// Opens the sealed segments but the oldest few, which are open already.
    fn open_sealed(
        &self,
        manifest: &Manifest,
        oldest: usize,
    ) -> Result<Vec<(Arc<Segment>, Option<Hint>)>> {
        let open = |Sealed { id, length, .. }: &Sealed| {
            let segment = Segment::sealed(self.fs, self.dir, *id, *length, manifest.identity)?;
            Ok((Arc::new(segment), None))
        };
        manifest.sealed.iter().skip(oldest).map(open).collect()
    }

    /// Refuses sealed segments whose damage would otherwise be met after the log has been cut,
    /// while a hint is built anew.
    fn refuse_unreadable(&self, manifest: &Manifest) -> Result<()> {
        for Sealed { id, length, .. } in &manifest.sealed {
            let source = Source { id: *id, identity: manifest.identity, length: *length };
            if Hint::read(self.fs, self.dir, source).is_none() {
                let file = open_listed(self.fs, &self.dir.log(*id))?;
                Hint::build(&file, source, |key| self.keydir.hash(key))?;
            }
        }
        Ok(())
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        paths.iter().try_for_each(|path| self.fs.remove(path))
    }
}
