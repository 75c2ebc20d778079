//! The keys of one database, as commands see them.
//!
//! - Outside `MULTI`, a command reads and writes the store itself; within it, a transaction of the
//!   store. Commands do not know which.
//! - What depends on several reads or writes happens within [`Keyspace::atomically`].
//! - A command that fails does so before its first write, so that the commands around it in a
//!   transaction count.
//! - No write waits for a sync. The connection does that once for all commands that it runs
//!   together, before it sends their replies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::chance::{SharedChance, random};
use super::database::Database;
use super::encoding::{HashHeader, encode_key};
use super::events::{EventClass, KeyEvent};
use super::holding::{Holding, StoredString};
use super::keyspace_transaction::{NotedFlush, in_transaction};
use super::numbers::{from_ms, now_ms};
use super::refusal::{Answer, Refusal, TOO_LONG, refused, refused_with};
use crate::error::Error;
use crate::options::WriteOptions;
use crate::store::{Transaction, Ttl, Version};
use crate::value::Value;

/// Maximum size of a string.
pub(super) const STRING_SIZE_MAX: usize = 512 << 20;
/// Maximum size of a key.
const KEY_SIZE_MAX: usize = 65_535;
/// Maximum size of several values that one transaction puts. They are in memory until the commit,
/// and no batch of the store is larger, unless it is compressed.
const PUT_SIZE_MAX: usize = 512 << 20;
/// Maximum size of the values that one entry of the log of a cluster puts. It is below what the
/// log's state accepts. Tests have no room for as much.
const ENTRY_SIZE_MAX: usize = if cfg!(test) { 96 << 10 } else { 192 << 20 };
/// Maximum size of what such an entry writes: keys, values, and `ENTRY_WRITE_OVERHEAD` for each. It
/// is what the log's state accepts.
pub(crate) const ENTRY_WRITES_MAX: u64 = if cfg!(test) { 128 << 10 } else { 256 << 20 };
/// How many bytes the log's state counts for a write besides its key and its value.
pub(crate) const ENTRY_WRITE_OVERHEAD: u64 = 64;

/// How long a key lives after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifespan {
    /// As long as the store's options set.
    OfStore,
    /// As long as before.
    Kept,
    Endless,
    For(Duration),
    /// Until a time of day, in milliseconds since the epoch.
    Until(i64),
}

impl Lifespan {
    pub(super) fn options(self) -> WriteOptions {
        let options = WriteOptions::new().durable(false);
        match self {
            Self::OfStore => options,
            Self::Kept => options.keep_ttl(true),
            Self::Endless => options.ttl(Duration::MAX),
            Self::For(duration) => options.ttl(duration),
            Self::Until(ms) => options.expires_at(from_ms(ms)),
        }
    }
}

/// What a command has done, apart from its reply.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "deeds that occur in any combination")]
pub(super) struct Deeds {
    pub(super) events: Vec<KeyEvent>,
    pub(super) has_written: bool,
    /// Whether all keys were removed.
    pub(super) has_flushed: bool,
    /// Whether the other databases are to be cleared when the transaction has committed.
    pub(super) has_flushed_all: bool,
    /// Whether a hash was begun or changed.
    pub(super) has_hashed: bool,
    /// What was done in other databases.
    pub(super) elsewhere: Vec<(Arc<Database>, Deeds)>,
}

/// The keys of one database during one command.
#[derive(Debug)]
pub(super) struct Keyspace<'a> {
    pub(super) database: &'a Database,
    pub(super) tx: Option<&'a mut Transaction>,
    /// Whether somebody followed the database when the command began. A change whose note was not
    /// made since nobody followed yet is told by the follower that has begun meanwhile, so the
    /// command must not tell it too.
    pub(super) is_followed: bool,
    pub(super) deeds: Deeds,
    /// Keys that the transaction has changed, if somebody follows the database.
    pub(super) noted: BTreeSet<Vec<u8>>,
    /// Size of the values that the transaction has put and that wait for its commit.
    pub(super) put_size: usize,
    /// Where a flush notes what it has told the ledger, within a transaction.
    pub(super) flushed: Option<NotedFlush>,
    /// Chance, where all replicas have to draw the same.
    pub(super) chance: Option<SharedChance>,
}

impl<'a> Keyspace<'a> {
    pub(super) fn new(database: &'a Database) -> Self {
        let (is_followed, deeds) = (database.ledger.is_followed(), Deeds::default());
        let (tx, noted, put_size, flushed, chance) = (None, BTreeSet::new(), 0, None, None);
        Self { database, tx, is_followed, deeds, noted, put_size, flushed, chance }
    }

    pub(super) fn within(database: &'a Database, tx: &'a mut Transaction) -> Self {
        Self { tx: Some(tx), ..Self::new(database) }
    }

