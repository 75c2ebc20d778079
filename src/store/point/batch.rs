//! Batches: several changes that are applied atomically.
//!
//! - `Batch` collects the changes; `conditional` applies them.
//! - If a batch changes a key more than once, only the last change is applied.

use std::collections::HashMap;
use std::fmt;

use crate::error::Result;
use crate::key_hash::{KeyHash, has_twins};
use crate::options::{Lifetime, WriteOptions};
use crate::segment::write::draft::Draft;
use crate::store::Bitcask;

/// Puts and deletes that [`Bitcask::write`](crate::Bitcask::write) applies atomically: all of them
/// or none.
///
/// If a batch changes a key several times, only the last change is applied. The entries of a batch
/// must fit in one segment of at most 512 MiB. Writing takes the batch by reference, so the same
/// batch can be written again: to retry when the disk was full, or to another store.
///
/// ```
/// use bitcask::{Batch, Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("b", "0")?;
/// db.write(Batch::new().put("a", "1").delete("b"))?;
///
/// // Pairs can be collected, and more changes added afterwards.
/// let mut batch: Batch = (0..100_u32).map(|number| (number.to_be_bytes(), "x")).collect();
/// batch.put("c", "2");
/// db.write(&batch)?;
/// assert_eq!(db.len()?, 102);
/// # db.close()
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use = "a batch does nothing until it is written"]
pub struct Batch {
    changes: Vec<BatchChange>,
    /// The keys and values, one after the other.
    bytes: Vec<u8>,
    /// Total size of the entries in the log, in bytes.
    size: u64,
}

/// One change of a key. Its key and its value are in the bytes of the batch, next to each other.
#[derive(Clone)]
struct BatchChange {
    start: usize,
    key_size: usize,
    /// `None` for a delete.
    value_size: Option<usize>,
    options: WriteOptions,
}

/// The last change of a key in a batch.
struct LastChange<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    hash: KeyHash,
    /// The options that result from all changes of the key.
    options: WriteOptions,
}

impl Batch {
    /// Returns an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.put_opt(key, value, WriteOptions::new())
    }

    /// Adds a put with its own options. A time to live counts from the moment the batch is written.
    /// One [durable](WriteOptions::durable) put makes the whole batch durable,
    /// unless [`write_opt`](crate::Bitcask::write_opt) says otherwise.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Batch, Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let hour = WriteOptions::new().ttl(Duration::from_secs(3600));
    /// db.write(Batch::new().put("user", "ann").put_opt("session", "token", hour))?;
    /// assert_eq!(db.ttl("user")?, Some(Ttl::Never));
    /// assert!(matches!(db.ttl("session")?, Some(Ttl::In(_))));
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "setex")]
    pub fn put_opt(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: WriteOptions,
    ) -> &mut Self {
        self.change(key.as_ref(), Some(value.as_ref()), options)
    }

    /// Adds a delete; the key need not exist.
    #[doc(alias = "remove")]
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.change(key.as_ref(), None, WriteOptions::new())
    }

    /// Removes all changes, and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.bytes.clear();
        self.size = 0;
    }

    /// Returns the number of changes. Several changes of one key all count.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the number of bytes that the entries of all changes occupy in the log: headers,
    /// keys, values and padding.
    ///
    /// Writing the batch takes less space if it changes a key several times, if it deletes an
    /// absent key, or if values are compressed. It takes 8 bytes more for each put whose time to
    /// live comes from the options of the batch or the store, and 8 more for a mark that the log
    /// may add.
    ///
    /// ```
    /// # use bitcask::Batch;
    /// let mut batch = Batch::new();
    /// assert_eq!(batch.size(), 0);
    /// batch.put("key", "value").delete("other");
    /// assert_eq!(batch.size(), 32 + 32);
    /// ```
    pub fn size(&self) -> u64 {
        self.size
    }

    fn change(&mut self, key: &[u8], value: Option<&[u8]>, options: WriteOptions) -> &mut Self {
        let expires = options.lifetime != Lifetime::OfStore;
        self.size += Draft::put_size(key, value.unwrap_or_default(), expires);
        let (start, value_size) = (self.bytes.len(), value.map(<[u8]>::len));
        self.changes.push(BatchChange { start, key_size: key.len(), value_size, options });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self
    }

    /// Returns the key and the value of a change.
    fn key_and_value(&self, change: &BatchChange) -> (&[u8], Option<&[u8]>) {
        let (key, rest) = self
            .bytes
            .get(change.start..)
            .and_then(|bytes| bytes.split_at_checked(change.key_size))
            .unwrap_or_default();
        (key, change.value_size.map(|size| rest.get(..size).unwrap_or_default()))
    }

    /// Returns all changes: the key, the value, which is `None` for a delete, and the options.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>, WriteOptions)> {
        self.changes.iter().map(|change| {
            let (key, value) = self.key_and_value(change);
            (key, value, change.options)
        })
    }

    /// Returns the last change of each key.
    fn last_changes(&self, hash: impl Fn(&[u8]) -> KeyHash) -> Vec<LastChange<'_>> {
        let changes = self.changes().map(|(key, value, options)| LastChange {
            key,
            value,
            hash: hash(key),
            options,
        });
        let changes: Vec<_> = changes.collect();
        let hashes: Vec<_> = changes.iter().map(|change| change.hash).collect();
        if has_twins(&hashes) { without_earlier(changes) } else { changes }
    }

    /// Returns whether any change makes the whole batch durable.
    pub(crate) fn asks_to_be_durable(&self) -> bool {
        self.changes.iter().any(|change| change.options.durable == Some(true))
    }
}

