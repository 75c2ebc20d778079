//! What a snapshot consists of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::owned_dir::OwnedDir;
use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs};
use crate::mistake::{Mistake, made};

/// The files of a snapshot: a copy of a store, as [`backup`](crate::Bitcask::backup) makes it. This
/// is the `SnapshotData` of openraft.
///
/// A network sends a snapshot file by file: it [lists](Self::files) them, [reads](Self::read) each
/// in pieces, and on the other side [writes](Self::write) the pieces to what
/// [`begin_receiving_snapshot`](openraft::Raft::begin_receiving_snapshot) has returned. It passes
/// that to [`install_full_snapshot`](openraft::Raft::install_full_snapshot), which makes it durable
/// and compares it with what openraft expects.
///
/// Pieces of files belong together if they are of snapshots with the same
/// [`snapshot_id`](openraft::SnapshotMeta::snapshot_id). Two nodes that have applied the same
/// entries have snapshots of different files, and of different ids.
///
/// The files stay as long as this exists, whatever the state machine does meanwhile. Clones share
/// them.
#[derive(Clone)]
pub struct SnapshotFiles {
    dir: Arc<OwnedDir>,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// The name, without a directory.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

impl SnapshotFiles {
    pub(super) fn new(dir: Arc<OwnedDir>) -> Self {
        Self { dir }
    }

    /// Ends the time in which files may be written.
    pub(super) fn seal(&self) {
        self.dir.seal();
    }

    /// Returns the directory in which the files lie.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Lists the files. Whoever receives a snapshot needs all of them, in any order.
    ///
    /// # Errors
    ///
    /// Any error of the operating system.
    pub fn files(&self) -> Result<Vec<SnapshotFile>> {
        let fs = self.dir.fs();
        let names = names(fs, self.path())?.into_iter();
        let files = names.map(|name| {
            let size = fs.open(&self.path().join(&name), Access::Read)?.size()?;
            Ok(SnapshotFile { name, size })
        });
        files.collect()
    }

    /// Reads a piece of a file into a buffer. Returns its size, which is less than that of the
    /// buffer only at the end of the file.
    ///
    /// # Errors
    ///
    /// [`InvalidSource`](Error::InvalidSource) for a name that no file of a snapshot has, and any
    /// error of the operating system.
    pub fn read(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.dir.fs().open(&self.file(name)?, Access::Read)?.read_at(buffer, offset)
    }

    /// Writes a piece of a file of a snapshot that is being received. It need not be durable.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`InvalidSource`](Error::InvalidSource) if the snapshot was not
    /// begun by [`begin_receiving_snapshot`](openraft::Raft::begin_receiving_snapshot), or is
    /// installed.
    pub fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let path = self.file(name)?;
        if !self.dir.is_receiving() {
            let reason = "the snapshot is not one that is being received".to_owned();
            return Err(Error::InvalidSource { path, reason });
        }
        self.dir.fs().open(&path, Access::Keep)?.write_within_limit(bytes, offset)
    }

    fn file(&self, name: &str) -> Result<PathBuf> {
        if is_file_of_snapshot(name) {
            return Ok(self.path().join(name));
        }
        let reason = format!("{name:?} is not the name of a file of a snapshot");
        Err(Error::InvalidSource { path: self.path().into(), reason })
    }
}

impl fmt::Debug for SnapshotFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotFiles").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// The file that says which others count. It is the only one that is not shared by links.
const MANIFEST: &str = "MANIFEST";

/// Returns whether a directory may be a snapshot: whether it has a manifest.
pub(super) fn has_manifest(fs: &Fs, dir: &Path) -> bool {
    fs.exists(&dir.join(MANIFEST))
}

/// Returns whether a store has such a file, and a snapshot needs it.
fn is_file_of_snapshot(name: &str) -> bool {
    let is_plain =
        |stem: &str| !stem.is_empty() && stem.bytes().all(|it| it.is_ascii_alphanumeric());
    name == MANIFEST
        || name
            .split_once('.')
            .is_some_and(|(stem, kind)| is_plain(stem) && ["log", "hint", "index"].contains(&kind))
}

fn names(fs: &Fs, dir: &Path) -> Result<Vec<String>> {
    let entries = fs.list(dir)?.into_iter().filter(|entry| entry.is_file);
    Ok(entries.map(|entry| entry.name).filter(|name| is_file_of_snapshot(name)).collect())
}

/// Makes a durable copy of a snapshot in a new directory, with links to its files where that is
/// possible. The caller makes the name of the directory durable.
pub(super) fn copy_snapshot(fs: &Fs, from: &Path, to: &Path) -> Result<()> {
    fs.create_dir(to)?;
    for name in names(fs, from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        let file = fs.open(&source, Access::Read)?;
        if name == MANIFEST || !fs.link(&source, fs, &target)? {
            copy(&file, &fs.open(&target, Access::CreateNew)?)?;
        } else if !made(Mistake::RaftReceivedNotSynced) {
            // What was received may not be durable yet.
            file.sync()?;
        }
    }
    if made(Mistake::RaftFilesNotNamed) {
        return Ok(());
    }
    fs.sync_dir(to)
}

fn copy(from: &File, to: &File) -> Result<()> {
    from.copy_to(to, 0, from.size()?)?;
    to.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_stores_files_are_accepted() {
        for name in ["MANIFEST", "0000000001.log", "0000000001.hint", "0000000001.index"] {
            assert!(is_file_of_snapshot(name), "{name}");
        }
        for name in ["", ".log", "LOCK", "../x.log", "a/b.log", "x.log.tmp", "..", "MANIFEST.spare"]
        {
            assert!(!is_file_of_snapshot(name), "{name}");
        }
    }
}
