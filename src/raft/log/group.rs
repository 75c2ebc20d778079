//! The log and the vote of one group.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::{
    DefensiveError, ErrorSubject, ErrorVerb, LogId, LogState, RaftLogId as _, RaftTypeConfig,
    StorageError, Violation, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::{LogItem, entries_prefix, index_of, key_of};
use super::reader::gap;
use crate::error::Result;
use crate::mistake::{Mistake, made};
use crate::options::WriteOptions;
use crate::raft::encoding::{decode_in, encode, encode_checked};
use crate::raft::failure::During as _;
use crate::store::{Batch, Bitcask};
use crate::sync::Mutex;

/// Size in bytes above which what is appended or removed goes into another batch.
const BATCH_SIZE: u64 = 8 << 20;

/// Number of entries that are removed together. Tests have few entries.
const DELETED_TOGETHER: u64 = if cfg!(test) { 4 } else { 4096 };

/// Number of entries that are looked up together.
const READ_TOGETHER: u64 = 64;

/// The log of one group.
pub(in crate::raft) struct GroupLog<C: RaftTypeConfig> {
    number: u64,
    /// Lock 0: where the log begins and ends. Held while the log is written to, not while it is
    /// read.
    ends: Mutex<LogEnds<C>>,
    /// Number of times that the log was truncated since it was opened. Changed with `ends` locked,
    /// and read without a lock.
    truncations: AtomicU64,
    config: PhantomData<C>,
}

/// Where a log begins and ends.
#[derive(Debug, Clone)]
struct LogEnds<C: RaftTypeConfig> {
    /// The last entry that was purged.
    purged: Option<LogId<C::NodeId>>,
    /// The first entry that is present.
    first: u64,
    /// The last entry that is present, or the last one that was purged.
    last: Option<LogId<C::NodeId>>,
    /// The last entry that was purged, as long as its removal has not begun on disk.
    pending: Option<LogId<C::NodeId>>,
}

impl<C: RaftTypeConfig> LogEnds<C> {
    /// Returns the index behind the last entry.
    fn next(&self) -> u64 {
        self.last.as_ref().map_or(self.first, |last| last.index.saturating_add(1))
    }
}

impl<C: RaftTypeConfig> fmt::Debug for GroupLog<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupLog").field("number", &self.number).finish_non_exhaustive()
    }
}

fn get<T: DeserializeOwned>(store: &Bitcask, key: &[u8]) -> Result<Option<T>> {
    store.get(key)?.map(|bytes| decode_in(store.path(), key, &bytes)).transpose()
}

fn put<T: Serialize>(store: &Bitcask, key: &[u8], value: &T) -> Result<()> {
    store.put_opt(key, encode(key, value)?, not_synced())
}

/// Whoever needs it waits for a sync that others share.
fn not_synced() -> WriteOptions {
    WriteOptions::new().durable(false)
}

