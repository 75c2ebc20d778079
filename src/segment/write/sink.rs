//! How an entry's bytes get to their place: copied into a mapping, or gathered and written.
//!
//! - A mapped sink stores nothing where the [`Room`] is not ready: a page that a full disk has no
//!   room for is then an error of [`Room::reserve`], and not a signal.
//! - One writer at a time, by `&mut self`; readers of the same mapping stay below the segment's
//!   end, and this stays at or above it.

#![expect(unsafe_code, reason = "entries are copied into a mapping that others read")]

use std::sync::Arc;

use memmap2::MmapRaw;

use super::room::{Room, populate};
use crate::error::Result;
use crate::fs::{Backing, File};
use crate::options::AppendMode;
use crate::segment::read::mapping::Mapping;

/// Entries are gathered up to about this size and written with one call.
const GATHER_SIZE: usize = 256 << 10;

/// Where appended bytes go.
#[derive(Debug)]
pub(crate) struct Sink {
    file: File,
    way: WriteMethod,
}

#[derive(Debug)]
enum WriteMethod {
    /// Copied into the mapping, as far as there is room.
    Mapped(Arc<Mapping>),
    /// Bytes not yet written, for the place `start`.
    Positioned { gathered: Vec<u8>, start: u64 },
    /// Each part on its own, as a mapping gets them; its readers map the file themselves.
    #[cfg(any(test, bitcask_fuzzing))]
    Twin,
}

impl Sink {
    /// A sink for a fresh segment; with its mapping, if it has one, for readers to share.
    pub(crate) fn new(
        file: &File,
        capacity: u64,
        mode: AppendMode,
    ) -> (Self, Option<Arc<Mapping>>) {
        let map = if mode == AppendMode::Mapped { map(file, capacity) } else { None };
        let way = match &map {
            Some(map) => WriteMethod::Mapped(Arc::clone(map)),
            #[cfg(any(test, bitcask_fuzzing))]
            None if mode == AppendMode::Mapped && matches!(file.backing(), Backing::Twin(_)) => {
                WriteMethod::Twin
            }
            None => WriteMethod::Positioned { gathered: Vec::new(), start: 0 },
        };
        (Self { file: file.clone(), way }, map)
    }

    /// Takes bytes for their place, which is behind all that was taken before.
    pub(crate) fn write(&mut self, room: &Room, offset: u64, bytes: &[u8]) -> Result<()> {
        match &mut self.way {
            WriteMethod::Mapped(map) => {
                assert!(offset + bytes.len() as u64 <= room.ready(), "room is reserved first");
                store(map, offset, bytes);
                Ok(())
            }
            WriteMethod::Positioned { gathered, start } => {
                if gathered.is_empty() {
                    *start = offset;
                }
                // Padding between entries.
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
        if let WriteMethod::Positioned { gathered, start } = &mut self.way {
            self.file.write_at(gathered, *start)?;
            gathered.clear();
        }
        Ok(())
    }
}

/// Maps a file for as far as it may grow; nothing if that can't be had, or not be populated.
fn map(file: &File, capacity: u64) -> Option<Arc<Mapping>> {
    let capacity = usize::try_from(capacity).ok()?;
    let map = match file.backing() {
        Backing::Disk(disk) => Mapping::to_store(disk, capacity)?,
        #[cfg(any(test, bitcask_fuzzing))]
        Backing::Twin(_) => return None,
    };
    // The header's page: an old kernel does not know how.
    populate(&map, 0, 1).ok()?;
    Some(Arc::new(map))
}

/// Copies bytes into a mapping.
fn store(map: &MmapRaw, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    assert!(offset.checked_add(bytes.len()).is_some_and(|end| end <= map.len()));
    // SAFETY: the range lies within the mapping, which lives as long as `map` is borrowed, and
    // within pages that have been populated, so the file has room for them. Nobody else writes
    // there: `Sink` has the only writable mapping of the segment, and stores through `&mut self`.
    // Nobody reads there: readers stay below the segment's end, which is moved past these bytes,
    // with Release, when they are all stored.
    unsafe {
        map.as_mut_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}
