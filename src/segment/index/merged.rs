//! Many runs as one: the keys of a moment, in order, from both ends.
//!
//! - For each key, the scan returns the version that counts at the moment, if it is live. Among the
//!   rows with the highest timestamp up to the moment's, that is the put, or else the tombstone. An
//!   expired put is not returned.
//! - All rows of a key are passed together, in all runs, and each end has its own place in each
//!   run. The ends have met when the next key from the front lies after the next one from the back.
//! - Ranges that [`gaps`](super::gaps) cover are skipped, and ranges found to be dead are recorded
//!   there.
//! - Few versions of a key with many versions are read: the version that counts is searched for.
//! - Keys are compared by the eight bytes after the prefix that all of them share, and in full only
//!   if those bytes are equal.
//! - Nothing is read before the first step.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use super::bounds::{Bounds, Direction};
use super::build::{common_size, prefix};
use super::cursor::Lane;
use super::gaps::{Edge, Gap, Gaps, Trail};
use super::version::{Hit, Moment, Part, RowVersion};
use crate::error::Result;
use crate::segment::Segment;

/// Number of rows of a key that are passed one by one in a run. If it has more, the row that counts
/// is searched for.
const ROWS_WALKED: u64 = if cfg!(any(test, bitcask_fuzzing)) { 3 } else { 16 };

/// A lane, and the part of its next key that is compared first.
#[derive(Debug, Clone, Copy)]
struct Head {
    rank: u64,
    lane: usize,
}

/// One end of the scan.
#[derive(Debug, Default)]
struct Side {
    /// A binary heap, with the next key on top.
    heads: Vec<Head>,
    /// `None` before the scan begins at this end.
    trail: Option<Trail>,
    /// Number of rows that this end has passed.
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
    /// After an error the scan has ended.
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

    /// Shares the known gaps with other scans of the store.
    pub(crate) fn with_gaps(self, gaps: &Arc<Gaps>) -> Self {
        Self { gaps: Arc::clone(gaps), ..self }
    }

    /// Returns the segment that holds the value of a hit.
    pub(crate) fn segment(&self, hit: &Hit) -> Option<&Arc<Segment>> {
        self.lanes.get(hit.part).map(|lane| &lane.segment)
    }

    /// Returns the lowest key that has not been returned yet.
    pub(crate) fn next(&mut self) -> Result<Option<Hit>> {
        self.step(Direction::Forward)
    }

