//! Ordered iteration over a snapshot: where the order comes from, and how values are read along
//! with it.
//!
//! - The order comes from the segments' sorted keys (`segment::index`): sealed segments have them
//!   in a sidecar, others are sorted on request. A store without ordered scans has none of this.
//! - The index rows alone decide which version of a key counts. The log is only read for values,
//!   which are prefetched some entries ahead, since they may lie anywhere.
//! - Starting with the first ordered scan, sidecars are written in the background.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::segment::StoredEntry;
use crate::segment::index::{Bounds, Direction, Hit, Merged, Moment, Part};
use crate::store::Expiry;
use crate::store::scan::range::Range;
use crate::store::snapshot::View;
use crate::sync::Instant;
use crate::value::{Admitted, Value};

/// Maximum prefetch distance, in entries.
const AHEAD_MAX: usize = 32;

/// The keys of a snapshot within bounds.
pub(crate) struct Ordered {
    view: Arc<View>,
    bounds: Bounds,
    /// The part of the bounds that remains after a seek.
    sought: Option<Bounds>,
    /// `None` before the first step.
    merged: Option<Merged>,
    /// Whether determining the order has failed. The error was returned once.
    failed: bool,
    /// Prefetched hits of either end, next first.
    front: Prefetched,
    back: Prefetched,
    /// Whether no entry was read since some were prefetched.
    is_unread: bool,
    /// The earliest expiry of the entries that were read.
    pub(crate) first_expiry: Deadline,
}

/// Hits whose entries were prefetched.
#[derive(Default)]
struct Prefetched {
    hits: VecDeque<Result<Hit>>,
    /// The last prefetch distance. It starts small, so that reading one entry does not pay for
    /// many.
    len: usize,
}

