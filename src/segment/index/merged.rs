//! Many runs as one: the keys of a moment, in order, from both ends.
//!
//! - Of each key the version that counts at the moment is shown, if there is one: of all its rows
//!   with the highest timestamp up to the moment's the put, else the tombstone; a put whose time is
//!   over is none.
//! - All rows of a key are passed at once, in all runs, and each end goes by its own direction through the
//!   runs. Where the next key from the front lies behind the next one from the back, they have met.
//! - What [`gaps`](super::gaps) say is dead is left alone, and what is found to be dead they are told.
//! - Of a key with many versions few are looked at: the one that counts is searched for.
//! - Keys are compared by eight bytes behind what all of them begin with; only where those are the
//!   same, in full.
//! - Nothing is read before the first step.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use super::bounds::{Bounds, Direction};
use super::build::{common_size, prefix};
use super::cursor::Lane;
use super::gaps::{Edge, Gap, Gaps, Trail};
use super::version::{Hit, Moment, Part, Version};
use crate::error::Result;
use crate::segment::Segment;

/// Of a key that has more rows than this in a run, the one that counts is searched for.
const ROWS_WALKED: u64 = if cfg!(any(test, bitcask_fuzzing)) { 3 } else { 16 };

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
    /// Nothing before it is begun.
    trail: Option<Trail>,
    /// How many rows it has passed.
    rows: u64,
}

/// The keys of a moment within bounds, in order.
#[derive(Debug)]
pub(crate) struct Merged {
    lanes: Vec<Lane>,
    bounds: Bounds,
    moment: Moment,
    gaps: Arc<Gaps>,
    /// Length of the prefix that all keys share, in bytes.
    skip: usize,
    front: Side,
    back: Side,
    /// Nothing comes behind an error.
    failed: bool,
}

impl Merged {
    pub(crate) fn new(parts: Vec<Part>, bounds: impl Into<Bounds>, moment: Moment) -> Self {
        let lane = |(segment, run)| Lane::new(segment, run);
        let lanes: Vec<_> = parts.into_iter().map(lane).collect();
        let (front, back) = (Side::default(), Side::default());
        let bounds = bounds.into();
        let skip = common(&lanes, &bounds);
        let gaps = Arc::default();
        Self { lanes, bounds, moment, gaps, skip, front, back, failed: false }
    }

    /// Shares what is known of stretches of keys that hold nothing with other scans of the store.
    pub(crate) fn sharing(self, gaps: &Arc<Gaps>) -> Self {
        Self { gaps: Arc::clone(gaps), ..self }
    }

    /// Returns the segment that a hit's value lies in.
    pub(crate) fn segment(&self, hit: &Hit) -> Option<&Arc<Segment>> {
        self.lanes.get(hit.part).map(|lane| &lane.segment)
    }

    /// Returns the lowest key that was not returned yet.
    pub(crate) fn next(&mut self) -> Result<Option<Hit>> {
        self.step(Direction::Forward)
    }

    /// Returns the highest key that was not returned yet.
    pub(crate) fn next_back(&mut self) -> Result<Option<Hit>> {
        self.step(Direction::Backward)
    }

    fn step(&mut self, direction: Direction) -> Result<Option<Hit>> {
        if self.failed {
            return Ok(None);
        }
        let found = self.try_step(direction);
        self.failed = found.is_err();
        found
    }

