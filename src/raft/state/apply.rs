//! How entries are applied.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use openraft::{
    DefensiveError, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, LogIdOptionExt as _,
    RaftTypeConfig, SnapshotMeta, StorageError, StoredMembership, Violation,
};
use serde::{Deserialize, Serialize};

use super::limits;
use super::owned_dir::{OwnedDir, remove_tree};
use super::pointer::{DirRole, Pointer, StateDir};
use super::{AppliedState, StateStore};
use crate::clock::{GivenTime, micros_since_epoch};
use crate::error::{Error, Result};
use crate::fs::{self, Access, Lock};
use crate::mistake::{Mistake, made};
use crate::options::{Options, SyncPolicy, TransactionOptions, WriteOptions};
use crate::raft::encoding::{decode_in, encode};
use crate::raft::failure::During as _;
use crate::store::{Bitcask, Env, Reader, Transaction};
use crate::sync::Mutex;

/// The key that says which entry was applied last, at what time, and who the members are. Each
/// entry writes it, so a request that removes all keys does not remove this one.
pub(super) const APPLIED_KEY: &[u8] = b"\0raft.applied";

/// What a program does with the requests of its Raft log.
///
/// All nodes apply the same requests to the same state in the same order, and have to arrive at the
/// same result. So the methods depend on nothing but their arguments: not on the node's clock, not
/// on chance, not on what is outside of the transaction.
pub trait Apply<C: RaftTypeConfig>: Send + Sync + 'static {
    /// Makes the changes of a request, and returns its answer. The changes take effect together
    /// with the place of the request in the log. The method may be called several times for one
    /// request, of which only one call takes effect: after a crash, or because a call has failed.
    ///
    /// # Errors
    ///
    /// [`Error::BatchTooLarge`] refuses the request, and has to depend on nothing but the arguments
    /// too. Any other error stops the node. What is wrong with a request belongs into the answer.
    ///
    /// # What differs between nodes
    ///
    /// Versions ([`Transaction::version`]), positions, and the order of scans that have none. A
    /// request must not depend on them. What a request writes may have at most 256 MiB, with 64
    /// bytes for each key. If it [clears](Transaction::clear) the store, each key there counts.
    fn apply(&self, tx: &mut Transaction, request: &C::D) -> Result<C::R>;

    /// Returns the answer to an entry that is no request, such as a change of the membership.
    /// Nobody receives it.
    fn without_request(&self) -> C::R;

    /// Returns the answer to a request whose changes the store does not accept: a key or a value is
    /// too large, or all of them together are. None of them is made. The error is the
    /// same on all nodes.
    fn refused(&self, request: &C::D, error: &Error) -> C::R;

    /// Returns the time that the leader has given the request. It becomes the time of the store
    /// before the request is applied, unless it is earlier than that of a request before. If no
    /// request has a time, no key expires. Before the first such request, a time to live counts
    /// from 1970.
    fn time(&self, request: &C::D) -> Option<SystemTime> {
        let _ = request;
        None
    }

    /// Notes the store that requests are applied to from now on. Called when the state machine is
    /// opened, and when a snapshot has replaced the store, before anything is applied to it.
    ///
    /// # Errors
    ///
    /// An error fails the opening, or the installation of the snapshot.
    fn opened(&self, store: &Arc<StateStore>) -> Result<()> {
        let _ = store;
        Ok(())
    }

    /// Notes that a request has taken effect in the store. This is not called again for requests
    /// that were applied before a restart.
    fn applied(&self, store: &StateStore, request: &C::D) {
        let _ = (store, request);
    }
}

/// What was applied.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct AppliedNow<C: RaftTypeConfig> {
    pub(super) log_id: Option<LogId<C::NodeId>>,
    /// The time of the store, in microseconds since the epoch.
    pub(super) time: u64,
    pub(super) membership: StoredMembership<C::NodeId, C::Node>,
}

/// A store, the time that it is given, and what was applied to it.
pub(super) struct OpenedState<C: RaftTypeConfig> {
    pub(super) store: Arc<StateStore>,
    pub(super) time: GivenTime,
    pub(super) applied: AppliedNow<C>,
}

/// The state that all handles share.
pub(super) struct StateCore<C: RaftTypeConfig, A> {
    pub(super) dir: StateDir,
    pub(super) env: Env,
    options: Options,
    pub(super) application: A,
    /// The number of the next directory.
    next_number: AtomicU64,
    /// Number of entries from the first one on that a loss of power cannot take back.
    pub(super) held: AtomicU64,
    /// Lock 0, before the others: the turn to build or to install a snapshot.
    pub(super) turn: Mutex<()>,
    /// Lock 0, after the turn: which directories count.
    pub(super) pointer: Mutex<CurrentPointer<C>>,
    /// Lock 0, after the turn: what was applied last. Held while an entry is applied.
    pub(super) applying: Mutex<Applying<C>>,
    /// Lock 0, after the others, and only for a moment: the store.
    store: RwLock<Arc<StateStore>>,
    _lock: Lock,
}

