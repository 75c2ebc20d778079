//! Options of one write.

use std::time::{Duration, SystemTime};

use crate::clock::micros_since_epoch;

/// How long a newly put key lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as the store's options set.
    #[default]
    OfStore,
    /// For a duration from the write.
    For(Duration),
    /// Until a time of day, in microseconds since the epoch.
    Until(u64),
}

/// Options of one write, for [`put_opt`](crate::Bitcask::put_opt) and similar methods.
///
/// By default, a key gets the store's [`default_ttl`](crate::Options::default_ttl), and the write
/// is as durable as the store's [`SyncPolicy`](crate::SyncPolicy) makes it.
///
/// ```
/// use std::time::Duration;
/// use bitcask::{Bitcask, Options, WriteOptions};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = Bitcask::open(dir.path(), Options::default())?;
/// let hour = Duration::from_secs(3600);
/// db.put_opt("session", "token", WriteOptions::new().ttl(hour).durable(true))?;
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options do nothing until they are passed to a write"]
pub struct WriteOptions {
    pub(crate) lifetime: Lifetime,
    pub(crate) keep_ttl: bool,
    pub(crate) durable: Option<bool>,
}

impl WriteOptions {
    /// Returns the defaults: the store's TTL and the store's sync policy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the key lives from the moment of the write, in whole microseconds. After that,
    /// the key is absent. A duration that reaches the year 294,247, such as [`Duration::MAX`],
    /// means that the key does not expire.
    ///
    /// While the store is open, its time keeps advancing even if the system clock is set back, and
    /// it follows the system clock when that is set ahead. An expired key is absent immediately. A
    /// merge reclaims its space once the expiry is certain, which takes a day after the clock has
    /// jumped ahead.
    ///
    /// If both `ttl` and [`expires_at`](Self::expires_at) are set, the last one counts.
    #[doc(alias = "setex")]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetime = Lifetime::For(ttl);
        self
    }

    /// Sets the time of day from which the key is absent, in whole microseconds. A time in the past
    /// writes a key that has already expired. A time in the year 294,247 or later means that the
    /// key does not expire.
    ///
    /// The store compares this time with its own clock, which never runs backwards, see
    /// [`ttl`](Self::ttl). If the system clock is set back while the store is open, the key expires
    /// before the system clock shows that time.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let midnight = SystemTime::now() + Duration::from_secs(3600);
    /// db.put_opt("offer", "half price", WriteOptions::new().expires_at(midnight))?;
    /// assert!(db.contains_key("offer")?);
    /// db.put_opt("offer", "over", WriteOptions::new().expires_at(SystemTime::UNIX_EPOCH))?;
    /// assert!(!db.contains_key("offer")?);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "expireat")]
    pub fn expires_at(mut self, time: SystemTime) -> Self {
        self.lifetime = Lifetime::Until(micros_since_epoch(time));
        self
    }

    /// Sets whether an existing key keeps its time to live, or its lack of one. Default: `false`,
    /// every write sets a new time to live.
    ///
    /// A key that is absent or expired gets the time to live that it would get without `keep_ttl`:
    /// the one set by [`ttl`](Self::ttl) or [`expires_at`](Self::expires_at), or the store's
    /// default. If the same batch or transaction has already changed the key, the time to live of
    /// that change is kept. So `ttl` and `keep_ttl` together set a time to live when the key is
    /// created, and later writes do not extend it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let minute = Duration::from_secs(60);
    /// // The counter expires a minute after the first request.
    /// let window = WriteOptions::new().ttl(minute).keep_ttl(true);
    /// let add = |old: Option<&[u8]>| Some([old.map_or(0, |old| old[0]) + 1]);
    /// db.update_opt("requests/ann", window, add)?;
    /// let count = db.update_opt("requests/ann", window, add)?;
    /// assert_eq!(count.unwrap(), [2]);
    /// assert!(matches!(db.ttl("requests/ann")?, Some(Ttl::In(left)) if left <= minute));
    /// # db.close()
    /// # }
    /// ```
    pub fn keep_ttl(mut self, yes: bool) -> Self {
        self.keep_ttl = yes;
        self
    }

    /// Sets whether this write returns only once it is durable, whatever the store's policy.
    pub fn durable(mut self, yes: bool) -> Self {
        self.durable = Some(yes);
        self
    }

    /// Returns the options for one change of a batch: those of `own`, or these where `own` sets
    /// nothing.
    pub(crate) fn of_change(self, own: Self) -> Self {
        if own.lifetime != Lifetime::OfStore {
            return own;
        }
        Self { keep_ttl: own.keep_ttl || self.keep_ttl, ..self }
    }

    /// Returns the options for a change that follows another one of the same key in a batch or a
    /// transaction. `keep_ttl` then keeps the time to live of the earlier change.
    pub(crate) fn following(self, earlier: Self, earlier_is_put: bool) -> Self {
        let durable = if earlier.durable == Some(true) { earlier.durable } else { self.durable };
        match (self.keep_ttl, earlier_is_put) {
            (true, true) => Self { durable, ..earlier },
            (true, false) => Self { durable, keep_ttl: false, ..self },
            (false, _) => Self { durable, ..self },
        }
    }
}
