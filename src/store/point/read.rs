//! Reading values: verify the entry -> return its value. `lookup` finds the entry.

use super::plain::Plain;
use crate::counters::CountedGet;
use crate::epoch::Guard;
use crate::error::Result;
use crate::segment::StoredEntry;
use crate::store::{Inner, Reader};
use crate::value::Value;

impl Reader {
    /// Returns the value of a key, or `None` if the key is absent or expired.
    ///
    /// Lends the value from the mapped segment, without a copy; see [`Value`] for what holding one
    /// entails. Costs a lookup and a read of the entry, which is a disk read if its page is not
    /// cached. A compressed value is decompressed into newly allocated memory. `get` takes no lock
    /// unless it finds the key expired: then it looks again under the lock of a small part of the
    /// keys, where it may wait for a writer. It also waits for a [`clear`](crate::Bitcask::clear).
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::Error::Corrupt) if the entry fails verification;
    /// [`UnsupportedCodec`](crate::Error::UnsupportedCodec) if this build lacks the codec that
    /// compressed the value.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.inner.get(key.as_ref())
    }

    /// Calls a closure with the value of a key, and returns the closure's result. If the key is
    /// absent or expired, returns `None` without calling the closure.
    ///
    /// This is the fastest way to read. If the value is mapped, it needs no allocation and no
    /// system call; if the value is compressed, it needs one allocation. It takes locks where
    /// [`get`](Self::get) does. No lock is held while the closure runs, so the closure may use this
    /// store or any other. Occasionally, a read also frees memory that writers have replaced.
    ///
    /// While the closure runs, this store cannot free what it replaces: the disk space and memory
    /// of each segment that a merge or a [`clear`](crate::Bitcask::clear) removes, and each part of
    /// the keydir that grows, shrinks or is swept, at most about 150 bytes for each key that is put
    /// or deleted. Elapsed time alone adds nothing, and other stores are not affected.
    /// [`Stats::retired_segments`](crate::Stats) and `oldest_retired` reveal closures that do not
    /// return.
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
        let key = key.as_ref();
        {
            let guard = self.inner.pin();
            match self.inner.find_plain(key, &guard) {
                Plain::Found { entry, .. } => return Ok(Some(read(entry.value()))),
                Plain::Absent => return Ok(None),
                Plain::Unusual => {}
            }
        }
        self.inner.lend_unusual(key, read)
    }

    /// Replaces the contents of a buffer with the value of a key. Returns whether the key exists;
    /// if not, the buffer is left empty.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the buffer is left empty.
    pub fn get_into(&self, key: impl AsRef<[u8]>, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        Ok(self.get_with(key, |value| buffer.extend_from_slice(value))?.is_some())
    }

    /// Returns whether a key exists and has not expired, without copying or verifying its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself cannot be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.look(key.as_ref(), |_| ())?.is_some())
    }

    /// Returns the size in bytes of a key's value as it was put, or `None` if the key is absent or
    /// expired.
    ///
    /// The cost is that of [`contains_key`](Self::contains_key): the value is neither copied, nor
    /// verified, nor decompressed.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself cannot be read.
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
        self.look(key.as_ref(), |stored| stored.raw_size().into())
    }

    /// Reads the header of a key's entry, without its value. Returns `None` if the key is absent or
    /// expired.
    #[inline]
    pub(crate) fn look<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&StoredEntry<'_>) -> T,
    ) -> Result<Option<T>> {
        let guard = self.inner.pin();
        let reading = guard.read();
        let stored = self.inner.locate(key, &guard)?;
        reading.seen(stored.is_some());
        Ok(stored.as_ref().map(read))
    }
}

impl Inner {
    /// Pins the published slots and segments for reading.
    #[inline]
    pub(crate) fn pin(&self) -> Guard<'_> {
        self.keydir.pin()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        {
            let guard = self.pin();
            match self.find_plain(key, &guard) {
                Plain::Found { segment, offset, entry } => {
                    return Ok(Some(segment.lend_value(offset, entry)));
                }
                Plain::Absent => return Ok(None),
                Plain::Unusual => {}
            }
        }
        self.get_unusual(key)
    }

    /// A get of any value.
    #[cold]
    #[inline(never)]
    pub(crate) fn get_unusual(&self, key: &[u8]) -> Result<Option<Value>> {
        let guard = self.pin();
        let reading = guard.read();
        let Some(stored) = self.locate(key, &guard)? else {
            reading.miss();
            return Ok(None);
        };
        let value = self.value(&stored)?;
        reading.hit(stored.raw_size());
        Ok(Some(value))
    }

    /// A get of any value, which is lent.
    #[cold]
    #[inline(never)]
    pub(crate) fn lend_unusual<T>(
        &self,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let guard = self.pin();
        let reading = guard.read();
        let stored = self.locate(key, &guard)?;
        self.lend(reading, stored.as_ref(), read)
    }

    /// Ends a get that has found this entry: counts it, and passes the verified value to a closure.
    #[inline]
    pub(crate) fn lend<T>(
        &self,
        reading: CountedGet<'_>,
        found: Option<&StoredEntry<'_>>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let Some(stored) = found else {
            reading.miss();
            return Ok(None);
        };
        self.check(stored)?;
        let value = stored.raw_value()?;
        reading.hit(stored.raw_size());
        Ok(Some(read(&value)))
    }

    /// Returns the value of an entry, verified according to the options.
    #[inline]
    pub(crate) fn value(&self, stored: &StoredEntry<'_>) -> Result<Value> {
        self.check(stored)?;
        stored.lend_raw_value()
    }

    /// Verifies an entry that is read: its checksum only if the options say so, but always that the
    /// value can be decoded.
    #[inline]
    pub(crate) fn check(&self, stored: &StoredEntry<'_>) -> Result<()> {
        if self.options.verify_reads { stored.check() } else { stored.understood() }
    }
}
