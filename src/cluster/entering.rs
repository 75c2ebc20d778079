//! How requests get into a group whose lead may be on its way to another node.
//!
//! - While the lead is handed over, and while somebody is being elected, requests wait: whoever
//!   leads then serves them, or this node says who it is.
//! - What has been let in counts as under way until it is answered. The lead is handed over when
//!   nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};

use super::error::ClusterError;
use super::group::{GroupMetrics, RaftGroup, leader_of};

/// How long requests wait for a leader that is being elected.
pub(super) const VOTE_TIME: Duration = Duration::from_secs(1);
/// Maximum number of requests that wait in a group for an election which nobody has asked for. The
/// Redis port has a thread for each, and needs others for groups that have leaders.
const WAITING_MAX: usize = 100;

impl RaftGroup {
    /// Lets a request in, as one that is under way. Waits while the lead is handed over. Returns an
    /// error if this node does not lead then.
    pub(super) async fn enter(&self) -> Result<UnderWay, ClusterError> {
        loop {
            self.await_lead().await?;
            let under_way = self.handing_over.under_way.begin();
            // A hand-over that begins now finds it.
            if !self.handing_over.has_begun() {
                self.must_lead()?;
                return Ok(under_way);
            }
        }
    }

    /// Waits for the leader that is being elected, as long as that takes after a hand-over. Returns
    /// an error if this node does not lead.
    pub(super) async fn await_lead(&self) -> Result<(), ClusterError> {
        let (is_open, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (is_open(&metrics), metrics.vote.leader_id.term)
        };
        let has_begun = self.handing_over.has_begun();
        if has_begun || is_open {
            let is_handed_over = has_begun || self.handing_over.has_released(term);
            let waiting = self.handing_over.waiting.begin();
            if is_handed_over || waiting.count() <= WAITING_MAX {
                drop(tokio::time::timeout(VOTE_TIME, self.elected()).await);
            }
        }
        self.must_lead()
    }

    /// Waits until no hand-over is under way, and nobody is being elected.
    async fn elected(&self) {
        // Whoever has come first goes on first.
        let _turn = self.handing_over.turn.lock().await;
        self.handing_over.ended().await;
        // If the group has ended, the next look says so.
        drop(self.raft.metrics().wait_for(|metrics| !is_open(metrics)).await);
    }
}

/// Returns whether a group is electing somebody.
fn is_open(metrics: &GroupMetrics) -> bool {
    metrics.running_state.is_ok() && !metrics.vote.committed && leader_of(metrics).is_none()
}

/// Counts what is under way.
#[derive(Debug, Default)]
pub(super) struct Count(Arc<AtomicUsize>);

/// Something that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Count {
    pub(super) fn begin(&self) -> UnderWay {
        self.0.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(&self.0))
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clone for Count {
    /// Counts together with the original.
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl UnderWay {
    /// Returns how many are under way together with this one.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a node hands the lead of a group over. Only one hand-over is under way at a time.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    has_begun: watch::Sender<bool>,
    /// The term of the last leader for which others were released, here or by another node.
    released: AtomicU64,
    /// What may get into the log.
    pub(super) under_way: Count,
    /// The requests that wait for a leader.
    waiting: Count,
    /// Lock 0, with no other lock: the turn to wait for an election.
    turn: AsyncMutex<()>,
}

/// A hand-over that is under way. It ends when this is dropped.
pub(super) struct HandOver<'a>(&'a watch::Sender<bool>);

impl Drop for HandOver<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl HandOvers {
    pub(super) fn has_begun(&self) -> bool {
        *self.has_begun.borrow()
    }

    /// Begins one, unless another is under way.
    pub(super) fn begin(&self) -> Option<HandOver<'_>> {
        let is_first = |has_begun: &mut bool| !std::mem::replace(has_begun, true);
        self.has_begun.send_if_modified(is_first).then(|| HandOver(&self.has_begun))
    }

    /// Notes that the next leader is to have a term.
    pub(super) fn note_released(&self, term: u64) {
        self.released.store(term, Ordering::SeqCst);
    }

    /// Returns whether an election of a term is part of a hand-over.
    fn has_released(&self, term: u64) -> bool {
        term > 0 && self.released.load(Ordering::SeqCst) == term
    }

    /// Waits until none is under way.
    async fn ended(&self) {
        // It ends with the group.
        drop(self.has_begun.subscribe().wait_for(|has_begun| !has_begun).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_hand_over_is_under_way_at_a_time() {
        let hand_overs = HandOvers::default();
        hand_overs.ended().await;
        let first = hand_overs.begin().unwrap();
        assert!(hand_overs.has_begun() && hand_overs.begin().is_none());
        // The second attempt has not ended the first.
        assert!(hand_overs.has_begun());
        drop(first);
        hand_overs.ended().await;
        assert!(hand_overs.begin().is_some());
    }

    #[test]
    fn what_is_under_way_counts_until_it_ends() {
        let count = Count::default();
        let (first, second) = (count.begin(), count.clone().begin());
        assert_eq!((count.get(), first.count()), (2, 2));
        drop(first);
        assert_eq!(second.count(), 1);
        drop(second);
        assert_eq!(count.get(), 0);
    }
}
