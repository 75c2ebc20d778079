//! An empty directory that is about to become a store.
//!
//! - It is not a store until its manifest is written, which is the caller's last step. Until then,
//!   something else has the manifest's name: durably before anything else is created, and until
//!   everything else is removed. So if a backup stops halfway, even with only a lock file left,
//!   opening the directory returns an error instead of creating an empty store.
//! - It is locked like a store for as long as this value lives, so that nothing else fills it.
//!   Opening a store there at the same time either fails or succeeds first, and then that store
//!   stays as it is.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::{self, Fs, Lock, already_exists};
use crate::manifest::{Claim, Manifest};
use crate::segment::{Dir, SegmentId};
use crate::store::open_attempt::{lock, lock_if_exists};

/// The directory, empty at first.
#[derive(Debug)]
pub(crate) struct NewDir {
    /// With the directory held open.
    fs: Fs,
    dir: Dir,
    /// The directory itself, if it did not exist before.
    dirs: Vec<PathBuf>,
    lock: Option<Lock>,
}

impl NewDir {
    /// Provides an empty directory whose name is durable, outside of the source store, which lies
    /// on `fs`. Leaves an unusable directory alone.
    pub(crate) fn prepare(fs: &Fs, path: &Path, source: &Dir) -> Result<Self> {
        let dir = Dir::new(fs::absolute(path)?);
        let (plain, path) = (fs.without(), dir.path());
        let existing = match plain.is_dir(path)? {
            Some(true) => path,
            Some(false) => return Err(Error::NotADirectory { path: path.into() }),
            None => fs::parent(path),
        };
        if fs.encloses(source.path(), existing)? {
            let reason = "it lies within the store; name a directory outside of it";
            return Err(Error::InvalidTarget { path: path.into(), reason });
        }
        let dirs = plain.create_dirs(path)?;
        let fs = plain.within(path).inspect_err(|_| plain.remove_dirs(&dirs))?;
        let mut fresh = Self { fs, dir, dirs, lock: None };
        if fresh.dirs.is_empty() {
            fresh.require_empty()?;
            // An unlocked lock file is left over from an attempt that stopped early.
            fresh.lock = lock_if_exists(&fresh.fs, &fresh.dir)?;
        }
        fresh.begin()?;
        Ok(fresh)
    }

    /// Claims the manifest's name, then takes the lock.
    fn begin(&mut self) -> Result<()> {
        let claim = Claim::take(&self.fs, &self.dir).map_err(|error| {
            self.remove_dirs();
            if already_exists(&error) { self.not_empty() } else { error }
        })?;
        let result = claim.finish(&self.fs, &self.dir).and_then(|()| {
            if self.lock.is_none() {
                self.lock = Some(lock(&self.fs, &self.dir)?);
            }
            self.require_begun()
        });
        result.inspect_err(|_| self.give_up())
    }

    /// Returns an error if the directory holds anything but a lock file.
    fn require_empty(&self) -> Result<()> {
        let is_lock = |name: &str| self.dir.path().join(name) == self.dir.lock();
        if self.fs.list(self.dir.path())?.iter().all(|entry| is_lock(&entry.name)) {
            return Ok(());
        }
        if !self.is_unfinished() {
            return Err(self.not_empty());
        }
        let reason = "a backup or a salvage into it was interrupted, unless it is still running; \
                      remove the directory and run it again";
        Err(Error::InvalidTarget { path: self.dir.path().into(), reason })
    }

    /// Returns an error if the directory was used before it was locked.
    fn require_begun(&self) -> Result<()> {
        let ours = [self.dir.lock(), self.dir.manifest()];
        let names = self.fs.list(self.dir.path())?;
        let is_ours = names.iter().all(|entry| ours.contains(&self.dir.path().join(&entry.name)));
        match Manifest::read(&self.fs, &self.dir) {
            Err(Error::Unfinished { .. }) if is_ours => Ok(()),
            Ok(_) | Err(Error::Unfinished { .. }) => Err(self.not_empty()),
            Err(error) => Err(error),
        }
    }

    fn is_unfinished(&self) -> bool {
        matches!(Manifest::read(&self.fs, &self.dir), Err(Error::Unfinished { .. }))
    }

    fn not_empty(&self) -> Error {
        let reason = "it is not empty; name an empty directory, or one that does not exist yet";
        Error::InvalidTarget { path: self.dir.path().into(), reason }
    }

    /// Removes what `begin` has created, unless the directory may have become a store meanwhile.
    ///
    /// Opening a store first creates a lock file, and keeps it locked while it looks for a manifest
    /// and writes one. So as long as there is no lock file, no store was opened here. If the lock
    /// is ours, the file that has the manifest's name decides.
    fn give_up(&self) {
        let is_ours = match (&self.lock, Manifest::read(&self.fs, &self.dir)) {
            (Some(_), Ok(None) | Err(Error::Unfinished { .. } | Error::Corrupt { .. })) => true,
            (Some(_), _) => false,
            (None, _) => matches!(self.fs.open_if_exists(&self.dir.lock()), Ok(None)),
        };
        if is_ours && self.lock.is_some() {
            self.undo([].into_iter());
        } else if is_ours {
            let _ = self.fs.remove(&self.dir.manifest());
            self.remove_dirs();
        }
    }

