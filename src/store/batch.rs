//! Several changes that happen together or not at all.
//!
//! - All shards of the keys are locked, in ascending order, from the look-up to the publication.
//! - The entries are appended at once, all but the last flagged *continues*; without the last one
//!   recovery takes none of them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::log::BATCH_SIZE_LIMIT;
use super::read::Located;
use super::write::publish;
use super::{Bitcask, Inner};
use crate::entry::Flags;
use crate::epoch::pin;
use crate::error::{Error, Result};
use crate::keydir::{Address, KeyHash};
use crate::options::WriteOptions;
use crate::segment::append::Draft;

/// Puts and deletes that [`Bitcask::write`](crate::Bitcask::write) makes together or not at all.
///
/// The last change of a key counts. A batch's entries have to fit in one segment of at most
/// 512 MiB.
///
/// ```
/// use bitcask::{Batch, Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("b", "0")?;
/// db.write(Batch::new().put("a", "1").delete("b"))?;
///
/// let mut batch = Batch::new();
/// for number in 0..100_u32 {
///     batch = batch.put(number.to_be_bytes(), "x");
/// }
/// db.write(batch)?;
/// assert_eq!(db.len(), 101);
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a batch does nothing before it is written"]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of a key.
#[derive(Debug, Clone)]
struct Change {
    key: Vec<u8>,
    /// Nothing for a delete.
    value: Option<Vec<u8>>,
    ttl: Option<Duration>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.change(key.as_ref(), Some(value.as_ref().to_vec()), None)
    }

    /// Adds a put of a key that lives for `ttl` from the moment that the batch is written.
    pub fn put_with_ttl(
        self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Self {
        self.change(key.as_ref(), Some(value.as_ref().to_vec()), Some(ttl))
    }

    /// Adds a delete; the key need not exist.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.change(key.as_ref(), None, None)
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn change(mut self, key: &[u8], value: Option<Vec<u8>>, ttl: Option<Duration>) -> Self {
        self.changes.push(Change { key: key.to_vec(), value, ttl });
        self
    }

    /// Returns the changes, of each key only the last.
    fn into_changes(self) -> Vec<Change> {
        let mut last = HashMap::with_capacity(self.changes.len());
        for (at, change) in self.changes.iter().enumerate() {
            last.insert(change.key.as_slice(), at);
        }
        if last.len() == self.changes.len() {
            return self.changes;
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        let mut changes: Vec<Option<Change>> = self.changes.into_iter().map(Some).collect();
        kept.into_iter().filter_map(|at| changes.get_mut(at)?.take()).collect()
    }
}

impl Bitcask {
    /// Makes all changes of a batch, or none: after a crash too.
    ///
    /// Durable as the store's [`SyncPolicy`](crate::SyncPolicy) says, with one sync at the most. Readers may see a
    /// part of the changes while they are being published.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`BatchTooLarge`](Error::BatchTooLarge) if its entries do not fit in
    /// one segment of 512 MiB. Nothing was changed then.
    pub fn write(&self, batch: Batch) -> Result<()> {
        self.write_with(batch, WriteOptions::new())
    }

    /// Makes all changes of a batch, or none, with options of its own. A time to live is that of
    /// every put in the batch that has none.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_with(&self, batch: Batch, options: WriteOptions) -> Result<()> {
        self.inner.write_batch(&batch.into_changes(), options)
    }
}

/// A change of a batch whose old entry has been looked up.
struct Planned<'a> {
    hash: KeyHash,
    draft: Draft<'a>,
    old: Option<(Address, Located<'a>)>,
}

impl Inner {
    fn write_batch(&self, changes: &[Change], options: WriteOptions) -> Result<()> {
        let writer = self.writer()?;
        let guard = pin();
        let mut plan = Vec::with_capacity(changes.len());
        for Change { key, value, ttl } in changes {
            let hash = self.keydir.hash(key);
            self.keydir.prefetch(hash, &guard);
            let draft = self.draft(key, value.as_deref(), ttl.or(options.ttl))?;
            plan.push(Planned { hash, draft, old: None });
        }
        let mut shards = self.shards(plan.iter().map(|change| change.hash.shard()))?;
        // A key that is put here has a slot for the entries behind it in the batch.
        let mut put: HashSet<KeyHash> = HashSet::with_capacity(plan.len());
        let mut kept = Vec::with_capacity(plan.len());
        for mut change in plan {
            let key = change.draft.key();
            let found = self.find(shards.of(change.hash), change.hash, key, &guard)?;
            let tombstone = change.draft.header.is_tombstone();
            if tombstone && found.own.is_none() {
                continue;
            }
            let earlier = put.contains(&change.hash);
            if !tombstone {
                put.insert(change.hash);
            }
            let flags = &mut change.draft.header.flags;
            *flags = flags.with_if(found.others || earlier, Flags::COLLIDES);
            change.old = found.own;
            kept.push(change);
        }
        let Some(last) = kept.len().checked_sub(1) else {
            drop(shards);
            drop(guard);
            return self.settle_nothing(options);
        };
        let (mut drafts, changes): (Vec<_>, Vec<_>) =
            kept.into_iter().map(|change| (change.draft, (change.hash, change.old))).unzip();
        for (at, draft) in drafts.iter_mut().enumerate() {
            draft.header.flags = draft.header.flags.with_if(at != last, Flags::CONTINUES);
        }
        let size = drafts.iter().map(|draft| draft.header.entry_size()).sum();
        // A single entry may be larger: it starts where it can be addressed.
        if last > 0 && size > BATCH_SIZE_LIMIT {
            return Err(Error::BatchTooLarge { size, limit: BATCH_SIZE_LIMIT });
        }
        let appended = self.append(&mut writer.log.lock(), &mut drafts)?;
        let segment = self.segments.get(appended.number, &guard);
        let addresses = appended.addresses(&drafts);
        for (((hash, old), draft), new) in changes.iter().zip(&drafts).zip(addresses) {
            let new = (!draft.header.is_tombstone()).then_some(new);
            publish(shards.of(*hash), *hash, old.as_ref(), new, segment, appended.timestamp);
        }
        drop((shards, changes));
        drop(guard);
        self.settle(&appended, options)
    }
}
