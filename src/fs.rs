//! The only door to the disk.
//!
//! - Every call names its action and its path when it fails; no other file builds `Error::Io`, and
//!   a full disk is told apart from every other failure here alone.
//! - Knows files and directories, never a key, an entry or a segment.
//! - Tests put a [`twin`] behind the same door: an in-memory disk that records every operation and
//!   fails any of them.

#![expect(clippy::disallowed_methods, reason = "this is the door that they are disallowed for")]

mod file;
mod left;
mod sys;
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) mod twin;

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use file::{Disk, Handle};

pub(crate) use file::{Backing, File, Lock};

/// A disk: the machine's, or a test's.
#[derive(Debug, Clone)]
pub(crate) enum Fs {
    Disk,
    #[cfg(any(test, bitcask_fuzzing))]
    Twin(Arc<twin::Twin>),
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: String,
    pub(crate) is_file: bool,
}

/// How a file is opened. Every file can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It exists, and is only read.
    Read,
    /// It exists, and is written.
    Write,
    /// It is created, or emptied if it exists.
    Create,
    /// It is created, and must not exist: then this is an `Io` of kind `AlreadyExists`.
    CreateNew,
    /// It is created unless it exists; what is in it stays.
    Keep,
}

const READ: &str = "read";
const SYNC: &str = "sync";
const SYNC_DIRECTORY: &str = "sync directory";

/// Returns whether it was a sync that failed, after which nothing is known of what is on disk.
pub(crate) fn is_failed_sync(error: &Error) -> bool {
    matches!(error, Error::Io { action, .. } if [SYNC, SYNC_DIRECTORY].contains(action))
}

/// Returns whether it was a read that failed: the disk has not given back what it was given.
pub(crate) fn is_failed_read(error: &Error) -> bool {
    matches!(error, Error::Io { action: READ, .. })
}

/// Returns whether there was no such file.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Returns whether there was such a file already.
pub(crate) fn is_there_already(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
}

/// Returns whether a file can't be so large.
pub(crate) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge)
}

/// Puts the action and the path to what the operating system said.
///
/// A sync that finds the disk full has lost pages that were thought written, so it is not a full
/// disk that can be waited out.
pub(crate) fn told<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            if action != SYNC && action != SYNC_DIRECTORY =>
        {
            Error::NoSpace { path: path.to_path_buf() }
        }
        _ => Error::Io { action, path: path.to_path_buf(), source },
    })
}

