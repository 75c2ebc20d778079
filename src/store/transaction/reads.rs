//! The reads of a transaction, and the check that they are unchanged.
//!
//! - A key is recorded with the timestamp of the entry that was seen. No two entries have the same
//!   timestamp, and a merge preserves it.
//! - A range is recorded as far as it was iterated from either end. The log shows whether something
//!   in it has changed: every put and delete since the snapshot is checked, most of them before any
//!   lock is taken, the rest under the lock of the log.
//! - A merge or a clear may have removed part of these entries by then. Each check tests for that,
//!   since the first may run in the middle of a clear. In that case the log cannot answer, and the
//!   contents of two snapshots are compared instead.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::super::Inner;
use super::super::snapshot::Snapshot;
use crate::clock::Deadline;
use crate::error::Result;
use crate::log::Log;
use crate::manifest::Manifest;
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::index::{Bounds, Direction};
use crate::segment::read::walk::Walk;
use crate::segment::{Place, Segment};
use crate::store::changes::position::Position;
use crate::store::scan::ordered::Ordered;
use crate::value::Value;

/// Everything that a transaction has read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Keys with the timestamps of the entries seen; `None` for an absent key. Sorted, so that a
    /// schedule of several transactions can be reproduced.
    keys: BTreeMap<Vec<u8>, Option<u64>>,
    spans: Vec<Span>,
    /// The earliest expiry of the keys in the spans: expiring adds nothing to the log.
    first_expiry: Deadline,
}

/// The result of checking the spans against the log.
#[derive(Debug)]
pub(super) enum SpanCheck<T> {
    /// The spans are unchanged.
    Same(T),
    Changed,
    /// Part of the log is gone, so it cannot answer.
    Gone,
}

/// The part of the log that was checked without a lock.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) since: Place,
    pub(super) reached: Place,
}

impl Looked {
    /// Returns whether the log from the start of the check is still complete.
    pub(super) fn is_complete(&self, inner: &Inner) -> bool {
        inner.manifest.get(Manifest::history) <= self.since
    }

    /// Returns the segments with the rest of the log, or `None` if part of that is gone.
    pub(super) fn rest(&self, inner: &Inner, log: &Log) -> Option<Vec<Arc<Segment>>> {
        // A clear in progress during the first check already had its fresh segment in the set, but
        // the manifest did not record it yet. By now the clear has either finished or not begun.
        if !self.is_complete(inner) && !made(Mistake::HistoryNotReadAgain) {
            return None;
        }
        let segments = log.unsealed();
        // Segments sealed meanwhile may have been merged by now. And a clear that has failed since
        // has removed the segment in which the first check ended.
        let still_exists = segments.iter().any(|segment| segment.id() == self.reached.segment);
        (segments.is_empty() || still_exists).then_some(segments)
    }
}

/// Returns the segments of the log, oldest first.
pub(super) fn log_segments(inner: &Inner) -> Vec<Arc<Segment>> {
    let whole = inner.segments.whole();
    let mut segments: Vec<Arc<Segment>> =
        whole.iter().filter(|segment| segment.kind() == Kind::Log).cloned().collect();
    segments.sort_by_key(|segment| segment.id());
    segments
}

/// Goes through the entries of these segments, oldest first, starting at a place, until a closure
/// returns `true` for a key. Returns where they end, or `None` if it did.
pub(super) fn look(
    segments: &[Arc<Segment>],
    from: Place,
    mut is_wanted: impl FnMut(&[u8]) -> bool,
) -> Result<Option<Place>> {
    let mut reached = from;
    for segment in segments.iter().filter(|segment| segment.id() >= from.segment) {
        let is_first = segment.id() == from.segment;
        let mut walk = Walk::new(segment, if is_first { from.offset } else { 0 });
        while let Some(stored) = walk.next(u64::MAX)? {
            if is_wanted(stored.entry().key()) {
                return Ok(None);
            }
        }
        reached = Place::new(segment.id(), walk.offset());
    }
    Ok(Some(reached))
}

