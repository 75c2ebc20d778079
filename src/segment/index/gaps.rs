//! Gaps: ranges of keys that are known to hold nothing. The first scan reads through them, and
//! later scans skip them.
//!
//! # Why they can be skipped
//!
//! A gap says: *no key in it has a live version with a timestamp up to the gap's time.* A scan
//! finds a gap by reading all of it at a moment with that timestamp. Timestamps rise with the log,
//! so every later put has a higher one. What a gap says therefore stays true, and writers need not
//! know about gaps. At any later moment, a version with a timestamp up to the gap's time is not
//! live, and a version with a higher timestamp is treated as usual. Hence two rules for a scan
//! within a gap:
//!
//! 1. A run without rows younger than the gap is skipped up to the gap's end.
//! 2. In the other runs, rows that are not younger than the gap do not count. A merge may have
//!    moved a put to a younger file than the tombstone that hides it, and rule 1 skips that
//!    tombstone.
//!
//! Merges keep this true: they preserve the timestamps of puts, and never lower the timestamp of a
//! tombstone. If a key was dead because it had expired, the gap records when the last such key
//! expired, and is not used at any earlier time of day.
//!
//! A scan at an earlier moment than a gap's does not use the gap. If one timestamp stands for two
//! moments, the gaps of one moment say nothing about the other. The store then begins with an empty
//! set of gaps, and snapshots keep the set that they began with. This happens in two cases:
//!
//! - A clear has no timestamp of its own. A scan after it has the moment of the last entry before
//!   it, and finds nothing where a snapshot of that moment still shows everything.
//! - A store that is opened read-only reloads everything, because its writer may have lost what it
//!   had written last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bounds::{Bounds, Direction};
use super::version::Moment;
use crate::sync::Mutex;

/// Number of consecutive dead rows that are worth a gap. Passing fewer costs about as much as using
/// a gap.
const ROWS_MIN: u64 = if cfg!(any(test, bitcask_fuzzing)) { 3 } else { 16 };

/// Number of rows that can be passed in the time of reading a block or skipping a gap. It is added
/// to the rows of a gap, so that a series of small gaps becomes one.
const ROWS_PER_BLOCK: u64 = ROWS_MIN / 3;

/// Number of dead rows that are passed before the first key of a possible gap is copied. Most
/// series of dead rows are short and need no copy.
const ROWS_BEFORE: u64 = ROWS_MIN / 8;

/// Maximum memory in bytes for all gaps of a store.
pub(super) const SIZE_MAX: usize =
    if cfg!(any(test, bitcask_fuzzing)) { 12 << 10 } else { 1 << 20 };

/// Memory in bytes that a gap takes in addition to its keys.
const GAP_SIZE: usize = 256;

/// A place between keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    Lowest,
    /// The place before a key, or after it if the flag is set.
    At(Vec<u8>, bool),
    Highest,
}

impl Edge {
    /// Returns the place next to a key that a scan reaches first.
    fn facing(key: &[u8], direction: Direction) -> Self {
        Self::At(key.to_vec(), direction == Direction::Backward)
    }

    /// Returns the place next to a key that a scan reaches last.
    pub(super) fn past(key: &[u8], direction: Direction) -> Self {
        Self::At(key.to_vec(), direction == Direction::Forward)
    }

    /// Returns whether a key lies above this place.
    pub(super) fn is_below(&self, key: &[u8]) -> bool {
        match self {
            Self::Lowest => true,
            Self::At(at, is_behind) if *is_behind => at.as_slice() < key,
            Self::At(at, _) => at.as_slice() <= key,
            Self::Highest => false,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::At(key, _) => key.len(),
            _ => 0,
        }
    }
}

/// A range of keys that holds nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) start: Edge,
    pub(super) end: Edge,
    /// No version in the gap with a timestamp up to this one is live.
    pub(super) time: u64,
    /// When the last expired key of the gap expired.
    pub(super) expired: u64,
}

impl Gap {
    fn counts_at(&self, moment: Moment) -> bool {
        self.time <= moment.timestamp && self.expired <= moment.now
    }

    /// Returns the edge at which a scan leaves the gap.
    pub(super) fn far_end(&self, direction: Direction) -> &Edge {
        match direction {
            Direction::Forward => &self.end,
            Direction::Backward => &self.start,
        }
    }