impl Fs {
    /// Opens a file. One that is not there is an `Io` of kind `NotFound`.
    pub(crate) fn open(&self, path: &Path, access: Access) -> Result<File> {
        let create = !matches!(access, Access::Read | Access::Write);
        let action = if create { "create" } else { "open" };
        let result = match self {
            Self::Disk => {
                let mut options = OpenOptions::new();
                options.read(true).write(access != Access::Read);
                options.create(create).truncate(access == Access::Create);
                options.create_new(access == Access::CreateNew);
                options.open(path).map(|file| Handle::Disk(Arc::new(Disk::new(file))))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.open(path, access).map(Handle::Twin),
        };
        let handle = told(action, path, result)?;
        Ok(File::new(path, handle))
    }

    /// Opens a file for reading, or says that there is none.
    pub(crate) fn open_if_exists(&self, path: &Path) -> Result<Option<File>> {
        match self.open(path, Access::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the path is a directory; nothing if there is nothing.
    pub(crate) fn is_dir(&self, path: &Path) -> Result<Option<bool>> {
        let result = match self {
            Self::Disk => std::fs::metadata(path).map(|metadata| metadata.is_dir()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.is_dir(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => told("look at", path, other.map(Some)),
        }
    }

    /// Creates one directory; it may exist already.
    pub(crate) fn create_dir(&self, path: &Path) -> Result<()> {
        let result = match self {
            Self::Disk => std::fs::create_dir(path),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.create_dir(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => told("create directory", path, other),
        }
    }

    /// Lists a directory, in order of names. A name that is no UTF-8 is not one of ours.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let list = || -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in std::fs::read_dir(dir)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().into_string() {
                    // A link to a file is as good as the file.
                    entries.push(DirEntry { name, is_file: !entry.file_type()?.is_dir() });
                }
            }
            Ok(entries)
        };
        let result = match self {
            Self::Disk => list(),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.list(dir),
        };
        let mut entries = told("list", dir, result)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Makes the names in a directory durable: what was created, renamed and removed there.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.then_sync_dir(dir, || Ok(()))
    }

    /// Renames a file within its directory, and makes that durable.
    pub(crate) fn rename_and_sync(&self, from: &Path, to: &Path) -> Result<()> {
        self.then_sync_dir(parent(to), || self.rename(from, to))
    }

    /// Syncs a directory after a change in it. It is opened before, so that a shortage of file
    /// descriptors is neither a change of which nobody knows whether it lasts nor a failed sync.
    fn then_sync_dir(&self, dir: &Path, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let result = match self {
            Self::Disk => {
                let handle = told("open directory", dir, std::fs::File::open(dir))?;
                change()?;
                handle.sync_all()
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => {
                change()?;
                twin.sync_dir(dir)
            }
        };
        told(SYNC_DIRECTORY, dir, result)
    }

    /// Renames a file, in place of whatever has the new name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let result = match self {
            Self::Disk => std::fs::rename(from, to),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.rename(from, to),
        };
        told("rename", from, result)
    }

    /// Has two files exchange their names as one step, or the first take the name of the second where
    /// that can't be had or there is no second; says which. Then makes that durable, if it is to be.
    pub(crate) fn exchange_and_sync(
        &self,
        from: &Path,
        to: &Path,
        is_durable: bool,
    ) -> Result<bool> {
        let mut is_exchanged = false;
        let mut change = || {
            is_exchanged = self.exchange(from, to)?;
            if is_exchanged { Ok(()) } else { self.rename(from, to) }
        };
        if is_durable {
            self.then_sync_dir(parent(to), change)?;
        } else {
            change()?;
        }
        Ok(is_exchanged)
    }

    /// Has two files exchange their names; says no where the kernel or the file system can't, or one is
    /// not there.
    fn exchange(&self, a: &Path, b: &Path) -> Result<bool> {
        let result = match self {
            Self::Disk => sys::exchange(a, b),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.exchange(a, b),
        };
        match result.as_ref().map_err(io::Error::kind) {
            Err(
                ErrorKind::NotFound
                | ErrorKind::InvalidInput
                | ErrorKind::PermissionDenied
                | ErrorKind::Unsupported,
            ) => Ok(false),
            _ => told("exchange", a, result.map(|()| true)),
        }
    }

    /// Returns whether a name leads to a file that no other name leads to, or to nothing at all.
    pub(crate) fn is_sole_file(&self, path: &Path) -> Result<bool> {
        let result = match self {
            Self::Disk => std::fs::symlink_metadata(path)
                .map(|metadata| metadata.is_file() && metadata.nlink() == 1),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.is_sole_file(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            other => told("look at", path, other),
        }
    }

    /// Gives a file a second name; says no where that can't be had: on another file system, or one
    /// without links, or with no more of them for this file, or for a file of somebody else's.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> Result<bool> {
        let result = match self {
            Self::Disk => link(from, to),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.link(from, to).map(|()| true),
        };
        match result.as_ref().map_err(io::Error::kind) {
            Err(
                ErrorKind::CrossesDevices
                | ErrorKind::TooManyLinks
                | ErrorKind::PermissionDenied
                | ErrorKind::Unsupported,
            ) => Ok(false),
            _ => told("link", to, result),
        }
    }

    /// Removes a file. One that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        let result = match self {
            Self::Disk => std::fs::remove_file(path),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.remove(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => told("remove", path, other),
        }
    }

    /// Removes a directory that is empty.
    pub(crate) fn remove_dir(&self, path: &Path) -> Result<()> {
        let result = match self {
            Self::Disk => std::fs::remove_dir(path),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.remove_dir(path),
        };
        told("remove directory", path, result)
    }

    /// Returns the one path of a directory that has no links in it.
    pub(crate) fn real_path(&self, dir: &Path) -> Result<PathBuf> {
        let result = match self {
            Self::Disk => std::fs::canonicalize(dir),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.is_dir(dir).map(|_| dir.to_path_buf()),
        };
        told("find", dir, result)
    }

    /// Reads a whole file that is at most `size_limit` bytes long, if it exists.
    pub(crate) fn read_if_exists(&self, path: &Path, size_limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_if_exists(path)? else { return Ok(None) };
        let size = file.size()?;
        if size > size_limit {
            let reason = format!("the file has {size} bytes, at most {size_limit} make sense");
            return Err(Error::corrupt(path, 0, reason));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let read_size = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read_size);
        Ok(Some(bytes))
    }

    /// Replaces a file as one step: after a crash there is the old content or the new.
    ///
    /// Writes `temporary`, syncs it, renames it, and syncs the directory they are both in.
    pub(crate) fn replace(&self, path: &Path, temporary: &Path, bytes: &[u8]) -> Result<()> {
        let file = self.open(temporary, Access::Create)?;
        file.write_within_limit(bytes, 0)?;
        if !made(Mistake::ManifestNotSynced) {
            file.sync()?;
        }
        if made(Mistake::RenameNotSynced) {
            return self.rename(temporary, path);
        }
        self.rename_and_sync(temporary, path)
    }
}

fn link(from: &Path, to: &Path) -> io::Result<bool> {
    // Of a symbolic link this would be another one: the same file, and not a copy of its name.
    if std::fs::symlink_metadata(from)?.is_symlink() {
        return Ok(false);
    }
    std::fs::hard_link(from, to).map(|()| true)
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A path made absolute, so that a later change of the working directory moves nothing.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    told("find", path, std::path::absolute(path))
}
