//! The entries that slots name, in parts, each part in the order of the log.
//!
//! - A part consists of some shards. The addresses in each shard are copied under the shard's lock,
//!   and sorted. The entries are read without the lock, in the order in which they lie on the disk.
//! - Keys never change shards, and each shard is copied once. So a key that exists throughout
//!   appears exactly once, and no key appears twice, whatever is written, merged or cleared
//!   meanwhile. Its entry is the one that its slot named when its shard was copied. Entries never
//!   change, and the part holds their segments.
//! - If an entry has expired meanwhile, its key is looked up again, since the key may have a newer
//!   entry.
//! - The first part is one shard, so that a caller that stops early does not wait for the others.
//!   Later parts are as large as memory permits, since each part is a pass over the log.

use std::fmt;
use std::sync::Arc;

use crate::entry::ALIGNMENT;
use crate::error::Result;
use crate::keydir::SHARD_COUNT;
use crate::segment::{Segment, StoredEntry, ignore_unknown_codec};
use crate::store::Inner;

/// Number of entries from which a part gets no further shards. Each takes four bytes.
const PART_LEN_MAX: usize = if cfg!(any(test, bitcask_fuzzing)) { 8 } else { 16 << 20 };

/// Prefetch distance, in entries.
const PREFETCH_DISTANCE: usize = 12;

/// Number of bytes that the system is asked to read ahead at a time.
const READ_AHEAD: u64 = 1 << 20;

/// Largest average distance in bytes between entries for which the system reads ahead. It is the
/// size of a page: at larger distances, not every page is needed.
const READ_AHEAD_DISTANCE_MAX: u64 = 4 << 10;

/// The entries that slots name.
pub(crate) struct Entries<'a> {
    inner: &'a Inner,
    /// The next shard to copy.
    shard: usize,
    /// Largest number of shards in the next part.
    shards_max: usize,
    /// The segments of the part that have not been read to their ends, next one last.
    part: Vec<Chosen>,
}

