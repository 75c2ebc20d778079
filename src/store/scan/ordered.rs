//! The keys of a snapshot in order: where the order comes from, and how values are read along.
//!
//! - The order comes from what segments know of their keys, sorted (`segment::index`): what is
//!   sealed from a sidecar, the rest from what is sorted when it is asked for. A store that is never
//!   asked has none of it.
//! - Which version of a key counts is told by the rows alone. The log is read for values, some
//!   entries ahead, since they lie anywhere.
//! - From the first time on that keys are wanted in order, sidecars are written in the background.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::key_range::Bounds;
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::fs::is_out_of_files;
use crate::merge::Host as _;
use crate::segment::Segment;
use crate::segment::index::{Hit, Merged, Moment, Part};
use crate::store::Inner;
use crate::store::snapshot::View;
use crate::value::Value;

/// One end of a range.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Front,
    Back,
}

/// At most as many entries ahead memory is asked for.
const AHEAD_MAX: usize = 32;

/// The keys of a snapshot within bounds.
pub(crate) struct Ordered {
    view: Arc<View>,
    bounds: Bounds,
    /// A part of the bounds, where a key was gone to.
    sought: Option<Bounds>,
    /// Nothing before the first step.
    merged: Option<Merged>,
    /// The order could not be told, which was said once.
    failed: bool,
    /// What either end is ahead, next first.
    front: Prefetched,
    back: Prefetched,
    /// When the first of those that were read expires.
    pub(crate) first_expiry: Deadline,
}

/// Hits whose entries were asked for.
#[derive(Default)]
struct Prefetched {
    hits: VecDeque<Result<Hit>>,
    /// How many at the last time: who takes one does not pay for many.
    len: usize,
}

impl Ordered {
    pub(crate) fn new(view: &Arc<View>, bounds: Bounds) -> Self {
        let (front, back) = (Prefetched::default(), Prefetched::default());
        let (view, merged, failed, first_expiry) = (Arc::clone(view), None, false, Deadline::NEVER);
        Self { view, bounds, sought: None, merged, failed, front, back, first_expiry }
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(crate) fn after(mut self, key: &[u8]) -> Self {
        let is_within = match &self.bounds.0 {
            Bound::Included(start) | Bound::Excluded(start) => start.as_slice() <= key,
            Bound::Unbounded => true,
        };
        if is_within {
            self.bounds.0 = Bound::Excluded(key.to_vec());
        }
        Self::new(&self.view, self.bounds)
    }

    pub(crate) fn before(mut self, key: &[u8]) -> Self {
        let is_within = match &self.bounds.1 {
            Bound::Included(end) | Bound::Excluded(end) => end.as_slice() >= key,
            Bound::Unbounded => true,
        };
        if is_within {
            self.bounds.1 = Bound::Excluded(key.to_vec());
        }
        Self::new(&self.view, self.bounds)
    }

    /// Begins anew, with one end at a key and the other where the bounds have it.
    pub(crate) fn seek(&mut self, key: &[u8], end: End) {
        let fresh = Self::new(&self.view, self.bounds.clone());
        let (start, last) = &self.bounds;
        let (is_within, sought) = match end {
            End::Front => {
                let is_within = (start.as_ref().map(Vec::as_slice), Bound::Unbounded).contains(key);
                (is_within, (Bound::Included(key.to_vec()), last.clone()))
            }
            End::Back => {
                let is_within = (Bound::Unbounded, last.as_ref().map(Vec::as_slice)).contains(key);
                (is_within, (start.clone(), Bound::Included(key.to_vec())))
            }
        };
        let first_expiry = self.first_expiry;
        *self = Self { sought: is_within.then_some(sought), first_expiry, ..fresh };
    }

    /// Returns the next key of either end.
    pub(crate) fn step(&mut self, end: End) -> Result<Option<Hit>> {
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
                none.insert(merged.sharing(&self.view.gaps))
            }
        };
        loop {
            let hit = match end {
                End::Front => merged.next()?,
                End::Back => merged.next_back()?,
            };
            // What was written ahead of the clock expires sooner than that tells.
            let is_over = |hit: &Hit| {
                hit.expiry.is_some_and(|expiry| self.view.now.is_over(hit.timestamp, expiry))
            };
            if !hit.as_ref().is_some_and(is_over) {
                return Ok(hit);
            }
        }
    }

    /// Returns the next key of either end, whose entry will be read.
    pub(crate) fn next_ahead(&mut self, end: End) -> Option<Result<Hit>> {
        if !self.view.inner.opener.is_here() {
            (self.front, self.back) = Default::default();
            return self.step(end).transpose();
        }
        let ahead = match end {
            End::Front => &mut self.front,
            End::Back => &mut self.back,
        };
        if let Some(hit) = ahead.hits.pop_front() {
            return Some(hit);
        }
        let len = (2 * ahead.len).clamp(2, AHEAD_MAX);
        let mut hits = std::mem::take(&mut ahead.hits);
        while hits.len() < len {
            let Some(hit) = self.step(end).transpose() else { break };
            if let (Ok(hit), Some(merged)) = (&hit, &self.merged)
                && let Some(segment) = merged.segment(hit)
            {
                segment.prefetch(hit.offset);
            }
            let is_last = hit.is_err();
            hits.push_back(hit);
            if is_last {
                break;
            }
        }
        let (ahead, other) = match end {
            End::Front => (&mut self.front, &mut self.back),
            End::Back => (&mut self.back, &mut self.front),
        };
        // What is left is what the other end has gone ahead.
        let next = hits.pop_front().or_else(|| other.hits.pop_back());
        (ahead.hits, ahead.len) = (hits, len);
        next
    }

    /// Reads the value of a key.
    pub(crate) fn pair(&mut self, hit: Hit) -> Result<(Value, Value)> {
        if let Some(expiry) = hit.expiry {
            self.first_expiry = self.first_expiry.or(self.view.now.deadline(hit.timestamp, expiry));
        }
        let segment = self.merged.as_ref().and_then(|merged| merged.segment(&hit));
        let Some(segment) = segment else { unreachable!("a hit is of one of the parts") };
        let stored = segment.entry(hit.offset)?;
        self.view.inner.check(&stored)?;
        if stored.entry().key() != &*hit.key {
            let reason = "the segment's index names another key here; remove that file";
            return Err(Error::corrupt(segment.path(), hit.offset, reason));
        }
        let value = stored.lend_raw_value()?;
        Ok((hit.key, value))
    }
}

