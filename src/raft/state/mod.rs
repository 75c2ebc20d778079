//! The state machine of a Raft node: the store to which committed entries are applied, and its
//! snapshots.
//!
//! - `apply` applies entries, `limits` says what a request may write, `snapshots` builds and
//!   installs snapshots, `files` is what they consist of, `pointer` says which directories count,
//!   `held` is what the log hears of all that, `feed` follows the changes, `copies` are for others,
//!   and `received` looks for damage in snapshots that have arrived.
//! - The store of a state machine is replaced when a snapshot is installed. Whoever has the store
//!   from before can read it to the end.

pub(super) mod apply;
#[cfg(feature = "cluster")]
pub(crate) mod copies;
#[cfg(feature = "cluster")]
pub(crate) mod feed;
#[cfg(all(test, feature = "cluster"))]
mod feed_tests;
pub(super) mod files;
mod held;
pub(super) mod limits;
mod owned_dir;
mod pointer;
#[cfg(feature = "cluster")]
mod received;
mod snapshots;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig,
    Snapshot, SnapshotMeta, StorageError, StoredMembership,
};

use super::blocking::blocking;
use super::failure::During as _;
use super::log::Holder;
use crate::clock::GivenTime;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::store::{Bitcask, Env, Reader};
use apply::{Apply, StateCore};
use files::SnapshotFiles;
use owned_dir::OwnedDir;

/// The log id of the last entry that was applied, and the last membership.
type AppliedState<C> = (
    Option<LogId<<C as RaftTypeConfig>::NodeId>>,
    StoredMembership<<C as RaftTypeConfig>::NodeId, <C as RaftTypeConfig>::Node>,
);

/// The state machine of a Raft node, in a directory of its own: openraft's [`RaftStateMachine`].
///
/// The program reads its [`store`](Self::store) at any time, and writes only through Raft. Each
/// entry is applied in one transaction, together with its log id.
///
/// Time stands still in this store, unless [`Apply::time`] moves it on. So which keys have expired
/// depends on the entries that were applied, and is the same on all nodes.
///
/// Clones share the state.
pub struct StateMachine<C: RaftTypeConfig, A>(Arc<StateCore<C, A>>);

/// Builds a snapshot of a [`StateMachine`]. Entries can be applied meanwhile.
pub struct SnapshotBuilder<C: RaftTypeConfig, A>(Arc<StateCore<C, A>>);

/// The store of a [`StateMachine`], for reading. It dereferences to [`Reader`].
///
/// Once the state machine has installed a snapshot, this is the state of before. Ask the state
/// machine again for each operation, or hold this for a moment only: its files are removed when
/// nobody holds it.
pub struct StateStore {
    // The order matters: the store is closed before its directory is removed.
    db: Arc<Bitcask>,
    dir: OwnedDir,
    time: GivenTime,
}

impl StateStore {
    fn new(db: Bitcask, dir: OwnedDir, time: GivenTime) -> Self {
        Self { db: Arc::new(db), dir, time }
    }

    /// Returns the store for those that hold this as well.
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "clusters alone need it"))]
    pub(crate) fn shared(&self) -> Arc<Bitcask> {
        Arc::clone(&self.db)
    }

    /// Returns the time that the requests so far have given the store, in microseconds since the
    /// epoch.
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "clusters alone need it"))]
    pub(crate) fn time(&self) -> u64 {
        self.time.get()
    }

    /// Returns the store itself, for those that write.
    fn db(&self) -> &Bitcask {
        &self.db
    }

    /// Has the directory removed once the store is closed.
    fn supersede(&self) {
        self.dir.supersede();
    }
}

impl Deref for StateStore {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.db
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl<C, A> StateMachine<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    /// Opens the state in a directory, or creates an empty one there.
    ///
    /// The options hold for the store. Its sync policy and its default time to live have no effect:
    /// the Raft log is what is durable, and times come from requests. All nodes need the same
    /// limits of keys and values, which hold for what requests write.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcask::open`], and [`Corrupt`](crate::Error::Corrupt) if the store or the
    /// snapshot that the directory names is missing or is not the one that it was.
    pub fn open(path: impl AsRef<Path>, options: Options, apply: A) -> Result<Self> {
        Self::open_on(&Env::default(), path.as_ref(), options, apply)
    }

    pub(crate) fn open_on(env: &Env, path: &Path, options: Options, apply: A) -> Result<Self> {
        Ok(Self(Arc::new(StateCore::open(env, path, options, apply)?)))
    }

    /// Returns the store, to read from it.
    pub fn store(&self) -> Arc<StateStore> {
        self.0.store()
    }

    /// Returns what a [`LogStore`](super::LogStore) has to know of this.
    pub(super) fn holder(&self) -> Arc<dyn Holder<C>> {
        Arc::clone(&self.0) as Arc<dyn Holder<C>>
    }

    /// Applies nothing as long as the caller has this.
    #[cfg(all(test, feature = "cluster"))]
    pub(crate) fn halt(&self) -> impl Drop {
        self.0.applying.lock()
    }

    /// Returns what makes the changes of requests.
    pub fn application(&self) -> &A {
        &self.0.application
    }

    /// Makes everything durable that was applied so far. Raft does not need that: it is for those
    /// that copy the directory.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcask::sync`].
    pub fn sync(&self) -> Result<()> {
        self.0.store().db().sync()
    }
}

impl<C: RaftTypeConfig, A> Clone for StateMachine<C, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: RaftTypeConfig, A> fmt::Debug for StateMachine<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").field("path", &self.0.path()).finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig, A> fmt::Debug for SnapshotBuilder<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotBuilder").field("path", &self.0.path()).finish_non_exhaustive()
    }
}

impl<C, A> RaftSnapshotBuilder<C> for SnapshotBuilder<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    async fn build_snapshot(&mut self) -> Result<Snapshot<C>, StorageError<C::NodeId>> {
        // openraft would wait for ever for a task that has panicked, and build no other.
        let built = catch_unwind(AssertUnwindSafe(|| blocking(|| self.0.build_snapshot())));
        let panicked = |_| Err(Error::Panicked { path: self.0.path().into() });
        let built = built.unwrap_or_else(panicked);
        built.during(ErrorSubject::Snapshot(None), ErrorVerb::Write)
    }
}

impl<C, A> RaftStateMachine<C> for StateMachine<C, A>
where
    C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    A: Apply<C>,
{
    type SnapshotBuilder = SnapshotBuilder<C, A>;

    async fn applied_state(&mut self) -> Result<AppliedState<C>, StorageError<C::NodeId>> {
        // An entry may be being applied.
        Ok(blocking(|| self.0.applied_state()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<C::R>, StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter();
        let apply = || entries.map(|entry| self.0.apply(&entry)).collect();
        blocking(|| self.0.noting_panic(apply))
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        SnapshotBuilder(Arc::clone(&self.0))
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<SnapshotFiles>, StorageError<C::NodeId>> {
        let begun = blocking(|| self.0.noting_failure(|| self.0.begin_receiving()));
        begun.map(Box::new).during(ErrorSubject::Snapshot(None), ErrorVerb::Write)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<C::NodeId, C::Node>,
        snapshot: Box<SnapshotFiles>,
    ) -> Result<(), StorageError<C::NodeId>> {
        let installed = blocking(|| self.0.noting_failure(|| self.0.install(meta, &snapshot)));
        installed.during(ErrorSubject::Snapshot(Some(meta.signature())), ErrorVerb::Write)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<C>>, StorageError<C::NodeId>> {
        Ok(self.0.current_snapshot())
    }
}