    /// Notes what has happened to a key, if somebody wants to know.
    pub(super) fn event(&mut self, class: EventClass, name: &'static str, key: &Bytes) {
        if self.is_followed {
            self.deeds.events.push(KeyEvent { class, name, key: key.clone() });
        }
    }

    /// Runs a part of a command as if nothing else happened meanwhile. It may run several times.
    pub(super) fn atomically<T>(
        &mut self,
        mut run: impl FnMut(&mut Keyspace<'_>) -> Answer<T>,
    ) -> Answer<T> {
        if self.tx.is_some() {
            return run(self);
        }
        let (database, is_followed) = (self.database, self.is_followed);
        let (result, deeds) = in_transaction(database, |space| {
            space.is_followed = is_followed;
            run(space)
        })?;
        self.deeds.events.extend(deeds.events);
        self.deeds.has_written |= deeds.has_written;
        self.deeds.has_flushed |= deeds.has_flushed;
        self.deeds.elsewhere.extend(deeds.elsewhere);
        result
    }

    /// Notes that the database has hashes: now for the commands that run at the same time, and
    /// again after the commit, because the database may be cleared in between.
    pub(super) fn note_hashes(&mut self) {
        self.database.set_has_hashes(true);
        self.deeds.has_hashed = true;
    }

    /// Returns the time in milliseconds since the epoch: the machine's, or the one that all
    /// replicas are given.
    pub(super) fn now_ms(&self) -> i64 {
        self.database.given_ms().unwrap_or_else(now_ms)
    }

    /// Returns a random number, which is the same on all replicas.
    pub(super) fn draw(&mut self) -> u64 {
        self.chance.as_mut().map_or_else(random, SharedChance::draw)
    }

    // What is read.

    /// Returns the value under a stored key. A key that is too long is absent: a transaction that
    /// has looked for it in the store could not commit.
    pub(super) fn stored(&self, stored_key: &[u8]) -> Answer<Option<Value>> {
        if stored_key.len() > KEY_SIZE_MAX {
            return Ok(None);
        }
        Ok(match &self.tx {
            Some(tx) => tx.get(stored_key)?,
            None => self.database.store.get(stored_key)?,
        })
    }

    pub(super) fn get(&self, key: &[u8]) -> Answer<Option<Holding>> {
        Ok(self.stored(&encode_key(key))?.map(Holding::new))
    }

    pub(super) fn string(&self, key: &[u8]) -> Answer<Option<StoredString>> {
        self.get(key)?.map(Holding::string).transpose()
    }

    pub(super) fn hash(&self, key: &[u8]) -> Answer<Option<HashHeader>> {
        self.get(key)?.map(Holding::hash).transpose()
    }

    /// Returns a hash and its version, when no change of it is half made. Not within a transaction.
    pub(super) fn settled_hash(&self, key: &[u8]) -> Answer<Option<(HashHeader, Version)>> {
        let found = self.database.store.get_settled(&encode_key(key))?;
        found.map(|(value, version)| Ok((Holding::new(value).hash()?, version))).transpose()
    }

    pub(super) fn exists(&self, key: &[u8]) -> Answer<bool> {
        self.has_stored(&encode_key(key))
    }

    /// Returns whether a stored key exists.
    pub(super) fn has_stored(&self, stored_key: &[u8]) -> Answer<bool> {
        if stored_key.len() > KEY_SIZE_MAX {
            return Ok(false);
        }
        Ok(match &self.tx {
            Some(tx) => tx.contains_key(stored_key)?,
            None => self.database.store.contains_key(stored_key)?,
        })
    }

    /// Returns how long a key has left to live, or `None` if it does not exist.
    pub(super) fn ttl(&self, key: &[u8]) -> Answer<Option<Ttl>> {
        let key = encode_key(key);
        if key.len() > KEY_SIZE_MAX {
            return Ok(None);
        }
        Ok(match &self.tx {
            Some(tx) => tx.ttl(key)?,
            None => self.database.store.ttl(key)?,
        })
    }

    // What is written.

    /// Puts a value under a stored key.
    pub(super) fn put_stored(
        &mut self,
        stored_key: &[u8],
        value: &[u8],
        life: Lifespan,
    ) -> Answer<()> {
        self.deeds.has_written = true;
        match &mut self.tx {
            Some(tx) => {
                let others = self.put_size.saturating_sub(tx.put_size(stored_key));
                let size = others.saturating_add(value.len());
                if self.chance.is_some() {
                    check_entry_size(size)?;
                } else if others > 0 && size > PUT_SIZE_MAX {
                    return too_large(size, PUT_SIZE_MAX);
                }
                self.put_size = size;
                tx.put_opt(stored_key, value, life.options());
            }
            None => self.database.store.put_opt(stored_key, value, life.options())?,
        }
        Ok(())
    }

    /// Puts what a key holds, as it is stored.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], life: Lifespan) -> Answer<()> {
        check_key(key)?;
        let is_new = self.is_followed && !self.exists(key)?;
        let stored_key = encode_key(key);
        if self.tx.is_some() {
            self.note_in_transaction(key);
            self.put_stored(&stored_key, value, life)?;
        } else {
            self.noted(key, |space| space.put_stored(&stored_key, value, life).map(|()| true))?;
        }
        if is_new {
            self.event(EventClass::New, "new", &Bytes::copy_from_slice(key));
        }
        Ok(())
    }

