//! What a crash leaves of a twin's disk, at any moment of its trace.
//!
//! - An image is computed from only the initial state and the trace, so every moment of a run can
//!   be examined after the run.
//! - If the process dies, nothing is lost, since the kernel has everything. A power cut loses what
//!   was not synced: contents by their file, names by their directory. POSIX promises no more.
//! - Unsynced operations may have reached the disk all the same, in any selection; the test
//!   chooses. Of a single write any part may be present, or only the resulting file length.
//! - Locks end with the processes that hold them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::Disk;
use super::{Op, Twin, parent};

/// An operation of the trace, or a change that a test made to the disk directly.
#[derive(Clone)]
pub(crate) enum Step {
    Op(Op),
    Put { file: u64, path: PathBuf, bytes: Vec<u8> },
    Delete { path: PathBuf },
}

/// The initial state of a disk, and everything that happened since.
pub(crate) struct History {
    base: Disk,
    steps: Vec<Step>,
    op_count: usize,
    /// For each operation, the call of a schedule in which it was made.
    #[cfg(shuttle)]
    callers: Vec<u64>,
}

/// An operation that no sync has followed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unsynced<'a> {
    /// The content or the size of a file. Also a `Create` that emptied an existing file.
    Data(&'a Op),
    /// A name in a directory.
    Name(&'a Op),
}

/// How much of an unsynced operation has reached the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    All,
    /// Of a write, only the resulting file length; the bytes are zeros or unchanged. Of other
    /// operations everything.
    Size,
    /// Of a write, the bytes in these ranges of the file. Of other operations everything.
    Parts(Vec<Range<u64>>),
}

impl Unsynced<'_> {
    pub(crate) fn op(&self) -> &Op {
        let (Self::Data(op) | Self::Name(op)) = self;
        op
    }
}

impl Kept {
    pub(crate) fn part(range: Range<u64>) -> Self {
        Self::Parts(std::iter::once(range).collect())
    }

    /// Returns the steps that remain of one step.
    fn of(self, step: &Step) -> Vec<Step> {
        let Step::Op(Op::Write { file, offset, bytes }) = step else {
            return if self == Self::Nothing { vec![] } else { vec![step.clone()] };
        };
        let (file, end) = (*file, offset + bytes.len() as u64);
        match self {
            Self::Nothing => vec![],
            Self::All => vec![step.clone()],
            Self::Size => vec![Step::Op(Op::Allocate { file, size: end })],
            Self::Parts(parts) => {
                let within = |part: Range<u64>| part.start.max(*offset)..part.end.min(end);
                let write = |part: Range<u64>| {
                    let from = usize::try_from(part.start - offset).expect("within the bytes");
                    let until = usize::try_from(part.end - offset).expect("within the bytes");
                    let bytes = bytes[from..until].to_vec();
                    Step::Op(Op::Write { file, offset: part.start, bytes })
                };
                parts
                    .into_iter()
                    .map(within)
                    .filter(|part| part.start < part.end)
                    .map(write)
                    .collect()
            }
        }
    }
}

impl Twin {
    /// Returns the disk as it is when the process dies after the first `ops` operations.
    pub(crate) fn kill_image(&self, ops: usize) -> Arc<Self> {
        let inner = self.inner.lock();
        let mut disk = inner.history.base.copy();
        for step in inner.history.first(ops) {
            disk.apply(step);
        }
        Self::of(disk)
    }

    /// Returns the disk as it is when the process dies now.
    pub(crate) fn kill_image_now(&self) -> Arc<Self> {
        self.kill_image(self.op_count())
    }

    /// Returns the disk as it is when the process dies after the first `ops` operations, with the
    /// trace so far: a later power cut may still undo unsynced operations.
    pub(crate) fn killed(&self, ops: usize) -> Arc<Self> {
        let inner = self.inner.lock();
        let twin = Self::of(inner.history.base.copy());
        {
            let mut killed = twin.inner.lock();
            for step in inner.history.first(ops) {
                killed.commit(step.clone());
            }
        }
        twin
    }

