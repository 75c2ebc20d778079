//! All keys, in no particular order. `entries` finds and reads their entries.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::ControlFlow;

use super::entries::Entries;
use crate::error::Result;
use crate::store::Reader;
use crate::value::Value;

impl Reader {
    /// Returns an iterator over all keys and values, in no particular order.
    ///
    /// Use this instead of [`iter`](Self::iter) if the order does not matter. It reads the entries
    /// in the order in which they lie on the disk, which is several times as fast. It needs no
    /// index, and continues past damage that makes an ordered scan impossible.
    /// [`iter_unordered_with`](Self::iter_unordered_with) is faster still.
    ///
    /// # Guarantee
    ///
    /// A key that exists throughout appears exactly once, and no key appears twice, whatever is
    /// written, deleted, merged or cleared meanwhile. A key that is put or deleted meanwhile may or
    /// may not appear. Each key appears with its value at some moment of the iteration, but not all
    /// at the same moment; for that, use [`iter`](Self::iter) or a [`snapshot`](Self::snapshot).
    /// If some of the keys cannot be loaded from the log, each of the up to 4,096 parts that are
    /// missing is one step that returns an error.
    ///
    /// # Cost
    ///
    /// The log is read once from one end to the other, and once more for every 16 million keys.
    /// Where nearly all pages are needed, they are read ahead. Memory: 4 bytes for each key, at
    /// most 64 MiB. Between steps, the iterator holds no lock. It holds the segments whose entries
    /// it has still to read: if a merge removes them, their disk space is freed when the iterator
    /// has passed them or is dropped.
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

    /// Calls a closure with each key and value, in no particular order, until the closure returns
    /// [`ControlFlow::Break`]. Returns what the closure has returned last.
    ///
    /// This is the fastest way to read everything. It differs from
    /// [`iter_unordered`](Self::iter_unordered) in two ways. It lends keys and values instead of
    /// returning them in a form that can be kept, and it ends with the first error. No lock is held
    /// while the closure runs.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// db.put("b", "22")?;
    /// let mut size = 0;
    /// let _ = db.iter_unordered_with(|key, value| {
    ///     size += key.len() + value.len();
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(size, 5);
    ///
    /// let found = db.iter_unordered_with(|_, value| match value {
    ///     b"1" => ControlFlow::Break(()),
    ///     _ => ControlFlow::Continue(()),
    /// })?;
    /// assert!(found.is_break());
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "for_each")]
    pub fn iter_unordered_with(
        &self,
        mut read: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let mut entries = Entries::new(&self.inner);
        while let Some(flow) =
            entries.next(|stored| Ok(read(stored.entry().key(), &stored.raw_value()?)))
        {
            if flow?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
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
