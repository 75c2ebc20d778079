//! A copy of the store, made beside its writers, that is a store by itself.
//!
//! - It holds the log up to one moment between two writes. For that moment alone writers wait.
//! - Sealed segments, their hints and their indexes are linked where that can be done: nobody ever
//!   writes to such a file again, it is only unlinked or, where it is derived, replaced by another
//!   file of its name. So neither store can change the other's. A segment that can't be linked is
//!   copied, without its index.
//! - Unsealed segments are copied up to that moment, and listed as sealed, as `close` would.
//! - The manifest is written last, when all else is durable: before it the directory is no store, and
//!   is refused when it is opened (`fresh`).
//! - Nothing in the store is changed, and no failure here poisons it.

use std::path::Path;

use super::new_dir::NewDir;
use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs};
use crate::log::UnsealedFile;
use crate::manifest::{Manifest, Sealed};
use crate::mistake::{Mistake, made};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintFile, HintSource};
use crate::segment::index::has_index;
use crate::segment::{Dir, SegmentId, open_listed};
use crate::store::open::new_identity;
use crate::store::{Bitcask, Inner, Writer};

/// What a backup has taken, from [`Bitcask::backup`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Segments in the backup.
    pub segments: u64,
    /// Those of them that share their file with the store, by a hard link.
    pub linked: u64,
    /// Bytes of all segments in the backup, their hints not counted.
    pub size: u64,
    /// Bytes of those that were copied.
    pub copied_size: u64,
}

/// A backup's ids begin by chance somewhere among so many above those of the store.
const ID_GAP: u64 = 1 << 20;

impl Bitcask {
    /// Copies the store to a directory of its own, while it is in use.
    ///
    /// The copy holds everything that was written before this was called, and perhaps some of what
    /// is written meanwhile, each batch whole: the state of one moment. It is durable when this
    /// returns, is opened as any store, and can be backed up itself. What is in `quarantine/`, and
    /// files of others, are left out.
    ///
    /// Sealed segments are linked, which takes no space and hardly any time, as long as the
    /// directory is on the same file system; the rest is copied. Links are safe: a sealed segment is
    /// never written again, by neither store, and a file goes with the last of its names. But what
    /// ruins the disk ruins both: for that case give a directory on another one, or copy the backup
    /// there. Sealed segments that are linked are not read; [`verify`](crate::Reader::verify) does that. All
    /// that is copied is checked on the way.
    ///
    /// The directory must be empty or not be there; its parent has to be. It is the same store as
    /// this one, at another time: never mix their files. A second backup,
    /// [`clear`](Self::clear), and a merge that has something to remove, wait until this one is done;
    /// reads and writes go on.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`](Error::InvalidTarget) and [`NotADirectory`](Error::NotADirectory) for a
    /// directory that can't be used, [`Locked`](Error::Locked) if somebody else does,
    /// [`Poisoned`](Error::Poisoned),
    /// [`Corrupt`](Error::Corrupt) if what is to be copied does not check, and whatever the
    /// operating system says. The store is as it was, and what was made is removed as far as that
    /// can be done. What a crash leaves of a backup is refused when it is opened, as
    /// [`Unfinished`](Error::Unfinished), and by the next backup into it; remove it.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, target) = (dir.path().join("store"), dir.path().join("backup"));
    /// let db = Bitcask::open(path, Options::default())?;
    /// db.put("key", "value")?;
    /// let report = db.backup(&target)?;
    /// assert_eq!(report.segments, 1);
    /// db.delete("key")?;
    /// let copy = Bitcask::open(&target, Options::default())?;
    /// assert_eq!(copy.get("key")?.as_deref(), Some(&b"value"[..]));
    /// # copy.close()?;
    /// # db.close()
    /// # }
    /// ```
    pub fn backup(&self, dir: impl AsRef<Path>) -> Result<BackupReport> {
        self.inner.backup(dir.as_ref())
    }
}

/// The log at one moment.
struct BackupMoment {
    manifest: Manifest,
    /// Oldest first; those without a put or a delete left out.
    unsealed: Vec<UnsealedFile>,
}

impl BackupMoment {
    fn ids(&self) -> impl Iterator<Item = SegmentId> {
        let sealed = self.manifest.sealed.iter().map(|sealed| sealed.id);
        sealed.chain(self.unsealed.iter().map(|unsealed| unsealed.id))
    }
}

