//! An open file of the twin, with or without a name.
//!
//! - Its methods are those of `File`. They check what is possible, and leave it to the disk to
//!   perform the operation or fail it.
//! - Only a handle opened for writing can change anything, as on Unix.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::arena::TwinMap;
use super::fault::Call;
use super::{Inner, Op, Twin};
use crate::fs::Access;
use crate::sync::unmodeled::MutexGuard;

/// An open file. Clones share one handle, which is closed with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct TwinFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    twin: Arc<Twin>,
    file: u64,
    handle: u64,
    access: Access,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut inner = self.twin.inner.lock();
        if inner.locks.get(&self.file) == Some(&self.handle) {
            inner.locks.remove(&self.file);
        }
    }
}

impl TwinFile {
    pub(crate) fn new(twin: Arc<Twin>, file: u64, handle: u64, access: Access) -> Self {
        Self(Arc::new(Opened { twin, file, handle, access }))
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.file
    }

    pub(crate) fn try_lock(&self) -> io::Result<()> {
        let Opened { twin, file, handle, .. } = &*self.0;
        let mut inner = twin.inner.lock();
        if inner.locks.get(file).is_some_and(|holder| holder != handle) {
            return Err(fs2::lock_contended_error());
        }
        inner.change(Op::Lock { file: *file })?;
        inner.locks.insert(*file, *handle);
        Ok(())
    }

    /// Releases the lock while the handle is still open.
    pub(crate) fn unlock(&self) {
        let Opened { twin, file, handle, .. } = &*self.0;
        let mut inner = twin.inner.lock();
        if inner.locks.get(file) == Some(handle) {
            inner.locks.remove(file);
        }
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        let mut inner = self.0.twin.inner.lock();
        inner.look(Call::Size)?;
        Ok(inner.disk.content(self.0.file).size())
    }

    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.twin.interference.run(None);
        let mut inner = self.0.twin.inner.lock();
        inner.look(Call::ReadAt)?;
        Ok(inner.disk.content(self.0.file).read_at(buffer, offset))
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // An empty write makes no system call, and extends nothing.
        if bytes.is_empty() {
            return Ok(());
        }
        let mut inner = self.writable()?;
        let end = offset.saturating_add(bytes.len() as u64);
        if i64::try_from(end).is_err() {
            return Err(ErrorKind::FileTooLarge.into());
        }
        inner.check_space(end.saturating_sub(inner.disk.content(self.0.file).room()))?;
        inner.change(Op::Write { file: self.0.file, offset, bytes: bytes.to_vec() })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.twin.inner.lock().change(Op::Sync { file: self.0.file })
    }

    pub(crate) fn set_size(&self, size: u64) -> io::Result<()> {
        self.writable()?.change(Op::SetSize { file: self.0.file, size })
    }

    pub(crate) fn allocate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.writable()?;
        inner.check_space(size.saturating_sub(inner.disk.content(self.0.file).room()))?;
        inner.change(Op::Allocate { file: self.0.file, size })
    }

    pub(crate) fn reserve(&self, size: u64) -> io::Result<()> {
        let mut inner = self.writable()?;
        inner.check_space(size.saturating_sub(inner.disk.content(self.0.file).room()))?;
        inner.change(Op::Reserve { file: self.0.file, size })
    }

    /// Maps the first `size` bytes for reading. The file may be shorter, and grow under the map.
    pub(crate) fn map(&self, size: usize) -> io::Result<TwinMap> {
        let mut inner = self.0.twin.inner.lock();
        inner.look(Call::Map)?;
        Ok(inner.disk.content_mut(self.0.file).map(size))
    }

    /// Locks the disk for a change that only a handle opened for writing may make.
    fn writable(&self) -> io::Result<MutexGuard<'_, Inner>> {
        if self.0.access == Access::Read {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(self.0.twin.inner.lock())
    }
}
