//! Which files of a directory are segments of its store, and how much of each counts.
//!
//! - With a manifest that can be relied on, these are the segments that it lists, and the unsealed
//!   segments. All others are leftovers, which could bring deleted keys back.
//! - Without a manifest, these are all segments of the store to which most of them belong.
//! - A segment is recognized by its header, or by its name if the header is damaged.
//! - Planning reads only the manifest, names, headers, and sources of timestamps: the summaries of
//!   hints, and the first entries of segments.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::fs::{File, Fs, is_failed_read};
use crate::manifest::Manifest;
use crate::segment::header::{Identity, Kind, SegmentHeader};
use crate::segment::hint::HintFile;
use crate::segment::read::resync::first_time;
use crate::segment::read::scan;
use crate::segment::{Dir, FIRST_OFFSET, FileKind, SegmentId, open_listed};
use crate::store::{Damage, Env, damage};

/// What a verification or a salvage reads.
#[derive(Debug, Default)]
pub(super) struct RepairPlan {
    /// The manifest, if it can be relied on.
    pub(super) manifest: Option<Manifest>,
    /// In the order of their ids.
    pub(super) subjects: Vec<RepairSubject>,
    pub(super) damage: Vec<Damage>,
    pub(super) leftovers: Vec<PathBuf>,
    pub(super) quarantine: Vec<PathBuf>,
    /// The latest timestamp that was found. Few entries, if any, are much later.
    pub(super) latest: u64,
}

/// A segment that counts.
#[derive(Debug, Clone)]
pub(super) struct RepairSubject {
    pub(super) path: PathBuf,
    /// The id that its entries have. The file's name may be that of another segment.
    pub(super) id: SegmentId,
    /// Its length, if the manifest lists it.
    pub(super) sealed: Option<u64>,
}

/// A file with the name of a segment. It is not held open, since there may be more of them than a
/// process may have open files.
struct FoundFile {
    name: SegmentId,
    path: PathBuf,
    header: Option<SegmentHeader>,
    /// Why there is no header.
    damage: Option<Damage>,
    /// Whether a newer version wrote it.
    is_newer: bool,
}

impl FoundFile {
    fn new(name: SegmentId, file: &File) -> Result<Self> {
        let (header, error) = match SegmentHeader::load(file) {
            Ok(header) => (Some(header), None),
            Err(error) => (None, Some(error)),
        };
        let is_newer = error.as_ref().is_some_and(Error::is_unsupported);
        let damage = error.map(|error| damage(error, 0)).transpose()?;
        Ok(Self { name, path: file.path().to_path_buf(), header, damage, is_newer })
    }

    fn id(&self) -> SegmentId {
        self.header.map_or(self.name, |header| header.id)
    }

    /// Returns what is wrong with the header of a segment of this store.
    fn header_damage(&self, identity: Option<Identity>) -> Result<Option<Damage>> {
        let (Some(header), Some(identity)) = (self.header, identity) else {
            return Ok(self.damage.clone());
        };
        let checked = header.check(&self.path, self.name, identity);
        checked.err().map(|error| damage(error, 0)).transpose()
    }

    /// Returns whether anything follows the header, as far as that can be read.
    fn has_content(&self, fs: &Fs) -> Result<bool> {
        let Some(file) = fs.open_if_exists(&self.path)? else { return Ok(false) };
        match scan::end_of_content(&file, FIRST_OFFSET) {
            Err(error) if is_failed_read(&error) => Ok(false),
            other => Ok(other? > FIRST_OFFSET),
        }
    }
}

impl RepairPlan {
    /// Examines a directory.
    pub(super) fn new(env: &Env, dir: &Dir) -> Result<Self> {
        let fs = &env.fs;
        match fs.is_dir(dir.path())? {
            Some(true) => {}
            Some(false) => return Err(Error::NotADirectory { path: dir.path().into() }),
            None => return Err(Error::NotFound { path: dir.path().into() }),
        }
        let manifest = Manifest::read(fs, dir);
        let mut plan = Self { latest: env.clock.now(), ..Self::default() };
        plan.note_times(manifest.iter().flatten().filter_map(|manifest| manifest.time));
        let (mut found, mut derived) = (Vec::new(), Vec::new());
        for entry in fs.list(dir.path())?.into_iter().filter(|entry| entry.is_file) {
            let path = dir.path().join(&entry.name);
            match FileKind::of(&entry.name) {
                FileKind::Log(name) => {
                    // A concurrent writer may have removed it.
                    let Some(file) = fs.open_if_exists(&path)? else { continue };
                    let one = FoundFile::new(name, &file)?;
                    let created = one.header.map(|header| header.created);
                    plan.note_times(created.into_iter().chain(first_time(&file, one.id())?));
                    found.push(one);
                }
                FileKind::Hint(id) => {
                    plan.note_times(HintFile::last_timestamp(fs, &path));
                    derived.push((id, path));
                }
                FileKind::Index(id) => derived.push((id, path)),
                FileKind::Temporary => plan.leftovers.push(path),
                FileKind::Other => {}
            }
        }
        if fs.is_dir(&dir.quarantine())? == Some(true) {
            let names = fs.list(&dir.quarantine())?.into_iter();
            plan.quarantine = names.map(|entry| dir.quarantine().join(entry.name)).collect();
        }
        if found.is_empty() && matches!(manifest, Ok(None)) {
            return Err(Error::NotFound { path: dir.path().into() });
        }
        let manifest = plan.reliable_manifest(fs, dir, manifest, &found)?;
        plan.choose(manifest, found)?;
        if plan.manifest.is_some() {
            let known: BTreeSet<_> = plan.subjects.iter().map(|subject| subject.id).collect();
            let orphans = derived.into_iter().filter(|(id, _)| !known.contains(id));
            plan.leftovers.extend(orphans.map(|(_, path)| path));
        } else {
            // Without a manifest nothing distinguishes leftovers from other segments.
            plan.leftovers.clear();
        }
        plan.subjects.sort_by_key(|subject| subject.id);
        Ok(plan)
    }

