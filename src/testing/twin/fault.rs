//! The failures that the twin injects, and when.
//!
//! - A fault waits for calls that match it, lets some of them succeed, and then strikes once or
//!   always.
//! - It knows nothing of files: it sees a call, and returns a kind of failure.

use std::io;

/// The kind of a call, for choosing which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Open,
    IsDir,
    List,
    Size,
    ReadAt,
    Map,
    CreateDir,
    Create,
    Write,
    SetSize,
    Allocate,
    Sync,
    SyncDir,
    Rename,
    Exchange,
    Reserve,
    Link,
    Remove,
    RemoveDir,
    Lock,
}

impl Call {
    fn only_reads(self) -> bool {
        use Call::{IsDir, List, Map, Open, ReadAt, Size};
        matches!(self, IsDir | List | Map | Open | ReadAt | Size)
    }

    /// Returns whether std or `fs::sys` repeats the call until no signal interrupts it.
    fn is_repeated(self) -> bool {
        use Call::{Allocate, Create, Open, SetSize, Sync, SyncDir, Write};
        matches!(self, Allocate | Create | Open | SetSize | Sync | SyncDir | Write)
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultKind {
    Eio,
    Enospc,
    /// The error that some file systems return for a sync of a directory.
    Einval,
    Emfile,
    /// Writes half of a write's bytes, then fails as `Eio`. For other calls the same as `Eio`.
    ShortWrite,
    /// A signal interrupts the call. Calls that are repeated then, such as writes, succeed; others
    /// return the error. On `ReadAt`, a fault that strikes forever is repeated forever.
    Interrupted,
}

impl FaultKind {
    pub(crate) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Eio | Self::ShortWrite => libc::EIO,
            Self::Enospc => libc::ENOSPC,
            Self::Einval => libc::EINVAL,
            Self::Emfile => libc::EMFILE,
            Self::Interrupted => libc::EINTR,
        })
    }
}

/// A future failure. By default it strikes the next changing call, once.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Fault {
    kind: FaultKind,
    after: usize,
    only: Option<Call>,
    reads_too: bool,
    for_ever: bool,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind) -> Self {
        Self { kind, after: 0, only: None, reads_too: false, for_ever: false }
    }

    /// Lets this many matching calls succeed first.
    pub(crate) fn after(mut self, calls: usize) -> Self {
        self.after = calls;
        self
    }

    /// Matches only one kind of call, which may be one that only reads.
    pub(crate) fn only(mut self, call: Call) -> Self {
        self.only = Some(call);
        self
    }

    /// Also matches calls that only read.
    pub(crate) fn reads_too(mut self) -> Self {
        self.reads_too = true;
        self
    }

    /// Strikes every matching call from then on.
    pub(crate) fn for_ever(mut self) -> Self {
        self.for_ever = true;
        self
    }

    fn matches(&self, call: Call) -> bool {
        self.only.map_or(self.reads_too || !call.only_reads(), |only| only == call)
    }
}

/// The armed faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Vec<Fault>,
    count: usize,
}

impl Faults {
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    pub(crate) fn disarm(&mut self) {
        self.armed.clear();
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Counts a call, and returns how it fails if a fault strikes it.
    pub(crate) fn strike(&mut self, call: Call) -> Option<FaultKind> {
        let mut struck = None;
        self.armed.retain_mut(|fault| {
            if !fault.matches(call) {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            struck = struck.or(Some(fault.kind));
            fault.for_ever
        });
        self.count += usize::from(struck.is_some());
        struck.filter(|kind| *kind != FaultKind::Interrupted || !call.is_repeated())
    }
}
