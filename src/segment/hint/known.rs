//! A segment's hint, wherever it is: on disk, or rebuilt in memory.

use std::ops::Range;
use std::sync::Arc;

use super::{Hint, HintFile, HintSlot, HintSource, Summary};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::key_hash::KeyHash;
use crate::keydir::SHARD_COUNT;
use crate::segment::{Dir, Segment, open_listed};

/// Approximate number of slots read at a time, which bounds the memory that reading a hint needs.
const PART_LEN: u64 = if cfg!(any(test, bitcask_fuzzing)) { 16 } else { 1 << 16 };

/// A segment's hint: on disk with a valid summary, or in memory.
#[derive(Debug, Clone)]
pub(crate) enum SegmentHint {
    OnDisk(Arc<HintFile>),
    InMemory(Arc<Hint>),
}

impl SegmentHint {
    pub(crate) fn in_memory(hint: Hint) -> Self {
        Self::InMemory(Arc::new(hint))
    }

    /// Opens the hint of a segment, and rebuilds it if it can't be used.
    pub(crate) fn open(
        fs: &Fs,
        dir: &Dir,
        source: HintSource,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        match HintFile::open(fs, dir, source) {
            Some(hint) => Ok(Self::OnDisk(Arc::new(hint))),
            None => Self::rebuild(fs, dir, source, hash),
        }
    }

    /// Opens the hint of an open segment, whose files a writer in another process may have removed.
    pub(crate) fn open_from_segment(
        fs: &Fs,
        dir: &Dir,
        segment: &Arc<Segment>,
        source: HintSource,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        match Self::open(fs, dir, source, &hash) {
            Err(Error::MissingSegment { .. }) => {
                Hint::build_from_segment(segment, hash).map(Self::in_memory)
            }
            known => known,
        }
    }

    /// Rebuilds the hint of a segment.
    pub(crate) fn rebuild(
        fs: &Fs,
        dir: &Dir,
        source: HintSource,
        hash: impl Fn(&[u8]) -> KeyHash,
    ) -> Result<Self> {
        let file = open_listed(fs, &dir.log(source.id))?;
        Hint::build(&file, source, hash).map(Self::in_memory)
    }

    pub(crate) fn summary(&self) -> &Summary {
        match self {
            Self::OnDisk(hint) => hint.summary(),
            Self::InMemory(hint) => &hint.summary,
        }
    }

    /// Returns the slots of some shards, or `None` if a part of the file that holds them is
    /// damaged.
    pub(crate) fn slots(&self, fs: &Fs, shards: &Range<usize>) -> Option<Vec<HintSlot>> {
        match self {
            Self::OnDisk(hint) => hint.slots(fs, shards),
            Self::InMemory(hint) => Some(hint.slots_of(shards).to_vec()),
        }
    }

    /// Calls a closure with all slots in order, until it returns `false`. If a part of the file is
    /// damaged, the hint is rebuilt.
    pub(crate) fn for_each(
        mut self,
        fs: &Fs,
        dir: &Dir,
        source: HintSource,
        hash: impl Fn(&[u8]) -> KeyHash,
        mut visit: impl FnMut(HintSlot) -> bool,
    ) -> Result<()> {
        let share = (SHARD_COUNT as u64 * PART_LEN).checked_div(self.summary().entries);
        let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(SHARD_COUNT);
        let len = share.clamp(1, SHARD_COUNT);
        for start in (0..SHARD_COUNT).step_by(len) {
            let shards = start..SHARD_COUNT.min(start + len);
            let mut slots = self.slots(fs, &shards);
            if slots.is_none() {
                self = Self::rebuild(fs, dir, source, &hash)?;
                slots = self.slots(fs, &shards);
            }
            if !slots.into_iter().flatten().all(&mut visit) {
                break;
            }
        }
        Ok(())
    }
}
