//! Which piece of work is next. Plain data, without threads and locks: the crew has both.
//!
//! - Among the ready pieces, the one whose patience ends first comes first. So urgent work
//!   overtakes patient work, but only until the patience ends, and pieces of equal patience take
//!   turns.
//! - Work without patience is *urgent*, and takes turns with patient work that has waited for too
//!   long. So however much of that there is, one piece of it comes before an urgent one.
//! - While a thread runs a piece, the thread owns its closure, and the queue knows only that it
//!   runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::sync::{Instant, ThreadId};

/// The closure that threads call again and again. It returns for how long the work may rest, or
/// `None` if the work is over.
pub(super) type Work = Box<dyn FnMut() -> Option<Duration> + Send>;

/// Identifies a piece of work within its queue.
pub(super) type WorkId = u64;

/// All pieces of work of a crew, and when each is due.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pieces: BTreeMap<WorkId, Piece>,
    /// The ready pieces that are urgent, by the moment at which they became ready.
    urgent: BTreeSet<(Instant, WorkId)>,
    /// The ready pieces that have patience, by the moment at which that ends.
    patient: BTreeSet<(Instant, WorkId)>,
    /// Whether urgent work has the next turn.
    is_turn_of_urgent: bool,
    /// The pieces that rest for a limited time, by the moment at which they become ready.
    resting: BTreeSet<(Instant, WorkId)>,
    next_id: WorkId,
}

struct Piece {
    /// `None` while a thread runs it.
    work: Option<Work>,
    /// For how long more urgent work may overtake it.
    patience: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Ready(Instant),
    /// Until this moment, or until it is woken if `None`.
    Resting(Option<Instant>),
    Running {
        thread: ThreadId,
        /// Whether it was woken meanwhile.
        woken: bool,
        /// Whether the piece is over when it returns, whatever it returns.
        given_up: bool,
    },
}

/// The state of a piece that its owner has given up.
pub(super) enum GivenUp {
    /// It is over. This is its closure, unless a thread has already dropped it.
    Over(Option<Work>),
    /// The calling thread runs it, and drops it afterwards.
    Here,
    /// Another thread runs it, and drops it afterwards.
    Elsewhere,
}

impl Queue {
    /// Adds a piece, which is ready.
    pub(super) fn add(&mut self, work: Work, patience: Duration, now: Instant) -> WorkId {
        let id = self.next_id;
        self.next_id += 1;
        let state = State::Resting(None);
        self.pieces.insert(id, Piece { work: Some(work), patience, state });
        self.wake(id, now);
        id
    }

    /// Returns whether there are no pieces, not even running ones.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Makes a resting piece ready. A piece that is running becomes ready when it returns.
    pub(super) fn wake(&mut self, id: WorkId, now: Instant) {
        let Some(piece) = self.pieces.get_mut(&id) else { return };
        match &mut piece.state {
            State::Ready(_) => {}
            State::Running { woken, .. } => *woken = true,
            State::Resting(until) => {
                if let Some(until) = until {
                    self.resting.remove(&(*until, id));
                }
                let patient_until = now + piece.patience;
                piece.state = State::Ready(patient_until);
                let is_urgent = piece.patience.is_zero();
                let ready = if is_urgent { &mut self.urgent } else { &mut self.patient };
                ready.insert((patient_until, id));
            }
        }
    }

    /// Makes the resting pieces ready whose time has come.
    pub(super) fn wake_due(&mut self, now: Instant) {
        while let Some((_, id)) = self.resting.first().copied().filter(|(at, _)| *at <= now) {
            self.wake(id, now);
        }
    }

    /// Returns when the next resting piece becomes ready by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    /// Returns whether a piece is ready.
    pub(super) fn has_ready(&self) -> bool {
        !self.urgent.is_empty() || !self.patient.is_empty()
    }

    /// Takes out the first of the ready pieces, for a thread to run it.
    pub(super) fn take(&mut self, thread: ThreadId) -> Option<(WorkId, Work)> {
        let is_urgent = match (self.urgent.first(), self.patient.first()) {
            (Some(urgent), Some(patient)) => self.is_turn_of_urgent || urgent < patient,
            (urgent, _) => urgent.is_some(),
        };
        let ready = if is_urgent { &mut self.urgent } else { &mut self.patient };
        let (_, id) = ready.pop_first()?;
        self.is_turn_of_urgent = !is_urgent;
        let piece = self.pieces.get_mut(&id)?;
        piece.state = State::Running { thread, woken: false, given_up: false };
        Some((id, piece.work.take()?))
    }

    /// Puts a piece back after a thread has run it; it may rest for some time. If the piece is
    /// over, returns the closure, and the piece counts as running until the thread has dropped the
    /// closure and called [`end`](Self::end).
    pub(super) fn put_back(
        &mut self,
        id: WorkId,
        work: Work,
        rest: Option<Duration>,
        now: Instant,
    ) -> Option<Work> {
        let piece = self.pieces.get_mut(&id);
        let (Some(piece), Some(rest)) = (piece, rest) else { return Some(work) };
        let State::Running { woken, given_up: false, .. } = piece.state else { return Some(work) };
        piece.work = Some(work);
        if woken || rest.is_zero() {
            piece.state = State::Resting(None);
            self.wake(id, now);
        } else {
            // A rest that ends beyond the clock's range counts as unlimited.
            let until = now.checked_add(rest);
            piece.state = State::Resting(until);
            self.resting.extend(until.map(|until| (until, id)));
        }
        None
    }

    /// Forgets a piece that is over.
    pub(super) fn end(&mut self, id: WorkId) {
        self.pieces.remove(&id);
    }

    /// Takes out a piece that its owner has given up. If a thread is running it, this run is the
    /// last.
    pub(super) fn give_up(&mut self, id: WorkId, this: ThreadId) -> GivenUp {
        let Some(piece) = self.pieces.get_mut(&id) else { return GivenUp::Over(None) };
        match &mut piece.state {
            State::Running { thread, given_up, .. } => {
                *given_up = true;
                return if *thread == this { GivenUp::Here } else { GivenUp::Elsewhere };
            }
            State::Ready(until) => {
                let is_urgent = piece.patience.is_zero();
                let ready = if is_urgent { &mut self.urgent } else { &mut self.patient };
                ready.remove(&(*until, id));
            }
            State::Resting(Some(until)) => drop(self.resting.remove(&(*until, id))),
            State::Resting(None) => {}
        }
        GivenUp::Over(self.pieces.remove(&id).and_then(|piece| piece.work))
    }
}

/// Does not show the closure.
impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work: _, patience, state } = self;
        f.debug_struct("Piece")
            .field("patience", patience)
            .field("state", state)
            .finish_non_exhaustive()
    }
}
