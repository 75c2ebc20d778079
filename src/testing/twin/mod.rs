//! An in-memory disk behind `fs`, for tests.
//!
//! - It behaves like a Unix file system: names lead to files, open handles and mappings outlive the
//!   names, locks end with their handle.
//! - It records every operation that changes or syncs something. The same code applies an operation
//!   when it happens and when a crash image is made of it, so the two cannot disagree.
//! - It fails any call on demand (`fault`), and computes what a crash would leave (`crash`).
//! - A failed operation changes nothing and is not recorded. A short write is recorded as the part
//!   that was written.
//! - One lock guards everything. Mappings have their own (`arena`), since they are read without
//!   calling the disk.

mod arena;
mod crash;
mod disk;
mod fault;
mod file;
mod interference;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::arena::TwinMap;
pub(crate) use self::crash::{Kept, Unsynced};
pub(crate) use self::fault::{Call, Fault, FaultKind};
pub(crate) use self::file::TwinFile;

use self::crash::{History, Step};
use self::disk::{Disk, Node};
use self::fault::Faults;
use crate::fs::{Access, DirEntry, parent};
use crate::sync::unmodeled::Mutex;

#[cfg(shuttle)]
shuttle::thread_local! {
    /// The number of the store call that a task of a schedule is making.
    pub(crate) static CALLER: std::cell::Cell<u64> = std::cell::Cell::new(0);
}

