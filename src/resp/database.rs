//! The databases: `SELECT n` is a store of its own.
//!
//! - Database 0 is the store that the server was given. The others lie in a directory, one store
//!   per number, and are opened when they are first selected. Commands on all databases open those
//!   that an earlier server has left there.
//! - No database is closed while the server runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::encoding::{HASHES_MARK, decode_key};
use super::ledger::Ledger;
use super::refusal::{Answer, refused, refused_with};
use super::server_state::RespState;
use super::shards::ClusterShards;
use super::syncing::Syncer;
use crate::error::Result;
use crate::fs::Fs;
use crate::options::{Options, SyncPolicy};
use crate::store::Bitcask;

/// One database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) number: usize,
    pub(super) store: Arc<Bitcask>,
    /// Whether the store may have hashes. While it has none, a string is put without a look at what
    /// it replaces. A mistake here leaves fields behind that nobody sees. A string that is put
    /// while the first hash of the store is begun under the same key is such a mistake.
    has_hashes: AtomicBool,
    /// Whether the store may have compressed values. A get copies these to memory.
    copies: AtomicBool,
    /// Whether the store follows a leader, or did before it was promoted.
    follows: bool,
    /// Whether a cluster replicates the store, and gives it its time.
    is_replicated: bool,
    pub(super) ledger: Arc<Ledger>,
    pub(super) syncer: Syncer,
    all: Weak<Databases>,
}

impl Database {
    fn new(
        number: usize,
        store: Arc<Bitcask>,
        follows: bool,
        all: Weak<Databases>,
    ) -> Result<Self> {
        let has_hashes = AtomicBool::new(store.contains_key(HASHES_MARK)?);
        let copies = AtomicBool::new(store.compresses());
        let (ledger, syncer) = (Arc::default(), Syncer::default());
        let is_replicated = false;
        Ok(Self { number, store, has_hashes, copies, follows, is_replicated, ledger, syncer, all })
    }

    /// The only database of a cluster, or of a part of its keys.
    pub(super) fn replicated(store: Arc<Bitcask>) -> Result<Self> {
        Ok(Self { is_replicated: true, ..Self::new(0, store, true, Weak::new())? })
    }

    /// Returns the time that the cluster has given the store, in milliseconds since the epoch.
    pub(super) fn given_ms(&self) -> Option<i64> {
        self.is_replicated.then(|| i64::try_from(self.store.now() / 1000).unwrap_or(i64::MAX))
    }

    /// Returns another database of the same server.
    pub(super) fn sibling(&self, number: usize) -> Answer<Arc<Database>> {
        match self.all.upgrade() {
            Some(all) => all.get(number),
            None => refused("ERR DB index is out of range"),
        }
    }

    /// Returns the other databases that exist, and opens those that are not open.
    pub(super) fn others(&self) -> Answer<Vec<Arc<Database>>> {
        let Some(all) = self.all.upgrade() else { return Ok(Vec::new()) };
        let numbers = all.existing().filter(|number| *number != self.number);
        numbers.map(|number| all.get(number)).collect()
    }

    /// Removes all keys.
    pub(super) fn clear(&self) -> Result<()> {
        self.ledger.clear(&self.store)?;
        self.forget_hashes();
        Ok(())
    }

    /// Removes all keys of the other databases. If one of them cannot be opened, none is cleared.
    pub(super) fn clear_others(&self) -> Answer<()> {
        for other in self.others()? {
            other.clear()?;
        }
        Ok(())
    }

    /// Notes that the hashes so far are gone. One that is begun meanwhile is noted again when its
    /// transaction has committed.
    pub(super) fn forget_hashes(&self) {
        self.set_has_hashes(false);
        // A store that cannot be read may have some. What was removed is gone all the same.
        if self.store.contains_key(HASHES_MARK).unwrap_or(true) {
            self.set_has_hashes(true);
        }
    }

    pub(super) fn has_hashes(&self) -> bool {
        if self.has_hashes.load(Ordering::Acquire) {
            return true;
        }
        // The hashes of a replica come from its leader.
        let may_be = self.follows && self.store.contains_key(HASHES_MARK).unwrap_or(true);
        if may_be {
            self.set_has_hashes(true);
        }
        may_be
    }

    pub(super) fn set_has_hashes(&self, yes: bool) {
        self.has_hashes.store(yes, Ordering::Release);
    }

