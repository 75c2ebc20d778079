//! Turns a directory into segments, and into the source from which the keydir is filled.
//!
//! - Everything that can be refused is refused before anything is changed.
//! - Every step can crash and be run again. The single manifest write at the end is the commit.
//! - No old byte is ever rewritten, and no unreadable byte is destroyed: it is first copied to
//!   `quarantine/`.
//! - `chain` finds the end of the log, `cut` makes the files end there, and `fill` fills the keydir
//!   once the store is open. The torn-tail rule itself is in `segment::scan`.

mod chain;
mod cut;
mod fill;
mod report;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use chain::{FileSurvey, Link};

use crate::error::Result;
use crate::fs::{File, Fs};
use crate::keydir::Keydir;
use crate::manifest::{Manifest, Sealed};
use crate::segment::budget::worth_mapping;
use crate::segment::header::{Identity, Kind};
use crate::segment::hint::{HintSource, SegmentHint};
use crate::segment::read::map::Bytes;
use crate::segment::{Dir, Segment, SegmentId};

pub(crate) use fill::Filler;
pub use report::{Cut, RecoveryReport};

/// What opening needs to know of its surroundings.
#[derive(Debug)]
pub(crate) struct Recovery<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) dir: &'a Dir,
    pub(crate) keydir: &'a Keydir,
}

/// A store's segments as opening leaves them.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    /// Oldest first.
    pub(crate) segments: Vec<(Arc<Segment>, SegmentHint)>,
    pub(crate) report: RecoveryReport,
    /// Whether a writer in another process may remove the files of these segments.
    has_writer: bool,
}

/// Opened sealed segments. They stay readable whatever a concurrent writer removes, and are kept
/// from one attempt to the next.
#[derive(Debug, Default)]
pub(crate) struct OpenedSegments {
    store: Option<Identity>,
    segments: BTreeMap<SegmentId, Open>,
}

#[derive(Debug)]
struct Open {
    sealed: Sealed,
    segment: Arc<Segment>,
    hint: Option<SegmentHint>,
}

impl Recovered {
    /// Returns the highest timestamp that is, or ever was, in the log.
    pub(crate) fn last_timestamp(&self) -> u64 {
        let timestamps = self.segments.iter().map(|(_, hint)| hint.summary().last_timestamp);
        timestamps.chain(self.manifest.time).max().unwrap_or(0)
    }
}

/// Files that the manifest does not list.
#[derive(Debug, Default)]
struct Unlisted {
    /// Segments after the end of the log, oldest first.
    later: Vec<(SegmentId, File)>,
    /// Files that are no longer needed.
    leftovers: Vec<PathBuf>,
}

