//! Tells the server's own changes from those that other code makes in the same store.
//!
//! - A command reports its own changes itself, since only it knows their names: `incrby`, and not
//!   just `set`. The change feed reports the changes that others make through the store's API.
//! - So each own change is noted here before it is made, and the follower of the feed takes the
//!   note when it meets the change. Only while somebody follows a database are notes made.
//! - A transaction that deletes all keys has one note for all of them: the position before its
//!   batch.
//! - A clear ends the feed, and the notes of the changes that it has removed are dropped. The
//!   position behind a clear of the server's own is remembered: if the feed of the same listeners
//!   can go on from there, nothing else has been cleared since. The follower may still meet changes
//!   before that position, which it had received; nobody is told of these.
//! - If others change the same key at the same moment, the two reports may be exchanged. None is
//!   lost: if the attempt to change the key fails, the change that took its note is owed, and the
//!   follower reports it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::encoding::decode_key;
use crate::error::{Error, Result};
use crate::store::{Bitcask, Change, Changes, Operation, Position};

/// Maximum number of keys with notes. Notes beyond it are dropped: some changes are then reported
/// twice.
pub(super) const NOTES_MAX: usize = 1 << 20;
/// Maximum size of these keys, and of those that are owed, in bytes. Changes of further owed keys
/// are told only to caches, which forget everything.
const NOTES_SIZE_MAX: usize = 64 << 20;

/// Begins the feed of a store at the present. A clear or a merge may end it before it has begun.
pub(super) fn changes_from_now(store: &Bitcask) -> Result<Changes> {
    loop {
        match store.changes(store.position()) {
            Err(error) if error.needs_resync() => {}
            begun => return begun,
        }
    }
}

/// Own changes that the follower has not met yet.
#[derive(Debug, Default)]
struct OwnNotes {
    /// The number of changes for each key.
    counts: HashMap<Vec<u8>, u32>,
    /// Size of these keys.
    size: usize,
    /// The position behind the last own clear.
    cleared: Option<Position>,
    /// The positions before the batches in which own transactions have deleted all keys, in the
    /// order of the log.
    flushes: VecDeque<Position>,
    /// Keys whose changes were taken for attempts that have failed.
    owed: Vec<Vec<u8>>,
    owed_size: usize,
    /// Whether a batch of others was taken for a flush that has failed, or keys are owed that are
    /// not listed.
    owes_all: bool,
    /// How often all notes were dropped.
    drops: u64,
    /// How often somebody began or ended to follow.
    followings: u64,
}

/// The position behind an own clear.
#[derive(Debug, Clone, Copy)]
struct OwnClear {
    position: Position,
    /// When it was, as `followings` counts. A later follower has begun behind it.
    following: u64,
}

/// What an attempt to change a key needs to take its note back: when it was made, or nothing if
/// there were too many notes.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoteTicket(Option<u64>);

/// The same for an attempt to remove all keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlushTicket {
    before: Position,
    drops: u64,
}

/// What the follower has to report although it has found notes.
#[derive(Debug, Default)]
pub(super) struct OwedReports {
    pub(super) keys: Vec<Vec<u8>>,
    /// Whether any keys may have been deleted.
    pub(super) all: bool,
}

impl OwnNotes {
    fn drop_all(&mut self) {
        let Self { cleared, drops, followings, .. } = *self;
        *self = Self { cleared, drops: drops + 1, followings, ..Self::default() };
    }

    /// Returns whether a change is a delete by a flush. A batch lies in one piece, so the flush's
    /// begins with the first change behind its position.
    fn is_flushed(&mut self, change: &Change) -> bool {
        let is_in_batch = self.flushes.front().is_some_and(|before| change.position > *before);
        if is_in_batch && !change.batch_continues {
            self.flushes.pop_front();
        }
        is_in_batch && change.operation == Operation::Delete
    }

    fn take(&mut self, key: &[u8]) -> bool {
        let Some(count) = self.counts.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(key);
            self.size = self.size.saturating_sub(key.len());
        }
        true
    }

    fn owe(&mut self, key: &[u8]) {
        if self.owed.len() < NOTES_MAX && self.owed_size + key.len() <= NOTES_SIZE_MAX {
            self.owed_size += key.len();
            self.owed.push(key.to_vec());
        } else {
            self.owes_all = true;
        }
    }
}

/// What the server has done to a store, as far as the follower has to know it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_followed: AtomicBool,
    /// Lock 9: the changes. Nothing is called while it is held, and a clear takes it with the store
    /// locked.
    notes: Mutex<OwnNotes>,
    /// Lock 0: the last own clear, until the feed goes on from there. Held during a clear, and
    /// while the feed goes on.
    cleared: Mutex<Option<OwnClear>>,
}

impl Ledger {
    fn notes(&self) -> MutexGuard<'_, OwnNotes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// Begins or ends to keep notes.
    pub(super) fn set_followed(&self, yes: bool) {
        self.is_followed.store(yes, Ordering::Release);
        let mut notes = self.notes();
        notes.drop_all();
        notes.followings += 1;
    }

