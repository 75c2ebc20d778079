//! The window between log and keydir, and the rules that keep it closed.
//!
//! A writer appends under the lock of the log, and publishes afterwards, under the locks of its
//! shards alone. In between its entries are *in flight*: the log has them, the keydir does not.
//! Whatever takes the keydir for the truth about the log would be wrong then, so:
//!
//! 1. A segment is sealed only when everything in it is published. What looks at sealed segments
//!    through the keydir (merges, hints, figures, the segments that a verification compares) needs
//!    no rule of its own: segments are sealed in the order of the log, so all that is older is
//!    published too.
//! 2. What notes a moment of the log (a snapshot, a position, a backup) is not returned before all
//!    that had been appended by then is published. So nobody can look at the keydir next and find it
//!    behind that moment.
//! 3. A follower returns a change only when it is published.
//! 4. A reader that finds a key expired looks it up again under the lock of its shard. A change that
//!    rests on the value may have been in flight, such as a `persist`; it is published then. A later one
//!    finds the value expired too: it looks at the clock under the lock of the log, just before the
//!    append.
//!
//! A writer in flight holds the locks of its shards, and waits for nobody before it releases them. To wait
//! for it is to lock them. Whoever does may also meet a writer that is about to append, which may have to
//! create a segment first, or a clear, which replaces the manifest.

use super::log::Log;
use super::{Inner, Writer};
use crate::keydir::Address;
use crate::mistake::{Mistake, made};
use crate::segment::write::draft::Draft;
use crate::segment::{InFlight, Place, Segment};
use crate::sync::yield_now;

/// Attempts to find the log without an append in flight, before every shard is locked in turn to
/// wait for those that there are.
const ATTEMPTS: usize = if cfg!(all(test, loom)) { 0 } else { 32 };

/// Entries that the log has, and that are in flight until [`published`](Self::published).
#[derive(Debug)]
pub(super) struct Appended<'a> {
    pub(super) segment: &'a Segment,
    pub(super) in_flight: InFlight<'a>,
    /// The segment's number.
    pub(super) number: u32,
    /// Of the first one; the others follow without a gap.
    pub(super) offset: u64,
    /// Of the last one.
    pub(super) timestamp: u64,
    pub(super) written: Written,
}

/// What is left to be done for entries that slots name.
#[derive(Debug)]
pub(super) struct Written {
    /// What has to be durable for all of them to be so.
    pub(super) end: Place,
    /// How many full segments wait to be sealed.
    pub(super) backlog: usize,
}

impl Appended<'_> {
    /// Takes note that slots name the entries. The caller still holds the locks of their shards, so
    /// whoever has to wait for this can wait for those.
    pub(super) fn published(self) -> Written {
        drop(self.in_flight);
        self.written
    }

    /// Returns the addresses of what was appended, in order, with the sizes on disk.
    pub(super) fn addresses(&self, drafts: &[Draft<'_>]) -> impl Iterator<Item = (Address, u64)> {
        let (segment, mut end) = (self.number, self.offset);
        drafts.iter().map(move |draft| {
            let (offset, size) = (end, draft.header.entry_size());
            end += size;
            (Address { segment, offset }, size)
        })
    }
}

impl Inner {
    /// Waits until slots name everything in a segment that nothing is appended to any more.
    pub(super) fn await_published(&self, segment: &Segment) {
        if !segment.is_published() && !made(Mistake::SealedInFlight) {
            self.keydir.wait_for_writers();
        }
    }

    /// Notes something of the log at one moment, and returns it when slots name all that had been
    /// appended by then.
    pub(super) fn at_one_moment<T>(&self, writer: &Writer, mut note: impl FnMut(&Log) -> T) -> T {
        for _ in 0..ATTEMPTS {
            let log = writer.log.lock();
            if log.is_published() || made(Mistake::MomentInFlight) {
                return note(&log);
            }
            drop(log);
            yield_now();
        }
        let log = writer.log.lock();
        let (noted, is_published) = (note(&log), log.is_published());
        drop(log);
        if !is_published && !made(Mistake::MomentInFlight) {
            self.keydir.wait_for_writers();
        }
        noted
    }

    /// Waits until an entry that was read from a segment is published, which is of this key.
    pub(super) fn await_published_key(&self, segment: &Segment, key: &[u8]) {
        if !segment.is_published() && !made(Mistake::ToldInFlight) {
            drop(self.keydir.shard(self.keydir.hash(key).shard()));
        }
    }
}
