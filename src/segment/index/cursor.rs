//! One run gone through from both ends, within bounds.
//!
//! - Nothing is read before an end is begun; then a block at a time.
//! - Where the ends have met is told by their places alone: who goes through several runs takes all
//!   rows of a key at once, so no end stops within them.

use std::ops::Range;
use std::sync::Arc;

use super::block::{Block, Row, SeekTarget};
use super::bounds::{Bounds, Direction};
use super::gaps::{Edge, Gap};
use super::run::Run;
use crate::error::Result;
use crate::segment::Segment;

#[cfg(test)]
thread_local! {
    /// How many rows this thread has passed, and how many blocks it has read, of all runs.
    pub(crate) static WALKED: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
}

/// A row that is next from one end.
#[derive(Debug)]
struct Cursor {
    block: Arc<Block>,
    number: usize,
    at: usize,
    /// The rows of the block that lie within the bounds.
    within: Range<usize>,
}

/// A run, and how far it has been gone through from either end.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) segment: Arc<Segment>,
    pub(super) run: Arc<Run>,
    /// No row is younger.
    time: u64,
    front: Option<Cursor>,
    back: Option<Cursor>,
}

impl Lane {
    pub(super) fn new(segment: Arc<Segment>, run: Arc<Run>) -> Self {
        // Of a segment that was sealed since the run was made, its time is the later one.
        let time = segment.summary().map_or(run.time, |summary| summary.last_timestamp);
        Self { segment, run, time, front: None, back: None }
    }

    fn cursor(&self, direction: Direction) -> Option<&Cursor> {
        match direction {
            Direction::Forward => self.front.as_ref(),
            Direction::Backward => self.back.as_ref(),
        }
    }

