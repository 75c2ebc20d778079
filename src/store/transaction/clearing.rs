//! A transaction that removes all keys, without having read any.
//!
//! - Until the commit, [`Clearing`] only notes that the transaction began anew: whatever it reads
//!   after that is absent unless it has written it since. So it can't conflict over keys that it
//!   merely removes.
//! - The commit gathers the keys: first those that slots name and everything appended meanwhile,
//!   without a lock; then, with all shards locked, the rest. From then on nothing is appended, so
//!   no key is missed.
//! - The deletes are entries of the same batch as the transaction's other changes. If they do not
//!   fit into one, the commit finds that before it locks anything, and gathers no more keys.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::fmt;
use std::panic::UnwindSafe;
use std::sync::Arc;

use super::reads::{Looked, log_segments, look};
use super::{Snapshot, Transaction, Write, Writes, drafts_of};
use crate::error::{Error, Result};
use crate::log::{BATCH_SIZE_LIMIT, Log};
use crate::options::WriteOptions;
use crate::segment::StoredEntry;
use crate::segment::index::Bounds;
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::Condition;
use crate::store::scan::entries::Entries;
use crate::store::{Inner, Position};

/// Gets the position before the batch in which a clear deletes keys, just before it is appended.
pub(crate) type ClearNote = Box<dyn FnMut(Position) + Send + UnwindSafe>;

/// That a transaction has removed all keys.
pub(super) struct Clearing {
    note: Option<ClearNote>,
}

impl fmt::Debug for Clearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clearing").finish_non_exhaustive()
    }
}

