//! All keys, some at a time, from a cursor that is one number.
//!
//! - A cursor is a position in the order of fingerprints: all keys whose fingerprints are below it have been
//!   passed. The fingerprint of a key depends on the key and the store's seed alone. So neither the size of a
//!   table, nor the place of an entry, nor another opening changes what a cursor means.
//! - A cursor can't stand between keys with the same fingerprint, so these come together.

use std::sync::Arc;

use super::iter::Entries;
use crate::error::Result;
use crate::key_hash::{KeyHash, SHARD_BITS};
use crate::keydir::Address;
use crate::segment::Segment;
use crate::store::{Inner, Reader};
use crate::value::Value;

/// The number of entries ahead of the one that is read for which memory is asked.
const READ_AHEAD: usize = 8;

impl Reader {
    /// Returns about `count` keys behind a cursor, in no order, and the cursor to go on from; `None` when
    /// all keys have been passed. A scan starts at 0.
    ///
    /// The cursor is all that a scan keeps between two calls, and it stays valid: it can be sent to a client,
    /// stored, and used after the store was closed and opened again, or opened as
    /// [`ReadOnly`](crate::ReadOnly). Nothing has to be released when a scan is given up.
    ///
    /// # Guarantee
    ///
    /// A key that is there from the first call to the last is returned, whatever else is written, deleted
    /// or merged meanwhile. A scan returns no key twice. A key that is put or deleted during the scan may be
    /// returned or not. A call made again with the same cursor returns the keys again from there. Any
    /// number is a cursor. A cursor means something to the store that it comes from and to
    /// [backups](crate::Bitcask::backup) of it only, not to what [`repair`](crate::repair) makes of it.
    ///
    /// # Cost
    ///
    /// A call looks at about `count` keys, and at one at least. It returns fewer, perhaps none, if some of
    /// them have expired: only a cursor of `None` says that the scan is over. It returns more if several keys
    /// have the same 64 bits of hash, which is rare. Reading an entry costs what [`get`](Self::get) does.
    /// Besides, each call goes through one of 4,096 parts of the keys at least, holding the lock of that part
    /// against its writers. So a scan of a large store is fastest if `count` is `len() / 4096` or
    /// more. Memory: 24 bytes for each key in that part, and what is returned.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). There is no cursor then: the call can be made again. [`keys`](Self::keys) goes
    /// on behind a key that can't be read.
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
        let entries = Entries::new(&self.inner);
        let (mut keys, mut next, mut left) = (Vec::new(), Some(cursor), count.max(1));
        while let Some(from) = next
            && left > 0
        {
            let stretch = self.inner.stretch(from, left)?;
            for (at, (segment, offset)) in stretch.entries.iter().enumerate() {
                if let Some((segment, offset)) = stretch.entries.get(at + READ_AHEAD) {
                    segment.prefetch(*offset);
                }
                let key = entries
                    .read(segment, *offset, |stored| Ok(stored.lend(stored.entry().key_range())))?;
                keys.extend(key);
            }
            left = left.saturating_sub(stretch.entries.len());
            next = stretch.next;
        }
        Ok((keys, next))
    }
}

/// A stretch of the order of fingerprints, within one shard.
struct Stretch {
    /// Where its entries lie.
    entries: Vec<(Arc<Segment>, u64)>,
    /// The position behind it; `None` at the end of the order.
    next: Option<u64>,
}

impl Inner {
    /// Finds the next entries from a position on: `count` of them and all that have the same fingerprint as
    /// the last, or those up to the end of the shard.
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
