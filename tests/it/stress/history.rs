//! What calls on one key have told, and what a key may be after each of them.
//!
//! - A key is a register that holds a value or nothing. No two writes store the same value, so a
//!   value says which write it is of.
//! - Each call has the stamps of its start and its end, both from one counter: of two calls the
//!   first has ended before the second began if its end is lower than the other's start.
//! - A value with a time to live may be gone at any moment, and is gone for good once anybody has
//!   found it so; from some stamp on it has to be.

use std::collections::HashMap;
use std::fmt;

/// Which write a value is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Tag {
    pub(super) thread: u64,
    pub(super) sequence: u64,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.thread, self.sequence)
    }
}

/// How long a value lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Endless,
    /// Nobody who begins behind this stamp may find it.
    Until(u64),
}

impl Life {
    /// It expires at once; the stamp of the call's end is put in place of this one.
    pub(super) const NONE: Self = Self::Until(0);
    /// It expires soon; a stamp behind that is put in place of this one.
    pub(super) const SHORT: Self = Self::Until(u64::MAX);
}

/// A value as it is stored.
pub(super) type Stored = (Tag, Life);

/// What a key may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    Absent,
    Holds(Tag, Life),
}

/// What a call did to a key, and what it told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// This was there; nothing stands for an absent key.
    Saw(Option<Tag>),
    /// Something was there.
    SawSome,
    /// Something other than this was there, or nothing.
    SawOther(Tag),
    /// This is stored, whatever was there; nothing stands for a delete.
    Write(Option<Stored>),
    /// The same, and this was there.
    Swap(Option<Tag>, Option<Stored>),
    /// What was there, whatever it is, is removed.
    Delete,
    /// What was there lives so long from now on.
    Live(Life),
    /// What was there is removed, unless somebody has changed it during the call.
    Sweep,
    /// The same, but nobody has changed it during the call.
    SweepAll,
    /// Nothing was removed: nothing was there, or somebody has changed it during the call.
    SweptNone,
}

impl Act {
    /// Returns whether it can change a key. That it has found an expired one absent does not count.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Self::Saw(_) | Self::SawSome | Self::SawOther(_) | Self::SweptNone)
    }

    /// Returns what it stores.
    pub(super) fn stores(self) -> Option<Tag> {
        match self {
            Self::Write(new) | Self::Swap(_, new) => new.map(|(tag, _)| tag),
            _ => None,
        }
    }

    /// Returns what it has found.
    pub(super) fn found(self) -> Option<Tag> {
        match self {
            Self::Saw(found) | Self::Swap(found, _) => found,
            _ => None,
        }
    }

    fn life(&mut self) -> Option<&mut Life> {
        match self {
            Self::Write(Some((_, life))) | Self::Swap(_, Some((_, life))) | Self::Live(life) => {
                Some(life)
            }
            _ => None,
        }
    }

    /// Says by which stamp a value with no life has to be gone.
    pub(super) fn end_no_life(&mut self, gone: u64) {
        self.end_life(Life::NONE, gone);
    }

    /// Says by which stamp a value with a short life has to be gone.
    pub(super) fn end_short_life(&mut self, gone: u64) {
        self.end_life(Life::SHORT, gone);
    }

    fn end_life(&mut self, of: Life, gone: u64) {
        if let Some(life) = self.life()
            && *life == of
        {
            *life = Life::Until(gone);
        }
    }
}

/// One call, as far as it is about one key.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) thread: u64,
    pub(super) call: &'static str,
    pub(super) act: Act,
    /// Of these values followers were told before its own.
    pub(super) after: Vec<Tag>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, thread, call, act, after } = self;
        let shown = |tag: Option<Tag>| tag.map_or("nothing".to_owned(), |tag| tag.to_string());
        let kept = |new: Option<Stored>| match new {
            Some((tag, Life::Endless)) => tag.to_string(),
            Some((tag, Life::Until(stamp))) => format!("{tag}, which is gone by {stamp},"),
            None => "nothing".to_owned(),
        };
        write!(f, "[{start}..{end}] thread {thread}, {call}: ")?;
        match *act {
            Act::Saw(found) => write!(f, "found {}", shown(found)),
            Act::SawSome => write!(f, "found something"),
            Act::SawOther(tag) => write!(f, "did not find {tag}"),
            Act::Write(new) => write!(f, "stored {}", kept(new)),
            Act::Swap(old, new) => write!(f, "found {} and stored {}", shown(old), kept(new)),
            Act::Delete => write!(f, "removed what was there"),
            Act::Live(Life::Endless) => write!(f, "let what was there live for ever"),
            Act::Live(Life::Until(stamp)) => write!(f, "let what was there be gone by {stamp}"),
            Act::Sweep => write!(f, "removed what was there, or left what others changed"),
            Act::SweepAll => write!(f, "removed what may have been there"),
            Act::SweptNone => write!(f, "found nothing, or left what others changed"),
        }?;
        match after.as_slice() {
            [] => Ok(()),
            after => {
                let after: Vec<_> = after.iter().map(Tag::to_string).collect();
                write!(f, "; told after {}", after.join(", "))
            }
        }
    }
}

