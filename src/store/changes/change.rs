//! What a follower of a store receives, one put or delete at a time, and how much of the log it may read.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::Changes;
use super::position::Position;
use crate::clock::system_time;
use crate::entry::Flags;
use crate::error::Result;
use crate::log::LogWriter;
use crate::mistake::{Mistake, made};
use crate::segment::header::Kind;
use crate::segment::read::walk::Walk;
use crate::segment::{FIRST_OFFSET, Place, Segment, SegmentId, StoredEntry};
use crate::store::Inner;
use crate::value::Value;

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("path", &self.inner.dir.path())
            .field("position", &self.resume_position())
            .field("prefix", &self.prefix)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// A put or a delete, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The key that was changed.
    pub key: Value,
    /// What was done to it.
    pub operation: Operation,
    /// When, by the store's clock; each change is later than the one before, if only by a microsecond.
    pub timestamp: SystemTime,
    /// Right behind the change: who resumes there gets the next one.
    pub position: Position,
    /// Whether the batch that it belongs to goes on with the next change. What follows a change for
    /// which this is `false` is no part of its batch.
    pub batch_continues: bool,
}

/// What was done to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// It was given a value.
    Put {
        /// The value.
        value: Value,
        /// When the key expires, which may be past by now.
        expires_at: Option<SystemTime>,
    },
    /// It was removed. That it has expired is no change: the put has told when it will.
    Delete,
}

/// Returns whether what follows of a batch has another key with a prefix.
pub(crate) fn goes_on(mut walk: Walk, end: u64, prefix: &[u8]) -> Result<bool> {
    while let Some(stored) = walk.next(end)? {
        let entry = stored.entry();
        if entry.key().starts_with(prefix) {
            return Ok(true);
        }
        if !entry.header.flags.has(Flags::CONTINUES) {
            break;
        }
    }
    Ok(false)
}

impl Change {
    /// Returns an entry of a key as followers see it, but for what lies behind it.
    pub(crate) fn of(stored: &StoredEntry<'_>) -> Result<Self> {
        let entry = stored.entry();
        let operation = if entry.header.is_tombstone() {
            Operation::Delete
        } else {
            let expires_at = entry.header.expiry.map(system_time);
            Operation::Put { value: stored.lend_raw_value()?, expires_at }
        };
        Ok(Self {
            key: stored.lend(entry.key_range()),
            operation,
            timestamp: system_time(stored.timestamp()),
            position: Position::START,
            batch_continues: false,
        })
    }
}

impl Inner {
    pub(crate) fn log_segments(&self) -> impl Iterator<Item = Arc<Segment>> {
        let all = self.segments.all().into_iter().map(|(_, segment)| segment);
        all.filter(|segment| segment.kind() == Kind::Log)
    }

    /// Refuses to read on when the store was closed after a failed write or sync: what lies in its
    /// files from then on is for recovery to say.
    pub(crate) fn refuse_dead(&self) -> Result<()> {
        let Ok(log) = self.log() else { return Ok(()) };
        match log.check() {
            Err(error) if log.lock().is_closed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until the entry of a key, which was read from a segment, is published.
    pub(crate) fn await_published(&self, segment: &Segment, key: &[u8]) {
        if !segment.is_published() && !made(Mistake::ToldInFlight) {
            drop(self.keydir.shard(self.keydir.hash(key).shard()));
        }
    }

    /// Returns up to where a follower may read a segment.
    pub(crate) fn readable_end(&self, segment: &Segment, durable: bool) -> u64 {
        let size = segment.size();
        if !durable {
            return size;
        }
        // In a store opened read-only only what is sealed is known to be durable.
        let durable = self.log().map_or(Place::new(SegmentId(0), 0), LogWriter::durable);
        let id = segment.id();
        match id.cmp(&durable.segment) {
            _ if segment.summary().is_some() => size,
            Ordering::Less => size,
            Ordering::Equal => size.min(durable.offset),
            Ordering::Greater => FIRST_OFFSET,
        }
    }
}
