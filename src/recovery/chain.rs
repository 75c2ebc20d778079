//! Finds the end of the log by following the end entries of the unsealed segments.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Recovery, RecoveryReport, Unlisted};
use crate::error::{Error, Result};
use crate::fs::File;
use crate::manifest::Manifest;
use crate::mistake::{Mistake, made};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintBuilder};
use crate::segment::read::scan::{self, Scan, Stop};
use crate::segment::{FIRST_OFFSET, FileKind, Place, SegmentId, open_listed};

/// The unsealed part of the log.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Oldest first.
    pub(super) links: Vec<Link>,
    /// Why the last link ends where it does.
    pub(super) reason: &'static str,
    last_timestamp: u64,
}

/// An unsealed segment, up to the end of its valid entries.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: SegmentId,
    pub(super) file: File,
    pub(super) end: u64,
    /// The hint of the entries below `end`.
    pub(super) hint: Hint,
}

/// The store's own files, by kind.
#[derive(Debug, Default)]
pub(super) struct FileSurvey {
    logs: BTreeSet<SegmentId>,
    /// Hints and indexes, each with the segment to which it belongs.
    derived: Vec<(SegmentId, PathBuf)>,
    temporary: Vec<PathBuf>,
}

/// A scanned link, where and why its scan stopped, and that reason in words.
struct ScannedLink {
    link: Link,
    stop: Stop,
    reason: &'static str,
    last_timestamp: u64,
}

impl Chain {
    pub(super) fn report(&self) -> RecoveryReport {
        RecoveryReport {
            recovered_segments: self.links.len() as u64,
            recovered_entries: self.links.iter().map(|link| link.hint.summary.entries).sum(),
            ..RecoveryReport::default()
        }
    }

    /// The second half of the torn-tail rule: nothing after the end of the log may show that the
    /// entry at the end was durable.
    pub(super) fn refuse_damage(&self, later: &[(SegmentId, File)]) -> Result<()> {
        let Some(last) = self.links.last() else { return Ok(()) };
        let bad = Place::new(last.id, last.end);
        let after = later.iter().map(|(id, file)| (*id, file, FIRST_OFFSET));
        for (id, file, from) in [(last.id, &last.file, last.end)].into_iter().chain(after) {
            if let Some(at) = scan::find_mark_above(file, id, from, bad, self.last_timestamp)? {
                let reason = format!(
                    "{}, but the entry at offset {at} of segment {id} shows that it was durable",
                    self.reason
                );
                return Err(Error::corrupt(last.file.path(), bad.offset, reason));
            }
        }
        Ok(())
    }
}

