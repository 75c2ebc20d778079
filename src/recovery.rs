//! From a directory to segments and a filled keydir.
//!
//! - Everything that can be refused is refused before anything is changed.
//! - Every step can crash and be run again; the one manifest write at the end is the commit.
//! - No old byte is ever rewritten, and none that could not be read is destroyed: it is copied to
//!   `quarantine/` first.
//! - The torn-tail rule itself is in `segment::scan`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs};
use crate::keydir::{Address, Filling, KeyHash, Keydir};
use crate::manifest::{Manifest, Sealed};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, Source};
use crate::segment::map::Bytes;
use crate::segment::scan::{self, Scan, Stop};
use crate::segment::{
    Dir, FIRST_OFFSET, FileKind, Place, Segment, SegmentId, Segments, open_listed,
};

/// What opening a store found and did, from [`Bitcask::recovery`](crate::Bitcask::recovery).
///
/// After a clean close there is nothing to tell: `is_clean` says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Segments that had not been sealed, whose entries were recovered one by one.
    pub recovered_segments: u64,
    /// Puts and deletes that were recovered from them.
    pub recovered_entries: u64,
    /// What was cut off, oldest first: what a crash left of writes that were not yet durable.
    pub cuts: Vec<Cut>,
    /// Files that an interrupted operation had left behind, and that were removed.
    pub leftovers: Vec<PathBuf>,
    /// Hints that were missing or damaged, and were built anew.
    pub rebuilt_hints: u64,
}

impl RecoveryReport {
    /// Returns whether the store had been closed in order and nothing had to be done.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Bytes behind the end of the log that could not be read as entries, and were set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment that was cut, or removed with all that was in it.
    pub path: PathBuf,
    /// Where it was cut, in bytes from the start of the file.
    pub offset: u64,
    /// How many bytes were set aside, zeros at the end not counted.
    pub size: u64,
    /// Where they are now; nothing if the store was opened read-only.
    pub quarantine: Option<PathBuf>,
    /// Why the log ends there.
    pub reason: String,
}

/// A store's segments as opening leaves them.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) manifest: Manifest,
    /// Oldest first, those that are sealed on disk with no hint yet.
    pub(crate) segments: Vec<(Arc<Segment>, Option<Hint>)>,
    pub(crate) report: RecoveryReport,
}

/// What opening needs to know of its surroundings.
#[derive(Debug)]
pub(crate) struct Recovery<'a> {
    pub(crate) fs: &'a Fs,
    pub(crate) dir: &'a Dir,
    pub(crate) keydir: &'a Keydir,
    pub(crate) now: u64,
}

/// The store's own files, by kind.
#[derive(Debug, Default)]
struct Survey {
    logs: BTreeSet<SegmentId>,
    hints: BTreeSet<SegmentId>,
    temporary: Vec<PathBuf>,
}

/// An unsealed segment, up to the end of its good entries.
#[derive(Debug)]
struct Link {
    id: SegmentId,
    file: File,
    end: u64,
    entries: u64,
}

/// The unsealed part of the log.
#[derive(Debug, Default)]
struct Chain {
    links: Vec<Link>,
    /// Why the last of them ends where it does.
    reason: &'static str,
    last_timestamp: u64,
}

/// Bytes of unsealed segments that are not entries of the log.
#[derive(Debug)]
struct Unread<'a> {
    file: &'a File,
    place: Place,
    /// Zeros from here on do not count.
    end: u64,
    reason: &'static str,
}

impl Unread<'_> {
    /// Tells of it, as long as it is not set aside.
    fn cut(&self) -> Cut {
        Cut {
            path: self.file.path().to_path_buf(),
            offset: self.place.offset,
            size: self.end - self.place.offset,
            quarantine: None,
            reason: self.reason.to_owned(),
        }
    }
}

