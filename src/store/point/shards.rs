//! Access to filled shards, and the background work that opening has left.
//!
//! - An operation that finds a shard unfilled fills it without holding its lock, and looks it up
//!   again. A filled shard stays filled.
//! - The sealing thread or `close` writes the hints that were missing on disk.

use std::time::Duration;

use crate::error::Result;
use crate::keydir::{LockedShards, SHARD_COUNT, Shard, ShardSet};
use crate::store::Inner;

impl Inner {
    /// Locks a shard. Fills it first if necessary.
    pub(crate) fn shard(&self, number: usize) -> Result<Shard<'_>> {
        self.here()?;
        let shard = self.keydir.shard(number);
        if shard.is_filled() {
            return Ok(shard);
        }
        drop(shard);
        self.fill_shard(number)
    }

    /// Fills a shard and locks it.
    #[cold]
    fn fill_shard(&self, number: usize) -> Result<Shard<'_>> {
        loop {
            if let Err(error) = self.filler.fill(&self.keydir, number..number + 1) {
                // Clearing the store removes the files, and then the shard counts as filled.
                let shard = self.keydir.shard(number);
                return if shard.is_filled() { Ok(shard) } else { Err(error) };
            }
            let shard = self.keydir.shard(number);
            if shard.is_filled() {
                return Ok(shard);
            }
        }
    }

    /// Locks several shards.
    pub(crate) fn shards(&self, numbers: impl Iterator<Item = usize>) -> Result<LockedShards<'_>> {
        let set: ShardSet = numbers.collect();
        let shards: Result<_> = set.numbers().map(|number| self.shard(number)).collect();
        shards.map(LockedShards::new)
    }

    /// Locks all shards, filled or not.
    pub(crate) fn all_shards(&self) -> LockedShards<'_> {
        LockedShards::new((0..SHARD_COUNT).map(|number| self.keydir.shard(number)).collect())
    }

    /// Fills all shards and returns the number of keys.
    pub(crate) fn len(&self) -> Result<u64> {
        self.here()?;
        if let Err(error) = self.filler.fill_all(&self.keydir) {
            // A clear removes files. Then nothing is left to be filled.
            if !self.filler.is_done() {
                return Err(error);
            }
        }
        Ok(self.gathered_len())
    }

    /// Returns the number of keys in the shards that have been filled.
    pub(crate) fn gathered_len(&self) -> u64 {
        (0..SHARD_COUNT).map(|number| self.keydir.shard(number).len() as u64).sum()
    }

    /// Fills some shards. Returns `None` when no unfilled shards are left.
    pub(crate) fn fill_due(&self) -> Option<Duration> {
        self.filler.fill_next(&self.keydir).then_some(Duration::ZERO)
    }

    /// Writes one of the hints that opening found missing or bad, or had to create. Returns whether
    /// there was one.
    pub(crate) fn write_hint(&self) -> Result<bool> {
        let log = self.log()?;
        let _maintenance = log.lock_maintenance();
        log.check()?;
        let listed = |id| self.manifest.get(|manifest| manifest.lists(id));
        self.filler.write_hint(listed).map_err(|error| log.poison_if_sync_failed(error))
    }
}
