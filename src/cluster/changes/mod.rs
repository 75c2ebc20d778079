//! The changes of all shards, as a node has them.
//!
//! - A shard's changes come entry by entry, and the entries of one do not wait for those of
//!   another. Nothing comes between two changes of one entry.
//! - What a node has applied was committed by the majority. So what was told stays, whatever
//!   happens to this node or to its leader.
//! - A follower looks again at shards in which something was applied, and at all of them now and
//!   then: an entry that changes no keys moves the position on, and wakes nobody.

pub(crate) mod position;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::apply::Applier;
use super::consensus::Consensus;
use super::error::ClusterError;
use super::group::RaftGroup;
use super::network::PeerTransport;
use super::node::Node;
use crate::raft::{EntryFeed, EntryPlace, EntryStep, FeedFailure};
use crate::store::{Change, Operation};
use crate::value::Value;
use position::ClusterPosition;

/// Number of steps after which a follower that finds nothing lets its caller look at something
/// else.
const STEPS_MAX: usize = 4096;
/// How long a follower waits until it looks at all shards, and whether the node still takes part.
const LOOK: Duration = Duration::from_millis(250);

/// A put or a delete in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterChange {
    /// The shard that the key belongs to.
    pub shard: u64,
    /// The key that was changed, as it lies in the store.
    pub key: Value,
    /// What was done to the key.
    pub operation: Operation,
    /// The leader's time of the entry. It is the same on all nodes.
    pub time: SystemTime,
    /// Whether the next change belongs to the same entry. If `false`, the
    /// [position](ClusterChanges::position) is behind this entry now.
    pub entry_continues: bool,
}

/// Changes of a cluster, from [`ClusterNode::changes`](super::ClusterNode::changes).
///
/// The changes of a shard come in the order of its log. As an iterator, it waits for further
/// changes, and ends after the first error. It keeps open the stores of its node: drop it before
/// the directory is opened again.
#[must_use = "changes are read one by one"]
pub struct ClusterChanges {
    shards: Vec<FollowedShard>,
    /// Which shard is read next.
    turn: usize,
    position: ClusterPosition,
    prefix: Vec<u8>,
    failed: bool,
}

/// What is followed of a shard.
struct FollowedShard {
    group: Arc<RaftGroup>,
    feed: EntryFeed<Consensus, Applier>,
    /// Changes when something is applied.
    news: watch::Receiver<u64>,
    /// Whether everything was read, as of the last look.
    is_drained: bool,
}

/// What a follower finds without waiting.
pub(crate) enum ShardStep {
    Change(u64, Change),
    /// Nothing among a lot of other changes. There is more.
    More,
    /// Everything was read.
    Nothing,
}

impl fmt::Debug for ClusterChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterChanges")
            .field("position", &self.position)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl<T: PeerTransport> Node<T> {
    /// Returns the position behind everything that this node has.
    pub(crate) fn position(&self) -> Result<ClusterPosition, ClusterError> {
        self.now(&self.followed(None)?)
    }

    fn now(&self, groups: &[Arc<RaftGroup>]) -> Result<ClusterPosition, ClusterError> {
        let cluster = self.identity().map(|identity| identity.cluster);
        let start = cluster.and_then(|cluster| ClusterPosition::START.within(cluster));
        let mut position = start.ok_or_else(no_cluster)?;
        for group in groups {
            position.set(group.number, group.state().applied_place());
        }
        Ok(position)
    }

    /// Returns the groups of one shard or of all.
    fn followed(&self, only: Option<u64>) -> Result<Vec<Arc<RaftGroup>>, ClusterError> {
        let shards = self.identity().ok_or_else(no_cluster)?.shards;
        let numbers = only.map_or(1..=u64::from(shards), |only| only..=only);
        let group = |number| {
            let none = || ClusterError::Refused(format!("there is no shard {number}"));
            self.group(number).filter(|group| group.number > 0).ok_or_else(none)
        };
        numbers.map(group).collect()
    }

    /// Returns the changes of one shard or of all, since a position or from now on. This waits for
    /// the disk.
    pub(crate) fn changes(
        &self,
        since: Option<&ClusterPosition>,
        only: Option<u64>,
    ) -> Result<ClusterChanges, ClusterError> {
        let identity = self.identity().ok_or_else(no_cluster)?;
        let groups = self.followed(only)?;
        let position = match since {
            Some(since) => since
                .within(identity.cluster)
                .ok_or_else(|| ClusterError::ForeignPosition { position: since.to_string() })?,
            None => self.now(&groups)?,
        };
        if position.last_shard() > u64::from(identity.shards) {
            let reason =
                format!("the cluster has {} shards, and `{position}` has more", identity.shards);
            return Err(ClusterError::Refused(reason));
        }
        let (mut reached, mut is_gone, mut shards) = (position.clone(), false, Vec::new());
        for group in groups {
            let (number, news) = (group.number, group.state().application().news());
            match group.state().feed(position.place(number)) {
                Ok(feed) => {
                    reached.set(number, feed.place());
                    shards.push(FollowedShard { group, feed, news, is_drained: false });
                }
                Err(FeedFailure::Gone { oldest }) => {
                    is_gone = true;
                    reached.set(number, oldest_place(oldest));
                }
                Err(FeedFailure::Store(error)) => return Err(error.into()),
            }
        }
        if is_gone {
            return Err(ClusterError::HistoryGone { oldest: reached });
        }
        let (prefix, failed) = (Vec::new(), false);
        Ok(ClusterChanges { shards, turn: 0, position: reached, prefix, failed })
    }
}

