//! What was seen of a run: each call with its beginning, its end and what it returned, and what followers
//! were told.

use super::plan::Op;
use super::*;

/// When something was: in the order of all notes, and how many operations the disk had seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) stamp: usize,
    pub(super) ops: usize,
}

/// What a call returned, as far as there is something to be judged.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The task is still in it.
    Running,
    Done,
    /// It was refused, which may happen.
    Refused,
    /// A key was there when it was changed.
    Existed(bool),
    /// Of keys, what each held, at some moment of its own.
    Held(Vec<(usize, Option<Vec<u8>>)>),
    /// Whether a key was there.
    Contains(usize, bool),
    /// What all keys held at one moment.
    View(Pairs),
    /// What a reader held behind a position of its own, each key at some moment.
    Behind(Place, Vec<(usize, Option<Vec<u8>>)>),
    /// Whether what was expected was there, and was replaced.
    Swapped {
        expected: Option<Vec<u8>>,
        swapped: bool,
    },
    /// What a change was made of.
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

/// A change as a follower received it.
#[derive(Debug, Clone)]
pub(super) struct ToldChange {
    pub(super) key: Vec<u8>,
    /// `None` for a delete.
    pub(super) value: Option<Vec<u8>>,
    /// The call in which the follower has looked the key up next.
    pub(super) get: Option<usize>,
}

/// What a follower received.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) since: Place,
    pub(super) changes: Vec<ToldChange>,
    pub(super) prefix: Option<Vec<u8>>,
    /// Whether it went on to the end of the store.
    pub(super) to_the_end: bool,
}

/// All that was seen of a run.
#[derive(Debug)]
pub(super) struct History {
    pub(super) lab: Lab,
    pub(super) calls: Vec<Call>,
    pub(super) told: Vec<Told>,
    /// What the store held before it was closed, and when it was open again.
    pub(super) last: Pairs,
    pub(super) reopened: Pairs,
}