/// The entries of a segment that belong to a part.
struct Chosen {
    segment: Arc<Segment>,
    /// Where they are, in units of [`ALIGNMENT`], in ascending order.
    offsets: Vec<u32>,
    /// The index of the next one.
    next: usize,
    /// The offset up to which the system was asked to read ahead; `u64::MAX` if it is not asked.
    read_ahead: u64,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, shard: 0, shards_max: 1, part: Vec::new() }
    }

    /// Shows how far the iteration has come: the number of shards, out of 4,096, that it has
    /// copied.
    pub(super) fn show(&self, show: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        show.field("parts_begun", &self.shard).finish_non_exhaustive()
    }

    /// Applies `take` to the next entry that has not expired.
    pub(crate) fn next<T>(
        &mut self,
        mut take: impl FnMut(&StoredEntry<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        self.advance(|inner, segment, offset| inner.read_live(segment, offset, &mut take))
    }

    /// Applies `take` to the next entry, expired or not.
    pub(crate) fn next_named<T>(
        &mut self,
        mut take: impl FnMut(&StoredEntry<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        self.advance(|inner, segment, offset| {
            let stored = segment.entry(offset)?;
            ignore_unknown_codec(inner.check(&stored))?;
            take(&stored).map(Some)
        })
    }

    /// Reads entry after entry, until `read` has not skipped one.
    fn advance<T>(
        &mut self,
        mut read: impl FnMut(&Inner, &Arc<Segment>, u64) -> Result<Option<T>>,
    ) -> Option<Result<T>> {
        if let Err(forked) = self.inner.here() {
            let is_told = std::mem::replace(&mut self.shard, SHARD_COUNT) == SHARD_COUNT;
            let is_over = is_told && self.part.is_empty();
            self.part.clear();
            return (!is_over).then_some(Err(forked));
        }
        loop {
            while let Some(chosen) = self.part.last_mut() {
                let Some(offset) = chosen.next() else {
                    self.part.pop();
                    continue;
                };
                let found = read(self.inner, &chosen.segment, offset);
                if let Some(found) = found.transpose() {
                    return Some(found);
                }
            }
            if self.shard == SHARD_COUNT {
                return None;
            }
            if let Err(error) = self.begin_part() {
                return Some(Err(error));
            }
        }
    }

    /// Copies the addresses of the next shards. If the first of them cannot be filled, skips it and
    /// returns the error.
    fn begin_part(&mut self) -> Result<()> {
        // The guard prevents segment numbers from being reused.
        let guard = self.inner.pin();
        let (mut offsets, mut len): (Vec<Vec<u32>>, _) = (Vec::new(), 0);
        let first = self.shard;
        let end = (first + self.shards_max).min(SHARD_COUNT);
        while self.shard < end && len < PART_LEN_MAX {
            let shard = match self.inner.shard(self.shard) {
                Ok(shard) => shard,
                Err(error) if self.shard == first => {
                    self.shard += 1;
                    return Err(error);
                }
                // The next part begins with this shard, and with the error.
                Err(_) => break,
            };
            len += shard.len();
            for address in shard.addresses() {
                let number = address.segment as usize;
                if number >= offsets.len() {
                    offsets.resize_with(number + 1, Vec::new);
                }
                let units = u32::try_from(address.offset / ALIGNMENT).unwrap_or(u32::MAX);
                if let Some(offsets) = offsets.get_mut(number) {
                    offsets.push(units);
                }
            }
            self.shard += 1;
        }
        if len > 0 {
            self.shards_max = SHARD_COUNT;
        }
        let numbered = (0..).zip(offsets).filter(|(_, offsets)| !offsets.is_empty());
        self.part.extend(numbered.map(|(number, offsets)| {
            Chosen::new(Arc::clone(self.inner.segments.get(number, &guard)), offsets)
        }));
        // Ids rise along the log.
        self.part.sort_unstable_by_key(|chosen| std::cmp::Reverse(chosen.segment.id()));
        Ok(())
    }
}

impl Chosen {
    fn new(segment: Arc<Segment>, mut offsets: Vec<u32>) -> Self {
        sort(&mut offsets, segment.size());
        offsets.shrink_to_fit();
        let len = offsets.len().max(1) as u64;
        let is_dense = segment.size() / len <= READ_AHEAD_DISTANCE_MAX;
        let read_ahead = if is_dense { 0 } else { u64::MAX };
        Self { segment, offsets, next: 0, read_ahead }
    }

    /// Returns the offset of the next entry. Has those after it read ahead.
    fn next(&mut self) -> Option<u64> {
        let at = |index: usize| self.offsets.get(index).map(|units| u64::from(*units) * ALIGNMENT);
        let offset = at(self.next)?;
        if let Some(soon) = at(self.next + PREFETCH_DISTANCE) {
            self.segment.prefetch(soon);
        }
        self.next += 1;
        // Each request is made a whole distance ahead of the entries that it is for.
        while offset + READ_AHEAD > self.read_ahead {
            let from = self.read_ahead.max(offset);
            self.read_ahead = from + READ_AHEAD;
            self.segment.read_ahead(from..self.read_ahead);
        }
        Some(offset)
    }
}

/// Sorts the offsets of entries in a segment of this size. Keeps offsets beyond its end, which a
/// damaged hint may state, so that reading them returns an error.
fn sort(offsets: &mut Vec<u32>, size: u64) {
    let words = usize::try_from(size / ALIGNMENT / 64 + 1).unwrap_or(usize::MAX);
    let is_beyond = |offset: &u32| *offset as usize / 64 >= words;
    if offsets.len() < words / 8 || offsets.iter().any(is_beyond) {
        return offsets.sort_unstable();
    }
    // With a bit for each place, sorting takes two passes.
    let mut places = vec![0_u64; words];
    for offset in offsets.drain(..) {
        if let Some(word) = places.get_mut(offset as usize / 64) {
            *word |= 1 << (offset % 64);
        }
    }
    for (base, mut word) in (0..).step_by(64).zip(places) {
        while word != 0 {
            offsets.push(base + word.trailing_zeros());
            word &= word - 1;
        }
    }
}

impl Inner {
    /// Applies `take` to an entry that a slot has named, or to its key's current entry if it has
    /// expired. Returns `None` if the key is absent or expired.
    pub(super) fn read_live<T>(
        &self,
        segment: &Arc<Segment>,
        offset: u64,
        take: impl FnOnce(&StoredEntry<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let stored = segment.entry(offset)?;
        ignore_unknown_codec(self.check(&stored))?;
        if stored.expiry().is_none() || !stored.entry().is_expired(&self.clock.read()) {
            return take(&stored).map(Some);
        }
        // A later change may have given the key a new expiry.
        let guard = self.pin();
        let Some(stored) = self.locate(stored.entry().key(), &guard)? else { return Ok(None) };
        ignore_unknown_codec(self.check(&stored))?;
        take(&stored).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_keeps_places_beyond_the_end() {
        let mut offsets = vec![9, 8, 4000, 10];
        sort(&mut offsets, 1024);
        assert_eq!(offsets, [8, 9, 10, 4000]);
    }
}
