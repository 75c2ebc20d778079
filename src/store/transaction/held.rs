//! Transactions that the caller holds, instead of running a closure: [`begin`](Bitcask::begin) and
//! [`commit`](Bitcask::commit).
//!
//! - The caller decides whether to try again after a conflict, and how long to wait before that.

use std::sync::Arc;

use super::Transaction;
use crate::error::{Error, Result};
use crate::options::{KEY_SIZE_LIMIT, TransactionOptions};
use crate::store::Bitcask;
use crate::store::scan::entries::Entries;

impl Bitcask {
    /// Begins a transaction that is not bound to a closure, for code that can't run in one: a
    /// binding to another language, or a function that awaits something. It reads and writes as in
    /// [`transaction`](Self::transaction), and nothing is written before it is
    /// [committed](Self::commit). Dropping it discards everything.
    ///
    /// It pins segments as a [`snapshot`](crate::Reader::snapshot) does, and may outlive the store.
    /// The longer it takes, the more likely is a conflict.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, TransactionOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let mut first = db.begin();
    /// let mut second = db.begin();
    /// for tx in [&mut first, &mut second] {
    ///     if !tx.contains_key("leader")? {
    ///         tx.put("leader", "me");
    ///     }
    /// }
    /// assert!(db.commit(first, TransactionOptions::new())?);
    /// // The key that it found absent exists by now.
    /// assert!(!db.commit(second, TransactionOptions::new())?);
    /// # db.close()
    /// # }
    /// ```
    pub fn begin(&self) -> Transaction {
        Transaction::new(self.snapshot())
    }

    /// Commits a transaction that [`begin`](Self::begin) has returned, unless something that it has
    /// read was changed by others. Returns whether it is committed. If not, nothing was written,
    /// and the caller can begin another one.
    ///
    /// The number of attempts in the options has no effect.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write), and [`InvalidOption`](Error::InvalidOption) for a
    /// transaction of another store.
    pub fn commit(&self, transaction: Transaction, options: TransactionOptions) -> Result<bool> {
        options.check()?;
        self.inner.writer()?;
        let owner = &transaction.snapshot.view.inner;
        if !Arc::ptr_eq(owner, &self.inner) {
            let value = format!("of {}", owner.dir.path().display());
            let reason = "it can only be committed to the store that it was begun on";
            return Err(Error::InvalidOption { name: "transaction", value, reason });
        }
        let is_committed = transaction.commit(&self.inner, options)?;
        if !is_committed {
            self.inner.pin().count_conflict();
        }
        Ok(is_committed)
    }
}

impl Transaction {
    /// Returns the size of the keys and values that the transaction writes so far, in bytes, plus
    /// `each` for every write. If it has removed all keys, each key that has not expired counts as
    /// a write, and all of them are read.
    ///
    /// Neither compression nor the keys that a merge will remove have an influence. So replicas
    /// arrive at the same size, as long as nothing else writes.
    #[cfg_attr(not(feature = "raft"), expect(dead_code, reason = "only state machines limit it"))]
    pub(crate) fn write_size(&self, each: u64) -> Result<u64> {
        let sizes = self.writes.iter().map(|(key, write)| {
            let value = write.value.as_ref().map_or(0, |value| value.len());
            (key.len() + value) as u64 + each
        });
        let mut size: u64 = sizes.sum();
        if self.clearing.is_some() {
            let mut entries = Entries::new(&self.snapshot.view.inner);
            while let Some(added) = entries.next(|stored| {
                let key = stored.entry().key();
                Ok(if self.writes.contains_key(key) { 0 } else { key.len() as u64 + each })
            }) {
                size = size.saturating_add(added?);
            }
        }
        Ok(size)
    }

    /// Returns an error if a key or a value that the transaction puts is larger than a limit.
    #[cfg_attr(not(feature = "raft"), expect(dead_code, reason = "only state machines limit it"))]
    pub(crate) fn check_sizes(&self, key_limit: u64, value_limit: u64) -> Result<()> {
        for (key, write) in &self.writes {
            // A key that was put under a higher limit can still be deleted.
            let limit = write.value.as_ref().map_or(KEY_SIZE_LIMIT, |_| key_limit);
            let size = key.len() as u64;
            if size > limit {
                return Err(Error::KeyTooLarge { size, limit });
            }
            let (size, limit) = (write.value.as_ref().map_or(0, |it| it.len()) as u64, value_limit);
            if size > limit {
                return Err(Error::ValueTooLarge { size, limit });
            }
        }
        Ok(())
    }
}