impl Inner {
    fn backup(&self, path: &Path) -> Result<BackupReport> {
        let writer = self.writer()?;
        let _files = (!made(Mistake::BackupUnguarded)).then(|| writer.files.lock());
        let moment = self.moment(writer)?;
        let fresh = NewDir::prepare(&self.fs, path, &self.dir)?;
        let target = BackupTarget { inner: self, fs: fresh.fs(), dir: fresh.dir() };
        target.take(&moment).inspect_err(|_| fresh.undo(moment.ids()))
    }

    /// Notes what the log is made of now. The caller keeps the files from being removed.
    fn moment(&self, writer: &Writer) -> Result<BackupMoment> {
        // Nothing is between unsealed and sealed while this is held.
        let _maintenance = writer.log.lock_maintenance();
        writer.log.at_one_moment(&self.keydir, |log| {
            writer.log.check()?;
            let (mut manifest, unsealed) = (self.manifest.get(Clone::clone), log.unsealed_files());
            if unsealed.len() < log.unsealed().len() {
                // There may be marks in what is left out, which have times too.
                manifest.note_time(log.last_timestamp());
            }
            Ok(BackupMoment { manifest, unsealed })
        })
    }
}

/// A backup under way.
struct BackupTarget<'a> {
    inner: &'a Inner,
    /// With the directory held open that is filled.
    fs: &'a Fs,
    dir: &'a Dir,
}

impl BackupTarget<'_> {
    /// Fills the directory, and makes it a store.
    fn take(&self, moment: &BackupMoment) -> Result<BackupReport> {
        let BackupMoment { manifest, unsealed } = moment;
        let mut report = BackupReport::default();
        for Sealed { id, length, .. } in &manifest.sealed {
            let source = HintSource { id: *id, identity: manifest.identity, length: *length };
            if self.link(source)? {
                report.linked += 1;
            } else {
                self.copy(&open_listed(&self.inner.fs, &self.inner.dir.log(*id))?, source)?;
                report.copied_size += length;
            }
        }
        let mut manifest = manifest.clone();
        for UnsealedFile { id, file, length } in unsealed {
            let source = HintSource { id: *id, identity: manifest.identity, length: *length };
            self.copy(file, source)?;
            report.copied_size += length;
            manifest.sealed.push(Sealed { id: *id, kind: Kind::Log, length: *length });
        }
        // Both stores go on from here under one name. With the same ids a position in what the one
        // has written since would be taken for one in the other.
        let gap = u32::try_from(new_identity().store_id % ID_GAP).unwrap_or(0);
        manifest.bound = SegmentId(manifest.bound.0.saturating_add(1 + gap));
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        report.segments = manifest.sealed.len() as u64;
        report.size = manifest.sealed.iter().map(|sealed| sealed.length).sum();
        self.fs.sync_dir(self.dir.path())?;
        manifest.write(self.fs, self.dir)?;
        Ok(report)
    }

    /// Links a sealed segment, its hint and its index; says whether the segment can be linked.
    fn link(&self, source: HintSource) -> Result<bool> {
        let (from, dir, id) = (&self.inner.fs, &self.inner.dir, source.id);
        let log = self.dir.log(id);
        if !from.link(&dir.log(id), self.fs, &log)? {
            return Ok(false);
        }
        let has_hint = HintFile::open(from, dir, source).is_some()
            && from.link(&dir.hint(id), self.fs, &self.dir.hint(id))?;
        if !has_hint {
            self.check(&open_listed(self.fs, &log)?, source)?;
        }
        if has_index(from, dir, source) {
            // Where it can't be linked the backup does without.
            from.link(&dir.index(id), self.fs, &self.dir.index(id))?;
        }
        Ok(true)
    }

    /// Copies a segment.
    fn copy(&self, file: &File, source: HintSource) -> Result<()> {
        let copy = self.fs.open(&self.dir.log(source.id), Access::CreateNew)?;
        let copied = file.copy_to(&copy, 0, source.length)?;
        if copied < source.length {
            let reason = format!("the file ends here, {} bytes were written", source.length);
            return Err(Error::corrupt(file.path(), copied, reason));
        }
        if !made(Mistake::BackupNotSynced) {
            copy.sync()?;
        }
        self.check(&copy, source)
    }

    /// Checks a segment of the backup, and writes its hint.
    fn check(&self, file: &File, source: HintSource) -> Result<()> {
        let checked = SegmentHeader::read(file, source.id, source.identity)
            .and_then(|_| Hint::build(file, source, |key| self.inner.keydir.hash(key)));
        let hint = checked.map_err(|error| match error {
            // What is here is about to go, and it is no worse than what it was made from.
            Error::Corrupt { offset, reason, .. } => {
                Error::corrupt(&self.inner.dir.log(source.id), offset, reason)
            }
            error => error,
        })?;
        hint.write(self.fs, self.dir, source)
    }
}
