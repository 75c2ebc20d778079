//! What opening a store for writing creates before the store exists: directories, a lock file, a
//! manifest.
//!
//! - If opening fails, it removes whatever it has created itself. It removes the lock file last of
//!   the files, while it holds the lock, so a missing lock file means that no process is opening a
//!   store.
//! - A lock counts only if the file name still leads to the locked file: another process may have
//!   removed the file between opening and locking.

use std::path::PathBuf;

use super::{Env, open};
use crate::error::{Error, Result};
use crate::fs::{self, Access, File, Fs, Lock};
use crate::manifest::Manifest;
use crate::segment::{Dir, sidecar};

/// Maximum number of attempts to open and lock the lock file, if it is removed before it is locked.
const LOCK_ATTEMPTS: usize = 100;

/// Maximum number of digits of a process id.
const PID_WIDTH: usize = 10;

/// A store that is being opened.
#[derive(Debug)]
pub(super) struct OpenAttempt {
    /// With the store's directory held open.
    pub(super) env: Env,
    pub(super) dir: Dir,
    /// Directories created by this attempt.
    dirs: Vec<PathBuf>,
    pub(super) lock: Option<Lock>,
    /// Whether this attempt created the lock file.
    has_new_lock: bool,
    /// Whether there was no store before.
    is_new: bool,
}

impl OpenAttempt {
    /// Provides the directory.
    pub(super) fn new(env: &Env, dir: Dir) -> Result<Self> {
        let dirs = env.fs.create_dirs(dir.path())?;
        let env = env.within(&dir).inspect_err(|_| env.fs.remove_dirs(&dirs))?;
        Ok(Self { env, dir, dirs, lock: None, has_new_lock: false, is_new: false })
    }

    /// Takes the store's lock. Returns the locked file.
    pub(super) fn lock(&mut self) -> Result<File> {
        let (fs, dir) = (&self.env.fs, &self.dir);
        let is_new = !fs.exists(&dir.lock());
        let mut has_opened = false;
        let locked = lock_noting(fs, dir, &mut has_opened);
        // A lock file of another process stays; that process may have been quicker. A lock file
        // that cannot be locked at all belongs to no process.
        let is_others = !has_opened || locked.as_ref().is_err_and(Error::is_locked);
        self.has_new_lock = is_new && !is_others;
        let lock = self.lock.insert(locked?);
        Ok(lock.file().clone())
    }

    /// Creates a store in a directory that has none.
    pub(super) fn create(&mut self) -> Result<Manifest> {
        let (fs, dir) = (&self.env.fs, &self.dir);
        open::refuse_lost_manifest(fs, dir)?;
        // The directory may have been created just now, or by an earlier attempt that stopped
        // early.
        fs.sync_dir(fs::parent(dir.path()))?;
        self.is_new = true;
        let manifest = Manifest::new(open::new_identity());
        manifest.write(fs, dir)?;
        Ok(manifest)
    }

    /// Removes what this attempt has created. If another process holds the lock by now, it keeps
    /// it.
    pub(super) fn take_back(&mut self) {
        let (fs, dir) = (&self.env.fs, &self.dir);
        if self.is_new {
            let _ = fs.remove(&Dir::temporary(&dir.manifest()));
            let _ = fs.remove(&dir.spare());
            let _ = fs.remove(&dir.manifest());
        }
        if self.has_new_lock {
            let _ = fs.remove(&dir.lock());
        }
        self.lock = None;
        fs.without().remove_dirs(&self.dirs);
    }
}

/// Takes the store's lock, and writes this process's id into it for the error that other processes
/// report.
pub(super) fn lock(fs: &Fs, dir: &Dir) -> Result<Lock> {
    lock_noting(fs, dir, &mut false)
}

/// Like `lock`. Records whether the file could be opened.
fn lock_noting(fs: &Fs, dir: &Dir, has_opened: &mut bool) -> Result<Lock> {
    for _ in 0..LOCK_ATTEMPTS {
        let file = sidecar::making_room(fs, dir, || fs.open(&dir.lock(), Access::Keep))?;
        *has_opened = true;
        if let Some(lock) = lock_file(fs, dir, &file)? {
            return Ok(lock);
        }
    }
    Err(Error::Locked { path: dir.path().into(), pid: None, ended: false })
}

/// Takes the store's lock if the lock file exists.
pub(super) fn lock_if_exists(fs: &Fs, dir: &Dir) -> Result<Option<Lock>> {
    match fs.open(&dir.lock(), Access::Write) {
        Err(error) if fs::is_not_found(&error) => Ok(None),
        file => lock_file(fs, dir, &file?),
    }
}

/// Locks a file and makes it guard the directory. Returns `None` if it is no longer the lock file.
fn lock_file(fs: &Fs, dir: &Dir, file: &File) -> Result<Option<Lock>> {
    let Some(lock) = file.try_lock()? else {
        let mut text = [0; 16];
        let read_size = file.read_at(&mut text, 0).unwrap_or(0);
        let text = std::str::from_utf8(text.get(..read_size).unwrap_or_default());
        let pid = text.ok().and_then(|text| text.trim_matches([' ', '\n', '\0']).parse().ok());
        let ended = pid.is_some_and(fs::has_ended);
        return Err(Error::Locked { path: dir.path().into(), pid, ended });
    };
    if !fs.leads_to(&dir.lock(), file)? {
        return Ok(None);
    }
    // Only for the error message, so a full disk does not prevent opening. The width is fixed, so
    // the file need not be cut, and the space reserved after its end stays.
    let text = format!("{:>PID_WIDTH$}\n", std::process::id());
    let _ = file.write_at(text.as_bytes(), 0);
    if file.size().is_ok_and(|size| size > text.len() as u64) {
        let _ = file.set_size(text.len() as u64);
    }
    fs.hold(&lock)?;
    Ok(Some(lock))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::twin::Twin;

    #[test]
    fn a_lock_on_an_unlinked_file_does_not_count() {
        let machine = tempfile::tempdir().unwrap();
        let twin = Fs::Twin(Twin::new());
        twin.create_dir(Path::new("/store")).unwrap();
        let within = Fs::DISK.within(machine.path()).unwrap();
        for (fs, path) in [(twin, Path::new("/store")), (within, machine.path())] {
            let dir = Dir::new(path.into());
            let removed = fs.open(&dir.lock(), Access::Keep).unwrap();
            fs.remove(&dir.lock()).unwrap();
            assert!(lock_file(&fs, &dir, &removed).unwrap().is_none());
            // The failed call leaves no lock behind, and the next one does not either.
            drop(fs.open(&dir.lock(), Access::Keep).unwrap());
            assert!(lock_file(&fs, &dir, &removed).unwrap().is_none());
            let lock = lock(&fs, &dir).unwrap();
            assert!(super::lock(&fs, &dir).unwrap_err().is_locked());
            drop(lock);
        }
    }
}