    /// Removes a key and what it holds. Returns whether it existed.
    pub(super) fn remove(&mut self, key: &[u8]) -> Answer<bool> {
        if check_key(key).is_err() {
            return Ok(false);
        }
        let may_be_hash = self.database.has_hashes();
        if self.tx.is_none() && !may_be_hash {
            let mut existed = false;
            self.noted(key, |space| {
                let options = WriteOptions::new().durable(false);
                let deleted = space.database.store.delete_logged(encode_key(key), options)?;
                existed = deleted.existed;
                Ok(deleted.is_logged)
            })?;
            return Ok(existed);
        }
        self.atomically_on(&[key], |space| {
            let holding = if may_be_hash {
                space.get(key)?
            } else {
                return space.remove_within(key);
            };
            if let Some(Holding::Hash(header)) = holding {
                space.remove_fields(header)?;
            }
            space.remove_within(key)
        })
    }

    /// Removes a key, but not the fields of a hash, within a transaction.
    pub(super) fn remove_within(&mut self, key: &[u8]) -> Answer<bool> {
        let exists = self.exists(key)?;
        if exists {
            self.note_in_transaction(key);
            self.remove_stored(&encode_key(key));
        }
        Ok(exists)
    }

    /// Removes a stored key, within a transaction.
    pub(super) fn remove_stored(&mut self, stored_key: &[u8]) {
        self.deeds.has_written = true;
        if let Some(tx) = &mut self.tx {
            self.put_size = self.put_size.saturating_sub(tx.put_size(stored_key));
            tx.delete(stored_key);
        }
    }

    /// Makes a change outside of a transaction. The closure says whether the log has it.
    pub(super) fn noted(
        &mut self,
        key: &[u8],
        write: impl FnOnce(&mut Self) -> Answer<bool>,
    ) -> Answer<bool> {
        let ledger = &self.database.ledger;
        let ticket = self.is_followed.then(|| ledger.note(key));
        let result = write(self);
        let is_made = matches!(result, Ok(true));
        self.deeds.has_written |= is_made;
        if let Some(ticket) = ticket.filter(|_| !is_made) {
            ledger.forget(key, ticket);
        }
        result
    }

    pub(super) fn note_in_transaction(&mut self, key: &[u8]) {
        if self.is_followed {
            self.noted.insert(key.to_vec());
        }
    }
}

fn too_large(size: usize, limit: usize) -> Answer<()> {
    let (size, limit) = (size as u64, limit as u64);
    Err(Refusal::Store(Error::BatchTooLarge { size, limit }))
}

/// Refuses values that are too much for an entry of the log of a cluster. All nodes have to hold
/// what it puts, however often it is applied, and decide alike. So the size is that of the bytes,
/// wherever they lie.
fn check_entry_size(size: usize) -> Answer<()> {
    if size > ENTRY_SIZE_MAX { too_large(size, ENTRY_SIZE_MAX) } else { Ok(()) }
}

/// How much an entry of the log of a cluster has to put for one command, in the same bytes on all
/// nodes.
#[derive(Debug, Default)]
pub(super) struct EntryShare {
    values: usize,
    writes: u64,
}

impl EntryShare {
    /// Adds what is put under a stored key. Returns whether an entry that puts nothing else has
    /// room for all that was added.
    pub(super) fn add(&mut self, stored_key: &[u8], value: &[u8]) -> bool {
        let size = (stored_key.len() as u64).saturating_add(value.len() as u64);
        self.values = self.values.saturating_add(value.len());
        self.writes = self.writes.saturating_add(size).saturating_add(ENTRY_WRITE_OVERHEAD);
        self.values <= ENTRY_SIZE_MAX && self.writes <= ENTRY_WRITES_MAX
    }
}

/// Refuses keys that the store cannot hold.
pub(super) fn check_key(key: &[u8]) -> Answer<()> {
    if encode_key(key).len() > KEY_SIZE_MAX {
        let size = key.len();
        return refused_with(format!(
            "ERR the key has {size} bytes, and a key can have {KEY_SIZE_MAX}"
        ));
    }
    Ok(())
}

/// Refuses strings that are too long.
pub(super) fn check_size(size: usize) -> Answer<()> {
    if size > STRING_SIZE_MAX { refused(TOO_LONG) } else { Ok(()) }
}
