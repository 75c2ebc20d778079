//! Checks linearizability: whether the calls on one key can be ordered so that the order explains
//! what each has reported, with each call's place between its start and its end.
//!
//! The search visits starts and ends in the order of their stamps, and keeps every possible
//! situation: which of the pending calls have taken effect, and the key's state. (Just-in-time
//! linearization: Lowe, "Testing for linearizability", 2017, after Wing and Gong.) A call takes
//! effect only when needed: when it ends, or before another call that ends. So the number of kept
//! situations depends on how many calls overlap, not on how many there are. While no call is
//! pending, it is the number of states that the key may have.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::history::{Op, State, Tag};

/// Maximum number of calls pending at the same time: each takes a bit.
const UNDER_WAY_MAX: usize = 64;
/// Maximum number of kept situations. A search that exceeds it panics.
const KEPT_MAX: usize = 4_000_000;
/// Maximum number of operations of a window to print.
const SHOWN_MAX: usize = 60;

/// A possible situation at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Guess {
    /// The pending calls that have taken effect, as a set of their slots.
    done: u64,
    state: State,
}

/// Explains why a history cannot be ordered.
#[derive(Debug)]
struct Failure {
    /// The stamp of the end that no order explains.
    end: u64,
    /// The last stamp before that at which no call was pending.
    quiet: u64,
    /// The states that the key may have had at `quiet`.
    states: Vec<State>,
}

struct Search<'a> {
    ops: &'a [Op],
    /// The operation that stores each value.
    writers: HashMap<Tag, usize>,
    /// The pending operations, by slot.
    under_way: Vec<Option<usize>>,
    /// The slot of each pending operation.
    numbers: HashMap<usize, u32>,
    ended: Vec<bool>,
    guesses: HashSet<Guess>,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op], states: &[State]) -> Self {
        let stored = ops.iter().enumerate().filter_map(|(at, op)| Some((op.act.stores()?, at)));
        Self {
            ops,
            writers: stored.collect(),
            under_way: Vec::new(),
            numbers: HashMap::new(),
            ended: vec![false; ops.len()],
            guesses: states.iter().map(|state| Guess { done: 0, state: *state }).collect(),
        }
    }

    /// Processes the history up to a stamp. Operations still pending then need no explanation.
    fn run(mut self, until: u64) -> Result<(), Failure> {
        let starts = self.ops.iter().enumerate().map(|(at, op)| (op.start, false, at));
        let ends = self.ops.iter().enumerate().map(|(at, op)| (op.end, true, at));
        let mut events: Vec<(u64, bool, usize)> = starts.chain(ends).collect();
        events.retain(|(stamp, ..)| *stamp <= until);
        events.sort_unstable();
        let mut quiet = (0, self.states());
        for (stamp, is_end, at) in events {
            if !is_end {
                self.start(at);
            } else if self.end(at) {
                if self.numbers.is_empty() {
                    quiet = (stamp, self.states());
                }
            } else {
                let (quiet, states) = quiet;
                return Err(Failure { end: stamp, quiet, states });
            }
        }
        Ok(())
    }

    fn states(&self) -> Vec<State> {
        let states: HashSet<State> = self.guesses.iter().map(|guess| guess.state).collect();
        states.into_iter().collect()
    }

    fn start(&mut self, at: usize) {
        let free = self.under_way.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.under_way.push(None);
            self.under_way.len() - 1
        });
        assert!(number < UNDER_WAY_MAX, "more calls overlap than the search supports");
        self.under_way[number] = Some(at);
        self.numbers.insert(at, u32::try_from(number).unwrap());
        let guesses = std::mem::take(&mut self.guesses);
        self.guesses = guesses.into_iter().map(|guess| self.settled(guess)).collect();
    }

    /// Keeps the situations that explain the end of an operation. Returns whether there are any.
    fn end(&mut self, at: usize) -> bool {
        let own = 1_u64 << self.numbers[&at];
        let mut open: Vec<Guess> = self.guesses.drain().collect();
        let mut seen: HashSet<Guess> = open.iter().copied().collect();
        let mut kept = HashSet::new();
        while let Some(guess) = open.pop() {
            if guess.done & own != 0 {
                kept.insert(Guess { done: guess.done & !own, ..guess });
                continue;
            }
            for (number, other) in self.under_way.iter().enumerate() {
                let Some(other) = other.filter(|other| self.may_be_next(guess, number, *other))
                else {
                    continue;
                };
                for state in self.ops[other].apply(guess.state) {
                    let next = self.settled(Guess { done: guess.done | 1 << number, state });
                    if seen.insert(next) {
                        open.push(next);
                    }
                }
            }
            assert!(seen.len() < KEPT_MAX, "too many orders to search: too many calls overlap");
        }
        let number = self.numbers.remove(&at).unwrap();
        self.under_way[number as usize] = None;
        self.ended[at] = true;
        self.guesses = kept;
        !self.guesses.is_empty()
    }

    /// Returns whether a pending operation may take effect next: it has not yet, and all operations
    /// whose values followers received before its own have.
    fn may_be_next(&self, guess: Guess, number: usize, at: usize) -> bool {
        let is_done = |tag: &Tag| match self.writers.get(tag) {
            Some(writer) if !self.ended[*writer] => {
                self.numbers.get(writer).is_some_and(|number| guess.done & 1 << number != 0)
            }
            _ => true,
        };
        guess.done & 1 << number == 0 && self.ops[at].after.iter().all(is_done)
    }

    /// Lets every operation take effect that changes nothing and that the state explains. No later
    /// moment is better.
    fn settled(&self, mut guess: Guess) -> Guess {
        for (number, at) in self.under_way.iter().enumerate() {
            let Some(op) = at.map(|at| &self.ops[at]) else { continue };
            if !op.act.writes() && op.apply(guess.state).eq([guess.state]) {
                guess.done |= 1 << number;
            }
        }
        guess
    }
}