    /// Counts the keys of Redis that have not expired, one by one.
    pub(super) fn key_count(&self) -> Result<u64> {
        let mut count = 0;
        for key in self.store.keys_unordered() {
            count += u64::from(decode_key(&key?).is_some());
        }
        Ok(count)
    }

    /// Notes that a get has copied a value: the store has compressed values from earlier.
    pub(super) fn note_copy(&self) {
        self.copies.store(true, Ordering::Release);
    }

    /// Returns how many of these keys are looked up together: all, or so many that the copies of
    /// their values take little more memory than `size`. At least one.
    pub(super) fn fitting<K: AsRef<[u8]>>(&self, keys: &[K], size: u64) -> usize {
        if !self.copies.load(Ordering::Acquire) {
            return keys.len();
        }
        let mut sum = 0_u64;
        let fits = |key: &&K| {
            // The look-up itself reports errors.
            let len = self.store.value_len(key).ok().flatten().unwrap_or(0);
            sum = sum.saturating_add(len);
            sum <= size
        };
        keys.iter().take_while(fits).count().max(1)
    }

    /// Returns whether a write of this database has to wait for a sync before it is acknowledged.
    pub(super) fn syncs_each_write(&self) -> bool {
        self.store.sync_policy() == SyncPolicy::Always
    }
}

/// Where the databases other than 0 are.
#[derive(Debug, Clone)]
pub(super) struct MoreDatabases {
    pub(super) dir: PathBuf,
    pub(super) count: usize,
    pub(super) options: Options,
}

impl MoreDatabases {
    fn path(&self, number: usize) -> PathBuf {
        self.dir.join(number.to_string())
    }
}

/// All databases, by number.
#[derive(Debug)]
pub(super) struct Databases {
    slots: Vec<OnceLock<Arc<Database>>>,
    /// The shards of a cluster, which then have the keys instead.
    shards: Option<Arc<dyn ClusterShards>>,
    more: Option<MoreDatabases>,
    /// Lock 0: the turn to open a database. It is held while a store is opened.
    opening: Mutex<()>,
    this: Weak<Databases>,
    /// The server, which has to follow a database that is opened while somebody listens.
    server: OnceLock<Weak<RespState>>,
    /// Whether the server has failed to follow all of them.
    has_to_look: AtomicBool,
}

impl Databases {
    pub(super) fn new(
        store: Arc<Bitcask>,
        follows: bool,
        more: Option<MoreDatabases>,
        shards: Option<Arc<dyn ClusterShards>>,
    ) -> Result<Arc<Self>> {
        let count = more.as_ref().map_or(1, |more| more.count.max(1));
        let slots = (0..count).map(|_| OnceLock::new()).collect();
        let all = Arc::new_cyclic(|this| {
            let (this, opening) = (Weak::clone(this), Mutex::new(()));
            let (server, has_to_look) = (OnceLock::new(), AtomicBool::new(false));
            Self { slots, shards, more, opening, this, server, has_to_look }
        });
        let first = Database::new(0, store, follows, Arc::downgrade(&all))?;
        if let Some(slot) = all.slots.first() {
            slot.get_or_init(|| Arc::new(first));
        }
        Ok(all)
    }

    /// Returns the stores that a cluster has on this node.
    fn of_shards(&self) -> Vec<Arc<Database>> {
        let Some(shards) = &self.shards else { return Vec::new() };
        let numbers = shards.topology().shards.into_iter().map(|shard| shard.number);
        let keys = numbers.filter_map(|number| shards.keys(number).ok());
        keys.map(|keys| Arc::clone(&keys.database)).collect()
    }