    fn try_step(&mut self, direction: Direction) -> Result<Option<Hit>> {
        if self.side(direction).trail.is_none() {
            self.begin(direction)?;
        }
        while let Some(head) = self.top(direction) {
            if self.enter_gap(head, direction)? {
                continue;
            }
            let Some((block, at)) = self.lane(head.lane).place(direction) else { break };
            let (block, at) = (Arc::clone(block), at);
            let row = block.row(at);
            let (key, before) = (row.key, self.side(direction).rows);
            let mut best = self.pass(Version::of(&row, head.lane), direction, key)?;
            while let Some(other) = self.top(direction).filter(|other| other.rank == head.rank) {
                let row = self.lane(other.lane).row(direction);
                let Some(row) = row.filter(|row| row.key == key) else { break };
                let version = self.pass(Version::of(&row, other.lane), direction, key)?;
                best = version.filter(|version| version.beats(best.as_ref())).or(best);
            }
            let found = best.filter(|best| best.is_there(self.moment.now));
            let expired = best.and_then(|best| best.expired(self.moment.now));
            let (gaps, side) = self.gaps_and_side(direction);
            let rows = side.rows - before;
            match (found, &mut side.trail) {
                (None, Some(trail)) => trail.pass(key, rows, expired),
                (Some(_), Some(trail)) => trail.meet(gaps, Some(key)),
                _ => {}
            }
            if let Some(version) = found {
                let key_size = key.len();
                return Ok(Some(version.hit(block.lend_key(at, key_size))));
            }
        }
        // Where the ends have met, the one knows nothing of the other's part.
        let is_alone = self.side(direction.opposite()).trail.is_none();
        let (gaps, side) = self.gaps_and_side(direction);
        side.trail.iter_mut().filter(|_| is_alone).for_each(|trail| trail.meet(gaps, None));
        Ok(None)
    }

