//! The only door to the disk.
//!
//! - Every call names its action and its path when it fails; no other file builds `Error::Io`, and
//!   a full disk is told apart from every other failure here alone.
//! - Knows files and directories, never a key, an entry or a segment.
//! - Tests put a [`twin`] behind the same door: an in-memory disk that records every operation and
//!   fails any of them.

#![expect(clippy::disallowed_methods, reason = "this is the door that they are disallowed for")]

mod sys;
#[cfg(test)]
pub(crate) mod twin;

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A disk with less room than this, in bytes, is taken to be full.
const LEFT_MIN: u64 = 1 << 20;

/// A disk: the machine's, or a test's.
#[derive(Debug, Clone)]
pub(crate) enum Fs {
    Disk,
    #[cfg(test)]
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
    /// It is created unless it exists; what is in it stays.
    Keep,
}

const SYNC: &str = "sync";
const SYNC_DIRECTORY: &str = "sync directory";

/// Returns whether it was a sync that failed, after which nothing is known of what is on disk.
pub(crate) fn is_failed_sync(error: &Error) -> bool {
    matches!(error, Error::Io { action, .. } if [SYNC, SYNC_DIRECTORY].contains(action))
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
        let create = matches!(access, Access::Create | Access::Keep);
        let action = if create { "create" } else { "open" };
        let result = match self {
            Self::Disk => {
                let mut options = OpenOptions::new();
                options.read(true).write(access != Access::Read);
                options.create(create).truncate(access == Access::Create);
                options.open(path).map(|file| Handle::Disk(Arc::new(file)))
            }
            #[cfg(test)]
            Self::Twin(twin) => twin.open(path, access).map(Handle::Twin),
        };
        let handle = told(action, path, result)?;
        Ok(File { path: path.into(), handle })
    }

    /// Opens a file for reading, or says that there is none.
    pub(crate) fn open_if_exists(&self, path: &Path) -> Result<Option<File>> {
        match self.open(path, Access::Read) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the path is a directory; nothing if there is nothing.
    pub(crate) fn is_dir(&self, path: &Path) -> Result<Option<bool>> {
        let result = match self {
            Self::Disk => std::fs::metadata(path).map(|metadata| metadata.is_dir()),
            #[cfg(test)]
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
            #[cfg(test)]
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
            #[cfg(test)]
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
            #[cfg(test)]
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
            #[cfg(test)]
            Self::Twin(twin) => twin.rename(from, to),
        };
        told("rename", from, result)
    }

    /// Removes a file. One that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        let result = match self {
            Self::Disk => std::fs::remove_file(path),
            #[cfg(test)]
            Self::Twin(twin) => twin.remove(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => told("remove", path, other),
        }
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
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename_and_sync(temporary, path)
    }
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// An open file. Clones share one handle, which is closed with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: Arc<Path>,
    handle: Handle,
}

/// A file that is locked for as long as this lives.
///
/// Closing the handle would not do: a process that another thread is just starting has a copy of
/// it, and with it the lock, until it runs its own program.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// The process that took it. A fork of it has a copy, and must not unlock the store for it.
    pid: u32,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if std::process::id() == self.pid {
            self.file.unlock();
        }
    }
}

#[derive(Debug, Clone)]
enum Handle {
    Disk(Arc<std::fs::File>),
    #[cfg(test)]
    Twin(twin::TwinFile),
}

