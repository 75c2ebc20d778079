//! The path of a put: encode -> append -> keydir -> durability.
//!
//! - A key's shard is locked from the lookup of its old entry to the publication of its new one.
//! - Whether a deleted key existed is decided under the lock of the log: it may have expired since
//!   the lookup, and others may have observed that.
//! - An entry is flagged *collides* if any other key with the same hash bits has a slot when it is
//!   appended, expired or not. Setting the flag without need is harmless; missing it is not.
//! - Readers may see a write before the sync that makes it durable returns.

use super::lookup::Located;
use crate::clock::Deadline;
use crate::entry::Flags;
use crate::error::{Error, Result};
use crate::key_hash::KeyHash;
use crate::keydir::{Address, Found, Shard};
use crate::log::{Appended, Written};
use crate::mistake::{Mistake, made};
use crate::options::{KEY_SIZE_LIMIT, Lifetime, SyncPolicy, WriteOptions};
use crate::segment::write::draft::Draft;
use crate::segment::{Segment, StoredEntry};
use crate::store::{Bitcask, Inner};

impl Bitcask {
    /// Stores a value under a key, replacing any existing value.
    ///
    /// Durability follows the store's [`SyncPolicy`]. Key and value may be empty. The key gets the
    /// store's [`default_ttl`](crate::Options::default_ttl), whatever its time to live was.
    ///
    /// # Errors
    ///
    /// - [`KeyTooLarge`](Error::KeyTooLarge) and [`ValueTooLarge`](Error::ValueTooLarge).
    /// - [`NoSpace`](Error::NoSpace), after which the store stays usable.
    /// - [`Poisoned`](Error::Poisoned) after an earlier write or sync has failed halfway.
    /// - [`Corrupt`](Error::Corrupt) if an entry that may be the key's old one cannot be read.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_opt(key, value, WriteOptions::new())
    }

    /// Stores a value under a key, with options: a time to live, and whether to wait for
    /// durability.
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
    /// db.put_opt("order", "paid", WriteOptions::new().durable(true))?;
    /// db.put_opt("session", "token", WriteOptions::new().ttl(Duration::ZERO))?;
    /// assert_eq!(db.get("session")?, None);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "setex")]
    pub fn put_opt(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<()> {
        self.inner.change(key.as_ref(), Some(value.as_ref()), options)?;
        Ok(())
    }

    /// Removes a key. Returns whether it existed.
    ///
    /// Durability follows the store's [`SyncPolicy`]. If the key is absent, nothing is written,
    /// unless it has expired and its entry is still in the log.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    #[doc(alias = "remove")]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.delete_opt(key, WriteOptions::new())
    }

    /// Removes a key, with options. Returns whether it existed. A time to live has no effect here.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn delete_opt(&self, key: impl AsRef<[u8]>, options: WriteOptions) -> Result<bool> {
        Ok(self.inner.change(key.as_ref(), None, options)?.existed)
    }

    /// Removes a key, as [`delete_opt`](Self::delete_opt) does, and also says whether followers of
    /// the log meet a delete.
    #[cfg_attr(not(feature = "resp"), expect(dead_code, reason = "only `resp` follows itself"))]
    pub(crate) fn delete_logged(
        &self,
        key: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> Result<LoggedChange> {
        self.inner.change(key.as_ref(), None, options)
    }
}

/// What a change of one key has done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoggedChange {
    /// Whether a key that was deleted existed.
    pub(crate) existed: bool,
    /// Whether the log has an entry of the change. It has one if a deleted key has expired, and its
    /// own entry is still there.
    #[cfg_attr(not(feature = "resp"), expect(dead_code, reason = "only `resp` follows itself"))]
    pub(crate) is_logged: bool,
}

/// Number of full segments that may wait to be sealed before writers help.
const BACKLOG_MAX: usize = 16;

impl Inner {
    /// Changes one key unconditionally; `None` is a delete.
    fn change(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        options: WriteOptions,
    ) -> Result<LoggedChange> {
        let writer = self.writer()?;
        let guard = self.pin();
        let writing = guard.write();
        let hash = self.keydir.hash(key);
        // Fetches the table's memory while the checksum of key and value is computed.
        self.keydir.prefetch(hash, &guard);
        // The results are not moved out, since that would copy them.
        let mut drafted = self.draft(hash, key, value, options);
        let Ok(draft) = &mut drafted else { return drafted.map(|_| LoggedChange::default()) };
        let mut shard = self.shard(hash.shard())?;
        let found = self.find(&shard, hash, key, &guard);
        let Ok(Found { own, others }) = &found else {
            return found.map(|_| LoggedChange::default());
        };
        let mut existed = own.is_some();
        if value.is_none() && !existed {
            drop(shard);
            drop(guard);
            self.wait_durable(options)?;
            writing.end();
            return Ok(LoggedChange::default());
        }
        draft.header.flags = draft.header.flags.with_if(*others, Flags::COLLIDES);
        if draft.keeps_expiry {
            self.keep_expiry(draft, own.as_ref());
        }
        let drafts = std::slice::from_mut(draft);
        let mut log = writer.log.lock();
        if value.is_none()
            && let Some((_, old)) = own
            && old.stored.expiry().is_some()
        {
            existed = self.is_before(self.deadline(&old.stored));
        }
        // Unlock before the result is moved anywhere.
        let appended = writer.log.append(&mut log, drafts, &guard);
        drop(log);
        let appended = appended?;
        let (segment, timestamp) = (appended.segment, appended.timestamp);
        if made(Mistake::ShardReleasedEarly) {
            drop(shard);
            shard = self.shard(hash.shard())?;
        }
        for (address, size) in addresses(&appended, drafts) {
            let new = value.is_some().then_some((address, size));
            publish(&mut shard, hash, own.as_ref(), new, segment, timestamp);
        }
        let written = appended.published();
        drop(shard);
        drop(guard);
        self.finish_write(&written, options)?;
        writing.end();
        Ok(LoggedChange { existed, is_logged: true })
    }

