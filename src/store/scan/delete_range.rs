//! Removing many keys at once: those of a range, and those that a closure lets go.
//!
//! - Each key is removed by itself, and only if it is what it was when it was looked at: what is put
//!   meanwhile stays. Who needs all or none writes a batch or a transaction.
//! - Where writes are to be durable there is one sync, at the end.

use super::iter::Entries;
use super::key_range::{KeyRange, prefix_bounds};
use super::ordered::Ordered;
use crate::error::Result;
use crate::options::WriteOptions;
use crate::segment::index::{Bounds, Direction};
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::{Bitcask, Inner};

impl Bitcask {
    /// Removes all keys of a range that are there now, and says how many it removed.
    ///
    /// A key that is put again meanwhile stays. After an error, or a crash, some may have been removed
    /// and others not. Durable as the store's [`SyncPolicy`](crate::SyncPolicy) says, with one sync at the end.
    /// Costs a [scan of the keys](crate::Reader::range_keys), and what as many deletes do.
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

    /// Removes all keys that are there now and begin with some bytes, and says how many it removed.
    /// See [`delete_range`](Self::delete_range).
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete).
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_within(prefix_bounds(prefix.as_ref()))
    }

    /// Removes all keys for which a closure does not return `true`, and says how many it removed.
    ///
    /// The closure gets key and value of every key that is there throughout, once, in no order, and no
    /// lock is held while it runs. A key that is changed behind its back stays. Durable as the store's
    /// [`SyncPolicy`](crate::SyncPolicy) says, with one sync at the end.
    ///
    /// Each key is removed as soon as the closure has let it go. So after an error, a panic in the closure, or
    /// a crash, those that it came to before are removed and the others are not. After a panic there was no
    /// sync at the end either: until the next one, a crash may bring them back.
    ///
    /// # Errors
    ///
    /// As [`delete`](Self::delete), and as [`get`](crate::Reader::get).
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
    /// Removes a key if it is what was written at a time; says whether it was.
    fn remove_unchanged(&self, key: &[u8], timestamp: u64) -> Result<bool> {
        let condition = Condition { key, expected: Expected::Unchanged(Some(timestamp)) };
        // All are made durable together.
        let options = WriteOptions::new().durable(false);
        self.change_atomically(&[condition], vec![Draft::tombstone(key)], options, |_| Ok(true))
    }
}
