//! What is known of a key without its value: when it expires, and how large the value is; and
//! changes of the expiry alone.
//!
//! - Expiry and size are read from the entry's header, which is not checked: its checksum covers the
//!   value too.
//! - Nothing is rewritten in place: a change of the expiry appends the entry again, with its value as
//!   it is stored. The old entry is checked first: damage must not get a fresh checksum, nor the end
//!   of the log a value that this build can't read.

use std::time::Duration;

use super::conditional::{Condition, Expected};
use super::update::ATTEMPTS;
use crate::entry::Header;
use crate::error::{Error, Result};
use crate::options::WriteOptions;
use crate::segment::write::draft::Draft;
use crate::store::transaction::give_way;
use crate::store::{Bitcask, Inner, Reader};
use crate::value::Value;

/// How long a key lives, as [`Reader::ttl`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ttl {
    /// It does not expire.
    Never,
    /// It expires in so much time, more than none.
    In(Duration),
}

impl Ttl {
    /// Returns what is left at a time until an expiry that has not come yet.
    pub(crate) fn of(expiry: Option<u64>, now: u64) -> Self {
        expiry.map_or(Self::Never, |expiry| {
            Self::In(Duration::from_micros(expiry.saturating_sub(now).max(1)))
        })
    }
}

impl Reader {
    /// Returns when a key expires, or `None` if the key is absent or expired.
    ///
    /// The time that is left never grows by itself while the store is open, even if the system's clock is set
    /// back; it goes on from where it was.
    ///
    /// Costs what [`contains_key`](Self::contains_key) does: the value is neither copied nor
    /// checked.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if the key itself can't be read.
    ///
    /// ```
    /// # use std::time::Duration;
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
        let guard = self.inner.pin();
        let stored = self.inner.locate(key.as_ref(), &guard)?;
        // It may expire between the two looks at the clock, but it was there at the first.
        Ok(stored.map(|stored| {
            let expiry = stored.expiry();
            let now = expiry.map_or(0, |_| self.inner.clock.read().of(stored.timestamp()));
            Ttl::of(expiry, now)
        }))
    }
}

impl Bitcask {
    /// Lets a key that is there expire in `ttl` from now, whatever its time to live was; says
    /// whether it is there.
    ///
    /// A key that anybody in this process has found expired is not there any more, however little time
    /// has passed. A process that only reads the store may find it expired until it is told of this
    /// change by a [`refresh`](crate::ReadOnly::refresh).
    ///
    /// Appends the entry again, with its value as it is stored: costs what a put of it does.
    /// Durable as the store's [`SyncPolicy`](crate::SyncPolicy) says.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and as [`get`](crate::Reader::get); the entry is checked in any case.
    /// [`Conflict`](Error::Conflict) if others have changed the key during each of a hundred attempts.
    ///
    /// ```
    /// # use std::time::Duration;
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

    /// Lets a key that is there live until it is deleted, whatever its time to live was; says
    /// whether it is there.
    ///
    /// Nothing is written for a key that does not expire; else as [`expire`](Self::expire).
    ///
    /// # Errors
    ///
    /// As [`expire`](Self::expire).
    ///
    /// ```
    /// # use std::time::Duration;
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
    /// Appends a key's entry again with another expiry, if the key is there; says whether it is.
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
            give_way(attempt);
        }
        Err(Error::Conflict { attempts: ATTEMPTS })
    }

    /// Returns a key's entry as it is stored, checked, and without a guard: none may be held while
    /// a sync is waited for.
    fn stored(&self, key: &[u8]) -> Result<Option<(Header, Value)>> {
        let guard = self.pin();
        let Some(stored) = self.locate(key, &guard)? else { return Ok(None) };
        stored.check()?;
        Ok(Some((stored.entry().header, stored.lend_value())))
    }
}
