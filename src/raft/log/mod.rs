//! The log of a Raft node, and its vote.
//!
//! - Several groups of a node share one store, and so its syncs. `group` has what belongs to one.
//! - `reader` reads entries, and `syncing` makes entries durable, and tells openraft.

pub(super) mod group;
mod keys;
mod reader;
pub(super) mod syncing;
#[cfg(test)]
mod tests;

use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt as _;
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftTypeConfig, StorageError,
    Vote,
};

use super::blocking::blocking;
use super::failure::During as _;
use super::state::StateMachine;
use super::state::apply::Apply;
use super::state::files::SnapshotFiles;
use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use crate::options::{History, KEY_SIZE_LIMIT, Options, SyncPolicy, VALUE_SIZE_LIMIT};
use crate::store::{Bitcask, Env};
use group::GroupLog;
pub use reader::LogReader;
use syncing::Syncing;

/// How often an append looks whether the state machine holds what was purged.
const HELD_LOOKED: Duration = Duration::from_millis(5);

/// The log and the vote of a Raft node, in a directory of its own: openraft's
/// [`RaftLogStorage`].
///
/// A node that takes part in several groups opens one log and calls [`group`](Self::group) for each
/// of them. The entries of all groups then lie in one log of segment files, and those that come at
/// about the same time share a sync.
///
/// openraft gets about 4 MiB of entries at a time to send them to another node, and gives that node
/// its `heartbeat_interval` to store them. That interval has to suffice for it.
///
/// openraft keeps entries in memory from their commitment until they are applied. A node that
/// applies them more slowly than it appends them has to take fewer of its leader: its network can
/// hold them back, and answer `PartialSuccess` with the entry before them.
///
/// Clones and groups share the store, which is closed when the last of them is dropped.
pub struct LogStore<C: RaftTypeConfig> {
    shared: Arc<SharedLog>,
    group: Arc<GroupLog<C>>,
    holder: Option<Arc<dyn Holder<C>>>,
}

/// A state machine, as its log sees it.
pub(super) trait Holder<C: RaftTypeConfig>: Send + Sync {
    /// Returns its directory.
    fn path(&self) -> &Path;

    /// Returns whether the state up to an entry is durable, after a sync if that makes it so.
    /// Returns an error if the state has failed, and will not get there.
    fn holds(&self, index: u64) -> Result<bool>;

    /// Returns the last entry that was applied.
    fn applied(&self) -> Option<LogId<C::NodeId>>;
}

/// What the groups of a node share.
struct SharedLog {
    store: Arc<Bitcask>,
    syncing: Syncing,
}

