//! Many gets at once, so that the waits for memory overlap.
//!
//! - Sixteen keys at a time, in two stages: first the keydir's buckets are asked for, then, from
//!   what they say, the entries; by the time each key is looked up in earnest, both are near.
//!   (Group prefetching: Chen et al., "Improving hash join performance through prefetching", 2004.)
//! - What the stages find is a hint and no more: the look-up itself is that of `get`.

use crate::epoch::Guard;
use crate::error::Result;
use crate::key_hash::KeyHash;
use crate::store::{Inner, Reader};
use crate::value::Value;

/// About as many loads as a core can have under way at once.
const GROUP_LEN: usize = 16;

impl Reader {
    /// Returns the values of several keys, in their order; `None` for one that is absent or
    /// expired.
    ///
    /// Faster than as many calls of [`get`](Self::get) where keydir and values are not in the
    /// processor's caches. Each value is that of some moment of the call; the values of one batch
    /// may be of different moments.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the first key that can't be read.
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
            for (key, hash) in group.iter().zip(self.inner.approach(group, &guard)) {
                let stored = self.inner.locate_hashed(hash, key.as_ref(), &guard)?;
                values.push(stored.map(|stored| self.inner.value(&stored)).transpose()?);
            }
        }
        Ok(values)
    }

    /// Calls a closure with the number of each key and its value, in the order of the keys; `None`
    /// for a key that is absent or expired. Otherwise as [`get_many`](Self::get_many), and without
    /// an allocation, a lock or a system call if the values are mapped.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the first key that can't be read; the closure was called for
    /// those before it.
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
            for (key, hash) in group.iter().zip(self.inner.approach(group, &guard)) {
                match self.inner.locate_hashed(hash, key.as_ref(), &guard)? {
                    Some(stored) => {
                        self.inner.check(&stored)?;
                        read(at, Some(&stored.raw_value()?));
                    }
                    None => read(at, None),
                }
                at += 1;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Hashes a group of keys, and asks for the memory that looking them up will read.
    fn approach<K: AsRef<[u8]>>(&self, group: &[K], guard: &Guard<'_>) -> [KeyHash; GROUP_LEN] {
        let mut hashes = [KeyHash::default(); GROUP_LEN];
        for (hash, key) in hashes.iter_mut().zip(group) {
            *hash = self.keydir.hash(key.as_ref());
            self.keydir.prefetch(*hash, guard);
        }
        let asked = hashes.iter().take(group.len());
        for address in asked.filter_map(|hash| self.keydir.likely(*hash, guard)) {
            self.segments.get(address.segment, guard).prefetch(address.offset);
        }
        hashes
    }
}
