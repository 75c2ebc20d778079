//! The way of a put: encode -> append -> keydir -> durability.
//!
//! - A key's shard is locked from the look-up of its old entry to the publication of its new one.
//! - An entry is flagged *collides* if any other key with the same hash bits has a slot when it is
//!   appended, expired or not. Flagging too much is harmless, flagging too little is not.
//! - What is written may be seen by readers before the sync that makes it durable returns.

use super::log::Appended;
use super::read::Located;
use super::{Bitcask, Inner};
use crate::entry::Flags;
use crate::epoch::pin;
use crate::error::{Error, Result};
use crate::keydir::{Address, Found, KeyHash, Shard};
use crate::mistake::{Mistake, made};
use crate::options::{KEY_SIZE_LIMIT, SyncPolicy, WriteOptions};
use crate::segment::Segment;
use crate::segment::append::Draft;
use crate::value::Value;

impl Bitcask {
    /// Stores a value under a key, in place of the one that may be there.
    ///
    /// Durable as the store's [`SyncPolicy`] says. Key and value may be empty.
    ///
    /// # Errors
    ///
    /// [`KeyTooLarge`](Error::KeyTooLarge) and [`ValueTooLarge`](Error::ValueTooLarge);
    /// [`NoSpace`](Error::NoSpace), which fails this write alone;
    /// [`Poisoned`](Error::Poisoned) once a write or a sync has failed half-way;
    /// [`Corrupt`](Error::Corrupt) if what may be the key's old entry can't be read.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, WriteOptions::new())
    }

    /// Stores a value under a key with options of its own: a time to live, and whether to wait
    /// for durability.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put_with("order", "paid", WriteOptions::new().sync(true))?;
    /// db.put_with("session", "token", WriteOptions::new().ttl(Duration::ZERO))?;
    /// assert_eq!(db.get("session")?, None);
    /// # db.close()
    /// # }
    /// ```
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        let value = Some(value.as_ref());
        self.inner.change(key.as_ref(), value, &Expected::Anything, options)?;
        Ok(())
    }

    /// Removes a key, and says whether it was there.
    ///
    /// Durable as the store's [`SyncPolicy`] says. Nothing is written for a key that is absent.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_with(key, WriteOptions::new())
    }

    /// Removes a key with options of its own, and says whether it was there. A time to live means
    /// nothing here.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<bool> {
        let outcome = self.inner.change(key.as_ref(), None, &Expected::Anything, options)?;
        Ok(outcome.existed)
    }

    /// Stores a value under a key that is absent or expired; says whether it did. The key has no time
    /// to live then.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert!(db.insert_new("leader", "a")?);
    /// assert!(!db.insert_new("leader", "b")?);
    /// assert_eq!(db.get("leader")?.unwrap(), "a");
    /// # db.close()
    /// # }
    /// ```
    pub fn insert_new(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        let (key, value) = (key.as_ref(), Some(value.as_ref()));
        let options = WriteOptions::new();
        Ok(self.inner.change(key, value, &Expected::Value(None), options)?.applied)
    }

    /// Makes a key's value `new` if it is `expected` now, and says whether it did. `None` stands
    /// for an absent key, on either side. A time to live that the key had is gone then.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and as [`get`](Self::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// assert!(db.compare_and_swap("state", None, Some(b"idle"))?);
    /// assert!(db.compare_and_swap("state", Some(b"idle"), Some(b"busy"))?);
    /// assert!(!db.compare_and_swap("state", Some(b"idle"), Some(b"busy"))?);
    /// assert!(db.compare_and_swap("state", Some(b"busy"), None)?);
    /// assert!(!db.contains_key("state")?);
    /// # db.close()
    /// # }
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        let expected = Expected::Value(expected);
        Ok(self.inner.change(key.as_ref(), new, &expected, WriteOptions::new())?.applied)
    }

    /// Replaces a key's value by what a closure makes of it, and returns what is stored now.
    ///
    /// The closure gets `None` for an absent key, and removes the key by returning `None`. It runs
    /// without any lock held, and again if the key has changed meanwhile, so it may run several
    /// times; what it returned last is stored. A time to live that the key had is gone then.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and as [`get`](Self::get).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let next = |old: Option<&[u8]>| {
    ///     let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_be_bytes);
    ///     Some((old + 1).to_be_bytes())
    /// };
    /// db.update("hits", next)?;
    /// let hits = db.update("hits", next)?;
    /// assert_eq!(hits.as_deref(), Some(&2_u64.to_be_bytes()[..]));
    /// # db.close()
    /// # }
    /// ```
    pub fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<Value>> {
        let (key, inner) = (key.as_ref(), &self.inner);
        inner.writer()?;
        loop {
            let (old, timestamp) = match inner.locate(key, &pin())? {
                Some(located) => (Some(inner.value(&located)?), Some(located.stored.timestamp())),
                None => (None, None),
            };
            let new = change(old.as_deref());
            let expected = Expected::Unchanged(timestamp);
            let new = new.as_ref().map(AsRef::as_ref);
            if inner.change(key, new, &expected, WriteOptions::new())?.applied {
                return Ok(new.map(|new| Value::from(new.to_vec())));
            }
        }
    }
}

/// As many full segments may wait to be sealed before writers help.
const BACKLOG_MAX: usize = 16;

