//! How a file that is derived from a segment, a hint or an index, gets its name: whole, or not at all.

use std::path::Path;

use super::Dir;
use crate::error::Result;
use crate::fs::{Access, Fs, ends_writing};

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
    let write = || {
        let file = fs.open(&temporary, Access::Create)?;
        let mut end = 0;
        content(&mut |piece| {
            file.write_at(piece, end)?;
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
