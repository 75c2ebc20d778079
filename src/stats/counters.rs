//! What a store has done since it was opened.

use super::Histogram;

/// What a store has done since it was opened, from
/// [`Reader::counters`](crate::Reader::counters).
///
/// All counts are totals that never decrease while the store is open. For rates, subtract two of
/// them with [`since`](Self::since). For the state of the store, such as its size and number of
/// segments, see [`Stats`](crate::Stats). In a store that was opened read-only, all figures except
/// those of gets are 0.
///
/// # Gets
///
/// A get is a call that looks up one key: `get`, `get_with`, `get_into`, `get_versioned`,
/// `contains_key`, `value_len`, `ttl` and [`Transaction::version`](crate::Transaction::version), in
/// the store, in its snapshots and in its transactions. Each key of `get_many` and `get_many_with`
/// counts as a get too. Gets that fail do not count, nor does a transaction's get of a key that it
/// has written itself. Scans and change feeds are not counted at all.
///
/// # Latencies
///
/// Gets and writes are so fast that reading the clock would cost a large part of their time. So
/// each thread times one in 128 of its gets, and one in 128 of its writes. The latencies cover only
/// this sample: [`count`](Histogram::count) is about a 128th of the true number. `get_many` is not
/// timed. Every sync and every merge is timed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Keys that were looked up: `hits` and `misses` together.
    pub gets: u64,
    /// Gets that found their key.
    pub hits: u64,
    /// Gets whose key was absent or expired.
    pub misses: u64,
    /// Puts appended to the log: each key counts, also in a batch or a transaction. A change of
    /// only a key's time to live counts as a put.
    pub puts: u64,
    /// Deletes appended to the log: each key counts, also in a batch, a transaction or a
    /// [`delete_range`](crate::Bitcask::delete_range). A delete of an absent key appends nothing,
    /// and a [`clear`](crate::Bitcask::clear) does not either. `puts` and `deletes` together are
    /// [`Stats::appends`](crate::Stats::appends).
    pub deletes: u64,
    /// Changes that were refused because a key was not as they expected, or because something that
    /// they had read had changed: by `compare_and_swap`, `put_if_absent`, and each attempt of a
    /// transaction, an `update`, an `expire` or a `persist`.
    pub conflicts: u64,
    /// Size in bytes of the values that gets returned or passed to closures.
    pub bytes_read: u64,
    /// Size in bytes of the entries that puts and deletes appended to the log, with their headers.
    /// The same as [`Stats::appended_size`](crate::Stats::appended_size). Merges do not count.
    pub bytes_written: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// Merges that ended without an error and had something to merge.
    pub merges: u64,
    /// How long gets took, from a sample. Does not include the time that the closure of a
    /// `get_with` took.
    pub get_latency: Histogram,
    /// How long writes took, from a sample: puts, deletes, batches, conditional changes, and
    /// commits of transactions, each until the call returned, including its sync.
    pub write_latency: Histogram,
    /// How long syncs of the log took.
    pub sync_latency: Histogram,
    /// How long merges took, including the time that they waited for other merges or were paused.
    pub merge_latency: Histogram,
}

impl Counters {
    /// Returns what was counted since an earlier moment: the difference from the counters of that
    /// moment.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// let earlier = db.counters();
    /// db.put("key", "other")?;
    /// db.get("key")?;
    /// let since = db.counters().since(&earlier);
    /// assert_eq!((since.puts, since.gets), (1, 1));
    /// # db.close()
    /// # }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            gets: self.gets.saturating_sub(earlier.gets),
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            puts: self.puts.saturating_sub(earlier.puts),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            conflicts: self.conflicts.saturating_sub(earlier.conflicts),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            merges: self.merges.saturating_sub(earlier.merges),
            get_latency: self.get_latency.since(&earlier.get_latency),
            write_latency: self.write_latency.since(&earlier.write_latency),
            sync_latency: self.sync_latency.since(&earlier.sync_latency),
            merge_latency: self.merge_latency.since(&earlier.merge_latency),
        }
    }
}
