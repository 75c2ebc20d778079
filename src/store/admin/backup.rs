//! Backups: copies of the store that are stores in their own right, made while it is in use.
//!
//! - A backup holds the log up to one moment between two writes. Writers wait only for that moment.
//! - Sealed segments, their hints and their indexes are hard-linked where possible. These files are
//!   never written to again, only unlinked or, if derived, replaced by another file of the same
//!   name. So neither store can change the other's files. A segment that cannot be linked is
//!   copied, without its index.
//! - Unsealed segments are copied up to that moment, and listed as sealed, as `close` would do.
//! - The manifest is written last, when everything else is durable. Before that, the directory is
//!   not a store, and opening it returns an error (`fresh`).
//! - A flag, and no closure, tells it to give up: the files' lock is held meanwhile.
//! - A backup changes nothing in the store, and a failed backup does not poison it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::new_dir::NewDir;
use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs};
use crate::log::UnsealedFile;
use crate::manifest::{Manifest, Sealed};
use crate::mistake::{Mistake, made};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintFile, HintSource};
use crate::segment::index::has_index;
use crate::segment::read::scan::too_short;
use crate::segment::{Dir, SegmentId, open_listed};
use crate::store::open::new_identity;
use crate::store::{Bitcask, Inner, Writer};
use crate::sync::MutexGuard;

/// Summary of a backup, from [`Bitcask::backup`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupReport {
    /// Number of segments in the backup.
    pub segments: u64,
    /// Number of segments that share their file with the store, through a hard link.
    pub linked: u64,
    /// Size in bytes of all segments in the backup, without their hints.
    pub size: u64,
    /// Size in bytes of the segments that were copied.
    pub copied_size: u64,
    /// Whether it was [given up](Bitcask::backup_until). Then there is no backup.
    pub cancelled: bool,
}

/// Number of times that a backup lets the writers of its caller in again while it waits for a lock.
/// Then they wait too, since seals and merges may take turns for ever.
#[cfg(any(test, feature = "raft"))]
const HELD_ATTEMPTS: usize = 16;

/// Size of the range, above the store's ids, in which a backup's new ids start at random.
const ID_GAP: u64 = 1 << 20;

impl Bitcask {
    /// Copies the store to another directory while it is in use.
    ///
    /// The copy is the state at one moment: it holds everything written before the call, possibly
    /// some of what is written during it, and each batch as a whole. When this returns, the copy is
    /// durable, can be opened like any store, and can be backed up itself. It does not include
    /// `quarantine/` or files that do not belong to the store.
    ///
    /// If the directory is on the same file system, sealed segments are hard-linked, which takes no
    /// space and hardly any time; the rest is copied. Links are safe: neither store ever writes to
    /// a sealed segment again, and a file exists until its last name is removed. But damage to the
    /// disk damages both copies. To guard against that, choose a directory on another disk, or copy
    /// the backup to one. Linked segments are not read; [`verify`](crate::Reader::verify) reads
    /// them. Everything that is copied is verified on the way.
    ///
    /// The directory must be empty or not exist; its parent must exist. The copy is the same store
    /// at another time: never mix their files. Until the backup is done, a second backup,
    /// [`clear`](Self::clear), and any merge that has files to remove wait; reads and writes
    /// continue.
    ///
    /// # Errors
    ///
    /// - [`InvalidTarget`](Error::InvalidTarget) and [`NotADirectory`](Error::NotADirectory) for an
    ///   unusable directory.
    /// - [`Locked`](Error::Locked) if the directory is in use.
    /// - [`Poisoned`](Error::Poisoned) if the store is.
    /// - [`Corrupt`](Error::Corrupt) if data to be copied fails verification.
    /// - Any error of the operating system.
    ///
    /// After an error, the store is unchanged, and what the backup has created is removed as far as
    /// possible. After a crash, the incomplete backup stays. Opening it returns
    /// [`Unfinished`](Error::Unfinished), and another backup into it fails; remove it.
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
        self.backup_until(dir, &AtomicBool::new(false))
    }

    /// Like [`backup`](Self::backup), and gives the backup up once another thread sets a flag:
    /// after some 100 KiB that are copied, and otherwise before the next segment. Then it removes
    /// what it has created, and the report says that it was [cancelled](BackupReport::cancelled).
    ///
    /// # Errors
    ///
    /// As [`backup`](Self::backup).
    ///
    /// ```
    /// # use std::sync::atomic::AtomicBool;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let (path, target) = (dir.path().join("store"), dir.path().join("backup"));
    /// let db = Bitcask::open(path, Options::default())?;
    /// db.put("key", "value")?;
    /// let is_over = AtomicBool::new(true);
    /// assert!(db.backup_until(&target, &is_over)?.cancelled);
    /// assert!(!target.exists());
    /// # db.close()
    /// # }
    /// ```
    pub fn backup_until(&self, dir: impl AsRef<Path>, stop: &AtomicBool) -> Result<BackupReport> {
        self.inner.backup(dir.as_ref(), stop, 0, || ((), ())).map(|(report, ())| report)
    }

    /// Like [`backup`](Self::backup), of a moment at which the caller keeps its own writers out:
    /// `hold` does that, and notes what the caller wants to know of the moment, which is returned.
    /// What keeps the writers out is dropped when the moment is over.
    ///
    /// Each seal, merge or other backup that is under way ends before that. So `hold` may be called
    /// several times, of which the last one counts.
    #[cfg(any(test, feature = "raft"))]
    pub(crate) fn backup_holding<G, T>(
        &self,
        dir: &Path,
        hold: impl FnMut() -> (G, T),
    ) -> Result<T> {
        let backup = self.inner.backup(dir, &AtomicBool::new(false), HELD_ATTEMPTS, hold);
        backup.map(|(_, noted)| noted)
    }
}

