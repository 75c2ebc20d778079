//! The changes that a follower receives, one put or delete at a time, and how much of the log it
//! may read.

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
use crate::value::{Admitted, Value};

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
    /// What was done to the key.
    pub operation: Operation,
    /// The time of the change on the store's clock. Each change is later than the one before, if
    /// only by a microsecond.
    pub timestamp: SystemTime,
    /// The position right after the change. A follower that resumes there gets the next change.
    pub position: Position,
    /// Whether the next change belongs to the same batch. If `false`, no further change belongs to
    /// this batch.
    pub batch_continues: bool,
}

/// What was done to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// The key was put.
    Put {
        /// The value.
        value: Value,
        /// When the key expires. This time may already have passed.
        expires_at: Option<SystemTime>,
    },
    /// The key was deleted. Expiry does not produce a change: the put already carries the time.
    Delete,
}

/// Returns whether the rest of a batch has another key that is wanted.
pub(crate) fn has_more_in_batch(
    mut walk: Walk,
    end: u64,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<bool> {
    while let Some(stored) = walk.next(end)? {
        let entry = stored.entry();
        if is_wanted(entry.key()) {
            return Ok(true);
        }
        if !entry.layout.flags.has(Flags::CONTINUES) {
            break;
        }
    }
    Ok(false)
}

impl Change {
    /// Returns the change that an entry makes, without the fields that depend on what follows it.
    /// If its value is not admitted, the change has an empty one, and the value's size is returned
    /// too.
    pub(crate) fn of(
        stored: &StoredEntry<'_>,
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(Self, Option<u64>)> {
        let entry = stored.entry();
        let mut left_out = None;
        let operation = if stored.is_tombstone() {
            Operation::Delete
        } else {
            let expires_at = entry.expiry().map(system_time);
            let value = match stored.lend_admitted(admits)? {
                Admitted::Value(value) => value,
                Admitted::Size(size) => {
                    left_out = Some(size);
                    Value::from(Vec::new())
                }
            };
            Operation::Put { value, expires_at }
        };
        let change = Self {
            key: stored.lend(entry.key_range()),
            operation,
            timestamp: system_time(stored.timestamp()),
            position: Position::START,
            batch_continues: false,
        };
        Ok((change, left_out))
    }
}

impl Inner {
    pub(crate) fn log_segments(&self) -> impl Iterator<Item = Arc<Segment>> {
        let all = self.segments.all().into_iter().map(|(_, segment)| segment);
        all.filter(|segment| segment.kind() == Kind::Log)
    }

    /// Returns an error if the store was closed after a failed write or sync: only recovery can
    /// determine what its files hold.
    pub(crate) fn refuse_dead(&self) -> Result<()> {
        let Ok(log) = self.log() else { return Ok(()) };
        match log.check() {
            Err(error) if log.lock().is_closed() => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until the entry of a key that was read from a segment is published.
    pub(crate) fn await_published(&self, segment: &Segment, key: &[u8]) {
        if !segment.is_published() && !made(Mistake::ToldInFlight) {
            drop(self.keydir.shard(self.keydir.hash(key).shard()));
        }
    }

    /// Returns the end of the part of a segment that a follower may read.
    pub(crate) fn readable_end(&self, segment: &Segment, durable: bool) -> u64 {
        let size = segment.size();
        if !durable {
            return size;
        }
        // A read-only store only knows that sealed segments are durable.
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