    /// Returns whether a scan that is at a key has reached the gap, or left it.
    fn is_reached(&self, key: &[u8], direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.start.is_below(key),
            Direction::Backward => !self.end.is_below(key),
        }
    }

    /// Returns whether a scan that is at a key has left the gap.
    pub(super) fn is_left(&self, key: &[u8], direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.end.is_below(key),
            Direction::Backward => !self.start.is_below(key),
        }
    }

    fn has(&self, edge: &Edge, direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.start <= *edge && *edge < self.end,
            Direction::Backward => self.start < *edge && *edge <= self.end,
        }
    }

    fn size(&self) -> usize {
        GAP_SIZE + self.start.size() + self.end.size()
    }
}

/// The gaps that the scans of a store have found. Lock 8.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<KnownGaps>);

#[derive(Debug, Default)]
struct KnownGaps {
    /// The gaps by their starts. They do not overlap.
    gaps: BTreeMap<Edge, GapEntry>,
    size: usize,
}

/// A gap, and whether a scan has used it since gaps were last removed for their memory.
type GapEntry = (Arc<Gap>, bool);

impl Gaps {
    /// Returns the first gap between two edges, in the direction of a scan, that counts at a
    /// moment. It may begin before the first edge.
    pub(super) fn next(
        &self,
        from: &Edge,
        to: &Edge,
        direction: Direction,
        moment: Moment,
    ) -> Option<Arc<Gap>> {
        let gaps = &mut self.0.lock().gaps;
        let counts = |(gap, _): &&mut GapEntry| gap.counts_at(moment);
        let found = match direction {
            Direction::Forward => {
                let before =
                    gaps.range(..=from).next_back().filter(|(_, (gap, _))| gap.end > *from);
                let start = before.map_or(from, |(start, _)| start).clone();
                let ahead = gaps.range_mut(start..).map(|(_, known)| known);
                ahead.take_while(|(gap, _)| gap.start < *to).find(counts)
            }
            Direction::Backward => {
                let ahead = gaps.range_mut(..from).rev().map(|(_, known)| known);
                ahead.take_while(|(gap, _)| gap.end > *to).find(counts)
            }
        };
        found.map(|(gap, is_used)| {
            *is_used = true;
            Arc::clone(gap)
        })
    }

    /// Adds a gap. It replaces what it covers of other gaps.
    pub(super) fn learn(&self, gap: Gap) {
        let known = &mut *self.0.lock();
        let below = known.gaps.range(..&gap.end).rev().map(|(_, (other, _))| other);
        let covered: Vec<_> = below.take_while(|other| other.end > gap.start).cloned().collect();
        // A gap of a later moment is kept. Scans at this earlier moment continue without a gap.
        if gap.start >= gap.end || covered.iter().any(|other| other.time > gap.time) {
            return;
        }
        for other in covered {
            known.remove(&other);
            let Gap { time, expired, .. } = *other;
            if other.start < gap.start {
                let (start, end) = (other.start.clone(), gap.start.clone());
                known.insert(Gap { start, end, time, expired });
            }
            if other.end > gap.end {
                let (start, end) = (gap.end.clone(), other.end.clone());
                known.insert(Gap { start, end, time, expired });
            }
        }
        known.make_room(gap.size());
        known.insert(gap);
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.0.lock().size
    }
}

impl KnownGaps {
    fn insert(&mut self, gap: Gap) {
        self.size += gap.size();
        self.gaps.insert(gap.start.clone(), (Arc::new(gap), false));
    }

    fn remove(&mut self, gap: &Gap) {
        if let Some((gap, _)) = self.gaps.remove(&gap.start) {
            self.size -= gap.size();
        }
    }

    /// Removes gaps if one more would take too much memory: first the gaps that were not used
    /// lately, and if that is not enough, every second one.
    fn make_room(&mut self, size: usize) {
        if self.size + size > SIZE_MAX {
            self.retain(std::mem::take);
        }
        while self.size + size > SIZE_MAX && self.size > 0 {
            let mut is_kept = true;
            self.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&mut bool) -> bool) {
        self.gaps.retain(|_, (_, is_used)| is_kept(is_used));
        self.size = self.gaps.values().map(|(gap, _)| gap.size()).sum();
    }
}