/// The state of the log at one moment.
struct BackupMoment {
    manifest: Manifest,
    /// Oldest first, without those that hold no put or delete.
    unsealed: Vec<UnsealedFile>,
}

impl BackupMoment {
    fn ids(&self) -> impl Iterator<Item = SegmentId> {
        let sealed = self.manifest.sealed.iter().map(|sealed| sealed.id);
        sealed.chain(self.unsealed.iter().map(|unsealed| unsealed.id))
    }
}

impl Inner {
    fn backup<G, T>(
        &self,
        path: &Path,
        stop: &AtomicBool,
        attempts: usize,
        hold: impl FnMut() -> (G, T),
    ) -> Result<(BackupReport, T)> {
        let writer = self.writer()?;
        let (files, moment, noted) = self.held_moment(writer, attempts, hold)?;
        let _files = (!made(Mistake::BackupUnguarded)).then_some(files);
        let fresh = NewDir::prepare(&self.fs, path, &self.dir)?;
        let target = BackupTarget { inner: self, fs: fresh.fs(), dir: fresh.dir(), stop };
        let taken = target.take(&moment);
        if !matches!(taken, Ok(Some(_))) {
            fresh.undo(moment.ids());
        }
        let cancelled = BackupReport { cancelled: true, ..BackupReport::default() };
        Ok((taken?.unwrap_or(cancelled), noted))
    }

    /// Captures the current state of the log while the caller keeps its writers out. Returns a lock
    /// that keeps the files from being removed.
    ///
    /// What the caller holds comes before the locks of the store. So it cannot be taken behind
    /// them, and is given back instead while one of them is not free.
    fn held_moment<'a, G, T>(
        &self,
        writer: &'a Writer,
        attempts: usize,
        mut hold: impl FnMut() -> (G, T),
    ) -> Result<(MutexGuard<'a, ()>, BackupMoment, T)> {
        for _ in 0..attempts {
            let (guard, noted) = hold();
            if let Some(files) = writer.files.try_lock()
                && let Some(maintenance) = writer.log.try_lock_maintenance()
            {
                return Ok((files, self.moment(writer, &maintenance)?, noted));
            }
            drop(guard);
            drop(writer.files.lock());
            drop(writer.log.lock_maintenance());
        }
        let (_guard, noted) = hold();
        let files = writer.files.lock();
        let maintenance = writer.log.lock_maintenance();
        Ok((files, self.moment(writer, &maintenance)?, noted))
    }

    /// Captures the current state of the log. The caller keeps the files from being removed. While
    /// the second lock is held, no segment is between unsealed and sealed.
    fn moment(&self, writer: &Writer, _: &MutexGuard<'_, ()>) -> Result<BackupMoment> {
        writer.log.at_one_moment(&self.keydir, |log| {
            writer.log.check()?;
            let (mut manifest, unsealed) = (self.manifest.get(Clone::clone), log.unsealed_files());
            if unsealed.len() < log.unsealed().len() {
                // The omitted segments may hold marks, which have timestamps too.
                manifest.note_time(log.last_timestamp());
            }
            Ok(BackupMoment { manifest, unsealed })
        })
    }
}

