//! One group of a node: its part of the log, its state, and the way for clients into both.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{BasicNode, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::apply::Applier;
use super::backlog::ApplyBacklog;
use super::consensus::{Answered, Consensus, Request};
use super::entering::HandOvers;
use super::error::{ClusterError, failed};
use super::map::ClusterMap;
use super::network::{PeerNetwork, PeerTransport, SnapshotProgress, SnapshotTransfer};
use super::options::ClusterOptions;
use super::proposer::{self, WaitingRequest, now};
use super::read_index::{self, WaitingRead};
use super::state_age::{StateAge, note_reports};
use crate::options::{History, Options};
use crate::raft::{LogStore, StateMachine};
use crate::resp::ReplicatedKeys;

/// Maximum number of requests, and of reads, that wait at a group. Others are refused at once.
const WAITING_MAX: usize = 4096;
/// Maximum size of a request, in bytes. While a larger one is on its way to another node, that node
/// might take its leader for dead.
const REQUEST_SIZE_MAX: usize = 16 << 20;
/// How much larger a request from outside may be that puts again what the group has accepted. The
/// key may have been renamed since, to a longer one.
const RENAMED_MAX: usize = 128 << 10;
/// Changes that each shard keeps for those who follow them, unless the options say something else.
const HISTORY: History = History::LastUpTo { duration: Duration::from_secs(600), bytes: 64 << 20 };
/// Time after which a client is told that the group does not answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time for a sign of a leader, in milliseconds. To hand a lead over takes up to twice as
/// long and some seconds more, and others wait for 15 s.
const ELECTION_MAX: u64 = 3000;

/// What openraft says of a group.
pub(crate) type GroupMetrics = RaftMetrics<u64, BasicNode>;

/// A group, on one of its nodes.
pub(crate) struct RaftGroup {
    pub(crate) number: u64,
    pub(crate) raft: Raft<Consensus>,
    state: StateMachine<Consensus, Applier>,
    writes: mpsc::Sender<WaitingRequest>,
    reads: mpsc::Sender<WaitingRead>,
    /// How old the state is.
    age: Arc<StateAge>,
    /// What this node has committed and not applied.
    backlog: ApplyBacklog,
    /// When openraft last reported. It does not while it waits for the disk.
    reported: watch::Receiver<Instant>,
    /// While this node hands the lead over, it takes no requests.
    pub(super) handing_over: HandOvers,
    /// The snapshots that this node is sending.
    sending: Arc<SnapshotProgress>,
}

/// How often and when things happen in all groups, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) heartbeat: u64,
    pub(crate) election: u64,
    /// Number of entries that stay in the log when it is purged.
    pub(crate) kept: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: 250, election: 1500, kept: 10_000 }
    }
}

impl Timing {
    /// Refuses times with which groups would not work.
    pub(super) fn check(self) -> Result<(), ClusterError> {
        let shortest = self.heartbeat.saturating_mul(5);
        if self.heartbeat > 0 && (shortest..=ELECTION_MAX).contains(&self.election) {
            return Ok(());
        }
        Err(ClusterError::Refused(format!(
            "a heartbeat of {} ms and an election of {} ms: the second has to be five times the first \
             at least, and {ELECTION_MAX} ms at most",
            self.heartbeat, self.election
        )))
    }

    fn config(self) -> openraft::Config {
        openraft::Config {
            heartbeat_interval: self.heartbeat,
            election_timeout_min: self.election,
            election_timeout_max: self.election * 2,
            install_snapshot_timeout: 60_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.kept * 2),
            replication_lag_threshold: self.kept * 4,
            max_in_snapshot_log_to_keep: self.kept,
            max_payload_entries: 300,
            ..openraft::Config::default()
        }
    }
}

