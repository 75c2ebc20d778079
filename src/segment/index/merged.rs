//! Many runs as one: the keys of a moment, in order, from both ends.
//!
//! - Of each key the version that counts at the moment is shown, if there is one: of all its rows
//!   with the highest timestamp up to the moment's the put, else the tombstone; a put whose time is
//!   over is none.
//! - All rows of a key are passed at once, in all runs, so that both ends can be used by turns.
//! - Keys are compared by eight bytes behind what all of them begin with; only where those are the
//!   same, in full.
//! - Nothing is read before the first step.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use super::block::{Row, Target};
use super::build::{common_size, prefix};
use super::cursor::{Bounds, Lane, Way};
use super::run::Run;
use crate::error::Result;
use crate::segment::Segment;
use crate::value::Value;

/// A run, and the segment that it is a part of.
pub(crate) type Part = (Arc<Segment>, Arc<Run>);

/// A moment: what was written up to a timestamp, as it is seen at a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) timestamp: u64,
    pub(crate) now: u64,
}

/// A key that is there, and where its value lies.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) key: Value,
    /// Which of the parts it was found in.
    pub(crate) part: usize,
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    pub(crate) expiry: Option<u64>,
}

/// A version of a key: a row that may be the one that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    /// Which of the parts it was found in.
    pub(crate) part: usize,
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    expiry: Option<u64>,
    pub(crate) is_tombstone: bool,
}

impl Version {
    fn of(row: &Row<'_>, part: usize) -> Self {
        let (offset, is_tombstone) = (row.offset(), row.is_tombstone());
        Self { part, offset, timestamp: row.timestamp, expiry: row.expiry, is_tombstone }
    }

    /// Returns whether it counts and not the other.
    fn beats(&self, other: Option<&Self>) -> bool {
        let rank = |version: &Self| (version.timestamp, !version.is_tombstone);
        other.is_none_or(|other| rank(self) > rank(other))
    }

    fn is_there(&self, now: u64) -> bool {
        !self.is_tombstone && self.expiry.is_none_or(|expiry| expiry > now)
    }

    fn hit(self, key: Value) -> Hit {
        let Self { part, offset, timestamp, expiry, .. } = self;
        Hit { key, part, offset, timestamp, expiry }
    }
}

/// Looks up the version of a key that counts at a timestamp, be it a tombstone or expired.
pub(crate) fn newest(parts: &[Part], key: &[u8], timestamp: u64) -> Result<Option<Version>> {
    let target = Target { key, timestamp };
    let mut newest: Option<Version> = None;
    for (part, (segment, run)) in parts.iter().enumerate() {
        if let Some((block, at)) = run.find(target, segment)? {
            let version = Version::of(&block.row(at), part);
            if version.beats(newest.as_ref()) {
                newest = Some(version);
            }
        }
    }
    Ok(newest)
}

/// Looks a key up as it is seen at a moment.
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) fn find(parts: &[Part], key: &[u8], moment: Moment) -> Result<Option<Hit>> {
    let version = newest(parts, key, moment.timestamp)?.filter(|it| it.is_there(moment.now));
    Ok(version.map(|version| version.hit(Value::from(key.to_vec()))))
}

/// A lane and its next key, as it is compared first.
#[derive(Debug, Clone, Copy)]
struct Head {
    rank: u64,
    lane: usize,
}

/// One end.
#[derive(Debug, Default)]
struct Side {
    /// A heap: each has the next key before those of the two at twice its place.
    heads: Vec<Head>,
    is_begun: bool,
}

/// The keys of a moment within bounds, in order.
#[derive(Debug)]
pub(crate) struct Merged {
    lanes: Vec<Lane>,
    bounds: Bounds,
    moment: Moment,
    /// So many bytes are the same in all keys.
    skip: usize,
    front: Side,
    back: Side,
    /// Nothing comes behind an error.
    failed: bool,
}

impl Merged {
    pub(crate) fn new(
        parts: Vec<Part>,
        (start, end): (Bound<Vec<u8>>, Bound<Vec<u8>>),
        moment: Moment,
    ) -> Self {
        let lane = |(segment, run)| Lane::new(segment, run);
        let lanes: Vec<_> = parts.into_iter().map(lane).collect();
        let (front, back) = (Side::default(), Side::default());
        let bounds = Bounds { start, end };
        let skip = common(&lanes, &bounds);
        Self { lanes, bounds, moment, skip, front, back, failed: false }
    }

    /// Returns the segment that a hit's value lies in.
    pub(crate) fn segment(&self, hit: &Hit) -> Option<&Arc<Segment>> {
        self.lanes.get(hit.part).map(|lane| &lane.segment)
    }

    /// Returns the lowest key that was not returned yet.
    pub(crate) fn next(&mut self) -> Result<Option<Hit>> {
        self.step(Way::Forward)
    }

    /// Returns the highest key that was not returned yet.
    pub(crate) fn next_back(&mut self) -> Result<Option<Hit>> {
        self.step(Way::Backward)
    }

    fn step(&mut self, way: Way) -> Result<Option<Hit>> {
        if self.failed {
            return Ok(None);
        }
        let found = self.try_step(way);
        self.failed = found.is_err();
        found
    }

