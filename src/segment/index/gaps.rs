//! Stretches of keys that are known to hold nothing, so that they are gone through once and not by
//! every scan.
//!
//! # Why they can be passed over
//!
//! A gap says: *of the versions with a timestamp up to its time, no key in it has one that is alive.* It is
//! learnt by a scan that has gone through all of it at a moment of that timestamp. Timestamps rise with
//! the log, so whatever is put later has a higher one: what a gap says stays true, and writers need not
//! know of it. So at any moment from then on, a version with a timestamp up to the gap's time shows
//! nothing, and one with a higher timestamp is looked at as always. Hence two rules for a scan within a gap:
//!
//! 1. A run that has nothing younger than the gap is left alone up to the gap's end.
//! 2. Of the other runs, rows that are not younger than the gap do not count. A merge may have moved a put
//!    to a younger file than the tombstone that hides it, which rule 1 leaves alone.
//!
//! Merges keep this true. They keep the timestamps of puts, and give a tombstone one that is higher at
//! most. Where a key was dead because it had expired, the gap knows when the last of them did, and is not
//! used at any earlier time of day.
//!
//! A scan of an earlier moment than a gap's does not use it. Where one timestamp stands for two moments,
//! gaps of the one say nothing of the other, and the store begins anew with none; snapshots keep those
//! that they began with. There are two such cases:
//!
//! - A clear has no timestamp of its own. A scan behind it has the moment of the last entry before, and
//!   finds nothing where a snapshot of that moment still shows everything.
//! - A store that is opened read-only loads everything anew: its writer may have lost what it had written
//!   last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cursor::{Bounds, Way};
use super::version::Moment;
use crate::sync::Mutex;

/// Dead rows in a row that are worth a gap: passing fewer costs about as much as using one.
const ROWS_MIN: u64 = if cfg!(any(test, bitcask_fuzzing)) { 3 } else { 16 };

/// Rows that are passed in the time in which a block is read, or a gap passed over. Since these count too,
/// a row of small gaps becomes one.
const ROWS_PER_BLOCK: u64 = ROWS_MIN / 3;

/// Rows that are passed before the key is noted that a gap starts with: most dead rows are few, and need
/// no copy of a key.
const ROWS_BEFORE: u64 = ROWS_MIN / 8;

/// As much memory all gaps of a store may take.
pub(super) const SIZE_MAX: usize =
    if cfg!(any(test, bitcask_fuzzing)) { 12 << 10 } else { 1 << 20 };

/// What a gap takes beside its keys.
const GAP_SIZE: usize = 256;

/// A place between keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Edge {
    Lowest,
    /// Beside a key: before it, or behind it if that is set.
    At(Vec<u8>, bool),
    Highest,
}

impl Edge {
    /// Returns the place beside a key that a scan comes to first.
    fn facing(key: &[u8], way: Way) -> Self {
        Self::At(key.to_vec(), way == Way::Backward)
    }

    /// Returns the place beside a key that a scan comes to last.
    pub(super) fn past(key: &[u8], way: Way) -> Self {
        Self::At(key.to_vec(), way == Way::Forward)
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

/// A stretch of keys that holds nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) start: Edge,
    pub(super) end: Edge,
    /// Up to this timestamp no version in it is alive.
    pub(super) time: u64,
    /// When the last of its keys expired, of those that did.
    pub(super) expired: u64,
}

impl Gap {
    fn counts_at(&self, moment: Moment) -> bool {
        self.time <= moment.timestamp && self.expired <= moment.now
    }

    /// Returns the end that a scan leaves it by.
    pub(super) fn far_end(&self, way: Way) -> &Edge {
        match way {
            Way::Forward => &self.end,
            Way::Backward => &self.start,
        }
    }

    /// Returns whether a scan that has come to a key has come to the gap, or left it.
    fn is_reached(&self, key: &[u8], way: Way) -> bool {
        match way {
            Way::Forward => self.start.is_below(key),
            Way::Backward => !self.end.is_below(key),
        }
    }

    /// Returns whether a scan that has come to a key has left the gap.
    pub(super) fn is_left(&self, key: &[u8], way: Way) -> bool {
        match way {
            Way::Forward => self.end.is_below(key),
            Way::Backward => !self.start.is_below(key),
        }
    }

    fn has(&self, cut: &Edge, way: Way) -> bool {
        match way {
            Way::Forward => self.start <= *cut && *cut < self.end,
            Way::Backward => self.start < *cut && *cut <= self.end,
        }
    }

    fn size(&self) -> usize {
        GAP_SIZE + self.start.size() + self.end.size()
    }
}

/// The gaps that the scans of a store have learnt. Lock 8.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<Learnt>);

#[derive(Debug, Default)]
struct Learnt {
    /// By their starts. None overlaps another.
    gaps: BTreeMap<Edge, GapEntry>,
    size: usize,
}

/// A gap, and whether a scan has used it since the last time that there were too many.
type GapEntry = (Arc<Gap>, bool);

impl Gaps {
    /// Returns the first gap between two places on the way that counts at a moment; it may have begun
    /// before.
    pub(super) fn next(
        &self,
        from: &Edge,
        to: &Edge,
        way: Way,
        moment: Moment,
    ) -> Option<Arc<Gap>> {
        let gaps = &mut self.0.lock().gaps;
        let counts = |(gap, _): &&mut GapEntry| gap.counts_at(moment);
        let found = match way {
            Way::Forward => {
                let before =
                    gaps.range(..=from).next_back().filter(|(_, (gap, _))| gap.end > *from);
                let start = before.map_or(from, |(start, _)| start).clone();
                let ahead = gaps.range_mut(start..).map(|(_, known)| known);
                ahead.take_while(|(gap, _)| gap.start < *to).find(counts)
            }
            Way::Backward => {
                let ahead = gaps.range_mut(..from).rev().map(|(_, known)| known);
                ahead.take_while(|(gap, _)| gap.end > *to).find(counts)
            }
        };
        found.map(|(gap, is_used)| {
            *is_used = true;
            Arc::clone(gap)
        })
    }