/// The directories that count, and the handle to the snapshot.
pub(super) struct CurrentPointer<C: RaftTypeConfig> {
    pub(super) names: Pointer<C>,
    pub(super) snapshot: Option<Arc<OwnedDir>>,
}

/// What the application of entries goes on from.
pub(super) struct Applying<C: RaftTypeConfig> {
    pub(super) now: AppliedNow<C>,
    pub(super) time: GivenTime,
    /// The error after which openraft applies no more entries, if there was one.
    pub(super) failure: Option<Arc<Error>>,
}

impl<C: RaftTypeConfig, A> StateCore<C, A> {
    pub(super) fn path(&self) -> &Path {
        &self.dir.path
    }

    pub(super) fn open(env: &Env, path: &Path, options: Options, application: A) -> Result<Self>
    where
        A: Apply<C>,
    {
        let path = fs::absolute(path)?;
        env.fs.create_dirs(&path)?;
        let dir = StateDir { fs: env.fs.clone(), path };
        let lock = dir.fs.open(&dir.lock(), Access::Keep)?.try_lock()?;
        let lock = lock.ok_or(Error::Locked { path: dir.path.clone(), pid: None, ended: false })?;
        let options = options.sync_policy(SyncPolicy::Never).default_ttl(None);
        options.check()?;
        let (names, opened) = match dir.read()? {
            Some(names) => (names.clone(), open_state(env, &dir, &options, names.state, false)?),
            None => create(env, &dir, &options)?,
        };
        let snapshot = names.snapshot.as_ref().map(|it| {
            let last = it.meta.last_log_id.as_ref();
            if opened.applied.log_id.as_ref() < last {
                let reason =
                    "it holds less than the snapshot beside it, so it has lost what was durable";
                return Err(Error::corrupt(opened.store.path(), 0, reason));
            }
            Ok(Arc::new(OwnedDir::new(&dir.fs, dir.join(DirRole::Snapshot, it.number))))
        });
        let snapshot = snapshot.transpose()?;
        for (role, number) in dir.directories()? {
            let counts = match role {
                DirRole::State => names.state == number,
                DirRole::Snapshot => names.snapshot.as_ref().is_some_and(|it| it.number == number),
                DirRole::Incoming => false,
            };
            if !counts {
                remove_tree(&dir.fs, &dir.join(role, number))?;
            }
        }
        let last = names.snapshot.as_ref().and_then(|it| it.meta.last_log_id.as_ref());
        let held = last.map_or(0, |last| last.index.saturating_add(1));
        let next_number = dir.free_number()?;
        let OpenedState { store, time, applied } = opened;
        application.opened(&store)?;
        Ok(Self {
            dir,
            env: env.clone(),
            options,
            application,
            next_number: AtomicU64::new(next_number),
            held: AtomicU64::new(held),
            turn: Mutex::default(),
            pointer: Mutex::new(CurrentPointer { names, snapshot }),
            applying: Mutex::new(Applying { now: applied, time, failure: None }),
            store: RwLock::new(store),
            _lock: lock,
        })
    }

    pub(super) fn store(&self) -> Arc<StateStore> {
        Arc::clone(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the store. Returns the one before.
    pub(super) fn replace_store(&self, store: Arc<StateStore>) -> Arc<StateStore> {
        let mut current = self.store.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, store)
    }

    /// Returns a number that no directory has had since the state was opened.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Opens the store in a directory of this state machine.
    pub(super) fn open_state(&self, number: u64) -> Result<OpenedState<C>> {
        open_state(&self.env, &self.dir, &self.options, number, false)
    }

    pub(super) fn applied_state(&self) -> AppliedState<C> {
        let AppliedNow { log_id, membership, .. } = self.applying.lock().now.clone();
        (log_id, membership)
    }
}

/// Creates the first, empty store.
fn create<C: RaftTypeConfig>(
    env: &Env,
    dir: &StateDir,
    options: &Options,
) -> Result<(Pointer<C>, OpenedState<C>)> {
    let lost = |reason: &str| {
        Err(Error::corrupt(&dir.path, 0, format!("it has no CURRENT, but {reason}")))
    };
    // A crash between the two steps below leaves a store to which nothing was applied.
    match dir.directories()?.as_slice() {
        [] | [(DirRole::State, 1)] => {}
        [(role, number), ..] => {
            let name = dir.join(*role, *number);
            return lost(&name.file_name().unwrap_or_default().to_string_lossy());
        }
    }
    let opened = open_state(env, dir, options, 1, true)?;
    if opened.applied.log_id.is_some() {
        return lost("a state to which entries were applied");
    }
    let names = Pointer { state: 1, snapshot: None };
    dir.fs.sync_dir(fs::parent(&dir.path))?;
    dir.write(&names)?;
    Ok((names, opened))
}

fn open_state<C: RaftTypeConfig>(
    env: &Env,
    dir: &StateDir,
    options: &Options,
    number: u64,
    is_new: bool,
) -> Result<OpenedState<C>> {
    let path = dir.join(DirRole::State, number);
    let time = GivenTime::default();
    let env = Env { clock: time.clock(), ..env.clone() };
    let options = limits::without_limits(options.clone()).create_if_missing(is_new);
    let db = Bitcask::open_on(&env, &path, options)?;
    let applied = applied_to(&db)?;
    time.advance_to(applied.time);
    let store = Arc::new(StateStore::new(db, OwnedDir::new(&dir.fs, path), time.clone()));
    Ok(OpenedState { store, time, applied })
}

/// Reads what was applied to a store.
pub(super) fn applied_to<C: RaftTypeConfig>(db: &Reader) -> Result<AppliedNow<C>> {
    match db.get(APPLIED_KEY)? {
        Some(bytes) => decode_in(db.path(), APPLIED_KEY, &bytes),
        None => Ok(AppliedNow { log_id: None, time: 0, membership: StoredMembership::default() }),
    }
}

impl<C: RaftTypeConfig> AppliedNow<C> {
    /// Returns how the content of a snapshot differs from what it has to be, if it does.
    pub(super) fn difference(&self, meta: &SnapshotMeta<C::NodeId, C::Node>) -> Option<String> {
        let is_same = self.log_id == meta.last_log_id && self.membership == meta.last_membership;
        if is_same || made(Mistake::RaftPlaceForgotten) {
            return None;
        }
        Some(format!(
            "the snapshot holds the state up to log index {:?}, and has to hold it up to {:?}",
            self.log_id.index(),
            meta.last_log_id.index()
        ))
    }