/// An operation that changed or synced something. `file` is a number that no two files share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    CreateDir {
        path: PathBuf,
    },
    /// A new file, or an existing one that was emptied: then `file` is already known.
    Create {
        file: u64,
        path: PathBuf,
    },
    Write {
        file: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetSize {
        file: u64,
        size: u64,
    },
    Allocate {
        file: u64,
        size: u64,
    },
    Sync {
        file: u64,
    },
    SyncDir {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// Two files exchange their names.
    Exchange {
        a: PathBuf,
        b: PathBuf,
    },
    /// Space is reserved without making the file longer.
    Reserve {
        file: u64,
        size: u64,
    },
    /// A second name for a file.
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    RemoveDir {
        path: PathBuf,
    },
    Lock {
        file: u64,
    },
}

impl Op {
    fn call(&self) -> Call {
        match self {
            Self::CreateDir { .. } => Call::CreateDir,
            Self::Create { .. } => Call::Create,
            Self::Write { .. } => Call::Write,
            Self::SetSize { .. } => Call::SetSize,
            Self::Allocate { .. } => Call::Allocate,
            Self::Sync { .. } => Call::Sync,
            Self::SyncDir { .. } => Call::SyncDir,
            Self::Rename { .. } => Call::Rename,
            Self::Exchange { .. } => Call::Exchange,
            Self::Reserve { .. } => Call::Reserve,
            Self::Link { .. } => Call::Link,
            Self::Remove { .. } => Call::Remove,
            Self::RemoveDir { .. } => Call::RemoveDir,
            Self::Lock { .. } => Call::Lock,
        }
    }
}

/// The disk. It has the methods of `Fs`, and others for tests.
pub(crate) struct Twin {
    inner: Mutex<Inner>,
    interference: interference::Interference,
}

struct Inner {
    disk: Disk,
    history: History,
    faults: Faults,
    /// Number of calls that could have failed, including reads.
    call_count: usize,
    /// Limit in bytes on the total size of linked files.
    space: u64,
    /// Whether a file can have a second name.
    has_links: bool,
    /// Whether two files can exchange their names.
    has_exchanges: bool,
    /// The handle that holds each file's lock.
    locks: BTreeMap<u64, u64>,
    handle_count: u64,
}

impl Twin {
    /// Creates an empty disk: a root directory with nothing in it.
    pub(crate) fn new() -> Arc<Self> {
        Self::of(Disk::default())
    }

    /// Creates a disk that starts from what is linked in `disk`, all of it durable.
    fn of(mut disk: Disk) -> Arc<Self> {
        disk.drop_unreachable();
        let inner = Inner {
            history: History::new(disk.copy()),
            disk,
            faults: Faults::default(),
            call_count: 0,
            space: u64::MAX,
            has_links: true,
            has_exchanges: true,
            locks: BTreeMap::new(),
            handle_count: 0,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            interference: interference::Interference::default(),
        })
    }

    pub(crate) fn open(self: &Arc<Self>, path: &Path, access: Access) -> io::Result<TwinFile> {
        self.interference.run_on_open(path, access);
        let mut inner = self.inner.lock();
        let path = rooted(path);
        let is_missing = inner.disk.names.get(&path).is_none();
        if access == Access::CreateNew && !is_missing {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let is_new = access == Access::CreateNew || access == Access::Keep && is_missing;
        let file = if access == Access::Create || is_new {
            inner.create(path)?
        } else {
            inner.look(Call::Open)?;
            // Unix can open a directory for reading, but the store never does that on purpose.
            inner.disk.names.file(&path)?
        };
        inner.handle_count += 1;
        let handle = inner.handle_count;
        Ok(TwinFile::new(Arc::clone(self), file, handle, access))
    }

    pub(crate) fn is_dir(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.inner.lock();
        inner.look(Call::IsDir)?;
        Ok(inner.disk.names.find(&rooted(path))? == Node::Dir)
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.inner.lock().disk.names.get(&rooted(path)).is_some()
    }

    pub(crate) fn leads_to(&self, path: &Path, file: &TwinFile) -> bool {
        let found = self.inner.lock().disk.names.get(&rooted(path));
        found == Some(Node::File(file.number()))
    }

    pub(crate) fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = rooted(path);
        match inner.disk.names.find(&path) {
            Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => inner.disk.names.dir(parent(&path))?,
        }
        inner.check_space(1)?;
        inner.change(Op::CreateDir { path })
    }

    pub(crate) fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut inner = self.inner.lock();
        inner.look(Call::List)?;
        inner.disk.names.list(&rooted(dir))
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = rooted(path);
        inner.disk.names.dir(&path)?;
        inner.change(Op::SyncDir { path })
    }

    /// Renames a file. The store never renames directories, so they are refused.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let (from, to) = (rooted(from), rooted(to));
        inner.disk.names.file(&from)?;
        inner.disk.names.dir(parent(&to))?;
        if inner.disk.names.get(&to) == Some(Node::Dir) {
            return Err(ErrorKind::IsADirectory.into());
        }
        inner.change(Op::Rename { from, to })
    }

    pub(crate) fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let (a, b) = (rooted(a), rooted(b));
        inner.disk.names.file(&a)?;
        inner.disk.names.file(&b)?;
        if !inner.has_exchanges {
            return Err(ErrorKind::InvalidInput.into());
        }
        inner.change(Op::Exchange { a, b })
    }

    pub(crate) fn is_sole_file(&self, path: &Path) -> io::Result<bool> {
        let mut inner = self.inner.lock();
        inner.look(Call::IsDir)?;
        let Node::File(file) = inner.disk.names.find(&rooted(path))? else { return Ok(false) };
        Ok(inner.disk.names.files().filter(|(_, other)| *other == file).count() == 1)
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let (from, to) = (rooted(from), rooted(to));
        inner.disk.names.file(&from)?;
        inner.disk.names.dir(parent(&to))?;
        if inner.disk.names.get(&to).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !inner.has_links {
            return Err(ErrorKind::CrossesDevices.into());
        }
        inner.check_space(1)?;
        inner.change(Op::Link { from, to })
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = rooted(path);
        inner.disk.names.file(&path)?;
        inner.change(Op::Remove { path })
    }

    pub(crate) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let path = rooted(path);
        if !inner.disk.names.list(&path)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        inner.change(Op::RemoveDir { path })
    }

    /// Arms a fault, in addition to those already armed.
    pub(crate) fn fail(&self, fault: Fault) {
        self.inner.lock().faults.arm(fault);
    }

    /// Disarms all faults. Their past effects remain.
    pub(crate) fn clear_fault(&self) {
        self.inner.lock().faults.disarm();
    }

    /// Returns how many times a fault has struck, including interruptions that were retried.
    pub(crate) fn fault_count(&self) -> usize {
        self.inner.lock().faults.count()
    }

    /// Returns how many bytes linked files may still occupy.
    pub(crate) fn available_space(&self) -> u64 {
        let inner = self.inner.lock();
        inner.space.saturating_sub(inner.disk.room())
    }

    /// Limits the total size of linked files, in bytes.
    ///
    /// At the limit nothing can be created either. A file's size counts up to the highest byte that
    /// was allocated or written; extending a file by `set_size` alone costs nothing.
    pub(crate) fn set_space(&self, bytes: u64) {
        self.inner.lock().space = bytes;
    }

    /// Makes every link fail from now on, as if each directory were its own file system.
    pub(crate) fn refuse_links(&self) {
        self.inner.lock().has_links = false;
    }

    /// Makes every exchange of names fail from now on, as on an old kernel.
    pub(crate) fn refuse_exchanges(&self) {
        self.inner.lock().has_exchanges = false;
    }

    /// Returns the number of operations in the trace.
    pub(crate) fn op_count(&self) -> usize {
        self.inner.lock().history.op_count()
    }

    /// Returns the number of calls so far that a fault on any call could have struck.
    pub(crate) fn call_count(&self) -> usize {
        self.inner.lock().call_count
    }

    /// Returns every operation since the start, in order.
    pub(crate) fn trace(&self) -> Vec<Op> {
        self.inner.lock().history.trace()
    }

    /// Returns, for each operation of the trace, the call of a schedule in which it was made.
    #[cfg(shuttle)]
    pub(crate) fn callers(&self) -> Vec<u64> {
        self.inner.lock().history.callers()
    }

    /// Returns a file's bytes, if the file exists.
    pub(crate) fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        let file = inner.disk.names.file(&rooted(path)).ok()?;
        Some(inner.disk.content(file).bytes())
    }

    /// Returns the paths of all files, in order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.inner.lock().disk.names.files().map(|(path, _)| path.to_path_buf()).collect()
    }

    /// Puts a file in place of whatever has its name, immediately durable and not traced.
    ///
    /// Creates missing directories on the way. Open handles keep the file they had.
    pub(crate) fn put_file(&self, path: &Path, bytes: Vec<u8>) {
        let mut inner = self.inner.lock();
        let file = inner.disk.next_file;
        inner.commit(Step::Put { file, path: rooted(path), bytes });
    }

    /// Removes a file, immediately durable and not traced.
    pub(crate) fn delete_file(&self, path: &Path) {
        self.inner.lock().commit(Step::Delete { path: rooted(path) });
    }
}