impl<C: RaftTypeConfig> LogStore<C> {
    /// Opens the log in a directory, or creates one there, and returns group 0 of it.
    ///
    /// The options decide on the size of segments and on merges, which reclaim the space of entries
    /// that openraft has purged. Their sync policy has no effect: votes and entries are synced
    /// when Raft demands it. Nor have limits of keys and values: an entry can have up to 4 GiB.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcask::open`], and [`Corrupt`](Error::Corrupt) if entries are missing, or this
    /// version cannot decode them.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_group(path, options, 0)
    }

    /// Opens the log in a directory, or creates one there, and returns one of its groups. Damage in
    /// another group is no obstacle.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_group(path: impl AsRef<Path>, options: Options, number: u64) -> Result<Self> {
        Self::open_on(&Env::default(), path.as_ref(), options, number)
    }

    pub(crate) fn open_on(env: &Env, path: &Path, options: Options, number: u64) -> Result<Self> {
        // Nobody follows the changes of this store, and purged entries have to go.
        let options = options.sync_policy(SyncPolicy::Never).default_ttl(None);
        let options = options.keep_history(History::None);
        let options = options.key_size_limit(KEY_SIZE_LIMIT).value_size_limit(VALUE_SIZE_LIMIT);
        let store = Arc::new(Bitcask::open_on(env, path, options)?);
        let group = Arc::new(GroupLog::open(&store, number)?);
        let syncing = Syncing::start(&store, env.threads)?;
        Ok(Self { shared: Arc::new(SharedLog { store, syncing }), group, holder: None })
    }

    /// Returns another group of the same node. Each group has a log and a vote of its own, and
    /// must be in use at most once at a time.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn group(&self, number: u64) -> Result<Self> {
        let group = Arc::new(GroupLog::open(&self.shared.store, number)?);
        Ok(Self { shared: Arc::clone(&self.shared), group, holder: None })
    }

    /// Ties the log to the state machine of the same group. A node should always do that.
    ///
    /// openraft purges the log as soon as it has begun to install a snapshot. If the node dies
    /// before the snapshot is installed, it has neither the entries nor what they led to, and does
    /// not start again. With this, entries stay on disk until the state machine holds, durably,
    /// what they led to.
    #[must_use]
    pub fn purging_after<A: Apply<C>>(mut self, state: &StateMachine<C, A>) -> Self
    where
        C: RaftTypeConfig<Entry = Entry<C>, SnapshotData = SnapshotFiles>,
    {
        self.holder = Some(state.holder());
        self
    }

    /// Removes the log and the vote of this group, for example when its node has left the cluster.
    /// Durable when this returns. Remove the directory of the group's state machine too: openraft
    /// does not start with a state whose log is gone.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcask::delete_prefix`].
    pub fn remove_group(self) -> Result<()> {
        self.group.remove(&self.shared.store)?;
        self.shared.store.sync()
    }

    /// Removes the log and the vote of another group, which must not be in use. It need not be one
    /// that [`group`](Self::group) can open: this is the way to replace a damaged log, by a node
    /// that begins anew under another id, and with another directory for the state machine. Durable
    /// when this returns.
    ///
    /// # Errors
    ///
    /// Those of [`Bitcask::delete_prefix`].
    pub fn remove_other(&self, number: u64) -> Result<()> {
        if number == self.group.number() {
            return self.clone().remove_group();
        }
        group::remove_group(&self.shared.store, number)?;
        self.shared.store.sync()
    }

    /// Returns the statistics of the store that holds the log: sizes, syncs, merges.
    pub fn stats(&self) -> crate::stats::Stats {
        self.shared.store.stats()
    }

    /// Removes what was purged, if the state machine can do without it. Returns whether anything is
    /// left to be removed.
    fn purge_held(&self) -> Result<bool> {
        let Some(upto) = self.group.pending() else { return Ok(false) };
        if let Some(holder) = &self.holder
            && !made(Mistake::RaftPurgedEarly)
            && !holder.holds(upto.index)?
        {
            return Ok(true);
        }
        self.group.remove_purged(&self.shared.store)?;
        Ok(false)
    }

    /// Appends entries behind those that were purged. Returns the entries if the state machine
    /// cannot do without the purged ones yet.
    fn append_held<I: Iterator<Item = C::Entry>>(
        &self,
        entries: I,
    ) -> Result<Option<I>, StorageError<C::NodeId>> {
        if self.purge_held().during(ErrorSubject::Logs, ErrorVerb::Write)? {
            return Ok(Some(entries));
        }
        self.group.append(&self.shared.store, entries)?;
        Ok(None)
    }

    /// Begins the log behind what the state machine holds, if that is not of this log. A node that
    /// died after it had installed a snapshot, and before it had removed the entries that the
    /// snapshot replaces, would go on with both.
    ///
    /// openraft saves a vote before it appends an entry of a leader, asks for votes or installs a
    /// snapshot. So a log without a vote, beside a state to which entries were applied, is not the
    /// log of that state: a node that began with it could vote twice in a term.
    fn begin_behind_state(&self) -> Result<()> {
        let Some(holder) = &self.holder else { return Ok(()) };
        let applied = holder.applied();
        self.check_held(&**holder, applied.as_ref())?;
        let Some(applied) = applied else { return Ok(()) };
        if self.group.vote(&self.shared.store)?.is_none() {
            let reason = format!(
                "the Raft log of group {} holds no vote, but the state beside it was voted for, so \
                 the log has lost what was durable",
                self.group.number()
            );
            return Err(Error::corrupt(self.shared.store.path(), 0, reason));
        }
        if self.group.differs_from(&self.shared.store, &applied)? {
            self.group.purge(applied);
            self.purge_held()?;
        }
        Ok(())
    }

    /// Refuses a state that lacks what was purged. Nothing is removed from the disk before the
    /// state holds it.
    fn check_held(&self, holder: &dyn Holder<C>, applied: Option<&LogId<C::NodeId>>) -> Result<()> {
        let purged = self.group.state().last_purged_log_id;
        let Some(purged) = purged.filter(|_| self.group.pending().is_none()) else { return Ok(()) };
        let held = match applied {
            Some(applied) if applied.index >= purged.index => return Ok(()),
            Some(applied) => format!("ends with entry {}", applied.index),
            None => "is empty".to_owned(),
        };
        let reason = format!(
            "the Raft log of group {} begins behind entry {}, but the state {held}, so it has lost \
             what was durable; remove the node from its cluster, and let it join anew, with another \
             id and empty directories",
            self.group.number(),
            purged.index,
        );
        Err(Error::corrupt(holder.path(), 0, reason))
    }

    /// Waits until everything written so far is durable.
    async fn synced(&self) -> Result<()> {
        let (done, result) = tokio::sync::oneshot::channel();
        // If nobody waits any more, nobody needs the result.
        self.shared.syncing.then(Box::new(move |result| drop(done.send(result))));
        match result.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(Error::Poisoned { cause }),
            Err(_) => Err(Error::Panicked { path: self.shared.store.path().into() }),
        }
    }
}