    /// Clears the store of a database. The caller tells the clients of it afterwards.
    pub(super) fn clear(&self, store: &Bitcask) -> Result<()> {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        store.clear_noting(|position| {
            // A change that was noted and comes after the clear is reported twice.
            let mut notes = self.notes();
            notes.drop_all();
            notes.cleared = Some(position);
            *cleared = Some(OwnClear { position, following: notes.followings });
        })
    }

    /// Goes on with the feed of a store, which has ended with an error. Returns whether changes are
    /// missing that nobody has reported.
    ///
    /// If so, a command that has noted its change before the notes are dropped, and makes it behind
    /// the new beginning, is reported twice. The notes must not be dropped before that beginning:
    /// those that are left would hide changes of others.
    pub(super) fn resume(&self, store: &Bitcask, error: &Error) -> Result<(Changes, bool)> {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        let following = self.notes().followings;
        // Another error does not come from the clear, from which the feed has gone on since.
        let own = cleared.take().filter(|own| own.following == following && error.needs_resync());
        match own.map(|own| store.changes(own.position)) {
            Some(Ok(changes)) => return Ok((changes, false)),
            Some(Err(error)) if !error.needs_resync() => return Err(error),
            _ => {}
        }
        let changes = changes_from_now(store)?;
        self.notes().drop_all();
        Ok((changes, true))
    }

    /// Notes a change that is about to be made.
    pub(super) fn note(&self, key: &[u8]) -> NoteTicket {
        let mut notes = self.notes();
        if let Some(count) = notes.counts.get_mut(key) {
            *count += 1;
        } else if notes.counts.len() < NOTES_MAX && notes.size + key.len() <= NOTES_SIZE_MAX {
            notes.size += key.len();
            notes.counts.insert(key.to_vec(), 1);
        } else {
            return NoteTicket(None);
        }
        NoteTicket(Some(notes.drops))
    }

    /// Removes the note of a change that was not made after all. If the follower has taken it for
    /// a change that others made meanwhile, that one is owed.
    pub(super) fn forget(&self, key: &[u8], ticket: NoteTicket) {
        let mut notes = self.notes();
        if ticket.0 == Some(notes.drops) && !notes.take(key) {
            notes.owe(key);
        }
    }

    /// Notes that a transaction is about to delete all keys, in a batch behind this position. The
    /// log is locked.
    pub(super) fn note_flush(&self, before: Position) -> FlushTicket {
        let mut notes = self.notes();
        notes.flushes.push_back(before);
        FlushTicket { before, drops: notes.drops }
    }

    /// Removes the note of a flush that has failed after all.
    pub(super) fn forget_flush(&self, ticket: FlushTicket) {
        let mut notes = self.notes();
        if ticket.drops != notes.drops {
            return;
        }
        match notes.flushes.iter().position(|before| *before == ticket.before) {
            Some(at) => {
                notes.flushes.remove(at);
            }
            None => notes.owes_all = true,
        }
    }

    /// Returns what the follower has to report although it has found notes.
    pub(super) fn take_owed(&self) -> OwedReports {
        let mut notes = self.notes();
        notes.owed_size = 0;
        let (keys, all) = (std::mem::take(&mut notes.owed), std::mem::take(&mut notes.owes_all));
        OwedReports { keys, all }
    }

    /// Removes the note of a change that was met in the feed. Returns whether nobody has to be told
    /// of the change: it has a note, or an own clear or flush has removed it.
    pub(super) fn meet(&self, change: &Change) -> bool {
        let mut notes = self.notes();
        let is_cleared = notes.cleared.is_some_and(|cleared| change.position <= cleared);
        is_cleared
            || notes.is_flushed(change)
            || decode_key(&change.key).is_some_and(|key| notes.take(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_owed_keys_are_bounded_by_their_size() {
        let ledger = Ledger::default();
        let key = |number: usize| format!("{number:>65000}").into_bytes();
        let (fitting, mut tickets) = (NOTES_SIZE_MAX / 65_000, Vec::new());
        for number in 0..fitting + 10 {
            tickets.push(ledger.note(&key(number)));
        }
        assert!(tickets.iter().filter(|ticket| ticket.0.is_some()).count() == fitting);
        assert_eq!(ledger.notes().size, fitting * 65_000);
        for (number, ticket) in tickets.iter().enumerate().take(2) {
            // The note is there only once, as if the follower had taken it for another change.
            ledger.forget(&key(number), *ticket);
            ledger.forget(&key(number), *ticket);
        }
        assert_eq!(ledger.notes().size, (fitting - 2) * 65_000);
        assert_eq!(ledger.take_owed().keys.len(), 2);
        for number in 0..=fitting {
            ledger.notes().owe(&key(number));
        }
        let owed = ledger.take_owed();
        assert!(owed.keys.len() == fitting && owed.all && ledger.notes().owed_size == 0);
    }
}
