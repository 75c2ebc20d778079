//! Finds the newest entry of each key, without keys in memory.
//!
//! - The newest entry has the highest timestamp: timestamps rise strictly through the log, and
//!   merges keep them. So it does not matter in which order segments are read, or that some hold
//!   copies of entries in others.
//! - All puts are replayed first, so that a slot names the newest put of its key. Then all deletes
//!   are replayed, and a slot is removed if its put is no newer. What is left is live.
//! - The survey has found all these entries valid. Keys and timestamps of the entries that slots
//!   name are read again.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::plan::RepairSubject;
use crate::error::Result;
use crate::fs::File;
use crate::key_hash::KeyHash;
use crate::keydir::{Address, Found, Keydir, SHARD_COUNT};
use crate::segment::read::resync::time_if_of;
use crate::segment::read::scan::Scanned;
use crate::store::Env;

/// Files that are kept open.
const FILES_MAX: usize = 16;

/// The newest put of each key.
pub(super) struct Replay<'a> {
    pub(super) keydir: Keydir,
    env: &'a Env,
    /// The segments. A slot names one by its position here.
    subjects: &'a [RepairSubject],
    files: RefCell<BTreeMap<u32, File>>,
}

impl<'a> Replay<'a> {
    /// Begins without keys. `hash_seed` is the new store's.
    pub(super) fn new(env: &'a Env, subjects: &'a [RepairSubject], hash_seed: u64) -> Self {
        let keydir = Keydir::new((env.hasher)(hash_seed));
        (0..SHARD_COUNT).for_each(|number| keydir.shard(number).clear(0));
        Self { keydir, env, subjects, files: RefCell::default() }
    }

    /// Records a put.
    pub(super) fn put(&self, segment: u32, entry: &Scanned<'_>) -> Result<()> {
        let hash = self.keydir.hash(entry.key);
        let mut shard = self.keydir.shard(hash.shard());
        let own = shard.find(hash, |address| self.timestamp(address, entry.key))?.own;
        if own.is_none_or(|(_, time)| time <= entry.header.timestamp) {
            let here = Address { segment, offset: entry.offset };
            shard.publish(hash, own.map(|(address, _)| address), here);
        }
        Ok(())
    }

    /// Records a delete, once all puts are known.
    pub(super) fn delete(&self, entry: &Scanned<'_>) -> Result<()> {
        let hash = self.keydir.hash(entry.key);
        let mut shard = self.keydir.shard(hash.shard());
        let own = shard.find(hash, |address| self.timestamp(address, entry.key))?.own;
        if let Some((address, _)) = own.filter(|(_, time)| *time <= entry.header.timestamp) {
            shard.remove(hash, address, 0);
        }
        Ok(())
    }

    /// Returns whether a put is live. If it is, also returns its hash, and whether other keys have
    /// the same hash bits.
    pub(super) fn live(
        &self,
        segment: u32,
        entry: &Scanned<'_>,
    ) -> Result<Option<(KeyHash, bool)>> {
        let (hash, here) = (self.keydir.hash(entry.key), Address { segment, offset: entry.offset });
        let is_it = |address| Ok((address == here).then_some(()));
        let found = self.keydir.find_all(hash, &self.keydir.pin(), is_it)?;
        Ok(found.and_then(|Found { own, others }| own.map(|_| (hash, others))))
    }

    /// Returns the timestamp of an entry that a slot names, if it is one of this key.
    fn timestamp(&self, address: Address, key: &[u8]) -> Result<Option<u64>> {
        let mut files = self.files.borrow_mut();
        if !files.contains_key(&address.segment) && files.len() >= FILES_MAX {
            files.clear();
        }
        let Some(subject) = self.subjects.get(address.segment as usize) else {
            unreachable!("slots name these segments alone")
        };
        if let Some(file) = files.get(&address.segment) {
            return time_if_of(file, address.offset, key);
        }
        let file = subject.open(self.env)?;
        let time = time_if_of(&file, address.offset, key);
        files.insert(address.segment, file);
        time
    }
}
