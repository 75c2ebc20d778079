//! Optimistic transactions: read from a snapshot, write to memory, and make all changes at once if
//! nothing that was read has changed since.
//!
//! - What is read is noted ([`reads`]): keys with the times of their entries, and spans of ranges as
//!   far as they were gone through. At the end the keys are compared with the keydir, under the locks
//!   of their shards, and the spans with what was appended since the snapshot, under the lock of the
//!   log. So all that was read is as it was at the moment of the append, which is the transaction's
//!   place in the order of all.
//! - Where a merge or a clear has removed a part of what was appended, the spans are read again in a
//!   snapshot of the present. If they show the same, that is the moment to go on from.
//! - A transaction that writes nothing takes place at its snapshot, and is never run twice.
//! - No lock is held while a caller's closure runs.

mod range;
mod reads;
mod ttl;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use range::TransactionRange;

use super::snapshot::Snapshot;
use super::{Bitcask, Inner};
use crate::error::{Error, Result};
use crate::options::{TransactionOptions, WriteOptions};
use crate::segment::StoredEntry;
use crate::segment::index::Bounds;
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::scan::key_range::{KeyRange, prefix_bounds};
use crate::sync::{sleep, yield_now};
use crate::value::Value;
use reads::{Reads, SpanCheck};

/// What a key is to be.
#[derive(Debug, Clone)]
struct Write {
    /// Nothing for a delete.
    value: Option<Value>,
    options: WriteOptions,
}

/// Keys by their order.
type Writes = BTreeMap<Vec<u8>, Write>;

impl Bitcask {
    /// Runs a closure that reads and writes the store as if nobody else did, and makes all that it
    /// wrote at once, or nothing of it.
    ///
    /// The closure reads a [`snapshot`](crate::Reader::snapshot) and what it has written itself. If anything
    /// that it has read was changed by others when it ends, it is run again, on a new snapshot; so it
    /// should do nothing but read, compute and write. Transactions are serializable: each acts as if
    /// it ran alone, at one moment, in the order in which they were made. Other writes count as
    /// transactions of one write.
    ///
    /// If the closure returns an error nothing is written, and the error returned. Durable as the
    /// store's [`SyncPolicy`](crate::SyncPolicy) says. Costs a snapshot, memory for all that is read by key and
    /// written, and a comparison of all that was read: of keys by a look-up each, of ranges by a look
    /// at everything that others have written meanwhile. If a merge has removed some of that, what was read
    /// of ranges is read again; the closure is not run again for a merge.
    ///
    /// # Errors
    ///
    /// [`Conflict`](Error::Conflict) if a hundred attempts were not enough; as [`write`](Self::write),
    /// [`BatchTooLarge`](Error::BatchTooLarge) among them; and whatever the closure returns.
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

    /// Runs a [`transaction`](Self::transaction) with options of its own: how often it may be run, and
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
            give_way(attempt);
        }
        Err(Error::Conflict { attempts: options.attempts })
    }
}

/// Lets others get on, the longer the more often they were in the way.
pub(super) fn give_way(attempt: u32) {
    match attempt {
        0..4 => yield_now(),
        _ => sleep(Duration::from_micros(u64::from(attempt.min(100)) * 10)),
    }
}

fn drafts_of<'a>(inner: &Inner, writes: &'a Writes) -> Result<Vec<Draft<'a>>> {
    let draft = |(key, write): (&'a Vec<u8>, &'a Write)| {
        inner.draft(key, write.value.as_deref(), write.options)
    };
    writes.iter().map(draft).collect()
}

/// The store as a transaction sees it, from [`Bitcask::transaction`].
#[derive(Debug)]
pub struct Transaction {
    snapshot: Snapshot,
    writes: Writes,
    /// Reading changes it.
    reads: RefCell<Reads>,
}

