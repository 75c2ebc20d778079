//! Writing the indexes of sealed segments, starting with the first ordered scan.
//!
//! An index is derived data, so it must not take the last disk space or anyone's time: the sealing
//! thread writes it, and a scan writes the indexes that it has just built.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::fs::is_out_of_files;
use crate::segment::{Segment, SegmentId};
use crate::store::Inner;
use crate::sync::Mutex;

/// The segments whose indexes could not be written since the store was opened.
///
/// The sealing thread does not try them again. A failure does not affect merging: a merge may be
/// able to read such a segment.
#[derive(Debug, Default)]
pub(crate) struct Indexing {
    /// Lock 6: held while an index is written, so that only one is written at a time. While it is
    /// held, the manifest is read and the state of the segment's index is locked.
    failed: Mutex<BTreeSet<SegmentId>>,
}

impl Inner {
    /// Records that ordered scans are used, so that indexes are written from now on.
    pub(super) fn want_order(&self) {
        if !self.ordered.swap(true, Ordering::Relaxed) {
            let _ = self.log().map(|log| log.seal_signal.wake());
        }
    }

    /// Writes the index of one sealed segment that has none, if indexes are wanted. Returns whether
    /// it wrote one.
    pub(crate) fn write_index(&self) -> Result<bool> {
        if !self.ordered.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let failed = self.writer()?.indexing.failed.lock().clone();
        for segment in self.segments.whole().iter() {
            if !failed.contains(&segment.id()) && self.write_index_of(segment)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the index of a segment that should have one but has none. Returns whether it did.
    pub(super) fn write_index_of(&self, segment: &Arc<Segment>) -> Result<bool> {
        // The output of a merge may never be listed, and a segment that is only pinned is about to
        // be removed: an index of either would be wasted.
        let is_listed = || self.manifest.get(|manifest| manifest.lists(segment.id()));
        let writer = self.writer()?;
        if !segment.needs_index() || writer.log.check().is_err() || !is_listed() {
            return Ok(false);
        }
        if self.check_space(segment.size()).is_err() {
            return Ok(false);
        }
        let mut failed = writer.indexing.failed.lock();
        let written = segment.write_index(&self.index).map_err(|error| {
            // A scan reports the error. The sealing thread would read the segment again and again.
            // A shortage of descriptors is temporary.
            if !is_out_of_files(&error) {
                failed.insert(segment.id());
            }
            writer.log.poison_if_sync_failed(error)
        })?;
        // A segment's files are removed after the manifest has dropped it. If that has just
        // happened, nothing else removes this index.
        if written && !is_listed() {
            let _ = self.fs.remove(&self.dir.index(segment.id()));
        }
        Ok(written)
    }
}
