//! Optimistic transactions: they read from a snapshot, write to memory, and apply all changes
//! atomically if nothing that they read has changed since.
//!
//! - A transaction records what it reads ([`reads`]): keys with the timestamps of their entries,
//!   and ranges as far as they were iterated. The commit compares the keys with the keydir, under
//!   the locks of their shards, and the ranges with everything appended since the snapshot, under
//!   the lock of the log. So everything that was read is unchanged at the moment of the append,
//!   which is the transaction's place in the serial order.
//! - If a merge or a clear has removed part of what was appended, the ranges are read again in a
//!   new snapshot. If both snapshots show the same, the check continues from the new one.
//! - A transaction may remove all keys without having read them ([`clearing`]). Which ones these
//!   are is decided at the commit.
//! - A transaction that writes nothing takes effect at its snapshot and never runs twice.
//! - No lock is held while a caller's closure runs.

mod clearing;
mod range;
mod reads;
mod ttl;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use range::TransactionRange;

use super::snapshot::Snapshot;
use super::{Bitcask, Inner};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::options::{TransactionOptions, WriteOptions};
use crate::segment::StoredEntry;
use crate::segment::index::Bounds;
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::{KeyRange, prefix_bounds};
use crate::sync::{sleep, yield_now};
use crate::value::Value;
#[cfg(feature = "resp")]
pub(crate) use clearing::ClearNote;
use clearing::Clearing;
use reads::{Reads, SpanCheck};

/// Maximum number of times that one attempt to commit checks its ranges. A merge that removes the
/// history in between makes another check necessary, and is no conflict.
const CHECKS_MAX: u32 = 100;

/// The pending state of a key.
#[derive(Debug, Clone)]
struct Write {
    /// `None` for a delete.
    value: Option<Value>,
    options: WriteOptions,
}

/// Pending writes in key order.
type Writes = BTreeMap<Vec<u8>, Write>;

impl Bitcask {
    /// Runs a closure that reads and writes the store in isolation, and applies everything that it
    /// wrote atomically, or none of it.
    ///
    /// The closure reads from a [`snapshot`](crate::Reader::snapshot), and sees its own writes. If
    /// something that it has read was changed by others before it ends, it runs again on a new
    /// snapshot. So it should only read, compute and write. Transactions are serializable: each
    /// behaves as if it ran alone at one moment, in commit order. Every other write counts as a
    /// transaction with a single write.
    ///
    /// If the closure returns an error, nothing is written, and `transaction` returns that error. A
    /// transaction is as durable as the store's [`SyncPolicy`](crate::SyncPolicy) makes it.
    ///
    /// A transaction costs a snapshot, memory for the keys that it reads and for everything that it
    /// writes, and a check of everything that it has read: a lookup for each key, and for ranges a
    /// scan of everything that others have written meanwhile. If a merge has removed part of that,
    /// the ranges are read again, but the closure does not run again because of a merge.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) after a hundred unsuccessful attempts; the errors of
    /// [`write`](Self::write), including [`BatchTooLarge`](Error::BatchTooLarge); and any error
    /// that the closure returns.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("alice", [100])?;
    /// db.put("bob", [0])?;
    /// let moved = db.transaction(|tx| {
    ///     let (alice, bob) = (tx.get("alice")?.unwrap()[0], tx.get("bob")?.unwrap()[0]);
    ///     if alice < 30 {
    ///         return Ok(false);
    ///     }
    ///     tx.put("alice", [alice - 30]);
    ///     tx.put("bob", [bob + 30]);
    ///     Ok(true)
    /// })?;
    /// assert!(moved);
    /// assert_eq!(db.get("bob")?.unwrap(), [30]);
    /// # db.close()
    /// # }
    /// ```
    pub fn transaction<T>(&self, run: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.transaction_opt(TransactionOptions::new(), run)
    }

