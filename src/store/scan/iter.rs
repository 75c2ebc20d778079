//! All keys, in no order.
//!
//! - One shard at a time: its addresses are copied under its lock, and the entries read without
//!   it. Keys never change shards, so a key that is there throughout appears exactly once. One whose
//!   entry has expired meanwhile is looked up again, since it may have got another one.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::keydir::{Address, SHARD_COUNT};
use crate::segment::{Segment, StoredEntry, ignore_unknown_codec};
use crate::store::{Bitcask, Inner, ReadOnly, Reader};
use crate::value::Value;

impl Reader {
    /// Returns an iterator over all keys and values, in no order.
    ///
    /// A key that is there throughout appears exactly once; one that is put or deleted meanwhile
    /// may appear or not, with the value of some moment of the iteration. Holds no lock between
    /// steps, and memory for one of 4,096 parts of the keys. A part that can't be had from the
    /// log is one step that is an error.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// let mut pairs = db.iter().collect::<bitcask::Result<Vec<_>>>()?;
    /// pairs.sort();
    /// assert_eq!(pairs[0].0, "a");
    /// assert_eq!(pairs[1].1, "2");
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Iter<'_> {
        Iter { entries: Entries::new(&self.inner) }
    }

    /// Returns an iterator over all keys, in no order; see [`iter`](Self::iter).
    pub fn keys(&self) -> Keys<'_> {
        Keys { entries: Entries::new(&self.inner) }
    }
}

impl<'a> IntoIterator for &'a Reader {
    type Item = Result<(Value, Value)>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a Bitcask {
    type Item = Result<(Value, Value)>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a ReadOnly {
    type Item = Result<(Value, Value)>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The iterator that [`Reader::iter`] returns.
pub struct Iter<'a> {
    entries: Entries<'a>,
}

/// The iterator that [`Reader::keys`] returns.
pub struct Keys<'a> {
    entries: Entries<'a>,
}

impl Iterator for Iter<'_> {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries
            .next(|stored| Ok((stored.lend(stored.entry().key_range()), stored.lend_raw_value()?)))
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next(|stored| Ok(stored.lend(stored.entry().key_range())))
    }
}

impl fmt::Debug for Iter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// As many entries ahead memory is asked for.
const READ_AHEAD: usize = 8;

/// The entries that slots name.
pub(crate) struct Entries<'a> {
    inner: &'a Inner,
    /// The shard to be read next.
    shard: usize,
    /// What the last one held.
    located: Vec<(Arc<Segment>, u64)>,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, shard: 0, located: Vec::new() }
    }

    /// Returns what is taken of an entry, or of what its key has by now if it has expired.
    pub(super) fn read<T>(
        &self,
        segment: &Arc<Segment>,
        offset: u64,
        take: impl FnOnce(&StoredEntry<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let stored = segment.entry(offset)?;
        ignore_unknown_codec(self.inner.check(&stored))?;
        let entry = stored.entry();
        if entry.header.expiry.is_none() || !entry.header.is_expired(&self.inner.clock.read()) {
            return take(&stored).map(Some);
        }
        // Somebody may have made it live on since.
        let guard = self.inner.pin();
        let Some(stored) = self.inner.locate(entry.key(), &guard)? else { return Ok(None) };
        ignore_unknown_codec(self.inner.check(&stored))?;
        take(&stored).map(Some)
    }

    /// Returns what is taken of the next entry.
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
                // Entries are read in the order of hash bits, so each is anywhere in the log.
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
