//! Metadata of keys: when a key expires and how large its value is. Also changes of the expiry
//! alone.
//!
//! - Expiry and size are read from the entry's header without verification, since the checksum
//!   covers the value too.
//! - Nothing is rewritten in place: a change of the expiry appends the entry again, with its value
//!   as stored. The old entry is verified first, so that damage does not get a fresh checksum, and
//!   a value that this build cannot read does not get to the end of the log.

use std::time::{Duration, SystemTime};

use super::conditional::{Condition, Expected};
use super::update::ATTEMPTS;
use crate::clock::system_time;
use crate::entry::Header;
use crate::error::{Error, Result};
use crate::options::WriteOptions;
use crate::segment::StoredEntry;
use crate::segment::write::draft::Draft;
use crate::store::transaction::back_off;
use crate::store::{Bitcask, Inner, Reader};
use crate::value::Value;

/// The remaining time to live of a key, from [`Reader::ttl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ttl {
    /// The key does not expire.
    Never,
    /// The key expires after this duration, which is never zero.
    In(Duration),
}

impl Ttl {
    /// Returns the time left at `now` until an expiry that has not passed yet.
    pub(crate) fn of(expiry: Option<u64>, now: u64) -> Self {
        expiry.map_or(Self::Never, |expiry| {
            Self::In(Duration::from_micros(expiry.saturating_sub(now).max(1)))
        })
    }
}

/// When a key expires, from [`Reader::expiry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// The key does not expire.
    Never,
    /// The key expires at this time of the store's clock.
    At(SystemTime),
}

impl Expiry {
    /// Returns the expiry of an entry.
    pub(crate) fn of(expiry: Option<u64>) -> Self {
        expiry.map_or(Self::Never, |expiry| Self::At(system_time(expiry)))
    }
}

impl Reader {
    /// Returns at which time of day a key expires, or `None` if the key is absent or expired.
    ///
    /// The time is the one that is stored, to the microsecond. A key that is put again with
    /// [`WriteOptions::expires_at`] and this time has the same expiry. The store's clock decides
    /// when the time has come, see [`WriteOptions::ttl`]; [`ttl`](Self::ttl) returns what is left
    /// by that clock.
    ///
    /// The cost is that of [`contains_key`](Self::contains_key).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself cannot be read.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Expiry, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    /// db.put_opt("offer", "half price", WriteOptions::new().expires_at(time))?;
    /// db.put("config", "a")?;
    /// assert_eq!(db.expiry("offer")?, Some(Expiry::At(time)));
    /// assert_eq!(db.expiry("config")?, Some(Expiry::Never));
    /// assert_eq!(db.expiry("other")?, None);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "expiretime")]
    pub fn expiry(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>> {
        self.look(key.as_ref(), |stored| Expiry::of(stored.expiry()))
    }

    /// Returns when a key expires, or `None` if the key is absent or expired.
    ///
    /// While the store is open, the remaining time never grows by itself, even if the system clock
    /// is set back: it continues from where it was.
    ///
    /// The cost is that of [`contains_key`](Self::contains_key): the value is neither copied nor
    /// verified.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself cannot be read.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let hour = Duration::from_secs(3600);
    /// db.put("config", "a")?;
    /// db.put_opt("session", "b", WriteOptions::new().ttl(hour))?;
    /// assert_eq!(db.ttl("config")?, Some(Ttl::Never));
    /// assert!(matches!(db.ttl("session")?, Some(Ttl::In(left)) if left <= hour));
    /// assert_eq!(db.ttl("other")?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>> {
        self.look(key.as_ref(), |stored| self.ttl_of(stored))
    }

    /// Returns the time left of an entry that `look` has found.
    pub(crate) fn ttl_of(&self, stored: &StoredEntry<'_>) -> Ttl {
        // The key may expire between the two readings of the clock, but it existed at the first.
        let expiry = stored.expiry();
        let now = expiry.map_or(0, |_| self.inner.clock.read().of(stored.timestamp()));
        Ttl::of(expiry, now)
    }
}

impl Bitcask {
    /// Sets an existing key to expire `ttl` from now, whatever its time to live was. Returns
    /// whether the key exists.
    ///
    /// Once any caller in this process has found the key expired, it no longer exists, however
    /// little time has passed. A process that has the store open read-only may find the key expired
    /// until it learns of this change through a [`refresh`](crate::ReadOnly::refresh).
    ///
    /// Appends the entry again, with its value as stored, so it costs as much as a put. Durability
    /// follows the store's [`SyncPolicy`](crate::SyncPolicy).
    ///
    /// # Errors
    ///
    /// The errors of [`put`](Self::put) and [`get`](crate::Reader::get); the entry is always
    /// verified. [`Conflict`](Error::Conflict) if others have changed the key during each of a
    /// hundred attempts.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("session", "token")?;
    /// assert!(db.expire("session", Duration::from_secs(3600))?);
    /// assert!(db.expire("session", Duration::ZERO)?);
    /// assert_eq!(db.get("session")?, None);
    /// assert!(!db.expire("session", Duration::from_secs(3600))?);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "set_ttl")]
    pub fn expire(&self, key: impl AsRef<[u8]>, ttl: Duration) -> Result<bool> {
        self.inner.set_ttl(key.as_ref(), Some(ttl))
    }

    /// Makes an existing key live until it is deleted, whatever its time to live was. Returns
    /// whether the key exists.
    ///
    /// If the key does not expire, nothing is written. Otherwise like [`expire`](Self::expire).
    ///
    /// # Errors
    ///
    /// As [`expire`](Self::expire).
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put_opt("draft", "text", WriteOptions::new().ttl(Duration::from_secs(3600)))?;
    /// assert!(db.persist("draft")?);
    /// assert_eq!(db.ttl("draft")?, Some(Ttl::Never));
    /// assert!(!db.persist("other")?);
    /// # db.close()
    /// # }
    /// ```
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.set_ttl(key.as_ref(), None)
    }
}

impl Inner {
    /// Appends a key's entry again with another expiry, if the key exists. Returns whether it does.
    fn set_ttl(&self, key: &[u8], ttl: Option<Duration>) -> Result<bool> {
        self.writer()?;
        for attempt in 0..ATTEMPTS {
            let Some((header, value)) = self.stored(key)? else { return Ok(false) };
            let expiry = ttl.and_then(|ttl| self.clock.after(ttl));
            let needless = expiry.is_none() && header.expiry.is_none();
            let drafts = if needless {
                Vec::new()
            } else {
                vec![Draft::again(&header, key, &value, expiry)]
            };
            let expected = Expected::Unchanged(Some(header.timestamp));
            let condition = [Condition { key, expected }];
            if self.change_atomically(&condition, drafts, WriteOptions::new(), |_| Ok(true))? {
                return Ok(true);
            }
            self.pin().count_conflict();
            back_off(attempt);
        }
        Err(Error::Conflict { attempts: ATTEMPTS })
    }

    /// Returns a key's entry as stored, verified. Does not return a guard: none may be held during
    /// a sync.
    fn stored(&self, key: &[u8]) -> Result<Option<(Header, Value)>> {
        let guard = self.pin();
        let Some(stored) = self.locate(key, &guard)? else { return Ok(None) };
        stored.check()?;
        Ok(Some((stored.header()?, stored.lend_value())))
    }
}
