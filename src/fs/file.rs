//! An open file: read and write at an offset, grow, truncate, sync, lock, map.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
#[cfg(any(feature = "import", test, bitcask_fuzzing))]
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::at::{self, Stat};
use super::{READ, SYNC, io_context, sys};
use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
#[cfg(any(test, bitcask_fuzzing))]
use crate::testing::twin;

/// Free bytes below which a disk counts as full.
const LEFT_MIN: u64 = 1 << 20;

/// Bytes that are copied per step.
const COPY_SIZE: usize = 256 << 10;

/// An open file. Clones share one handle, which is closed with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: Arc<Path>,
    handle: Handle,
}

/// A file that is locked for as long as this value lives.
///
/// Closing the handle is not enough to unlock it: a process that another thread is just starting
/// has a copy of the handle, and with it the lock, until it executes its own program.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// The process that took the lock. A forked child has a copy of this, and must not unlock the
    /// store.
    pid: u32,
}

impl Lock {
    /// Returns the locked file, so that a forked process can release it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if std::process::id() == self.pid {
            self.file.unlock();
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Handle {
    Disk(Arc<Disk>),
    #[cfg(any(test, bitcask_fuzzing))]
    Twin(twin::TwinFile),
}

#[cfg(any(test, bitcask_fuzzing))]
impl File {
    /// Returns the twin's file, or `None` for a file of the machine.
    pub(super) fn twin(&self) -> Option<&twin::TwinFile> {
        match &self.handle {
            Handle::Disk(_) => None,
            Handle::Twin(file) => Some(file),
        }
    }
}

/// Number of open files of the machine.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Returns how many files all stores of this process have open.
pub(crate) fn open_files() -> usize {
    OPEN.load(Ordering::Relaxed)
}

impl Drop for Disk {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file of the machine.
#[derive(Debug)]
pub(super) struct Disk {
    file: std::fs::File,
    /// Lock 9: whether a sync has failed. Held during a sync: the kernel reports a failure only
    /// once per handle, so one of two concurrent syncs would otherwise succeed wrongly.
    sync_failed: Mutex<bool>,
}

impl Disk {
    pub(super) fn new(file: std::fs::File) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self { file, sync_failed: Mutex::new(false) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        self.file.sync_data().inspect_err(|_| *failed = true)
    }
}

/// The file behind a mapping.
pub(crate) enum Backing<'a> {
    Disk(&'a std::fs::File),
    #[cfg(any(test, bitcask_fuzzing))]
    Twin(&'a twin::TwinFile),
}

impl File {
    pub(super) fn new(path: &Path, handle: Handle) -> Self {
        Self { path: path.into(), handle }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the same open file with a new path for error messages, after a rename.
    pub(crate) fn renamed(self, path: &Path) -> Self {
        Self { path: path.into(), ..self }
    }

    /// Locks the file until the lock is dropped. Returns `None` if it is locked already.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let result = match &self.handle {
            Handle::Disk(disk) => fs2::FileExt::try_lock_exclusive(&disk.file),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.try_lock(),
        };
        match result {
            Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(None),
            other => self.io_context(
                "lock",
                other.map(|()| Some(Lock { file: self.clone(), pid: std::process::id() })),
            ),
        }
    }

    /// Releases the descriptor of a lock in a process that was forked from the lock's owner. The
    /// owner keeps the lock. The descriptor then refers to a harmless file. Any other user of this
    /// file in the forked process must stop using it.
    pub(super) fn release(&self, harmless: &std::fs::File) {
        match &self.handle {
            // If this fails, the descriptor is closed when the process ends.
            Handle::Disk(disk) => drop(sys::redirect(&disk.file, harmless)),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => {}
        }
    }

    fn unlock(&self) {
        match &self.handle {
            // If this fails, the lock is released with the last handle.
            Handle::Disk(disk) => drop(fs2::FileExt::unlock(&disk.file)),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.unlock(),
        }
    }

    fn io_context<T>(&self, action: &'static str, result: io::Result<T>) -> Result<T> {
        io_context(action, &self.path, result)
    }

    pub(crate) fn backing(&self) -> Backing<'_> {
        match &self.handle {
            Handle::Disk(disk) => Backing::Disk(&disk.file),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => Backing::Twin(file),
        }
    }

    /// Returns the file's attributes, or `None` for a file that is not the machine's.
    pub(super) fn stat(&self) -> io::Result<Option<Stat>> {
        match &self.handle {
            Handle::Disk(disk) => at::stat(&disk.file).map(Some),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => Ok(None),
        }
    }

