//! Every state that a disk may have after a power cut at a moment of a trace.
//!
//! - Unsynced operations may be kept or lost: none of them, all, each one alone, all except one;
//!   the newest write torn at every byte and every sector; lengths without bytes; mapped pages in
//!   any subset; names lost from some point on, as by a journal, or in any subset, as POSIX allows;
//!   and random mixtures of all this.
//! - A family that is too large is sampled, evenly and reproducibly.

use std::collections::BTreeSet;
use std::ops::Range;

use super::super::story::Random;
use crate::testing::twin::{Kept, Op, Twin};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

/// How much of each large family to examine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Number of operations to lose or keep alone.
    pub(super) singles: usize,
    /// Number of places at which to tear the newest write.
    pub(super) tears: usize,
    /// Number of subsets of pages, and of names.
    pub(super) subsets: usize,
    /// Number of random mixtures.
    pub(super) mixtures: usize,
    /// At one of this many moments, the process is killed and the power is cut while the store is
    /// opened.
    pub(super) kill_each: usize,
    /// Whether states are also merged, written to and closed, and their recovery interrupted.
    pub(super) is_lived_in: bool,
}

impl Effort {
    /// Detects gross errors fast.
    pub(super) const GLANCE: Self =
        Self { singles: 1, tears: 0, subsets: 1, mixtures: 1, kill_each: 4, is_lived_in: false };
    pub(super) const QUICK: Self =
        Self { singles: 2, tears: 3, subsets: 2, mixtures: 2, kill_each: 5, is_lived_in: true };
    pub(super) const LONG: Self = Self {
        singles: 24,
        tears: 200,
        subsets: 32,
        mixtures: 24,
        kill_each: 1,
        is_lived_in: true,
    };
}

/// For each unsynced operation, how much of it has reached the disk.
pub(super) type Choice = Vec<Kept>;

/// The choices at one moment of a trace.
pub(super) struct Choices {
    /// The unsynced operations, each with whether it is about a name.
    unsynced: Vec<(Op, bool)>,
    effort: Effort,
    random: Random,
    found: Vec<Choice>,
}

impl Choices {
    /// Returns what a power cut after the first `ops` operations may leave.
    pub(super) fn at(twin: &Twin, ops: usize, effort: Effort) -> Vec<Choice> {
        let unsynced = twin.unsynced(ops);
        let random = Random(ops as u64 ^ 0x5EED_0000_0000);
        let mut choices = Self { unsynced, effort, random, found: Vec::new() };
        choices.all_of(Kept::Nothing);
        choices.all_of(Kept::All);
        if !choices.unsynced.is_empty() {
            choices.singles();
            choices.tears();
            choices.sizes();
            choices.pages();
            choices.names();
            choices.mixtures();
        }
        choices.found
    }

    fn len(&self) -> usize {
        self.unsynced.len()
    }

    fn all_of(&mut self, kept: Kept) {
        self.found.push(vec![kept; self.len()]);
    }

    /// Treats one operation differently from all others.
    fn but(&mut self, at: usize, one: Kept, others: Kept) {
        let mut choice = vec![others; self.len()];
        choice[at] = one;
        self.found.push(choice);
    }

    /// Chooses up to `limit` of `len` things: the newest, and others that differ each time.
    fn sample(&mut self, len: usize, limit: usize) -> BTreeSet<usize> {
        if len <= limit {
            return (0..len).collect();
        }
        let mut sample = BTreeSet::from([len - 1]);
        while sample.len() < limit {
            sample.insert(usize::try_from(self.random.below(len as u64)).unwrap());
        }
        sample
    }

    fn singles(&mut self) {
        for at in self.sample(self.len(), self.effort.singles) {
            self.but(at, Kept::Nothing, Kept::All);
            self.but(at, Kept::All, Kept::Nothing);
        }
    }

    /// Tears the newest write: only its first part or only its last part is kept.
    fn tears(&mut self) {
        let newest = self.unsynced.iter().rposition(|(op, _)| write(op).is_some());
        let Some(at) = newest else { return };
        let range = write(&self.unsynced[at].0).unwrap();
        let is_sector = |place: &u64| place.is_multiple_of(SECTOR);
        let sectors: Vec<u64> = (range.start + 1..range.end).filter(is_sector).collect();
        let len = usize::try_from(range.end - range.start).unwrap();
        let bytes: Vec<u64> = self
            .sample(len.saturating_sub(1), self.effort.tears)
            .into_iter()
            .map(|at| range.start + 1 + at as u64)
            .collect();
        for place in sectors.into_iter().chain(bytes) {
            let (first, last) = (range.start..place, place..range.end);
            self.but(at, Kept::part(first), Kept::All);
            // Loses a sector in the middle, with the length of the complete file.
            if place.is_multiple_of(SECTOR) || place % 3 == 0 {
                self.but(at, Kept::part(last), Kept::All);
            }
        }
    }

