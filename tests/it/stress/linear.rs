//! Whether the calls on one key can be put in an order that explains what each has told, and in
//! which each has its place between its start and its end (linearizability).
//!
//! The search goes through starts and ends in the order of their stamps, and keeps all that may be
//! by then: which of the calls under way have had their effect, and what the key is. (Just-in-time
//! linearization: Lowe, "Testing for linearizability", 2017, after Wing and Gong.) A call gets its
//! effect only when that is needed: when it ends, or before another that ends. So what is kept
//! depends on how many calls overlap, and not on how many there are; where none is under way it is
//! no more than the states that the key may have.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::history::{Op, State, Tag};

/// So many calls may be under way at once: a bit for each.
const UNDER_WAY_MAX: usize = 64;
/// A search that has to keep more than this is given up, loudly.
const KEPT_MAX: usize = 4_000_000;
/// So many operations of a window are printed.
const SHOWN_MAX: usize = 60;

/// What may be at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Guess {
    /// The calls under way that have had their effect, by their numbers.
    done: u64,
    state: State,
}

/// Why a history can't be put in order.
#[derive(Debug)]
struct Failure {
    /// The stamp of the end that nothing explains.
    end: u64,
    /// The last stamp before it at which no call was under way.
    quiet: u64,
    /// What the key may have been there.
    states: Vec<State>,
}

struct Search<'a> {
    ops: &'a [Op],
    /// Which operation stores a value.
    writers: HashMap<Tag, usize>,
    /// The operations under way, by their numbers.
    under_way: Vec<Option<usize>>,
    /// The number that each operation under way has.
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

    /// Goes through the history up to a stamp. What is under way then needs no explanation.
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
        assert!(number < UNDER_WAY_MAX, "more threads than the search was made for");
        self.under_way[number] = Some(at);
        self.numbers.insert(at, u32::try_from(number).unwrap());
        let guesses = std::mem::take(&mut self.guesses);
        self.guesses = guesses.into_iter().map(|guess| self.settled(guess)).collect();
    }

    /// Keeps what explains that an operation has ended; says whether there is any.
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
            assert!(seen.len() < KEPT_MAX, "too many orders to look at: too much overlaps");
        }
        let number = self.numbers.remove(&at).unwrap();
        self.under_way[number as usize] = None;
        self.ended[at] = true;
        self.guesses = kept;
        !self.guesses.is_empty()
    }

    /// Returns whether an operation under way has had no effect yet, but all that followers were
    /// told of before it.
    fn may_be_next(&self, guess: Guess, number: usize, at: usize) -> bool {
        let is_done = |tag: &Tag| match self.writers.get(tag) {
            Some(writer) if !self.ended[*writer] => {
                self.numbers.get(writer).is_some_and(|number| guess.done & 1 << number != 0)
            }
            _ => true,
        };
        guess.done & 1 << number == 0 && self.ops[at].after.iter().all(is_done)
    }

    /// Gives all operations their effect that have none but to be explained: there is no better
    /// moment for them.
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

/// Returns why the operations on a key that was absent can't be put in order, if they can't: the
/// smallest window of them that shows it, in words.
pub(super) fn disorder(ops: &[Op]) -> Option<String> {
    let Failure { end, quiet, states } = Search::new(ops, &[State::Absent]).run(u64::MAX).err()?;
    let is_within = |op: &&Op| op.end > quiet && op.start < end;
    let before: HashSet<Tag> =
        ops.iter().filter(is_within).flat_map(|op| op.after.clone()).collect();
    // What followers were told of before has to be there, too late as it may be.
    let is_told = |op: &Op| op.act.stores().is_some_and(|tag| before.contains(&tag));
    let is_late = |op: &&Op| op.start >= end && is_told(op);
    let mut window: Vec<Op> =
        ops.iter().filter(|op| is_within(op) || is_late(op)).cloned().collect();
    window.sort_by_key(|op| op.start);
    let fails = |window: &[Op]| Search::new(window, &states).run(end).is_err();
    assert!(fails(&window), "what went before the window makes no difference");
    // Without an operation that only looks, what is left has no fewer orders.
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
        "{} of {} operations can't be put in order:\n  by {quiet} the key was {states:?}\n",
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
