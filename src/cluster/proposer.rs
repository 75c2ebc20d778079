//! Puts the requests that wait into entries of the log.
//!
//! openraft takes the next request only when the entry of the last one is durable. So requests that
//! come meanwhile share the next entry, and with it a sync, a message to each node, and a
//! transaction of the store.
//!
//! A leader without a majority goes on leading. What it appended would pile up, and be applied all
//! at once when the majority is back. So such a leader appends nothing behind an entry that is not
//! applied.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use openraft::Raft;
use tokio::sync::{mpsc, oneshot};

use super::consensus::{Answered, Consensus, Proposal, Request};
use super::drawn;
use super::entering::UnderWay;
use super::error::ClusterError;
use super::group::{PATIENCE, failed_write, must_lead};
use super::state_age::StateAge;
use crate::mistake::{Mistake, made};

/// Maximum number of requests in an entry.
const REQUESTS_MAX: usize = 512;
/// Size of the requests of an entry, in bytes, above which it takes no more of them.
const SIZE_MAX: usize = 4 << 20;

/// Age of the majority's last answer from which on nothing is appended behind an entry that is not
/// applied. A client waits as long for a slow disk.
const QUORUM_AGE_MAX: Duration = PATIENCE;

/// A request, and the client that waits for its answer.
pub(super) struct WaitingRequest {
    pub(super) request: Request,
    pub(super) done: oneshot::Sender<Result<Answered, ClusterError>>,
    /// It counts as under way until it is answered.
    pub(super) under_way: UnderWay,
}

/// The answer to an entry that was proposed, when openraft has it.
type ProposalAnswer = Pin<Box<dyn Future<Output = Result<Vec<Answered>, ClusterError>> + Send>>;

/// Proposes what waits, until the group has ended.
pub(super) async fn run(
    raft: Raft<Consensus>,
    age: Arc<StateAge>,
    mut waiting: mpsc::Receiver<WaitingRequest>,
) {
    let mut unanswered = None;
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
        let (mut requests, mut clients, mut under_way) = (Vec::new(), Vec::new(), Vec::new());
        for waiting in gathered {
            requests.push(waiting.request);
            clients.push(waiting.done);
            under_way.push(waiting.under_way);
        }
        answer(propose(&raft, &age, &mut unanswered, requests).await, clients);
        drop(under_way);
    }
}

async fn is_pending(answer: &mut ProposalAnswer) -> bool {
    poll_fn(|context| Poll::Ready(answer.as_mut().poll(context).is_pending())).await
}

/// Proposes one entry. The answer stays in `unanswered` if it does not come in time.
async fn propose(
    raft: &Raft<Consensus>,
    age: &StateAge,
    unanswered: &mut Option<ProposalAnswer>,
    requests: Vec<Request>,
) -> Result<Vec<Answered>, ClusterError> {
    must_lead(&raft.metrics().borrow())?;
    if let Some(last) = unanswered
        && is_pending(last).await
        && age.answered().is_none_or(|moment| moment.elapsed() >= QUORUM_AGE_MAX)
    {
        return Err(ClusterError::NotLeader { leader: None });
    }
    let proposal = Proposal { time: now(), seed: drawn::number(), requests };
    let proposer = raft.clone();
    let answer = unanswered.insert(Box::pin(async move {
        match proposer.client_write(proposal).await {
            Ok(written) => Ok(written.data.0),
            Err(error) => Err(failed_write(&error)),
        }
    }));
    // If this node loses the lead, and its log is replaced by a snapshot, openraft never answers.
    let answers = tokio::select! {
        biased;
        answers = answer => {
            *unanswered = None;
            answers
        }
        () = deposed(raft) => Err(ClusterError::Unknown),
        () = tokio::time::sleep(PATIENCE) => Err(ClusterError::Unknown),
    };
    if made(Mistake::UnknownRedirected) && matches!(answers, Err(ClusterError::Unknown)) {
        let leader = raft.metrics().borrow().current_leader;
        return Err(ClusterError::NotLeader { leader });
    }
    answers
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
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    // In a simulation, a machine has the time of the simulation.
    #[cfg(test)]
    let since = turmoil::since_epoch().or(since);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_micros()).unwrap_or(u64::MAX)
}