    /// Writes what is applied, together with the changes of a transaction.
    fn put(&self, tx: &mut Transaction) -> Result<()> {
        if !made(Mistake::RaftPlaceForgotten) {
            tx.put_opt(APPLIED_KEY, encode(APPLIED_KEY, self)?, WriteOptions::new());
        }
        Ok(())
    }

    /// Writes what is applied, and nothing else.
    pub(super) fn put_alone(&self, db: &Bitcask) -> Result<()> {
        let mut tx = db.begin();
        self.put(&mut tx)?;
        commit(db, tx)
    }
}

impl<C, A> StateCore<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>>,
    A: Apply<C>,
{
    /// Applies an entry. It takes effect with its place in the log, or not at all.
    pub(super) fn apply(&self, entry: &Entry<C>) -> Result<C::R, StorageError<C::NodeId>> {
        let mut applying = self.applying.lock();
        let log_id = &entry.log_id;
        if applying.now.log_id.as_ref() >= Some(log_id) {
            let prev = applying.now.log_id.clone();
            let violation = Violation::ApplyNonConsecutive { prev, next: log_id.clone() };
            let error = DefensiveError::new(ErrorSubject::Apply(log_id.clone()), violation);
            let failure = Error::corrupt(self.path(), 0, error.to_string());
            applying.failure = Some(Arc::new(failure));
            return Err(error.into());
        }
        let mut next = applying.now.clone();
        next.log_id = Some(log_id.clone());
        if let EntryPayload::Membership(membership) = &entry.payload
            && !made(Mistake::RaftMembersOfBefore)
        {
            next.membership = StoredMembership::new(Some(log_id.clone()), membership.clone());
        }
        if let EntryPayload::Normal(request) = &entry.payload
            && let Some(time) = self.application.time(request)
        {
            applying.time.advance_to(micros_since_epoch(time));
            next.time = applying.time.get();
        }
        let behind = made(Mistake::RaftPlaceBehind)
            .then(|| AppliedNow { log_id: applying.now.log_id.clone(), ..next.clone() });
        let answer = self.commit(entry, behind.as_ref().unwrap_or(&next)).map_err(Arc::new);
        applying.failure = answer.as_ref().err().cloned();
        let answer = answer.during(ErrorSubject::Apply(log_id.clone()), ErrorVerb::Write)?;
        applying.now = next;
        Ok(answer)
    }

    fn commit(&self, entry: &Entry<C>, next: &AppliedNow<C>) -> Result<C::R> {
        let store = self.store();
        let EntryPayload::Normal(request) = &entry.payload else {
            next.put_alone(store.db())?;
            return Ok(self.application.without_request());
        };
        let mut tx = store.db().begin();
        let outcome = limits::outcome(&self.application, &mut tx, request, &self.options)?;
        if outcome.is_err() {
            tx = store.db().begin();
        }
        next.put(&mut tx)?;
        // Whatever is wrong here may be wrong on this node alone.
        commit(store.db(), tx)?;
        Ok(match outcome {
            Ok(answer) => {
                self.application.applied(&store, request);
                answer
            }
            Err(refusal) => self.application.refused(request, &refusal),
        })
    }
}

/// Commits what an entry has changed. Nothing else writes to the store, so there is no conflict.
fn commit(db: &Bitcask, tx: Transaction) -> Result<()> {
    // The Raft log is what is durable.
    let options = TransactionOptions::new().durable(false);
    if db.commit(tx, options)? { Ok(()) } else { Err(Error::Conflict { attempts: 1 }) }
}