    fn gaps_and_side(&mut self, direction: Direction) -> (&Gaps, &mut Side) {
        match direction {
            Direction::Forward => (&self.gaps, &mut self.front),
            Direction::Backward => (&self.gaps, &mut self.back),
        }
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Forward => &self.front,
            Direction::Backward => &self.back,
        }
    }

    fn side_mut(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        }
    }

    fn lane(&self, at: usize) -> &Lane {
        match self.lanes.get(at) {
            Some(lane) => lane,
            None => unreachable!("heads are of lanes"),
        }
    }

    /// Reads the first block of each lane, but of those of which a gap tells that it is all dead.
    fn begin(&mut self, direction: Direction) -> Result<()> {
        let (mut trail, gap) = Trail::begin(&self.gaps, &self.bounds, direction, self.moment);
        for lane in &mut self.lanes {
            match &gap {
                Some(gap) if lane.is_covered_by(gap) => {
                    lane.seek(gap.far_end(direction), direction, &self.bounds)?;
                }
                gap => {
                    let is_within =
                        |key: &[u8]| gap.as_ref().is_some_and(|gap| !gap.is_left(key, direction));
                    if lane.begin(direction, &self.bounds)? && is_within(lane.key(direction)) {
                        trail.read_within();
                    }
                }
            }
        }
        self.side_mut(direction).trail = Some(trail);
        self.gather(direction);
        Ok(())
    }

    /// Puts the next rows of all lanes in order.
    fn gather(&mut self, direction: Direction) {
        let mut heads = std::mem::take(&mut self.side_mut(direction).heads);
        heads.clear();
        for (at, lane) in self.lanes.iter().enumerate() {
            if let Some(row) = lane.row(direction) {
                heads.push(Head { rank: rank(row.key, self.skip, direction), lane: at });
            }
        }
        // What is sorted is a heap.
        heads.sort_by(|a, b| order(&self.lanes, a, b, direction));
        self.side_mut(direction).heads = heads;
    }

    /// Sees whether the next key lies in a gap that was not come to before; then goes to its end in all
    /// lanes of which it tells, and says so: another key may be next.
    fn enter_gap(&mut self, head: Head, direction: Direction) -> Result<bool> {
        let (gaps, side) = match direction {
            Direction::Forward => (&self.gaps, &mut self.front),
            Direction::Backward => (&self.gaps, &mut self.back),
        };
        let trail = side.trail.as_mut().filter(|trail| trail.has_next());
        let (Some(trail), Some(lane)) = (trail, self.lanes.get(head.lane)) else {
            return Ok(false);
        };
        let Some(gap) = trail.reach(gaps, lane.key(direction)) else { return Ok(false) };
        self.leave_out(&gap, direction)?;
        self.gather(direction);
        Ok(true)
    }

    fn leave_out(&mut self, gap: &Gap, direction: Direction) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_covered_by(gap)) {
            if lane.row(direction).is_some_and(|row| !gap.is_left(row.key, direction)) {
                lane.seek(gap.far_end(direction), direction, &self.bounds)?;
            }
        }
        Ok(())
    }

    /// Returns the head that is next, unless its key was passed from the other end.
    fn top(&self, direction: Direction) -> Option<Head> {
        let head = *self.side(direction).heads.first()?;
        let other = self.side(direction.opposite());
        let has_met =
            other.trail.is_some() && self.is_passed(&head, other.heads.first(), direction);
        (!has_met).then_some(head)
    }

    /// Returns whether a key lies behind the one that is next from the other end.
    fn is_passed(&self, head: &Head, other: Option<&Head>, direction: Direction) -> bool {
        let Some(other) = other else { return true };
        // As this end ranks it.
        let other = Head { rank: !other.rank, lane: other.lane };
        let by_key = || {
            let key = self.lane(head.lane).key(direction);
            let order = key.cmp(self.lane(other.lane).key(direction.opposite()));
            if direction == Direction::Forward { order } else { order.reverse() }
        };
        head.rank.cmp(&other.rank).then_with(by_key).is_gt()
    }

    /// Passes all rows of a key in the lane on top, of which the next is given; returns the one that
    /// counts of them.
    fn pass(&mut self, next: Version, direction: Direction, key: &[u8]) -> Result<Option<Version>> {
        let floor = self.side(direction).trail.as_ref().map_or(0, Trail::floor);
        let timestamps = floor + 1..=self.moment.timestamp;
        let is_seen = |version: &Version| timestamps.contains(&version.timestamp);
        let (part, mut best, mut rows) = (next.part, Some(next).filter(is_seen), 1);
        let Some(lane) = self.lanes.get_mut(part) else { return Ok(None) };
        let mut is_open = lane.advance(direction, &self.bounds)?;
        while let Some(row) = lane.row(direction).filter(|row| row.key == key) {
            rows += 1;
            if rows > ROWS_WALKED {
                let found = lane.newest(key, self.moment.timestamp)?;
                let version = found.map(|(block, at)| Version::of(&block.row(at), part));
                best = version.filter(is_seen);
                is_open = lane.seek(&Edge::past(key, direction), direction, &self.bounds)?;
                break;
            }
            // Newest first from the front, newest last from the back.
            let version = Version::of(&row, part);
            if is_seen(&version) && (best.is_none() || direction == Direction::Backward) {
                best = Some(version);
            }
            is_open = lane.advance(direction, &self.bounds)?;
        }
        if is_open {
            let rank = rank(lane.key(direction), self.skip, direction);
            self.replace_top(Head { rank, lane: part }, direction);
        } else {
            self.drop_top(direction);
        }
        self.side_mut(direction).rows += rows;
        Ok(best)
    }

    fn drop_top(&mut self, direction: Direction) {
        if let Some(last) = self.side_mut(direction).heads.pop() {
            self.replace_top(last, direction);
        }
    }

    /// Puts a head in the place of the one on top, and lets it sink to where it belongs.
    fn replace_top(&mut self, head: Head, direction: Direction) {
        let side = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        sink(&mut side.heads, head, |a, b| order(&self.lanes, a, b, direction));
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
fn order(lanes: &[Lane], a: &Head, b: &Head, direction: Direction) -> Ordering {
    a.rank.cmp(&b.rank).then_with(|| order_alike(lanes, a, b, direction))
}

/// The same of two whose keys are alike as far as they are compared first.
#[cold]
fn order_alike(lanes: &[Lane], a: &Head, b: &Head, direction: Direction) -> Ordering {
    let key = |head: &Head| lanes.get(head.lane).map(|lane| lane.key(direction));
    let order = key(a).cmp(&key(b));
    if direction == Direction::Forward { order } else { order.reverse() }
}

#[inline]
fn rank(key: &[u8], skip: usize, direction: Direction) -> u64 {
    let prefix = prefix(key.get(skip..).unwrap_or_default());
    if direction == Direction::Forward { prefix } else { !prefix }
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
