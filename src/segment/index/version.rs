//! Versions of keys: which of a key's rows counts at a moment.

use std::sync::Arc;

use super::block::{Row, SeekTarget};
use super::run::Run;
use crate::error::Result;
use crate::segment::Segment;
use crate::value::Value;

/// A run, and the segment that it is a part of.
pub(crate) type Part = (Arc<Segment>, Arc<Run>);

/// A moment: what was written up to a timestamp, seen at a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) timestamp: u64,
    pub(crate) now: u64,
}

/// A live key, and where its value lies.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    pub(crate) key: Value,
    /// The number of the part in which it was found.
    pub(crate) part: usize,
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    pub(crate) expiry: Option<u64>,
}

/// A version of a key: a row that may be the one that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowVersion {
    /// The number of the part in which it was found.
    pub(crate) part: usize,
    pub(crate) offset: u64,
    pub(crate) timestamp: u64,
    expiry: Option<u64>,
    pub(crate) is_tombstone: bool,
}

impl RowVersion {
    pub(super) fn of(row: &Row<'_>, part: usize) -> Self {
        let (offset, is_tombstone) = (row.offset(), row.is_tombstone());
        Self { part, offset, timestamp: row.timestamp, expiry: row.expiry, is_tombstone }
    }

    /// Returns whether this version counts, and not the other.
    pub(super) fn beats(&self, other: Option<&Self>) -> bool {
        let rank = |version: &Self| (version.timestamp, !version.is_tombstone);
        other.is_none_or(|other| rank(self) > rank(other))
    }

    pub(super) fn is_alive(&self, now: u64) -> bool {
        !self.is_tombstone && self.expiry.is_none_or(|expiry| expiry > now)
    }

    /// Returns when the version expired, if it did.
    pub(super) fn expired(&self, now: u64) -> Option<u64> {
        self.expiry.filter(|expiry| !self.is_tombstone && *expiry <= now)
    }

    pub(super) fn hit(self, key: Value) -> Hit {
        let Self { part, offset, timestamp, expiry, .. } = self;
        Hit { key, part, offset, timestamp, expiry }
    }
}

/// Looks up the version of a key that counts at a timestamp, even if it is a tombstone or has
/// expired.
pub(crate) fn newest(parts: &[Part], key: &[u8], timestamp: u64) -> Result<Option<RowVersion>> {
    let target = SeekTarget { key, timestamp };
    let mut newest: Option<RowVersion> = None;
    for (part, (segment, run)) in parts.iter().enumerate() {
        if let Some((block, at)) = run.find(target, segment)? {
            let version = RowVersion::of(&block.row(at), part);
            if version.beats(newest.as_ref()) {
                newest = Some(version);
            }
        }
    }
    Ok(newest)
}

/// Looks up a key at a moment.
#[cfg(any(test, bitcask_fuzzing))]
pub(crate) fn find(parts: &[Part], key: &[u8], moment: Moment) -> Result<Option<Hit>> {
    let version = newest(parts, key, moment.timestamp)?.filter(|it| it.is_alive(moment.now));
    Ok(version.map(|version| version.hit(Value::from(key.to_vec()))))
}
