//! Several changes that happen together or not at all.
//!
//! - A batch gathers changes; `atomic` makes them.
//! - Of the changes of one key only the last is made.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::Result;
use crate::options::WriteOptions;
use crate::store::Bitcask;

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
/// assert_eq!(db.len()?, 101);
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a batch does nothing before it is written"]
pub struct Batch {
    changes: Vec<BatchChange>,
}

/// One change of a key.
#[derive(Debug, Clone)]
struct BatchChange {
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
        self.changes.push(BatchChange { key: key.to_vec(), value, ttl });
        self
    }

    /// Returns the changes, of each key only the last.
    fn into_changes(self) -> Vec<BatchChange> {
        let mut last = HashMap::with_capacity(self.changes.len());
        for (at, change) in self.changes.iter().enumerate() {
            last.insert(change.key.as_slice(), at);
        }
        if last.len() == self.changes.len() {
            return self.changes;
        }
        let mut kept: Vec<usize> = last.into_values().collect();
        kept.sort_unstable();
        let mut changes: Vec<Option<BatchChange>> = self.changes.into_iter().map(Some).collect();
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
    /// As [`put`](Self::put); [`BatchTooLarge`](crate::Error::BatchTooLarge) if its entries do not fit in
    /// one segment of 512 MiB. Nothing was changed then.
    pub fn write(&self, batch: Batch) -> Result<()> {
        self.write_opt(batch, WriteOptions::new())
    }

    /// Makes all changes of a batch, or none, with options of its own. A time to live is that of
    /// every put in the batch that has none.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_opt(&self, batch: Batch, options: WriteOptions) -> Result<()> {
        let inner = &self.inner;
        inner.writer()?;
        let changes = batch.into_changes();
        let drafts = changes.iter().map(|BatchChange { key, value, ttl }| {
            inner.draft(key, value.as_deref(), ttl.or(options.ttl))
        });
        let drafts = drafts.collect::<Result<_>>()?;
        inner.change_atomically(&[], drafts, options, |_| Ok(true))?;
        Ok(())
    }
}