    /// Builds the entry for a change, outside all locks: checks the limits, compresses the value if
    /// enabled and worthwhile, and computes the checksum.
    #[inline]
    pub(crate) fn draft<'a>(
        &self,
        hash: KeyHash,
        key: &'a [u8],
        value: Option<&'a [u8]>,
        options: WriteOptions,
    ) -> Result<Draft<'a>> {
        // A key that was put under a higher limit can still be deleted.
        let limit = value.map_or(KEY_SIZE_LIMIT, |_| self.options.key_size_limit);
        let size = key.len() as u64;
        if size > limit {
            return Err(Error::KeyTooLarge { size, limit });
        }
        let Some(value) = value else { return Ok(Draft::tombstone(key).with_hash(hash)) };
        let (size, limit) = (value.len() as u64, self.options.value_size_limit);
        if size > limit {
            return Err(Error::ValueTooLarge { size, limit });
        }
        let expiry = self.expiry(options.lifetime);
        let mut draft = match self.options.compression.compressor() {
            Some((compressor, size_min)) if size >= size_min => {
                Draft::put_compressed(key, value, expiry, compressor)
            }
            _ => Draft::put(key, value, expiry),
        };
        draft.keeps_expiry = options.keep_ttl;
        Ok(draft.with_hash(hash))
    }

    /// Returns when a key that is put now expires.
    #[inline]
    pub(crate) fn expiry(&self, lifetime: Lifetime) -> Option<u64> {
        match lifetime {
            Lifetime::OfStore => self.options.default_ttl.and_then(|ttl| self.clock.after(ttl)),
            Lifetime::For(ttl) => self.clock.after(ttl),
            Lifetime::Until(time) => self.clock.expiry_at(time),
        }
    }

    /// Makes a put keep the expiry of the entry that it replaces, unless that entry has expired.
    #[cold]
    pub(super) fn keep_expiry(&self, draft: &mut Draft<'_>, old: Option<&(Address, Located<'_>)>) {
        let Some((_, Located { stored, expired: false })) = old else { return };
        let expiry = stored.expiry();
        let expiry = expiry.map(|expiry| self.clock.same_expiry(stored.timestamp(), expiry));
        draft.header = draft.header.with_expiry(expiry);
    }

    /// Returns whether a deadline is still to come.
    #[cold]
    pub(crate) fn is_before(&self, time: Deadline) -> bool {
        !time.is_over(&self.clock.read())
    }

    /// Returns when an entry expires.
    pub(crate) fn deadline(&self, stored: &StoredEntry<'_>) -> Deadline {
        let Some(expiry) = stored.expiry() else { return Deadline::NEVER };
        self.clock.deadline(stored.timestamp(), expiry)
    }

    /// Helps to seal if necessary. Then, if requested, waits until the published entries are
    /// durable.
    pub(crate) fn finish_write(&self, written: &Written, options: WriteOptions) -> Result<()> {
        if written.backlog > BACKLOG_MAX {
            // Each unsealed segment holds a file descriptor. A writer that is faster than the
            // background sealing has to help, sealing one segment for each that it adds. The next
            // write reports a failure.
            let _ = self.seal_oldest();
        }
        let waits = self.waits(options) && !made(Mistake::ReturnsBeforeSync);
        if waits { self.log()?.sync_to(written.end) } else { Ok(()) }
    }

    /// If requested, waits until whatever made a delete unnecessary is durable: a power loss must
    /// not undo an absence that was reported. Returns an error in a forked child, since a closure
    /// of the caller may have forked.
    pub(crate) fn wait_durable(&self, options: WriteOptions) -> Result<()> {
        self.here()?;
        if !self.waits(options) || made(Mistake::AbsenceNotDurable) {
            return Ok(());
        }
        self.log()?.sync()
    }

    /// Returns whether a write waits for durability.
    fn waits(&self, options: WriteOptions) -> bool {
        let is_always = || self.log().is_ok_and(|log| log.sync_policy() == SyncPolicy::Always);
        options.durable.unwrap_or_else(is_always)
    }
}

/// Returns the addresses of the appended entries, in order, with their sizes on disk.
pub(crate) fn addresses(
    appended: &Appended<'_>,
    drafts: &[Draft<'_>],
) -> impl Iterator<Item = (Address, u64)> {
    let segment = appended.number;
    appended.offsets(drafts).map(move |(offset, size)| (Address { segment, offset }, size))
}

/// Points a key's slot to its new entry, or removes the slot at a given time, and accounts for the
/// entry that is dead now.
pub(crate) fn publish(
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
