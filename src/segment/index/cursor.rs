//! Scans one run from both ends, within bounds.
//!
//! - Nothing is read before a scan begins at an end. After that, one block is read at a time.
//! - The places of both ends alone show whether they have met: a scan of several runs takes all
//!   rows of a key together, so no end stops between them.

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
    /// The number of rows that this thread has passed, and the number of blocks that it has read,
    /// in all runs.
    pub(crate) static WALKED: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) };
}

/// The next row from one end.
#[derive(Debug)]
struct Cursor {
    block: Arc<Block>,
    number: usize,
    at: usize,
    /// The rows of the block that lie within the bounds.
    within: Range<usize>,
}

/// A run, and how far a scan has come from either end.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) segment: Arc<Segment>,
    pub(super) run: Arc<Run>,
    /// The highest timestamp in the run, or a later one.
    time: u64,
    front: Option<Cursor>,
    back: Option<Cursor>,
}

impl Lane {
    pub(super) fn new(segment: Arc<Segment>, run: Arc<Run>) -> Self {
        // If the segment was sealed after the run was made, the summary has the later timestamp.
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

    /// Returns the next key from an end, which must exist.
    #[inline]
    pub(super) fn key(&self, direction: Direction) -> &[u8] {
        self.row(direction).map(|row| row.key).unwrap_or_default()
    }

    #[inline]
    pub(super) fn row(&self, direction: Direction) -> Option<Row<'_>> {
        self.cursor(direction).map(|cursor| cursor.block.row(cursor.at))
    }

    /// Returns the block of the next row, and the row's number in it.
    #[inline]
    pub(super) fn place(&self, direction: Direction) -> Option<(&Arc<Block>, usize)> {
        self.cursor(direction).map(|cursor| (&cursor.block, cursor.at))
    }

    /// Returns whether a gap covers all rows of this run that lie in it.
    pub(super) fn is_covered_by(&self, gap: &Gap) -> bool {
        self.time <= gap.time
    }

    /// Begins at an end. Returns whether there is a row.
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
                // All rows of the key lie on the same side of the place.
                if target == SeekTarget::before(target.key) { blocks.start } else { blocks.end - 1 }
            }
            (None, Direction::Forward) => 0,
            (None, Direction::Backward) => len - 1,
        };
        // All rows of this block may lie on the other side, and then the next block may lie beyond
        // the bounds.
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

    /// Returns the newest row of a key with a timestamp up to this one.
    pub(super) fn newest(&self, key: &[u8], timestamp: u64) -> Result<Option<(Arc<Block>, usize)>> {
        self.run.find(SeekTarget { key, timestamp }, &self.segment)
    }

    /// Moves to the first row past an edge, which lies ahead. Returns whether there is one.
    pub(super) fn seek(
        &mut self,
        edge: &Edge,
        direction: Direction,
        bounds: &Bounds,
    ) -> Result<bool> {
        let cursor = self.cursor_mut(direction).take();
        let Some(ahead) = bounds.ahead_of(edge, direction) else { return Ok(false) };
        // The row is often in the same block.
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

    /// Reads a block. Returns `None` if none of its rows lies within the bounds.
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
        // The keys that lead to a block and to the next one usually show that all of it lies within
        // the bounds.
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

    /// Moves on by a row. Returns whether there is one.
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

    /// Moves on to the next block.
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
