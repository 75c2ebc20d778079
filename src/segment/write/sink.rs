//! How the bytes of an entry get to their place: copied into a mapping, or gathered and written.
//!
//! - A mapped sink stores nothing where the [`Room`] is not ready. So if a full disk has no space
//!   for a page, [`Room::reserve`] returns an error, and no signal is raised.
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
    method: WriteMethod,
}

#[derive(Debug)]
enum WriteMethod {
    /// They are copied into the mapping, where room is ready.
    Mapped(Arc<Mapping>),
    /// They are gathered. The gathered bytes are not written yet, and belong at `start`.
    Positioned { gathered: Vec<u8>, start: u64 },
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
        let method = match &map {
            Some(map) => WriteMethod::Mapped(Arc::clone(map)),
            #[cfg(any(test, bitcask_fuzzing))]
            None if mode == AppendMode::Mapped && matches!(file.backing(), Backing::Twin(_)) => {
                WriteMethod::Twin
            }
            None => WriteMethod::Positioned { gathered: Vec::new(), start: 0 },
        };
        (Self { file: file.clone(), method }, map)
    }

    /// Takes bytes and their place, which is after all bytes taken before.
    pub(crate) fn write(&mut self, room: &Room, offset: u64, bytes: &[u8]) -> Result<()> {
        match &mut self.method {
            WriteMethod::Mapped(map) => {
                assert!(offset + bytes.len() as u64 <= room.ready(), "room is reserved first");
                store(map, offset, bytes);
                Ok(())
            }
            WriteMethod::Positioned { gathered, start } => {
                if gathered.is_empty() {
                    *start = offset;
                }
                // The padding between entries.
                gathered.resize(usize::try_from(offset - *start).unwrap_or(usize::MAX), 0);
                if gathered.len() + bytes.len() <= GATHER_SIZE {
                    gathered.extend_from_slice(bytes);
                    return Ok(());
                }
                self.flush()?;
                self.file.write_at(bytes, offset)
            }
            #[cfg(any(test, bitcask_fuzzing))]
            WriteMethod::Twin => self.file.write_at(bytes, offset),
        }
    }

    /// Writes what has been gathered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if let WriteMethod::Positioned { gathered, start } = &mut self.method {
            self.file.write_at(gathered, *start)?;
            gathered.clear();
        }
        Ok(())
    }
}

/// Maps a file up to the size to which it may grow. Returns `None` if it can't be mapped or
/// populated.
fn map(file: &File, capacity: u64) -> Option<Arc<Mapping>> {
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
