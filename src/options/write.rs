//! How one write is made.

use std::time::{Duration, SystemTime};

use crate::clock::micros_since_epoch;

/// How long a key that is put is to live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as the store's options say.
    #[default]
    OfStore,
    /// From the moment of the write on.
    For(Duration),
    /// To a time of day, in microseconds since the epoch.
    Until(u64),
}

/// Options of one write, for [`put_opt`](crate::Bitcask::put_opt) and its kin.
///
/// By default a key gets the store's [`default_ttl`](crate::Options::default_ttl), and the write is as
/// durable as the store's [`SyncPolicy`](crate::SyncPolicy) says.
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
#[must_use = "options write nothing by themselves"]
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

    /// Sets how long the key lives from the moment of the write; then it is absent. Counted in
    /// microseconds. A time that reaches the year 294,247, such as [`Duration::MAX`], is none: the key
    /// does not expire.
    ///
    /// Time goes on while the store is open, whatever is done to the system's clock, and follows that
    /// clock where it is set ahead. A key that has expired is absent at once; a merge gives its space
    /// back when that is certain, which takes a day after a clock has jumped ahead.
    ///
    /// Of `ttl` and [`expires_at`](Self::expires_at) the last one set counts.
    #[doc(alias = "setex")]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.lifetime = Lifetime::For(ttl);
        self
    }

    /// Sets the time of day from which on the key is absent, in whole microseconds. A time in the past
    /// writes a key that has expired already; one in the year 294,247 or later is none: the key does
    /// not expire.
    ///
    /// The store compares this time with its own, which never runs backwards, see [`ttl`](Self::ttl).
    /// If the system's clock was set back while the store is open, the key expires earlier than the
    /// system's clock shows.
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

    /// Sets whether a key that is there keeps the time to live that it has, or its lack of one. Default:
    /// `false`, every write sets the time to live anew.
    ///
    /// A key that is absent or expired gets the time to live that it gets without `keep_ttl`: that of
    /// [`ttl`](Self::ttl) or [`expires_at`](Self::expires_at), else the store's default. So `ttl` and
    /// `keep_ttl` together give a key a time to live when it is created, and no later write prolongs
    /// it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let minute = Duration::from_secs(60);
    /// // A request counts for a minute from the first one on.
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

    /// Sets whether this write returns only when it is durable, whatever the store's policy says.
    pub fn durable(mut self, yes: bool) -> Self {
        self.durable = Some(yes);
        self
    }

    /// Returns these options for one write of many, which has options of its own: its time to live
    /// is its own if it says anything of that.
    pub(crate) fn of_change(self, own: Self) -> Self {
        if own.keep_ttl || own.lifetime != Lifetime::OfStore { own } else { self }
    }
}
