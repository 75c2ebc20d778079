//! All keys, in no particular order.
//!
//! - One shard at a time: the iterator copies the shard's addresses under its lock, and reads the
//!   entries without it. Keys never change shards, so a key that exists throughout appears exactly
//!   once. If an entry has expired meanwhile, the iterator looks its key up again, since the key
//!   may have a newer entry.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use crate::error::Result;
use crate::keydir::{Address, SHARD_COUNT};
use crate::segment::{Segment, StoredEntry, ignore_unknown_codec};
use crate::store::{Inner, Reader};
use crate::value::Value;

impl Reader {
    /// Returns an iterator over all keys and values, in no particular order.
    ///
    /// Use this instead of [`iter`](Self::iter) if the order does not matter. It sorts nothing,
    /// writes no index and pins no segments. Each key costs a look at the keydir and a read of its
    /// entry, which may be anywhere in the log. It also continues past damage that makes an ordered
    /// scan impossible.
    ///
    /// In return, it does not show a single moment. A key that exists throughout appears exactly
    /// once. A key that is put or deleted meanwhile may or may not appear, with its value at some
    /// moment of the iteration. Between steps, the iterator holds no lock, and memory for one of
    /// 4,096 parts of the keys. If a part cannot be loaded from the log, that part is one step that
    /// returns an error.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// let mut pairs = db.iter_unordered().collect::<bitcask::Result<Vec<_>>>()?;
    /// pairs.sort();
    /// assert_eq!(pairs[0].0, "a");
    /// assert_eq!(pairs[1].1, "2");
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter_unordered(&self) -> UnorderedIter<'_> {
        UnorderedIter { entries: Entries::new(&self.inner) }
    }

    /// Returns an iterator over all keys, in no particular order; see
    /// [`iter_unordered`](Self::iter_unordered).
    ///
    /// Each key is stored next to its value, so this reads every entry too. It decompresses no
    /// value.
    pub fn keys_unordered(&self) -> UnorderedKeys<'_> {
        UnorderedKeys { entries: Entries::new(&self.inner) }
    }
}

/// Keys and values in no particular order, from [`Reader::iter_unordered`].
#[must_use = "an iterator reads nothing before its first step"]
pub struct UnorderedIter<'a> {
    entries: Entries<'a>,
}

/// Keys in no particular order, from [`Reader::keys_unordered`].
#[must_use = "an iterator reads nothing before its first step"]
pub struct UnorderedKeys<'a> {
    entries: Entries<'a>,
}

impl Iterator for UnorderedIter<'_> {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries
            .next(|stored| Ok((stored.lend(stored.entry().key_range()), stored.lend_raw_value()?)))
    }
}

impl Iterator for UnorderedKeys<'_> {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next(|stored| Ok(stored.lend(stored.entry().key_range())))
    }
}

// A fork ends both with one error.
impl FusedIterator for UnorderedIter<'_> {}
impl FusedIterator for UnorderedKeys<'_> {}

impl fmt::Debug for UnorderedIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.show(&mut f.debug_struct("UnorderedIter"))
    }
}

impl fmt::Debug for UnorderedKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.show(&mut f.debug_struct("UnorderedKeys"))
    }
}

/// Prefetch distance, in entries.
const READ_AHEAD: usize = 8;

/// The entries that slots name.
pub(crate) struct Entries<'a> {
    inner: &'a Inner,
    /// The next shard to read.
    shard: usize,
    /// Where the rest of the last shard's entries are.
    located: Vec<(Arc<Segment>, u64)>,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, shard: 0, located: Vec::new() }
    }

    /// Shows how far the iteration has come: the number of parts, out of 4,096, that it has begun.
    fn show(&self, show: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        show.field("parts_begun", &self.shard).finish_non_exhaustive()
    }

    /// Applies `take` to an entry, or to its key's current entry if it has expired. Returns `None`
    /// if the key is absent or expired.
    pub(super) fn read<T>(
        &self,
        segment: &Arc<Segment>,
        offset: u64,
        take: impl FnOnce(&StoredEntry<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let stored = segment.entry(offset)?;
        ignore_unknown_codec(self.inner.check(&stored))?;
        let entry = stored.entry();
        if entry.expiry().is_none() || !entry.is_expired(&self.inner.clock.read()) {
            return take(&stored).map(Some);
        }
        // A later change may have given the key a new expiry.
        let guard = self.inner.pin();
        let Some(stored) = self.inner.locate(entry.key(), &guard)? else { return Ok(None) };
        ignore_unknown_codec(self.inner.check(&stored))?;
        take(&stored).map(Some)
    }

    /// Applies `take` to the next entry.
    pub(crate) fn next<T>(
        &mut self,
        take: impl Fn(&StoredEntry<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        if let Err(forked) = self.inner.here() {
            let is_told = std::mem::replace(&mut self.shard, SHARD_COUNT) == SHARD_COUNT;
            let is_over = is_told && self.located.is_empty();
            self.located.clear();
            return (!is_over).then_some(Err(forked));
        }
        loop {
            while let Some((segment, offset)) = self.located.pop() {
                // Entries are read in the order of their hash bits, so each one is anywhere in the
                // log.
                let soon = self.located.len().wrapping_sub(READ_AHEAD);
                if let Some((segment, offset)) = self.located.get(soon) {
                    segment.prefetch(*offset);
                }
                if let Some(pair) = self.read(&segment, offset, &take).transpose() {
                    return Some(pair);
                }
            }
            if self.shard == SHARD_COUNT {
                return None;
            }
            let shard = match self.inner.shard(self.shard) {
                Ok(shard) => shard,
                Err(error) => {
                    self.shard += 1;
                    return Some(Err(error));
                }
            };
            self.shard += 1;
            let guard = self.inner.pin();
            let located = |address: Address| {
                let segment = self.inner.segments.get(address.segment, &guard);
                (Arc::clone(segment), address.offset)
            };
            self.located.extend(shard.addresses().map(located));
        }
    }
}