impl Recovery<'_> {
    /// Makes a store that may have been interrupted anywhere ready to be written.
    pub(crate) fn for_writing(&self, mut manifest: Manifest) -> Result<Recovered> {
        let mut report = RecoveryReport::default();
        let survey = self.survey()?;
        self.refuse_missing(&manifest, &survey)?;
        let chain = self.chain(&manifest, true)?;
        let (later, leftovers) = self.unlisted(&manifest, &survey, &chain)?;
        self.refuse_damage(&chain, &later)?;
        let mut segments = Vec::with_capacity(manifest.sealed.len());
        for sealed in &manifest.sealed {
            segments.push((Arc::new(self.open_sealed(&manifest, *sealed)?), None));
        }
        if !leftovers.is_empty() || !chain.links.is_empty() {
            self.refuse_unreadable(&manifest)?;
        }

        self.remove(&leftovers)?;
        report.leftovers = leftovers;
        if !chain.links.is_empty() {
            self.cut(&chain, &later, &mut report)?;
            self.seal(&chain, &mut manifest)?;
            report.recovered_segments = chain.links.len() as u64;
            report.recovered_entries = chain.links.iter().map(|link| link.entries).sum();
        }
        for sealed in manifest.sealed.iter().skip(segments.len()) {
            segments.push((Arc::new(self.open_sealed(&manifest, *sealed)?), None));
        }
        Ok(Recovered { manifest, segments, report })
    }

    /// Reads a store as it is, beside a writer or without one, and changes nothing.
    pub(crate) fn for_reading(&self, manifest: Manifest) -> Result<Recovered> {
        let mut report = RecoveryReport::default();
        let mut segments = Vec::with_capacity(manifest.sealed.len());
        for sealed in &manifest.sealed {
            segments.push((Arc::new(self.open_sealed(&manifest, *sealed)?), None));
        }
        let chain = self.chain(&manifest, false)?;
        let survey = self.survey()?;
        self.refuse_missing(&manifest, &survey)?;
        let (later, _) = self.unlisted(&manifest, &survey, &chain)?;
        self.refuse_damage(&chain, &later)?;
        for Link { id, file, end, entries } in &chain.links {
            let source = Source { id: *id, identity: manifest.identity, length: *end };
            let hint = Hint::build(file, source, |key| self.keydir.hash(key))?;
            let bytes = Bytes::unmapped(file, *end);
            segments.push((Arc::new(Segment::new(*id, file.path(), bytes)), Some(hint)));
            report.recovered_entries += entries;
        }
        report.recovered_segments = chain.links.len() as u64;
        report.cuts = unread(&chain, &later)?.iter().map(Unread::cut).collect();
        Ok(Recovered { manifest, segments, report })
    }

    fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for entry in self.fs.list(self.dir.path())? {
            match FileKind::of(&entry.name) {
                _ if !entry.is_file => {}
                FileKind::Log(id) => drop(survey.logs.insert(id)),
                FileKind::Hint(id) => drop(survey.hints.insert(id)),
                FileKind::Temporary => survey.temporary.push(self.dir.path().join(entry.name)),
                FileKind::Other => {}
            }
        }
        Ok(survey)
    }

    /// Refuses a store whose files and manifest are not of the same time.
    fn refuse_missing(&self, manifest: &Manifest, survey: &Survey) -> Result<()> {
        if let Some(id) = survey.logs.range(manifest.bound..).next() {
            return Err(self.manifest_is_old(*id));
        }
        let listed = manifest.sealed.iter().map(|sealed| sealed.id);
        for id in listed.chain(manifest.log_exists.then_some(manifest.log)) {
            if !survey.logs.contains(&id) {
                return Err(Error::MissingSegment { path: self.dir.log(id) });
            }
        }
        Ok(())
    }

    /// Scans the unsealed segments, following the end entries, never the directory.
    fn chain(&self, manifest: &Manifest, for_writing: bool) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut next = manifest.log_exists.then_some(manifest.log);
        while let Some(id) = next {
            let file = open_listed(self.fs, &self.dir.log(id))?;
            SegmentHeader::read(&file, id, manifest.identity)?;
            if for_writing {
                // Pages that an earlier sync failed to write would be read as if they were on
                // disk. Now they are, or this fails, or what is read is what the disk has.
                file.sync()?;
                file.drop_cache();
            }
            let (link, stop) = self.link(id, file, &mut chain)?;
            next = match stop {
                Stop::End { next, .. } if next > id => Some(next),
                Stop::End { .. } => {
                    let reason = "the end entry names a segment that is not younger";
                    return Err(Error::corrupt(link.file.path(), link.end, reason));
                }
                Stop::Nothing { .. } | Stop::Bad { .. } => None,
            };
            chain.links.push(link);
        }
        Ok(chain)
    }

    /// Scans one unsealed segment up to where the log goes on in the next one, or ends.
    fn link(&self, id: SegmentId, file: File, chain: &mut Chain) -> Result<(Link, Stop)> {
        let mut scan = Scan::new(&file, id, file.size()?);
        let (mut end, mut entries) = (FIRST_OFFSET, 0);
        let mut in_batch = 0;
        let stop = loop {
            let entry = match scan.next()? {
                Ok(entry) => entry,
                Err(stop) => break stop,
            };
            chain.last_timestamp = chain.last_timestamp.max(entry.header.timestamp);
            if entry.header.is_of_a_key() {
                in_batch += 1;
            }
            if !entry.continues() {
                entries += in_batch;
                in_batch = 0;
                end = entry.offset + entry.header.entry_size();
            }
        };
        let path = file.path().to_path_buf();
        chain.reason = match stop {
            _ if in_batch > 0 => "the batch that starts here has no end",
            Stop::Nothing { .. } => "the log ends here",
            Stop::End { offset, .. } => {
                end = offset;
                "the segment ends here"
            }
            Stop::Bad { invalid, offset } => {
                // What checks and is not understood was not torn: a newer build wrote it.
                let refusal = scan::refusal(&path, offset, invalid);
                if refusal.is_unsupported() {
                    return Err(refusal);
                }
                "the entry here does not check"
            }
        };
        let stop = if in_batch > 0 { Stop::Nothing { offset: end } } else { stop };
        Ok((Link { id, file, end, entries }, stop))
    }

    /// Returns the segments behind the end of the log, oldest first, and the files that nothing
    /// needs any more.
    fn unlisted(
        &self,
        manifest: &Manifest,
        survey: &Survey,
        chain: &Chain,
    ) -> Result<(Vec<(SegmentId, File)>, Vec<PathBuf>)> {
        let mut known: BTreeSet<SegmentId> = manifest.sealed.iter().map(|s| s.id).collect();
        known.extend(chain.links.iter().map(|link| link.id));
        let mut leftovers = survey.temporary.clone();
        let orphans = survey.hints.difference(&known);
        leftovers.extend(orphans.map(|id| self.dir.hint(*id)));
        let mut later = Vec::new();
        for id in survey.logs.difference(&known) {
            let path = self.dir.log(*id);
            // A writer beside us may have removed it since.
            let Some(file) = self.fs.open_if_exists(&path)? else { continue };
            let merged = match SegmentHeader::load(&file) {
                // Segments beside the manifest of another store are no leftovers of that one.
                Ok(header) if header.identity != manifest.identity => {
                    return Err(Error::corrupt(&path, 0, "the segment belongs to another store"));
                }
                Ok(header) => header.kind == Kind::Merged,
                Err(error) if error.is_corruption() => false,
                Err(error) => return Err(error),
            };
            if *id < manifest.log || merged {
                leftovers.push(path);
            } else if manifest.log_exists {
                later.push((*id, file));
            } else if scan::end_of_content(&file, FIRST_OFFSET)? > FIRST_OFFSET {
                return Err(self.manifest_is_old(*id));
            } else {
                leftovers.push(path);
            }
        }
        Ok((later, leftovers))
    }

    /// The second half of the torn-tail rule: what lies behind the end of the log must not show
    /// that it was durable.
    fn refuse_damage(&self, chain: &Chain, later: &[(SegmentId, File)]) -> Result<()> {
        let Some(last) = chain.links.last() else { return Ok(()) };
        let bad = Place::new(last.id, last.end);
        let times = chain.last_timestamp..self.now.max(chain.last_timestamp);
        let behind = later.iter().map(|(id, file)| (*id, file, FIRST_OFFSET));
        for (id, file, from) in [(last.id, &last.file, last.end)].into_iter().chain(behind) {
            if let Some(at) = scan::find_mark_above(file, id, from, bad, times.clone())? {
                let reason = format!(
                    "{}, but the entry at offset {at} of segment {id} shows that it was durable",
                    chain.reason
                );
                return Err(Error::corrupt(last.file.path(), bad.offset, reason));
            }
        }
        Ok(())
    }

    /// Refuses sealed segments that are damaged where it would be met only after the log has been
    /// cut: while a hint is built anew.
    fn refuse_unreadable(&self, manifest: &Manifest) -> Result<()> {
        for Sealed { id, length, .. } in &manifest.sealed {
            let source = Source { id: *id, identity: manifest.identity, length: *length };
            if Hint::read(self.fs, self.dir, source)?.is_none() {
                let file = open_listed(self.fs, &self.dir.log(*id))?;
                Hint::build(&file, source, |key| self.keydir.hash(key))?;
            }
        }
        Ok(())
    }

    /// Sets aside what could not be read, then removes the segments behind the end of the log.
    fn cut(
        &self,
        chain: &Chain,
        later: &[(SegmentId, File)],
        report: &mut RecoveryReport,
    ) -> Result<()> {
        for unread in unread(chain, later)? {
            let quarantine = Some(self.set_aside(&unread)?);
            report.cuts.push(Cut { quarantine, ..unread.cut() });
        }
        for (_, file) in later.iter().rev() {
            self.fs.remove(file.path())?;
        }
        if !later.is_empty() {
            self.fs.sync_dir(self.dir.path())?;
        }
        Ok(())
    }

    /// Copies what could not be read to the quarantine, durably.
    fn set_aside(&self, Unread { file, place, end, .. }: &Unread<'_>) -> Result<PathBuf> {
        let path = self.dir.quarantined(*place);
        let quarantine = self.dir.quarantine();
        self.fs.create_dir(&quarantine)?;
        self.fs.sync_dir(self.dir.path())?;
        let copy = self.fs.open(&path, Access::Create)?;
        let mut buffer = vec![0; 256 << 10];
        let mut offset = place.offset;
        while offset < *end {
            let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let read_size = file.read_at(part, offset)?;
            if read_size == 0 {
                break;
            }
            copy.write_at(part.get(..read_size).unwrap_or_default(), offset - place.offset)?;
            offset += read_size as u64;
        }
        copy.sync()?;
        self.fs.sync_dir(&quarantine)?;
        Ok(path)
    }

    /// Seals all unsealed segments with one manifest write.
    fn seal(&self, chain: &Chain, manifest: &mut Manifest) -> Result<()> {
        let mut empty = Vec::new();
        for link in &chain.links {
            if link.entries == 0 {
                empty.push(self.dir.log(link.id));
                continue;
            }
            let file = self.fs.open(link.file.path(), Access::Write)?;
            if file.size()? != link.end {
                file.set_size(link.end)?;
                file.sync()?;
            }
            let source = Source { id: link.id, identity: manifest.identity, length: link.end };
            self.write_hint(&Hint::build(&file, source, |key| self.keydir.hash(key))?, source)?;
            let (id, kind, length) = (link.id, Kind::Log, link.end);
            manifest.sealed.push(Sealed { id, kind, length });
        }
        self.fs.sync_dir(self.dir.path())?;
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        manifest.write(self.fs, self.dir)?;
        self.remove(&empty)
    }

    /// Writes a hint; on a full disk the store does without it until the next open.
    fn write_hint(&self, hint: &Hint, source: Source) -> Result<()> {
        match hint.write(self.fs, self.dir, source) {
            Err(error) if error.is_no_space() => Ok(()),
            result => result,
        }
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        paths.iter().try_for_each(|path| self.fs.remove(path))
    }

    fn manifest_is_old(&self, id: SegmentId) -> Error {
        let reason = format!("the manifest is older than segment {id}");
        Error::corrupt(&self.dir.manifest(), 0, reason)
    }

    fn open_sealed(&self, manifest: &Manifest, sealed: Sealed) -> Result<Segment> {
        Segment::sealed(self.fs, self.dir, sealed.id, sealed.length, manifest.identity)
    }
}

