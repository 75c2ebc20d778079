//! A copy of the store, made beside its writers, that is a store by itself.
//!
//! - It holds the log up to one moment between two writes. For that moment alone writers wait.
//! - Sealed segments and their hints are linked where that can be done: nobody ever writes to such a
//!   file again, it is only unlinked or, a hint, replaced by another file of its name. So neither
//!   store can change the other's. What can't be linked is copied.
//! - Unsealed segments are copied up to that moment, and listed as sealed, as `close` would.
//! - The manifest is written last, when all else is durable: before it the directory is no store.
//! - Nothing in the store is changed, and no failure here poisons it.

use std::path::{Path, PathBuf};

use super::log::Log;
use super::open::lock;
use super::{Bitcask, Inner, Writer};
use crate::error::{Error, Result};
use crate::fs::{self, Access, File, Fs, Lock};
use crate::manifest::{Manifest, Sealed};
use crate::segment::append::Active;
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{Hint, HintFile, Source};
use crate::segment::{Dir, SegmentId, open_listed};

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
    /// there. Sealed segments that are linked are not read; [`verify`](Self::verify) does that. All
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
    /// [`ReadOnly`](Error::ReadOnly) and [`Poisoned`](Error::Poisoned),
    /// [`Corrupt`](Error::Corrupt) if what is to be copied does not check, and whatever the
    /// operating system says. The store is as it was, and what was made is removed as far as that
    /// can be done. What a crash leaves of a backup has no manifest, and is refused when it is
    /// opened; remove it.
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
struct Moment {
    manifest: Manifest,
    /// Oldest first; those without a put or a delete left out.
    unsealed: Vec<Unsealed>,
}

/// An unsealed segment. Its file is cut, when it is sealed, but never below this length.
struct Unsealed {
    id: SegmentId,
    file: File,
    length: u64,
}

impl Inner {
    fn backup(&self, path: &Path) -> Result<BackupReport> {
        let writer = self.writer()?;
        let _files = writer.files.lock();
        let moment = self.moment(writer)?;
        let target = Target::prepare(self, Dir::new(fs::absolute(path)?))?;
        target.take(&moment).inspect_err(|_| target.undo(&moment))
    }

    /// Notes what the log is made of now. The caller keeps the files from being removed.
    fn moment(&self, writer: &Writer) -> Result<Moment> {
        // Nothing is between unsealed and sealed while this is held.
        let _maintenance = writer.maintenance.lock();
        let log = writer.log.lock();
        self.commit.check()?;
        Ok(Moment { manifest: self.manifest.get(Clone::clone), unsealed: unsealed(&log) })
    }
}

fn unsealed(log: &Log) -> Vec<Unsealed> {
    let rotated = log.rotated.iter().filter(|rotated| rotated.entries > 0).map(|rotated| {
        let (id, length) = (rotated.segment.id(), rotated.segment.size());
        Unsealed { id, file: rotated.file.clone(), length }
    });
    let active = log.active().filter(|active| active.entries() > 0).map(|active: &Active| {
        let end = active.end();
        Unsealed { id: end.segment, file: active.file().clone(), length: end.offset }
    });
    rotated.chain(active).collect()
}

/// The directory that a backup is made in, locked as a store's.
struct Target<'a> {
    inner: &'a Inner,
    fs: &'a Fs,
    dir: Dir,
    /// Whether it was not there before.
    is_new: bool,
    _lock: Lock,
}

impl<'a> Target<'a> {
    /// Sees to an empty directory, with a name that lasts. Leaves one that can't be used alone.
    fn prepare(inner: &'a Inner, dir: Dir) -> Result<Self> {
        let (fs, path) = (&inner.fs, dir.path());
        let is_new = match fs.is_dir(path)? {
            Some(true) => false,
            Some(false) => return Err(Error::NotADirectory { path: path.into() }),
            None => true,
        };
        let real_path = fs.real_path(if is_new { fs::parent(path) } else { path })?;
        if real_path.starts_with(fs.real_path(inner.dir.path())?) {
            let reason = "it lies within the store; name a directory outside of it";
            return Err(Error::InvalidTarget { path: path.into(), reason });
        }
        if is_new {
            fs.create_dir(path)?;
        } else {
            require_empty(fs, &dir)?;
        }
        let locked = lock(fs, &dir).and_then(|lock| {
            // Somebody may have been there before it was locked.
            require_empty(fs, &dir)?;
            Ok(lock)
        });
        match locked {
            Ok(lock) => Ok(Self { inner, fs, dir, is_new, _lock: lock }),
            Err(error) => {
                if is_new {
                    let _ = fs.remove_dir(path);
                }
                Err(error)
            }
        }
    }

