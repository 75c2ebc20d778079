//! The order in which changes were appended, read from the trace of the disk. It does not depend on
//! what merges and clears have done to the files since, nor on what the store reports about itself.

use super::history::{Call, History};
use super::*;
use crate::segment::header::{Kind, SIZE, SegmentHeader};
use crate::testing::twin::Op as DiskOp;

/// A change of the store's state.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The place of an entry, or of the beginning of the log after a clear.
    pub(super) place: Place,
    /// The call that made it.
    pub(super) call: usize,
    /// The number of disk operations when it was completely written.
    pub(super) written: usize,
    pub(super) change: Made,
}

#[derive(Debug, Clone)]
pub(super) enum Made {
    Clear,
    Entry {
        key: Vec<u8>,
        /// `None` for a tombstone.
        value: Option<Vec<u8>>,
        /// The time at which it expires.
        expiry: Option<u64>,
        /// Whether the batch continues.
        continues: bool,
    },
}

/// All changes, oldest first, and the time, which stands still.
pub(super) struct Order(pub(super) Vec<Step>, u64);

/// The bytes ever written to a file, and the operations that wrote them.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// The offset, the operation, and the call.
    writes: Vec<(std::ops::Range<usize>, usize, u64)>,
}

impl Written {
    fn write(&mut self, offset: usize, bytes: &[u8], at: usize, caller: u64) {
        let range = offset..offset + bytes.len();
        // The padding of the last entry is not written.
        self.bytes.resize(self.bytes.len().max(range.end + 8), 0);
        self.bytes[range.clone()].copy_from_slice(bytes);
        self.writes.push((range, at, caller));
    }

    /// Returns the call that wrote an entry, and when the entry was complete.
    fn origin(&self, entry: &std::ops::Range<usize>) -> (usize, usize) {
        let own = self
            .writes
            .iter()
            .filter(|(range, ..)| range.start < entry.end && entry.start < range.end);
        let (_, last, caller) = own.max_by_key(|(_, at, _)| *at).unwrap();
        (usize::try_from(*caller).unwrap(), last + 1)
    }
}

impl Order {
    pub(super) fn of(history: &History, now: u64) -> Self {
        let (trace, callers) = (history.lab.twin.trace(), history.lab.twin.callers());
        let mut files = BTreeMap::<u64, Written>::new();
        let mut steps = Vec::new();
        for (at, (op, caller)) in trace.iter().zip(callers).enumerate() {
            match op {
                DiskOp::Create { file, path } if path.parent() == Some(Path::new(DIR)) => {
                    files.insert(*file, Written::default());
                }
                DiskOp::Write { file, offset, bytes } => {
                    if let Some(written) = files.get_mut(file) {
                        written.write(usize::try_from(*offset).unwrap(), bytes, at, caller);
                    }
                }
                _ => {}
            }
        }
        for written in files.values() {
            let Some(Ok(header)) = written.bytes.get(..SIZE).map(|bytes| {
                SegmentHeader::decode(bytes.try_into().unwrap(), Path::new("a segment"))
            }) else {
                continue;
            };
            if header.kind == Kind::Log {
                entries(written, header.id, &mut steps);
            }
        }
        for (number, call) in (1..).zip(&history.calls) {
            steps.extend(cleared(number, call, &trace, history));
        }
        steps.sort_by_key(|step| step.place);
        Self(steps, now)
    }

    /// Returns the length of the longest prefix of at most `most` changes that ends with a complete
    /// batch.
    pub(super) fn whole(&self, most: usize) -> usize {
        let is_whole = |len: &usize| match len.checked_sub(1).map(|last| &self.0[last].change) {
            Some(Made::Entry { continues, .. }) => !continues,
            _ => true,
        };
        (0..=most).rev().find(is_whole).unwrap()
    }

    /// Returns the state after the first `len` changes.
    pub(super) fn state(&self, len: usize) -> Pairs {
        let mut pairs = Pairs::new();
        for step in &self.0[..len] {
            match &step.change {
                Made::Clear => pairs.clear(),
                Made::Entry { key, value: Some(value), expiry, .. }
                    if expiry.is_none_or(|expiry| expiry > self.1) =>
                {
                    pairs.insert(key.clone(), value.clone());
                }
                Made::Entry { key, .. } => drop(pairs.remove(key)),
            }
        }
        pairs
    }
}

/// Collects the entries of keys in a segment.
fn entries(written: &Written, id: SegmentId, steps: &mut Vec<Step>) {
    let mut offset = SIZE;
    while let Some(rest) = written.bytes.get(offset..)
        && let Ok(Some(entry)) = Entry::decode(rest)
        && entry.check(Salt::new(id.0, offset as u64)).is_ok()
    {
        let header = entry.header().unwrap();
        let size = usize::try_from(header.entry_size()).unwrap();
        if header.is_put_or_delete() {
            let (call, whole) = written.origin(&(offset..offset + size));
            let change = Made::Entry {
                key: entry.key().to_vec(),
                value: (!header.is_tombstone()).then(|| entry.value().to_vec()),
                expiry: header.expiry,
                continues: header.flags.has(Flags::CONTINUES),
            };
            let place = Place::new(id, offset as u64);
            steps.push(Step { place, call, written: whole, change });
        }
        offset += size;
    }
}

/// Returns the change that a clear made: the log restarts in the segment that the clear created,
/// once the manifest says so.
fn cleared(number: usize, call: &Call, trace: &[DiskOp], history: &History) -> Option<Step> {
    if !matches!(call.op, plan::Op::Clear) {
        return None;
    }
    let callers = history.lab.twin.callers();
    let mut own = trace.iter().enumerate().filter(|(at, _)| callers[*at] == number as u64);
    let mut found = (None, 0);
    own.by_ref().for_each(|(at, op)| {
        let (DiskOp::Rename { to, .. } | DiskOp::Exchange { b: to, .. }) = op else { return };
        match FileKind::of(to.file_name().unwrap().to_str().unwrap()) {
            FileKind::Log(id) => found.0 = Some(id),
            _ if to.ends_with("MANIFEST") => found.1 = at + 1,
            _ => {}
        }
    });
    let place = Place::new(found.0?, 0);
    Some(Step { place, call: number, written: found.1, change: Made::Clear })
}