    /// Runs a [`transaction`](Self::transaction) with options: the maximum number of attempts, and
    /// whether to wait for durability.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub fn transaction_opt<T>(
        &self,
        options: TransactionOptions,
        mut run: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        options.check()?;
        self.inner.writer()?;
        for attempt in 0..options.attempts {
            let mut transaction = Transaction::new(self.snapshot());
            let result = run(&mut transaction)?;
            if transaction.commit(&self.inner, options)? {
                return Ok(result);
            }
            self.inner.pin().count_conflict();
            back_off(attempt);
        }
        Err(Error::Conflict { attempts: options.attempts })
    }
}

/// Yields to other threads, for longer after each conflict.
pub(super) fn back_off(attempt: u32) {
    match attempt {
        0..4 => yield_now(),
        _ => sleep(Duration::from_micros(u64::from(attempt.min(100)) * 10)),
    }
}

fn drafts_of<'a>(inner: &Inner, writes: &'a Writes) -> Result<Vec<Draft<'a>>> {
    let draft = |(key, write): (&'a Vec<u8>, &'a Write)| {
        inner.draft(inner.keydir.hash(key), key, write.value.as_deref(), write.options)
    };
    writes.iter().map(draft).collect()
}

/// A transaction's view of the store, from [`Bitcask::transaction`].
pub struct Transaction {
    snapshot: Snapshot,
    writes: Writes,
    /// Reads through `&self` record themselves here.
    reads: RefCell<Reads>,
    /// Whether all keys were removed, before the writes.
    clearing: Option<Clearing>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("snapshot", &self.snapshot)
            .field("writes", &self.writes.len())
            .finish_non_exhaustive()
    }
}