impl fmt::Debug for Twin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Twin").finish_non_exhaustive()
    }
}

impl Inner {
    /// Counts a call that only reads. Fails if a fault strikes it.
    fn look(&mut self, call: Call) -> io::Result<()> {
        self.call_count += 1;
        self.faults.strike(call).map_or(Ok(()), |kind| Err(kind.error()))
    }

    /// Performs an operation that was found possible, unless a fault strikes it.
    ///
    /// Impossible operations do not get here, so the n-th changing call is the n-th operation of a
    /// trace that was recorded without faults.
    fn change(&mut self, mut op: Op) -> io::Result<()> {
        self.call_count += 1;
        let Some(kind) = self.faults.strike(op.call()) else {
            self.commit(Step::Op(op));
            return Ok(());
        };
        if let Op::Write { bytes, .. } = &mut op
            && kind == FaultKind::ShortWrite
        {
            bytes.truncate(bytes.len() / 2);
            if !bytes.is_empty() {
                self.commit(Step::Op(op));
            }
        }
        Err(kind.error())
    }

    fn commit(&mut self, step: Step) {
        self.disk.apply(&step);
        self.history.push(step);
    }

    fn create(&mut self, path: PathBuf) -> io::Result<u64> {
        let file = match self.disk.names.find(&path) {
            Ok(Node::File(file)) => file,
            Ok(Node::Dir) => return Err(ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => {
                self.disk.names.dir(parent(&path))?;
                self.check_space(1)?;
                self.disk.next_file
            }
        };
        self.change(Op::Create { file, path })?;
        Ok(file)
    }

    /// Returns an error if fewer than `more` bytes are left.
    fn check_space(&self, more: u64) -> io::Result<()> {
        if more > 0 && self.disk.room().saturating_add(more) > self.space {
            return Err(FaultKind::Enospc.error());
        }
        Ok(())
    }
}

/// Resolves a path; the disk's working directory is its root.
fn rooted(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