impl Clearing {
    /// Deletes all keys, and applies the writes made since, if the conditions hold and `validate`
    /// agrees. Returns whether they do. Sets `is_gone` if the log was cut off meanwhile, so that
    /// another attempt is needed to know all keys.
    pub(super) fn commit(
        &mut self,
        inner: &Arc<Inner>,
        conditions: &[Condition<'_>],
        writes: &Writes,
        settings: WriteOptions,
        validate: impl FnOnce(&Log) -> Result<bool>,
        is_gone: &Cell<bool>,
    ) -> Result<bool> {
        let drafts = drafts_of(inner, writes)?;
        let puts = drafts.iter().filter(|draft| !draft.header.is_tombstone());
        let size = puts.map(|draft| draft.header.entry_size()).sum();
        let Some(cleared) = ClearedKeys::gather(inner, writes, size, BATCH_SIZE_LIMIT)? else {
            is_gone.set(true);
            return Ok(false);
        };
        let complete = |log: &Log, drafts: &mut Vec<_>| {
            let is_complete = cleared.complete(inner, writes, log, drafts)?;
            is_gone.set(!is_complete);
            Ok(is_complete)
        };
        let note = |before, drafts: &[Draft<'_>]| self.report(before, drafts);
        inner.change_all(conditions, drafts, settings, complete, validate, note)
    }

    /// Reports changes that are about to be appended behind a position, if there are deletes
    /// among them.
    fn report(&mut self, before: Position, drafts: &[Draft<'_>]) {
        if let Some(note) = &mut self.note
            && drafts.iter().any(|draft| draft.header.is_tombstone())
        {
            note(before);
        }
    }
}

impl Transaction {
    /// Removes all keys when the transaction commits, and discards all writes so far. Afterwards,
    /// the transaction sees its own later writes only.
    ///
    /// This reads nothing: whatever others write meanwhile is removed too, and causes no conflict.
    /// Reads made before still count. The commit deletes each key, within the limits of a
    /// [batch](crate::Batch), and all other writes wait for it. It needs memory for all keys. If
    /// they do not fit into one batch, it fails with
    /// [`BatchTooLarge`](crate::Error::BatchTooLarge). [`Bitcask::clear`] is faster and has no
    /// limit, but is no part of a transaction.
    ///
    /// [`Bitcask::clear`]: crate::Bitcask::clear
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("old", "1")?;
    /// // Nobody sees the store without a generation.
    /// db.transaction(|tx| {
    ///     tx.clear();
    ///     tx.put("generation", "2");
    ///     Ok(())
    /// })?;
    /// assert_eq!(db.len()?, 1);
    /// # db.close()
    /// # }
    /// ```
    pub fn clear(&mut self) {
        self.clear_noting(None);
    }

    /// Like `clear`. `note` gets the position before the commit, with all shards and the log
    /// locked, unless there is nothing to delete. The next batch behind it is the commit's, unless
    /// the commit fails after that.
    pub(crate) fn clear_noting(&mut self, note: Option<ClearNote>) {
        self.rollback();
        self.clearing = Some(Clearing { note });
    }

    /// Returns the options of the last change of a key, and whether that is a put.
    pub(super) fn last_change(&self, key: &[u8]) -> Option<(WriteOptions, bool)> {
        let of_write = |write: &Write| (write.options, write.value.is_some());
        // A clear is a delete of every key.
        let of_clear = || self.clearing.is_some().then(|| (WriteOptions::new(), false));
        self.writes.get(key).map(of_write).or_else(of_clear)
    }

    /// Returns the part of a range in which the transaction sees what others have written.
    pub(super) fn stored_part(&self, bounds: &Bounds) -> Bounds {
        if self.clearing.is_some() { Bounds::nothing() } else { bounds.clone() }
    }
}

/// The keys that a commit deletes because of a clear.
#[derive(Debug)]
struct ClearedKeys {
    /// Those that were found without a lock, without those that the transaction writes itself.
    keys: BTreeSet<Vec<u8>>,
    looked: Looked,
    /// Those that were found with all shards locked.
    late: OnceCell<Vec<Vec<u8>>>,
}

impl ClearedKeys {
    /// Gathers keys without a lock. Returns `None` if part of the log is gone, and an error if the
    /// deletes take more of a batch than `size` has left of `limit`, in bytes. A key that is
    /// deleted meanwhile may count.
    fn gather(
        inner: &Arc<Inner>,
        writes: &Writes,
        mut size: u64,
        limit: u64,
    ) -> Result<Option<Self>> {
        // Every key is there throughout the iteration, or was put after this moment.
        let since = Snapshot { view: Arc::new(Inner::view(inner)) }.position().place();
        let mut keys = BTreeSet::new();
        // Returns whether there are too many by now.
        let mut add = |key: &[u8]| {
            if !writes.contains_key(key) && keys.insert(key.to_vec()) {
                size += Draft::tombstone(key).header.entry_size();
            }
            // A single delete always fits.
            if size > limit && keys.len() + writes.len() > 1 {
                return Err(Error::BatchTooLarge { size, limit });
            }
            Ok(())
        };
        let mut entries = Entries::new(inner);
        // A clock that is ahead may be set back, and expired keys would return. A clock that is
        // given the time never goes back. Its expired keys are left out, since replicas differ in
        // which of them merges have removed, and have to agree on what fits into a batch.
        let is_given = inner.clock.is_given();
        loop {
            let add = |stored: &StoredEntry<'_>| add(stored.entry().key());
            let next = if is_given { entries.next(add) } else { entries.next_named(add) };
            let Some(added) = next else { break };
            added?;
        }
        let mut added = Ok(());
        let reached = look(&log_segments(inner), since, |key| {
            added = add(key);
            added.is_err()
        })?;
        added?;
        let looked = Looked { since, reached: reached.unwrap_or(since) };
        let this = Self { keys, looked, late: OnceCell::new() };
        Ok(this.looked.is_complete(inner).then_some(this))
    }

    /// Adds the deletes of all keys, with all shards locked. Returns `false` if part of the log is
    /// gone, so that keys may be missing.
    fn complete<'d>(
        &'d self,
        inner: &Inner,
        writes: &Writes,
        log: &Log,
        drafts: &mut Vec<Draft<'d>>,
    ) -> Result<bool> {
        let Some(segments) = self.looked.rest(inner, log) else { return Ok(false) };
        let mut late = BTreeSet::new();
        look(&segments, self.looked.reached, |key| {
            if !self.keys.contains(key) && !writes.contains_key(key) {
                late.insert(key.to_vec());
            }
            false
        })?;
        let late = self.late.get_or_init(|| late.into_iter().collect());
        drafts.extend(self.keys.iter().chain(late).map(|key| Draft::tombstone(key)));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::GivenTime;
    use crate::store::Env;
    use crate::{Bitcask, Options};

    #[test]
    fn keys_that_do_not_fit_into_a_batch_are_not_gathered() {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), Options::new()).unwrap();
        for number in 10..30 {
            db.put(format!("k{number}"), "v").unwrap();
        }
        let (writes, one) = (Writes::new(), Draft::tombstone(b"k10").header.entry_size());
        let gather = |size, limit| ClearedKeys::gather(&db.inner, &writes, size, limit);
        assert_eq!(gather(0, 20 * one).unwrap().unwrap().keys.len(), 20);
        // It ends at the first one that is too many.
        for (size, limit, expected) in [(0, 5 * one, 6 * one), (3 * one, 5 * one, 6 * one)] {
            let refused = gather(size, limit).unwrap_err();
            assert!(matches!(refused, Error::BatchTooLarge { size, .. } if size == expected));
        }
        db.delete_range("k11"..).unwrap();
        assert!(gather(0, one - 1).unwrap().is_some(), "one entry always fits");
    }

    /// Replicas would disagree: which expired keys still have slots depends on merges.
    #[test]
    fn keys_that_have_expired_by_a_given_time_are_not_gathered() {
        let (dir, time) = (tempfile::tempdir().unwrap(), GivenTime::default());
        let env = Env { clock: time.clock(), ..Env::default() };
        let db = Bitcask::open_on(&env, dir.path(), Options::new()).unwrap();
        time.advance_to(1_000_000);
        let second = WriteOptions::new().ttl(Duration::from_secs(1));
        db.put_opt("short", "v", second).unwrap();
        db.put("long", "v").unwrap();
        let gather =
            || ClearedKeys::gather(&db.inner, &Writes::new(), 0, u64::MAX).unwrap().unwrap();
        assert_eq!(gather().keys.len(), 2);
        time.advance_to(2_000_000);
        assert!(gather().keys.iter().eq(["long".as_bytes()]));
    }
}
