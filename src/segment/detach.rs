//! What becomes of an unsealed segment whose store is closed after a failed write or sync.
//!
//! - Its file is recovery's from then on, which reads from the disk what the disk has, and cuts the
//!   rest. Until then the kernel may have shown bytes that never got there.
//! - Values and snapshots that are held keep the bytes that were read: these are replaced by a copy,
//!   or, where none can be had, the store can't be opened before the last holder has let go.

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
    /// Leaves the file of a segment, which is the caller's, to recovery; says whether recovery may
    /// have it at once. `is_shared` if others can come to the segment through this.
    ///
    /// A segment that nobody else holds is not copied. Neither is one without a mapping, whose values are
    /// copies already; but if the store is shared, others may still come to its file.
    pub(crate) fn detach(&self, segment: &Arc<Segment>, file: &File, is_shared: bool) -> bool {
        if is_shared || self.is_held(segment) && segment.bytes.is_mapped() {
            return segment.bytes.detach(file);
        }
        // It is still mapped, for a moment.
        segment.bytes.release_pages();
        true
    }
}

impl Segment {
    /// Keeps a lock until nobody holds the segment any more.
    pub(crate) fn keep(&self, lock: &Arc<Lock>) {
        // A store is closed once.
        let _ = self.lock.set(Arc::clone(lock));
    }
}