/// What one end of a scan knows about gaps: the next gap ahead, and the gap that it may be finding.
#[derive(Debug)]
pub(super) struct Trail {
    direction: Direction,
    moment: Moment,
    /// The edge at which the scan ends.
    end: Edge,
    next: Option<Arc<Gap>>,
    is_within: bool,
    /// No live key was found past this edge. `None` as long as only a few rows were passed.
    from: Option<Edge>,
    /// Number of rows passed since the last live key.
    rows: u64,
    /// The latest expiry of all expired keys that were passed.
    expired: u64,
}

impl Trail {
    /// Begins at an edge of the bounds. Returns the gap around that edge, if there is one.
    pub(super) fn begin(
        gaps: &Gaps,
        bounds: &Bounds,
        direction: Direction,
        moment: Moment,
    ) -> (Self, Option<Arc<Gap>>) {
        let (start, end) = (bounds.edge(direction), bounds.edge(direction.opposite()));
        let next = gaps.next(&start, &end, direction, moment);
        let within = next.clone().filter(|gap| gap.has(&start, direction));
        let (is_within, from) = (false, Some(start));
        let mut trail = Self { direction, moment, end, next, is_within, from, rows: 0, expired: 0 };
        if let Some(gap) = &within {
            trail.enter(gap);
        }
        (trail, within)
    }

    /// Returns the timestamp up to which rows of the next key do not count.
    #[inline]
    pub(super) fn floor(&self) -> u64 {
        self.next.as_ref().filter(|_| self.is_within).map_or(0, |gap| gap.time)
    }

    /// Returns whether a gap lies ahead, or around the next key.
    #[inline]
    pub(super) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Moves to the next key. Returns the gap that begins at or before the key, if it was not
    /// entered before.
    pub(super) fn reach(&mut self, gaps: &Gaps, key: &[u8]) -> Option<Arc<Gap>> {
        while let Some(gap) = &self.next {
            if gap.is_left(key, self.direction) {
                self.is_within = false;
                self.next = gaps.next(
                    &Edge::facing(key, self.direction),
                    &self.end,
                    self.direction,
                    self.moment,
                );
            } else if !self.is_within && gap.is_reached(key, self.direction) {
                let gap = Arc::clone(gap);
                self.from.get_or_insert_with(|| Edge::facing(key, self.direction));
                self.enter(&gap);
                return Some(gap);
            } else {
                break;
            }
        }
        None
    }

    fn enter(&mut self, gap: &Gap) {
        self.is_within = true;
        self.rows += ROWS_PER_BLOCK;
        self.expired = self.expired.max(gap.expired);
    }

    /// Counts a block that is read because its run is younger than the gap around the next key.
    pub(super) fn count_block(&mut self) {
        self.rows += ROWS_PER_BLOCK;
    }

    /// Passes a key that is dead or has expired, with this many rows.
    #[inline]
    pub(super) fn pass(&mut self, key: &[u8], rows: u64, expired: Option<u64>) {
        self.rows += rows;
        self.expired = self.expired.max(expired.unwrap_or(0));
        if self.from.is_none() && self.rows > ROWS_BEFORE {
            self.from = Some(Edge::facing(key, self.direction));
        }
    }

    /// Ends the gap that is being found, at a live key or at the end of the bounds.
    #[inline]
    pub(super) fn end_gap(&mut self, gaps: &Gaps, key: Option<&[u8]>) {
        let (from, rows) = (self.from.take(), std::mem::take(&mut self.rows));
        if let Some(from) = from.filter(|_| rows >= ROWS_MIN) {
            self.learn(gaps, from, key);
        }
    }

    #[cold]
    fn learn(&self, gaps: &Gaps, from: Edge, key: Option<&[u8]>) {
        let to = key.map_or_else(|| self.end.clone(), |key| Edge::facing(key, self.direction));
        let (start, end) = match self.direction {
            Direction::Forward => (from, to),
            Direction::Backward => (to, from),
        };
        gaps.learn(Gap { start, end, time: self.moment.timestamp, expired: self.expired });
    }
}
