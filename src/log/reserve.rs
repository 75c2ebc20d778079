//! The reserve: room that is set aside behind the end of `LOCK`, where it takes no name and no inode.
//!
//! - Whatever gives room back may use it: deletes, merges, clears. A put may not. Once the reserve was
//!   used, a put grows the log only after the reserve has been set aside again. Otherwise puts would use
//!   up what deletes have freed.
//! - When the reserve is used up, files that can be derived make room, see `segment::sidecar`.

use super::LogWriter;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::manifest::Manifest;
use crate::segment::sidecar;
use crate::sync::unmodeled::Mutex;

/// The least size of a reserve, unless a segment is smaller.
const RESERVE_MIN: u64 = 64 << 10;
/// The largest size of a reserve: half of a segment of the usual size.
const RESERVE_MAX: u64 = 64 << 20;
/// The number of reserves that there has to be free space for before one is set aside.
const RESERVES_LEFT: u64 = 4;

/// The room that is set aside.
#[derive(Debug)]
pub(super) struct Reserve {
    /// Room is set aside behind the end of this file.
    lock_file: File,
    /// Lock 6: held while something is tried that needs the reserve.
    state: Mutex<ReserveState>,
}

#[derive(Debug, Default)]
struct ReserveState {
    /// The size in bytes, as far as this process knows.
    size: u64,
    /// Whether it was used, and has not been set aside again.
    is_used: bool,
}

impl ReserveState {
    /// Gives the room back to the disk, where anybody can take it.
    fn give_up(&mut self, lock_file: &File) {
        self.size = 0;
        self.is_used = true;
        // Some file systems do nothing if a file is cut to the size that it has.
        let _ = lock_file.size().and_then(|size| {
            lock_file.set_size(size + 1)?;
            lock_file.set_size(size)
        });
    }
}

impl Reserve {
    pub(super) fn new(lock_file: File) -> Self {
        Self { lock_file, state: Mutex::default() }
    }
}

impl LogWriter {
    /// Sets the reserve aside, if the disk has several times as much space.
    pub(crate) fn keep_reserve(&self) -> Result<()> {
        self.fill_reserve(RESERVES_LEFT)
    }

    /// Refuses a put for which the log would have to grow, if the reserve was used and can't be set aside
    /// again.
    pub(super) fn require_reserve(&self) -> Result<()> {
        if self.is_reserve_used() { self.fill_reserve(1) } else { Ok(()) }
    }

    fn fill_reserve(&self, left: u64) -> Result<()> {
        self.check()?;
        let (fs, dir) = (&self.context.fs, self.context.dir.path());
        let mut held = self.reserve.state.lock();
        let size = self.context.segment_size.min(self.reserve_wanted());
        let size = size.min(fs.file_size_limit());
        if held.size >= size - size / 4 {
            return Ok(());
        }
        if fs.available_space(dir)? < size.saturating_mul(left) {
            return Err(Error::NoSpace { path: dir.into() });
        }
        match self.reserve.lock_file.reserve(size) {
            Err(error) if error.is_no_space() => Err(error),
            // If none can be set aside for another reason, there is none, and nobody waits for it.
            reserved => {
                *held = ReserveState { size: reserved.map_or(0, |()| size), is_used: false };
                Ok(())
            }
        }
    }

    /// Returns the size that the reserve should have: a part of the log, which grows with it.
    fn reserve_wanted(&self) -> u64 {
        let sealed = |manifest: &Manifest| manifest.sealed.iter().map(|each| each.length).sum();
        let sealed: u64 = self.context.manifest.get(sealed);
        (sealed / 16).clamp(RESERVE_MIN, RESERVE_MAX)
    }

    /// Returns the size of the reserve.
    pub(crate) fn reserve_size(&self) -> u64 {
        self.reserve.state.lock().size
    }

    /// Returns whether the reserve was used, and has not been set aside again.
    pub(crate) fn is_reserve_used(&self) -> bool {
        self.reserve.state.lock().is_used
    }

    /// Tries something that takes room and helps to give more back. If there is no space, the reserve is
    /// given up for it, and after that the files that can be derived. The attempt must not lock the log.
    pub(crate) fn making_room<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let result = attempt();
        if !result.as_ref().is_err_and(Error::is_no_space) {
            return result;
        }
        // Held, so that nobody sets it aside again before the attempt was made.
        let mut held = self.reserve.state.lock();
        held.give_up(&self.reserve.lock_file);
        sidecar::making_room(&self.context.fs, &self.context.dir, attempt)
    }
}
