//! Keys in order, from both ends: those of a snapshot, and those of the store at the time of the
//! call.

use std::fmt;
use std::iter::FusedIterator;

use super::key_range::{KeyRange, prefix_bounds};
use super::ordered::Ordered;
use crate::error::Result;
use crate::segment::index::Direction;
use crate::store::snapshot::Snapshot;
use crate::store::{Bitcask, Expiry, ReadOnly, Reader};
use crate::value::Value;

impl Reader {
    /// Returns an iterator over the keys in a range and their values, in the order of the keys'
    /// bytes. It can be read from both ends.
    ///
    /// The iterator shows the store as it is now, like a [`snapshot`](Self::snapshot), and pins
    /// segments like one for as long as it exists. It reads nothing before its first step.
    ///
    /// The first ordered scan in the life of a store has to sort all keys, which takes about a
    /// second per million keys. After that, each sealed segment has an `.index` file, about 30
    /// bytes for a key of 16 bytes, and only what was written since is sorted. The first key costs
    /// a few reads, each further one about as much as a [`get`](Self::get). The scan needs memory
    /// for all keys that are not in an index file: those of the active segment. In a read-only
    /// store, or on a full disk, those are all keys without an index on disk.
    ///
    /// Each step can return an error, like [`get`](Self::get). An error that makes the order
    /// impossible to determine, such as damage in a segment without an index, comes first and ends
    /// the iteration; [`iter_unordered`](Self::iter_unordered) shows what can still be read.
    ///
    /// The first scan passes over deleted and expired keys, and later scans skip them: at the start
    /// of a queue, the next key costs the same however many were taken before.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for key in ["cherry", "apple", "banana"] {
    ///     db.put(key, key.to_uppercase())?;
    /// }
    /// let (key, value) = db.range("b"..).next().expect("two are left")?;
    /// assert_eq!((&*key, &*value), (&b"banana"[..], &b"BANANA"[..]));
    /// let last_first = db.range(..).rev().collect::<bitcask::Result<Vec<_>>>()?;
    /// assert_eq!(last_first[0].0, "cherry");
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "scan")]
    pub fn range(&self, bounds: impl KeyRange) -> Range {
        self.snapshot().range(bounds)
    }

    /// Returns an iterator over the keys in a range, in order, that can be read from both ends. It
    /// reads no values, so it is half as fast again as [`range`](Self::range).
    pub fn range_keys(&self, bounds: impl KeyRange) -> RangeKeys {
        self.snapshot().range_keys(bounds)
    }

    /// Returns an iterator over all keys with a prefix and their values, in order. It can be read
    /// from both ends; see [`range`](Self::range).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("user/1/name", "Ada")?;
    /// db.put("user/2/name", "Grace")?;
    /// assert_eq!(db.prefix("user/").count(), 2);
    /// // A page of one, and where to go on.
    /// let (key, _) = db.prefix("user/").next().expect("there are two")?;
    /// let (_, value) = db.prefix("user/").after(&key).next().expect("there is one more")?;
    /// assert_eq!(value, "Grace");
    /// # db.close()
    /// # }
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range {
        self.snapshot().prefix(prefix)
    }

    /// Returns an iterator over all keys with a prefix, in order, that can be read from both ends.
    /// It reads no values; see [`range_keys`](Self::range_keys).
    pub fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> RangeKeys {
        self.snapshot().prefix_keys(prefix)
    }

    /// Returns an iterator over all keys and their values, in order, that can be read from both
    /// ends. The same as [`range(..)`](Self::range).
    ///
    /// If the order does not matter, [`iter_unordered`](Self::iter_unordered) is cheaper: it needs
    /// no index.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("b", "2")?;
    /// db.put("a", "1")?;
    /// let pairs = db.iter().collect::<bitcask::Result<Vec<_>>>()?;
    /// assert_eq!((&*pairs[0].0, &*pairs[1].0), (&b"a"[..], &b"b"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Range {
        self.range(..)
    }

    /// Returns an iterator over all keys, in order, that can be read from both ends. It reads no
    /// values. The same as [`range_keys(..)`](Self::range_keys); see also
    /// [`keys_unordered`](Self::keys_unordered).
    pub fn keys(&self) -> RangeKeys {
        self.range_keys(..)
    }

    /// Returns the lowest key and its value, or `None` if there are no keys. See
    /// [`range`](Self::range).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(Value, Value)>> {
        self.range(..).next().transpose()
    }

    /// Returns the highest key and its value, or `None` if there are no keys. See
    /// [`range`](Self::range).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(Value, Value)>> {
        self.range(..).next_back().transpose()
    }
}

