//! The room of a segment that is appended to: how long its file is, and how far bytes can be
//! stored.
//!
//! - Bytes from the writer's position up to `ready` can be stored. Disk space for them has been
//!   allocated. If they are stored through a mapping, their pages have been populated.
//! - Disk space has been allocated for the bytes below `allocated`, so they can be written with a
//!   system call. This moves the writer's position, and `ready` with it.
//! - Room grows through the writer that needs it or through a thread ahead of the writer, whichever
//!   comes first. Both may populate the same pages, so that neither waits for the other. Only the
//!   file's size has a lock.
//! - Once the file is cut to the segment's end, its room no longer grows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use memmap2::{Advice, MmapRaw};

use crate::error::Result;
use crate::fs::File;
use crate::segment::read::mapping::Mapping;
use crate::sync::Ordering;
use crate::sync::unmodeled::{AtomicU64, Mutex};

/// Initial size of a new file, in bytes. It is small, so that a small store stays small.
pub(crate) const GROWTH_MIN: u64 = 1 << 20;
/// Largest step by which a file grows, in bytes. Below it, each step doubles the file.
const GROWTH_MAX: u64 = 64 << 20;
/// Step by which a file grows on a disk that is nearly full, in bytes.
const SMALL_STEP: u64 = 64 << 10;
/// Largest step by which an output of copies grows, in bytes. Copies can wait for room, and other
/// writers can't.
const COPY_STEP: u64 = 4 << 20;
/// Maximum number of bytes that a writer populates beyond what it needs: one system call for about
/// 2,000 small entries.
const POPULATE_SIZE: u64 = 256 << 10;
/// Number of bytes populated at a time ahead of a writer. The step is smaller than a writer's, so
/// that the writer can use the room soon.
const AHEAD_STEP: u64 = 64 << 10;
/// Maximum number of bytes made ready ahead of a writer. Each sync would write any more than that
/// as zeros.
pub(crate) const AHEAD: u64 = 2 << 20;

/// The room of a segment.
#[derive(Debug)]
pub(crate) struct Room {
    file: File,
    /// The mapping whose pages have to be populated, if the segment has one.
    map: Option<Arc<Mapping>>,
    /// Whether bytes are stored through a mapping, of which a twin has none.
    is_stored_to: bool,
    /// Whether pages are populated ahead of the writer.
    is_populated_ahead: AtomicBool,
    /// The size to which the segment may grow.
    capacity: u64,
    /// Lock 8: whether the file has been cut to the segment's end. Guards the file's size.
    is_cut: Mutex<bool>,
    /// The size up to which disk space has been allocated. It only grows, and so does `ready`.
    allocated: AtomicU64,
    ready: AtomicU64,
}

impl Room {
    /// Returns the room of a file that has just been created.
    pub(crate) fn new(
        file: &File,
        map: Option<Arc<Mapping>>,
        is_stored_to: bool,
        capacity: u64,
        allocated: u64,
    ) -> Self {
        let ready = if is_stored_to { 0 } else { allocated };
        Self {
            file: file.clone(),
            map,
            is_stored_to,
            is_populated_ahead: AtomicBool::new(true),
            capacity,
            is_cut: Mutex::new(false),
            allocated: AtomicU64::new(allocated),
            ready: AtomicU64::new(ready),
        }
    }