fn told(shard: u64, change: Change) -> ClusterChange {
    ClusterChange {
        shard,
        key: change.key,
        operation: change.operation,
        time: change.timestamp,
        entry_continues: change.batch_continues,
    }
}

fn no_cluster() -> ClusterError {
    ClusterError::Stopped("it belongs to no cluster".to_owned())
}

fn oldest_place(index: u64) -> EntryPlace {
    EntryPlace { index, term: 0 }
}

impl ClusterChanges {
    /// Skips changes of keys without a prefix.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Returns the position behind the entries of which everything was returned. A follower that
    /// resumes there, on any node, misses nothing and gets no entry twice.
    pub fn position(&self) -> &ClusterPosition {
        &self.position
    }

    /// Returns the next change, or `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn try_recv(&mut self) -> Result<Option<ClusterChange>, ClusterError> {
        loop {
            match self.step()? {
                ShardStep::Change(shard, change) => return Ok(Some(told(shard, change))),
                ShardStep::More => {}
                ShardStep::Nothing => return self.check_running().map(|()| None),
            }
        }
    }

    /// Waits for the next change, for at most `timeout`. Returns `None` if none has arrived.
    ///
    /// # Errors
    ///
    /// [`HistoryGone`](ClusterError::HistoryGone) if the node has not the next changes any more,
    /// since a merge has removed them, or a snapshot has taken their place; and
    /// [`Stopped`](ClusterError::Stopped) if the node does not take part.
    pub fn recv_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<ClusterChange>, ClusterError> {
        let found = self.recv(Instant::now().checked_add(timeout))?;
        Ok(found.map(|(shard, change)| told(shard, change)))
    }

    /// Waits for a change until a moment, or for as long as it takes.
    pub(crate) fn recv(
        &mut self,
        until: Option<Instant>,
    ) -> Result<Option<(u64, Change)>, ClusterError> {
        loop {
            let step = self.step()?;
            if let ShardStep::Change(shard, change) = step {
                return Ok(Some((shard, change)));
            }
            let now = Instant::now();
            let is_over = until.is_some_and(|until| until <= now);
            if matches!(step, ShardStep::Nothing) {
                let look = now + LOOK;
                self.wait(until.map_or(look, |until| until.min(look)));
                self.check_running()?;
            }
            if is_over {
                return Ok(None);
            }
        }
    }

    /// Returns the next change, without waiting.
    pub(crate) fn step(&mut self) -> Result<ShardStep, ClusterError> {
        let mut drained = 0;
        for _ in 0..STEPS_MAX {
            if drained == self.shards.len() {
                return Ok(ShardStep::Nothing);
            }
            let Some(shard) = self.shards.get_mut(self.turn) else {
                self.turn = 0;
                continue;
            };
            if shard.is_drained {
                (self.turn, drained) = (self.turn + 1, drained + 1);
                continue;
            }
            // Before it is read: what is applied later is news.
            shard.news.borrow_and_update();
            let number = shard.group.number;
            let step = shard.feed.step(|key| key.starts_with(&self.prefix));
            self.position.set(number, shard.feed.place());
            shard.is_drained = matches!(step, Ok(EntryStep::Nothing));
            if !shard.feed.is_within_entry() {
                self.turn += 1;
            }
            match step {
                Ok(EntryStep::Change(change)) => return Ok(ShardStep::Change(number, change)),
                Ok(EntryStep::Nothing) => drained += 1,
                Ok(EntryStep::Passed) => drained = 0,
                Err(failure) => return Err(self.failed(number, failure)),
            }
        }
        Ok(ShardStep::More)
    }

    fn failed(&self, shard: u64, failure: FeedFailure) -> ClusterError {
        match failure {
            FeedFailure::Gone { oldest } => {
                let mut position = self.position.clone();
                position.set(shard, oldest_place(oldest));
                ClusterError::HistoryGone { oldest: position }
            }
            FeedFailure::Store(error) => error.into(),
        }
    }

    /// Waits until something is applied to one of the shards, or all have to be looked at.
    fn wait(&mut self, until: Instant) {
        let waker = Waker::from(Arc::new(WakeThread(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut news: Vec<_> =
            self.shards.iter_mut().map(|shard| Box::pin(shard.news.changed())).collect();
        loop {
            let is_any = news.iter_mut().any(|it| it.as_mut().poll(&mut context).is_ready());
            let now = Instant::now();
            if is_any || now >= until {
                break;
            }
            thread::park_timeout(until - now);
        }
        drop(news);
        for shard in &mut self.shards {
            shard.is_drained = false;
        }
    }

    /// Returns an error if the node does not take part any more. It would tell nothing for ever.
    fn check_running(&self) -> Result<(), ClusterError> {
        self.shards.iter().try_for_each(|shard| shard.group.check_running())
    }

    /// Returns how long ago the node last had all that the leaders of the shards had committed.
    pub(crate) fn age(&self) -> Duration {
        self.shards.iter().map(|shard| shard.group.state_age()).max().unwrap_or_default()
    }

    /// Returns the shards in which the node has not come to the position yet.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        let waiting = self.shards.iter().filter(|shard| shard.feed.is_waiting());
        waiting.map(|shard| shard.group.number).collect()
    }
}

/// Wakes a thread that is parked.
struct WakeThread(Thread);

impl Wake for WakeThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Iterator for ClusterChanges {
    type Item = Result<ClusterChange, ClusterError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.recv_timeout(LOOK) {
                Ok(None) => {}
                Ok(Some(change)) => return Some(Ok(change)),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