impl Snapshot {
    /// Returns an iterator over the keys in a range and their values, in order, that can be read
    /// from both ends. See [`Reader::range`] for its cost.
    pub fn range(&self, bounds: impl KeyRange) -> Range {
        Range(Ordered::new(&self.view, bounds.into_bounds().into()))
    }

    /// Returns an iterator over the keys in a range, in order, that can be read from both ends. It
    /// reads no values.
    pub fn range_keys(&self, bounds: impl KeyRange) -> RangeKeys {
        RangeKeys(Ordered::new(&self.view, bounds.into_bounds().into()))
    }

    /// Returns an iterator over all keys with a prefix and their values, in order, that can be read
    /// from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range {
        Range(Ordered::new(&self.view, prefix_bounds(prefix.as_ref())))
    }

    /// Returns an iterator over all keys with a prefix, in order, that can be read from both ends.
    /// It reads no values.
    pub fn prefix_keys(&self, prefix: impl AsRef<[u8]>) -> RangeKeys {
        RangeKeys(Ordered::new(&self.view, prefix_bounds(prefix.as_ref())))
    }

    /// Returns an iterator over all keys and values, in order; the same as
    /// [`range(..)`](Self::range).
    pub fn iter(&self) -> Range {
        self.range(..)
    }

    /// Returns an iterator over all keys, in order; the same as
    /// [`range_keys(..)`](Self::range_keys).
    pub fn keys(&self) -> RangeKeys {
        self.range_keys(..)
    }

    /// Returns the lowest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn first(&self) -> Result<Option<(Value, Value)>> {
        self.iter().next().transpose()
    }

    /// Returns the highest key and its value, or `None` if there are no keys.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn last(&self) -> Result<Option<(Value, Value)>> {
        self.iter().next_back().transpose()
    }

    /// Returns the number of keys that have not expired. It counts them, so it costs as much as
    /// iterating over [`keys`](Self::keys).
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn len(&self) -> Result<u64> {
        self.keys().try_fold(0, |len, key| key.map(|_| len + 1))
    }

    /// Returns whether there are no keys, or only expired ones.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`].
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.keys().next().transpose()?.is_none())
    }
}

impl IntoIterator for &Snapshot {
    type Item = Result<(Value, Value)>;
    type IntoIter = Range;

    fn into_iter(self) -> Range {
        self.iter()
    }
}

impl IntoIterator for &Reader {
    type Item = Result<(Value, Value)>;
    type IntoIter = Range;

    fn into_iter(self) -> Range {
        self.iter()
    }
}

impl IntoIterator for &Bitcask {
    type Item = Result<(Value, Value)>;
    type IntoIter = Range;

    fn into_iter(self) -> Range {
        self.iter()
    }
}

impl IntoIterator for &ReadOnly {
    type Item = Result<(Value, Value)>;
    type IntoIter = Range;

    fn into_iter(self) -> Range {
        self.iter()
    }
}

/// Keys and values in order, from [`Reader::range`] and similar methods.
#[must_use = "an iterator reads nothing before its first step"]
pub struct Range(pub(crate) Ordered);

/// Keys in order, from [`Reader::range_keys`] and similar methods.
#[must_use = "an iterator reads nothing before its first step"]
pub struct RangeKeys(Ordered);

