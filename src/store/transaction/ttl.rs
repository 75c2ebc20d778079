//! What a transaction can read about a key besides its value: its expiry and its version.

use super::{Transaction, Write};
use crate::error::Result;
use crate::options::Lifetime;
use crate::store::point::ttl::{Expiry, Ttl};
use crate::store::point::version::Version;

impl Transaction {
    /// Returns when a key expires, or `None` if it is absent or expired. Applies to what this
    /// transaction has written, or else to what existed when it began.
    ///
    /// The remaining time counts from the beginning of the transaction. For the transaction's own
    /// writes, it is computed as if the transaction committed now.
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
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let hour = Duration::from_secs(3600);
    /// db.put_opt("session/1", "token", WriteOptions::new().ttl(hour))?;
    /// // Renames a key, which keeps its expiry.
    /// db.transaction(|tx| {
    ///     let (Some(value), Some(ttl)) = (tx.get("session/1")?, tx.ttl("session/1")?) else {
    ///         return Ok(());
    ///     };
    ///     let options = match ttl {
    ///         Ttl::In(left) => WriteOptions::new().ttl(left),
    ///         _ => WriteOptions::new(),
    ///     };
    ///     tx.put_opt("session/2", &value, options);
    ///     tx.delete("session/1");
    ///     Ok(())
    /// })?;
    /// assert!(matches!(db.ttl("session/2")?, Some(Ttl::In(left)) if left <= hour));
    /// # db.close()
    /// # }
    /// ```
    pub fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Ttl>> {
        let key = key.as_ref();
        match self.writes.get(key) {
            Some(Write { value: None, .. }) => Ok(None),
            Some(Write { options, .. }) if options.keep_ttl => {
                let kept = self.ttl_seen(key)?;
                Ok(kept.or_else(|| Some(self.ttl_of_put(options.lifetime))))
            }
            Some(Write { options, .. }) => Ok(Some(self.ttl_of_put(options.lifetime))),
            None if self.clearing.is_some() => Ok(None),
            None => self.ttl_seen(key),
        }
    }

    /// Returns at which time of day a key expires, or `None` if it is absent or expired. Applies to
    /// what this transaction has written, or else to what existed when it began.
    ///
    /// For a time to live that the transaction itself has set, it is computed as if the transaction
    /// committed now.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Expiry, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    /// db.transaction(|tx| {
    ///     tx.put_opt("offer", "half price", WriteOptions::new().expires_at(time));
    ///     assert_eq!(tx.expiry("offer")?, Some(Expiry::At(time)));
    ///     Ok(())
    /// })?;
    /// # db.close()
    /// # }
    /// ```
    pub fn expiry(&self, key: impl AsRef<[u8]>) -> Result<Option<Expiry>> {
        let key = key.as_ref();
        let of_put = |lifetime| Expiry::of(self.snapshot.view.inner.expiry(lifetime));
        match self.writes.get(key) {
            Some(Write { value: None, .. }) => Ok(None),
            Some(Write { options, .. }) if options.keep_ttl => {
                let kept = self.expiry_seen(key)?;
                Ok(kept.or_else(|| Some(of_put(options.lifetime))))
            }
            Some(Write { options, .. }) => Ok(Some(of_put(options.lifetime))),
            None if self.clearing.is_some() => Ok(None),
            None => self.expiry_seen(key),
        }
    }

    /// Returns the version that a key had when the transaction began, or `None` if it was absent or
    /// expired.
    ///
    /// The transaction's own writes are ignored here: they get their versions at the commit. The
    /// key counts as read.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// let seen = db.get_versioned("a")?.map(|(_, version)| version);
    /// // Later: changes `b` only if `a` has not changed.
    /// let is_made = db.transaction(|tx| {
    ///     let is_same = tx.version("a")? == seen;
    ///     if is_same {
    ///         tx.put("b", "3");
    ///     }
    ///     Ok(is_same)
    /// })?;
    /// assert!(is_made);
    /// # db.close()
    /// # }
    /// ```
    pub fn version(&self, key: impl AsRef<[u8]>) -> Result<Option<Version>> {
        let key = key.as_ref();
        let view = &self.snapshot.view;
        let guard = view.pin()?;
        let timestamp = view.seek(key, &guard)?.map(|stored| stored.timestamp());
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(timestamp.map(Version::new))
    }

    /// Returns when a key that existed at the beginning of the transaction expires.
    fn ttl_seen(&self, key: &[u8]) -> Result<Option<Ttl>> {
        let view = &self.snapshot.view;
        let guard = view.pin()?;
        let stored = view.seek(key, &guard)?;
        let found = stored.map(|stored| (view.ttl_of(&stored), stored.timestamp()));
        let (ttl, timestamp) = found.unzip();
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(ttl)
    }

    /// Returns the expiry of a key that existed at the beginning of the transaction.
    fn expiry_seen(&self, key: &[u8]) -> Result<Option<Expiry>> {
        let view = &self.snapshot.view;
        let guard = view.pin()?;
        let stored = view.seek(key, &guard)?;
        let found = stored.map(|stored| (Expiry::of(stored.expiry()), stored.timestamp()));
        let (expiry, timestamp) = found.unzip();
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(expiry)
    }

    /// Returns when a key put at the end of the transaction expires.
    fn ttl_of_put(&self, lifetime: Lifetime) -> Ttl {
        let inner = &self.snapshot.view.inner;
        Ttl::of(inner.expiry(lifetime), inner.clock.now())
    }
}