    /// Fills the directory, and makes it a store.
    fn take(&self, moment: &Moment) -> Result<BackupReport> {
        // An earlier try may have made it, and got no further.
        self.fs.sync_dir(fs::parent(self.dir.path()))?;
        let Moment { manifest, unsealed } = moment;
        let mut report = BackupReport::default();
        for Sealed { id, length, .. } in &manifest.sealed {
            let source = Source { id: *id, identity: manifest.identity, length: *length };
            if self.link(source)? {
                report.linked += 1;
            } else {
                self.copy(&open_listed(self.fs, &self.inner.dir.log(*id))?, source)?;
                report.copied_size += length;
            }
        }
        let mut manifest = manifest.clone();
        for Unsealed { id, file, length } in unsealed {
            let source = Source { id: *id, identity: manifest.identity, length: *length };
            self.copy(file, source)?;
            report.copied_size += length;
            manifest.sealed.push(Sealed { id: *id, kind: Kind::Log, length: *length });
        }
        manifest.log = manifest.bound;
        manifest.log_exists = false;
        report.segments = manifest.sealed.len() as u64;
        report.size = manifest.sealed.iter().map(|sealed| sealed.length).sum();
        self.fs.sync_dir(self.dir.path())?;
        manifest.write(self.fs, &self.dir)?;
        Ok(report)
    }

    /// Links a sealed segment and its hint; says whether the segment can be linked.
    fn link(&self, source: Source) -> Result<bool> {
        let (from, id) = (&self.inner.dir, source.id);
        let log = self.dir.log(id);
        if !self.fs.link(&from.log(id), &log)? {
            return Ok(false);
        }
        let has_hint = HintFile::open(self.fs, from, source).is_some()
            && self.fs.link(&from.hint(id), &self.dir.hint(id))?;
        if !has_hint {
            self.check(&open_listed(self.fs, &log)?, source)?;
        }
        Ok(true)
    }

    /// Copies a segment.
    fn copy(&self, file: &File, source: Source) -> Result<()> {
        let copy = self.fs.open(&self.dir.log(source.id), Access::Create)?;
        let copied = file.copy_to(&copy, 0, source.length)?;
        if copied < source.length {
            let reason = format!("the file ends here, {} bytes were written", source.length);
            return Err(Error::corrupt(file.path(), copied, reason));
        }
        copy.sync()?;
        self.check(&copy, source)
    }

    /// Checks a segment of the backup, and writes its hint.
    fn check(&self, file: &File, source: Source) -> Result<()> {
        let checked = SegmentHeader::read(file, source.id, source.identity)
            .and_then(|_| Hint::build(file, source, |key| self.inner.keydir.hash(key)));
        let hint = checked.map_err(|error| match error {
            // What is here is about to go, and it is no worse than what it was made from.
            Error::Corrupt { offset, reason, .. } => {
                Error::corrupt(&self.inner.dir.log(source.id), offset, reason)
            }
            error => error,
        })?;
        hint.write(self.fs, &self.dir, source)
    }

    /// Removes what was made, as far as that can be done; first what makes it a store.
    fn undo(&self, Moment { manifest, unsealed }: &Moment) {
        let with_temporary = |path: PathBuf| [Dir::temporary(&path), path];
        let sealed = manifest.sealed.iter().map(|sealed| sealed.id);
        let ids = sealed.chain(unsealed.iter().map(|unsealed| unsealed.id));
        let segments = ids
            .flat_map(|id| [self.dir.log(id)].into_iter().chain(with_temporary(self.dir.hint(id))));
        let paths = with_temporary(self.dir.manifest()).into_iter().chain(segments);
        for path in paths.chain([self.dir.lock()]) {
            let _ = self.fs.remove(&path);
        }
        if self.is_new {
            let _ = self.fs.remove_dir(self.dir.path());
        }
    }
}

/// Refuses a directory with anything in it. A lock file does not count: all that is known of who
/// made it is that he got no further.
fn require_empty(fs: &Fs, dir: &Dir) -> Result<()> {
    let is_lock = |name: &str| dir.path().join(name) == dir.lock();
    if fs.list(dir.path())?.iter().all(|entry| is_lock(&entry.name)) {
        return Ok(());
    }
    let reason = "it is not empty; name a directory that is, or one that does not exist yet";
    Err(Error::InvalidTarget { path: dir.path().into(), reason })
}
