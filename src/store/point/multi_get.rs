//! Gets of many keys in one call, so that the waits for memory overlap.
//!
//! - Sixteen keys at a time, in two stages: the first prefetches the keydir's buckets, the second
//!   prefetches the entries that they name. By the time each key is actually looked up, both are in
//!   the cache. (Group prefetching: Chen et al., "Improving hash join performance through
//!   prefetching", 2004.)
//! - If the store is larger than memory, the second stage asks the system for the entries instead,
//!   so that the disk reads them at the same time.
//! - The stages only produce hints; the lookup itself is that of `get`.

use crate::epoch::Guard;
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::store::{Inner, Reader};
use crate::sync::Instant;
use crate::value::Value;

/// Number of keys in a group: about as many loads as a core can have in flight.
const GROUP_LEN: usize = 16;

impl Reader {
    /// Returns the values of several keys, in the order of the keys; `None` for each key that is
    /// absent or expired.
    ///
    /// Faster than separate calls of [`get`](Self::get) if keydir and values are not in the
    /// processor's caches. Each value is read at some moment during the call; values written by one
    /// batch may be read at different moments, before and after it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the first key that cannot be read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// let values = db.get_many(&["a", "b"])?;
    /// assert_eq!(values[0].as_deref(), Some(&b"1"[..]));
    /// assert_eq!(values[1], None);
    /// # db.close()
    /// # }
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value>>> {
        let mut values = Vec::with_capacity(keys.len());
        for group in keys.chunks(GROUP_LEN) {
            let guard = self.inner.pin();
            let hashes = self.inner.approach(group, &guard);
            let mut started = Some(Instant::now());
            for (key, hash) in group.iter().zip(hashes) {
                let reading = guard.read_untimed();
                let Some(stored) = self.inner.locate_hashed(hash, key.as_ref(), &guard)? else {
                    reading.miss();
                    self.inner.note_first(&mut started, 0);
                    values.push(None);
                    continue;
                };
                let value = self.inner.value(&stored)?;
                self.inner.note_first(&mut started, stored.raw_size());
                reading.hit(stored.raw_size());
                values.push(Some(value));
            }
        }
        Ok(values)
    }

    /// Calls a closure with the index of each key and its value, in the order of the keys; with
    /// `None` if the key is absent or expired. Otherwise like [`get_many`](Self::get_many), and
    /// without an allocation or a system call if the values are mapped.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the first key that cannot be read. The closure was called for the
    /// keys before it.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("a", "1")?;
    /// let mut sizes = [0; 2];
    /// db.get_many_with(&["a", "b"], |at, value| sizes[at] = value.map_or(0, <[u8]>::len))?;
    /// assert_eq!(sizes, [1, 0]);
    /// # db.close()
    /// # }
    /// ```
    pub fn get_many_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut read: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let mut at = 0;
        for group in keys.chunks(GROUP_LEN) {
            let guard = self.inner.pin();
            let hashes = self.inner.approach(group, &guard);
            let mut started = Some(Instant::now());
            for (key, hash) in group.iter().zip(hashes) {
                let reading = guard.read_untimed();
                if let Some(stored) = self.inner.locate_hashed(hash, key.as_ref(), &guard)? {
                    self.inner.check(&stored)?;
                    let value = stored.raw_value()?;
                    self.inner.note_first(&mut started, stored.raw_size());
                    reading.hit(stored.raw_size());
                    read(at, Some(&value));
                } else {
                    reading.miss();
                    self.inner.note_first(&mut started, 0);
                    read(at, None);
                }
                at += 1;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Hashes a group of keys, and prefetches the memory that looking them up will read.
    fn approach<K: AsRef<[u8]>>(&self, group: &[K], guard: &Guard<'_>) -> [KeyHash; GROUP_LEN] {
        let mut hashes = [KeyHash::default(); GROUP_LEN];
        for (hash, key) in hashes.iter_mut().zip(group) {
            *hash = self.keydir.hash(key.as_ref());
            self.keydir.prefetch(*hash, guard);
        }
        let used = hashes.get(..group.len()).unwrap_or_default();
        if self.disk_waits.are_recent() {
            self.read_entries_ahead(used, guard);
        } else {
            for hash in used {
                self.prefetch_entry(*hash, guard);
            }
        }
        hashes
    }

    /// Notes how long the first look-up of a group took.
    fn note_first(&self, started: &mut Option<Instant>, checked_size: u32) {
        if let Some(started) = started.take() {
            self.disk_waits.note(started.elapsed(), 1, checked_size);
        }
    }

    /// Asks the system to read the entries that look-ups of these hashes most likely read.
    #[cold]
    pub(super) fn read_entries_ahead(&self, hashes: &[KeyHash], guard: &Guard<'_>) {
        for address in hashes.iter().filter_map(|hash| self.keydir.likely(*hash, guard)) {
            self.segments.get(address.segment, guard).read_entry_ahead(address.offset);
        }
    }

    /// Prefetches the entry that a lookup of a key most likely reads.
    pub(super) fn prefetch_entry(&self, hash: KeyHash, guard: &Guard<'_>) {
        if let Some(address) = self.keydir.likely(hash, guard) {
            self.segments.get(address.segment, guard).prefetch(address.offset);
        }
    }
}