    /// Returns the offset below which bytes can be stored.
    pub(crate) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Acquire)
    }

    /// Returns whether bytes are stored through a mapping.
    pub(crate) fn is_stored_to(&self) -> bool {
        self.is_stored_to
    }

    /// Returns whether pages are populated ahead of the writer.
    pub(crate) fn is_populated_ahead(&self) -> bool {
        self.is_populated_ahead.load(Ordering::Relaxed)
    }

    /// Sets whether pages are populated ahead of the writer. This only decides how fast appends
    /// are, so no order is needed.
    pub(crate) fn set_populated_ahead(&self, is_populated: bool) {
        self.is_populated_ahead.store(is_populated, Ordering::Relaxed);
    }

    /// Returns the offset below which disk space has been allocated.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Acquire)
    }

    /// Makes sure that bytes below `needed` can be stored. A failure changes nothing.
    pub(crate) fn reserve(&self, needed: u64) -> Result<()> {
        if needed <= self.ready() {
            return Ok(());
        }
        // No more than was written so far, so that a small store stays small.
        self.grow(needed, needed.min(POPULATE_SIZE), GROWTH_MAX)
    }

    /// Makes sure that bytes below `needed` can be written. A failure changes nothing.
    pub(crate) fn reserve_unpopulated(&self, needed: u64) -> Result<()> {
        self.allocate(needed, GROWTH_MAX)
    }

    /// Notes that the writer has got to `end`. Pages that were written instead of stored to need
    /// not be populated any more, except the one in which the next bytes begin: `end` lies in it,
    /// and pages are populated whole.
    pub(crate) fn pass(&self, end: u64) {
        if end > self.ready() {
            self.ready.fetch_max(end, Ordering::Release);
        }
    }

    /// Like `reserve`, but populates no more pages than needed. A sync that follows soon would
    /// write the additional pages in vain, and they would have to be made writable again.
    pub(crate) fn reserve_exactly(&self, needed: u64) -> Result<()> {
        self.grow(needed, 0, GROWTH_MAX)
    }

    /// Like `reserve`, but for copies, in small steps.
    pub(crate) fn reserve_for_copies(&self, needed: u64) -> Result<()> {
        self.grow(needed, 0, COPY_STEP)
    }

    /// Makes room ready ahead of a writer that has got to `end`: as much as has been written so
    /// far, within limits, so that a small store stays small.
    pub(crate) fn go_ahead(&self, end: u64) -> Result<()> {
        let until = (end + end.min(AHEAD)).min(self.capacity);
        if !self.is_populated_ahead() {
            return self.reserve_unpopulated(until);
        }
        while self.ready() < until && !*self.is_cut.lock() {
            self.grow(until.min(self.ready() + AHEAD_STEP), AHEAD_STEP, GROWTH_MAX)?;
        }
        Ok(())
    }

    fn grow(&self, needed: u64, populate_size: u64, step_max: u64) -> Result<()> {
        self.allocate(needed, step_max)?;
        let (ready, allocated) = (self.ready(), self.allocated.load(Ordering::Acquire));
        let until = if self.is_stored_to {
            needed.max(ready + populate_size).min(allocated)
        } else {
            allocated
        };
        if let Some(map) = &self.map
            && until > ready
        {
            populate(map, ready, until).or_else(|error| self.file.unpopulated(error))?;
        }
        // The thread that advances this has populated everything between the old and the new value,
        // except what the writer has passed meanwhile.
        self.ready.fetch_max(until, Ordering::Release);
        Ok(())
    }

    fn allocate(&self, needed: u64, step_max: u64) -> Result<()> {
        if needed <= self.allocated.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_cut = self.is_cut.lock();
        let allocated = self.allocated.load(Ordering::Acquire);
        if *is_cut || needed <= allocated {
            return Ok(());
        }
        let step = allocated.clamp(GROWTH_MIN, step_max);
        let wanted = needed.max((allocated + step).min(self.capacity));
        // If the whole step does not fit on the disk, a small step may fit, or just what is needed.
        // A failed attempt takes long, so there are few.
        let small = wanted.min(needed + SMALL_STEP);
        let tried = self.file.allocate(wanted).or_else(|_| self.file.allocate(small));
        tried.or_else(|_| self.file.allocate(needed))?;
        self.allocated.store(self.file.size()?.max(needed), Ordering::Release);
        Ok(())
    }

    /// Cuts the file to the segment's end, for good.
    pub(crate) fn cut(&self, end: u64) -> Result<()> {
        let mut is_cut = self.is_cut.lock();
        *is_cut = true;
        self.file.set_size(end)
    }
}

#[cfg(target_os = "linux")]
pub(crate) fn populate(map: &MmapRaw, from: u64, until: u64) -> std::io::Result<()> {
    let (Ok(from), Ok(until)) = (usize::try_from(from), usize::try_from(until)) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    map.advise_range(Advice::PopulateWrite, from, until - from)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn populate(_map: &MmapRaw, _from: u64, _until: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