/// Returns `None` if the operations on an initially absent key can be ordered. Otherwise returns a
/// description of the smallest failing window of operations.
pub(super) fn disorder(ops: &[Op]) -> Option<String> {
    let Failure { end, quiet, states } = Search::new(ops, &[State::Absent]).run(u64::MAX).err()?;
    let is_within = |op: &&Op| op.end > quiet && op.start < end;
    let before: HashSet<Tag> =
        ops.iter().filter(is_within).flat_map(|op| op.after.clone()).collect();
    // Writes whose values followers received earlier belong to the window, even if they come too
    // late.
    let is_told = |op: &Op| op.act.stores().is_some_and(|tag| before.contains(&tag));
    let is_late = |op: &&Op| op.start >= end && is_told(op);
    let mut window: Vec<Op> =
        ops.iter().filter(|op| is_within(op) || is_late(op)).cloned().collect();
    window.sort_by_key(|op| op.start);
    let fails = |window: &[Op]| Search::new(window, &states).run(end).is_err();
    assert!(fails(&window), "operations before the window must not matter");
    // Removing an operation that only reads leaves at least as many orders.
    let mut size = window.len();
    while size > 0 {
        let mut from = 0;
        while from < window.len() {
            let is_left =
                |at: usize, op: &Op| !(from..from + size).contains(&at) || op.act.writes();
            let left = window.iter().enumerate().filter(|(at, op)| is_left(*at, op));
            let left: Vec<Op> = left.map(|(_, op)| op.clone()).collect();
            if left.len() < window.len() && fails(&left) {
                window = left;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    Some(describe(ops, &window, quiet, &states))
}

fn describe(ops: &[Op], window: &[Op], quiet: u64, states: &[State]) -> String {
    let mut text = format!(
        "{} of {} operations cannot be ordered:\n  by {quiet} the key was {states:?}\n",
        window.len(),
        ops.len()
    );
    for op in window.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  {op}");
    }
    if window.len() > SHOWN_MAX {
        let _ = writeln!(text, "  and {} more", window.len() - SHOWN_MAX);
    }
    let stored: HashSet<Tag> = window.iter().filter_map(|op| op.act.stores()).collect();
    let found: HashSet<Tag> = window.iter().filter_map(|op| op.act.found()).collect();
    for tag in found.difference(&stored) {
        let of = |op: &&Op| op.act.stores() == Some(*tag);
        let origin = ops.iter().find(of).map_or("nowhere".to_owned(), Op::to_string);
        let _ = writeln!(text, "  {tag} is from {origin}");
    }
    let mut before: Vec<&Op> = ops.iter().filter(|op| op.act.writes() && op.end <= quiet).collect();
    before.sort_by_key(|op| std::cmp::Reverse(op.end));
    for op in before.into_iter().take(4) {
        let _ = writeln!(text, "  earlier: {op}");
    }
    text
}
