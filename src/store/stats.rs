//! Sizes and counts: keys, segments, bytes.

use super::{Inner, Reader, Role};
use crate::error::Result;
use crate::fs::open_files;
use crate::manifest::Manifest;
use crate::segment::FIRST_OFFSET;
use crate::segment::budget::{mappings, mappings_limit};
use crate::segment::limit::segments_limit;
use crate::stats::{Counters, SegmentStats, Stats};

impl Reader {
    /// Returns the number of keys, including expired keys that nothing has removed yet.
    ///
    /// Every read treats an expired key as absent, but it counts here until a merge or a change of
    /// the key removes it, because nothing searches for expired keys. To count only keys that have
    /// not expired, use [`Snapshot::len`](crate::Snapshot::len), which scans the keys.
    ///
    /// Counting requires that all keys are loaded. Right after the store was opened, `len` helps
    /// the background threads to load the rest; [`stats`](Self::stats) does not, and counts the
    /// keys loaded so far. After that, `len` only visits each of 4,096 parts of the keys.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), if damage prevents a part of the keys from being loaded.
    /// [`iter_unordered`](Self::iter_unordered) still returns the keys that can be read.
    pub fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    /// Returns whether the store holds no keys, not even expired keys that nothing has removed yet.
    ///
    /// Returns `false` as soon as one key has been loaded; otherwise it loads the keys as
    /// [`len`](Self::len) does. To ignore expired keys, use
    /// [`Snapshot::is_empty`](crate::Snapshot::is_empty), which searches for the first key that has
    /// not expired.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        self.inner.here()?;
        Ok(self.inner.gathered_len() == 0 && self.len()? == 0)
    }

    /// Returns figures about the store at this moment, without waiting for keys to be loaded. May
    /// wait for a write at the end of the log, or for a seal or a merge that replaces the manifest.
    ///
    /// Right after opening, while background threads load the keys,
    /// [`unfilled_shards`](Stats::unfilled_shards) is above zero, and the figures that depend on
    /// the keys cover only the keys loaded so far. If damage prevents a part of the keys from being
    /// loaded, this stays so; [`len`](Self::len) then returns the damage as an error.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.put("key", "other")?;
    /// let stats = db.stats();
    /// assert_eq!((stats.keys, stats.appends), (1, 2));
    /// assert_eq!(stats.dead_size, stats.live_size);
    /// # db.close()
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Returns what the store has done since it was opened: numbers of gets, puts and other
    /// operations, and how long they took. [`Counters`] defines what counts.
    ///
    /// Adds up the counters of all threads that have used the store, which takes some microseconds.
    /// May wait for a write at the end of the log. The figures are not all from the same moment. In
    /// a forked child, all of them are zero.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// db.put("key", "value")?;
    /// db.get("key")?;
    /// db.get("other")?;
    /// let counters = db.counters();
    /// assert_eq!((counters.puts, counters.gets), (1, 2));
    /// assert_eq!((counters.hits, counters.misses, counters.bytes_read), (1, 1, 5));
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "metrics")]
    pub fn counters(&self) -> Counters {
        self.inner.counters()
    }

    /// Returns figures about each sealed segment, oldest first. Loads the keys first, as
    /// [`len`](Self::len) does. Keys that can't be loaded are not counted.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = Bitcask::open(dir.path(), Options::default())?;
    /// # db.put("key", "value")?;
    /// # db.close()?;
    /// let db = Bitcask::open(dir.path(), Options::default())?;
    /// let segments = db.segments();
    /// assert_eq!((segments.len(), segments[0].entries), (1, 1));
    /// assert_eq!(segments[0].dead_size(), 0);
    /// # db.close()
    /// # }
    /// ```
    pub fn segments(&self) -> Vec<SegmentStats> {
        self.inner.here().map_or_else(|_| Vec::new(), |()| self.inner.segment_stats())
    }
}

impl Inner {
    pub(super) fn stats(&self) -> Stats {
        if self.here().is_err() {
            return Stats::default();
        }
        let mut stats = Stats {
            // Read before the figures that depend on the keys: if it is 0, those are complete.
            unfilled_shards: self.filler.unfilled() as u64,
            keys: self.gathered_len(),
            keydir_size: self.keydir.size(),
            ..Stats::default()
        };
        if let Role::Writer(writer) = &self.role {
            writer.log.count(&mut stats);
            stats.reserve_size += self.manifest.get(Manifest::spare_size);
        }
        self.pins.count(&mut stats);
        (stats.retired_segments, stats.oldest_retired) = self.segments.retired();
        stats.sealed_segments = self.manifest.get(|manifest| manifest.sealed.len() as u64);
        stats.segments_limit = segments_limit();
        stats.mappings = mappings() as u64;
        stats.mappings_limit = mappings_limit() as u64;
        stats.descriptors = open_files() as u64;
        let mut headers_size = 0;
        let kept = self.kept_history();
        for (_, segment) in self.segments.all() {
            stats.segments += 1;
            stats.unmapped_segments += u64::from(!segment.is_mapped());
            stats.log_size += segment.size();
            stats.live_size += segment.live_size();
            headers_size += FIRST_OFFSET;
            if kept.holds(&segment) {
                stats.history_segments += 1;
                stats.history_size +=
                    segment.size().saturating_sub(FIRST_OFFSET + segment.live_size());
            }
        }
        stats.dead_size = stats.log_size.saturating_sub(stats.live_size + headers_size);
        stats
    }

    fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        if self.here().is_err() {
            return counters;
        }
        if let Role::Writer(writer) = &self.role {
            writer.log.count_done(&mut counters);
            writer.merging.latency.add_to(&mut counters.merge_latency);
            counters.merges = counters.merge_latency.count();
        }
        self.keydir.collector().count(&mut counters);
        counters
    }
}
