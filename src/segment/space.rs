//! The last space on the disk, which is reserved for writers and the manifest.
//!
//! Merges and indexes can wait. They check here before they take space, so that they do not fill up
//! the disk.

use super::Dir;
use crate::error::{Error, Result};
use crate::fs::Fs;

/// Number of bytes reserved for writers and the manifest, in a store with the default segment size.
const LEFT_MIN: u64 = 32 << 20;

/// Refuses with `NoSpace` if a file of this size would take the last space on the disk.
pub(crate) fn check_space(fs: &Fs, dir: &Dir, segment_size: u64, size: u64) -> Result<()> {
    let left = fs.available_space(dir.path())?;
    if left.saturating_sub(size) < LEFT_MIN.min(segment_size / 4) {
        return Err(Error::NoSpace { path: dir.path().into() });
    }
    Ok(())
}