/// The part of a range that was iterated.
#[derive(Debug)]
struct Span {
    bounds: Bounds,
    /// The last key reached from either end.
    front: Option<Value>,
    back: Option<Value>,
    /// Whether the ends have met.
    whole: bool,
}

impl Span {
    fn has(&self, key: &[u8]) -> bool {
        let is_passed = || {
            self.whole
                || self.front.as_deref().is_some_and(|front| key <= front)
                || self.back.as_deref().is_some_and(|back| key >= back)
        };
        self.bounds.contains(key) && is_passed()
    }

    /// Returns the parts that were iterated.
    fn passed(&self) -> Vec<Bounds> {
        if self.whole {
            return vec![self.bounds.clone()];
        }
        let last = |key: &Value| Bound::Included(key.to_vec());
        let up_to = |front: &Value| Bounds { end: last(front), ..self.bounds.clone() };
        let down_to = |back: &Value| Bounds { start: last(back), ..self.bounds.clone() };
        self.front.iter().map(up_to).chain(self.back.iter().map(down_to)).collect()
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

    /// Starts a range. Returns its number.
    pub(super) fn begin_span(&mut self, bounds: Bounds) -> usize {
        self.spans.push(Span { bounds, front: None, back: None, whole: false });
        self.spans.len() - 1
    }

    /// Records that a range was iterated from an end up to a key, or completely.
    pub(super) fn note_span(
        &mut self,
        number: usize,
        direction: Direction,
        reached: Option<&Value>,
    ) {
        let Some(span) = self.spans.get_mut(number) else { return };
        match (reached, direction) {
            (None, _) => span.whole = true,
            (reached, Direction::Forward) => span.front = reached.cloned(),
            (reached, Direction::Backward) => span.back = reached.cloned(),
        }
    }

    /// Records the earliest expiry of the keys that a range has returned.
    pub(super) fn note_expiry(&mut self, first: Deadline) {
        self.first_expiry = self.first_expiry.or(first);
    }

    fn has_in_span(&self, key: &[u8]) -> bool {
        self.spans.iter().any(|span| span.has(key))
    }

    /// Returns whether two snapshots show the same in all spans: the same keys with the same
    /// timestamps. No two entries have the same timestamp, and a merge preserves it.
    pub(super) fn show_the_same(&self, before: &Snapshot, now: &Snapshot) -> Result<bool> {
        for bounds in self.spans.iter().flat_map(Span::passed) {
            let mut before = Ordered::new(&before.view, bounds.clone());
            let mut now = Ordered::new(&now.view, bounds);
            loop {
                let (was, is) = (before.step(Direction::Forward)?, now.step(Direction::Forward)?);
                match (was, is) {
                    (None, None) => break,
                    (Some(was), Some(is))
                        if was.timestamp == is.timestamp && *was.key == *is.key => {}
                    _ => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    /// Checks what was appended since a position, without a lock.
    pub(super) fn look_ahead(&self, inner: &Inner, since: Position) -> Result<SpanCheck<Looked>> {
        let since = since.place();
        if self.spans.is_empty() {
            return Ok(SpanCheck::Same(Looked { since, reached: since }));
        }
        let has = |key: &[u8]| self.has_in_span(key);
        let Some(reached) = look(&log_segments(inner), since, has)? else {
            return Ok(SpanCheck::Changed);
        };
        let looked = Looked { since, reached };
        // A segment leaves the set only after the manifest has recorded its removal.
        Ok(if looked.is_complete(inner) { SpanCheck::Same(looked) } else { SpanCheck::Gone })
    }

    /// Checks the rest, under the lock of the log.
    pub(super) fn hold(&self, inner: &Inner, looked: &Looked, log: &Log) -> Result<SpanCheck<()>> {
        if !self.first_expiry.is_never() && self.first_expiry.is_over(&inner.clock.read()) {
            return Ok(SpanCheck::Changed);
        }
        if self.spans.is_empty() || made(Mistake::RangesNotLookedAtAgain) {
            return Ok(SpanCheck::Same(()));
        }
        let Some(segments) = looked.rest(inner, log) else { return Ok(SpanCheck::Gone) };
        let is_same = look(&segments, looked.reached, |key| self.has_in_span(key))?.is_some();
        Ok(if is_same { SpanCheck::Same(()) } else { SpanCheck::Changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ActiveSegment;
    use crate::segment::write::active::Active;
    use crate::store::scan::key_range::prefix_bounds;
    use crate::{Bitcask, MergePolicy, Options};

    fn open(dir: &std::path::Path) -> Bitcask {
        Bitcask::open(dir, Options::new().merge_policy(MergePolicy::Manual)).unwrap()
    }

    /// Reads the range of a prefix and checks it without a lock.
    fn look(db: &Bitcask, prefix: &str) -> (Reads, Looked) {
        let snapshot = db.snapshot();
        let mut reads = Reads::default();
        let span = reads.begin_span(prefix_bounds(prefix.as_bytes()));
        reads.note_span(span, Direction::Forward, None);
        let found = reads.look_ahead(&db.inner, snapshot.position()).unwrap();
        let SpanCheck::Same(looked) = found else { panic!("{found:?}") };
        (reads, looked)
    }

    fn holds(db: &Bitcask, (reads, looked): &(Reads, Looked)) -> bool {
        let log = db.inner.writer().unwrap().log.lock();
        matches!(reads.hold(&db.inner, looked, &log).unwrap(), SpanCheck::Same(()))
    }

    /// Does what a clear does before it replaces the manifest.
    fn begin_clear(db: &Bitcask) -> ActiveSegment {
        let capacity = Active::capacity_for(0, db.inner.options.segment_size);
        db.inner
            .log()
            .unwrap()
            .create_next(&mut db.inner.writer().unwrap().log.lock(), capacity)
            .unwrap()
    }

    #[test]
    fn the_second_check_sees_changes_made_after_the_first() {
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
        db.inner.log().unwrap().rotate_active().unwrap();
        db.put("k2", "2").unwrap();
        assert!(!holds(&db, &looked));
    }

    /// A clear puts its fresh segment into the set before the manifest records that the earlier
    /// history is gone. If the first check ran in between, it ended in that segment, and the
    /// history that it started from still counted as present.
    #[test]
    fn a_clear_that_begins_before_the_first_check_and_ends_before_the_second_counts_as_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        db.put("k1", "1").unwrap();
        let fresh = begin_clear(&db);
        let looked = look(&db, "k");
        assert!(!holds(&db, &looked), "the outcome of the clear is not known yet");
        db.inner
            .log()
            .unwrap()
            .restart_in(&mut db.inner.writer().unwrap().log.lock(), fresh)
            .unwrap();
        assert!(!holds(&db, &looked));
    }

    /// Segments sealed between the two checks may have been merged by now, whatever they held.
    #[test]
    fn the_log_cannot_answer_for_segments_sealed_between_the_two_checks() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        db.put("k1", "1").unwrap();
        let looked = look(&db, "k");
        db.put("k2", "2").unwrap();
        db.inner.log().unwrap().rotate_active().unwrap();
        while db.inner.log().unwrap().lock().has_rotated() {
            let _ = db.inner.seal_rotated();
        }
        assert!(!holds(&db, &looked));
    }

    /// If a clear fails, its fresh segment is removed, and the log continues in a segment older
    /// than the one in which the first check ended.
    #[test]
    fn a_clear_that_fails_between_the_two_checks_hides_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        db.put("k1", "1").unwrap();
        let fresh = begin_clear(&db);
        let looked = look(&db, "k");
        let full = crate::Error::NoSpace { path: dir.path().into() };
        let _ = db.inner.log().unwrap().take_back(fresh.number, fresh.active.segment().id(), full);
        db.put("k2", "2").unwrap();
        assert!(!holds(&db, &looked));
        // Nor does a rotation, which continues with a higher id than the fresh segment's.
        db.inner.log().unwrap().rotate_active().unwrap();
        assert!(!holds(&db, &looked));
    }
}
