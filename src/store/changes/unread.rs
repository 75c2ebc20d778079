//! How a waiting follower finds out what it may skip. `log::waiters` describes what wakes it.

use super::Changes;
use crate::log::Log;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place};

/// Maximum number of bytes that a follower scans before it waits for durable changes. If more is
/// unread, the next sync wakes it, and then less is unread.
const LOOKED_AT_MAX: u64 = 16 << 10;

impl Changes {
    /// Returns whether entries of its prefix may be unread because they are not durable yet. Scans
    /// a limited number of bytes, since the caller holds the lock of the log.
    pub(crate) fn has_unread(&mut self, log: &Log) -> bool {
        if !self.durable {
            return false;
        }
        let (from, mut left) = (self.next_place().max(self.clean), LOOKED_AT_MAX);
        for segment in log.unsealed().iter().filter(|segment| segment.id() >= from.segment) {
            let is_first = segment.id() == from.segment;
            let mut walk = Walk::new(segment, if is_first { from.offset } else { FIRST_OFFSET });
            let size = segment.size().saturating_sub(walk.offset());
            if size > left {
                return true;
            }
            left -= size;
            loop {
                match walk.next(u64::MAX) {
                    Ok(Some(stored)) if !stored.entry().key().starts_with(&self.prefix) => {}
                    Ok(None) => break,
                    _ => return true,
                }
            }
        }
        self.clean = log.end();
        false
    }

    /// Skips entries of other prefixes, up to a place right after a put or a delete, without
    /// reading them. A follower of durable changes reads them instead, as far as they are durable.
    pub(crate) fn pass_over(&mut self, to: Place) {
        self.clean = self.clean.max(to);
        if self.durable || to <= self.at {
            return;
        }
        let segment = self.inner.log_segments().find(|segment| segment.id() == to.segment);
        if let Some(segment) = segment {
            self.walk = Some(Walk::new(&segment, to.offset));
            (self.at, self.end) = (to, 0);
        }
    }
}