impl Ordered {
    pub(crate) fn new(view: &Arc<View>, bounds: Bounds) -> Self {
        let (front, back) = (Prefetched::default(), Prefetched::default());
        let (view, first_expiry) = (Arc::clone(view), Deadline::NEVER);
        let (sought, merged, failed, is_unread) = (None, None, false, false);
        Self { view, bounds, sought, merged, failed, front, back, is_unread, first_expiry }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(crate) fn after(mut self, key: &[u8]) -> Self {
        let is_within = match &self.bounds.start {
            Bound::Included(start) | Bound::Excluded(start) => start.as_slice() <= key,
            Bound::Unbounded => true,
        };
        if is_within {
            self.bounds.start = Bound::Excluded(key.to_vec());
        }
        Self::new(&self.view, self.bounds)
    }

    pub(crate) fn before(mut self, key: &[u8]) -> Self {
        let is_within = match &self.bounds.end {
            Bound::Included(end) | Bound::Excluded(end) => end.as_slice() >= key,
            Bound::Unbounded => true,
        };
        if is_within {
            self.bounds.end = Bound::Excluded(key.to_vec());
        }
        Self::new(&self.view, self.bounds)
    }

    /// Starts again, with one end at a key and the other at its bound.
    pub(crate) fn seek(&mut self, key: &[u8], direction: Direction) {
        let fresh = Self::new(&self.view, self.bounds.clone());
        let (bound, Bounds { start, end }) = (Bound::Included(key.to_vec()), self.bounds.clone());
        let (is_within, sought) = match direction {
            Direction::Forward => (!self.bounds.starts_after(key), Bounds { start: bound, end }),
            Direction::Backward => (!self.bounds.ends_before(key), Bounds { start, end: bound }),
        };
        let first_expiry = self.first_expiry;
        *self = Self { sought: is_within.then_some(sought), first_expiry, ..fresh };
    }

    /// Returns the next key from either end.
    pub(crate) fn step(&mut self, direction: Direction) -> Result<Option<Hit>> {
        if !self.failed
            && let Err(forked) = self.view.inner.here()
        {
            (self.failed, self.merged) = (true, None);
            return Err(forked);
        }
        let merged = match &mut self.merged {
            Some(merged) => merged,
            None if self.failed => return Ok(None),
            none => {
                let now = self.view.now.lowest();
                let moment = Moment { timestamp: self.view.time, now };
                let parts = self.view.parts().inspect_err(|_| self.failed = true)?;
                let bounds = self.sought.as_ref().unwrap_or(&self.bounds).clone();
                let merged = Merged::new(parts, bounds, moment);
                none.insert(merged.with_gaps(&self.view.gaps))
            }
        };
        loop {
            let hit = match direction {
                Direction::Forward => merged.next()?,
                Direction::Backward => merged.next_back()?,
            };
            // Entries written while the clock was ahead expire sooner than this shows.
            let is_over = |hit: &Hit| {
                hit.expiry.is_some_and(|expiry| self.view.now.is_over(hit.timestamp, expiry))
            };
            if !hit.as_ref().is_some_and(is_over) {
                return Ok(hit);
            }
        }
    }

    /// Returns the next key from either end, whose entry is about to be read.
    pub(crate) fn next_ahead(&mut self, direction: Direction) -> Option<Result<Hit>> {
        if !self.view.inner.opener.is_here() {
            (self.front, self.back) = Default::default();
            return self.step(direction).transpose();
        }
        let ahead = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        if let Some(hit) = ahead.hits.pop_front() {
            return Some(hit);
        }
        let len = (2 * ahead.len).clamp(2, AHEAD_MAX);
        let from_disk = self.view.inner.disk_waits.are_recent();
        let mut hits = std::mem::take(&mut ahead.hits);
        while hits.len() < len {
            let Some(hit) = self.step(direction).transpose() else { break };
            let is_last = hit.is_err();
            hits.push_back(hit);
            if is_last {
                break;
            }
        }
        // One after the other, so that the processor translates several addresses at a time.
        for hit in hits.iter().flatten() {
            let Some(segment) = self.merged.as_ref().and_then(|merged| merged.segment(hit)) else {
                break;
            };
            if from_disk {
                segment.read_entry_ahead(hit.offset);
            } else {
                segment.prefetch(hit.offset);
            }
        }
        let (ahead, other) = match direction {
            Direction::Forward => (&mut self.front, &mut self.back),
            Direction::Backward => (&mut self.back, &mut self.front),
        };
        // If this end is exhausted, the rest is what the other end has prefetched.
        let next = hits.pop_front().or_else(|| other.hits.pop_back());
        (ahead.hits, ahead.len, self.is_unread) = (hits, len, true);
        next
    }

    /// Reads the value of a key.
    pub(crate) fn pair(&mut self, hit: Hit) -> Result<(Value, Value)> {
        self.entry(hit).map(|(key, value, _)| (key, value))
    }

    /// Reads the value of a key, and when it expires.
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the path of the method has one lifetime, and the closure any"
    )]
    pub(crate) fn entry(&mut self, hit: Hit) -> Result<(Value, Value, Expiry)> {
        self.read(hit, |stored| stored.lend_raw_value())
    }

    /// Returns a key whose value is not read.
    pub(crate) fn key(&mut self, hit: Hit) -> Value {
        self.note_expiry(&hit);
        hit.key
    }

    fn note_expiry(&mut self, hit: &Hit) {
        if let Some(expiry) = hit.expiry {
            self.first_expiry = self.first_expiry.or(self.view.now.deadline(hit.timestamp, expiry));
        }
    }

    /// Reads the value of a key in some way, and when it expires.
    fn read<T>(
        &mut self,
        hit: Hit,
        lend: impl FnOnce(&StoredEntry<'_>) -> Result<T>,
    ) -> Result<(Value, T, Expiry)> {
        self.note_expiry(&hit);
        let segment = self.merged.as_ref().and_then(|merged| merged.segment(&hit));
        let Some(segment) = segment else { unreachable!("a hit belongs to one of the parts") };
        let started = std::mem::take(&mut self.is_unread).then(Instant::now);
        let stored = segment.entry(hit.offset)?;
        self.view.inner.check(&stored)?;
        if let Some(started) = started {
            self.view.inner.disk_waits.note(started.elapsed(), 1, stored.raw_size());
        }
        if stored.entry().key() != &*hit.key {
            let reason = "the segment's index names a different key here; remove the index file";
            return Err(Error::corrupt(segment.path(), hit.offset, reason));
        }
        let (value, expiry) = (lend(&stored)?, Expiry::of(stored.expiry()));
        Ok((hit.key, value, expiry))
    }
}

impl Range {
    /// Does what [`next_with_expiry`](Self::next_with_expiry) does. `admits` is asked whether
    /// memory of a size may be taken, before a value is decompressed.
    #[cfg_attr(
        not(any(feature = "server", all(test, feature = "lz4"))),
        expect(dead_code, reason = "only the server limits its memory")
    )]
    pub(crate) fn next_admitted(
        &mut self,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Option<Result<(Value, Admitted, Expiry)>> {
        let hit = self.0.next_ahead(Direction::Forward)?;
        Some(hit.and_then(|hit| self.0.read(hit, |stored| stored.lend_admitted(admits))))
    }
}

impl View {
    /// Returns the sorted keys of the segments of this moment.
    pub(crate) fn parts(&self) -> Result<Vec<Part>> {
        self.inner.want_order();
        let mut parts = Vec::new();
        for segment in self.segments.iter() {
            let is_older = segment.summary().is_none_or(|sum| sum.first_timestamp <= self.time);
            if is_older {
                let runs = segment.runs(&self.inner.index)?;
                // Only one newly sorted segment is in memory at a time. Failures are left to the
                // writers to report.
                let _ = self.inner.write_index_of(segment);
                parts.extend(runs.into_iter().map(|run| (Arc::clone(segment), run)));
            }
        }
        Ok(parts)
    }
}