/// Removes all changes of a key but the last, which takes over their options.
fn without_earlier(mut changes: Vec<LastChange<'_>>) -> Vec<LastChange<'_>> {
    let mut last = HashMap::with_capacity(changes.len());
    for (at, change) in changes.iter_mut().enumerate() {
        if let Some((_, earlier, is_put)) = last.get(change.key) {
            change.options = change.options.following(*earlier, *is_put);
        }
        last.insert(change.key, (at, change.options, change.value.is_some()));
    }
    let mut at = 0;
    changes.retain(|change| {
        let is_last = last.get(change.key).is_some_and(|(last_at, ..)| *last_at == at);
        at += 1;
        is_last
    });
    changes
}

/// Shows only sizes: keys and values may be large, and they are private.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Adds a put for each pair.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(K, V)> for Batch {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        let pairs = pairs.into_iter();
        self.changes.reserve(pairs.size_hint().0);
        for (key, value) in pairs {
            self.put(key, value);
        }
    }
}

/// Creates a batch with a put for each pair.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(K, V)> for Batch {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut batch = Self::new();
        batch.extend(pairs);
        batch
    }
}

impl Bitcask {
    /// Applies all changes of a batch, or none of them, even after a crash.
    ///
    /// Durability follows the store's [`SyncPolicy`](crate::SyncPolicy), with at most one sync.
    /// Separate [`get`](crate::Reader::get) calls may observe part of a batch that is being
    /// written; a [`snapshot`](crate::Reader::snapshot) or a [`transaction`](Self::transaction)
    /// never does.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and [`BatchTooLarge`](crate::Error::BatchTooLarge) if the entries do
    /// not fit in one segment of 512 MiB. In that case nothing is changed.
    ///
    /// ```
    /// # use bitcask::{Batch, Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let batch: Batch = [("a", "1"), ("b", "2")].into_iter().collect();
    /// if let Err(error) = db.write(&batch) {
    ///     if !error.is_no_space() {
    ///         return Err(error);
    ///     }
    ///     db.delete("something large")?;
    ///     db.write(&batch)?;
    /// }
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "apply_batch")]
    pub fn write(&self, batch: &Batch) -> Result<()> {
        self.write_opt(batch, WriteOptions::new())
    }

    /// Applies a batch like [`write`](Self::write), with options. A time to live applies to every
    /// put in the batch that sets none itself.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Batch, Bitcask, Options, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let options = WriteOptions::new().ttl(Duration::from_secs(60)).durable(true);
    /// db.write_opt(Batch::new().put("lock/a", "ann").put("lock/b", "ann"), options)?;
    /// # db.close()
    /// # }
    /// ```
    pub fn write_opt(&self, batch: &Batch, mut options: WriteOptions) -> Result<()> {
        let inner = &self.inner;
        inner.writer()?;
        if options.durable.is_none() && batch.asks_to_be_durable() {
            options.durable = Some(true);
        }
        let changes = batch.last_changes(|key| inner.keydir.hash(key));
        let drafts = changes.iter().map(|change| {
            let options = options.of_change(change.options);
            inner.draft(change.hash, change.key, change.value, options)
        });
        let drafts = drafts.collect::<Result<_>>()?;
        inner.change_atomically(&[], drafts, options, |_| Ok(true))?;
        Ok(())
    }
}