/// What a key has to be for a change of it to be made.
enum Expected<'a> {
    Anything,
    /// This value; `None` is an absent key.
    Value(Option<&'a [u8]>),
    /// What was written at this time; `None` is an absent key. No two entries have the same time, and
    /// a merge that moves one leaves it.
    Unchanged(Option<u64>),
}

/// What came of a change.
struct Outcome {
    applied: bool,
    existed: bool,
}

impl Inner {
    /// Changes one key if it is as expected; no value means a delete.
    fn change(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        expected: &Expected<'_>,
        options: WriteOptions,
    ) -> Result<Outcome> {
        let writer = self.writer()?;
        let guard = pin();
        let hash = self.keydir.hash(key);
        // The table's memory is on its way while key and value are summed.
        self.keydir.prefetch(hash, &guard);
        let mut draft = self.draft(key, value, options.ttl)?;
        let mut shard = self.shard(hash.shard())?;
        let Found { own, others } = self.find(&shard, hash, key, &guard)?;
        let current = own.as_ref().map(|(_, located)| located).filter(|old| !old.expired);
        let existed = current.is_some();
        if !self.meets(current, expected)? {
            return Ok(Outcome { applied: false, existed });
        }
        if value.is_none() && own.is_none() {
            drop(shard);
            drop(guard);
            self.settle_nothing(options)?;
            return Ok(Outcome { applied: true, existed });
        }
        draft.header.flags = draft.header.flags.with_if(others, Flags::COLLIDES);
        let drafts = std::slice::from_mut(&mut draft);
        let appended = self.append(&mut writer.log.lock(), drafts)?;
        let segment = self.segments.get(appended.number, &guard);
        for (address, size) in appended.addresses(drafts) {
            let new = value.is_some().then_some((address, size));
            publish(&mut shard, hash, own.as_ref(), new, segment, appended.timestamp);
        }
        drop((shard, own));
        drop(guard);
        self.settle(&appended, options)?;
        Ok(Outcome { applied: true, existed })
    }

    /// Makes an entry of a change, with limits checked, its value compressed where that is asked for
    /// and helps, and sums taken, outside all locks.
    #[inline]
    pub(super) fn draft<'a>(
        &self,
        key: &'a [u8],
        value: Option<&'a [u8]>,
        ttl: Option<std::time::Duration>,
    ) -> Result<Draft<'a>> {
        // A key that was put under a higher limit can still be deleted.
        let limit = value.map_or(KEY_SIZE_LIMIT, |_| self.options.key_size_limit);
        let size = key.len() as u64;
        if size > limit {
            return Err(Error::KeyTooLarge { size, limit });
        }
        let Some(value) = value else { return Ok(Draft::tombstone(key)) };
        let (size, limit) = (value.len() as u64, self.options.value_size_limit);
        if size > limit {
            return Err(Error::ValueTooLarge { size, limit });
        }
        let expiry = ttl.map(|ttl| self.clock.after(ttl));
        Ok(match self.options.compression.codec() {
            Some((codec, size_min)) if size >= size_min => {
                Draft::put_compressed(key, value, expiry, codec)
            }
            _ => Draft::put(key, value, expiry),
        })
    }

    fn meets(&self, current: Option<&Located<'_>>, expected: &Expected<'_>) -> Result<bool> {
        Ok(match (expected, current) {
            (Expected::Anything, _) => true,
            (Expected::Unchanged(timestamp), current) => {
                *timestamp == current.map(|located| located.stored.timestamp())
            }
            (Expected::Value(None), current) => current.is_none(),
            (Expected::Value(Some(_)), None) => false,
            (Expected::Value(Some(expected)), Some(current)) => self.value(current)? == **expected,
        })
    }

    /// Takes note that slots name what was appended, and waits until it is durable, if that is asked
    /// for.
    pub(super) fn settle(&self, appended: &Appended, options: WriteOptions) -> Result<()> {
        self.writer()?.published();
        if appended.backlog > BACKLOG_MAX {
            // Each of them holds a file descriptor: whoever writes faster than the background
            // seals has to help, with one for each that it adds. A failure is told by the next
            // write.
            let _ = self.seal_oldest();
        }
        let waits = self.waits(options) && !made(Mistake::ReturnsBeforeSync);
        if waits { self.sync_to(appended.end) } else { Ok(()) }
    }

    /// Waits, if that is asked for, until what made a delete needless is durable: an absence that
    /// was told of must not end with the power.
    pub(super) fn settle_nothing(&self, options: WriteOptions) -> Result<()> {
        if !self.waits(options) {
            return Ok(());
        }
        let end = self.writer()?.log.lock().end();
        self.sync_to(end)
    }

    /// Returns whether a write returns only when it is durable.
    fn waits(&self, options: WriteOptions) -> bool {
        options.sync.unwrap_or(self.options.sync == SyncPolicy::Always)
    }
}

/// Makes a key's slot name its new entry, or removes it at this time, and accounts for what is dead
/// now.
pub(super) fn publish(
    shard: &mut Shard<'_>,
    hash: KeyHash,
    old: Option<&(Address, Located<'_>)>,
    new: Option<(Address, u64)>,
    segment: &Segment,
    time: u64,
) {
    match (new, old) {
        (Some((address, size)), old) => {
            segment.gained(size);
            shard.publish(hash, old.map(|(address, _)| *address), address);
        }
        (None, Some((address, _))) => drop(shard.remove(hash, *address, time)),
        (None, None) => {}
    }
    if let Some((_, located)) = old {
        located.stored.lost();
    }
}
