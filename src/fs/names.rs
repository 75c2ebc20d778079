//! Names: changed, taken, given up, and made durable.
//!
//! - Nothing is changed in a directory that is held open once it is not its holder's any more.

#![expect(clippy::disallowed_methods, reason = "this is the door that they are disallowed for")]

use std::io::{self, ErrorKind};
use std::path::Path;

use super::at::Name;
use super::{Fs, SYNC_DIRECTORY, io_context, parent};
use crate::error::Result;

impl Fs {
    /// Makes the names in a directory durable: what was created, renamed and removed there.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.then_sync_dir(dir, || Ok(()))
    }

    /// Renames a file within its directory, and makes that durable.
    pub(crate) fn rename_and_sync(&self, from: &Path, to: &Path) -> Result<()> {
        self.then_sync_dir(parent(to), || self.rename(from, to))
    }

    /// Gives a file its final name, which nothing may have, and makes that durable.
    pub(crate) fn rename_new_and_sync(&self, from: &Path, to: &Path) -> Result<()> {
        self.then_sync_dir(parent(to), || self.rename_new(from, to))
    }

    /// Syncs a directory after a change in it. It is opened before, so that a shortage of file
    /// descriptors is neither a change of which nobody knows whether it lasts nor a failed sync.
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

    /// Renames a file, in place of whatever has the new name.
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

    /// Renames a file, unless something has the new name: then this is an `Io` of kind
    /// `AlreadyExists`.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.check()?;
        let result = match self {
            Self::Disk(_) | Self::Within(_) => {
                self.name(from).and_then(|from| from.rename_new(&self.name(to)?))
            }
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) if twin.is_there(to) => Err(ErrorKind::AlreadyExists.into()),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => twin.rename(from, to),
        };
        let is_taken = |error: &io::Error| error.kind() == ErrorKind::AlreadyExists;
        let path = if result.as_ref().is_err_and(is_taken) { to } else { from };
        io_context("rename", path, result)
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

    /// Returns whether a name leads to a file that no other name leads to, or to nothing at all.
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
            other => io_context("look at", path, other),
        }
    }

    /// Gives a file a second name, which may lie within a directory that another one holds open; says
    /// no where that can't be had: on another file system, or one without links, or with no more of
    /// them for this file, or for a file of somebody else's.
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

    /// Removes a file. One that is gone already is fine.
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

    /// Removes a directory that is empty.
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
    // Of a symbolic link this would be another one: the same file, and not a copy of its name.
    if from.stat_link()?.is_link {
        return Ok(false);
    }
    from.link(to).map(|()| true)
}
