//! Follows the change feed of each database while somebody listens, so that changes count that were
//! made through the store's API, and keys that have expired.
//!
//! - Each database that is followed has a thread. It ends when nobody listens any more.
//! - Changes that the server's own commands have made are reported by these, see `ledger`.
//! - The store reports no expiry. The follower remembers when the keys expire that were put while
//!   it was there, and looks when the time has come. A change of a key from behind its time says
//!   the same.
//! - No merge removes what a follower has not read yet, up to a limit.

mod expiring;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::counts::add;
use super::database::Database;
use super::encoding::{StoredContent, decode_key, decode_value, encode_key};
use super::events::{EventClass, KeyEvent};
use super::ledger::changes_from_now;
use super::server_state::RespState;
use crate::error::Error;
use crate::store::{Change, Changes, HistoryLease, Operation};
use expiring::ExpiringKeys;

/// How often a follower looks whether anybody still listens.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum size of the history that merges keep for a follower that is behind, in bytes.
const LEASE_SIZE_MAX: u64 = 256 << 20;

/// The threads that follow.
#[derive(Debug, Default)]
pub(super) struct Followers {
    /// Lock 0: the threads. Held while one is started, and while one decides to end.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Followers {
    /// Starts to follow all open databases, if somebody listens. Those that nobody listens to any
    /// more end by themselves. Returns whether all are followed that have to be: one that cannot
    /// be does not hinder the others.
    pub(super) fn look(&self, state: &Arc<RespState>) -> bool {
        if !state.is_listened_to() {
            return true;
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        let mut are_followed = true;
        for database in state.databases.open() {
            if database.ledger.is_followed() {
                continue;
            }
            match follow(state, &database) {
                Some(thread) => threads.push(thread),
                None => are_followed = false,
            }
        }
        are_followed
    }

    /// Waits until all have ended. The server has been stopped before.
    pub(super) fn join(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::take(&mut *threads);
        drop(threads);
        for thread in ended {
            // A thread that has panicked has ended too.
            drop(thread.join());
        }
    }

    /// Ends following a database, unless somebody listens again.
    fn end(&self, state: &RespState, database: &Database) -> bool {
        let _held = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = !state.is_listened_to();
        if ends {
            database.ledger.set_followed(false);
        }
        ends
    }
}

/// Starts to follow a database. Returns the thread, or `None` if that has failed.
fn follow(state: &Arc<RespState>, database: &Arc<Database>) -> Option<JoinHandle<()>> {
    let follower = FeedFollower::new(Arc::clone(state), Arc::clone(database));
    let changes = changes_from_now(&database.store).ok()?;
    database.ledger.set_followed(true);
    let run = move || follower.run(changes);
    let name = format!("bitcask-resp-{}", database.number);
    let thread = thread::Builder::new().name(name).spawn(run);
    if thread.is_err() {
        database.ledger.set_followed(false);
    }
    thread.ok()
}

/// One thread that follows.
struct FeedFollower {
    state: Arc<RespState>,
    database: Arc<Database>,
    /// Keeps the history that was not read yet.
    lease: HistoryLease,
    expiring: ExpiringKeys,
    /// Up to when all changes have been received.
    reached: SystemTime,
    /// Whether the feed has ended and could not be resumed yet. Caches were told so.
    is_cut_off: bool,
}

impl FeedFollower {
    /// Makes a follower. The feed has to begin afterwards, so that what comes then is kept.
    fn new(state: Arc<RespState>, database: Arc<Database>) -> Self {
        let lease = database.store.lease_history(LEASE_SIZE_MAX);
        let (expiring, reached) = (ExpiringKeys::default(), UNIX_EPOCH);
        Self { state, database, lease, expiring, reached, is_cut_off: false }
    }

    fn run(mut self, mut changes: Changes) {
        loop {
            let asked = SystemTime::now();
            match changes.recv_timeout(self.patience()) {
                Ok(Some(change)) => self.changed(&change),
                Ok(None) => self.reached = self.reached.max(asked),
                // Everything was removed at once, this thread is too far behind, or the store
                // cannot be read. It goes on: caches that are told of nothing stay wrong.
                Err(error) => match self.resume(&error) {
                    Some(again) => changes = again,
                    None => thread::sleep(LOOK_INTERVAL),
                },
            }
            self.lease.move_to(changes.resume_position());
            self.report_owed();
            self.expire();
            if !self.state.is_listened_to() {
                let state = Arc::clone(&self.state);
                if state.followers.end(&state, &self.database) {
                    return;
                }
            }
        }
    }

