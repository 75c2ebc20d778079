//! Changes that are applied atomically, and only if their conditions still hold: conditions ->
//! append -> keydir -> durability.
//!
//! - All shards of the keys are locked, in ascending order, from the check of the conditions to the
//!   publication. The log is locked from the caller's own check of it to the append. So what held
//!   when it was checked still holds when the changes are made.
//! - A condition on a value with a time to live holds only until that expires. So the clock is read
//!   once more under the lock of the log, just before the append: a value that others may have seen
//!   expired by then no longer exists.
//! - The entries are appended together, all but the last flagged *continues*; without the last one,
//!   recovery discards all of them.
//! - An unconditional change of one key has a shorter path, in `write`.

use std::collections::HashSet;
use std::slice;

use super::lookup::Located;
use super::write::{addresses, publish};
use crate::clock::Deadline;
use crate::entry::Flags;
use crate::epoch::Guard;
use crate::error::{Error, Result};
use crate::key_hash::{KeyHash, has_twins};
use crate::keydir::{Address, LockedShards, SHARD_COUNT};
use crate::log::{Appended, BATCH_SIZE_LIMIT, Log};
use crate::mistake::{Mistake, made};
use crate::options::WriteOptions;
use crate::segment::write::draft::Draft;
use crate::store::{Inner, Position};
use crate::sync::Instant;

/// Prefetch distance, in changes.
const READ_AHEAD: usize = 8;

/// Number of changes for which the disk is asked ahead of the look-ups.
const ASKED_AHEAD: usize = 256;

/// A condition on a key that must hold for changes to be applied.
#[derive(Debug)]
pub(crate) struct Condition<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) expected: Expected<'a>,
}

#[derive(Debug)]
pub(crate) enum Expected<'a> {
    /// This value, or an absent key if `None`.
    Value(Option<&'a [u8]>),
    /// The entry with this timestamp, or an absent key if `None`. No two entries have the same
    /// timestamp, and a merge preserves it.
    Unchanged(Option<u64>),
}

/// The current entry of a key that is changed, if there is one.
type Replaced<'o> = (KeyHash, Option<(Address, Located<'o>)>);

