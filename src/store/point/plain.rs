//! The get of an ordinary value: mapped, without a time to live, not compressed, and named by the
//! first slot with its hash bits.
//!
//! - Whatever is unusual goes another way, through `lookup`: nothing is decided here that is not
//!   decided there too. That includes the gets that are timed.
//! - A processor executes ahead while it waits for memory, so that successive gets wait at the same
//!   time. It stops when it has executed some sixty stores that cannot take effect yet. So this
//!   path stores next to nothing: what it knows stays in registers, and it lends no structure to a
//!   function that is not inlined.

use std::sync::Arc;

use crate::entry::{Entry, Salt};
use crate::epoch::Guard;
use crate::segment::Segment;
use crate::store::Inner;

/// What was found for a key.
pub(crate) enum Plain<'a> {
    /// An ordinary value, verified according to the options.
    Found {
        segment: &'a Arc<Segment>,
        offset: u64,
        entry: Entry<'a>,
    },
    Absent,
    /// Something that `lookup` has to judge. It has not been counted.
    Unusual,
}

impl Inner {
    /// Looks a key up, and counts the get.
    #[expect(clippy::inline_always, reason = "the result must not pass through memory")]
    #[inline(always)]
    pub(crate) fn find_plain<'a>(&'a self, key: &[u8], guard: &'a Guard<'_>) -> Plain<'a> {
        let stripe = guard.stripe();
        if !stripe.is_plain_read() || !self.opener.is_here() || self.keydir.is_clearing() {
            return Plain::Unusual;
        }
        let hash = self.keydir.hash(key);
        let Some(mut addresses) = self.keydir.addresses(hash, guard) else { return Plain::Unusual };
        let Some(address) = addresses.next() else {
            stripe.plain_miss();
            return Plain::Absent;
        };
        let (segment, offset) = (self.segments.get(address.segment, guard), address.offset);
        let Some(entry) = segment.plain_entry(offset) else { return Plain::Unusual };
        if entry.key() != key || !self.is_intact(segment, offset, entry) {
            return Plain::Unusual;
        }
        stripe.plain_hit(entry.layout.value_size);
        Plain::Found { segment, offset, entry }
    }

    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn is_intact(&self, segment: &Segment, offset: u64, entry: Entry<'_>) -> bool {
        !self.options.verify_reads || entry.check(Salt::new(segment.id().0, offset)).is_ok()
    }
}
