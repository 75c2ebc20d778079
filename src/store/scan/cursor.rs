//! All keys, some at a time, from a cursor that is a single number.
//!
//! - A cursor is a position in the order of fingerprints: all keys with lower fingerprints have
//!   been passed. A key's fingerprint depends only on the key and the store's seed. So a cursor
//!   keeps its meaning whatever the size of a table, wherever an entry lies, and after reopening.
//! - A cursor can't point between keys with the same fingerprint, so these are returned together.

use std::sync::Arc;

use crate::error::Result;
use crate::key_hash::{KeyHash, SHARD_BITS};
use crate::keydir::Address;
use crate::segment::Segment;
use crate::store::{Inner, Reader};
use crate::value::Value;

/// Prefetch distance, in entries.
const READ_AHEAD: usize = 8;

impl Reader {
    /// Returns about `count` keys after a cursor, in no particular order, and the cursor at which
    /// to continue; `None` once all keys have been passed. A scan starts at 0.
    ///
    /// The cursor is the only state of a scan between two calls, and it stays valid. It can be sent
    /// to a client, stored, and used after the store was closed and reopened, or opened as
    /// [`ReadOnly`](crate::ReadOnly). An abandoned scan leaves nothing to release.
    ///
    /// # Guarantee
    ///
    /// A key that exists from the first call to the last is returned, whatever else is written,
    /// deleted or merged meanwhile. A scan returns no key twice. A key that is put or deleted
    /// during the scan may or may not be returned. Calling again with the same cursor returns the
    /// keys from there again. Every number is a valid cursor. A cursor belongs to the store that it
    /// comes from and to [backups](crate::Bitcask::backup) of it. In a store that
    /// [`repair`](crate::repair) has created, it has no meaning.
    ///
    /// # Cost
    ///
    /// A call looks at about `count` keys, at least one. It returns fewer, perhaps none, if some of
    /// them have expired; only a cursor of `None` means that the scan is complete. It returns more
    /// if several keys have the same 64 hash bits, which is rare. Reading an entry costs as much as
    /// [`get`](Self::get). In addition, each call goes through at least one of 4,096 parts of the
    /// keys, whose lock it holds against writers meanwhile. A scan of a large store is therefore
    /// fastest with a `count` of `len() / 4096` or more. Memory: 24 bytes for each key in that
    /// part, and the returned keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). An error returns no cursor, so the call can be repeated.
    /// [`keys`](Self::keys) continues past a key that cannot be read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// for number in 0..100 {
    ///     db.put(format!("user {number}"), "there throughout")?;
    /// }
    /// let (first, cursor) = db.scan_from(0, 10)?;
    /// assert_eq!(first.len(), 10);
    /// db.close()?;
    ///
    /// // Later, perhaps in another process.
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let (mut seen, mut next) = (first.len(), cursor);
    /// while let Some(cursor) = next {
    ///     let (keys, after) = db.scan_from(cursor, 10)?;
    ///     seen += keys.len();
    ///     next = after;
    /// }
    /// assert_eq!(seen, 100);
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "scan")]
    #[doc(alias = "cursor")]
    pub fn scan_from(&self, cursor: u64, count: usize) -> Result<(Vec<Value>, Option<u64>)> {
        let (mut keys, mut next, mut left) = (Vec::new(), Some(cursor), count.max(1));
        while let Some(from) = next
            && left > 0
        {
            let stretch = self.inner.stretch(from, left)?;
            for (at, (segment, offset)) in stretch.entries.iter().enumerate() {
                if let Some((segment, offset)) = stretch.entries.get(at + READ_AHEAD) {
                    segment.prefetch(*offset);
                }
                let key = self.inner.read_live(segment, *offset, |stored| {
                    Ok(stored.lend(stored.entry().key_range()))
                })?;
                keys.extend(key);
            }
            left = left.saturating_sub(stretch.entries.len());
            next = stretch.next;
        }
        Ok((keys, next))
    }
}

/// A part of the order of fingerprints, within one shard.
struct Stretch {
    /// Where its entries are.
    entries: Vec<(Arc<Segment>, u64)>,
    /// The position after it; `None` at the end of the order.
    next: Option<u64>,
}

impl Inner {
    /// Finds the next entries from a position on: `count` of them and all others with the same
    /// fingerprint as the last, or those up to the end of the shard.
    fn stretch(&self, from: u64, count: usize) -> Result<Stretch> {
        let shard = self.shard(KeyHash { fingerprint: from, extra: 0 }.shard())?;
        let mut slots: Vec<(u64, Address)> = shard
            .slots()
            .map(|(hash, address)| (hash.fingerprint, address))
            .filter(|(fingerprint, _)| *fingerprint >= from)
            .collect();
        let mut last = from | u64::MAX >> SHARD_BITS;
        if slots.len() > count {
            last = slots.select_nth_unstable_by_key(count - 1, |(fingerprint, _)| *fingerprint).1.0;
            slots.retain(|(fingerprint, _)| *fingerprint <= last);
        }
        let guard = self.pin();
        let located = |(_, address): (u64, Address)| {
            (Arc::clone(self.segments.get(address.segment, &guard)), address.offset)
        };
        let entries = slots.into_iter().map(located).collect();
        Ok(Stretch { entries, next: last.checked_add(1) })
    }
}