impl RaftGroup {
    /// Opens a group. It takes part in its consensus from now on, if it has been initialized or
    /// added to one.
    pub(crate) async fn start<T: PeerTransport>(
        options: &ClusterOptions,
        number: u64,
        log: LogStore<Consensus>,
        network: PeerNetwork<T>,
    ) -> Result<Arc<Self>, ClusterError> {
        let (id, path) = (options.id, options.dir.join(format!("group-{number}")));
        let store = keeping_history(options.store.clone());
        let state = StateMachine::open_on(&options.env, &path, store, Applier::new())?;
        let log = log.purging_after(&state);
        let config = options.timing.config().validate().map_err(|error| failed(&error))?;
        let (sending, age) = (Arc::clone(&network.progress), Arc::clone(&network.age));
        let raft = Raft::new(id, Arc::new(config), network, log, state.clone()).await;
        let raft = raft.map_err(|error| stopped(&error))?;
        let (writes, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(proposer::run(raft.clone(), Arc::clone(&age), waiting));
        let (reads, waiting) = mpsc::channel(WAITING_MAX);
        let handing_over = HandOvers::default();
        let ticks = (writes.clone(), handing_over.under_way.clone());
        tokio::spawn(read_index::run(raft.clone(), state.clone(), ticks, waiting));
        let (noted, reported) = watch::channel(Instant::now());
        tokio::spawn(note_reports(raft.metrics(), noted, Arc::clone(&age)));
        Ok(Arc::new(Self {
            number,
            raft,
            state,
            writes,
            reads,
            age,
            backlog: ApplyBacklog::default(),
            reported,
            handing_over,
            sending,
        }))
    }

    /// Returns the snapshots that this node is sending.
    pub(crate) fn transfers(&self) -> Vec<SnapshotTransfer> {
        self.sending.transfers()
    }

    pub(crate) fn metrics(&self) -> GroupMetrics {
        self.raft.metrics().borrow().clone()
    }

    /// Returns the leader that this node knows. A group that has stopped here knows none.
    pub(crate) fn leader(&self) -> Option<u64> {
        leader_of(&self.raft.metrics().borrow())
    }

    /// Takes entries, or a heartbeat, of a leader that a majority answered some milliseconds ago,
    /// if one has. Returns the answer, and whether all is applied that this leader has committed.
    pub(super) async fn append(
        &self,
        rpc: AppendEntriesRequest<Consensus>,
        quorum_age: Option<u64>,
    ) -> (Result<AppendEntriesResponse<u64>, RaftError<u64>>, bool) {
        let (committed, received) = (rpc.leader_commit, Instant::now());
        if !rpc.vote.is_committed() {
            self.handing_over.note_released(rpc.vote.leader_id().term);
        }
        // A new leader may not know yet what was committed before it. It does once it has committed
        // an entry of its own.
        let leader_term = rpc.vote.leader_id().term;
        let knows_all = committed.is_some_and(|at| at.leader_id.term == leader_term);
        let answer = self.backlog.append(&self.raft, rpc).await;
        let has_all = matches!(answer, Ok(AppendEntriesResponse::Success))
            && self.raft.metrics().borrow().last_applied >= committed;
        if let Some(age) = quorum_age.filter(|_| has_all && knows_all) {
            self.age.complete(Duration::from_millis(age) + received.elapsed());
        }
        (answer, has_all)
    }

    /// Returns how long ago this node last had everything that was committed, but for the time of a
    /// heartbeat. If it has not heard of a leader since it was opened, that is the age of the last
    /// entry, by the clocks of the two machines.
    pub(crate) fn state_age(&self) -> Duration {
        let since_entry = || Duration::from_micros(now().saturating_sub(self.state.store().time()));
        self.age.elapsed().unwrap_or_else(since_entry)
    }

    /// Returns how long ago a majority answered this node, if it leads.
    pub(super) fn quorum_age(&self, metrics: &GroupMetrics) -> Option<Duration> {
        let ago = Duration::from_millis(metrics.millis_since_quorum_ack?);
        Some(ago + self.reported.borrow().elapsed())
    }

    /// Returns whether the group has a leader, as far as this node knows, which a majority has
    /// answered within a time if that is this node.
    pub(super) fn is_led(&self, age_max: Duration) -> bool {
        let metrics = self.metrics();
        let age = self.quorum_age(&metrics);
        leader_of(&metrics).is_some() && age.is_none_or(|age| age < age_max)
    }

    /// Returns an error if this node does not take part in the group any more.
    pub(crate) fn check_running(&self) -> Result<(), ClusterError> {
        self.raft.metrics().borrow().running_state.clone().map_err(|fatal| stopped(&fatal))
    }

    /// Returns the keys, as they are on this node.
    pub(crate) fn keys(&self) -> Result<Arc<ReplicatedKeys>, ClusterError> {
        self.check_running().map_err(|_| ClusterError::NotLeader { leader: None })?;
        Ok(self.state.application().keys()?)
    }

    /// Returns the map, if this is the group that has it.
    pub(crate) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.state.application().map().borrow())
    }

    pub(crate) fn state(&self) -> &StateMachine<Consensus, Applier> {
        &self.state
    }

    /// Has a request applied, and returns the answer. It is durable on a majority of the nodes by
    /// then.
    pub(crate) async fn write(&self, request: Request) -> Result<Answered, ClusterError> {
        check_size(&request)?;
        self.write_again(request).await
    }

    /// Does the same with a request that another node has checked, or that puts again what was
    /// accepted once. That node may have another version, so commands that this one cannot apply
    /// are refused.
    pub(super) async fn write_again(&self, request: Request) -> Result<Answered, ClusterError> {
        check_size_within(&request, REQUEST_SIZE_MAX + RENAMED_MAX)?;
        let under_way = self.enter().await?;
        if let Request::Commands(request) = &request {
            request.check().map_err(ClusterError::Refused)?;
        }
        let (done, answer) = oneshot::channel();
        let waiting = WaitingRequest { request, done, under_way };
        self.writes.try_send(waiting).map_err(|_| ClusterError::Busy)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ClusterError::Stopped("the node is stopping".to_owned())),
            Err(_) => Err(ClusterError::Unknown),
        }
    }

    /// Waits until this node has applied everything that was acknowledged before this call. What is
    /// read afterwards is not stale.
    pub(crate) async fn read_index(&self) -> Result<(), ClusterError> {
        // It may need an entry, so that the time of the group goes on.
        let _under_way = self.enter().await?;
        let (done, answer) = oneshot::channel();
        self.reads.try_send(done).map_err(|_| ClusterError::Busy)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ClusterError::Stopped("the node is stopping".to_owned())),
            Err(_) => Err(ClusterError::NotLeader { leader: None }),
        }
    }

    /// Refuses what this node would only refuse later, when it is not clear any more whether
    /// anything was done.
    pub(super) fn must_lead(&self) -> Result<(), ClusterError> {
        let metrics = self.raft.metrics();
        must_lead(&metrics.borrow())?;
        let is_yielding = self.handing_over.has_begun();
        if is_yielding { Err(ClusterError::NotLeader { leader: None }) } else { Ok(()) }
    }

    /// Builds a snapshot, after which openraft purges the log before it.
    pub(super) async fn build_snapshot(&self) -> Result<(), ClusterError> {
        self.raft.trigger().snapshot().await.map_err(|error| stopped(&error))
    }

    pub(crate) async fn stop(&self) {
        // A task that has panicked has ended too.
        drop(self.raft.shutdown().await);
    }
}

