//! What a get makes of a key's entry: check -> value. How the entry is found is in `lookup`.

use crate::epoch::Guard;
use crate::error::Result;
use crate::segment::StoredEntry;
use crate::store::{Inner, Reader};
use crate::value::Value;

impl Reader {
    /// Returns the value of a key, or `None` if the key is absent or expired.
    ///
    /// The value is lent from the mapped segment, without a copy; see [`Value`] for what holding
    /// it means. Costs a look-up and a read of the entry: a disk read if its page is not cached.
    /// A value that was stored compressed is decompressed into memory of its own. A get takes no lock,
    /// unless it finds the key expired: then it looks again under the lock of a small part of the keys,
    /// and may wait there for a writer.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt) if the entry does not check;
    /// [`UnsupportedCodec`](crate::Error::UnsupportedCodec) if its value is compressed with a codec that
    /// this build lacks.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.inner.get(key.as_ref())
    }

    /// Calls a closure with the value of a key, and returns what it makes of it; `None`, without a
    /// call, if the key is absent or expired.
    ///
    /// The fastest way to read: no lock, no allocation, no system call if the value is mapped; one
    /// allocation if it is stored compressed. No lock is held while the closure runs, so it may use
    /// the store, and any other one. Now and then a get is the one that gives memory back to the system
    /// that writers have replaced.
    ///
    /// While the closure runs, this store keeps what it replaces: the disk space and the memory of each
    /// segment that a merge or a [`clear`](crate::Bitcask::clear) removes, and each part of the keydir that grows,
    /// shrinks or is swept, at most about 150 bytes for each key that is put or deleted. Nothing is added
    /// by time alone, and other stores keep nothing. [`Stats::retired_segments`](crate::Stats) and
    /// `oldest_retired` tell of closures that do not return.
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
        let guard = self.inner.pin();
        let Some(stored) = self.inner.locate(key.as_ref(), &guard)? else { return Ok(None) };
        self.inner.check(&stored)?;
        Ok(Some(read(&stored.raw_value()?)))
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
        Ok(self.inner.locate(key.as_ref(), &self.inner.pin())?.is_some())
    }

    /// Returns the number of bytes of a key's value as it was put, or `None` if the key is absent
    /// or expired.
    ///
    /// Costs what [`contains_key`](Self::contains_key) does: the value is neither copied, nor
    /// checked, nor decompressed.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself can't be read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("page", "a".repeat(4000))?;
    /// assert_eq!(db.value_len("page")?, Some(4000));
    /// assert_eq!(db.value_len("other")?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn value_len(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        let guard = self.inner.pin();
        let stored = self.inner.locate(key.as_ref(), &guard)?;
        Ok(stored.map(|stored| stored.raw_size().into()))
    }
}

impl Inner {
    /// Keeps what is published as it is, for who reads it.
    #[inline]
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.keydir.pin()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let guard = self.pin();
        let stored = self.locate(key, &guard)?;
        stored.map(|stored| self.value(&stored)).transpose()
    }

    /// Returns the value of an entry, checked as the options say.
    #[inline]
    pub(crate) fn value(&self, stored: &StoredEntry<'_>) -> Result<Value> {
        self.check(stored)?;
        stored.lend_raw_value()
    }

    /// Checks an entry that is read. Its checksum only if the options say so, but that its value is
    /// what its bytes are in any case.
    pub(crate) fn check(&self, stored: &StoredEntry<'_>) -> Result<()> {
        if self.options.verify_reads { stored.check() } else { stored.understood() }
    }
}
