//! Tells the server's own changes from those that other code makes in the same store.
//!
//! - A command reports its own changes itself, since only it knows their names: `incrby`, and not
//!   just `set`. The change feed reports the changes that others make through the store's API.
//! - So each own change is noted here before it is made, and the follower of the feed takes the
//!   note when it meets the change. Only while somebody follows a database are notes made.
//! - If others change the same key at the same moment, the two reports may be exchanged. None is
//!   lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of keys with notes. Notes beyond it are dropped: some changes are then reported
/// twice.
const NOTES_MAX: usize = 1 << 20;

/// Own changes that the follower has not met yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    is_followed: AtomicBool,
    /// Lock 0: the number of changes for each key.
    notes: Mutex<HashMap<Vec<u8>, u32>>,
}

impl Ledger {
    fn notes(&self) -> MutexGuard<'_, HashMap<Vec<u8>, u32>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Acquire)
    }

    /// Begins or ends to keep notes.
    pub(super) fn set_followed(&self, yes: bool) {
        self.is_followed.store(yes, Ordering::Release);
        self.notes().clear();
    }

    /// Notes a change that is about to be made.
    pub(super) fn note(&self, key: &[u8]) {
        let mut notes = self.notes();
        if let Some(count) = notes.get_mut(key) {
            *count += 1;
        } else if notes.len() < NOTES_MAX {
            notes.insert(key.to_vec(), 1);
        }
    }

    /// Removes the note of a change, which was met in the feed or not made after all. Returns
    /// whether there was one.
    pub(super) fn take(&self, key: &[u8]) -> bool {
        let mut notes = self.notes();
        let Some(count) = notes.get_mut(key) else { return false };
        *count -= 1;
        if *count == 0 {
            notes.remove(key);
        }
        true
    }
}