/// Returns what could not be read: all behind the end of the log, and what may lie behind the end
/// entries before it. Of a later segment its header does not count.
fn unread<'a>(chain: &'a Chain, later: &'a [(SegmentId, File)]) -> Result<Vec<Unread<'a>>> {
    let mut found = Vec::new();
    let last = chain.links.last().map(|link| link.id);
    let links = chain.links.iter().map(|link| (link.id, &link.file, link.end, link.end));
    let behind = later.iter().map(|(id, file)| (*id, file, 0, FIRST_OFFSET));
    for (id, file, from, content_from) in links.chain(behind) {
        if scan::end_of_content(file, content_from)? > content_from {
            let rotated = Some(id) < last && from > 0;
            let reason = if rotated { "there is more behind the end entry" } else { chain.reason };
            let (place, end) = (Place::new(id, from), scan::end_of_content(file, from)?);
            found.push(Unread { file, place, end, reason });
        }
    }
    Ok(found)
}

/// Fills the keydir from hints, newest segment first; rebuilds the hints that can't be used.
///
/// Returns the highest timestamp in the log.
pub(crate) fn fill(
    recovery: &Recovery<'_>,
    recovered: &mut Recovered,
    segments: &Segments,
    writable: bool,
) -> Result<u64> {
    let mut last_timestamp = 0;
    let identity = recovered.manifest.identity;
    let mut numbers = BTreeMap::new();
    for (segment, _) in &recovered.segments {
        numbers.insert(segment.id(), segments.add(Arc::clone(segment))?);
    }
    for (segment, hint) in recovered.segments.iter_mut().rev() {
        let source = Source { id: segment.id(), identity, length: segment.size() };
        let hint = match hint.take() {
            Some(hint) => hint,
            None => match Hint::read(recovery.fs, recovery.dir, source)? {
                Some(hint) => hint,
                None => {
                    recovered.report.rebuilt_hints += 1;
                    rebuild_hint(recovery, source, writable)?
                }
            },
        };
        last_timestamp = last_timestamp.max(hint.summary.last_timestamp);
        let number = numbers.get(&segment.id()).copied().unwrap_or_default();
        fill_from(recovery, segments, number, segment, &hint)?;
    }
    recovery.keydir.each_shard().for_each(|mut shard| shard.filled());
    Ok(last_timestamp)
}

