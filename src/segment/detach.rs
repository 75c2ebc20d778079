//! What happens to an unsealed segment when its store is closed after a failed write or sync.
//!
//! - From then on the file belongs to recovery, which reads what the disk holds and cuts the rest.
//!   Until then, the kernel may have returned bytes that never reached the disk.
//! - Values and snapshots that are still held keep the bytes that were read: a copy replaces those
//!   bytes. If no copy can be made, the store can't be opened until the last holder has dropped the
//!   segment.

use std::ops::Range;
use std::sync::Arc;

use super::{Segment, Segments};
use crate::fs::{File, Lock};
use crate::value::Lend;

impl Lend for Segment {
    fn lend(&self, range: Range<usize>) -> &[u8] {
        self.bytes.lend(range).unwrap_or_default()
    }
}

impl Segments {
    /// Leaves the file of a segment, which the caller passes, to recovery. Returns whether recovery
    /// may have it immediately. `is_shared` says whether others can still reach the segment through
    /// this set.
    ///
    /// A segment without other holders is not copied. Neither is a segment without a mapping, since
    /// its values are already copies. But if the set is shared, others may still reach its file.
    pub(crate) fn detach(&self, segment: &Arc<Segment>, file: &File, is_shared: bool) -> bool {
        if is_shared || self.is_held(segment) && segment.bytes.is_mapped() {
            return segment.bytes.detach(file);
        }
        // The segment stays mapped for a moment.
        segment.bytes.release_pages();
        true
    }
}

impl Segment {
    /// Holds a lock until the last holder has dropped the segment.
    pub(crate) fn hold_lock(&self, lock: &Arc<Lock>) {
        // A store is closed once, so the cell is empty.
        let _ = self.lock.set(Arc::clone(lock));
    }
}