impl Range {
    /// Narrows the range to the keys after a key, which does not have to exist, and restarts from
    /// both ends.
    ///
    /// The range stays narrowed: a later `after` with a lower key does not widen it, nor does
    /// [`before`](Self::before). To go anywhere within the range, use [`seek`](Self::seek).
    pub fn after(self, key: impl AsRef<[u8]>) -> Self {
        Self(self.0.after(key.as_ref()))
    }

    /// Narrows the range to the keys before a key, which does not have to exist, and restarts from
    /// both ends. The range stays narrowed, as with [`after`](Self::after).
    pub fn before(self, key: impl AsRef<[u8]>) -> Self {
        Self(self.0.before(key.as_ref()))
    }

    /// Returns what [`next`](Iterator::next) returns, and when the key expires, without another
    /// look-up.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Expiry, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// let (key, value, expiry) = db.iter().next_with_expiry().unwrap()?;
    /// assert_eq!((&*key, &*value, expiry), (&b"key"[..], &b"value"[..], Expiry::Never));
    /// # db.close()
    /// # }
    /// ```
    pub fn next_with_expiry(&mut self) -> Option<Result<(Value, Value, Expiry)>> {
        let hit = self.0.next_ahead(Direction::Forward)?;
        Some(hit.and_then(|hit| self.0.entry(hit)))
    }

    /// Moves to a key, forwards or backwards: [`next`](Iterator::next) then returns the first key
    /// of the range that is not lower, whatever was returned before. The other end restarts at the
    /// end of the range.
    ///
    /// `seek` does not narrow the range; only [`after`](Self::after) and [`before`](Self::before)
    /// do. The range still shows the moment at which it was created. `seek` costs as much as the
    /// first step.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for key in ["a", "c", "e", "g"] {
    ///     db.put(key, "")?;
    /// }
    /// let mut range = db.range("b".."g");
    /// assert_eq!(range.seek("d").next().unwrap()?.0, "e");
    /// assert_eq!(range.seek("a").next().unwrap()?.0, "c");
    /// assert!(range.seek("g").next().is_none());
    /// assert_eq!(range.seek_back("d").next_back().unwrap()?.0, "c");
    /// # db.close()
    /// # }
    /// ```
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.0.seek(key.as_ref(), Direction::Forward);
        self
    }

    /// Moves to a key from the other end: [`next_back`](DoubleEndedIterator::next_back) then
    /// returns the last key of the range that is not higher, and [`next`](Iterator::next) restarts
    /// at the start of the range. See [`seek`](Self::seek).
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.0.seek(key.as_ref(), Direction::Backward);
        self
    }
}

impl RangeKeys {
    /// Narrows the range to the keys after a key, and restarts; see [`Range::after`].
    pub fn after(self, key: impl AsRef<[u8]>) -> Self {
        Self(self.0.after(key.as_ref()))
    }

    /// Narrows the range to the keys before a key, and restarts; see [`Range::before`].
    pub fn before(self, key: impl AsRef<[u8]>) -> Self {
        Self(self.0.before(key.as_ref()))
    }

    /// Moves to the first key of the range that is not lower than a key; see [`Range::seek`].
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.0.seek(key.as_ref(), Direction::Forward);
        self
    }

    /// Moves to the last key of the range that is not higher than a key, from the other end; see
    /// [`Range::seek_back`].
    pub fn seek_back(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.0.seek(key.as_ref(), Direction::Backward);
        self
    }
}

impl Iterator for Range {
    type Item = Result<(Value, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next_ahead(Direction::Forward)?.and_then(|hit| self.0.pair(hit)))
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.0.next_ahead(Direction::Backward)?.and_then(|hit| self.0.pair(hit)))
    }
}

impl Iterator for RangeKeys {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Forward).transpose().map(|hit| Ok(hit?.key))
    }
}

impl DoubleEndedIterator for RangeKeys {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.step(Direction::Backward).transpose().map(|hit| Ok(hit?.key))
    }
}

impl FusedIterator for Range {}
impl FusedIterator for RangeKeys {}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").field("bounds", self.0.bounds()).finish_non_exhaustive()
    }
}

impl fmt::Debug for RangeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RangeKeys").field("bounds", self.0.bounds()).finish_non_exhaustive()
    }
}
