//! Reads that are not stale: each waits until this node knows that it still leads, and has applied
//! what was committed.
//!
//! - Reads that wait at the same time share the question to the other nodes. A read that comes
//!   while the question is under way waits for the next one.
//! - Time stands still in a store while nothing is written. So a leader whose store is behind its
//!   clock writes an empty entry first, and keys expire although clients only read.

use std::time::Duration;

use openraft::Raft;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::apply::Applier;
use super::consensus::{Consensus, Request};
use super::entering::{Count, UnderWay};
use super::error::ClusterError;
use super::group::{PATIENCE, leader_of, stopped};
use super::proposer::{WaitingRequest, deposed, now};
use crate::mistake::{Mistake, made};
use crate::raft::StateMachine;

/// How far the time of the store may be behind the clock of its leader, when it is read.
const LAG_MAX: Duration = Duration::from_millis(50);

/// How often the other nodes are asked whether this one still leads.
const ATTEMPTS: usize = 4;

/// The client that waits for a read.
pub(super) type WaitingRead = oneshot::Sender<Result<(), ClusterError>>;

/// Answers reads until the group has ended.
pub(super) async fn run(
    raft: Raft<Consensus>,
    state: StateMachine<Consensus, Applier>,
    (writes, under_way): (mpsc::Sender<WaitingRequest>, Count),
    mut waiting: mpsc::Receiver<WaitingRead>,
) {
    while let Some(first) = waiting.recv().await {
        let mut clients = vec![first];
        while let Ok(more) = waiting.try_recv() {
            clients.push(more);
        }
        let lag = now().saturating_sub(state.store().time());
        let result = if made(Mistake::ReadNotConfirmed) {
            Ok(())
        } else if u128::from(lag) > LAG_MAX.as_micros() {
            tick(&writes, under_way.begin()).await
        } else {
            confirm_in_time(&raft).await
        };
        for client in clients {
            drop(client.send(result.clone()));
        }
    }
}

/// Asks the other nodes whether this one still leads, for as long as clients wait. openraft may
/// never answer if this node loses the lead meanwhile.
async fn confirm_in_time(raft: &Raft<Consensus>) -> Result<(), ClusterError> {
    tokio::select! {
        biased;
        confirmed = confirm(raft) => confirmed,
        () = deposed(raft) => {
            Err(ClusterError::NotLeader { leader: leader_of(&raft.metrics().borrow()) })
        }
        () = tokio::time::sleep(PATIENCE) => Err(ClusterError::NotLeader { leader: None }),
    }
}

/// Asks the other nodes whether this one still leads. They have the time of a heartbeat, and are
/// asked again.
async fn confirm(raft: &Raft<Consensus>) -> Result<(), ClusterError> {
    for _ in 0..ATTEMPTS {
        match raft.ensure_linearizable().await {
            Ok(_) => return Ok(()),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(other))) => {
                return Err(ClusterError::NotLeader { leader: other.leader_id });
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {}
            Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
        }
    }
    Err(ClusterError::NotLeader { leader: None })
}

/// Moves the time of the group on. That an entry was committed says as much as the others' answer
/// that this node leads.
async fn tick(
    writes: &mpsc::Sender<WaitingRequest>,
    under_way: UnderWay,
) -> Result<(), ClusterError> {
    let (done, answer) = oneshot::channel();
    let waiting = WaitingRequest { request: Request::Tick, done, under_way };
    if writes.send(waiting).await.is_err() {
        return Err(ClusterError::Stopped("the node is stopping".to_owned()));
    }
    match answer.await {
        Ok(Ok(_)) => Ok(()),
        // Nothing is read, so nothing is in doubt.
        Ok(Err(ClusterError::Unknown)) | Err(_) => Err(ClusterError::NotLeader { leader: None }),
        Ok(Err(failure)) => Err(failure),
    }
}
