//! Reading the value of a key, and what belongs to it, at a snapshot's moment.

use super::{Snapshot, View};
use crate::epoch::Guard;
use crate::error::Result;
use crate::segment::StoredEntry;
use crate::store::point::ttl::{Expiry, Ttl};
use crate::store::point::version::Version;
use crate::value::Value;

impl Snapshot {
    /// Returns the value of a key at the snapshot's moment, or `None` if the key was absent or
    /// expired.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let (view, guard) = (&self.view, self.view.pin()?);
        Ok(view.get(key.as_ref(), &guard)?.map(|(_, value)| value))
    }

    /// Calls a closure with the value of a key at the snapshot's moment, and returns the closure's
    /// result. If the key was absent or expired, returns `None` without calling the closure. See
    /// [`Reader::get_with`](crate::Reader::get_with).
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get).
    pub fn get_with<T>(
        &self,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        let (view, guard) = (&self.view, self.view.pin()?);
        let reading = guard.read();
        let stored = view.lookup(key.as_ref(), &guard)?;
        view.inner.lend(reading, stored.as_ref(), read)
    }

    /// Replaces the contents of a buffer with the value of a key at the snapshot's moment. Returns
    /// whether the key existed then; if not, the buffer is left empty.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get); the buffer is left empty.
    pub fn get_into(&self, key: impl AsRef<[u8]>, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        Ok(self.get_with(key, |value| buffer.extend_from_slice(value))?.is_some())
    }

    /// Returns the value of a key at the snapshot's moment and the version that the key had then,
    /// or `None` if the key was absent or expired; see
    /// [`Reader::get_versioned`](crate::Reader::get_versioned).
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "old")?;
    /// let snapshot = db.snapshot();
    /// // Replaces what the snapshot shows, unless the key has changed since.
    /// let (value, version) = snapshot.get_versioned("key")?.expect("it was just put");
    /// let new = [&value[..], b"er"].concat();
    /// assert!(db.compare_and_swap_versioned("key", Some(version), Some(&new))?.is_ok());
    /// # drop(snapshot);
    /// # db.close()
    /// # }
    /// ```
    pub fn get_versioned(&self, key: impl AsRef<[u8]>) -> Result<Option<(Value, Version)>> {
        let (view, guard) = (&self.view, self.view.pin()?);
        let found = view.get(key.as_ref(), &guard)?;
        Ok(found.map(|(stored, value)| (value, Version::of(&stored))))
    }

    /// Returns when a key expires, or `None` if it was absent or expired at the snapshot's moment.
    /// The remaining time counts from that moment.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let hour = Duration::from_secs(3600);
    /// db.put_opt("session", "token", WriteOptions::new().ttl(hour))?;
    /// let snapshot = db.snapshot();
    /// db.persist("session")?;
    /// assert!(matches!(snapshot.ttl("session")?, Some(Ttl::In(left)) if left <= hour));
    /// # drop(snapshot);
    /// # db.close()
    /// # }
    /// ```
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>> {
        let guard = self.view.pin()?;
        Ok(self.view.seek(key.as_ref(), &guard)?.map(|stored| self.view.ttl_of(&stored)))
    }

    /// Returns at which time of day a key expires, as it was at the snapshot's moment. Returns
    /// `None` if the key was absent or expired. See [`Reader::expiry`](crate::Reader::expiry).
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    pub fn expiry(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>> {
        let guard = self.view.pin()?;
        Ok(self.view.seek(key.as_ref(), &guard)?.map(|stored| Expiry::of(stored.expiry())))
    }

    /// Returns the values of several keys at the snapshot's moment, in the order of the keys;
    /// `None` for each key that was absent or expired.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), for the first key that cannot be read.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Calls a closure with the index of each key and its value at the snapshot's moment, in the
    /// order of the keys; with `None` if the key was absent or expired.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), for the first key that cannot be read. The closure
    /// was called for the keys before it.
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut read: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        for (at, key) in keys.iter().enumerate() {
            if self.get_with(key, |value| read(at, Some(value)))?.is_none() {
                read(at, None);
            }
        }
        Ok(())
    }

    /// Returns the size in bytes of a key's value at the snapshot's moment, without reading the
    /// value; see [`Reader::value_len`](crate::Reader::value_len).
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    pub fn value_len(&self, key: impl AsRef<[u8]>) -> Result<Option<u64>> {
        let guard = self.view.pin()?;
        let stored = self.view.seek(key.as_ref(), &guard)?;
        Ok(stored.map(|stored| stored.raw_size().into()))
    }

    /// Returns whether a key existed and had not expired, without copying or verifying its value.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.view.seek(key.as_ref(), &self.view.pin()?)?.is_some())
    }
}

impl View {
    /// Returns the entry and the value of a key in this view, as a get that counts.
    pub(in crate::store) fn get<'a>(
        &'a self,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<(StoredEntry<'a>, Value)>> {
        let reading = guard.read();
        let Some(stored) = self.lookup(key, guard)? else {
            reading.miss();
            return Ok(None);
        };
        let value = self.inner.value(&stored)?;
        reading.hit(stored.raw_size());
        Ok(Some((stored, value)))
    }

    /// Returns the entry of a key in this view, as a get that counts.
    pub(in crate::store) fn seek<'a>(
        &'a self,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        let reading = guard.read();
        let stored = self.lookup(key, guard)?;
        reading.seen(stored.is_some());
        Ok(stored)
    }

    /// Returns how long the key of an entry had to live at this moment.
    pub(in crate::store) fn ttl_of(&self, stored: &StoredEntry<'_>) -> Ttl {
        Ttl::of(stored.expiry(), self.now.of(stored.timestamp()))
    }
}
