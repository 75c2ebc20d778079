//! How a follower finds its place by what lies in the log, when every batch puts the same key: its
//! *marker*.

use std::sync::Arc;

use crate::entry::Flags;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place, Segment};
use crate::store::changes::position::Position;
use crate::store::{Changes, Reader};
use crate::value::Value;

/// A place between two batches.
#[derive(Debug)]
pub(crate) struct SoughtPlace {
    pub(crate) position: Position,
    /// The marker of the batch before, unless it is gone.
    pub(crate) before: Option<Value>,
    /// The marker of the batch behind, if there is one by now.
    pub(crate) next: Option<Value>,
}

impl Reader {
    /// Finds the place behind the last batch whose marker is *before* what the caller looks for, in
    /// the history that there is. The markers of later batches must not be before it.
    ///
    /// Looks at the beginning of a few segments, and reads one to find the place there.
    pub(crate) fn seek(
        &self,
        marker: &[u8],
        is_before: impl Fn(&[u8]) -> Result<bool>,
    ) -> Result<SoughtPlace> {
        let inner = &self.inner;
        inner.here()?;
        let mut segments: Vec<_> = inner.log_segments().collect();
        // In this order: the manifest records a segment's removal before it leaves the set.
        let history = inner.manifest.get(Manifest::history);
        segments.retain(|segment| segment.id() >= history.segment);
        segments.sort_by_key(|segment| segment.id());
        let start = |segment: &Arc<Segment>| {
            let is_first = segment.id() == history.segment;
            Walk::new(segment, if is_first { history.offset } else { FIRST_OFFSET })
        };
        let first = |at: usize| match segments.get(at) {
            Some(segment) => next_marker(&mut start(segment), marker),
            None => Ok(None),
        };
        // The segments below `low` begin before the place. Only the last one may be empty.
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = low.midpoint(high);
            match first(middle)? {
                Some(found) if is_before(&found)? => low = middle + 1,
                _ => high = middle,
            }
        }
        let (mut place, mut before) = (history, None);
        if let Some(segment) = low.checked_sub(1).and_then(|at| segments.get(at)) {
            let mut walk = start(segment);
            while let Some(found) = next_marker(&mut walk, marker)? {
                if !is_before(&found)? {
                    let position = inner.position_at(place);
                    return Ok(SoughtPlace { position, before, next: Some(found) });
                }
                place = Place::new(segment.id(), walk.offset());
                before = Some(found);
            }
        }
        Ok(SoughtPlace { position: inner.position_at(place), before, next: first(low)? })
    }
}

impl Changes {
    /// Returns what the rest of a batch puts under a key. The change that was returned last belongs
    /// to the batch and does not end it.
    pub(crate) fn put_in_batch(&self, key: &[u8]) -> Result<Option<Value>> {
        let Some(mut walk) = self.walk.clone() else { return Ok(None) };
        while let Some(stored) = walk.next(self.end)? {
            if stored.entry().key() == key && !stored.is_tombstone() {
                return stored.lend_raw_value().map(Some);
            }
            if !stored.layout.flags.has(Flags::CONTINUES) {
                break;
            }
        }
        Ok(None)
    }
}

/// Passes over batches until one has the marker, and returns it.
fn next_marker(walk: &mut Walk, marker: &[u8]) -> Result<Option<Value>> {
    let mut found = None;
    while let Some(stored) = walk.next(u64::MAX)? {
        if stored.entry().key() == marker && !stored.is_tombstone() {
            found = Some(stored.lend_raw_value()?);
        }
        if !stored.layout.flags.has(Flags::CONTINUES) && found.is_some() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{MergeOptions, MergePolicy, Options};
    use crate::store::{Batch, Bitcask};

    const MARKER: &str = "marker";

    fn number(marker: &[u8]) -> u64 {
        u64::from_be_bytes(marker.try_into().unwrap())
    }

    /// Returns a store with batches from 1 on, in many segments.
    fn filled(dir: &std::path::Path, batches: u64) -> Bitcask {
        let options = Options::new().segment_size(2048).merge_policy(MergePolicy::Manual);
        let db = Bitcask::open(dir, options).unwrap();
        for at in 1..=batches {
            let mut batch = Batch::new();
            batch.put("a", vec![b'x'; 100]).put(MARKER, at.to_be_bytes());
            for other in 0..at % 4 {
                batch.put(format!("z{other}"), "v");
            }
            db.write(&batch).unwrap();
        }
        db
    }

    fn seek(db: &Bitcask, wanted: u64) -> (Position, Option<u64>, Option<u64>) {
        let sought = db.seek(MARKER.as_bytes(), |found| Ok(number(found) <= wanted)).unwrap();
        let of = |value: Option<Value>| value.map(|value| number(&value));
        (sought.position, of(sought.before), of(sought.next))
    }

    #[test]
    fn each_batch_is_found_and_is_what_follows_next() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 300);
        assert!(db.inner.log_segments().count() > 20);
        for wanted in 0..=300 {
            let (position, before, next) = seek(&db, wanted);
            assert_eq!(before, (wanted > 0).then_some(wanted));
            assert_eq!(next, (wanted < 300).then_some(wanted + 1));
            let mut changes = db.changes(position).unwrap();
            let Some(first) = changes.try_recv().unwrap() else {
                assert_eq!(wanted, 300);
                continue;
            };
            assert!(first.key == "a" && first.batch_continues);
            let marker = changes.put_in_batch(MARKER.as_bytes()).unwrap().unwrap();
            assert_eq!(number(&marker), wanted + 1);
            assert_eq!(changes.put_in_batch(b"absent").unwrap(), None);
        }
        assert_eq!(seek(&db, 1000).1, Some(300));
        db.close().unwrap();
    }

    #[test]
    fn what_a_merge_has_removed_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 100);
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        let (position, before, next) = seek(&db, 0);
        let first = next.unwrap_or(101);
        assert!(before.is_none() && first > 50, "{first}");
        // The place is the oldest one, whatever lies before it.
        assert_eq!(seek(&db, 10), (position, None, next));
        drop(db.changes(position).unwrap());
        // A batch of after the merge.
        db.write(Batch::new().put("b", "1").put(MARKER, 101_u64.to_be_bytes())).unwrap();
        let (position, ..) = seek(&db, 100);
        assert_eq!(db.changes(position).unwrap().try_recv().unwrap().unwrap().key, "b");
        db.close().unwrap();
    }

    #[test]
    fn an_empty_store_has_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let db = filled(dir.path(), 0);
        let (position, before, next) = seek(&db, 7);
        assert!(before.is_none() && next.is_none());
        assert!(db.changes(position).unwrap().try_recv().unwrap().is_none());
        db.close().unwrap();
    }
}
