//! Files that are derived from a segment, a hint or an index: how one gets its name, whole or not at all;
//! and how they make room for what can't be derived.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::{Dir, FileKind};
use crate::error::{Error, Result};
use crate::fs::{self, Access, Fs, ends_writing};

/// On a file system with fewer inodes left than this none is taken for what can be done without.
const FILES_LEFT: u64 = 8;

/// Returns whether there are inodes for what can be done without; the last ones are for what can't.
pub(crate) fn has_files_left(fs: &Fs, dir: &Path) -> Result<bool> {
    Ok(fs.available_files(dir)?.is_none_or(|left| left >= FILES_LEFT))
}

/// Writes what a closure hands over, in pieces, under a temporary name, syncs it, and gives it its own;
/// the caller syncs the directory, if the name has to be durable.
///
/// Returns whether that could be done: where it can't (no space, no file descriptor) the store does
/// without the file. Only what ends writing is an error: a sync that failed, or another directory.
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
        // Best effort: what can't be removed now is removed at the next open.
        let _ = fs.remove(&temporary);
        if ends_writing(&error) { Err(error) } else { Ok(false) }
    })
}

/// Tries something that takes room, and again with more room as long as it finds none: indexes are given
/// up first, then hints, one, two, four at a time. Whoever needs such a file reads the segment instead.
///
/// A file that is open elsewhere gives its room back when it is closed.
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
            // What can't be removed makes no room.
            let _ = fs.remove(&path);
        }
        count *= 2;
    }
}

/// Returns how much room the files take that can be derived.
pub(crate) fn derived_size(fs: &Fs, dir: &Dir) -> u64 {
    let sizes = derived_files(fs, dir)
        .into_iter()
        .filter_map(|path| fs.open(&path, Access::Read).and_then(|file| file.size()).ok());
    sizes.sum()
}

/// Returns the files that can be derived, those first that are missed least.
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
