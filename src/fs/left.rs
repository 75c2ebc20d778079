//! Remaining capacity: of a file system, and of what the process may use of it.

use std::io;
use std::path::Path;

use super::{Fs, io_context, sys};
use crate::error::Result;

impl Fs {
    /// Returns the largest file size that this process may write.
    ///
    /// Exceeding it raises SIGXFSZ, which ends the process, so callers have to check it first.
    pub(crate) fn file_size_limit(&self) -> u64 {
        match self {
            Self::Disk(_) | Self::Within(_) => sys::file_size_limit(),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => u64::MAX,
        }
    }

    /// Returns how many bytes can still be written to the file system of a directory.
    pub(crate) fn available_space(&self, dir: &Path) -> Result<u64> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self.left(dir).map(|left| left.bytes),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => Ok(twin.available_space()),
        };
        io_context("inspect", dir, result)
    }

    /// Returns how many files can still be created there, or `None` if the file system sets no
    /// limit.
    pub(crate) fn available_files(&self, dir: &Path) -> Result<Option<u64>> {
        let result = match self {
            Self::Disk(_) | Self::Within(_) => self.left(dir).map(|left| left.files),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => Ok(None),
        };
        io_context("inspect", dir, result)
    }

    fn left(&self, dir: &Path) -> io::Result<sys::Left> {
        match self.root().filter(|root| root.path() == dir) {
            Some(root) => sys::left(root.dir()),
            None => sys::left(&self.name(dir)?.open(libc::O_RDONLY | libc::O_DIRECTORY)?),
        }
    }
}
