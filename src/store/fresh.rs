//! An empty directory that is about to become a store.
//!
//! - Locked as a store for as long as this lives, so that nobody else fills it.
//! - It is no store before its manifest is written, which is the caller's last step; what is left
//!   of one that got no further is refused when it is opened.

use std::path::{Path, PathBuf};

use super::open::lock;
use crate::error::{Error, Result};
use crate::fs::{self, Fs, Lock};
use crate::segment::{Dir, SegmentId};

/// The directory, empty at first.
#[derive(Debug)]
pub(crate) struct Fresh<'a> {
    fs: &'a Fs,
    dir: Dir,
    /// Whether it was not there before.
    is_new: bool,
    _lock: Lock,
}

impl<'a> Fresh<'a> {
    /// Sees to an empty directory, with a name that lasts, and outside of the store that it is made
    /// from. Leaves one that can't be used alone.
    pub(crate) fn prepare(fs: &'a Fs, path: &Path, source: &Dir) -> Result<Self> {
        let dir = Dir::new(fs::absolute(path)?);
        let path = dir.path();
        let is_new = match fs.is_dir(path)? {
            Some(true) => false,
            Some(false) => return Err(Error::NotADirectory { path: path.into() }),
            None => true,
        };
        let real_path = fs.real_path(if is_new { fs::parent(path) } else { path })?;
        if real_path.starts_with(fs.real_path(source.path())?) {
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
        let fresh = match locked {
            Ok(lock) => Self { fs, dir, is_new, _lock: lock },
            Err(error) => {
                if is_new {
                    let _ = fs.remove_dir(path);
                }
                return Err(error);
            }
        };
        // An earlier try may have made it, and got no further.
        let synced = fs.sync_dir(fs::parent(fresh.dir.path()));
        synced.inspect_err(|_| fresh.undo([].into_iter()))?;
        Ok(fresh)
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Removes what was made, segments of these ids, as far as that can be done; first what makes it
    /// a store.
    pub(crate) fn undo(&self, ids: impl Iterator<Item = SegmentId>) {
        let with_temporary = |path: PathBuf| [Dir::temporary(&path), path];
        let segments = ids
            .flat_map(|id| [self.dir.log(id), self.dir.hint(id), self.dir.index(id)])
            .flat_map(with_temporary);
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
