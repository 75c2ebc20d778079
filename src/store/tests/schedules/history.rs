//! The record of a run: each call with its start, its end and its result, and the changes that
//! followers received.

use super::plan::Op;
use super::*;

/// A moment: its place in the order of all records, and the number of disk operations by then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) stamp: usize,
    pub(super) ops: usize,
}

/// The result of a call, as far as it can be judged.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The task is still in the call.
    Running,
    Done,
    /// The call was refused, which is allowed.
    Refused,
    /// Whether a key was present when it was changed.
    Existed(bool),
    /// For each key, its value at a moment of its own.
    Held(Vec<(usize, Option<Vec<u8>>)>),
    /// Whether a key was present.
    Contains(usize, bool),
    /// The values of all keys at one moment.
    View(Pairs),
    /// The values that a reader held, each at some moment and at least as new as its position.
    Behind(Place, Vec<(usize, Option<Vec<u8>>)>),
    /// Whether the expected value was present and was replaced.
    Swapped {
        expected: Option<Vec<u8>>,
        swapped: bool,
    },
    /// The value on which a change was based.
    Updated {
        old: Option<Vec<u8>>,
    },
    /// What a transaction has read: keys, or everything.
    Committed {
        keys: Vec<(usize, Option<Vec<u8>>)>,
        all: Option<Pairs>,
    },
}

/// One call of a task.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) began: Moment,
    pub(super) ended: Moment,
    pub(super) outcome: Outcome,
}

/// A change that a follower received.
#[derive(Debug, Clone)]
pub(super) struct ToldChange {
    pub(super) key: Vec<u8>,
    /// `None` for a delete.
    pub(super) value: Option<Vec<u8>>,
    /// The call in which the follower looked the key up next.
    pub(super) get: Option<usize>,
}

/// The changes that a follower received.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) since: Place,
    pub(super) changes: Vec<ToldChange>,
    pub(super) prefix: Option<Vec<u8>>,
    /// Whether it followed to the end of the store.
    pub(super) to_the_end: bool,
}

/// The record of a run.
#[derive(Debug)]
pub(super) struct History {
    pub(super) lab: Lab,
    pub(super) calls: Vec<Call>,
    pub(super) told: Vec<Told>,
    /// The store's content before it was closed and after it was reopened.
    pub(super) last: Pairs,
    pub(super) reopened: Pairs,
}