impl View {
    /// Returns what the segments of this moment know of their keys, sorted.
    pub(crate) fn parts(&self) -> Result<Vec<Part>> {
        self.inner.want_order();
        let mut parts = Vec::new();
        for segment in self.segments.iter() {
            let is_older = segment.summary().is_none_or(|sum| sum.first_timestamp <= self.time);
            if is_older {
                let runs = segment.runs(&self.inner.index)?;
                // Of what is sorted only one segment at a time is in memory. A failure is met by
                // whoever writes.
                let _ = self.inner.write_index_of(segment);
                parts.extend(runs.into_iter().map(|run| (Arc::clone(segment), run)));
            }
        }
        Ok(parts)
    }
}

impl Inner {
    /// Takes note that the store's keys are wanted in order, so that indexes are written from now on.
    fn want_order(&self) {
        if !self.ordered.swap(true, Ordering::Relaxed) {
            let _ = self.log().map(|log| log.seal_signal.wake());
        }
    }

    /// Writes the index of one sealed segment that has none, if they are wanted; says whether there was
    /// one.
    pub(crate) fn write_index(&self) -> Result<bool> {
        if !self.ordered.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let damaged = self.writer()?.merging.damaged();
        for segment in self.segments.whole().iter() {
            if !damaged.contains(&segment.id().0) && self.write_index_of(segment)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the index of a segment, if it is one of those that have none and should; says whether it
    /// did.
    fn write_index_of(&self, segment: &Arc<Segment>) -> Result<bool> {
        // Of a merge's output that is not listed yet, and of what is only pinned, it would be lost.
        let is_listed = || self.manifest.get(|manifest| manifest.lists(segment.id()));
        let writer = self.writer()?;
        if !segment.needs_index() || writer.log.check().is_err() || !is_listed() {
            return Ok(false);
        }
        // What can be derived leaves the last room to what can't.
        if self.merge_context().leave_room(segment.size()).is_err() {
            return Ok(false);
        }
        let _one_at_a_time = writer.indexing.lock();
        let written = segment.write_index(&self.index).map_err(|error| {
            // Whoever wants its keys is told; it is not read again and again for nobody. A shortage of
            // descriptors passes.
            if !is_out_of_files(&error) {
                writer.merging.note_damage(segment.id());
            }
            writer.log.poison_if_sync_failed(error)
        })?;
        // Files go when the manifest lists them no more: so this one is met by that, or goes now.
        if written && !is_listed() {
            let _ = self.fs.remove(&self.dir.index(segment.id()));
        }
        Ok(written)
    }
}
