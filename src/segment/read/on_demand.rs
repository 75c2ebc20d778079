//! A segment without a mapping: its file is opened for each read.
//!
//! - The segment needs no descriptor, so there may be any number of such segments.
//! - The file's name may be removed while the segment is still held: by a merge, a clear, or
//!   another process that has the store open. Before this process removes the name, it leaves an
//!   open file here, and a reader that does not find the name looks here again. If no descriptor is
//!   available, the name stays.
//! - A writer does not ask read-only stores in other processes before it removes a name. Those keep
//!   descriptors as far as the budget allows. If a file is gone and no descriptor was kept, reading
//!   it returns an error that says so.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::entry::{HEADER_SIZE_MAX, Invalid};
use crate::error::{Error, Result};
use crate::fs::{Access, File, Fs, is_not_found};
use crate::segment::budget::{KeptFile, take_descriptor};
use crate::segment::{Segment, StoredEntry};

/// Number of bytes that are read with an entry's header, so that a small entry takes one read.
const HEAD_SIZE: u64 = 512;

const _: () = assert!(HEAD_SIZE >= HEADER_SIZE_MAX as u64);

/// A file that is opened when it is read.
#[derive(Debug)]
pub(crate) struct OnDemand {
    fs: Fs,
    path: PathBuf,
    /// Set if the file is kept open for as long as the segment is held.
    kept: OnceLock<KeptFile>,
}

impl OnDemand {
    pub(crate) fn new(fs: &Fs, path: &Path) -> Self {
        Self { fs: fs.clone(), path: path.to_path_buf(), kept: OnceLock::new() }
    }

    /// Returns the open file.
    pub(crate) fn file(&self) -> Result<File> {
        let kept = || self.kept.get().map(|kept| kept.file.clone());
        if let Some(file) = kept() {
            return Ok(file);
        }
        match self.fs.open(&self.path, Access::Read) {
            // Before the name was removed, the open file was left here.
            Err(error) if is_not_found(&error) => {
                kept().ok_or_else(|| Error::SegmentRemoved { path: self.path.clone() })
            }
            opened => opened,
        }
    }

    /// Keeps the file open from now on: the given handle, or else one that is opened here. Returns
    /// whether it is kept open.
    pub(crate) fn keep_open(&self, file: Option<&File>) -> bool {
        if self.kept.get().is_some() {
            return true;
        }
        let Some(unit) = take_descriptor() else { return false };
        let Ok(file) = file.cloned().map_or_else(|| self.file(), Ok) else { return false };
        // If two threads get here concurrently, the later one's file is closed.
        let _ = self.kept.set(KeptFile::new(file, unit));
        true
    }

    /// Reads bytes of an open file. Returns `None` if the file is shorter.
    pub(crate) fn read(file: &File, offset: u64, size: usize) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(size)
            .map_err(|_| Error::corrupt(file.path(), offset, "the entry does not fit in memory"))?;
        bytes.resize(size, 0);
        let is_whole = file.read_at(&mut bytes, offset)? == size;
        Ok(is_whole.then_some(bytes))
    }
}

impl Segment {
    /// Makes sure that the segment can be read after its file's name is removed. Returns whether it
    /// can.
    pub(crate) fn keep_readable(&self) -> bool {
        self.bytes.on_demand().is_none_or(|on_demand| on_demand.keep_open(None))
    }

    /// Returns whether the segment is read through a mapping.
    pub(crate) fn is_mapped(&self) -> bool {
        self.bytes.is_mapped()
    }

    /// Reads an entry of a segment without a mapping.
    #[cold]
    pub(crate) fn entry_on_demand(self: &Arc<Self>, offset: u64) -> Result<StoredEntry<'_>> {
        let ends = || self.corrupt(offset, "the segment ends before this");
        let on_demand = self.bytes.on_demand().ok_or_else(ends)?;
        let room = self.size().checked_sub(offset).ok_or_else(ends)?;
        let file = on_demand.file()?;
        let read = |size: u64| {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            OnDemand::read(&file, offset, size)?.ok_or_else(ends)
        };
        let mut bytes = read(room.min(HEAD_SIZE))?;
        let layout = self.decode(&bytes, offset)?;
        let size = layout.entry_size();
        if size > room {
            return Err(self.invalid(offset, Invalid::Short));
        }
        if size > bytes.len() as u64 {
            bytes = read(size)?;
        }
        bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(StoredEntry { segment: self, offset, layout, bytes: Cow::Owned(bytes) })
    }
}
