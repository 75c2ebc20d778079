//! State shared by the threads of a round, and the notes that each thread makes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcask::{Bitcask, Snapshot};

use super::history::{Act, Life, Op, Stored, Tag, Told};
use crate::support::Random;
use crate::threads::{checked, value};

/// A short time to live, which ends within the round.
pub(super) const SHORT: Duration = Duration::from_millis(3);

/// The keys of a round, by number. All keys of a group are only ever changed together. So a group
/// is itself a register for any call that sees all its keys at one moment. The groups are numbered
/// after the keys.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Number of keys that are changed one at a time.
    pub(super) plain: usize,
    /// Number of keys of each group.
    pub(super) groups: Vec<usize>,
}

impl Layout {
    pub(super) fn new(plain: u64, groups: &[u64]) -> Self {
        let len = |number: u64| usize::try_from(number).unwrap();
        Self { plain: len(plain), groups: groups.iter().copied().map(len).collect() }
    }

    pub(super) fn keys(&self) -> usize {
        self.plain + self.groups.iter().sum::<usize>()
    }

    pub(super) fn registers(&self) -> usize {
        self.keys() + self.groups.len()
    }

    pub(super) fn members(&self, group: usize) -> Range<usize> {
        let first = self.plain + self.groups[..group].iter().sum::<usize>();
        first..first + self.groups[group]
    }

    pub(super) fn name(&self, register: usize) -> String {
        if register < self.plain {
            return format!("a/{register:02}");
        }
        for group in 0..self.groups.len() {
            let members = self.members(group);
            if members.contains(&register) {
                return format!("g{group}/{:03}", register - members.start);
            }
        }
        format!("group g{}", register - self.keys())
    }

    pub(super) fn number(&self, key: &[u8]) -> usize {
        let (kind, at) = std::str::from_utf8(key).unwrap().split_once('/').unwrap();
        let at: usize = at.parse().unwrap();
        match kind.strip_prefix('g') {
            Some(group) => self.members(group.parse().unwrap()).start + at,
            None => at,
        }
    }
}

/// Counters of a round.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Source of the stamps.
    pub(super) stamps: AtomicU64,
    /// Number of writers still at work.
    pub(super) writers: AtomicU64,
    /// Number of steps that the writers have made.
    pub(super) progress: AtomicU64,
    /// Number of merges that had something to do.
    pub(super) merges: AtomicU64,
}

impl Counters {
    pub(super) fn stamp(&self) -> u64 {
        1 + self.stamps.fetch_add(1, Ordering::SeqCst)
    }
}

/// State shared by all threads of a round.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) db: &'a Bitcask,
    pub(super) layout: &'a Layout,
    pub(super) counters: &'a Counters,
}

impl Shared<'_> {
    pub(super) fn stamp(&self) -> u64 {
        self.counters.stamp()
    }

    pub(super) fn is_over(&self) -> bool {
        self.counters.writers.load(Ordering::SeqCst) == 0
    }
}

/// The stamps of a call's start and end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The notes of one thread.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) ops: Vec<(usize, Op)>,
    /// The values of each register that a follower received.
    pub(super) told: BTreeMap<usize, Vec<Told>>,
    /// Violations independent of the history.
    pub(super) wrong: Vec<String>,
}

/// All keys, as a snapshot has shown them.
pub(super) type Seen = Vec<Option<Tag>>;

/// One thread of a round.
#[derive(Debug)]
pub(super) struct Actor<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) thread: u64,
    pub(super) random: Random,
    pub(super) notes: Notes,
    /// Snapshots to be compared with what they showed before.
    pub(super) held: VecDeque<(Snapshot, Seen)>,
    sequence: u64,
}

