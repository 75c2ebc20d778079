//! Tells the server's own changes from those that other code makes in the same store.
//!
//! - A command reports its own changes itself, since only it knows their names: `incrby`, and not
//!   just `set`. The change feed reports the changes that others make through the store's API.
//! - So each own change is noted here before it is made, and the follower of the feed takes the
//!   note when it meets the change. Only while somebody follows a database are notes made.
//! - A clear ends the feed, and the notes of the changes that it has removed are dropped. The
//!   position behind a clear of the server's own is remembered: if the feed can go on from there,
//!   nothing else has been cleared since. The follower may still meet changes before that position,
//!   which it had received; nobody is told of these.
//! - If others change the same key at the same moment, the two reports may be exchanged. None is
//!   lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::store::{Bitcask, Changes, Position};

/// Maximum number of keys with notes. Notes beyond it are dropped: some changes are then reported
/// twice.
const NOTES_MAX: usize = 1 << 20;

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
struct OwnChanges {
    /// The number of changes for each key.
    counts: HashMap<Vec<u8>, u32>,
    /// The position behind the last own clear.
    cleared: Option<Position>,
}

impl OwnChanges {
    fn take(&mut self, key: &[u8]) -> bool {
        let Some(count) = self.counts.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(key);
        }
        true
    }
}

/// What the server has done to a store, as far as the follower has to know it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_followed: AtomicBool,
    /// Lock 9: the changes. Nothing is called while it is held, and a clear takes it with the store
    /// locked.
    notes: Mutex<OwnChanges>,
    /// Lock 0: the position behind the last own clear, until the feed goes on from there. Held
    /// during a clear.
    cleared: Mutex<Option<Position>>,
}

impl Ledger {
    fn notes(&self) -> MutexGuard<'_, OwnChanges> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// Begins or ends to keep notes.
    pub(super) fn set_followed(&self, yes: bool) {
        self.is_followed.store(yes, Ordering::Release);
        self.notes().counts.clear();
    }

    /// Clears the store of a database. The caller tells the clients of it afterwards.
    pub(super) fn clear(&self, store: &Bitcask) -> Result<()> {
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        store.clear()?;
        *cleared = Some(store.position());
        // A change after that position may lose its note, and is then reported twice.
        *self.notes() = OwnChanges { counts: HashMap::new(), cleared: *cleared };
        Ok(())
    }

    /// Goes on with the feed of a store, which has ended. Returns whether changes are missing that
    /// nobody has reported.
    pub(super) fn resume(&self, store: &Bitcask) -> Result<(Changes, bool)> {
        let cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner).take();
        match cleared.map(|position| store.changes(position)) {
            Some(Ok(changes)) => return Ok((changes, false)),
            Some(Err(error)) if !error.needs_resync() => return Err(error),
            _ => {}
        }
        let changes = changes_from_now(store)?;
        self.notes().counts.clear();
        Ok((changes, true))
    }

    /// Notes a change that is about to be made.
    pub(super) fn note(&self, key: &[u8]) {
        let mut notes = self.notes();
        if let Some(count) = notes.counts.get_mut(key) {
            *count += 1;
        } else if notes.counts.len() < NOTES_MAX {
            notes.counts.insert(key.to_vec(), 1);
        }
    }

    /// Removes the note of a change that was not made after all.
    pub(super) fn forget(&self, key: &[u8]) {
        self.notes().take(key);
    }

    /// Removes the note of a change that was met in the feed. Returns whether nobody has to be told
    /// of the change: it has a note, or an own clear has removed it.
    pub(super) fn meet(&self, key: &[u8], position: Position) -> bool {
        let mut notes = self.notes();
        notes.cleared.is_some_and(|cleared| position <= cleared) || notes.take(key)
    }
}
