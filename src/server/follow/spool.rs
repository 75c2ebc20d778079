//! The file in which a snapshot waits until all of it has arrived.
//!
//! - It lies beside the store's files and is none of them. Under its final name it is complete and
//!   durable; before, it has another name.
//! - As long as it exists beside a store that follows, the store has to be filled from it before it
//!   may be read. So a crash at any moment loses neither the old data nor the new.
//! - It is removed before a store is promoted, and from beside a store that has data of its own.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::fs::{Access, File, Fs, Modes};
use crate::server::frames::{Frame, FrameError, FrameHeader, FrameKind, SnapshotSum, read_frame};

/// The name of a complete snapshot.
const NAME: &str = "FOLLOW.snapshot";
/// The name of one that is being received.
const NAME_BEFORE: &str = "FOLLOW.snapshot.tmp";
/// The permissions: it has all values of the store.
const PRIVATE: (u16, u16) = (0o700, 0o600);
/// Size of what is written or read at once, in bytes.
const BUFFER_SIZE: usize = 1 << 20;

/// Where the snapshots of a store wait.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: PathBuf,
    fs: Fs,
}

impl Spool {
    pub(super) fn new(dir: &Path) -> Self {
        let (dir_mode, file_mode) = PRIVATE;
        let fs = Fs::DISK.with_modes(Modes::new(dir_mode, file_mode));
        Self { dir: dir.to_owned(), fs }
    }

    /// Returns whether there is a complete snapshot.
    pub(super) fn is_complete(&self) -> bool {
        self.fs.exists(&self.dir.join(NAME))
    }

    /// Begins to write a snapshot.
    pub(super) fn begin(&self) -> Result<SpoolWriter> {
        let file = self.fs.open(&self.dir.join(NAME_BEFORE), Access::Create)?;
        Ok(SpoolWriter { file, offset: 0, buffer: Vec::new() })
    }

    /// Makes a snapshot durable, and complete.
    pub(super) fn complete(&self, mut writer: SpoolWriter) -> Result<()> {
        writer.flush()?;
        writer.file.sync()?;
        self.fs.rename_and_sync(&self.dir.join(NAME_BEFORE), &self.dir.join(NAME))
    }

    /// Reads the complete snapshot from its start.
    pub(super) fn read(&self) -> Result<SpoolReader> {
        let file = self.fs.open(&self.dir.join(NAME), Access::Read)?;
        Ok(SpoolReader { file, offset: 0, buffer: Vec::new(), at: 0 })
    }

    /// Removes the complete snapshot, for good.
    pub(super) fn remove(&self) -> Result<()> {
        self.fs.remove(&self.dir.join(NAME))?;
        self.fs.sync_dir(&self.dir)
    }

    /// Removes what an attempt has left.
    pub(super) fn discard(&self) {
        let path = self.dir.join(NAME_BEFORE);
        if self.fs.exists(&path) {
            // The next attempt replaces it anyway.
            let _ = self.fs.remove(&path);
        }
    }
}

/// Writes a snapshot.
pub(super) struct SpoolWriter {
    file: File,
    offset: u64,
    buffer: Vec<u8>,
}

impl SpoolWriter {
    pub(super) fn write(&mut self, header: &FrameHeader, frame: &Frame) -> Result<()> {
        for part in [header.as_slice(), &frame.key, &frame.value] {
            // A large value goes past the buffer.
            if self.buffer.len() + part.len() > BUFFER_SIZE {
                self.flush()?;
            }
            if part.len() > BUFFER_SIZE {
                self.file.write_within_limit(part, self.offset)?;
                self.offset += part.len() as u64;
            } else {
                self.buffer.extend_from_slice(part);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_within_limit(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a snapshot.
pub(super) struct SpoolReader {
    file: File,
    offset: u64,
    buffer: Vec<u8>,
    /// How much of the buffer has been read.
    at: usize,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.buffer.resize(BUFFER_SIZE, 0);
            let size =
                self.file.read_at(&mut self.buffer, self.offset).map_err(io::Error::other)?;
            self.buffer.truncate(size);
            (self.offset, self.at) = (self.offset + size as u64, 0);
        }
        let mut left = self.buffer.get(self.at..).unwrap_or_default();
        let size = left.read(buffer)?;
        self.at += size;
        Ok(size)
    }
}

/// Reads the frames of a snapshot one by one, and checks that it has all of them.
pub(super) struct SnapshotFrames<R> {
    from: R,
    sum: Option<SnapshotSum>,
}

impl<R: Read> SnapshotFrames<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, sum: Some(SnapshotSum::default()) }
    }

    /// Returns the next frame, the last one included, or `None` after that.
    pub(super) fn next(&mut self) -> std::result::Result<Option<(Frame, FrameHeader)>, FrameError> {
        let Some(sum) = &mut self.sum else { return Ok(None) };
        let (frame, header) = read_frame(&mut self.from)?;
        match frame.kind {
            FrameKind::Failure => {
                return Err(FrameError::Broken("the leader has broken the snapshot off"));
            }
            FrameKind::End => {
                let sum = self.sum.take().unwrap_or_default();
                if sum.finish() != frame.value {
                    return Err(FrameError::Broken("the snapshot is not complete"));
                }
            }
            FrameKind::Put | FrameKind::Delete | FrameKind::Position => sum.add(&header),
        }
        Ok(Some((frame, header)))
    }
}
