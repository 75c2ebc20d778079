//! From a key to its newest entry: keydir -> mapped entry -> comparison.
//!
//! - All readers use `lookup`, whether they read the store, a snapshot or a transaction. Each
//!   interprets the entry itself: `locate` judges expiry by the store's clock, a snapshot by its
//!   own moment.
//! - A slot with a key's hash bits belongs to the key only if the entry has that key. A slot of
//!   another key is so rare that its entry is verified, to distinguish it from damage.
//! - Readers take no lock, and allocate nothing if the bytes are mapped: a guard keeps slots and
//!   segments in place while they are read.
//! - There are two exceptions. A key whose entry has expired is looked up again under the lock of
//!   its shard, since an append that was decided on while the key still existed may be in flight.
//!   And while a clear empties the shards one after the other, `locate` waits for it: all keys
//!   disappear at one moment.
//! - Writers use `find`, with the shard locked.

use crate::epoch::Guard;
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::keydir::{Address, Found, Shard};
use crate::segment::{StoredEntry, ignore_unknown_codec};
use crate::store::{Inner, Reader};

/// A key's newest entry, as a writer finds it.
#[derive(Debug)]
pub(crate) struct Located<'a> {
    pub(crate) stored: StoredEntry<'a>,
    pub(crate) expired: bool,
}

impl Reader {
    /// Returns whether the keydir names an entry of a key, even if that has expired. If so, a
    /// delete of the key is logged.
    #[cfg_attr(not(feature = "resp"), expect(dead_code, reason = "only `resp` follows itself"))]
    pub(crate) fn has_entry(&self, key: &[u8]) -> Result<bool> {
        let (inner, guard) = (&self.inner, self.inner.pin());
        Ok(inner.lookup(inner.keydir.hash(key), key, &guard)?.is_some())
    }
}

impl Inner {
    /// Returns the entry that the keydir names for a key, expired or not, or `None` if it names
    /// none. Fills the key's shard if necessary.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn lookup<'a>(
        &'a self,
        hash: KeyHash,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        if !self.opener.is_here() {
            return Err(self.opener.refusal());
        }
        loop {
            if let Some(addresses) = self.keydir.addresses(hash, guard) {
                for address in addresses {
                    let stored = self.entry_at(address, guard)?;
                    if stored.is_of(key)? {
                        return Ok(Some(stored));
                    }
                }
                return Ok(None);
            }
            drop(self.shard(hash.shard())?);
        }
    }

    /// Returns the newest entry of a key, or `None` if the key is absent or expired.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn locate<'a>(
        &'a self,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        self.locate_hashed(self.keydir.hash(key), key, guard)
    }

    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    pub(crate) fn locate_hashed<'a>(
        &'a self,
        hash: KeyHash,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        if self.keydir.is_clearing() {
            drop(self.shard(hash.shard())?);
        }
        let stored = self.lookup(hash, key, guard)?;
        if stored.as_ref().is_some_and(|stored| self.has_expired(stored)) {
            return self.locate_locked(hash, key, guard);
        }
        Ok(stored)
    }

    /// Like `locate_hashed`, with the shard locked, for a key that was found expired. A change
    /// based on its value may be in flight; it is published once the shard is locked. A later
    /// change reads the clock after this reader has, and also finds the value expired.
    #[cold]
    pub(crate) fn locate_locked<'a>(
        &'a self,
        hash: KeyHash,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        let shard = self.shard(hash.shard())?;
        let own = shard.find(hash, |address| self.entry_of(key, address, guard))?.own;
        drop(shard);
        let Some((_, stored)) = own else { return Ok(None) };
        if !self.has_expired(&stored) {
            return Ok(Some(stored));
        }
        self.check_absent(&stored)?;
        Ok(None)
    }

    /// Looks up a key in its locked shard in order to change it. Also finds expired entries, which
    /// it verifies.
    pub(crate) fn find<'a>(
        &'a self,
        shard: &Shard<'_>,
        hash: KeyHash,
        key: &[u8],
        guard: &'a Guard<'_>,
    ) -> Result<Found<Located<'a>>> {
        shard.find(hash, |address| {
            let stored = self.entry_at(address, guard)?;
            if !stored.is_of(key)? {
                return Ok(None);
            }
            let expired = self.has_expired(&stored);
            if expired {
                self.check_absent(&stored)?;
            }
            Ok(Some(Located { stored, expired }))
        })
    }

    /// Verifies an entry that makes its key absent, such as an expired one. Its value is not read,
    /// so its codec may be unknown; but a damaged header must not hide the key.
    pub(crate) fn check_absent(&self, stored: &StoredEntry<'_>) -> Result<()> {
        ignore_unknown_codec(self.check(stored))
    }

    #[inline]
    fn has_expired(&self, stored: &StoredEntry<'_>) -> bool {
        stored.expiry().is_some() && stored.entry().is_expired(&self.clock.read())
    }

    /// Returns the entry that a slot names, if it has this key.
    fn entry_of<'a>(
        &'a self,
        key: &[u8],
        address: Address,
        guard: &'a Guard<'_>,
    ) -> Result<Option<StoredEntry<'a>>> {
        let stored = self.entry_at(address, guard)?;
        Ok(if stored.is_of(key)? { Some(stored) } else { None })
    }

    /// Returns the entry that a slot names.
    #[expect(clippy::inline_always, reason = "every get calls this, from a few places")]
    #[inline(always)]
    fn entry_at<'a>(&'a self, address: Address, guard: &'a Guard<'_>) -> Result<StoredEntry<'a>> {
        self.segments.get(address.segment, guard).entry(address.offset)
    }
}
