//! The permissions of an existing file, in which another store keeps a note.

use std::os::unix::fs::MetadataExt as _;

use super::file::{Backing, File};
use super::io_context;
use crate::error::Result;

impl File {
    /// Returns the file's mode: its kind and its permissions.
    pub(crate) fn mode(&self) -> Result<u32> {
        let result = match self.backing() {
            Backing::Disk(file) => file.metadata().map(|metadata| metadata.mode()),
            #[cfg(any(test, bitcask_fuzzing))]
            Backing::Twin(_) => Ok(0o644),
        };
        io_context("inspect", self.path(), result)
    }
}
