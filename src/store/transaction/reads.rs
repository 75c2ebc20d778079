//! What a transaction has read, and whether it is still so.
//!
//! - A key is noted with the time of the entry that was seen; no two entries have the same, and a merge
//!   that moves one leaves it.
//! - Of a range is noted how far it was gone through, from either end. Whether something in it has
//!   changed is told by the log: every put and delete since the snapshot is looked at, most of them
//!   before any lock is taken, the rest under the lock of the log.
//! - Where a part of the log is gone by then, it counts as changed.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use super::super::Inner;
use super::super::key_range::Bounds;
use super::super::log::Log;
use super::super::position::Position;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::walk::Walk;
use crate::segment::{Place, Segment};
use crate::value::Value;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// When what was seen was written; nothing for an absent key. Sorted, so that a schedule of
    /// several transactions can be repeated.
    keys: BTreeMap<Vec<u8>, Option<u64>>,
    spans: Vec<Span>,
    /// When the first of the keys in the spans expires: nothing in the log tells of that.
    first_expiry: Option<u64>,
}

/// A part of a range that was gone through.
#[derive(Debug)]
struct Span {
    bounds: Bounds,
    /// The last key from either end.
    front: Option<Value>,
    back: Option<Value>,
    /// The ends have met.
    whole: bool,
}

impl Span {
    fn has(&self, key: &[u8]) -> bool {
        let is_passed = || {
            self.whole
                || self.front.as_deref().is_some_and(|front| key <= front)
                || self.back.as_deref().is_some_and(|back| key >= back)
        };
        let (start, end) = &self.bounds;
        (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice)).contains(key)
            && is_passed()
    }
}

impl Reads {
    pub(super) fn note_key(&mut self, key: &[u8], timestamp: Option<u64>) {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.to_vec(), timestamp);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&[u8], Option<u64>)> {
        self.keys.iter().map(|(key, timestamp)| (key.as_slice(), *timestamp))
    }

    /// Begins a range; returns its number.
    pub(super) fn begin_span(&mut self, bounds: Bounds) -> usize {
        self.spans.push(Span { bounds, front: None, back: None, whole: false });
        self.spans.len() - 1
    }

    /// Notes that a range was gone through from an end up to a key, or as a whole.
    pub(super) fn note_span(&mut self, number: usize, is_front: bool, reached: Option<&Value>) {
        let Some(span) = self.spans.get_mut(number) else { return };
        match (reached, is_front) {
            (None, _) => span.whole = true,
            (reached, true) => span.front = reached.cloned(),
            (reached, false) => span.back = reached.cloned(),
        }
    }

    /// Notes when the first of the keys that a range has shown expires.
    pub(super) fn note_expiry(&mut self, expiry: Option<u64>) {
        self.first_expiry = self.first_expiry.into_iter().chain(expiry).min();
    }

    fn has_in_span(&self, key: &[u8]) -> bool {
        self.spans.iter().any(|span| span.has(key))
    }

    /// Looks at what was appended since a position, without a lock; returns how far that was, and
    /// nothing if a key in one of the spans was changed.
    pub(super) fn look_ahead(&self, inner: &Inner, since: Position) -> Result<Option<Place>> {
        let since = since.place();
        if self.spans.is_empty() {
            return Ok(Some(since));
        }
        let whole = inner.segments.whole();
        let mut segments: Vec<Arc<Segment>> =
            whole.iter().filter(|segment| segment.kind() == Kind::Log).cloned().collect();
        segments.sort_by_key(|segment| segment.id());
        let reached = self.look(&segments, since)?;
        // A segment leaves the set when the manifest says so.
        let is_gone = inner.manifest.get(Manifest::history) > since;
        Ok(reached.filter(|_| !is_gone))
    }

    /// Looks at the rest, when nothing more can be appended; says whether all is as it was.
    pub(super) fn hold(&self, reached: Place, log: &Log, now: u64) -> Result<bool> {
        if self.first_expiry.is_some_and(|expiry| expiry <= now) {
            return Ok(false);
        }
        if self.spans.is_empty() || made(Mistake::RangesNotLookedAtAgain) {
            return Ok(true);
        }
        let segments = log.unsealed();
        // What was sealed meanwhile may be merged by now.
        let is_complete = segments.first().is_none_or(|oldest| oldest.id() <= reached.segment);
        Ok(is_complete && self.look(&segments, reached)?.is_some())
    }

    /// Looks at the entries of these segments, oldest first, from a place on; returns where they end,
    /// and nothing if one is in a span.
    fn look(&self, segments: &[Arc<Segment>], from: Place) -> Result<Option<Place>> {
        let mut reached = from;
        for segment in segments.iter().filter(|segment| segment.id() >= from.segment) {
            let is_first = segment.id() == from.segment;
            let mut walk = Walk::new(segment, if is_first { from.offset } else { 0 });
            while let Some(stored) = walk.next(u64::MAX)? {
                if self.has_in_span(stored.entry().key()) {
                    return Ok(None);
                }
            }
            reached = Place::new(segment.id(), walk.offset());
        }
        Ok(Some(reached))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::key_range::prefix_bounds;
    use super::*;
    use crate::{Bitcask, MergePolicy, Options};

    fn open(dir: &std::path::Path) -> Bitcask {
        Bitcask::open(dir, Options::new().merge(MergePolicy::Manual)).unwrap()
    }

    /// Reads the range of a prefix, and looks at it without a lock.
    fn look(db: &Bitcask, prefix: &str) -> (Reads, Place) {
        let snapshot = db.snapshot();
        let mut reads = Reads::default();
        let span = reads.begin_span(prefix_bounds(prefix.as_bytes()));
        reads.note_span(span, true, None);
        let reached = reads.look_ahead(&db.inner, snapshot.position()).unwrap().unwrap();
        (reads, reached)
    }

    fn holds(db: &Bitcask, (reads, reached): &(Reads, Place)) -> bool {
        reads.hold(*reached, &db.inner.writer().unwrap().log.lock(), 0).unwrap()
    }

    #[test]
    fn what_comes_between_the_two_looks_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        db.put("k1", "1").unwrap();
        let looked = look(&db, "k");
        assert!(holds(&db, &looked));
        db.put("other", "1").unwrap();
        assert!(holds(&db, &looked));
        db.put("k2", "2").unwrap();
        assert!(!holds(&db, &looked));
        let looked = look(&db, "k");
        db.inner.rotate_active().unwrap();
        db.put("k2", "2").unwrap();
        assert!(!holds(&db, &looked));
    }

    /// What was sealed between the two looks may be merged by now, whatever was in it.
    #[test]
    fn what_was_sealed_between_the_two_looks_counts_as_changed() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        db.put("k1", "1").unwrap();
        let looked = look(&db, "k");
        db.put("k2", "2").unwrap();
        db.inner.rotate_active().unwrap();
        while !db.inner.writer().unwrap().log.lock().rotated.is_empty() {
            let _ = db.inner.seal_rotated();
        }
        assert!(!holds(&db, &looked));
    }
}
