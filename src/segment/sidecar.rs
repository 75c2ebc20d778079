//! Files that are derived from a segment: hints and indexes.
//!
//! A derived file gets its name once it is complete. Derived files are removed if data that can't
//! be derived needs their space.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Dir, FileKind};
use crate::error::{Error, Result};
use crate::fs::{self, Access, Fs, ends_writing};

/// Number of inodes that derived files leave to other files.
const FILES_LEFT: u64 = 8;

/// Returns whether the file system has inodes left for a derived file.
pub(crate) fn has_files_left(fs: &Fs, dir: &Path) -> Result<bool> {
    Ok(fs.available_files(dir)?.is_none_or(|left| left >= FILES_LEFT))
}

/// Writes the pieces that a closure passes to a temporary file, syncs it, and gives it its name.
/// The caller syncs the directory if the name has to be durable.
///
/// Returns whether the file was written. If there is no space or no file descriptor, the store does
/// without the file. Only an error that ends writing is returned: a failed sync, or a directory
/// that is no longer the store's.
pub(super) fn write(
    fs: &Fs,
    path: &Path,
    content: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<bool> {
    let temporary = Dir::temporary(path);
    if !has_files_left(fs, fs::parent(path))? {
        return Ok(false);
    }
    let write = || {
        let file = fs.open(&temporary, Access::Create)?;
        let mut end = 0;
        content(&mut |piece| {
            file.write_within_limit(piece, end)?;
            end += piece.len() as u64;
            Ok(())
        })?;
        file.sync()?;
        fs.rename(&temporary, path)
    };
    write().map(|()| true).or_else(|error| {
        // Best effort: if it can't be removed now, the next open removes it.
        let _ = fs.remove(&temporary);
        if ends_writing(&error) { Err(error) } else { Ok(false) }
    })
}

/// Runs an attempt that needs space. As long as the attempt finds no space, removes derived files
/// and runs it again: indexes first, then hints, one, two, four at a time. Readers that need a
/// removed file read the segment instead.
///
/// If a removed hint is still open, its space is freed when it is closed.
pub(crate) fn making_room<T>(
    fs: &Fs,
    dir: &Dir,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let (mut derived, mut count) = (None, 1);
    loop {
        let result = attempt();
        if !result.as_ref().is_err_and(Error::is_no_space) {
            return result;
        }
        let derived = derived.get_or_insert_with(|| derived_files(fs, dir));
        if derived.is_empty() {
            return result;
        }
        for path in derived.drain(..derived.len().min(count)) {
            // A file that can't be removed frees no space.
            let _ = empty_index(fs, &path);
            let _ = fs.remove(&path);
        }
        count *= 2;
    }
}

/// Empties an index, which this process or another one may keep open. That frees its space at once,
/// and its readers find it unusable.
///
/// An index that has another name stays as it is: it is a part of a backup too. If the backup links
/// it only after this check, the backup has to do without it.
fn empty_index(fs: &Fs, path: &Path) -> Result<()> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if !matches!(FileKind::of(name), FileKind::Index(_)) {
        return Ok(());
    }
    fs.check()?;
    if fs.is_sole_file(path)? {
        fs.open(path, Access::Write)?.set_size(0)?;
    }
    Ok(())
}

/// Returns how many bytes the derived files take.
pub(crate) fn derived_size(fs: &Fs, dir: &Dir) -> u64 {
    let sizes = derived_files(fs, dir)
        .into_iter()
        .filter_map(|path| fs.open(&path, Access::Read).and_then(|file| file.size()).ok());
    sizes.sum()
}

/// Returns the derived files, most expendable first.
fn derived_files(fs: &Fs, dir: &Dir) -> VecDeque<PathBuf> {
    let (mut indexes, mut hints) = (VecDeque::new(), VecDeque::new());
    for entry in fs.list(dir.path()).unwrap_or_default() {
        let path = || dir.path().join(&entry.name);
        match FileKind::of(&entry.name) {
            FileKind::Index(_) => indexes.push_back(path()),
            FileKind::Hint(_) => hints.push_back(path()),
            FileKind::Log(_) | FileKind::Temporary | FileKind::Other => {}
        }
    }
    indexes.extend(hints);
    indexes
}