fn rebuild_hint(recovery: &Recovery<'_>, source: Source, writable: bool) -> Result<Hint> {
    let file = open_listed(recovery.fs, &recovery.dir.log(source.id))?;
    let hint = Hint::build(&file, source, |key| recovery.keydir.hash(key))?;
    if writable {
        recovery.write_hint(&hint, source)?;
    }
    Ok(hint)
}

fn fill_from(
    recovery: &Recovery<'_>,
    segments: &Segments,
    number: u32,
    segment: &Arc<Segment>,
    hint: &Hint,
) -> Result<()> {
    let key_at = |address: Address| {
        let segment = segments.get(address.segment);
        let file = open_listed(recovery.fs, segment.path())?;
        scan::key_at(&file, segment.id(), address.offset, segment.size())
    };
    let same_key = |held, older| Ok(key_at(held)? == key_at(older)?);
    for slot in &hint.slots {
        let hash: KeyHash = slot.hash();
        let address = Address { segment: number, offset: slot.offset() };
        let (tombstone, collides) = (slot.is_tombstone(), slot.collides());
        let filling = Filling { hash, address, tombstone, collides };
        if recovery.keydir.shard(hash).fill(filling, same_key)? && !tombstone {
            let size = match slot.size() {
                Some(size) => size,
                None => segment.entry(slot.offset())?.entry().header.entry_size(),
            };
            segment.gained(size);
        }
    }
    Ok(())
}