    /// Says which server the databases belong to.
    pub(super) fn belong_to(&self, server: &Arc<RespState>) {
        self.server.get_or_init(|| Arc::downgrade(server));
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Returns the databases that are open.
    pub(super) fn open(&self) -> Vec<Arc<Database>> {
        let open = self.slots.iter().filter_map(OnceLock::get).cloned();
        open.chain(self.of_shards()).collect()
    }

    /// Returns the numbers of the databases that are open or have a directory.
    pub(super) fn existing(&self) -> impl Iterator<Item = usize> {
        let has_dir = |number: usize| {
            self.more
                .as_ref()
                .is_some_and(|more| matches!(Fs::DISK.is_dir(&more.path(number)), Ok(Some(true))))
        };
        let slots = self.slots.iter().enumerate();
        slots
            .filter(move |(number, slot)| slot.get().is_some() || has_dir(*number))
            .map(|(number, _)| number)
    }

    /// Returns a database, and opens it if it was not open. A thread of the runtime lets others
    /// serve its clients meanwhile.
    pub(super) fn get(&self, number: usize) -> Answer<Arc<Database>> {
        let Some(slot) = self.slots.get(number) else {
            return refused("ERR DB index is out of range");
        };
        if let Some(database) = slot.get() {
            if self.has_to_look.load(Ordering::Relaxed) {
                self.look();
            }
            return Ok(Arc::clone(database));
        }
        let Some(more) = &self.more else { return refused("ERR DB index is out of range") };
        tokio::task::block_in_place(|| self.open_slot(slot, more, number))
    }

    fn open_slot(
        &self,
        slot: &OnceLock<Arc<Database>>,
        more: &MoreDatabases,
        number: usize,
    ) -> Answer<Arc<Database>> {
        let turn = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = slot.get() {
            return Ok(Arc::clone(database));
        }
        let opened = Bitcask::open(more.path(number), more.options.clone()).and_then(|store| {
            Database::new(number, Arc::new(store), false, Weak::clone(&self.this))
        });
        let database = match opened {
            Ok(database) => Arc::clone(slot.get_or_init(|| Arc::new(database))),
            Err(error) => {
                return refused_with(format!("ERR Database {number} can't be opened: {error}"));
            }
        };
        drop(turn);
        self.look();
        Ok(database)
    }

    /// Has all open databases followed, if somebody listens. A database can be used although that
    /// fails, perhaps because of another one: the next `get` tries again.
    pub(super) fn look(&self) {
        if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            self.look_with(|| server.followers.look(&server));
        }
    }

    /// Looks, and notes a failure. One that another thread notes meanwhile must stay noted: this
    /// look may not have seen its database.
    fn look_with(&self, look: impl FnOnce() -> bool) {
        self.has_to_look.store(false, Ordering::Relaxed);
        if !look() {
            self.has_to_look.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;
    use crate::resp::session_tests::{args, sent, session, state};

    /// As when a database with a long log is opened by `EXEC` or `COPY`.
    #[test]
    fn other_clients_are_served_while_a_command_opens_a_database() {
        let (_dir, state) = state();
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let turn = state.databases.opening.lock().unwrap();
        let (waits, opens) = mpsc::channel();
        let mut client = session(&state);
        let opening = runtime.spawn(async move {
            for line in ["SET k 1", "MULTI", "SELECT 2", "SET k 2", "EXEC"] {
                waits.send(()).unwrap();
                client.run(&args(line));
            }
            client.run(&args("COPY k l DB 3"));
            sent(&mut client)
        });
        assert_eq!(opens.iter().take(5).count(), 5);
        let (served, other) = mpsc::channel();
        runtime.spawn(async move { served.send(()) });
        // There is a limit only so that a failure ends.
        other.recv_timeout(Duration::from_secs(30)).unwrap();
        drop(turn);
        let replies = runtime.block_on(opening).unwrap();
        assert!(replies.ends_with("*2\r\n+OK\r\n+OK\r\n:1\r\n"), "{replies}");
    }

    #[test]
    fn a_look_that_succeeds_hides_no_failure_of_another() {
        let (_dir, state) = state();
        let databases = &state.databases;
        databases.look_with(|| {
            databases.look_with(|| false);
            true
        });
        assert!(databases.has_to_look.load(Ordering::Relaxed));
        databases.look_with(|| true);
        assert!(!databases.has_to_look.load(Ordering::Relaxed));
    }

    #[test]
    fn a_server_that_failed_to_follow_looks_again() {
        let (_dir, state) = state();
        state.databases.belong_to(&state);
        let first = state.databases.get(0).unwrap();
        state.parameters.set(b"notify-keyspace-events", b"KEA");
        state.databases.get(0).unwrap();
        assert!(!first.ledger.is_followed(), "it is open, and nothing has failed");
        state.databases.has_to_look.store(true, Ordering::Relaxed);
        state.databases.get(0).unwrap();
        assert!(first.ledger.is_followed());
        assert!(!state.databases.has_to_look.load(Ordering::Relaxed));
        state.stop.send_replace(true);
        state.followers.join();
    }
}
