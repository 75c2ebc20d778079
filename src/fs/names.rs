//! Names: changed, created, removed, and made durable.
//!
//! - In a directory that is held open, nothing is changed once the directory no longer belongs to
//!   its holder.

#![expect(clippy::disallowed_methods, reason = "only this module may call them")]

use std::io::{self, ErrorKind};
use std::path::Path;

use super::at::Name;
use super::{Fs, SYNC_DIRECTORY, io_context, parent};
use crate::error::Result;

impl Fs {
    /// Makes the names in a directory durable: everything created, renamed and removed there.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.then_sync_dir(dir, || Ok(()))
    }

    /// Renames a file within its directory, and makes that durable.
    pub(crate) fn rename_and_sync(&self, from: &Path, to: &Path) -> Result<()> {
        self.then_sync_dir(parent(to), || self.rename(from, to))
    }

    /// Renames a file to a name that must not exist, and makes that durable.
    pub(crate) fn rename_new_and_sync(&self, from: &Path, to: &Path) -> Result<()> {
        self.then_sync_dir(parent(to), || self.rename_new(from, to))
    }

    /// Syncs a directory after a change in it. The directory is opened before the change. If
    /// descriptors are short, the call thus fails early, and neither leaves a change of unknown
    /// durability nor counts as a failed sync.
    fn then_sync_dir(&self, dir: &Path, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                let opened;
                let handle = if let Some(root) = self.root().filter(|root| root.path() == dir) {
                    root.dir()
                } else {
                    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                    let result = self.name(dir).and_then(|name| name.open(flags));
                    opened = io_context("open directory", dir, result)?;
                    &opened
                };
                change()?;
                handle.sync_all()
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => {
                change()?;
                twin.sync_dir(dir)
            }
        };
        io_context(SYNC_DIRECTORY, dir, result)
    }

    /// Renames a file, replacing whatever has the new name.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(from).and_then(|from| from.rename(&self.name(to)?))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.rename(from, to),
        };
        io_context("rename", from, result)
    }

    /// Renames a file. If the new name exists, the error is an `Io` of kind `AlreadyExists`.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(from).and_then(|from| from.rename_new(&self.name(to)?))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) if twin.exists(to) => Err(ErrorKind::AlreadyExists.into()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.rename(from, to),
        };
        let is_taken = |error: &io::Error| error.kind() == ErrorKind::AlreadyExists;
        let path = if result.as_ref().is_err_and(is_taken) { to } else { from };
        io_context("rename", path, result)
    }

    /// Exchanges the names of two files in one step. If that is not supported or the second file
    /// does not exist, renames the first over the second. Returns whether it exchanged them. With
    /// `is_durable`, makes the change durable.
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

    /// Exchanges the names of two files. Returns `false` if the kernel or the file system can't, or
    /// if one of the files does not exist.
    fn exchange(&self, a: &Path, b: &Path) -> Result<bool> {
        self.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(a).and_then(|a| a.exchange(&self.name(b)?))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => match twin.exchange(a, b) {
                Err(error)
                    if [ErrorKind::NotFound, ErrorKind::InvalidInput].contains(&error.kind()) =>
                {
                    Ok(false)
                }
                result => result.map(|()| true),
            },
        };
        io_context("exchange", a, result)
    }

    /// Returns whether a name leads to a regular file that has no other name, or to nothing at all.
    pub(crate) fn is_sole_file(&self, path: &Path) -> Result<bool> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(path).and_then(|name| name.stat_link()).map(|stat| stat.is_sole_file)
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.is_sole_file(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            other => io_context("inspect", path, other),
        }
    }

    /// Gives a file a second name, which may lie in a directory that `other` holds open. Returns
    /// `false` if that is not possible: on another file system, on one without links, if the file
    /// has too many links, or if it belongs to another user.
    pub(crate) fn link(&self, from: &Path, other: &Self, to: &Path) -> Result<bool> {
        other.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(from).and_then(|from| link(&from, &other.name(to)?))
            }
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
            _ => io_context("link", to, result),
        }
    }

    /// Removes a file. Succeeds if the file does not exist.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        self.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self.name(path).and_then(|name| name.remove()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.remove(path),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => io_context("remove", path, other),
        }
    }

    /// Removes an empty directory.
    pub(crate) fn remove_dir(&self, path: &Path) -> Result<()> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self.name(path).and_then(|name| name.remove_dir()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.remove_dir(path),
        };
        io_context("remove directory", path, result)
    }
}

fn link(from: &Name<'_>, to: &Name<'_>) -> io::Result<bool> {
    // Linking a symbolic link would create another link to the same file, not a second name of the
    // file.
    if from.stat_link()?.is_link {
        return Ok(false);
    }
    from.link(to).map(|()| true)
}