impl<C: RaftTypeConfig> GroupLog<C> {
    /// Reads where the log of a group begins and ends. Removes what a crash has left of a purge, or
    /// of a group that was being removed.
    pub(in crate::raft) fn open(store: &Bitcask, number: u64) -> Result<Self> {
        if store.contains_key(key_of(number, LogItem::Removed))? {
            finish_removal(store, number)?;
        }
        let purged: Option<LogId<C::NodeId>> = get(store, &key_of(number, LogItem::Purged))?;
        let first_kept = purged.as_ref().map_or(0, |purged| purged.index.saturating_add(1));
        let mut ends = LogEnds { first: first_kept, last: purged.clone(), purged, pending: None };
        let (mut last, mut leftover) = (None, Batch::new());
        for key in store.prefix_keys(entries_prefix(number)) {
            let key = key?;
            let index = index_of(&key).unwrap_or(0);
            if index < first_kept {
                leftover.delete(&key);
                if leftover.len() as u64 >= DELETED_TOGETHER {
                    store.write_opt(&std::mem::take(&mut leftover), not_synced())?;
                }
                continue;
            }
            match last {
                // Openraft begins with entry 0, and a test of its may begin elsewhere.
                None if ends.purged.is_none() => ends.first = index,
                None if index != ends.first => return Err(gap(store, number, ends.first)),
                Some(last) if index != last + 1 => return Err(gap(store, number, last + 1)),
                _ => {}
            }
            last = Some(index);
        }
        if let Some(last) = last {
            let key = key_of(number, LogItem::Entry(last));
            let entry: Option<C::Entry> = get(store, &key)?;
            let entry = entry.ok_or_else(|| gap(store, number, last))?;
            ends.last = Some(entry.get_log_id().clone());
        }
        if !leftover.is_empty() {
            store.write_opt(&leftover, not_synced())?;
        }
        let truncations = AtomicU64::new(0);
        Ok(Self { number, ends: Mutex::new(ends), truncations, config: PhantomData })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn key(&self, item: LogItem) -> Vec<u8> {
        key_of(self.number, item)
    }

    pub(in crate::raft) fn state(&self) -> LogState<C> {
        let ends = self.ends.lock();
        LogState { last_purged_log_id: ends.purged.clone(), last_log_id: ends.last.clone() }
    }

    /// Returns how often the log was truncated since it was opened.
    pub(in crate::raft) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    pub(in crate::raft) fn vote(&self, store: &Bitcask) -> Result<Option<Vote<C::NodeId>>> {
        get(store, &self.key(LogItem::Vote))
    }

    /// Stores the vote. The caller waits until it is durable.
    pub(in crate::raft) fn save_vote(&self, store: &Bitcask, vote: &Vote<C::NodeId>) -> Result<()> {
        put(store, &self.key(LogItem::Vote), vote)
    }

    pub(in crate::raft) fn committed(&self, store: &Bitcask) -> Result<Option<LogId<C::NodeId>>> {
        get(store, &self.key(LogItem::Committed))
    }

    /// Stores up to where entries are committed. That need not be durable: whatever is lost of it
    /// is learned again from the leader.
    pub(in crate::raft) fn save_committed(
        &self,
        store: &Bitcask,
        committed: Option<&LogId<C::NodeId>>,
    ) -> Result<()> {
        let key = self.key(LogItem::Committed);
        match committed {
            Some(committed) => put(store, &key, committed),
            None => store.delete_opt(&key, not_synced()).map(drop),
        }
    }

    /// Appends entries, which can be read from then on. The caller waits until they are durable.
    pub(in crate::raft) fn append(
        &self,
        store: &Bitcask,
        entries: impl IntoIterator<Item = C::Entry>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let mut ends = self.ends.lock();
        let (mut batch, mut last) = (Batch::new(), ends.last.clone());
        for entry in entries {
            let log_id = entry.get_log_id().clone();
            if ends.purged.as_ref().is_some_and(|purged| log_id.index <= purged.index) {
                // It is part of what was purged, as openraft's suite has it.
                continue;
            }
            let is_next =
                last.as_ref().is_none_or(|last| last.index.checked_add(1) == Some(log_id.index));
            if !is_next {
                let violation = Violation::LogsNonConsecutive { prev: last, next: log_id };
                return Err(DefensiveError::new(ErrorSubject::Logs, violation).into());
            }
            let key = self.key(LogItem::Entry(log_id.index));
            let this = || ErrorSubject::Log(log_id.clone());
            let bytes = encode_checked(&key, &entry).during(this(), ErrorVerb::Write)?;
            if batch.size() + bytes.len() as u64 > BATCH_SIZE && !batch.is_empty() {
                write(store, &mut batch, &mut ends, last.take())
                    .during(this(), ErrorVerb::Write)?;
            }
            batch.put(&key, bytes);
            if ends.last.is_none() && last.is_none() && ends.purged.is_none() {
                ends.first = log_id.index;
            }
            last = Some(log_id);
        }
        write(store, &mut batch, &mut ends, last).during(ErrorSubject::Logs, ErrorVerb::Write)
    }

    /// Reads the entries that are present in a range: all of them, or fewer once they have more
    /// than `size` bytes.
    pub(in crate::raft) fn read(
        &self,
        store: &Bitcask,
        start: u64,
        end: u64,
        size: u64,
    ) -> Result<Vec<C::Entry>> {
        let truncations = self.truncations();
        let ends = self.ends.lock().clone();
        let (mut at, end) = (start.max(ends.first), end.min(ends.next()));
        let (mut entries, mut read_size) = (Vec::new(), 0);
        while at < end && read_size <= size {
            // Where the size is limited, one value is enough to exceed the limit.
            let until = end.min(at + if size == u64::MAX { READ_TOGETHER } else { 1 });
            let keys: Vec<_> = (at..until).map(|index| self.key(LogItem::Entry(index))).collect();
            for (index, (key, bytes)) in (at..).zip(keys.iter().zip(store.get_many(&keys)?)) {
                let Some(bytes) = bytes else {
                    // It may have been purged or truncated meanwhile, and others appended.
                    let now = self.ends.lock();
                    let is_gone = self.truncations() != truncations
                        || !(now.first..now.next()).contains(&index);
                    return if is_gone { Ok(entries) } else { Err(gap(store, self.number, index)) };
                };
                read_size += bytes.len() as u64;
                entries.push(decode_in(store.path(), key, &bytes)?);
            }
            at = until;
        }
        Ok(entries)
    }

    /// Removes the entries from an index on, the last one first: whatever a crash leaves, there is
    /// no gap.
    pub(in crate::raft) fn truncate(&self, store: &Bitcask, since: u64) -> Result<()> {
        let mut ends = self.ends.lock();
        let since = since.max(ends.first);
        let end = ends.next();
        let before = match since.checked_sub(1).filter(|before| *before >= ends.first) {
            Some(before) => Some(self.log_id(store, before)?),
            None => ends.purged.clone(),
        };
        // Before anything is removed: a reader that has found an entry after this finds it
        // outdated.
        if !made(Mistake::RaftTruncationNotCounted) {
            self.truncations.fetch_add(1, Ordering::AcqRel);
        }
        // Readers find no entry beyond the end from now on.
        ends.last = before;
        if made(Mistake::RaftTruncatedFromFront) {
            return self.delete_all(store, Batch::new(), since..end);
        }
        self.delete_all(store, Batch::new(), (since..end).rev())
    }

    /// Returns the log id of an entry that is present.
    fn log_id(&self, store: &Bitcask, index: u64) -> Result<LogId<C::NodeId>> {
        let entry: Option<C::Entry> = get(store, &self.key(LogItem::Entry(index)))?;
        let entry = entry.ok_or_else(|| gap(store, self.number, index))?;
        Ok(entry.get_log_id().clone())
    }

    /// Begins the log behind an entry. On disk, it begins there once
    /// [`remove_purged`](Self::remove_purged) is called.
    pub(in crate::raft) fn purge(&self, upto: LogId<C::NodeId>) {
        let mut ends = self.ends.lock();
        if ends.purged.as_ref().is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        ends.pending = Some(upto.clone());
        ends.first = upto.index.saturating_add(1);
        if ends.last.as_ref().is_none_or(|last| last.index <= upto.index) {
            ends.last = Some(upto.clone());
        }
        ends.purged = Some(upto);
    }

    /// Returns the last entry that was purged, if its removal has not begun on disk.
    pub(in crate::raft) fn pending(&self) -> Option<LogId<C::NodeId>> {
        self.ends.lock().pending.clone()
    }

    /// Removes the entries that were purged. What was purged is known before the first of them is
    /// gone.
    ///
    /// If another entry has the index of the last one, the log is not that of the snapshot which
    /// has led to the purge, and the entries behind it go too.
    pub(in crate::raft) fn remove_purged(&self, store: &Bitcask) -> Result<()> {
        let mut ends = self.ends.lock();
        let Some(upto) = ends.pending.clone() else { return Ok(()) };
        let last_key = self.key(LogItem::Entry(upto.index));
        let found: Option<C::Entry> = get(store, &last_key)?;
        if found.is_some_and(|entry| *entry.get_log_id() != upto) && ends.next() > ends.first {
            self.truncations.fetch_add(1, Ordering::AcqRel);
            let behind = ends.first..ends.next();
            ends.last = Some(upto.clone());
            self.delete_all(store, Batch::new(), behind.rev())?;
        }
        let key = self.key(LogItem::Purged);
        let mut batch = Batch::new();
        if !made(Mistake::RaftPurgeNotedLate) {
            batch.put(&key, encode(&key, &upto)?);
        }
        // The log may end far before what was purged.
        let mut keys = store.prefix_keys(entries_prefix(self.number));
        let (first, last) = (keys.next().transpose()?, keys.next_back().transpose()?);
        let first = first.and_then(|key| index_of(&key)).unwrap_or(u64::MAX);
        let last = last.and_then(|key| index_of(&key)).unwrap_or(first).min(upto.index);
        self.delete_all(store, batch, first..last.saturating_add(1))?;
        if made(Mistake::RaftPurgeNotedLate) {
            put(store, &key, &upto)?;
        }
        ends.pending = None;
        Ok(())
    }

    /// Removes entries in this order, in several batches if there are many.
    fn delete_all(
        &self,
        store: &Bitcask,
        mut batch: Batch,
        indexes: impl Iterator<Item = u64>,
    ) -> Result<()> {
        for index in indexes {
            batch.delete(self.key(LogItem::Entry(index)));
            if batch.len() as u64 >= DELETED_TOGETHER {
                store.write_opt(&std::mem::take(&mut batch), not_synced())?;
            }
        }
        store.write_opt(&batch, not_synced())
    }

    /// Returns whether the state machine holds what is not of this log: what comes after its end,
    /// or another entry in the place of one of its own.
    pub(in crate::raft) fn differs_from(
        &self,
        store: &Bitcask,
        applied: &LogId<C::NodeId>,
    ) -> Result<bool> {
        let ends = self.ends.lock();
        if applied.index < ends.first {
            return Ok(false);
        }
        Ok(applied.index >= ends.next() || self.log_id(store, applied.index)? != *applied)
    }

    /// Removes everything of the group.
    pub(in crate::raft) fn remove(&self, store: &Bitcask) -> Result<()> {
        let mut ends = self.ends.lock();
        remove_group(store, self.number)?;
        *ends = LogEnds { purged: None, first: 0, last: None, pending: None };
        Ok(())
    }
}

/// Removes everything of a group, which need not be open. A removal that a crash interrupts is
/// finished when the group is opened again.
pub(super) fn remove_group(store: &Bitcask, number: u64) -> Result<()> {
    let mut batch = Batch::new();
    batch.put(key_of(number, LogItem::Removed), b"");
    for item in [LogItem::Committed, LogItem::Purged, LogItem::Vote] {
        batch.delete(key_of(number, item));
    }
    store.write_opt(&batch, not_synced())?;
    finish_removal(store, number)
}

/// Removes the entries of a group that is being removed, and the mark that says so.
fn finish_removal(store: &Bitcask, number: u64) -> Result<()> {
    store.delete_prefix(entries_prefix(number))?;
    store.delete_opt(key_of(number, LogItem::Removed), not_synced()).map(drop)
}

/// Appends the entries of a batch, up to `last`, and empties it.
fn write<C: RaftTypeConfig>(
    store: &Bitcask,
    batch: &mut Batch,
    ends: &mut LogEnds<C>,
    last: Option<LogId<C::NodeId>>,
) -> Result<()> {
    store.write_opt(batch, not_synced())?;
    batch.clear();
    ends.last = last;
    Ok(())
}