impl<'a> Actor<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, seed: u64, thread: u64) -> Self {
        let random = Random(seed << 8 | thread);
        let (notes, held) = (Notes::default(), VecDeque::new());
        Self { shared, thread, random, notes, held, sequence: 0 }
    }

    pub(super) fn db(&self) -> &'a Bitcask {
        self.shared.db
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random.below(limit as u64)).unwrap()
    }

    /// Returns a key that is changed individually.
    pub(super) fn plain(&mut self) -> usize {
        self.below(self.shared.layout.plain)
    }

    pub(super) fn name(&self, register: usize) -> String {
        self.shared.layout.name(register)
    }

    /// Returns a value that no other write stores.
    pub(super) fn fresh(&mut self) -> Tag {
        self.sequence += 1;
        Tag { thread: self.thread, sequence: self.sequence }
    }

    /// Returns a time to live for some writes, and what it means for the history.
    pub(super) fn life(&mut self) -> (Option<Duration>, Life) {
        match self.below(10) {
            0 => (Some(Duration::ZERO), Life::NONE),
            1 | 2 => (Some(SHORT), Life::SHORT),
            3 => (Some(Duration::from_secs(3600)), Life::Endless),
            _ => (None, Life::Endless),
        }
    }

    /// Makes a call of the store between two stamps.
    pub(super) fn timed<T>(&self, call: impl FnOnce(&'a Bitcask) -> T) -> (Span, T) {
        let start = self.shared.stamp();
        let result = call(self.shared.db);
        (Span { start, end: self.shared.stamp() }, result)
    }

    pub(super) fn note(&mut self, register: usize, span: Span, call: &'static str, mut act: Act) {
        let Span { start, end } = span;
        // A call that begins after this one has returned must not find the value.
        act.end_no_life(end);
        let (thread, after) = (self.thread, Vec::new());
        self.notes.ops.push((register, Op { start, end, thread, call, act, after }));
    }

    /// Records the same act for all keys of a group.
    pub(super) fn note_group(
        &mut self,
        group: usize,
        span: Span,
        call: &'static str,
        act: impl Fn() -> Act,
    ) {
        for member in self.shared.layout.members(group) {
            self.note(member, span, call, act());
        }
        self.note(self.shared.layout.keys() + group, span, call, act());
    }

    /// Records the state of all keys at one moment of a call.
    pub(super) fn note_moment(&mut self, span: Span, call: &'static str, seen: &Seen) {
        let layout = self.shared.layout;
        for (register, found) in seen.iter().enumerate() {
            self.note(register, span, call, Act::Saw(*found));
        }
        for group in 0..layout.groups.len() {
            let found = &seen[layout.members(group)];
            if self.is_whole(group, call, found) {
                self.note(layout.keys() + group, span, call, Act::Saw(found[0]));
            }
        }
    }

    /// Returns whether all keys of a group hold the same write's values at one moment, as they
    /// must.
    pub(super) fn is_whole(
        &mut self,
        group: usize,
        call: &'static str,
        found: &[Option<Tag>],
    ) -> bool {
        let is_whole = found.windows(2).all(|pair| pair[0] == pair[1]);
        if !is_whole {
            self.complain(format!("{call}: group g{group} is not whole at one moment: {found:?}"));
        }
        is_whole
    }

    /// Records a violation that is independent of the history.
    pub(super) fn complain(&mut self, wrong: impl Display) {
        let (thread, stamp) = (self.thread, self.shared.stamp());
        self.notes.wrong.push(format!("thread {thread} by {stamp}: {wrong}"));
    }
}

/// Returns the value of a write, which differs from key to key.
pub(super) fn bytes(register: usize, tag: Tag) -> Vec<u8> {
    value(register as u64, tag.thread, tag.sequence)
}

/// Checks every byte of a value, and returns the write that it belongs to.
pub(super) fn tag(register: usize, bytes: &[u8]) -> Tag {
    let (thread, sequence) = checked(register as u64, bytes);
    Tag { thread, sequence }
}

/// Converts the value of a write without a time to live for a history.
pub(super) fn endless(tag: Option<Tag>) -> Option<Stored> {
    tag.map(|tag| (tag, Life::Endless))
}
