//! Removing many keys: those of a range, and those that a closure rejects.
//!
//! - Each key is removed separately, and only if it has not changed since it was read: a key that
//!   is put meanwhile stays. For atomic removal, use a batch or a transaction.
//! - If writes must be durable, there is one sync at the end.

use super::entries::Entries;
use super::key_range::{KeyRange, prefix_bounds};
use super::ordered::Ordered;
use crate::error::Result;
use crate::options::WriteOptions;
use crate::segment::index::{Bounds, Direction};
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::{Bitcask, Inner};

impl Bitcask {
    /// Removes all keys that are currently in a range. Returns the number of removed keys.
    ///
    /// A key that is put again meanwhile stays. After an error or a crash, some keys may have been
    /// removed and others not. Durability follows the store's [`SyncPolicy`](crate::SyncPolicy),
    /// with one sync at the end. Costs a [scan of the keys](crate::Reader::range_keys) and a delete
    /// for each key.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for day in ["2026-01-30", "2026-01-31", "2026-02-01"] {
    ///     db.put(day, "measured")?;
    /// }
    /// assert_eq!(db.delete_range(.."2026-02")?, 2);
    /// assert_eq!(db.len()?, 1);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "remove")]
    pub fn delete_range(&self, bounds: impl KeyRange) -> Result<u64> {
        self.remove_within(bounds.into_bounds().into())
    }

    /// Removes all keys that currently start with a prefix. Returns the number of removed keys. See
    /// [`delete_range`](Self::delete_range).
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_within(prefix_bounds(prefix.as_ref()))
    }

    /// Removes all keys for which a closure does not return `true`. Returns the number of removed
    /// keys.
    ///
    /// The closure is called once with the key and value of every key that exists throughout, in no
    /// particular order, and no lock is held while it runs. A key that changes after the closure
    /// has seen it stays. Durability follows the store's [`SyncPolicy`](crate::SyncPolicy), with
    /// one sync at the end.
    ///
    /// Each key is removed as soon as the closure has rejected it. So after an error, a panic in
    /// the closure, or a crash, the keys rejected so far are removed and the others are not. After
    /// a panic, the final sync is missing too: until the next sync, a crash may bring the removed
    /// keys back.
    ///
    /// # Errors
    ///
    /// The errors of [`delete`](Self::delete) and [`get`](crate::Reader::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "keep")?;
    /// db.put("b", "drop")?;
    /// assert_eq!(db.retain(|_, value| value == b"keep")?, 1);
    /// assert!(!db.contains_key("b")?);
    /// # db.close()
    /// # }
    /// ```
    pub fn retain(&self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64> {
        let inner = &self.inner;
        inner.writer()?;
        let mut entries = Entries::new(inner);
        let mut removed = 0;
        while let Some(pair) = entries.next(|stored| {
            let key = stored.lend(stored.entry().key_range());
            Ok((key, stored.lend_raw_value()?, stored.timestamp()))
        }) {
            let (key, value, timestamp) = pair?;
            if !keep(&key, &value) {
                removed += u64::from(inner.remove_unchanged(&key, timestamp)?);
            }
        }
        inner.wait_durable(WriteOptions::new())?;
        Ok(removed)
    }

    fn remove_within(&self, bounds: Bounds) -> Result<u64> {
        let inner = &self.inner;
        inner.writer()?;
        let mut keys = Ordered::new(&self.snapshot().view, bounds);
        let mut removed = 0;
        while let Some(hit) = keys.step(Direction::Forward)? {
            removed += u64::from(inner.remove_unchanged(&hit.key, hit.timestamp)?);
        }
        inner.wait_durable(WriteOptions::new())?;
        Ok(removed)
    }
}

impl Inner {
    /// Removes a key if its entry still has this timestamp. Returns whether it did.
    fn remove_unchanged(&self, key: &[u8], timestamp: u64) -> Result<bool> {
        let condition = Condition { key, expected: Expected::Unchanged(Some(timestamp)) };
        // All removals are made durable together, at the end.
        let options = WriteOptions::new().durable(false);
        self.change_atomically(&[condition], vec![Draft::tombstone(key)], options, |_| Ok(true))
    }
}