    /// Returns the disk as a power cut after the first `ops` operations leaves it.
    ///
    /// `keep` decides for each unsynced operation among them, in order, whether it reached the
    /// disk. It must not use this twin, which is locked meanwhile.
    pub(crate) fn power_image(
        &self,
        ops: usize,
        mut keep: impl FnMut(Unsynced<'_>) -> bool,
    ) -> Arc<Self> {
        self.torn_image(ops, |unsynced| if keep(unsynced) { Kept::All } else { Kept::Nothing })
    }

    /// Like `power_image`, but any part of each operation may have reached the disk.
    pub(crate) fn torn_image(
        &self,
        ops: usize,
        mut keep: impl FnMut(Unsynced<'_>) -> Kept,
    ) -> Arc<Self> {
        let inner = self.inner.lock();
        let steps = inner.history.first(ops);
        let syncs = Syncs::of(steps);
        let mut disk = inner.history.base.copy();
        let mut live = disk.names.clone();
        for (at, step) in steps.iter().enumerate() {
            let edits = live.edits(step);
            let unsynced = match step {
                Step::Op(op) => syncs.unsynced(op, at, !edits.is_empty()),
                Step::Put { .. } | Step::Delete { .. } => None,
            };
            if let Step::Op(Op::Create { file, .. }) = step {
                // The file may have no name, but it exists: a later rename may give it a durable
                // name.
                disk.content_mut(*file);
            }
            let kept = unsynced.map_or(Kept::All, &mut keep);
            if kept != Kept::Nothing {
                disk.names.edit(edits.clone());
            }
            if kept == Kept::All {
                disk.apply_to_content(step);
            } else {
                kept.of(step).iter().for_each(|left| disk.apply_to_content(left));
            }
            live.edit(edits);
        }
        Self::of(disk)
    }

    /// Returns the operations among the first `ops` that a power cut at that point may undo, in
    /// order. The flag is `true` for operations on names.
    pub(crate) fn unsynced(&self, ops: usize) -> Vec<(Op, bool)> {
        let mut found = Vec::new();
        self.power_image(ops, |unsynced| {
            found.push((unsynced.op().clone(), matches!(unsynced, Unsynced::Name(_))));
            true
        });
        found
    }

    /// Returns a hash of the disk's names and contents.
    pub(crate) fn fingerprint(&self) -> u128 {
        self.inner.lock().disk.fingerprint()
    }

    /// Returns a copy of the present disk, all of it durable.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Self::of(self.inner.lock().disk.copy())
    }
}

impl History {
    pub(crate) fn new(base: Disk) -> Self {
        Self {
            base,
            steps: Vec::new(),
            op_count: 0,
            #[cfg(shuttle)]
            callers: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, step: Step) {
        #[cfg(shuttle)]
        if matches!(step, Step::Op(_)) {
            self.callers.push(super::CALLER.with(std::cell::Cell::get));
        }
        self.op_count += usize::from(matches!(step, Step::Op(_)));
        self.steps.push(step);
    }

    pub(crate) fn op_count(&self) -> usize {
        self.op_count
    }

    #[cfg(shuttle)]
    pub(crate) fn callers(&self) -> Vec<u64> {
        self.callers.clone()
    }

    pub(crate) fn trace(&self) -> Vec<Op> {
        let op = |step: &Step| match step {
            Step::Op(op) => Some(op.clone()),
            _ => None,
        };
        self.steps.iter().filter_map(op).collect()
    }

    /// Returns the steps that came before the operation with the index `ops`.
    fn first(&self, ops: usize) -> &[Step] {
        assert!(ops <= self.op_count, "the trace has {} operations, not {ops}", self.op_count);
        let mut indexes = (0..self.steps.len()).filter(|i| matches!(self.steps[*i], Step::Op(_)));
        &self.steps[..indexes.nth(ops).unwrap_or(self.steps.len())]
    }
}

/// The index of the last sync of each file and each directory among the steps.
struct Syncs<'a> {
    files: BTreeMap<u64, usize>,
    dirs: BTreeMap<&'a Path, usize>,
}

impl<'a> Syncs<'a> {
    fn of(steps: &'a [Step]) -> Self {
        let mut syncs = Self { files: BTreeMap::new(), dirs: BTreeMap::new() };
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Op(Op::Sync { file }) => syncs.files.insert(*file, at),
                Step::Op(Op::SyncDir { path }) => syncs.dirs.insert(path, at),
                _ => None,
            };
        }
        syncs
    }

    /// Returns what may be missing after a power cut, if the operation at `at` is not durable.
    fn unsynced<'b>(&self, op: &'b Op, at: usize, changes_names: bool) -> Option<Unsynced<'b>> {
        let content = |file| self.files.get(file).is_some_and(|sync| *sync > at);
        let name = |path| self.dirs.get(parent(path)).is_some_and(|sync| *sync > at);
        let (is_durable, unsynced) = match op {
            Op::Create { file, .. } if !changes_names => (content(file), Unsynced::Data(op)),
            Op::Write { file, .. }
            | Op::SetSize { file, .. }
            | Op::Allocate { file, .. }
            | Op::Reserve { file, .. } => (content(file), Unsynced::Data(op)),
            Op::Create { path, .. }
            | Op::CreateDir { path }
            | Op::Link { to: path, .. }
            | Op::Remove { path }
            | Op::RemoveDir { path } => (name(path), Unsynced::Name(op)),
            Op::Exchange { a, b } => (name(a) && name(b), Unsynced::Name(op)),
            Op::Rename { from, to } => (name(from) && name(to), Unsynced::Name(op)),
            Op::Sync { .. } | Op::SyncDir { .. } | Op::Lock { .. } => return None,
        };
        (!is_durable).then_some(unsynced)
    }
}