/// Returns options with which those who follow the changes can go on at another node.
fn keeping_history(options: Options) -> Options {
    match options.get_keep_history() {
        History::None => options.keep_history(HISTORY),
        _ => options,
    }
}

/// Refuses requests that are too large.
pub(super) fn check_size(request: &Request) -> Result<(), ClusterError> {
    check_size_within(request, REQUEST_SIZE_MAX)
}

fn check_size_within(request: &Request, limit: usize) -> Result<(), ClusterError> {
    if request.size() <= limit {
        return Ok(());
    }
    let limit = REQUEST_SIZE_MAX >> 20;
    Err(ClusterError::Refused(format!(
        "a request of {} bytes is too large for a cluster, whose limit is {limit} MiB",
        request.size()
    )))
}

/// Returns the leader that a node knows. One that was removed goes on naming itself to openraft,
/// and so does one whose group has stopped.
pub(super) fn leader_of(metrics: &GroupMetrics) -> Option<u64> {
    let is_current = |leader: &u64| *leader != metrics.id || metrics.state == ServerState::Leader;
    metrics.current_leader.filter(is_current).filter(|_| metrics.running_state.is_ok())
}

/// Returns an error if a node does not lead.
pub(super) fn must_lead(metrics: &GroupMetrics) -> Result<(), ClusterError> {
    match leader_of(metrics) {
        Some(leader) if leader == metrics.id => Ok(()),
        leader => Err(ClusterError::NotLeader { leader }),
    }
}

pub(super) fn stopped(error: &impl std::fmt::Display) -> ClusterError {
    ClusterError::Stopped(error.to_string())
}

/// Returns what an error of a write means for those who wait for it.
pub(super) fn failed_write(
    error: &RaftError<u64, ClientWriteError<u64, BasicNode>>,
) -> ClusterError {
    match error {
        // openraft says the same of entries that it had appended before it lost the lead, and these
        // may still be committed.
        RaftError::APIError(ClientWriteError::ForwardToLeader(_))
        | RaftError::Fatal(Fatal::Stopped) => ClusterError::Unknown,
        RaftError::APIError(error) => ClusterError::Refused(error.to_string()),
        RaftError::Fatal(fatal) => stopped(fatal),
    }
}
