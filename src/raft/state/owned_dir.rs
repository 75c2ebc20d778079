//! A directory that is removed when its last user is gone, once it is not needed any more.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::fs::Fs;

/// A directory in that of a state machine.
#[derive(Debug)]
pub(super) struct OwnedDir {
    fs: Fs,
    path: PathBuf,
    is_superseded: AtomicBool,
    /// Whether files may be written here, as long as a snapshot is being received.
    is_receiving: AtomicBool,
}

impl OwnedDir {
    /// A directory that stays.
    pub(super) fn new(fs: &Fs, path: PathBuf) -> Self {
        let [is_superseded, is_receiving] = [AtomicBool::new(false), AtomicBool::new(false)];
        Self { fs: fs.clone(), path, is_superseded, is_receiving }
    }

    /// A directory for a snapshot that is about to be received. It goes with its last user.
    pub(super) fn receiving(fs: &Fs, path: PathBuf) -> Self {
        let dir = Self::new(fs, path);
        dir.supersede();
        dir.is_receiving.store(true, Ordering::Release);
        dir
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.is_receiving.load(Ordering::Acquire)
    }

    /// Ends the time in which files may be written. They are about to be shared.
    pub(super) fn seal(&self) {
        self.is_receiving.store(false, Ordering::Release);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fs(&self) -> &Fs {
        &self.fs
    }

    /// Has the directory removed when its last user is gone.
    pub(super) fn supersede(&self) {
        self.is_superseded.store(true, Ordering::Relaxed);
    }

    /// Lets the directory stay.
    pub(super) fn keep(&self) {
        self.is_superseded.store(false, Ordering::Relaxed);
    }
}

impl Drop for OwnedDir {
    fn drop(&mut self) {
        if self.is_superseded.load(Ordering::Relaxed) {
            // What cannot be removed now is removed when the state is opened again.
            let _ = remove_tree(&self.fs, &self.path);
        }
    }
}

/// Removes a directory with everything in it. Succeeds if it does not exist.
pub(super) fn remove_tree(fs: &Fs, dir: &Path) -> Result<()> {
    if fs.is_dir(dir)? != Some(true) {
        return Ok(());
    }
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_file { fs.remove(&path)? } else { remove_tree(fs, &path)? }
    }
    fs.remove_dir(dir)
}
