//! The only module that touches the disk.
//!
//! - Every failing call names its action and its path. No other module builds `Error::Io` or
//!   distinguishes a full disk from other failures. This one never sees a key, an entry or a
//!   segment.
//! - Tests substitute a [`twin`]: an in-memory disk that records every operation and can fail any
//!   of them.

#![expect(clippy::disallowed_methods, reason = "only this module may call them")]

mod at;
mod file;
mod left;
mod limits;
mod names;
mod path;
mod root;
mod sys;

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
#[cfg(any(test, bitcask_fuzzing))]
use crate::testing::twin;
use at::Name;
use file::{Disk, Handle};
use root::Root;

pub(crate) use file::{Backing, File, Lock, open_files};
pub(crate) use limits::{disk_faults, files_limit, mappings_limit};
pub(crate) use path::{absolute, parent};
pub(crate) use sys::has_ended;

/// A disk: the machine's, or a test's.
#[derive(Debug, Clone)]
pub(crate) enum Fs {
    Disk(Modes),
    /// The machine's, with one directory held open, in which paths below it are looked up.
    Within(Arc<Root>),
    #[cfg(any(test, bitcask_fuzzing))]
    Twin(Arc<twin::Twin>),
}

/// The permissions of new files and directories, before the process's umask applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Modes {
    dir: libc::mode_t,
    file: libc::c_uint,
}

impl Modes {
    /// All permissions that the process's umask leaves.
    pub(crate) const OPEN: Self = Self { dir: 0o777, file: 0o666 };

    pub(crate) fn new(dir: u16, file: u16) -> Self {
        Self { dir: dir.into(), file: file.into() }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: String,
    pub(crate) is_file: bool,
}

/// How to open a file. Every file can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It must exist, and is only read.
    Read,
    /// It must exist, and is written.
    Write,
    /// It is created. An existing file loses its name.
    Create,
    /// It is created and must not exist: otherwise the error is an `Io` of kind `AlreadyExists`.
    CreateNew,
    /// It is created unless it exists. Existing content is kept.
    Keep,
}

const READ: &str = "read";
const SYNC: &str = "sync";
const SYNC_DIRECTORY: &str = "sync directory";

/// Returns whether a sync failed. After that, the content of the disk is unknown.
pub(crate) fn is_failed_sync(error: &Error) -> bool {
    matches!(error, Error::Io { action, .. } if [SYNC, SYNC_DIRECTORY].contains(action))
}

/// Returns whether no write may follow: a sync has failed, or the directory is no longer the
/// store's.
pub(crate) fn ends_writing(error: &Error) -> bool {
    is_failed_sync(error) || error.is_directory_replaced()
}

/// Returns whether a read failed: the disk did not return what was written to it.
pub(crate) fn is_failed_read(error: &Error) -> bool {
    matches!(error, Error::Io { action: READ, .. })
}

/// Returns whether the file does not exist.
pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Returns whether the process or the system has reached its limit on open files.
pub(crate) fn is_out_of_files(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Returns whether the file already exists.
pub(crate) fn already_exists(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists)
}

/// Returns whether the file would exceed the maximum file size.
pub(crate) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge)
}

/// Adds the action and the path to an error of the operating system.
///
/// A sync that finds the disk full has lost pages that were believed written. It is therefore not
/// reported as a full disk, which a caller could wait out.
pub(crate) fn io_context<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            if action != SYNC && action != SYNC_DIRECTORY =>
        {
            Error::NoSpace { path: path.to_path_buf() }
        }
        _ if action == SYNC_DIRECTORY => {
            Error::Io { action, path: path.to_path_buf(), source: unsyncable(source) }
        }
        _ => Error::Io { action, path: path.to_path_buf(), source },
    })
}

/// Explains the "invalid argument" errors of network file systems that can't sync a directory.
fn unsyncable(error: io::Error) -> io::Error {
    let unsupported = [libc::EINVAL, libc::ENOSYS, libc::ENOTSUP, libc::EOPNOTSUPP];
    if !error.raw_os_error().is_some_and(|code| unsupported.contains(&code)) {
        return error;
    }
    let why = format!(
        "this file system can't sync a directory ({error}), so a newly created or renamed file \
         may be lost in a power failure; use a file system that can, such as a local one or NFS"
    );
    io::Error::new(error.kind(), why)
}

/// Reads a whole file that is at most `size_limit` bytes long.
pub(crate) fn read_whole(file: &File, size_limit: u64) -> Result<Vec<u8>> {
    let size = file.size()?;
    if size > size_limit {
        let reason = format!("the file has {size} bytes, the limit is {size_limit}");
        return Err(Error::corrupt(file.path(), 0, reason));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let read_size = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read_size);
    Ok(bytes)
}

impl Fs {
    /// The machine's disk.
    pub(crate) const DISK: Self = Self::Disk(Modes::OPEN);

    /// Returns the same disk with other permissions for new files. A test's disk has none.
    pub(crate) fn with_modes(&self, modes: Modes) -> Self {
        if let Self::Disk(_) = self { Self::Disk(modes) } else { self.clone() }
    }

    fn modes(&self) -> Modes {
        match self {
            Self::Disk(modes) => *modes,
            Self::Within(root) => root.modes(),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => Modes::OPEN,
        }
    }