impl Transaction {
    fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, writes: Writes::new(), reads: RefCell::default() }
    }

    /// Returns the value of a key, or `None` if it is absent or expired: what this transaction has
    /// written, or what was there when it began.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get).
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = key.as_ref();
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value.clone());
        }
        let (view, guard) = (&self.snapshot.view, self.snapshot.view.inner.pin());
        let stored = view.lookup(key, &guard)?;
        let timestamp = stored.as_ref().map(StoredEntry::timestamp);
        let value = stored.map(|stored| view.inner.value(&stored)).transpose()?;
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(value)
    }

    /// Returns whether a key is there, without a copy or a check of its value.
    ///
    /// # Errors
    ///
    /// As [`Reader::get`](crate::Reader::get), if the key itself can't be read.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        if let Some(write) = self.writes.get(key) {
            return Ok(write.value.is_some());
        }
        let guard = self.snapshot.view.inner.pin();
        let stored = self.snapshot.view.lookup(key, &guard)?;
        let timestamp = stored.map(|stored| stored.timestamp());
        self.reads.borrow_mut().note_key(key, timestamp);
        Ok(timestamp.is_some())
    }

    /// Returns an iterator over the keys of a range and their values, in order, from both ends. What
    /// counts as read is the part that it has gone through.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("job/1", "write")?;
    /// // Each job is taken once, whoever else takes jobs.
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
        self.range_of(bounds.into_bounds().into())
    }

    /// Returns an iterator over all keys that begin with some bytes and their values; see
    /// [`range`](Self::range).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> TransactionRange<'_> {
        self.range_of(prefix_bounds(prefix.as_ref()))
    }

    fn range_of(&self, bounds: Bounds) -> TransactionRange<'_> {
        TransactionRange::new(&self.snapshot, &self.writes, &self.reads, bounds)
    }

    /// Stores a value under a key when the transaction ends.
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_opt(key, value, WriteOptions::new());
    }

    /// Stores a value under a key when the transaction ends, with options of its own. A time to live
    /// counts from that moment, and [`keep_ttl`](WriteOptions::keep_ttl) keeps the one that the key has
    /// then. One put that asks to be [durable](WriteOptions::durable) makes the whole transaction
    /// durable.
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

    /// Removes a key when the transaction ends; it need not be there.
    #[doc(alias = "remove")]
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.write(key.as_ref(), None, WriteOptions::new());
    }

    /// Forgets everything that was written so far.
    ///
    /// A closure that has a reason of its own to write nothing returns that, as a value:
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
    }

    /// Returns the snapshot that the transaction reads. What is read there does not count as read by
    /// the transaction.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>, options: WriteOptions) {
        let value = value.map(|value| Value::from(value.to_vec()));
        self.writes.insert(key.to_vec(), Write { value, options });
    }

    /// Makes the changes if all that was read is as it was; says whether it is.
    fn commit(self, inner: &Arc<Inner>, options: TransactionOptions) -> Result<bool> {
        inner.here()?;
        let Self { mut snapshot, writes, reads } = self;
        if writes.is_empty() {
            return Ok(true);
        }
        let reads = reads.into_inner();
        let conditions: Vec<Condition<'_>> = reads
            .keys()
            .map(|(key, timestamp)| Condition { key, expected: Expected::Unchanged(timestamp) })
            .collect();
        let mut settings = WriteOptions::new();
        let asks_to_be_durable = |write: &Write| write.options.durable == Some(true);
        let is_asked = writes.values().any(asks_to_be_durable);
        settings.durable = options.durable.or(is_asked.then_some(true));
        for _ in 0..options.attempts {
            // What does not hold before the second look has changed.
            let mut is_gone = false;
            match reads.look_ahead(inner, snapshot.position())? {
                SpanCheck::Changed => {}
                SpanCheck::Gone => is_gone = true,
                SpanCheck::Same(looked) => {
                    let drafts = drafts_of(inner, &writes)?;
                    let is_made =
                        inner.change_atomically(&conditions, drafts, settings, |log| {
                            let found = reads.hold(inner, &looked, log)?;
                            is_gone = matches!(found, SpanCheck::Gone);
                            Ok(matches!(found, SpanCheck::Same(())))
                        })?;
                    if is_made {
                        return Ok(true);
                    }
                }
            }
            if !is_gone {
                return Ok(false);
            }
            // Whatever it was that is gone, what was read may be as it was.
            let present = Snapshot { view: Arc::new(Inner::view(inner)) };
            if !reads.show_the_same(&snapshot, &present)? {
                return Ok(false);
            }
            snapshot = present;
        }
        Ok(false)
    }
}
