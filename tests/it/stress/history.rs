//! What the calls on one key reported, and which states the key may have after each of them.
//!
//! - A key is a register that holds a value or nothing. No two writes store the same value, so a
//!   value identifies its write.
//! - Each call has a stamp for its start and one for its end, both from one counter. A call ended
//!   before another began if its end is lower than the other's start.
//! - A value with a time to live may disappear at any moment. Once any call has found it absent, it
//!   stays absent. From some stamp on it must be absent.

use std::collections::HashMap;
use std::fmt;

/// Identifies the write of a value.
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

/// Lifetime of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Endless,
    /// A call that begins after this stamp must not find the value.
    Until(u64),
}

impl Life {
    /// The value expires immediately. The stamp of the call's end replaces this one.
    pub(super) const NONE: Self = Self::Until(0);
    /// The value expires soon. A later stamp replaces this one.
    pub(super) const SHORT: Self = Self::Until(u64::MAX);
}

/// A value as it is stored.
pub(super) type Stored = (Tag, Life);

/// State of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum State {
    Absent,
    Holds(Tag, Life),
}

/// What a call did to a key, and what it reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// The call found this value, or no value.
    Saw(Option<Tag>),
    /// The call found some value.
    SawSome,
    /// The call found a value other than this one, or no value.
    SawOther(Tag),
    /// The call stored this value, or deleted the key, whatever it held.
    Write(Option<Stored>),
    /// Like `Write`, and the key held this value, or none.
    Swap(Option<Tag>, Option<Stored>),
    /// The call removed a value, whichever it was.
    Delete,
    /// The call gave the present value this lifetime.
    Live(Life),
    /// The call removed the value, unless another call changed the key meanwhile.
    Sweep,
    /// Like `Sweep`, but no other call changed the key meanwhile.
    SweepAll,
    /// The call removed nothing: the key was absent, or another call changed it meanwhile.
    SweptNone,
}

impl Act {
    /// Returns whether the act can change a key. Finding an expired value absent does not count.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Self::Saw(_) | Self::SawSome | Self::SawOther(_) | Self::SweptNone)
    }

    /// Returns the value that the act stores.
    pub(super) fn stores(self) -> Option<Tag> {
        match self {
            Self::Write(new) | Self::Swap(_, new) => new.map(|(tag, _)| tag),
            _ => None,
        }
    }

    /// Returns the value that the act found.
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

    /// Sets the stamp by which a value without a lifetime must be absent.
    pub(super) fn end_no_life(&mut self, gone: u64) {
        self.end_life(Life::NONE, gone);
    }

    /// Sets the stamp by which a value with a short lifetime must be absent.
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

/// One call's effect on one key.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) thread: u64,
    pub(super) call: &'static str,
    pub(super) act: Act,
    /// Values that followers received before this operation's value.
    pub(super) after: Vec<Tag>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, thread, call, act, after } = self;
        let shown = |tag: Option<Tag>| tag.map_or("nothing".to_owned(), |tag| tag.to_string());
        let kept = |new: Option<Stored>| match new {
            Some((tag, Life::Endless)) => tag.to_string(),
            Some((tag, Life::Until(stamp))) => format!("{tag}, which expires by {stamp},"),
            None => "nothing".to_owned(),
        };
        write!(f, "[{start}..{end}] thread {thread}, {call}: ")?;
        match *act {
            Act::Saw(found) => write!(f, "found {}", shown(found)),
            Act::SawSome => write!(f, "found something"),
            Act::SawOther(tag) => write!(f, "did not find {tag}"),
            Act::Write(new) => write!(f, "stored {}", kept(new)),
            Act::Swap(old, new) => write!(f, "found {} and stored {}", shown(old), kept(new)),
            Act::Delete => write!(f, "removed a value"),
            Act::Live(Life::Endless) => write!(f, "removed the time to live"),
            Act::Live(Life::Until(stamp)) => write!(f, "set the value to expire by {stamp}"),
            Act::Sweep => write!(f, "removed the value, or left a concurrent change"),
            Act::SweepAll => write!(f, "removed the value, if any"),
            Act::SweptNone => write!(f, "found nothing, or left a concurrent change"),
        }?;
        match after.as_slice() {
            [] => Ok(()),
            after => {
                let after: Vec<_> = after.iter().map(Tag::to_string).collect();
                write!(f, "; received after {}", after.join(", "))
            }
        }
    }
}

impl Op {
    /// Returns the states that a key may have after this operation, given its state before. Returns
    /// none if the call cannot have reported what it did.
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

/// A value that a follower received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) tag: Tag,
    /// Taken after the follower had received the value.
    pub(super) stamp: u64,
}

/// Adds the values that followers received to the history of a key. Returns the violations found so
/// far.
///
/// A read after a follower has received a value finds that value or a newer one. So the write must
/// have taken effect by then.
pub(super) fn complete(ops: &mut [Op], all_told: &[Vec<Told>]) -> Vec<String> {
    let mut wrong = Vec::new();
    let writer: HashMap<Tag, usize> =
        ops.iter().enumerate().filter_map(|(at, op)| Some((op.act.stores()?, at))).collect();
    for told in all_told {
        let mut before: Option<Tag> = None;
        for &Told { tag, stamp } in told {
            let Some(op) = writer.get(&tag).and_then(|at| ops.get_mut(*at)) else {
                wrong.push(format!("a follower received {tag}, which no call stored there"));
                continue;
            };
            if stamp < op.start {
                wrong.push(format!("a follower received {tag} before it was stored: {op}"));
                continue;
            }
            op.end = op.end.min(stamp);
            // A value received twice in a row has got another time to live.
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

/// Finds the sweeps during which no other call changed the key.
fn resolve_sweeps(ops: &mut [Op]) {
    let writes: Vec<(u64, u64)> =
        ops.iter().filter(|op| op.act.writes()).map(|op| (op.start, op.end)).collect();
    for op in ops.iter_mut().filter(|op| matches!(op.act, Act::Sweep | Act::SweptNone)) {
        let is_beside = |(start, end): &&(u64, u64)| *start < op.end && op.start < *end;
        op.act = match (op.act, writes.iter().filter(is_beside).count()) {
            // The one write is the sweep itself.
            (Act::Sweep, 1) => Act::SweepAll,
            (Act::SweptNone, 0) => Act::Saw(None),
            (act, _) => act,
        };
    }
}