impl Recovery<'_> {
    pub(super) fn survey(&self) -> Result<FileSurvey> {
        let mut survey = FileSurvey::default();
        for entry in self.fs.list(self.dir.path())?.into_iter().filter(|entry| entry.is_file) {
            let path = self.dir.path().join(&entry.name);
            match FileKind::of(&entry.name) {
                FileKind::Log(id) => drop(survey.logs.insert(id)),
                FileKind::Hint(id) | FileKind::Index(id) => survey.derived.push((id, path)),
                FileKind::Temporary => survey.temporary.push(path),
                FileKind::Other => {}
            }
        }
        Ok(survey)
    }

    /// Returns an error if the files and the manifest are not from the same time.
    pub(super) fn refuse_missing(&self, manifest: &Manifest, survey: &FileSurvey) -> Result<()> {
        self.refuse_newer(manifest, survey)?;
        let listed = manifest.sealed.iter().map(|sealed| sealed.id);
        for id in listed.chain(manifest.log_exists.then_some(manifest.log)) {
            if !survey.logs.contains(&id) {
                return Err(Error::MissingSegment { path: self.dir.log(id) });
            }
        }
        Ok(())
    }

    /// Returns an error if the manifest is older than the files.
    pub(super) fn refuse_newer(&self, manifest: &Manifest, survey: &FileSurvey) -> Result<()> {
        match survey.logs.range(manifest.bound..).next() {
            Some(id) => Err(self.manifest_is_old(*id)),
            None => Ok(()),
        }
    }

    fn manifest_is_old(&self, id: SegmentId) -> Error {
        let reason = format!("the manifest is older than segment {id}");
        Error::corrupt(&self.dir.manifest(), 0, reason)
    }

    /// Scans the unsealed segments. Follows the end entries, never the directory.
    pub(super) fn chain(&self, manifest: &Manifest, for_writing: bool) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut next = manifest.log_exists.then_some(manifest.log);
        while let Some(id) = next {
            let file = open_listed(self.fs, &self.dir.log(id))?;
            SegmentHeader::read(&file, id, manifest.identity)?;
            if for_writing {
                // Pages that an earlier sync failed to write would be read as if they were on disk.
                // After this, either they are on disk, or this fails, or the reads below return
                // what the disk has.
                if !made(Mistake::RecoveryNotSynced) {
                    file.sync()?;
                }
                file.drop_cache();
            }
            let ScannedLink { link, stop, reason, last_timestamp } = self.scan_link(id, file)?;
            next = match stop {
                Stop::End { next, .. } if next > id => Some(next),
                Stop::End { .. } => {
                    let reason = scan::END_LEADS_BACK;
                    return Err(Error::corrupt(link.file.path(), link.end, reason));
                }
                Stop::Nothing { .. } | Stop::Bad { .. } => None,
            };
            chain.links.push(link);
            chain.reason = reason;
            chain.last_timestamp = chain.last_timestamp.max(last_timestamp);
        }
        Ok(chain)
    }

    /// Returns whether the log now continues past the end that was found before.
    fn has_grown(&self, before: &Chain, manifest: &Manifest) -> Result<bool> {
        let end = |chain: &Chain| chain.links.last().map(|link| (link.id, link.end));
        Ok(end(&self.chain(manifest, false)?) > end(before))
    }

    /// Returns the files that the manifest does not list: segments after the end of the log, and
    /// leftovers.
    pub(super) fn unlisted(
        &self,
        manifest: &Manifest,
        survey: &FileSurvey,
        chain: &Chain,
    ) -> Result<Unlisted> {
        let mut known: BTreeSet<SegmentId> = manifest.sealed.iter().map(|s| s.id).collect();
        known.extend(chain.links.iter().map(|link| link.id));
        let orphans = survey.derived.iter().filter(|(id, _)| !known.contains(id));
        let orphans = orphans.map(|(_, path)| path.clone());
        let leftovers = survey.temporary.iter().cloned().chain(orphans).collect();
        let mut unlisted = Unlisted { later: Vec::new(), leftovers };
        for id in survey.logs.difference(&known) {
            let path = self.dir.log(*id);
            // A concurrent writer may have removed it in the meantime.
            let Some(file) = self.fs.open_if_exists(&path)? else { continue };
            let merged = match SegmentHeader::load(&file) {
                // Segments next to another store's manifest are not leftovers of that store.
                Ok(header) if header.identity != manifest.identity => {
                    return Err(Error::corrupt(&path, 0, "the segment belongs to another store"));
                }
                Ok(header) => header.kind == Kind::Merged,
                Err(error) if error.is_corruption() => false,
                Err(error) => return Err(error),
            };
            if *id < manifest.log || merged {
                unlisted.leftovers.push(path);
            } else if manifest.log_exists {
                unlisted.later.push((*id, file));
            } else if scan::end_of_content(&file, FIRST_OFFSET)? > FIRST_OFFSET {
                return Err(self.manifest_is_old(*id));
            } else {
                unlisted.leftovers.push(path);
            }
        }
        Ok(unlisted)
    }

    /// Like [`Chain::refuse_damage`], but for a store with a concurrent writer, which may have been
    /// in the middle of writing the bad entry. If a mark shows that the entry must be complete by
    /// now, the log is read again.
    pub(super) fn refuse_lasting_damage(
        &self,
        chain: &Chain,
        later: &[(SegmentId, File)],
        manifest: &Manifest,
    ) -> Result<()> {
        chain
            .refuse_damage(later)
            .or_else(|damage| if self.has_grown(chain, manifest)? { Ok(()) } else { Err(damage) })
    }

    /// Scans one unsealed segment up to where the log continues in the next one, or ends. Builds
    /// its hint on the way, so that every entry is read, checked and hashed once.
    fn scan_link(&self, id: SegmentId, file: File) -> Result<ScannedLink> {
        let mut scan = Scan::new(&file, id, file.size()?);
        let mut builder = HintBuilder::default();
        let (mut end, mut in_batch, mut last_timestamp) = (FIRST_OFFSET, false, 0);
        let mut stop = loop {
            let entry = match scan.next()? {
                Ok(entry) => entry,
                Err(stop) => break stop,
            };
            builder.add(&entry, |key| self.keydir.hash(key));
            last_timestamp = last_timestamp.max(entry.header.timestamp);
            in_batch = entry.continues();
            if !in_batch {
                end = entry.offset + entry.header.entry_size();
            }
        };
        let reason = match stop {
            Stop::Bad { invalid, offset } => {
                // An entry whose checksum matches but which is not understood was not torn: a newer
                // build wrote it.
                let refusal = scan::refusal(file.path(), offset, invalid);
                if refusal.is_unsupported() {
                    return Err(refusal);
                }
                "the entry here is invalid"
            }
            Stop::End { .. } => "the segment ends here",
            Stop::Nothing { .. } => "the log ends here",
        };
        let reason = if in_batch { "the batch that starts here has no end" } else { reason };
        match stop {
            _ if in_batch => stop = Stop::Nothing { offset: end },
            Stop::End { offset, timestamp, .. } => {
                builder.end(timestamp);
                end = offset;
            }
            Stop::Nothing { .. } | Stop::Bad { .. } => {}
        }
        let link = Link { id, file, end, hint: builder.finish() };
        Ok(ScannedLink { link, stop, reason, last_timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Fs;
    use crate::key_hash::KeyHasher;
    use crate::keydir::Keydir;
    use crate::segment::Dir;
    use crate::{Bitcask, Options};

    #[test]
    fn a_log_has_grown_only_after_a_write() {
        let path = tempfile::tempdir().unwrap();
        let db = Bitcask::open(path.path(), Options::new().segment_entries(2)).unwrap();
        db.put("a", "1").unwrap();
        let (fs, dir) = (&Fs::DISK, &Dir::new(path.path().into()));
        let keydir = &Keydir::new(KeyHasher::new(1));
        let recovery = Recovery { fs, dir, keydir };
        let manifest = Manifest::read(fs, dir).unwrap().unwrap();
        for key in ["b", "c"] {
            let before = recovery.chain(&manifest, false).unwrap();
            assert!(!recovery.has_grown(&before, &manifest).unwrap());
            db.put(key, "1").unwrap();
            assert!(recovery.has_grown(&before, &manifest).unwrap());
        }
    }
}