    fn try_step(&mut self, way: Way) -> Result<Option<Hit>> {
        if !self.side(way).is_begun {
            self.begin(way)?;
        }
        while let Some(head) = self.top(way) {
            let Some((block, at)) = self.lane(head.lane).place(way) else { break };
            let (block, at) = (Arc::clone(block), at);
            let row = block.row(at);
            let key = row.key;
            let mut best = self.pass(Version::of(&row, head.lane), way, key)?;
            while let Some(other) = self.top(way).filter(|other| other.rank == head.rank) {
                let row = self.lane(other.lane).row(way);
                let Some(row) = row.filter(|row| row.key == key) else { break };
                let version = self.pass(Version::of(&row, other.lane), way, key)?;
                best = version.filter(|version| version.beats(best.as_ref())).or(best);
            }
            if let Some(version) = best.filter(|best| best.is_there(self.moment.now)) {
                let key_size = key.len();
                return Ok(Some(version.hit(block.lend_key(at, key_size))));
            }
        }
        Ok(None)
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Forward => &self.front,
            Way::Backward => &self.back,
        }
    }

    fn side_mut(&mut self, way: Way) -> &mut Side {
        match way {
            Way::Forward => &mut self.front,
            Way::Backward => &mut self.back,
        }
    }

    fn lane(&self, at: usize) -> &Lane {
        match self.lanes.get(at) {
            Some(lane) => lane,
            None => unreachable!("heads are of lanes"),
        }
    }

    /// Reads the first block of each lane.
    fn begin(&mut self, way: Way) -> Result<()> {
        let mut heads = Vec::new();
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            if lane.begin(way, &self.bounds)? {
                heads.push(Head { rank: rank(lane.key(way), self.skip, way), lane: at });
            }
        }
        // What is sorted is a heap.
        heads.sort_by(|a, b| order(&self.lanes, a, b, way));
        *self.side_mut(way) = Side { heads, is_begun: true };
        Ok(())
    }

    /// Returns the head that is next; those whose rows the other end has passed go.
    fn top(&mut self, way: Way) -> Option<Head> {
        loop {
            let head = *self.side(way).heads.first()?;
            let both = self.front.is_begun && self.back.is_begun;
            if !both || self.lane(head.lane).is_open() {
                return Some(head);
            }
            self.drop_top(way);
        }
    }

    /// Passes all rows of a key in the lane on top, of which the next is given; returns the one that
    /// counts of them.
    fn pass(&mut self, next: Version, way: Way, key: &[u8]) -> Result<Option<Version>> {
        let is_seen = |version: &Version| version.timestamp <= self.moment.timestamp;
        let (part, mut best) = (next.part, Some(next).filter(is_seen));
        let Some(lane) = self.lanes.get_mut(part) else { return Ok(None) };
        loop {
            if !lane.advance(way, &self.bounds)? {
                self.drop_top(way);
                break;
            }
            let Some(row) = lane.row(way) else { break };
            if row.key != key {
                let rank = rank(row.key, self.skip, way);
                self.replace_top(Head { rank, lane: part }, way);
                break;
            }
            // Newest first from the front, newest last from the back.
            let version = Version::of(&row, part);
            if is_seen(&version) && (best.is_none() || way == Way::Backward) {
                best = Some(version);
            }
        }
        Ok(best)
    }

    fn drop_top(&mut self, way: Way) {
        if let Some(last) = self.side_mut(way).heads.pop() {
            self.replace_top(last, way);
        }
    }

    /// Puts a head in the place of the one on top, and lets it sink to where it belongs.
    fn replace_top(&mut self, head: Head, way: Way) {
        let side = match way {
            Way::Forward => &mut self.front,
            Way::Backward => &mut self.back,
        };
        sink(&mut side.heads, head, |a, b| order(&self.lanes, a, b, way));
    }
}

/// Lets a head sink from the top of a heap to where it belongs.
#[inline]
fn sink(heads: &mut [Head], head: Head, order: impl Fn(&Head, &Head) -> Ordering) {
    let mut at = 0;
    while let Some([left, rest @ ..]) = heads.get(2 * at + 1..).filter(|rest| !rest.is_empty()) {
        let (next, first) = match rest.first() {
            Some(right) if order(right, left).is_lt() => (2 * at + 2, *right),
            _ => (2 * at + 1, *left),
        };
        if order(&first, &head).is_ge() {
            break;
        }
        if let Some(place) = heads.get_mut(at) {
            *place = first;
        }
        at = next;
    }
    if let Some(place) = heads.get_mut(at) {
        *place = head;
    }
}

/// Which of two lanes is next.
#[inline]
fn order(lanes: &[Lane], a: &Head, b: &Head, way: Way) -> Ordering {
    a.rank.cmp(&b.rank).then_with(|| order_alike(lanes, a, b, way))
}

/// The same of two whose keys are alike as far as they are compared first.
#[cold]
fn order_alike(lanes: &[Lane], a: &Head, b: &Head, way: Way) -> Ordering {
    let key = |head: &Head| lanes.get(head.lane).map(|lane| lane.key(way));
    let order = key(a).cmp(&key(b));
    if way == Way::Forward { order } else { order.reverse() }
}

#[inline]
fn rank(key: &[u8], skip: usize, way: Way) -> u64 {
    let prefix = prefix(key.get(skip..).unwrap_or_default());
    if way == Way::Forward { prefix } else { !prefix }
}

/// Returns how many bytes all keys within the bounds begin with in common.
fn common(lanes: &[Lane], bounds: &Bounds) -> usize {
    let directories = || lanes.iter().map(|lane| &lane.run.directory).filter(|all| all.len() > 0);
    let first = directories().map(|directory| directory.key(0)).min();
    let last = directories().map(|directory| directory.last.as_slice()).max();
    let (Some(first), Some(last)) = (first, last) else { return 0 };
    let first = match &bounds.start {
        Bound::Included(start) | Bound::Excluded(start) => first.max(start),
        Bound::Unbounded => first,
    };
    let last = match &bounds.end {
        Bound::Included(end) | Bound::Excluded(end) => last.min(end),
        Bound::Unbounded => last,
    };
    if first <= last { common_size(first, last) } else { 0 }
}