    /// Opens a directory. In the returned disk, paths below the directory are always looked up in
    /// it.
    pub(crate) fn within(&self, dir: &Path) -> Result<Self> {
        match self {
            Self::Disk(_) | Self::Within(_) => {
                let root = io_context("open directory", dir, Root::open(dir, self.modes()))?;
                Ok(Self::Within(Arc::new(root)))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => Ok(self.clone()),
        }
    }

    /// Returns the disk without a directory held open.
    pub(crate) fn without(&self) -> Self {
        match self {
            Self::Disk(_) | Self::Within(_) => Self::Disk(self.modes()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => self.clone(),
        }
    }

    fn root(&self) -> Option<&Root> {
        if let Self::Within(root) = self { Some(root) } else { None }
    }

    fn name(&self, path: &Path) -> io::Result<Name<'_>> {
        self.root().map_or_else(|| Name::new(None, path), |root| root.name(path))
    }

    /// Forbids changes in the open directory once the name of the locked file leads to another
    /// file.
    pub(crate) fn hold(&self, lock: &Lock) -> Result<()> {
        let held = self.root().map_or(Ok(()), |root| root.hold(lock.file()));
        io_context("inspect", lock.file().path(), held)
    }

    /// Releases the file that is locked in the directory, in a process that was forked from the
    /// lock's owner.
    pub(crate) fn release(&self, lock_file: &File) {
        if let Some(root) = self.root() {
            lock_file.release(root.dir());
        }
    }

    /// Returns the same directory without a locked file, so that the file can be removed.
    pub(crate) fn unheld(&self) -> Result<Self> {
        match self.root() {
            Some(root) => {
                let root = io_context("open directory", root.path(), root.unheld())?;
                Ok(Self::Within(Arc::new(root)))
            }
            None => Ok(self.clone()),
        }
    }

    /// Returns an error if the path no longer leads to the open directory, or if the locked file in
    /// it has been replaced. Costs two system calls.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(root) = self.root() else { return Ok(()) };
        root.replaced().map_or(Ok(()), |reason| {
            Err(Error::DirectoryReplaced { path: root.path().to_path_buf(), reason })
        })
    }

    /// Returns whether anything has this name, including a dangling symbolic link.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(path).and_then(|it| it.stat_link()).is_ok()
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.exists(path),
        }
    }

    /// Returns whether a path leads to an open file.
    pub(crate) fn leads_to(&self, path: &Path, file: &File) -> Result<bool> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => match self.name(path).and_then(|name| name.stat()) {
                Ok(found) => file.stat().map(|stat| stat.is_some_and(|stat| stat.id == found.id)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => Ok(file.twin().is_some_and(|file| twin.leads_to(path, file))),
        };
        io_context("inspect", path, result)
    }

    /// Opens a file. If it does not exist, the error is an `Io` of kind `NotFound`.
    pub(crate) fn open(&self, path: &Path, access: Access) -> Result<File> {
        let create = !matches!(access, Access::Read | Access::Write);
        if create {
            self.check()?;
        }
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self
                .name(path)
                .and_then(|name| open(&name, access, self.modes().file))
                .map(|file| Handle::Disk(Arc::new(Disk::new(file)))),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.open(path, access).map(Handle::Twin),
        };
        let handle = io_context(if create { "create" } else { "open" }, path, result)?;
        Ok(File::new(path, handle))
    }

    /// Opens a file for reading. Returns `None` if it does not exist.
    pub(crate) fn open_if_exists(&self, path: &Path) -> Result<Option<File>> {
        match self.open(path, Access::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the path is a directory, or `None` if nothing exists there.
    pub(crate) fn is_dir(&self, path: &Path) -> Result<Option<bool>> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                let found = self.name(path).and_then(|name| name.stat());
                found.map(|found| found.is_dir).map_err(|error| path::in_words(path, error))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.is_dir(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound && error.get_ref().is_none() => {
                Ok(None)
            }
            other => io_context("inspect", path, other.map(Some)),
        }
    }

    /// Creates one directory. Returns `false` if it exists already.
    pub(crate) fn create_dir(&self, path: &Path) -> Result<bool> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(path).and_then(|name| name.create_dir(self.modes().dir))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.create_dir(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            other => io_context("create directory", path, other.map(|()| true)),
        }
    }

    /// Lists a directory by name. Names that are not UTF-8 are skipped: they are never the store's.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<DirEntry>> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self.list_names(dir),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.list(dir),
        };
        let mut entries = io_context("list", dir, result)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn list_names(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let names = at::list(self.name(dir)?.open(libc::O_RDONLY | libc::O_DIRECTORY)?)?;
        let mut entries = Vec::new();
        for (name, is_dir) in names {
            let Ok(name) = name.into_string() else { continue };
            // A link to a file counts as the file.
            let is_dir = match is_dir {
                Some(is_dir) => is_dir,
                None => match self.name(&dir.join(&name))?.stat_link() {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    found => found?.is_dir,
                },
            };
            entries.push(DirEntry { name, is_file: !is_dir });
        }
        Ok(entries)
    }

    /// Replaces a file atomically: after a crash it has either the old content or the new.
    ///
    /// Writes `temporary`, syncs it, renames it, and syncs the directory that contains both.
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

fn open(name: &Name<'_>, access: Access, mode: libc::c_uint) -> io::Result<std::fs::File> {
    let new = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    match access {
        Access::Read => name.open(libc::O_RDONLY),
        Access::Write => name.open(libc::O_RDWR),
        Access::Keep => name.create(libc::O_RDWR | libc::O_CREAT, mode),
        Access::CreateNew => name.create(new, mode),
        // The file is not truncated in place: it may be a link, or have another name.
        Access::Create => name.create(new, mode).or_else(|error| {
            if error.kind() != ErrorKind::AlreadyExists {
                return Err(error);
            }
            name.remove()?;
            name.create(new, mode)
        }),
    }
}
