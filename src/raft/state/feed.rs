//! The changes of a state machine, entry by entry, from any entry on.
//!
//! - Each entry is a batch of the store, and each batch says which entry it is. So the history of
//!   the store is one of entries, and there is no other.
//! - Where an entry lies in the history differs between nodes. So it is looked for, see `seek`.
//! - When a snapshot replaces the store, the feed reads the old one to its end, and then looks for
//!   the next entry in the new one: a snapshot has the history of the node that built it.
//! - No entry is skipped: each has to have the index after that of the one before.

use std::sync::Arc;
use std::time::SystemTime;

use openraft::{LogId, RaftTypeConfig};

use super::apply::{APPLIED_KEY, AppliedNow, Apply, StateCore, applied_to};
use super::files::SnapshotFiles;
use super::{StateMachine, StateStore};
use crate::clock::system_time;
use crate::error::{Error, Result};
use crate::raft::encoding::decode_in;
use crate::store::changes::part::Received;
use crate::store::{Change, Changes, Operation};

/// Begins the keys that the state machine and those above it keep for themselves.
const OWN_KEYS: &[u8] = b"\0raft";

/// A place in a Raft log: behind an entry. The entry with index 0 changes no keys: it says who the
/// first members are. So the place behind it is the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EntryPlace {
    pub(crate) index: u64,
    /// The term of the entry's leader, or 0 if it is not known.
    pub(crate) term: u64,
}

impl<N: openraft::NodeId> From<&LogId<N>> for EntryPlace {
    fn from(log_id: &LogId<N>) -> Self {
        Self { index: log_id.index, term: log_id.leader_id.term }
    }
}

/// What a feed has come to.
#[derive(Debug)]
pub(crate) enum EntryStep {
    /// A change. Its time is that of the entry, and whether its batch continues depends on what is
    /// wanted.
    Change(Change),
    /// Something that is not wanted.
    Passed,
    /// The end, for now.
    Nothing,
}

/// Why a feed ends.
#[derive(Debug)]
pub(crate) enum FeedFailure {
    /// This node has not the entry that comes next, or another one took its place. It has those
    /// behind this index.
    Gone {
        oldest: u64,
    },
    Store(Error),
}

impl From<Error> for FeedFailure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Follows the entries that a state machine applies. While it exists, it keeps open the store that
/// it reads.
pub(crate) struct EntryFeed<C: RaftTypeConfig, A> {
    core: Arc<StateCore<C, A>>,
    /// The entry behind which everything that is wanted is still to come.
    at: EntryPlace,
    /// There is none while the state machine has not come to that entry yet.
    reading: Option<ReadState>,
    /// The entry that is being read.
    entry: Option<EntryRead>,
}

/// A store, and what is read of it.
struct ReadState {
    store: Arc<StateStore>,
    changes: Changes,
}

#[derive(Clone, Copy)]
struct EntryRead {
    place: EntryPlace,
    time: SystemTime,
}

impl<C, A> StateMachine<C, A>
where
    C: RaftTypeConfig<Entry = openraft::Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    /// Returns the changes behind a place.
    pub(crate) fn feed(&self, since: EntryPlace) -> Result<EntryFeed<C, A>, FeedFailure> {
        let core = Arc::clone(&self.0);
        let mut feed = EntryFeed { core, at: since, reading: None, entry: None };
        feed.begin()?;
        Ok(feed)
    }

    /// Returns the place behind everything that was applied.
    pub(crate) fn applied_place(&self) -> EntryPlace {
        self.0.applied_state().0.as_ref().map_or_else(EntryPlace::default, EntryPlace::from)
    }
}

impl<C: RaftTypeConfig, A> EntryFeed<C, A> {
    /// Returns the place to go on from. All that is wanted of the entry before was returned.
    pub(crate) fn place(&self) -> EntryPlace {
        self.at
    }

    /// Returns whether an entry was read in part.
    pub(crate) fn is_within_entry(&self) -> bool {
        self.entry.is_some()
    }

    /// Returns whether the state machine is behind the place to go on from.
    pub(crate) fn is_waiting(&self) -> bool {
        self.reading.is_none()
    }

    /// Looks for the entry that comes next, if the state machine has come so far.
    fn begin(&mut self) -> Result<(), FeedFailure> {
        let store = self.core.store();
        let applied = place_of(&applied_to::<C>(store.db())?);
        if applied.index < self.at.index {
            return Ok(());
        }
        let index = self.at.index;
        let read = |found: &[u8]| read::<C>(&store, found);
        let sought = store.seek(APPLIED_KEY, |found| Ok(read(found)?.place.index <= index))?;
        let before = sought.before.map(|found| read(&found)).transpose()?;
        let is_there = match before {
            // The same index in another history: of a cluster that was put back to an older state.
            Some(found) if self.at.term != 0 && found.place.term != self.at.term => false,
            Some(found) => {
                self.at = found.place;
                found.place.index == index
            }
            None => match sought.next {
                Some(next) => read(&next)?.place.index.saturating_sub(1) == index,
                None => applied.index == index,
            },
        };
        let begun = if is_there { store.changes(sought.position).map(Some) } else { Ok(None) };
        match begun {
            Ok(Some(changes)) => {
                self.reading = Some(ReadState { store, changes });
                Ok(())
            }
            // A merge may have come in between.
            Err(error) if !error.needs_resync() => Err(error.into()),
            Ok(None) | Err(_) => Err(gone::<C>(&store)?),
        }
    }

