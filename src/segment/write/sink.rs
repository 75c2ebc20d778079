//! How the bytes of an entry get to their place: copied into a mapping, or gathered and written.
//!
//! - A mapped sink stores nothing where the [`Room`] is not ready. So if a full disk has no space
//!   for a page, [`Room::reserve`] returns an error, and no signal is raised.
//! - Where the room is allocated but not ready, a mapped sink writes instead. Readers see what was
//!   written through the mapping, and later stores may share a page with it: on Linux, a write and
//!   a shared mapping use the same page of the kernel's cache (`generic_perform_write` in
//!   `mm/filemap.c`). Other systems have no mapped sink, since `populate` fails there.
//! - `&mut self` ensures that there is one writer at a time. Readers of the same mapping stay below
//!   the segment's end, and the writer stays at or above it.

#![expect(unsafe_code, reason = "entries are copied into a mapping that others read")]

use std::sync::Arc;

use memmap2::MmapRaw;

use super::room::{Room, populate};
use crate::error::Result;
use crate::fs::{Backing, File};
use crate::options::AppendMode;
use crate::segment::read::mapping::Mapping;

/// Number of bytes up to which entries are gathered before one call writes them.
const GATHER_SIZE: usize = 256 << 10;

/// Where appended bytes go.
#[derive(Debug)]
pub(crate) struct Sink {
    file: File,
    /// What bytes are stored to where room is ready. If there is none, all bytes are written.
    target: Option<Target>,
    /// Whether the present entry is stored to the target.
    is_stored: bool,
    /// Bytes that are not written yet, and belong at `start`.
    gathered: Vec<u8>,
    start: u64,
}

#[derive(Debug)]
enum Target {
    Mapping(Arc<Mapping>),
    /// Each part is written separately, in the order in which a mapping gets them. Readers map the
    /// file themselves.
    #[cfg(any(test, bitcask_fuzzing))]
    Twin,
}

impl Sink {
    /// Returns the sink of a new segment, and its mapping, if it has one, which readers share.
    pub(crate) fn new(
        file: &File,
        capacity: u64,
        mode: AppendMode,
    ) -> (Self, Option<Arc<Mapping>>) {
        let map = if mode == AppendMode::Mapped { map(file, capacity) } else { None };
        let target = match &map {
            Some(map) => Some(Target::Mapping(Arc::clone(map))),
            #[cfg(any(test, bitcask_fuzzing))]
            None if mode == AppendMode::Mapped && matches!(file.backing(), Backing::Twin(_)) => {
                Some(Target::Twin)
            }
            None => None,
        };
        let (is_stored, gathered, start) = (false, Vec::new(), 0);
        (Self { file: file.clone(), target, is_stored, gathered, start }, map)
    }

    /// Returns whether bytes are stored where room is ready.
    pub(crate) fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// Chooses how the next entry, which ends at `end`, gets to its place.
    pub(crate) fn begin(&mut self, room: &Room, end: u64) {
        // What follows gathered bytes is gathered too, so that these have no gaps.
        self.is_stored = self.target.is_some() && self.gathered.is_empty() && end <= room.ready();
    }

    /// Takes bytes of the present entry and their place, which is after all bytes taken before.
    pub(crate) fn write(&mut self, room: &Room, offset: u64, bytes: &[u8]) -> Result<()> {
        match &self.target {
            Some(target) if self.is_stored => {
                assert!(offset + bytes.len() as u64 <= room.ready(), "room is reserved first");
                match target {
                    Target::Mapping(map) => {
                        store(map, offset, bytes);
                        Ok(())
                    }
                    #[cfg(any(test, bitcask_fuzzing))]
                    Target::Twin => self.file.write_at(bytes, offset),
                }
            }
            _ => self.gather(offset, bytes),
        }
    }

    #[inline(never)]
    fn gather(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.gathered.is_empty() {
            self.start = offset;
        }
        // The padding between entries.
        self.gathered.resize(usize::try_from(offset - self.start).unwrap_or(usize::MAX), 0);
        if self.gathered.len() + bytes.len() <= GATHER_SIZE {
            self.gathered.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        self.file.write_at(bytes, offset)
    }

    /// Writes what has been gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            self.file.write_at(&self.gathered, self.start)?;
            self.gathered.clear();
        }
        Ok(())
    }
}

/// Maps a file up to the size to which it may grow. Returns `None` if it can't be mapped or
/// populated, or if a full disk could raise a signal: once a sync has written a page to a file
/// system that copies on write, the next byte in that page needs space again.
fn map(file: &File, capacity: u64) -> Option<Arc<Mapping>> {
    if file.copies_on_write() {
        return None;
    }
    let capacity = usize::try_from(capacity).ok()?;
    let map = match file.backing() {
        Backing::Disk(disk) => Mapping::to_store(disk, capacity)?,
        #[cfg(any(test, bitcask_fuzzing))]
        Backing::Twin(_) => return None,
    };
    // Populate the header's page as a test: old kernels do not support the call.
    populate(&map, 0, 1).ok()?;
    Some(Arc::new(map))
}

/// Copies bytes into a mapping.
fn store(map: &MmapRaw, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    assert!(offset.checked_add(bytes.len()).is_some_and(|end| end <= map.len()));
    // SAFETY: the range lies within the mapping, which lives as long as `map` is borrowed, and
    // within pages that have been populated, so the file has room for them. No one else writes
    // there: `Sink` has the only writable mapping of the segment, and stores through `&mut self`.
    // No one reads there: readers stay below the segment's end, which is moved past these bytes,
    // with Release, when they are all stored.
    unsafe {
        map.as_mut_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}
