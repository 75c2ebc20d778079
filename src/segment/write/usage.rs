//! How an active segment is used, and whether its pages are worth populating ahead of the writer.
//!
//! - A page that is populated costs a fault. Copying small entries into it then costs less than a
//!   system call for each of them. For large entries, a system call costs less than the faults.

use crate::fs::{Backing, File};

/// Size in bytes from which entries that are appended together are written instead of copied,
/// unless their room is populated already.
const LARGE_SIZE: u64 = 4 << 10;
/// The same on a disk in memory. It is low, so that tests with small entries mix both.
#[cfg(any(test, bitcask_fuzzing))]
const TWIN_LARGE_SIZE: u64 = 96;

/// Share of large entries from which small ones are not populated for: 15 of 16 bytes. With fewer
/// small entries than that, there is less than about one in each page.
const LARGE_SHARE: (u64, u64) = (15, 16);

/// What was appended since the last decision.
#[derive(Debug)]
pub(super) struct Usage {
    /// Size in bytes of a large append.
    large_from: u64,
    /// The offset of the last decision.
    start: u64,
    /// The end of the last append.
    end: u64,
    /// Size in bytes of all large appends since `start`.
    large_size: u64,
}

impl Usage {
    pub(super) fn new(file: &File, end: u64) -> Self {
        let large_from = match file.backing() {
            Backing::Disk(_) => LARGE_SIZE,
            #[cfg(any(test, bitcask_fuzzing))]
            Backing::Twin(_) => TWIN_LARGE_SIZE,
        };
        Self { large_from, start: end, end, large_size: 0 }
    }

    /// Returns whether entries of this size are large when they are appended together.
    pub(super) fn is_large(&self, size: u64) -> bool {
        size >= self.large_from
    }

    /// Notes that everything up to an end has been appended.
    pub(super) fn note_append(&mut self, end: u64) {
        let size = end - self.end;
        self.end = end;
        if self.is_large(size) {
            self.large_size += size;
        }
    }

    /// Decides whether to populate pages ahead of the writer, from what was appended since the last
    /// decision.
    pub(super) fn populates_ahead(&mut self) -> bool {
        let (share, of) = LARGE_SHARE;
        let size = self.end - std::mem::replace(&mut self.start, self.end);
        std::mem::take(&mut self.large_size) * of < size * share
    }
}