    /// Goes on with the feed, which has ended.
    fn resume(&mut self, error: &Error) -> Option<Changes> {
        // Keys that a clear has removed do not expire any more. After a gap, nobody knows which
        // keys were removed or put anew.
        self.expiring.clear();
        let resumed = self.database.ledger.resume(&self.database.store, error);
        if self.has_to_tell(resumed.as_ref().ok().map(|(_, is_gap)| *is_gap)) {
            self.state.tracker.all_changed(&self.state.peers);
        }
        resumed.ok().map(|(changes, _)| changes)
    }

    /// Returns whether to tell caches that everything has changed. The caller says whether the feed
    /// goes on with a gap or without one, or does not go on. While it does not, caches are told the
    /// first time, and not at each attempt.
    fn has_to_tell(&mut self, is_gap: Option<bool>) -> bool {
        let was_cut_off = std::mem::replace(&mut self.is_cut_off, is_gap.is_none());
        is_gap.unwrap_or(!was_cut_off)
    }

    /// Returns how long to wait for a change.
    fn patience(&self) -> Duration {
        let Some((time, _)) = self.expiring.first() else { return LOOK_INTERVAL };
        let left = time.duration_since(SystemTime::now()).unwrap_or_default();
        // A little later than the time itself, since the store's clock may be a little behind.
        (left + Duration::from_millis(1)).min(LOOK_INTERVAL)
    }

    fn changed(&mut self, change: &Change) {
        self.reached = self.reached.max(change.timestamp);
        let is_known = self.database.ledger.meet(change);
        let Some(key) = decode_key(&change.key) else { return };
        // A change from behind that time has found no key, unless it has kept the time.
        let expired = self.expiring.take(key).filter(|time| *time <= change.timestamp);
        let has_expired = expired.is_some() && expired != expiry_of(change);
        if has_expired {
            self.report_expired(key);
        }
        let (class, name) = match &change.operation {
            Operation::Put { value, expires_at } => {
                if let Some(time) = *expires_at {
                    self.expiring.remember(key, time);
                }
                put_event(value)
            }
            // The entry of an expired key has been removed, and not the key.
            Operation::Delete if has_expired => return,
            Operation::Delete => (EventClass::Generic, "del"),
        };
        if !is_known {
            self.report(class, name, key);
        }
    }

    fn report(&self, class: EventClass, name: &'static str, key: &[u8]) {
        let event = KeyEvent { class, name, key: Bytes::copy_from_slice(key) };
        self.state.report(&self.database, &event);
        self.state.tracker.changed(&[event.key], None, &self.state.peers);
    }

    fn report_expired(&self, key: &[u8]) {
        add(&self.state.counts.expired, 1);
        self.report(EventClass::Expired, "expired", key);
    }

    /// Reports changes that were taken for those of own attempts that have failed, by what their
    /// keys hold now.
    fn report_owed(&self) {
        let owed = self.database.ledger.take_owed();
        if owed.all {
            self.state.tracker.all_changed(&self.state.peers);
        }
        for key in owed.keys {
            let (class, name) = match self.database.store.get(encode_key(&key)) {
                Ok(Some(value)) => put_event(&value),
                Ok(None) => (EventClass::Generic, "del"),
                // A cache has to be told, whatever the key holds.
                Err(_) => (EventClass::String, "set"),
            };
            self.report(class, name, &key);
        }
    }

    /// Reports the keys whose time has come. Changes from before that time may have removed or
    /// replaced them, so these have to be received first.
    fn expire(&mut self) {
        let now = SystemTime::now();
        while let Some((time, key)) = self.expiring.first() {
            if time > now.min(self.reached) {
                return;
            }
            match self.database.store.contains_key(encode_key(&key)) {
                Ok(false) => {
                    self.expiring.take(&key);
                    self.report_expired(&key);
                }
                // The store's clock is behind, or the key was put anew and comes in the feed.
                Ok(true) => {
                    self.expiring.look_again(&key, now + Duration::from_millis(5));
                    return;
                }
                Err(_) => drop(self.expiring.take(&key)),
            }
        }
    }
}

/// Returns when a key expires after a change.
fn expiry_of(change: &Change) -> Option<SystemTime> {
    match change.operation {
        Operation::Put { expires_at, .. } => expires_at,
        Operation::Delete => None,
    }
}

/// Returns what is reported of a put by others.
fn put_event(value: &[u8]) -> (EventClass, &'static str) {
    match decode_value(value) {
        StoredContent::String(..) => (EventClass::String, "set"),
        StoredContent::Hash(_) => (EventClass::Hash, "hset"),
    }
}

#[cfg(test)]
mod tests;