    /// Returns the file's size in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        let result = match &self.handle {
            Handle::Disk(disk) => disk.file.metadata().map(|metadata| metadata.len()),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.size(),
        };
        self.io_context("inspect", result)
    }

    /// Returns the file's mode: its kind and its permissions, in which another store keeps a note.
    #[cfg(any(feature = "import", test, bitcask_fuzzing))]
    pub(crate) fn mode(&self) -> Result<u32> {
        let result = match &self.handle {
            Handle::Disk(disk) => disk.file.metadata().map(|metadata| metadata.mode()),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => Ok(0o644),
        };
        self.io_context("inspect", result)
    }

    /// Fills the buffer from an offset, up to the end of the file. Returns the number of bytes
    /// read.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(filled as u64);
            let result = match &self.handle {
                Handle::Disk(disk) => disk.file.read_at(rest, at),
                #[cfg(any(test, bitcask_fuzzing))]
                Handle::Twin(file) => file.read_at(rest, at),
            };
            match result {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.io_context(READ, Err(error)),
            }
        }
        Ok(filled)
    }

    /// Copies up to `size` bytes from an offset to the start of another file, up to the end of this
    /// one. Returns the number of bytes copied.
    pub(crate) fn copy_to(&self, target: &Self, offset: u64, size: u64) -> Result<u64> {
        self.copy_to_until(target, offset, size, || false)
    }

    /// Like [`copy_to`](Self::copy_to), and stops after some part once `is_over` returns true.
    pub(crate) fn copy_to_until(
        &self,
        target: &Self,
        offset: u64,
        size: u64,
        is_over: impl Fn() -> bool,
    ) -> Result<u64> {
        let mut buffer = vec![0; COPY_SIZE];
        let mut copied = 0;
        while copied < size && !is_over() {
            let wanted = usize::try_from(size - copied).unwrap_or(COPY_SIZE).min(COPY_SIZE);
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let read_size = self.read_at(part, offset + copied)?;
            if read_size == 0 {
                break;
            }
            target.write_within_limit(part.get(..read_size).unwrap_or_default(), copied)?;
            copied += read_size as u64;
        }
        Ok(copied)
    }

    /// Writes all the bytes at an offset. After a failure any part of them may have been written.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let result = match &self.handle {
            Handle::Disk(disk) => disk.file.write_all_at(bytes, offset),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.write_all_at(bytes, offset),
        };
        self.io_context("write", result)
    }

    /// Writes all the bytes at an offset, in a file without reserved space. If the file would
    /// exceed the process's size limit, this fails instead of raising the signal that ends the
    /// process.
    pub(crate) fn write_within_limit(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.check_limit("write", offset.saturating_add(bytes.len() as u64))?;
        self.write_at(bytes, offset)
    }

    fn check_limit(&self, action: &'static str, size: u64) -> Result<()> {
        match &self.handle {
            Handle::Disk(_) if size > sys::file_size_limit() => {
                self.io_context(action, Err(ErrorKind::FileTooLarge.into()))
            }
            Handle::Disk(_) => Ok(()),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => Ok(()),
        }
    }

    /// Makes the content and the size durable.
    pub(crate) fn sync(&self) -> Result<()> {
        if made(Mistake::NoSync) {
            return Ok(());
        }
        let result = match &self.handle {
            Handle::Disk(disk) => disk.sync(),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.sync(),
        };
        self.io_context(SYNC, result)
    }

    /// Truncates the file, or extends it with zeros without allocating space for them.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        let result = match &self.handle {
            Handle::Disk(disk) => disk.file.set_len(size),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.set_size(size),
        };
        self.io_context("set the size of", result)
    }

    /// Extends the file with zeros and allocates space for them, so that later writes there can't
    /// run out of space. A failure leaves the size unchanged. Existing content is not touched, so
    /// another thread may be storing there.
    pub(crate) fn allocate(&self, size: u64) -> Result<()> {
        self.check_limit("grow", size)?;
        let before = self.size()?;
        let result = match &self.handle {
            Handle::Disk(disk) => match sys::allocate(&disk.file, before, size) {
                // Some file systems and C libraries can't allocate: the file grows without the
                // guarantee.
                Err(error) if error.kind() == ErrorKind::Unsupported => disk.file.set_len(size),
                result => result,
            },
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.allocate(size),
        };
        self.io_context("grow", result).inspect_err(|_| {
            // A part may have been allocated. If this fails, a later truncation frees it.
            let _ = self.set_size(before);
        })
    }

    /// Reserves space for the file's first `size` bytes, as far as the file system supports it,
    /// without making the file longer. Truncating the file frees the space.
    pub(crate) fn reserve(&self, size: u64) -> Result<()> {
        self.check_limit("reserve space in", size)?;
        let result = match &self.handle {
            Handle::Disk(disk) => match sys::reserve(&disk.file, size) {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
                result => result,
            },
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(file) => file.reserve(size),
        };
        self.io_context("reserve space in", result)
    }

    /// Returns whether a page that was written once may need space again when it changes.
    pub(crate) fn copies_on_write(&self) -> bool {
        match &self.handle {
            Handle::Disk(disk) => sys::copies_on_write(&disk.file),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => false,
        }
    }

    /// Returns how much free space the file system requires before it creates a file, apart from
    /// what the file takes.
    pub(crate) fn creation_size(&self) -> u64 {
        match &self.handle {
            Handle::Disk(disk) => sys::creation_size(&disk.file),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => 0,
        }
    }

    /// Returns the error for pages of a mapping that could not be populated. A bad address stands
    /// for a page for which the file system has no space, or that it could not read.
    pub(crate) fn unpopulated<T>(&self, error: io::Error) -> Result<T> {
        let full = || match &self.handle {
            Handle::Disk(disk) => sys::left(&disk.file).is_ok_and(|left| left.bytes < LEFT_MIN),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => false,
        };
        if error.raw_os_error() == Some(libc::EFAULT) && full() {
            return Err(Error::NoSpace { path: self.path.to_path_buf() });
        }
        self.io_context("populate", Err(error))
    }

    /// Drops the file from the kernel's cache, so that later reads come from the disk: an earlier
    /// failed sync may have left pages in the cache that are not on the disk. Pages still in use by
    /// a mapping stay.
    pub(crate) fn drop_cache(&self) {
        match &self.handle {
            Handle::Disk(disk) => sys::drop_cache(&disk.file),
            #[cfg(any(test, bitcask_fuzzing))]
            Handle::Twin(_) => {}
        }
    }
}