    /// Reads on, as far as the next change or to something that is not wanted.
    pub(crate) fn step(
        &mut self,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<EntryStep, FeedFailure> {
        // Before anything is read: nothing more is applied to a store that was replaced.
        let now = self.core.store();
        let Some(reading) = &mut self.reading else {
            self.begin()?;
            let has_begun = self.reading.is_some();
            return Ok(if has_begun { EntryStep::Passed } else { EntryStep::Nothing });
        };
        match reading.changes.try_recv_part(u64::MAX, &mut |_| true) {
            // No value is left out.
            Ok(Received::Change(change) | Received::WithoutValue(change, _)) => {
                self.take(change, is_wanted)
            }
            Ok(Received::Part) => Ok(EntryStep::Passed),
            Ok(Received::Nothing) if !Arc::ptr_eq(&reading.store, &now) => {
                self.reading = None;
                Ok(EntryStep::Passed)
            }
            Ok(Received::Nothing) => Ok(EntryStep::Nothing),
            // The store of now may have what the one before has not any more. An entry that was
            // read in part would begin anew there.
            Err(error)
                if error.needs_resync()
                    && self.entry.is_none()
                    && !Arc::ptr_eq(&reading.store, &now) =>
            {
                self.reading = None;
                Ok(EntryStep::Passed)
            }
            Err(error) if error.needs_resync() => Err(gone::<C>(&now)?),
            Err(error) => Err(error.into()),
        }
    }

    fn take(
        &mut self,
        mut change: Change,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<EntryStep, FeedFailure> {
        let entry = match self.entry {
            Some(entry) => entry,
            None => self.enter(&change)?,
        };
        let is_last = !change.batch_continues;
        let is_wanted = |key: &[u8]| !key.starts_with(OWN_KEYS) && is_wanted(key);
        let step = if is_wanted(&change.key) {
            let changes = self.reading.as_ref().map(|reading| &reading.changes);
            if let Some(changes) = changes.filter(|_| !is_last) {
                change.batch_continues = changes.batch_has_more(is_wanted)?;
            }
            change.timestamp = entry.time;
            if !change.batch_continues {
                self.at = entry.place;
            }
            EntryStep::Change(change)
        } else {
            EntryStep::Passed
        };
        if is_last {
            (self.at, self.entry) = (entry.place, None);
        }
        Ok(step)
    }

    /// Begins the next entry with its first change.
    fn enter(&mut self, change: &Change) -> Result<EntryRead, FeedFailure> {
        let Some(reading) = &self.reading else { return Err(gone::<C>(&self.core.store())?) };
        let found = match &change.operation {
            Operation::Put { value, .. } if change.key == APPLIED_KEY => Some(value.clone()),
            _ if change.batch_continues => reading.changes.put_in_batch(APPLIED_KEY)?,
            _ => None,
        };
        let wrong = |reason: &str| Error::corrupt(reading.store.path(), 0, reason);
        let found = found.ok_or_else(|| wrong("a change has no place in the log of Raft"))?;
        let entry = read::<C>(&reading.store, &found)?;
        let next = self.at.index.saturating_add(1);
        let is_first = self.at.index == 0 && entry.place.index == 0;
        if entry.place.index > next {
            return Err(FeedFailure::Gone { oldest: entry.place.index - 1 });
        }
        if entry.place.index < next && !is_first {
            return Err(wrong("an entry of the log of Raft was applied twice").into());
        }
        self.entry = Some(entry);
        Ok(entry)
    }
}

fn place_of<C: RaftTypeConfig>(applied: &AppliedNow<C>) -> EntryPlace {
    applied.log_id.as_ref().map_or_else(EntryPlace::default, EntryPlace::from)
}

/// Decodes what an entry says of itself.
fn read<C: RaftTypeConfig>(store: &StateStore, found: &[u8]) -> Result<EntryRead> {
    let applied: AppliedNow<C> = decode_in(store.path(), APPLIED_KEY, found)?;
    Ok(EntryRead { place: place_of(&applied), time: system_time(applied.time) })
}

/// Returns the failure of a feed whose next entry is not there.
fn gone<C: RaftTypeConfig>(store: &StateStore) -> Result<FeedFailure> {
    let oldest = match store.seek(APPLIED_KEY, |_| Ok(false))?.next {
        Some(first) => read::<C>(store, &first)?.place.index.saturating_sub(1),
        None => place_of(&applied_to::<C>(store.db())?).index,
    };
    Ok(FeedFailure::Gone { oldest })
}