/// A backup in progress.
struct BackupTarget<'a> {
    inner: &'a Inner,
    /// With the target directory held open.
    fs: &'a Fs,
    dir: &'a Dir,
    /// Whether the caller does not want the backup any more.
    stop: &'a AtomicBool,
}

impl BackupTarget<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Fills the directory, and turns it into a store. Returns `None` if the caller wants no more.
    fn take(&self, moment: &BackupMoment) -> Result<Option<BackupReport>> {
        let BackupMoment { manifest, unsealed } = moment;
        let mut report = BackupReport::default();
        for Sealed { id, length, .. } in &manifest.sealed {
            if self.is_stopped() {
                return Ok(None);
            }
            let source = HintSource { id: *id, identity: manifest.identity, length: *length };
            if self.link(source)? {
                report.linked += 1;
            } else {
                let from = open_listed(&self.inner.fs, &self.inner.dir.log(*id))?;
                if !self.copy(&from, source)? {
                    return Ok(None);
                }
                report.copied_size += length;
            }
        }
        let mut manifest = manifest.clone();
        for UnsealedFile { id, file, length } in unsealed {
            let source = HintSource { id: *id, identity: manifest.identity, length: *length };
            if !self.copy(file, source)? {
                return Ok(None);
            }
            report.copied_size += length;
            manifest.sealed.push(Sealed { id: *id, kind: Kind::Log, length: *length });
        }
        // From here on, both stores continue under one identity. If they used the same ids, a
        // position in what one has written since could be mistaken for one in the other.
        let gap = u32::try_from(new_identity().store_id % ID_GAP).unwrap_or(0);
        manifest.bound = SegmentId(manifest.bound.0.saturating_add(1 + gap));
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        report.segments = manifest.sealed.len() as u64;
        report.size = manifest.sealed.iter().map(|sealed| sealed.length).sum();
        self.fs.sync_dir(self.dir.path())?;
        if self.is_stopped() {
            return Ok(None);
        }
        manifest.write(self.fs, self.dir)?;
        Ok(Some(report))
    }

    /// Links a sealed segment, its hint and its index. Returns whether the segment can be linked.
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
            // If the index cannot be linked, the backup does without it.
            from.link(&dir.index(id), self.fs, &self.dir.index(id))?;
        }
        Ok(true)
    }

    /// Copies a segment. Returns whether it is complete.
    fn copy(&self, file: &File, source: HintSource) -> Result<bool> {
        let copy = self.fs.open(&self.dir.log(source.id), Access::CreateNew)?;
        let copied = file.copy_to_until(&copy, 0, source.length, || self.is_stopped())?;
        if copied < source.length && self.is_stopped() {
            return Ok(false);
        }
        if copied < source.length {
            return Err(Error::corrupt(file.path(), copied, too_short(source.length)));
        }
        if !made(Mistake::BackupNotSynced) {
            copy.sync()?;
        }
        self.check(&copy, source)?;
        Ok(true)
    }

    /// Verifies a segment of the backup, and writes its hint.
    fn check(&self, file: &File, source: HintSource) -> Result<()> {
        let checked = SegmentHeader::read(file, source.id, source.identity)
            .and_then(|_| Hint::build(file, source, |key| self.inner.keydir.hash(key)));
        let hint = checked.map_err(|error| match error {
            // Names the source file: the copy is about to be removed, and is no worse than its
            // source.
            Error::Corrupt { offset, reason, .. } => {
                Error::corrupt(&self.inner.dir.log(source.id), offset, reason)
            }
            error => error,
        })?;
        hint.write(self.fs, self.dir, source)
    }
}