    /// Adds a gap; what it covers of others goes.
    pub(super) fn learn(&self, gap: Gap) {
        let known = &mut *self.0.lock();
        let below = known.gaps.range(..&gap.end).rev().map(|(_, (other, _))| other);
        let covered: Vec<_> = below.take_while(|other| other.end > gap.start).cloned().collect();
        // Scans of earlier moments do without what is known of later ones.
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

impl Learnt {
    fn insert(&mut self, gap: Gap) {
        self.size += gap.size();
        self.gaps.insert(gap.start.clone(), (Arc::new(gap), false));
    }

    fn remove(&mut self, gap: &Gap) {
        if let Some((gap, _)) = self.gaps.remove(&gap.start) {
            self.size -= gap.size();
        }
    }

    /// Forgets gaps where one more would take too much memory: those that were not used lately, and if
    /// that is not enough every other one.
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

/// What one end of a scan knows of gaps: the next one on its way, and the one that it may be in the
/// middle of finding.
#[derive(Debug)]
pub(super) struct Trail {
    way: Way,
    moment: Moment,
    /// The end of what is asked for.
    end: Edge,
    next: Option<Arc<Gap>>,
    is_within: bool,
    /// Behind this nothing alive was met; `None` as long as few rows were passed.
    from: Option<Edge>,
    /// Rows that were passed since the last key that is there.
    rows: u64,
    /// When the last of what had expired did, on the whole way.
    expired: u64,
}

impl Trail {
    /// Begins at an end of what is asked for; returns the gap that this lies in, if it does.
    pub(super) fn begin(
        gaps: &Gaps,
        bounds: &Bounds,
        way: Way,
        moment: Moment,
    ) -> (Self, Option<Arc<Gap>>) {
        let (start, end) = (bounds.cut(way), bounds.cut(way.opposite()));
        let next = gaps.next(&start, &end, way, moment);
        let within = next.clone().filter(|gap| gap.has(&start, way));
        let (is_within, from) = (false, Some(start));
        let mut trail = Self { way, moment, end, next, is_within, from, rows: 0, expired: 0 };
        if let Some(gap) = &within {
            trail.enter(gap);
        }
        (trail, within)
    }

    /// Returns up to which timestamp rows of the next key do not count.
    #[inline]
    pub(super) fn floor(&self) -> u64 {
        self.next.as_ref().filter(|_| self.is_within).map_or(0, |gap| gap.time)
    }

    /// Returns whether there is a gap on the way, or around the next key.
    #[inline]
    pub(super) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Comes to the next key; returns the gap that begins with it or before, if it is new.
    pub(super) fn reach(&mut self, gaps: &Gaps, key: &[u8]) -> Option<Arc<Gap>> {
        while let Some(gap) = &self.next {
            if gap.is_left(key, self.way) {
                self.is_within = false;
                self.next =
                    gaps.next(&Edge::facing(key, self.way), &self.end, self.way, self.moment);
            } else if !self.is_within && gap.is_reached(key, self.way) {
                let gap = Arc::clone(gap);
                self.from.get_or_insert_with(|| Edge::facing(key, self.way));
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

    /// Notes a run of which a block is read, since it is younger than the gap around the next key.
    pub(super) fn read_within(&mut self) {
        self.rows += ROWS_PER_BLOCK;
    }

    /// Passes a key that is not there, and so many rows of it; it may have expired.
    #[inline]
    pub(super) fn pass(&mut self, key: &[u8], rows: u64, expired: Option<u64>) {
        self.rows += rows;
        self.expired = self.expired.max(expired.unwrap_or(0));
        if self.from.is_none() && self.rows > ROWS_BEFORE {
            self.from = Some(Edge::facing(key, self.way));
        }
    }

    /// Ends what is being found, at a key that is there, or at the end of what is asked for.
    #[inline]
    pub(super) fn meet(&mut self, gaps: &Gaps, key: Option<&[u8]>) {
        let (from, rows) = (self.from.take(), std::mem::take(&mut self.rows));
        if let Some(from) = from.filter(|_| rows >= ROWS_MIN) {
            self.learn(gaps, from, key);
        }
    }

    #[cold]
    fn learn(&self, gaps: &Gaps, from: Edge, key: Option<&[u8]>) {
        let to = key.map_or_else(|| self.end.clone(), |key| Edge::facing(key, self.way));
        let (start, end) = match self.way {
            Way::Forward => (from, to),
            Way::Backward => (to, from),
        };
        gaps.learn(Gap { start, end, time: self.moment.timestamp, expired: self.expired });
    }
}