    fn note_times(&mut self, times: impl IntoIterator<Item = u64>) {
        self.latest = times.into_iter().fold(self.latest, u64::max);
    }

    /// Returns the manifest if it can be relied on: it is intact, belongs to this store, and does
    /// not look older than the segments.
    fn reliable_manifest(
        &mut self,
        fs: &Fs,
        dir: &Dir,
        manifest: Result<Option<Manifest>>,
        found: &[FoundFile],
    ) -> Result<Option<Manifest>> {
        let reason = |reason: &str| Damage::new(dir.manifest(), 0, reason);
        let manifest = match manifest {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                self.damage.push(reason("the manifest is missing"));
                return Ok(None);
            }
            // This build can't read a newer version.
            Err(error) if error.is_unsupported() => return Err(error),
            Err(error) => {
                self.damage.push(damage(error, 0)?);
                return Ok(None);
            }
        };
        let headers: Vec<SegmentHeader> = found.iter().filter_map(|found| found.header).collect();
        let is_ours = |header: &SegmentHeader| header.identity == manifest.identity;
        if !headers.is_empty() && !headers.iter().any(is_ours) {
            self.damage.push(reason("the manifest belongs to another store"));
            return Ok(None);
        }
        for found in found {
            let Some(header) = &found.header else { continue };
            let unlisted = !manifest.lists(header.id) && !manifest.log_exists;
            let is_newer = header.id >= manifest.bound
                || unlisted
                    && header.kind == Kind::Log
                    && header.id >= manifest.log
                    && found.has_content(fs)?;
            if is_ours(header) && is_newer {
                let text = format!("the manifest is older than segment {}", header.id);
                self.damage.push(reason(&text));
                return Ok(None);
            }
        }
        let exists = |id: SegmentId| {
            let is_it =
                |found: &&FoundFile| found.id() == id && found.header.is_none_or(|h| is_ours(&h));
            found.iter().find(is_it).is_some()
        };
        let listed = manifest.sealed.iter().map(|sealed| sealed.id);
        let named = listed.chain(manifest.log_exists.then_some(manifest.log));
        let missing: Vec<_> = named.filter(|id| !exists(*id)).map(|id| dir.log(id)).collect();
        let is_unlisted = |header: &SegmentHeader| {
            is_ours(header) && header.kind == Kind::Merged && !manifest.lists(header.id)
        };
        let may_be_old = !missing.is_empty() && headers.iter().any(is_unlisted);
        let finding = |path| Damage::new(path, 0, "the segment is missing");
        self.damage.extend(missing.into_iter().map(finding));
        if may_be_old {
            // A manifest from before a merge looks like this.
            let text = "segments that it lists are missing, and merged ones that it does not list \
                        are there: it may be old, so it is not relied on";
            self.damage.push(Damage::new(dir.manifest(), 0, text));
            return Ok(None);
        }
        Ok(Some(manifest))
    }

    /// Chooses the segments that count.
    fn choose(&mut self, manifest: Option<Manifest>, found: Vec<FoundFile>) -> Result<()> {
        let identity = manifest.as_ref().map(|manifest| manifest.identity);
        let identity = identity.or_else(|| most_common(&found));
        for found in found {
            let foreign = match found.header {
                Some(header) => Some(header.identity) != identity,
                None => found.is_newer,
            };
            let (id, path) = (found.id(), found.path.clone());
            let subject = |sealed| RepairSubject { path: path.clone(), id, sealed };
            let listed = manifest.as_ref().map(|manifest| {
                let sealed = manifest.sealed.iter().find(|sealed| sealed.id == id);
                let merged = found.header.is_some_and(|header| header.kind == Kind::Merged);
                (sealed, id >= manifest.log && !merged)
            });
            match listed {
                _ if foreign => {}
                Some((Some(sealed), _)) => self.subjects.push(subject(Some(sealed.length))),
                Some((None, true)) | None => self.subjects.push(subject(None)),
                Some((None, false)) => {
                    self.leftovers.push(path);
                    continue;
                }
            }
            self.damage.extend(found.header_damage(identity)?);
        }
        self.manifest = manifest;
        Ok(())
    }
}

impl RepairSubject {
    pub(super) fn open(&self, env: &Env) -> Result<File> {
        open_listed(&env.fs, &self.path)
    }
}

/// Returns the store to which most segments belong. If there are several, that of the youngest
/// segment.
fn most_common(found: &[FoundFile]) -> Option<Identity> {
    let mut counts: Vec<(Identity, u64)> = Vec::new();
    for header in found.iter().filter_map(|found| found.header) {
        match counts.iter_mut().find(|(identity, _)| *identity == header.identity) {
            Some((_, count)) => *count += 1,
            None => counts.push((header.identity, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(identity, _)| identity)
}
