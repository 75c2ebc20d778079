//! The session store: which calls of the store it makes, and on which threads.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bitcask::{Bitcask, WriteOptions};
use tokio::task::spawn_blocking;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};

use crate::encoding::{decode, encode, key};

/// How many ids [`create`](SessionStore::create) tries. Two random ids of 128 bits are hardly ever
/// the same, so even the second attempt hints at a source of random numbers that is none.
const IDS_MAX: usize = 16;

/// A session store in a [`Bitcask`].
///
/// Clones share the store. It may hold other keys too, under other prefixes, and the program may
/// read and write it meanwhile.
///
/// ```
/// use std::sync::Arc;
///
/// use bitcask::{Bitcask, Options};
/// use tower_sessions::SessionManagerLayer;
/// use tower_sessions_bitcask::BitcaskSessions;
///
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
/// let sessions = BitcaskSessions::new(Arc::clone(&db)).prefix("shop/session/").durable(true);
/// let layer = SessionManagerLayer::new(sessions);
/// # let _: SessionManagerLayer<BitcaskSessions> = layer;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BitcaskSessions {
    db: Arc<Bitcask>,
    prefix: Arc<str>,
    durable: bool,
    reads_block: bool,
    /// Whether all keys have been loaded since the store was opened. Until then, a get may have to
    /// load some.
    loaded: Arc<AtomicBool>,
}

impl BitcaskSessions {
    /// Keeps sessions in a store, under keys that begin with `session/`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use bitcask::{Bitcask, Options};
    /// # use tower_sessions_bitcask::BitcaskSessions;
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
    /// let sessions = BitcaskSessions::new(db);
    /// # let _ = sessions;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(db: Arc<Bitcask>) -> Self {
        let prefix = "session/".into();
        Self { db, prefix, durable: false, reads_block: false, loaded: Arc::default() }
    }

    /// Sets the prefix of the keys. Services that share a store need different ones.
    ///
    /// ```
    /// # use tower_sessions_bitcask::BitcaskSessions;
    /// fn for_the_shop(sessions: BitcaskSessions) -> BitcaskSessions {
    ///     sessions.prefix("shop/session/")
    /// }
    /// ```
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets whether each change of a session is on the disk before its request is answered.
    ///
    /// By default, changes follow the store's `SyncPolicy`, except that a deleted session is always
    /// deleted for good: after a power loss, a user who has logged out must not be logged in.
    ///
    /// ```
    /// # use tower_sessions_bitcask::BitcaskSessions;
    /// fn for_the_bank(sessions: BitcaskSessions) -> BitcaskSessions {
    ///     sessions.durable(true)
    /// }
    /// ```
    #[must_use]
    pub fn durable(mut self, yes: bool) -> Self {
        self.durable = yes;
        self
    }

    /// Sets whether loading a session may wait for the disk, because the store is larger than
    /// memory. Sessions are then loaded on a thread for blocking work, which takes longer than a
    /// get from memory.
    ///
    /// ```
    /// # use tower_sessions_bitcask::BitcaskSessions;
    /// fn with_large_sessions(sessions: BitcaskSessions) -> BitcaskSessions {
    ///     sessions.reads_block(true)
    /// }
    /// ```
    #[must_use]
    pub fn reads_block(mut self, yes: bool) -> Self {
        self.reads_block = yes;
        self
    }

    /// Returns whether a get only touches memory.
    fn reads_at_once(&self) -> bool {
        !self.reads_block && self.loaded.load(Ordering::Relaxed)
    }

    fn options(&self, record: &Record) -> WriteOptions {
        let expires = SystemTime::from(record.expiry_date);
        let options = WriteOptions::new().expires_at(expires);
        // `durable(false)` would overrule a policy that syncs each write.
        if self.durable { options.durable(true) } else { options }
    }

    /// Makes a call that may wait for the disk.
    async fn call<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Bitcask) -> bitcask::Result<T> + Send + 'static,
    {
        let db = Arc::clone(&self.db);
        match spawn_blocking(move || call(&db)).await {
            Ok(outcome) => outcome.map_err(backend),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => Err(Error::Backend(error.to_string())),
            },
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
fn backend(error: bitcask::Error) -> Error {
    Error::Backend(error.to_string())
}

#[async_trait]
impl SessionStore for BitcaskSessions {
    /// Stores a session under an id that no other session has: under its own, or under a new one.
    async fn create(&self, record: &mut Record) -> Result<()> {
        let (value, options) = (encode(record)?, self.options(record));
        let (prefix, mut id) = (Arc::clone(&self.prefix), record.id);
        let put = move |db: &Bitcask| {
            for _ in 0..IDS_MAX {
                if db.put_if_absent_opt(key(&prefix, id), &value, options)? {
                    return Ok(Some(id));
                }
                id = Id::default();
            }
            Ok(None)
        };
        let id = self.call(put).await?;
        let taken = || Error::Backend("no id was free, so they are not random".to_owned());
        record.id = id.ok_or_else(taken)?;
        Ok(())
    }

    /// Replaces a session. If it was deleted or has expired since the request loaded it, nothing
    /// is stored: a request that is slow must not undo a logout. Of two requests that save the same
    /// session, the last one counts.
    async fn save(&self, record: &Record) -> Result<()> {
        let (key, value) = (key(&self.prefix, record.id), encode(record)?);
        let options = self.options(record);
        let replace = move |db: &Bitcask| {
            // `None` leaves an absent key absent.
            db.update_opt(key, options, |old| old.map(|_| &value)).map(drop)
        };
        self.call(replace).await
    }

    /// Returns a session that has not expired.
    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let (key, id) = (key(&self.prefix, *id), *id);
        let read = move |db: &Bitcask| db.get_with(key, |value| decode(id, value));
        let found = if self.reads_at_once() {
            read(&self.db).map_err(backend)?
        } else {
            let loaded = Arc::clone(&self.loaded);
            let read_and_look = move |db: &Bitcask| {
                let found = read(db);
                // Here, because `stats` may wait for the disk too. Keys that are loaded stay so.
                if !loaded.load(Ordering::Relaxed) && db.stats().unfilled_shards == 0 {
                    loaded.store(true, Ordering::Relaxed);
                }
                found
            };
            self.call(read_and_look).await?
        };
        found.transpose()
    }

    /// Deletes a session, durably.
    async fn delete(&self, id: &Id) -> Result<()> {
        let key = key(&self.prefix, *id);
        let durable = WriteOptions::new().durable(true);
        self.call(move |db| db.delete_opt(key, durable).map(drop)).await
    }
}
