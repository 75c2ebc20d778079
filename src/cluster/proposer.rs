//! Puts the requests that wait into entries of the log.
//!
//! openraft takes the next request only when the entry of the last one is durable. So requests that
//! come meanwhile share the next entry, and with it a sync, a message to each node, and a
//! transaction of the store.

use std::time::{Duration, SystemTime};

use openraft::Raft;
use tokio::sync::{mpsc, oneshot};

use super::consensus::{Answered, Consensus, Proposal, Request};
use super::error::ClusterError;
use super::group::{PATIENCE, failed_write, must_lead};
use crate::resp::chance;

/// Maximum number of requests in an entry.
const REQUESTS_MAX: usize = 512;
/// Size of the requests of an entry, in bytes, above which it takes no more of them.
const SIZE_MAX: usize = 4 << 20;

/// A request, and the client that waits for its answer.
pub(super) struct WaitingRequest {
    pub(super) request: Request,
    pub(super) done: oneshot::Sender<Result<Answered, ClusterError>>,
}

/// Proposes what waits, until the group has ended.
pub(super) async fn run(raft: Raft<Consensus>, mut waiting: mpsc::Receiver<WaitingRequest>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut size = first.request.size();
        let mut gathered = vec![first];
        while gathered.len() < REQUESTS_MAX
            && let Ok(more) = waiting.try_recv()
        {
            size = size.saturating_add(more.request.size());
            if size > SIZE_MAX {
                next = Some(more);
                break;
            }
            gathered.push(more);
        }
        // What nobody waits for any more was never proposed, and is not done.
        gathered.retain(|it| !it.done.is_closed());
        if gathered.is_empty() {
            continue;
        }
        let (requests, clients) = gathered.into_iter().map(|it| (it.request, it.done)).unzip();
        answer(propose(&raft, requests).await, clients);
    }
}

/// Proposes one entry.
async fn propose(
    raft: &Raft<Consensus>,
    requests: Vec<Request>,
) -> Result<Vec<Answered>, ClusterError> {
    must_lead(&raft.metrics().borrow())?;
    let proposal = Proposal { time: now(), seed: chance(), requests };
    // If this node loses the lead, and its log is replaced by a snapshot, openraft never answers.
    tokio::select! {
        written = raft.client_write(proposal) => match written {
            Ok(written) => Ok(written.data.0),
            Err(error) => Err(failed_write(&error)),
        },
        () = deposed(raft) => Err(ClusterError::Unknown),
        () = tokio::time::sleep(PATIENCE) => Err(ClusterError::Unknown),
    }
}

/// Waits until this node leads no more.
pub(super) async fn deposed(raft: &Raft<Consensus>) {
    let mut metrics = raft.metrics();
    while must_lead(&metrics.borrow_and_update()).is_ok() {
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Tells each client its answer. One that is gone needs none.
fn answer(
    answers: Result<Vec<Answered>, ClusterError>,
    clients: Vec<oneshot::Sender<Result<Answered, ClusterError>>>,
) {
    match answers {
        Ok(answers) => {
            for (client, answer) in clients.into_iter().zip(answers) {
                drop(client.send(Ok(answer)));
            }
        }
        Err(failure) => {
            for client in clients {
                drop(client.send(Err(failure.clone())));
            }
        }
    }
}

/// Returns the time of this machine, in microseconds since the epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_micros()).unwrap_or(u64::MAX)
}
