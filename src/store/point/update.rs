//! Changes of one key that depend on its current value.
//!
//! - Each is a change with one condition; see `conditional`.
//! - The caller's closure runs without any lock held. It runs again if the key has changed
//!   meanwhile.

use super::conditional::{Condition, Expected};
use crate::error::{Error, Result};
use crate::options::{TransactionOptions, WriteOptions};
use crate::store::transaction::back_off;
use crate::store::{Bitcask, Inner};
use crate::value::Value;

/// Maximum number of attempts for a change that depends on the key's current value, as for a
/// transaction.
pub(crate) const ATTEMPTS: u32 = TransactionOptions::ATTEMPTS;

impl Bitcask {
    /// Stores a value under a key if the key is absent or expired. Returns whether it did. The key
    /// gets the store's [`default_ttl`](crate::Options::default_ttl).
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert!(db.put_if_absent("leader", "a")?);
    /// assert!(!db.put_if_absent("leader", "b")?);
    /// assert_eq!(db.get("leader")?.unwrap(), "a");
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "setnx")]
    #[doc(alias = "insert")]
    pub fn put_if_absent(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.put_if_absent_opt(key, value, WriteOptions::new())
    }

    /// Stores a value under a key if the key is absent or expired, with options. Returns whether it
    /// did.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// // The winner holds the lease for a minute.
    /// let lease = WriteOptions::new().ttl(Duration::from_secs(60)).durable(true);
    /// assert!(db.put_if_absent_opt("leader", "a", lease)?);
    /// assert!(!db.put_if_absent_opt("leader", "b", lease)?);
    /// # db.close()
    /// # }
    /// ```
    pub fn put_if_absent_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        let (key, value) = (key.as_ref(), Some(value.as_ref()));
        self.inner.change_if(key, Expected::Value(None), value, options)
    }

    /// Replaces a key's value with the result of a closure, and returns the stored value.
    ///
    /// The closure gets `None` if the key is absent, and removes the key by returning `None`. It
    /// runs without any lock held. If the key has changed meanwhile, the closure runs again, at
    /// most a hundred times in all; the result of the last run is stored. A closure that changes
    /// this key itself conflicts with itself on every run, so the update fails.
    ///
    /// The key gets the store's [`default_ttl`](crate::Options::default_ttl), whatever its time to
    /// live was. To keep its time to live, use [`update_opt`](Self::update_opt) with
    /// [`keep_ttl`](WriteOptions::keep_ttl).
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) if the key was changed during each of a hundred runs; in that
    /// case nothing is stored. Also the errors of [`put`](Self::put) and
    /// [`get`](crate::Reader::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let next = |old: Option<&[u8]>| {
    ///     let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_be_bytes);
    ///     Some((old + 1).to_be_bytes())
    /// };
    /// db.update("hits", next)?;
    /// let hits = db.update("hits", next)?;
    /// assert_eq!(hits.as_deref(), Some(&2_u64.to_be_bytes()[..]));
    /// # db.close()
    /// # }
    /// ```
    pub fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<Value>> {
        self.update_opt(key, WriteOptions::new(), change)
    }

    /// Replaces a key's value with the result of a closure, with options, and returns the stored
    /// value. Otherwise like [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("account", "1")?;
    /// let durable = WriteOptions::new().durable(true);
    /// let stored = db.update_opt("account", durable, |old| old.map(|old| [old, b"0"].concat()))?;
    /// assert_eq!(stored.unwrap(), "10");
    /// # db.close()
    /// # }
    /// ```
    pub fn update_opt<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        options: WriteOptions,
        mut change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<Value>> {
        let (key, inner) = (key.as_ref(), &self.inner);
        inner.writer()?;
        for attempt in 0..ATTEMPTS {
            let (old, timestamp) = match inner.locate(key, &inner.pin())? {
                Some(stored) => (Some(inner.value(&stored)?), Some(stored.timestamp())),
                None => (None, None),
            };
            let new = change(old.as_deref());
            let new = new.as_ref().map(AsRef::as_ref);
            if inner.change_if(key, Expected::Unchanged(timestamp), new, options)? {
                return Ok(new.map(|new| Value::from(new.to_vec())));
            }
            back_off(attempt);
        }
        Err(Error::Conflict { attempts: ATTEMPTS })
    }
}

impl Inner {
    /// Changes one key if it is as expected. Returns whether it did. `None` as the value is a
    /// delete.
    pub(super) fn change_if(
        &self,
        key: &[u8],
        expected: Expected<'_>,
        value: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<bool> {
        self.writer()?;
        let draft = self.draft(self.keydir.hash(key), key, value, options)?;
        let condition = [Condition { key, expected }];
        let is_made = self.change_atomically(&condition, vec![draft], options, |_| Ok(true))?;
        if !is_made {
            self.pin().count_conflict();
        }
        Ok(is_made)
    }
}