    pub(crate) fn fs(&self) -> &Fs {
        &self.fs
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Removes what was created, including the segments with these ids, as far as possible. Removes
    /// the file that has the manifest's name last, once the removal of the rest is durable.
    pub(crate) fn undo(&self, ids: impl Iterator<Item = SegmentId>) {
        let manifest = self.dir.manifest();
        if !self.is_unfinished() {
            // Without its segments, it would look like a store that has lost them.
            let _ = Claim::restore(&self.fs, &self.dir);
        }
        let segments = ids.flat_map(|id| [self.dir.log(id), self.dir.hint(id), self.dir.index(id)]);
        let segments = segments.flat_map(|path| [Dir::temporary(&path), path]);
        let paths = segments.chain([Dir::temporary(&manifest), self.dir.lock()]);
        let mut is_removed = true;
        for path in paths {
            is_removed &= self.fs.remove(&path).is_ok();
        }
        if is_removed
            && let Ok(fs) = self.fs.unheld()
            && fs.sync_dir(self.dir.path()).is_ok()
        {
            let _ = fs.remove(&manifest);
            self.remove_dirs();
        }
    }

    fn remove_dirs(&self) {
        self.fs.without().remove_dirs(&self.dirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Access;
    use crate::store::open::new_identity;
    use crate::testing::twin::Twin;

    fn fresh(fs: &Fs) -> NewDir {
        fs.create_dir(Path::new("/copy")).unwrap();
        let dirs = vec!["/copy".into()];
        NewDir { fs: fs.clone(), dir: Dir::new("/copy".into()), dirs, lock: None }
    }

    fn names(fs: &Fs) -> Vec<String> {
        let entries = fs.list(Path::new("/copy")).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// A store is opened between the two steps of `begin`: the open has found no manifest, and
    /// writes one.
    #[test]
    fn a_store_created_meanwhile_stays() {
        for is_open in [true, false] {
            let fs = Fs::Twin(Twin::new());
            let mut fresh = fresh(&fs);
            let claim = Claim::take(&fs, &fresh.dir).unwrap();
            claim.finish(&fs, &fresh.dir).unwrap();
            let opened = lock(&fs, &fresh.dir).unwrap();
            let manifest = Manifest::new(new_identity());
            manifest.write(&fs, &fresh.dir).unwrap();
            if is_open {
                assert!(lock(&fs, &fresh.dir).unwrap_err().is_locked());
            } else {
                drop(opened);
                fresh.lock = Some(lock(&fs, &fresh.dir).unwrap());
                assert!(fresh.require_begun().unwrap_err().is_invalid_input());
            }
            fresh.give_up();
            assert_eq!(Manifest::read(&fs, &fresh.dir).unwrap().unwrap(), manifest);
        }
    }

    #[test]
    fn an_abandoned_directory_is_removed_unless_a_store_may_be_opening_there() {
        let fs = Fs::Twin(Twin::new());
        let mut fresh = fresh(&fs);
        fresh.begin().unwrap();
        assert_eq!(names(&fs), ["LOCK", "MANIFEST"]);
        fresh.give_up();
        assert_eq!(fs.is_dir(Path::new("/copy")).unwrap(), None);
        // Half done, without a lock file.
        fs.create_dir(Path::new("/copy")).unwrap();
        fresh.lock = None;
        Claim::take(&fs, &fresh.dir).unwrap();
        fresh.give_up();
        assert_eq!(fs.is_dir(Path::new("/copy")).unwrap(), None);
        // A lock file of another process: an open that found no manifest may be about to write one.
        fs.create_dir(Path::new("/copy")).unwrap();
        Claim::take(&fs, &fresh.dir).unwrap();
        fs.open(&fresh.dir.lock(), Access::Create).unwrap();
        fresh.give_up();
        assert_eq!(names(&fs), ["LOCK", "MANIFEST"]);
    }

    #[test]
    fn a_second_copy_into_the_same_directory_is_rejected_and_leaves_the_first_alone() {
        let fs = Fs::Twin(Twin::new());
        let mut first = fresh(&fs);
        let claim = Claim::take(&fs, &first.dir).unwrap();
        claim.finish(&fs, &first.dir).unwrap();
        let mut second = fresh(&fs);
        assert!(second.begin().unwrap_err().is_invalid_input());
        assert_eq!(names(&fs), ["MANIFEST"]);
        first.lock = Some(lock(&fs, &first.dir).unwrap());
        first.require_begun().unwrap();
        // A foreign file.
        fs.open(Path::new("/copy/foreign"), Access::Create).unwrap();
        assert!(first.require_begun().unwrap_err().is_invalid_input());
        first.give_up();
        assert_eq!(names(&fs), ["foreign"]);
    }
}