impl<C: RaftTypeConfig> Clone for LogStore<C> {
    fn clone(&self) -> Self {
        let Self { shared, group, holder } = self;
        let (shared, group) = (Arc::clone(shared), Arc::clone(group));
        Self { shared, group, holder: holder.clone() }
    }
}

impl<C: RaftTypeConfig> Debug for LogStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader<C>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        let begun = blocking(|| self.begin_behind_state().map(|()| self.group.state()));
        begun.during(ErrorSubject::Logs, ErrorVerb::Read)
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        LogReader { log: self.clone(), truncations: self.group.truncations() }
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let saved = match blocking(|| self.group.save_vote(&self.shared.store, vote)) {
            Ok(()) if made(Mistake::RaftVoteNotSynced) => Ok(()),
            Ok(()) => self.synced().await,
            failed => failed,
        };
        saved.during(ErrorSubject::Vote, ErrorVerb::Write)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        let vote = blocking(|| self.group.vote(&self.shared.store));
        vote.during(ErrorSubject::Vote, ErrorVerb::Read)
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        // A write may have to seal a segment or to create one.
        let saved = blocking(|| self.group.save_committed(&self.shared.store, committed.as_ref()));
        saved.during(ErrorSubject::Logs, ErrorVerb::Write)
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        let committed = blocking(|| self.group.committed(&self.shared.store));
        committed.during(ErrorSubject::Logs, ErrorVerb::Read)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<C>,
    ) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut left = Some(entries.into_iter());
        while let Some(entries) = left.take() {
            left = blocking(|| self.append_held(entries))?;
            if left.is_some() {
                C::sleep(HELD_LOOKED).await;
            }
        }
        self.shared.syncing.then(Box::new(move |result| {
            callback
                .log_io_completed(result.map_err(|error| std::io::Error::other(error.to_string())));
        }));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let removed = match blocking(|| self.group.truncate(&self.shared.store, log_id.index)) {
            // A snapshot that replaces these entries may come next, and is durable before the log
            // is synced again.
            Ok(()) if made(Mistake::RaftTruncationNotSynced) => Ok(()),
            Ok(()) => self.synced().await,
            failed => failed,
        };
        removed.during(ErrorSubject::Log(log_id), ErrorVerb::Delete)
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        self.group.purge(log_id.clone());
        let removed = blocking(|| self.purge_held());
        removed.map(drop).during(ErrorSubject::Log(log_id), ErrorVerb::Delete)
    }
}
