//! The way of a get: keydir -> mapped entry -> check -> value.
//!
//! - A slot with a key's hash bits is the key's only if the entry says so. One that is another
//!   key's is so rare that it is checked to be no damage.
//! - The shard's lock is held while the slot is looked up, never while a value is copied or lent.

use std::sync::Arc;

use super::{Bitcask, Inner};
use crate::error::Result;
use crate::keydir::{Address, Found, KeyHash, Shard};
use crate::segment::{Place, Segment, StoredEntry};
use crate::value::Value;

/// A key's newest entry. It holds the segment, so it stays readable.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) expired: bool,
}

impl Located {
    pub(super) fn place(&self) -> Place {
        Place::new(self.segment.id(), self.offset)
    }

    fn entry(&self) -> Result<StoredEntry<'_>> {
        self.segment.entry(self.offset)
    }
}

impl Bitcask {
    /// Returns the value of a key, or `None` if the key is absent or expired.
    ///
    /// The value is lent from the mapped segment, without a copy; see [`Value`] for what holding
    /// it means. Costs a look-up and a read of the entry: a disk read if its page is not cached.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt) if the entry does not check.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.inner.get(key.as_ref())
    }

    /// Calls a closure with the value of a key, and returns what it makes of it; `None`, without a
    /// call, if the key is absent or expired.
    ///
    /// No lock is held meanwhile: the closure may use the store.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// assert_eq!(db.get_with("key", |value| value.len())?, Some(5));
    /// assert_eq!(db.get_with("other", |value| value.len())?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let Some(located) = self.inner.locate(key.as_ref())? else { return Ok(None) };
        let stored = located.entry()?;
        self.inner.check(&stored)?;
        Ok(Some(read(stored.entry().value())))
    }

    /// Replaces the content of a buffer by the value of a key, and says whether there is one; if
    /// not, the buffer is left empty.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the buffer is empty then.
    pub fn get_into(&self, key: impl AsRef<[u8]>, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        Ok(self.get_with(key, |value| buffer.extend_from_slice(value))?.is_some())
    }

    /// Returns whether a key is there and not expired, without a copy or a check of its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself can't be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.inner.locate(key.as_ref())?.is_some())
    }
}

impl Inner {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        match self.locate(key)? {
            Some(located) => self.value(&located).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the value of an entry, checked as the options say.
    pub(super) fn value(&self, located: &Located) -> Result<Value> {
        let stored = located.entry()?;
        self.check(&stored)?;
        Ok(stored.lend(stored.entry().value_range()))
    }

    /// Checks an entry that is read. Its checksum only if the options say so, but that its value is
    /// what its bytes are in any case.
    pub(super) fn check(&self, stored: &StoredEntry<'_>) -> Result<()> {
        if self.options.verify_reads { stored.check() } else { stored.understood() }
    }

    /// Returns the newest entry of a key that is not absent.
    pub(super) fn locate(&self, key: &[u8]) -> Result<Option<Located>> {
        let hash = self.keydir.hash(key);
        let shard = self.keydir.shard(hash);
        let found = shard.get(hash, |address| self.own(key, address))?;
        Ok(found.map(|(_, located)| located).filter(|located| !located.expired))
    }

    /// Looks a key up to change it, in its locked shard: expired entries too.
    pub(super) fn find(
        &self,
        shard: &Shard<'_>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Found<Located>> {
        shard.find(hash, |address| self.own(key, address))
    }

    /// Reads the entry that a slot names, and answers if it is the key's.
    fn own(&self, key: &[u8], address: Address) -> Result<Option<Located>> {
        let segment = self.segments.get(address.segment);
        let stored = segment.entry(address.offset)?;
        let entry = stored.entry();
        if entry.key() != key {
            // Another key with the same 76 bits, or the same key, damaged.
            stored.check()?;
            return Ok(None);
        }
        let (offset, size) = (address.offset, entry.header.entry_size());
        let expired = entry.header.expiry.is_some() && entry.header.is_expired(self.clock.now());
        if expired {
            // Nobody looks at the value of an absent key, and a damaged expiry must not hide it.
            self.check(&stored)?;
        }
        drop(stored);
        Ok(Some(Located { segment, offset, size, expired }))
    }
}