    fn sizes(&mut self) {
        for at in self.sample(self.len(), self.effort.singles) {
            if write(&self.unsynced[at].0).is_some() {
                self.but(at, Kept::Size, Kept::All);
                self.but(at, Kept::Size, Kept::Nothing);
            }
        }
        // The lengths and names of everything, but not one unsynced byte.
        self.all_of(Kept::Size);
    }

    /// Mapped pages reach the disk independently of each other; names and lengths are kept.
    fn pages(&mut self) {
        let ranges = self.unsynced.iter().filter_map(|(op, _)| Some((file(op)?, write(op)?)));
        let pages = |(file, range): (u64, Range<u64>)| {
            (range.start / PAGE..=(range.end - 1) / PAGE).map(move |page| (file, page))
        };
        let pages: BTreeSet<(u64, u64)> = ranges.flat_map(pages).collect();
        let pages: Vec<(u64, u64)> = pages.into_iter().collect();
        for subset in self.subsets(pages.len()) {
            let kept: Vec<(u64, u64)> =
                pages.iter().zip(subset).filter(|(_, kept)| *kept).map(|(page, _)| *page).collect();
            let choice = self.unsynced.iter().map(|(op, _)| {
                let Some(file) = file(op).filter(|_| write(op).is_some()) else { return Kept::All };
                let own = kept.iter().filter(|(other, _)| *other == file);
                Kept::Parts(own.map(|(_, page)| page * PAGE..(page + 1) * PAGE).collect())
            });
            self.found.push(choice.collect());
        }
    }

    /// Loses names, with all contents and with none.
    fn names(&mut self) {
        let names: Vec<usize> = (0..self.len()).filter(|at| self.unsynced[*at].1).collect();
        if names.is_empty() {
            return;
        }
        let in_order = self.sample(names.len(), self.effort.singles);
        let in_order =
            in_order.into_iter().map(|len| (0..names.len()).map(|at| at < len).collect());
        let in_order: Vec<Vec<bool>> = in_order.collect();
        for subset in in_order.into_iter().chain(self.subsets(names.len())) {
            for contents in [Kept::All, Kept::Nothing] {
                let mut choice = vec![contents; self.len()];
                for (at, kept) in names.iter().zip(&subset) {
                    choice[*at] = if *kept { Kept::All } else { Kept::Nothing };
                }
                self.found.push(choice);
            }
        }
    }

    fn mixtures(&mut self) {
        for _ in 0..self.effort.mixtures {
            let bias = 1 + self.random.below(7);
            let choice = (0..self.len()).map(|at| {
                let torn = write(&self.unsynced[at].0).filter(|_| self.random.below(8) == 0);
                if let Some(range) = torn {
                    let place = range.start + self.random.below(range.end - range.start);
                    return match self.random.below(3) {
                        0 => Kept::Size,
                        1 => Kept::part(range.start..place),
                        _ => Kept::part(place..range.end),
                    };
                }
                if self.random.below(8) < bias { Kept::All } else { Kept::Nothing }
            });
            let choice = choice.collect();
            self.found.push(choice);
        }
    }

    /// Returns all subsets of a few things, or some subsets of many.
    fn subsets(&mut self, len: usize) -> Vec<Vec<bool>> {
        let limit = self.effort.subsets;
        if len < 16 && 1 << len <= limit {
            let subset = |bits: usize| (0..len).map(|at| bits >> at & 1 == 1).collect();
            return (0..1 << len).map(subset).collect();
        }
        let random = &mut self.random;
        (0..limit).map(|_| (0..len).map(|_| random.below(2) == 0).collect()).collect()
    }
}

/// Returns the byte range of the file that an operation writes.
fn write(op: &Op) -> Option<Range<u64>> {
    match op {
        Op::Write { offset, bytes, .. } => Some(*offset..offset + bytes.len() as u64),
        _ => None,
    }
}

fn file(op: &Op) -> Option<u64> {
    match op {
        Op::Write { file, .. } => Some(*file),
        _ => None,
    }
}