impl Op {
    /// Returns what a key may be after it that is in a state before it: nothing if the call can't
    /// have told what it did.
    pub(super) fn apply(&self, state: State) -> impl Iterator<Item = State> + use<> {
        let (present, absent) = match state {
            State::Absent => (None, Some(State::Absent)),
            State::Holds(tag, Life::Endless) => (Some(tag), None),
            State::Holds(tag, Life::Until(stamp)) => {
                ((self.start < stamp).then_some(tag), Some(State::Absent))
            }
        };
        let if_found = |found: Option<Tag>, then: State| match found {
            None => absent.map(|_| then),
            found => (found == present).then_some(then),
        };
        let new =
            |new: Option<Stored>| new.map_or(State::Absent, |(tag, life)| State::Holds(tag, life));
        let nothing = Some(State::Absent);
        let states = match self.act {
            Act::Saw(None) => [absent, None],
            Act::Saw(found) => [if_found(found, state), None],
            Act::SawSome => [present.map(|_| state), None],
            Act::SawOther(tag) if present == Some(tag) => [absent, None],
            Act::SawOther(_) | Act::SweptNone => [Some(state), None],
            Act::Write(stored) => [Some(new(stored)), None],
            Act::Swap(old, stored) => [if_found(old, new(stored)), None],
            Act::Delete => [present.and(nothing), None],
            Act::Live(life) => [present.map(|tag| State::Holds(tag, life)), None],
            Act::Sweep => [nothing, present.map(|_| state)],
            Act::SweepAll => [nothing, None],
        };
        states.into_iter().flatten()
    }
}

/// A value of which a follower was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) tag: Tag,
    /// Taken when the follower had been told.
    pub(super) stamp: u64,
}

/// Brings into the history of a key what followers were told of it. Returns what is wrong already.
///
/// Who has been told of a value finds it, or a younger one: so its write has had its effect by then.
pub(super) fn complete(ops: &mut [Op], all_told: &[Vec<Told>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let writer: HashMap<Tag, usize> =
        ops.iter().enumerate().filter_map(|(at, op)| Some((op.act.stores()?, at))).collect();
    for told in all_told {
        let mut before: Option<Tag> = None;
        for &Told { tag, stamp } in told {
            let Some(op) = writer.get(&tag).and_then(|at| ops.get_mut(*at)) else {
                wrong.push(format!("a follower was told of {tag}, which nobody stored there"));
                continue;
            };
            if stamp < op.start {
                wrong.push(format!("a follower was told of {tag} before it was stored: {op}"));
                continue;
            }
            op.end = op.end.min(stamp);
            // What is told again has got another time to live.
            if let Some(before) = before.filter(|before| *before != tag)
                && !op.after.contains(&before)
            {
                op.after.push(before);
            }
            before = Some(tag);
        }
    }
    resolve_sweeps(ops);
    wrong
}

/// Finds those sweeps beside which nobody has changed the key.
fn resolve_sweeps(ops: &mut [Op]) {
    let writes: Vec<(u64, u64)> =
        ops.iter().filter(|op| op.act.writes()).map(|op| (op.start, op.end)).collect();
    for op in ops.iter_mut().filter(|op| matches!(op.act, Act::Sweep | Act::SweptNone)) {
        let is_beside = |(start, end): &&(u64, u64)| *start < op.end && op.start < *end;
        op.act = match (op.act, writes.iter().filter(is_beside).count()) {
            // That is the sweep itself.
            (Act::Sweep, 1) => Act::SweepAll,
            (Act::SweptNone, 0) => Act::Saw(None),
            (act, _) => act,
        };
    }
}