impl Transaction {
    fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, writes: Writes::new(), reads: RefCell::default(), clearing: None }
    }

    /// Returns the value of a key, or `None` if it is absent or expired. Returns what this
    /// transaction has written, or else what existed when it began.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value.clone());
        }
        if self.clearing.is_some() {
            return Ok(None);
        }
        let (view, guard) = (&self.snapshot.view, self.snapshot.view.pin()?);
        let (stored, value) = view.get(key, &guard)?.unzip();
        let timestamp = stored.as_ref().map(StoredEntry::timestamp);
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(value)
    }

    /// Returns whether a key exists and has not expired, without copying or verifying its value.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself cannot be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value.is_some());
        }
        if self.clearing.is_some() {
            return Ok(false);
        }
        let guard = self.snapshot.view.pin()?;
        let stored = self.snapshot.view.seek(key, &guard)?;
        let timestamp = stored.map(|stored| stored.timestamp());
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(timestamp.is_some())
    }

    /// Returns an iterator over the keys in a range and their values, in order. It can be read from
    /// both ends. Only the part that was iterated counts as read.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("job/1", "write")?;
    /// // Each job is taken only once, even if others take jobs concurrently.
    /// let job = db.transaction(|tx| {
    ///     let Some((key, job)) = tx.prefix("job/").next().transpose()? else { return Ok(None) };
    ///     tx.delete(&key);
    ///     Ok(Some(job))
    /// })?;
    /// assert_eq!(job.unwrap(), "write");
    /// # db.close()
    /// # }
    /// ```
    pub fn range(&self, bounds: impl KeyRange) -> TransactionRange<'_> {
        self.range_of(&bounds.into_bounds().into())
    }

    /// Returns an iterator over all keys with a prefix and their values; see
    /// [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> TransactionRange<'_> {
        self.range_of(&prefix_bounds(prefix.as_ref()))
    }

    fn range_of(&self, bounds: &Bounds) -> TransactionRange<'_> {
        let stored = self.stored_part(bounds);
        TransactionRange::new(&self.snapshot, &self.writes, &self.reads, bounds, stored)
    }

    /// Stores a value under a key when the transaction commits.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_opt(key, value, WriteOptions::new());
    }

    /// Stores a value under a key when the transaction commits, with options. A time to live counts
    /// from the commit, and [`keep_ttl`](WriteOptions::keep_ttl) keeps the one that the key has at
    /// that moment. One [durable](WriteOptions::durable) put makes the whole transaction
    /// durable, unless its options say otherwise.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let hour = WriteOptions::new().ttl(Duration::from_secs(3600));
    /// db.transaction(|tx| {
    ///     tx.put_opt("session", "token", hour);
    ///     Ok(())
    /// })?;
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
    ) {
        self.write(key.as_ref(), Some(value.as_ref()), options);
    }

    /// Removes a key when the transaction commits. The key does not have to exist.
    #[doc(alias = "remove")]
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.write(key.as_ref(), None, WriteOptions::new());
    }

    /// Discards all writes so far.
    ///
    /// A closure that decides not to write anything can return its reason as a value:
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// let outcome: Result<(), &str> = db.transaction(|tx| {
    ///     tx.put("order", "paid");
    ///     if !tx.contains_key("stock")? {
    ///         tx.rollback();
    ///         return Ok(Err("sold out"));
    ///     }
    ///     Ok(Ok(()))
    /// })?;
    /// assert_eq!(outcome, Err("sold out"));
    /// assert!(!db.contains_key("order")?);
    /// # db.close()
    /// # }
    /// ```
    pub fn rollback(&mut self) {
        self.writes.clear();
        self.clearing = None;
    }

    /// Returns the snapshot that the transaction reads from. Reads made directly through it do not
    /// count as read by the transaction.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns the size of the value that this transaction has put under a key, or 0.
    #[cfg(feature = "resp")]
    pub(crate) fn put_size(&self, key: &[u8]) -> usize {
        self.writes.get(key).and_then(|write| write.value.as_ref()).map_or(0, |value| value.len())
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>, options: WriteOptions) {
        let value = value.map(|value| Value::from(value.to_vec()));
        let options = match self.last_change(key) {
            Some((earlier, is_put)) => options.following(earlier, is_put),
            None => options,
        };
        self.writes.insert(key.to_vec(), Write { value, options });
    }

    /// Applies the changes if everything that was read is unchanged. Returns whether it is.
    fn commit(self, inner: &Arc<Inner>, options: TransactionOptions) -> Result<bool> {
        inner.here()?;
        let Self { mut snapshot, writes, reads, mut clearing } = self;
        if writes.is_empty() && clearing.is_none() {
            return Ok(true);
        }
        let reads = reads.into_inner();
        let conditions: Vec<Condition<'_>> = reads
            .keys()
            .map(|(key, timestamp)| Condition { key, expected: Expected::Unchanged(timestamp) })
            .collect();
        let mut settings = WriteOptions::new();
        let asks_to_be_durable = |write: &Write| write.options.durable == Some(true);
        let wants_durable = writes.values().any(asks_to_be_durable);
        settings.durable = options.durable.or(wants_durable.then_some(true));
        for _ in 0..CHECKS_MAX {
            // Stays `false` if something has changed before the second check of the ranges.
            let is_gone = Cell::new(false);
            match reads.look_ahead(inner, snapshot.position())? {
                SpanCheck::Changed => {}
                SpanCheck::Gone => is_gone.set(true),
                SpanCheck::Same(looked) => {
                    let validate = |log: &Log| {
                        let found = reads.hold(inner, &looked, log)?;
                        is_gone.set(matches!(found, SpanCheck::Gone));
                        Ok(matches!(found, SpanCheck::Same(())))
                    };
                    let is_made = match &mut clearing {
                        None => {
                            let drafts = drafts_of(inner, &writes)?;
                            inner.change_atomically(&conditions, drafts, settings, validate)?
                        }
                        Some(clearing) => clearing.commit(
                            inner,
                            &conditions,
                            &writes,
                            settings,
                            validate,
                            &is_gone,
                        )?,
                    };
                    if is_made {
                        return Ok(true);
                    }
                }
            }
            if !is_gone.get() {
                return Ok(false);
            }
            // The history is gone, but what was read may still be unchanged.
            let present = Snapshot { view: Arc::new(Inner::view(inner)) };
            if !reads.show_the_same(&snapshot, &present)? {
                return Ok(false);
            }
            snapshot = present;
        }
        Ok(false)
    }
}
