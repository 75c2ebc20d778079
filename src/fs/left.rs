//! What is left: of a file system, and of what the process may take of it.

use std::path::Path;

use super::{Fs, sys, told};
use crate::error::Result;

impl Fs {
    /// Returns how large a file may be that this process writes.
    ///
    /// Whoever goes above is sent SIGXFSZ, which ends the process, so it has to be asked before.
    pub(crate) fn file_size_limit(&self) -> u64 {
        match self {
            Self::Disk => sys::file_size_limit(),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => u64::MAX,
        }
    }

    /// Returns how many bytes can still be written to the file system that a directory is on.
    pub(crate) fn available_space(&self, dir: &Path) -> Result<u64> {
        let result = match self {
            Self::Disk => fs2::available_space(dir),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(twin) => Ok(twin.available_space()),
        };
        told("look at", dir, result)
    }

    /// Returns how many files can still be created there; nothing where the file system sets no limit.
    pub(crate) fn available_files(&self, dir: &Path) -> Result<Option<u64>> {
        let result = match self {
            Self::Disk => sys::available_files(dir),
            #[cfg(any(test, bitcask_fuzzing))]
            Self::Twin(_) => Ok(None),
        };
        told("look at", dir, result)
    }
}