impl Inner {
    /// Applies all changes, each of a different key, if all conditions hold and `validate` agrees.
    /// Returns whether it did. `validate` sees the end of the log that the changes are appended to.
    pub(crate) fn change_atomically(
        &self,
        conditions: &[Condition<'_>],
        drafts: Vec<Draft<'_>>,
        options: WriteOptions,
        validate: impl FnOnce(&Log) -> Result<bool>,
    ) -> Result<bool> {
        self.change_or_refuse(conditions, drafts, options, validate, |_| Ok(()))
    }

    /// Like `change_atomically`. If a condition does not hold, `refuse` gets the key's current
    /// entry, under the lock of its shard. A key that has expired since the lookup counts as
    /// absent.
    pub(crate) fn change_or_refuse(
        &self,
        conditions: &[Condition<'_>],
        mut drafts: Vec<Draft<'_>>,
        options: WriteOptions,
        validate: impl FnOnce(&Log) -> Result<bool>,
        refuse: impl FnOnce(Option<&Located<'_>>) -> Result<()>,
    ) -> Result<bool> {
        let writer = self.writer()?;
        let guard = self.pin();
        let writing = guard.write();
        let condition_hashes: Vec<_> =
            conditions.iter().map(|condition| self.keydir.hash(condition.key)).collect();
        let known = |draft: &Draft<'_>| draft.hash.unwrap_or_else(|| self.keydir.hash(draft.key()));
        let draft_hashes: Vec<_> = drafts.iter().map(known).collect();
        let hashes = || condition_hashes.iter().chain(&draft_hashes);
        hashes().for_each(|hash| self.keydir.prefetch(*hash, &guard));
        let mut shards = self.shards(hashes().map(|hash| hash.shard()))?;
        let until =
            match self.check_conditions(conditions, &condition_hashes, &mut shards, &guard)? {
                Ok(until) => until,
                Err(current) => {
                    refuse(current.as_ref())?;
                    return Ok(false);
                }
            };
        if made(Mistake::ConditionsUnlocked) {
            drop(shards);
            shards = self.shards(draft_hashes.iter().map(|hash| hash.shard()))?;
        }
        let old = self.plan(&mut drafts, &draft_hashes, &mut shards, &guard)?;
        let mut log = writer.log.lock();
        if !validate(&log)? {
            return Ok(false);
        }
        if !until.is_never() && !self.is_before(until) {
            refuse(None)?;
            return Ok(false);
        }
        if drafts.is_empty() {
            drop((log, shards, old));
            drop(guard);
            self.wait_durable(options)?;
            writing.end();
            return Ok(true);
        }
        let appended = writer.log.append(&mut log, &mut drafts, &guard)?;
        drop(log);
        publish_all(&appended, &drafts, &old, &mut shards);
        let written = appended.published();
        drop((shards, old));
        drop(guard);
        self.finish_write(&written, options)?;
        writing.end();
        Ok(true)
    }

    /// Like `change_atomically`, with all shards locked, so that nothing is appended meanwhile.
    /// `complete` may add changes, or refuse. `note` gets the changes before they are appended.
    pub(crate) fn change_all<'d>(
        &self,
        conditions: &[Condition<'_>],
        mut drafts: Vec<Draft<'d>>,
        options: WriteOptions,
        complete: impl FnOnce(&Log, &mut Vec<Draft<'d>>) -> Result<bool>,
        validate: impl FnOnce(&Log) -> Result<bool>,
        note: impl FnOnce(Position, &[Draft<'_>]),
    ) -> Result<bool> {
        let writer = self.writer()?;
        // Fills the shards before any of them is locked.
        self.len()?;
        let guard = self.pin();
        let writing = guard.write();
        let hashes: Vec<_> = conditions.iter().map(|it| self.keydir.hash(it.key)).collect();
        let mut shards = self.shards(0..SHARD_COUNT)?;
        let Ok(until) = self.check_conditions(conditions, &hashes, &mut shards, &guard)? else {
            return Ok(false);
        };
        if !complete(&writer.log.lock(), &mut drafts)? {
            return Ok(false);
        }
        let known = |draft: &Draft<'_>| draft.hash.unwrap_or_else(|| self.keydir.hash(draft.key()));
        let hashes: Vec<_> = drafts.iter().map(known).collect();
        let old = self.plan(&mut drafts, &hashes, &mut shards, &guard)?;
        let mut log = writer.log.lock();
        if !validate(&log)? || (!until.is_never() && !self.is_before(until)) {
            return Ok(false);
        }
        if drafts.is_empty() {
            drop((log, shards, old));
            drop(guard);
            self.wait_durable(options)?;
            writing.end();
            return Ok(true);
        }
        note(self.position_of(&log), &drafts);
        let appended = writer.log.append(&mut log, &mut drafts, &guard)?;
        drop(log);
        publish_all(&appended, &drafts, &old, &mut shards);
        let written = appended.published();
        drop((shards, old));
        drop(guard);
        self.finish_write(&written, options)?;
        writing.end();
        Ok(true)
    }

    /// Looks whether all conditions hold. Returns until when they do as long as the shards are
    /// locked, or the entry of the first key that is not as expected.
    fn check_conditions<'o>(
        &'o self,
        conditions: &[Condition<'_>],
        hashes: &[KeyHash],
        shards: &mut LockedShards<'_>,
        guard: &'o Guard<'_>,
    ) -> Result<Result<Deadline, Option<Located<'o>>>> {
        let mut until = Deadline::NEVER;
        for (condition, hash) in conditions.iter().zip(hashes) {
            let found = self.find(shards.of(*hash), *hash, condition.key, guard)?;
            let current = found.own.map(|(_, located)| located).filter(|it| !it.expired);
            if !self.holds(&condition.expected, current.as_ref())? {
                return Ok(Err(current));
            }
            // Nothing else can end it: the shard is locked.
            until = until.or(current.map_or(Deadline::NEVER, |it| self.deadline(&it.stored)));
        }
        Ok(Ok(until))
    }

    /// Returns whether a key is as expected.
    fn holds(&self, expected: &Expected<'_>, current: Option<&Located<'_>>) -> Result<bool> {
        Ok(match (expected, current) {
            (Expected::Unchanged(timestamp), current) => {
                *timestamp == current.map(|located| located.stored.timestamp())
            }
            (Expected::Value(None), current) => current.is_none(),
            (Expected::Value(Some(_)), None) => false,
            (Expected::Value(Some(expected)), Some(current)) => {
                self.value(&current.stored)? == **expected
            }
        })
    }

    /// Looks up the entries that the changes replace, omits deletes of keys without a slot, and
    /// sets the flags. Returns what the remaining drafts replace.
    fn plan<'o>(
        &'o self,
        drafts: &mut Vec<Draft<'_>>,
        hashes: &[KeyHash],
        shards: &mut LockedShards<'_>,
        guard: &'o Guard<'_>,
    ) -> Result<Vec<Replaced<'o>>> {
        let (mut old, started) =
            (Vec::with_capacity(drafts.len()), (hashes.len() > 1).then(Instant::now));
        let asks_disk = hashes.len() > 1 && self.disk_waits.are_recent();
        if asks_disk {
            let first = hashes.get(..ASKED_AHEAD).unwrap_or(hashes);
            self.read_entries_ahead(first, guard);
        }
        // A key put by this change has a slot for the entries after it.
        let mut put = has_twins(hashes).then(HashSet::new);
        for (at, hash) in hashes.iter().enumerate() {
            let Some(draft) = drafts.get_mut(at) else { break };
            if let Some(soon) = hashes.get(at + READ_AHEAD) {
                self.prefetch_entry(*soon, guard);
            }
            if asks_disk && let Some(later) = hashes.get(at + ASKED_AHEAD) {
                self.read_entries_ahead(slice::from_ref(later), guard);
            }
            let found = self.find(shards.of(*hash), *hash, draft.key(), guard)?;
            let tombstone = draft.header.is_tombstone();
            if tombstone && (found.own.is_none() || made(Mistake::DeletesForgotten)) {
                continue;
            }
            let earlier = put.as_ref().is_some_and(|put| put.contains(hash));
            if !tombstone && let Some(put) = &mut put {
                put.insert(*hash);
            }
            let others = found.others || earlier;
            draft.header.flags = draft.header.flags.with_if(others, Flags::COLLIDES);
            if draft.keeps_expiry {
                self.keep_expiry(draft, found.own.as_ref());
            }
            // The drafts that are needed move to the front.
            if old.len() < at {
                drafts.swap(old.len(), at);
            }
            old.push((*hash, found.own));
        }
        if let Some(started) = started {
            self.disk_waits.note(started.elapsed(), hashes.len(), 0);
        }
        drafts.truncate(old.len());
        if let [all_but_last @ .., _] = drafts.as_mut_slice() {
            for draft in all_but_last {
                draft.header.flags = draft.header.flags.with(Flags::CONTINUES);
            }
        }
        let size = drafts.iter().map(|draft| draft.header.entry_size()).sum();
        // A single entry may be larger, since its start is still addressable.
        if drafts.len() > 1 && size > BATCH_SIZE_LIMIT {
            return Err(Error::BatchTooLarge { size, limit: BATCH_SIZE_LIMIT });
        }
        Ok(old)
    }
}

/// Makes the slots point to the entries of changes that were appended.
fn publish_all(
    appended: &Appended<'_>,
    drafts: &[Draft<'_>],
    old: &[Replaced<'_>],
    shards: &mut LockedShards<'_>,
) {
    let (segment, timestamp) = (appended.segment, appended.timestamp);
    let addresses = addresses(appended, drafts);
    for (((hash, old), draft), new) in old.iter().zip(drafts).zip(addresses) {
        let new = (!draft.header.is_tombstone()).then_some(new);
        publish(shards.of(*hash), *hash, old.as_ref(), new, segment, timestamp);
    }
}