    fn cursor_mut(&mut self, direction: Direction) -> &mut Option<Cursor> {
        match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        }
    }

    /// Returns the key that is next from an end; there has to be one.
    #[inline]
    pub(super) fn key(&self, direction: Direction) -> &[u8] {
        self.row(direction).map(|row| row.key).unwrap_or_default()
    }

    #[inline]
    pub(super) fn row(&self, direction: Direction) -> Option<Row<'_>> {
        self.cursor(direction).map(|cursor| cursor.block.row(cursor.at))
    }

    /// Returns the block that the next row lies in, and which it is of its rows.
    #[inline]
    pub(super) fn place(&self, direction: Direction) -> Option<(&Arc<Block>, usize)> {
        self.cursor(direction).map(|cursor| (&cursor.block, cursor.at))
    }

    /// Returns whether a gap tells of all rows that lie in it.
    pub(super) fn is_covered_by(&self, gap: &Gap) -> bool {
        self.time <= gap.time
    }

    /// Begins at an end; says whether there is a row.
    pub(super) fn begin(&mut self, direction: Direction, bounds: &Bounds) -> Result<bool> {
        let (start, end) = (bounds.start.as_ref(), bounds.end.as_ref());
        let directory = &self.run.directory;
        if !directory.overlaps(start.map(Vec::as_slice), end.map(Vec::as_slice)) {
            return Ok(false);
        }
        let len = directory.len();
        let target = match direction {
            Direction::Forward => bounds.start_target(),
            Direction::Backward => bounds.end_target(),
        };
        let first = match (target, direction) {
            (Some(target), _) => {
                let blocks = directory.blocks_of(target.key);
                // All rows of a key lie on one side of the place.
                if target == SeekTarget::before(target.key) { blocks.start } else { blocks.end - 1 }
            }
            (None, Direction::Forward) => 0,
            (None, Direction::Backward) => len - 1,
        };
        // All rows of the block may lie on the other side; then those of the next may be beyond.
        let mut found = self.enter(first, direction, bounds)?;
        if found.is_none() {
            let directory = &self.run.directory;
            let next = match direction {
                Direction::Forward => {
                    Some(first + 1).filter(|next| !bounds.ends_before(directory.key(*next)))
                }
                Direction::Backward => {
                    first.checked_sub(1).filter(|_| !bounds.starts_after(directory.key(first)))
                }
            };
            if let Some(next) = next {
                found = self.enter(next, direction, bounds)?;
            }
        }
        let is_found = found.is_some();
        *self.cursor_mut(direction) = found;
        Ok(is_found)
    }

    /// Returns the newest row of a key that is not younger than a time.
    pub(super) fn newest(&self, key: &[u8], timestamp: u64) -> Result<Option<(Arc<Block>, usize)>> {
        self.run.find(SeekTarget { key, timestamp }, &self.segment)
    }

    /// Goes to the first row from a place on, which lies ahead; says whether there is one.
    pub(super) fn seek(
        &mut self,
        edge: &Edge,
        direction: Direction,
        bounds: &Bounds,
    ) -> Result<bool> {
        let cursor = self.cursor_mut(direction).take();
        let Some(ahead) = bounds.ahead_of(edge, direction) else { return Ok(false) };
        // Often it is in the same block.
        if let Some(mut cursor) = cursor {
            let Range { start, end } = cursor.within;
            let target = if direction == Direction::Forward {
                ahead.start_target()
            } else {
                ahead.end_target()
            };
            let at = target.map_or(end, |target| cursor.block.len_before(&target));
            let found = match direction {
                Direction::Forward => Some(at).filter(|at| *at < end),
                Direction::Backward => at.min(end).checked_sub(1).filter(|at| *at >= start),
            };
            if let Some(at) = found {
                cursor.at = at;
                *self.cursor_mut(direction) = Some(cursor);
                return Ok(true);
            }
        }
        self.begin(direction, &ahead)
    }

    /// Reads a block; nothing if no row of it lies within the bounds.
    fn enter(
        &self,
        number: usize,
        direction: Direction,
        bounds: &Bounds,
    ) -> Result<Option<Cursor>> {
        let Some(block) = self.run.block(number, &self.segment)? else { return Ok(None) };
        #[cfg(test)]
        WALKED.set((WALKED.get().0, WALKED.get().1 + 1));
        let directory = &self.run.directory;
        let is_last = number + 1 == directory.len();
        // What leads to a block, and to the next, mostly tells that all of it lies within.
        let start = match bounds.start_target() {
            Some(start) if directory.key(number) <= start.key => block.len_before(&start),
            _ => 0,
        };
        let end = match bounds.end_target() {
            Some(end) if is_last || directory.key(number + 1) >= end.key => block.len_before(&end),
            _ => block.len(),
        };
        if start >= end {
            return Ok(None);
        }
        let at = match direction {
            Direction::Forward => start,
            Direction::Backward => end - 1,
        };
        Ok(Some(Cursor { block, number, at, within: start..end }))
    }

    /// Goes on by a row; says whether there is one.
    #[inline]
    pub(super) fn advance(&mut self, direction: Direction, bounds: &Bounds) -> Result<bool> {
        let Some(cursor) = self.cursor_mut(direction) else { return Ok(false) };
        #[cfg(test)]
        WALKED.set((WALKED.get().0 + 1, WALKED.get().1));
        match direction {
            Direction::Forward if cursor.at + 1 < cursor.within.end => cursor.at += 1,
            Direction::Backward if cursor.at > cursor.within.start => cursor.at -= 1,
            _ => return self.leave(direction, bounds),
        }
        Ok(true)
    }

    /// Goes on to the next block.
    #[cold]
    fn leave(&mut self, direction: Direction, bounds: &Bounds) -> Result<bool> {
        let Some(Cursor { block, number, within, .. }) = self.cursor_mut(direction).take() else {
            return Ok(false);
        };
        let next = match direction {
            Direction::Forward if within.end == block.len() => Some(number + 1),
            Direction::Backward if within.start == 0 => number.checked_sub(1),
            _ => None,
        };
        let found = next.map(|next| self.enter(next, direction, bounds)).transpose()?.flatten();
        let is_found = found.is_some();
        *self.cursor_mut(direction) = found;
        Ok(is_found)
    }
}