    /// Returns the highest key that has not been returned yet.
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
            let mut best = self.pass(RowVersion::of(&row, head.lane), direction, key)?;
            while let Some(other) = self.top(direction).filter(|other| other.rank == head.rank) {
                let row = self.lane(other.lane).row(direction);
                let Some(row) = row.filter(|row| row.key == key) else { break };
                let version = self.pass(RowVersion::of(&row, other.lane), direction, key)?;
                best = version.filter(|version| version.beats(best.as_ref())).or(best);
            }
            let found = best.filter(|best| best.is_alive(self.moment.now));
            let expired = best.and_then(|best| best.expired(self.moment.now));
            let (gaps, side) = self.gaps_and_side(direction);
            let rows = side.rows - before;
            match (found, &mut side.trail) {
                (None, Some(trail)) => trail.pass(key, rows, expired),
                (Some(_), Some(trail)) => trail.end_gap(gaps, Some(key)),
                _ => {}
            }
            if let Some(version) = found {
                let key_size = key.len();
                return Ok(Some(version.hit(block.lend_key(at, key_size))));
            }
        }
        // If the ends have met, this end knows nothing about the other end's part.
        let is_alone = self.side(direction.opposite()).trail.is_none();
        let (gaps, side) = self.gaps_and_side(direction);
        side.trail.iter_mut().filter(|_| is_alone).for_each(|trail| trail.end_gap(gaps, None));
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
            None => unreachable!("every head belongs to a lane"),
        }
    }

    /// Reads the first block of each lane, except for lanes in which a gap covers it.
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
                        trail.count_block();
                    }
                }
            }
        }
        self.side_mut(direction).trail = Some(trail);
        self.rebuild_heap(direction);
        Ok(())
    }

    /// Rebuilds the heap from the next rows of all lanes.
    fn rebuild_heap(&mut self, direction: Direction) {
        let mut heads = std::mem::take(&mut self.side_mut(direction).heads);
        heads.clear();
        for (at, lane) in self.lanes.iter().enumerate() {
            if let Some(row) = lane.row(direction) {
                heads.push(Head { rank: rank(row.key, self.skip, direction), lane: at });
            }
        }
        // A sorted list is a heap.
        heads.sort_by(|a, b| order(&self.lanes, a, b, direction));
        self.side_mut(direction).heads = heads;
    }

    /// Checks whether the next key lies in a gap that was not entered before. If so, moves all
    /// lanes that the gap covers to its end, and returns `true`, since the next key may then be
    /// another one.
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
        self.skip_gap(&gap, direction)?;
        self.rebuild_heap(direction);
        Ok(true)
    }

    fn skip_gap(&mut self, gap: &Gap, direction: Direction) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_covered_by(gap)) {
            if lane.row(direction).is_some_and(|row| !gap.is_left(row.key, direction)) {
                lane.seek(gap.far_end(direction), direction, &self.bounds)?;
            }
        }
        Ok(())
    }

    /// Returns the next head, unless its key was passed from the other end.
    fn top(&self, direction: Direction) -> Option<Head> {
        let head = *self.side(direction).heads.first()?;
        let other = self.side(direction.opposite());
        let has_met =
            other.trail.is_some() && self.is_passed(&head, other.heads.first(), direction);
        (!has_met).then_some(head)
    }

    /// Returns whether a key lies past the next one from the other end.
    fn is_passed(&self, head: &Head, other: Option<&Head>, direction: Direction) -> bool {
        let Some(other) = other else { return true };
        // The rank is inverted to that of this end.
        let other = Head { rank: !other.rank, lane: other.lane };
        let by_key = || {
            let key = self.lane(head.lane).key(direction);
            let order = key.cmp(self.lane(other.lane).key(direction.opposite()));
            if direction == Direction::Forward { order } else { order.reverse() }
        };
        head.rank.cmp(&other.rank).then_with(by_key).is_gt()
    }

    /// Passes all rows of a key in the lane on top, whose next row is given. Returns the version
    /// that counts among them.
    fn pass(
        &mut self,
        next: RowVersion,
        direction: Direction,
        key: &[u8],
    ) -> Result<Option<RowVersion>> {
        let floor = self.side(direction).trail.as_ref().map_or(0, Trail::floor);
        let timestamps = floor + 1..=self.moment.timestamp;
        let is_seen = |version: &RowVersion| timestamps.contains(&version.timestamp);
        let (part, mut best, mut rows) = (next.part, Some(next).filter(is_seen), 1);
        let Some(lane) = self.lanes.get_mut(part) else { return Ok(None) };
        let mut is_open = lane.advance(direction, &self.bounds)?;
        while let Some(row) = lane.row(direction).filter(|row| row.key == key) {
            rows += 1;
            if rows > ROWS_WALKED {
                let found = lane.newest(key, self.moment.timestamp)?;
                let version = found.map(|(block, at)| RowVersion::of(&block.row(at), part));
                best = version.filter(is_seen);
                is_open = lane.seek(&Edge::past(key, direction), direction, &self.bounds)?;
                break;
            }
            // From the front the newest row comes first, and from the back it comes last.
            let version = RowVersion::of(&row, part);
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

    /// Replaces the head on top of the heap.
    fn replace_top(&mut self, head: Head, direction: Direction) {
        let side = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        sink(&mut side.heads, head, |a, b| order(&self.lanes, a, b, direction));
    }
}

/// Sinks a head from the top of a heap to its place.
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

/// Compares two lanes. The smaller one is next.
#[inline]
fn order(lanes: &[Lane], a: &Head, b: &Head, direction: Direction) -> Ordering {
    a.rank.cmp(&b.rank).then_with(|| order_alike(lanes, a, b, direction))
}

/// Compares two lanes whose keys are equal in the part that is compared first.
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

/// Returns the length of the prefix that all keys within the bounds share, in bytes.
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
