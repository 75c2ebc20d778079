//! Versions of keys. A version is the timestamp of an entry: no two entries of a log have the same
//! timestamp, and a merge preserves it.

use std::fmt;

use crate::error::Result;
use crate::segment::StoredEntry;
use crate::store::Reader;
#[cfg(feature = "server")]
use crate::value::Admitted;
use crate::value::Value;

/// Identifies the change that gave a key its current state, from [`Reader::get_versioned`].
///
/// Every change gets its own version, higher than those of all earlier changes in the store. A
/// version fits in 64 bits and stays valid after the store is closed and reopened. The number
/// itself has no further meaning.
///
/// If a crash loses changes that were not durable, later changes may get their versions again. To
/// keep a version across crashes, make the change durable first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    pub(crate) fn new(timestamp: u64) -> Self {
        Self(timestamp)
    }

    pub(crate) fn of(stored: &StoredEntry<'_>) -> Self {
        Self(stored.timestamp())
    }

    pub(crate) fn timestamp(self) -> u64 {
        self.0
    }
}

impl From<Version> for u64 {
    fn from(version: Version) -> Self {
        version.0
    }
}

/// Converts a number obtained from a version back into that version. Any other number is the
/// version of no key.
impl From<u64> for Version {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Reader {
    /// Returns the value of a key and the key's version, or `None` if the key is absent or expired.
    ///
    /// Every write of the key changes its version: by `put`, [`expire`](crate::Bitcask::expire) and
    /// [`persist`](crate::Bitcask::persist), batches and transactions. A merge, a backup or
    /// reopening preserves it. The cost is that of [`get`](Self::get).
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
    /// let (value, first) = db.get_versioned("key")?.expect("it was just put");
    /// assert_eq!(value, "value");
    /// db.put("key", "value")?;
    /// let (_, second) = db.get_versioned("key")?.expect("it was just put");
    /// assert!(first < second);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "gets")]
    pub fn get_versioned(&self, key: impl AsRef<[u8]>) -> Result<Option<(Value, Version)>> {
        Ok(match self.get_versioned_up_to(key.as_ref(), u32::MAX)? {
            BoundedGet::Found(value, version) => Some((value, version)),
            // No value is larger than this.
            BoundedGet::Absent | BoundedGet::Larger => None,
        })
    }

    /// Like [`get_versioned`](Self::get_versioned), but waits for a change of the key that others
    /// make at this moment. Whoever sees a part of a batch before this sees all of it afterwards,
    /// if the key is in the batch: it is published while the shards of all its keys are locked.
    #[cfg(feature = "resp")]
    pub(crate) fn get_settled(&self, key: &[u8]) -> Result<Option<(Value, Version)>> {
        let guard = self.inner.pin();
        let reading = guard.read();
        let hash = self.inner.keydir.hash(key);
        let Some(stored) = self.inner.locate_locked(hash, key, &guard)? else {
            reading.miss();
            return Ok(None);
        };
        let value = self.inner.value(&stored)?;
        reading.hit(stored.raw_size());
        Ok(Some((value, Version::of(&stored))))
    }

    /// Like [`get_versioned`](Self::get_versioned), but does not touch a value that is larger than
    /// this: to verify one takes as long as to read it.
    pub(crate) fn get_versioned_up_to(&self, key: &[u8], size_max: u32) -> Result<BoundedGet> {
        let guard = self.inner.pin();
        let reading = guard.read();
        let Some(stored) = self.inner.locate(key, &guard)? else {
            reading.miss();
            return Ok(BoundedGet::Absent);
        };
        if stored.raw_size() > size_max {
            return Ok(BoundedGet::Larger);
        }
        let value = self.inner.value(&stored)?;
        reading.hit(stored.raw_size());
        Ok(BoundedGet::Found(value, Version::of(&stored)))
    }
}

#[cfg(feature = "server")]
impl Reader {
    /// Like [`get_versioned`](Self::get_versioned), but `admits` is asked whether memory of a size
    /// may be taken, before a compressed value is read.
    pub(crate) fn get_admitted(
        &self,
        key: &[u8],
        admits: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(Admitted, Version)>> {
        let guard = self.inner.pin();
        let reading = guard.read();
        let Some(stored) = self.inner.locate(key, &guard)? else {
            reading.miss();
            return Ok(None);
        };
        let (size, version) = (u64::from(stored.raw_size()), Version::of(&stored));
        if stored.layout.flags.codec() != 0 && !admits(size) {
            return Ok(Some((Admitted::Size(size), version)));
        }
        let value = self.inner.value(&stored)?;
        reading.hit(stored.raw_size());
        Ok(Some((Admitted::Value(value), version)))
    }
}

/// What a get of a value up to a size has found.
#[derive(Debug)]
pub(crate) enum BoundedGet {
    Absent,
    Larger,
    Found(Value, Version),
}
