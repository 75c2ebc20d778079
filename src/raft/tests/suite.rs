//! openraft's own suite, on stores as they are, and on stores that are opened anew before each
//! call.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StoredMembership, Vote,
};

use super::*;

type Failed = StorageError<u64>;

/// Fresh directories for each test, on one disk: openraft's suite hands the files of a snapshot
/// from one node to another.
struct Fresh {
    twin: Arc<Twin>,
    built: AtomicUsize,
}

impl StoreBuilder<TestConfig, LogStore<TestConfig>, StateMachine<TestConfig, Counting>> for Fresh {
    async fn build(
        &self,
    ) -> Result<((), LogStore<TestConfig>, StateMachine<TestConfig, Counting>), Failed> {
        let dir = format!("/{}", self.built.fetch_add(1, Ordering::Relaxed));
        let (env, path) = (env(&self.twin), Path::new(&dir));
        let log = LogStore::open_on(&env, &path.join("log"), options(), 0).unwrap();
        let state = StateMachine::open_on(&env, &path.join("state"), options(), Counting).unwrap();
        Ok(((), log, state))
    }
}

#[test]
fn the_suite_passes() {
    Suite::test_all(Fresh { twin: Twin::new(), built: AtomicUsize::new(0) }).unwrap();
}

/// Real directories, with threads.
struct OnDisk;

impl
    StoreBuilder<
        TestConfig,
        LogStore<TestConfig>,
        StateMachine<TestConfig, Counting>,
        tempfile::TempDir,
    > for OnDisk
{
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore<TestConfig>, StateMachine<TestConfig, Counting>), Failed>
    {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::open(dir.path().join("log"), options()).unwrap();
        let state = StateMachine::open(dir.path().join("state"), options(), Counting).unwrap();
        Ok((dir, log, state))
    }
}

#[test]
fn the_suite_passes_on_disk() {
    Suite::test_all(OnDisk).unwrap();
}

/// How a process ends between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In order.
    Closed,
    /// Killed: what was written stays.
    Killed,
    /// With the machine: what was not synced is gone.
    PoweredOff,
}

/// A disk and what is open on it.
#[derive(Debug)]
struct Shelf<T> {
    twin: Arc<Twin>,
    opened: Option<T>,
    end: End,
    open: fn(&Arc<Twin>) -> crate::error::Result<T>,
}

/// Something that is opened anew before each call. Clones share it.
#[derive(Debug)]
struct Reopened<T>(Arc<Mutex<Shelf<T>>>);

impl<T> Clone for Reopened<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Reopened<T> {
    fn new(end: End, open: fn(&Arc<Twin>) -> crate::error::Result<T>) -> Self {
        Self(Arc::new(Mutex::new(Shelf { twin: Twin::new(), opened: None, end, open })))
    }

    fn fresh(&self) -> T {
        let mut place = self.0.lock().unwrap();
        match (place.opened.take(), place.end) {
            (Some(before), End::Closed) => drop(before),
            (Some(killed), end) => {
                let image = match end {
                    End::PoweredOff => place.twin.power_image(place.twin.op_count(), |_| false),
                    _ => place.twin.kill_image_now(),
                };
                drop(killed);
                place.twin = image;
            }
            (None, _) => {}
        }
        let opened = (place.open)(&place.twin).unwrap();
        place.opened.insert(opened).clone()
    }
}

type Log = Reopened<LogStore<TestConfig>>;
type State = Reopened<StateMachine<TestConfig, Counting>>;

impl RaftLogReader<TestConfig> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<TestConfig>>, Failed> {
        self.fresh().try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TestConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TestConfig>, Failed> {
        self.fresh().get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failed> {
        self.fresh().save_vote(vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failed> {
        self.fresh().read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), Failed> {
        let mut log = self.fresh();
        log.save_committed(committed).await?;
        synced(&mut log).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, Failed> {
        self.fresh().read_committed().await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TestConfig>,
    ) -> Result<(), Failed>
    where
        I: IntoIterator<Item = Entry<TestConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.fresh().append(entries, callback).await
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        let mut log = self.fresh();
        log.truncate(log_id).await?;
        synced(&mut log).await
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), Failed> {
        let mut log = self.fresh();
        log.purge(log_id).await?;
        synced(&mut log).await
    }
}

/// Makes durable what Raft can do without, and what the suite expects to stay.
async fn synced(log: &mut LogStore<TestConfig>) -> Result<(), Failed> {
    let vote = log.read_vote().await?;
    log.save_vote(&vote.unwrap_or_default()).await
}

impl RaftSnapshotBuilder<TestConfig> for State {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TestConfig>, Failed> {
        self.fresh().get_snapshot_builder().await.build_snapshot().await
    }
}

impl RaftStateMachine<TestConfig> for State {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, openraft::BasicNode>), Failed> {
        self.fresh().applied_state().await
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<u64>, Failed>
    where
        I: IntoIterator<Item = Entry<TestConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.fresh().apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFiles>, Failed> {
        self.fresh().begin_receiving_snapshot().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<SnapshotFiles>,
    ) -> Result<(), Failed> {
        // The snapshot lies on the disk of another node. A network would have copied it.
        let mut state = self.fresh();
        let received = state.begin_receiving_snapshot().await?;
        copy(&snapshot, &received);
        state.install_snapshot(meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TestConfig>>, Failed> {
        self.fresh().get_current_snapshot().await
    }
}

/// Copies a snapshot as a network does.
pub(in crate::raft) fn copy(from: &SnapshotFiles, to: &SnapshotFiles) {
    let mut buffer = [0; 100];
    for file in from.files().unwrap() {
        let mut offset = 0;
        while offset < file.size {
            let size = from.read(&file.name, offset, &mut buffer).unwrap();
            to.write(&file.name, offset, &buffer[..size]).unwrap();
            offset += size as u64;
        }
    }
}

struct Reopening {
    log: End,
    state: End,
}

impl StoreBuilder<TestConfig, Log, State> for Reopening {
    async fn build(&self) -> Result<((), Log, State), Failed> {
        Ok(((), Reopened::new(self.log, try_log), Reopened::new(self.state, try_state)))
    }
}

#[test]
fn the_suite_passes_with_a_reopen_before_each_call() {
    Suite::test_all(Reopening { log: End::Closed, state: End::Closed }).unwrap();
}

#[test]
fn the_suite_passes_with_a_kill_before_each_call() {
    Suite::test_all(Reopening { log: End::Killed, state: End::Killed }).unwrap();
}

#[test]
fn the_suite_passes_with_a_power_cut_of_the_log_before_each_call() {
    // What is applied need not survive a power cut: it is applied again.
    Suite::test_all(Reopening { log: End::PoweredOff, state: End::Killed }).unwrap();
}
