//! The reserve: space allocated after the end of `LOCK`, where it needs no name and no inode.
//!
//! - Operations that free space may use it: deletes, merges, clears. A put may not. Once the
//!   reserve was used, a put can grow the log only after the reserve has been allocated again.
//!   Otherwise puts would use up the space that deletes have freed.
//! - When the reserve is used up, derived files make space, see `segment::sidecar`.

use super::LogWriter;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::manifest::Manifest;
use crate::segment::sidecar;
use crate::sync::unmodeled::Mutex;

/// Minimum size of the reserve, unless a segment is smaller.
const RESERVE_MIN: u64 = 64 << 10;
/// Maximum size of the reserve: half of a segment of the default size.
const RESERVE_MAX: u64 = 64 << 20;
/// Number of reserves for which the disk must have free space before one is allocated.
const RESERVES_LEFT: u64 = 4;

/// The allocated space.
#[derive(Debug)]
pub(super) struct Reserve {
    /// The space is allocated after the end of this file.
    lock_file: File,
    /// What the file system requires in addition before it creates a file, in bytes.
    creation_size: u64,
    /// Lock 6: held while an operation that needs the reserve is tried.
    state: Mutex<ReserveState>,
}

#[derive(Debug, Default)]
struct ReserveState {
    /// Size in bytes, as far as this process knows.
    size: u64,
    /// Whether it was used and has not been allocated again.
    is_used: bool,
}

impl ReserveState {
    /// Returns the space to the disk, where any process can take it.
    fn give_up(&mut self, lock_file: &File) {
        self.size = 0;
        self.is_used = true;
        // Some file systems do nothing when a file is truncated to its current size.
        let _ = lock_file.size().and_then(|size| {
            lock_file.set_size(size + 1)?;
            lock_file.set_size(size)
        });
    }
}

impl Reserve {
    pub(super) fn new(lock_file: File) -> Self {
        let creation_size = lock_file.creation_size();
        Self { lock_file, creation_size, state: Mutex::default() }
    }
}

impl LogWriter {
    /// Allocates the reserve, if the disk has several times as much space.
    pub(crate) fn keep_reserve(&self) -> Result<()> {
        self.fill_reserve(RESERVES_LEFT)
    }

    /// Returns an error for a put that would grow the log, if the reserve was used and cannot be
    /// allocated again.
    pub(super) fn require_reserve(&self) -> Result<()> {
        if self.is_reserve_used() { self.fill_reserve(1) } else { Ok(()) }
    }

    fn fill_reserve(&self, left: u64) -> Result<()> {
        self.check()?;
        let (fs, dir) = (&self.context.fs, self.context.dir.path());
        let mut held = self.reserve.state.lock();
        let size = self.context.segment_size.min(self.reserve_wanted());
        // What is freed has to suffice for creating a segment.
        let size = (size + self.reserve.creation_size).min(fs.file_size_limit());
        if held.size >= size - size / 4 {
            return Ok(());
        }
        if fs.available_space(dir)? < size.saturating_mul(left) {
            return Err(Error::NoSpace { path: dir.into() });
        }
        match self.reserve.lock_file.reserve(size) {
            Err(error) if error.is_no_space() => Err(error),
            // If the allocation fails for another reason, there is no reserve, and nothing waits
            // for it.
            reserved => {
                *held = ReserveState { size: reserved.map_or(0, |()| size), is_used: false };
                Ok(())
            }
        }
    }

    /// Returns the size that the reserve should have: a fraction of the log, with which it grows.
    fn reserve_wanted(&self) -> u64 {
        let sealed = |manifest: &Manifest| manifest.sealed.iter().map(|each| each.length).sum();
        let sealed: u64 = self.context.manifest.get(sealed);
        (sealed / 16).clamp(RESERVE_MIN, RESERVE_MAX)
    }

    /// Returns the size of the reserve.
    pub(crate) fn reserve_size(&self) -> u64 {
        self.reserve.state.lock().size
    }

    /// Returns whether the reserve was used and has not been allocated again.
    pub(crate) fn is_reserve_used(&self) -> bool {
        self.reserve.state.lock().is_used
    }

    /// Tries an operation that takes space but helps to free more. If there is no space, gives up
    /// the reserve for it, and after that the derived files. The attempt must not lock the log.
    pub(crate) fn making_room<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let result = attempt();
        if !result.as_ref().is_err_and(Error::is_no_space) {
            return result;
        }
        // Held, so that nothing allocates the reserve again before the attempt.
        let mut held = self.reserve.state.lock();
        held.give_up(&self.reserve.lock_file);
        sidecar::making_room(&self.context.fs, &self.context.dir, attempt)
    }
}