impl Recovery<'_> {
    /// Makes a store ready for writing, wherever it was interrupted.
    pub(crate) fn for_writing(&self, mut manifest: Manifest) -> Result<Recovered> {
        manifest.trim_history();
        let survey = self.survey()?;
        self.refuse_missing(&manifest, &survey)?;
        let chain = self.chain(&manifest, true)?;
        let Unlisted { later, leftovers } = self.unlisted(&manifest, &survey, &chain)?;
        chain.refuse_damage(&later)?;
        let mut report = chain.report();
        let mut segments = self.open_sealed(&manifest, &mut report)?;

        if !leftovers.is_empty() {
            // The manifest may have been renamed just before a crash. Whatever makes a file a
            // leftover has to be durable before the file is removed.
            self.fs.sync_dir(self.dir.path())?;
        }
        self.remove(&leftovers)?;
        report.leftovers = leftovers;
        if !chain.links.is_empty() {
            report.cuts = self.cut(&chain, &later)?;
            self.seal(&chain, &mut manifest)?;
        }
        for Link { id, end, hint, .. } in chain.links {
            if hint.summary.entries > 0 {
                let segment = Segment::sealed(self.fs, self.dir, id, end, manifest.identity, true)?;
                segments.push((Arc::new(segment), SegmentHint::in_memory(hint)));
            }
        }
        Ok(Recovered { manifest, segments, report, has_writer: false })
    }

    /// Reads a store as it is, with or without a concurrent writer, and changes nothing.
    ///
    /// The result is the store at one moment since the manifest was read: the segments that the
    /// manifest lists, and the log from there on without a gap. At most, a merge or a clear has
    /// since removed the names of files that are held open. If a file was removed before it was
    /// opened, this fails, and the next attempt need not open the held segments again.
    pub(crate) fn for_reading(
        &self,
        held: &mut OpenedSegments,
        manifest: Manifest,
    ) -> Result<Recovered> {
        let survey = self.hold_all(held, &manifest)?;
        let chain = self.chain(&manifest, false)?;
        let mut report = RecoveryReport::default();
        let mut segments = self.open_hints(held, &manifest, &mut report)?;
        let Unlisted { later, .. } = self.unlisted(&manifest, &survey, &chain)?;
        self.refuse_lasting_damage(&chain, &later, &manifest)?;
        let cuts = chain.unread(&later)?.iter().map(cut::Unread::cut).collect();
        let RecoveryReport { rebuilt_hints, unmapped_segments, .. } = report;
        let report = RecoveryReport { cuts, rebuilt_hints, unmapped_segments, ..chain.report() };
        for Link { id, file, end, hint } in chain.links {
            let bytes = Bytes::unmapped(self.fs, &file, end);
            bytes.keep_open(&file);
            let segment = Segment::new(id, file.path(), Kind::Log, bytes);
            segments.push((Arc::new(segment), SegmentHint::in_memory(hint)));
        }
        Ok(Recovered { manifest, segments, report, has_writer: true })
    }

    /// Opens the sealed segments, and returns the files that exist afterwards.
    fn hold_all(&self, held: &mut OpenedSegments, manifest: &Manifest) -> Result<FileSurvey> {
        let result = self.hold(held, manifest);
        let survey = self.survey()?;
        // An outdated manifest explains why a segment is missing.
        self.refuse_newer(manifest, &survey)?;
        result.map(|()| survey)
    }

    /// Opens the sealed segments that are not held yet, and releases those that are no longer
    /// listed.
    fn hold(&self, held: &mut OpenedSegments, manifest: &Manifest) -> Result<()> {
        if held.store.replace(manifest.identity) != Some(manifest.identity) {
            held.segments.clear();
        }
        let listed: BTreeMap<_, _> = manifest.sealed.iter().map(|it| (it.id, *it)).collect();
        held.segments.retain(|id, open| listed.get(id) == Some(&open.sealed));
        let lengths: Vec<u64> = listed.values().map(|sealed| sealed.length).collect();
        for ((id, sealed), is_wanted) in listed.into_iter().zip(worth_mapping(&lengths)) {
            if let Entry::Vacant(place) = held.segments.entry(id) {
                let (length, identity) = (sealed.length, manifest.identity);
                let segment = Segment::sealed(self.fs, self.dir, id, length, identity, is_wanted)?;
                // A writer may remove the file at any time.
                segment.keep_readable();
                place.insert(Open { sealed, segment: Arc::new(segment), hint: None });
            }
        }
        Ok(())
    }

    /// Returns the sealed segments in their order, with their hints.
    fn open_hints(
        &self,
        held: &mut OpenedSegments,
        manifest: &Manifest,
        report: &mut RecoveryReport,
    ) -> Result<Vec<(Arc<Segment>, SegmentHint)>> {
        let mut with_hint = |Sealed { id, length, .. }: &Sealed| {
            let Some(Open { segment, hint, .. }) = held.segments.get_mut(id) else {
                unreachable!("every listed segment is held")
            };
            let source = HintSource { id: *id, identity: manifest.identity, length: *length };
            if hint.is_none() {
                let hash = |key: &[u8]| self.keydir.hash(key);
                *hint =
                    Some(SegmentHint::open_from_segment(self.fs, self.dir, segment, source, hash)?);
            }
            let Some(known) = hint else { unreachable!("it was just set") };
            report.rebuilt_hints += u64::from(matches!(known, SegmentHint::InMemory(_)));
            report.unmapped_segments += u64::from(!segment.is_mapped());
            Ok((Arc::clone(segment), known.clone()))
        };
        manifest.sealed.iter().map(&mut with_hint).collect()
    }

    /// Reports what `for_writing` would find and do, and changes nothing.
    pub(crate) fn dry_run(
        &self,
        held: &mut OpenedSegments,
        manifest: &Manifest,
    ) -> Result<RecoveryReport> {
        let survey = self.hold_all(held, manifest)?;
        let chain = self.chain(manifest, false)?;
        let Unlisted { later, leftovers } = self.unlisted(manifest, &survey, &chain)?;
        self.refuse_lasting_damage(&chain, &later, manifest)?;
        let cuts = chain.unread(&later)?.iter().map(cut::Unread::cut).collect();
        let mut report = RecoveryReport { cuts, leftovers, ..chain.report() };
        self.open_hints(held, manifest, &mut report)?;
        Ok(report)
    }

    /// Opens the sealed segments, and their hints as far as the summaries.
    ///
    /// An unusable hint is rebuilt in memory. The rebuild finds damage in the segment before the
    /// log is cut, not after, and supplies the last timestamp.
    fn open_sealed(
        &self,
        manifest: &Manifest,
        report: &mut RecoveryReport,
    ) -> Result<Vec<(Arc<Segment>, SegmentHint)>> {
        let lengths: Vec<u64> = manifest.sealed.iter().map(|sealed| sealed.length).collect();
        let mut open = |(Sealed { id, length, .. }, is_wanted): (&Sealed, bool)| {
            let (id, length, identity) = (*id, *length, manifest.identity);
            let segment = Segment::sealed(self.fs, self.dir, id, length, identity, is_wanted)?;
            report.unmapped_segments += u64::from(!segment.is_mapped());
            let source = HintSource { id, identity, length };
            let hint = SegmentHint::open(self.fs, self.dir, source, |key| self.keydir.hash(key))?;
            report.rebuilt_hints += u64::from(matches!(hint, SegmentHint::InMemory(_)));
            Ok((Arc::new(segment), hint))
        };
        manifest.sealed.iter().zip(worth_mapping(&lengths)).map(&mut open).collect()
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        paths.iter().try_for_each(|path| self.fs.remove(path))
    }
}