/// What a mapping is made of.
pub(crate) enum Backing<'a> {
    Disk(&'a std::fs::File),
    #[cfg(test)]
    Twin(&'a twin::TwinFile),
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same open file under the name that it has been given since, for what is told of it.
    pub(crate) fn renamed(self, path: &Path) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Locks the file, if nobody else has it locked, until the lock is dropped.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let result = match &self.handle {
            Handle::Disk(file) => fs2::FileExt::try_lock_exclusive(&**file),
            #[cfg(test)]
            Handle::Twin(file) => file.try_lock(),
        };
        match result {
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(None),
            other => self.told(
                "lock",
                other.map(|()| Some(Lock { file: self.clone(), pid: std::process::id() })),
            ),
        }
    }

    fn unlock(&self) {
        match &self.handle {
            // Should it fail, the lock goes with the last handle.
            Handle::Disk(file) => drop(fs2::FileExt::unlock(&**file)),
            #[cfg(test)]
            Handle::Twin(_) => {}
        }
    }

    fn told<T>(&self, action: &'static str, result: io::Result<T>) -> Result<T> {
        told(action, &self.path, result)
    }

    pub(crate) fn backing(&self) -> Backing<'_> {
        match &self.handle {
            Handle::Disk(file) => Backing::Disk(file),
            #[cfg(test)]
            Handle::Twin(file) => Backing::Twin(file),
        }
    }

    /// Returns the file's size in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        let result = match &self.handle {
            Handle::Disk(file) => file.metadata().map(|metadata| metadata.len()),
            #[cfg(test)]
            Handle::Twin(file) => file.size(),
        };
        self.told("look at", result)
    }

    /// Fills the buffer from an offset, as far as the file goes; returns how far that was.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(filled as u64);
            let result = match &self.handle {
                Handle::Disk(file) => file.read_at(rest, at),
                #[cfg(test)]
                Handle::Twin(file) => file.read_at(rest, at),
            };
            match result {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.told("read", Err(error)),
            }
        }
        Ok(filled)
    }

    /// Writes all the bytes at an offset. After a failure any part of them may have been written.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let result = match &self.handle {
            Handle::Disk(file) => file.write_all_at(bytes, offset),
            #[cfg(test)]
            Handle::Twin(file) => file.write_all_at(bytes, offset),
        };
        self.told("write", result)
    }

    /// Makes the content and the size durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let result = match &self.handle {
            Handle::Disk(file) => file.sync_data(),
            #[cfg(test)]
            Handle::Twin(file) => file.sync(),
        };
        self.told(SYNC, result)
    }

    /// Cuts the file, or lengthens it with zeros for which no room is set aside.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        let result = match &self.handle {
            Handle::Disk(file) => file.set_len(size),
            #[cfg(test)]
            Handle::Twin(file) => file.set_size(size),
        };
        self.told("set the size of", result)
    }

    /// Lengthens the file with zeros and sets room aside for them, so that writing there can't
    /// run out of it. After a failure the size is what it was.
    pub(crate) fn allocate(&self, size: u64) -> Result<()> {
        let before = self.size()?;
        let result = match &self.handle {
            Handle::Disk(file) => match sys::allocate(file, size) {
                // Some file systems and C libraries can't: growing without a promise has to do.
                Err(error) if error.kind() == ErrorKind::Unsupported => file.set_len(size),
                result => result,
            },
            #[cfg(test)]
            Handle::Twin(file) => file.allocate(size),
        };
        self.told("grow", result).inspect_err(|_| {
            // A part may have been set aside. Should it not go now, it goes when the file is cut.
            let _ = self.set_size(before);
        })
    }

    /// Tells why pages of a mapping could not be populated: a bad address stands for a page that
    /// the file system has no room for, or could not read.
    pub(crate) fn unpopulated<T>(&self, error: io::Error) -> Result<T> {
        let full = || fs2::available_space(parent(&self.path)).is_ok_and(|left| left < LEFT_MIN);
        if error.raw_os_error() == Some(libc::EFAULT) && full() {
            return Err(Error::NoSpace { path: self.path.to_path_buf() });
        }
        self.told("populate", Err(error))
    }

    /// Drops the file from the kernel's cache, so that what is read next comes from the disk: an
    /// earlier sync that failed may have left pages there which are not on it.
    pub(crate) fn drop_cache(&self) {
        match &self.handle {
            Handle::Disk(file) => sys::drop_cache(file),
            #[cfg(test)]
            Handle::Twin(_) => {}
        }
    }
}

/// A path made absolute, so that a later change of the working directory moves nothing.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    told("find", path, std::path::absolute(path))
}
