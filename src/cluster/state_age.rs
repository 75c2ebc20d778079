//! How old can be what a node has of a group.
//!
//! - A leader that a majority has answered had everything by then, as soon as it has applied what
//!   was committed. A node that has applied all of what such a leader had has as much.
//! - A leader that is cut off goes on to send heartbeats for as long as it takes itself for the
//!   leader. So a heartbeat says how long ago a majority answered, and its receiver adds that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::group::{GroupMetrics, leader_of};

/// Shortest time between two reports of openraft that are noted.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// A moment of the past: an age, and when it was that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PastMoment {
    seen: Instant,
    age: Duration,
}

impl PastMoment {
    fn ago(age: Duration) -> Self {
        Self { seen: Instant::now(), age }
    }

    pub(super) fn elapsed(self) -> Duration {
        self.seen.elapsed().saturating_add(self.age)
    }

    /// Returns how many milliseconds ago it was, as nodes tell each other.
    pub(super) fn millis(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug, Default)]
struct KnownMoments {
    /// When a majority answered this node, if it leads.
    answered: Option<PastMoment>,
    /// When this node had everything that was committed, since it was opened.
    complete: Option<PastMoment>,
}

/// What a node knows of the age of what it has.
#[derive(Debug, Default)]
pub(crate) struct StateAge {
    /// Lock 9: the moments, each only for a moment.
    known: Mutex<KnownMoments>,
}

impl StateAge {
    fn lock(&self) -> MutexGuard<'_, KnownMoments> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what openraft reports now.
    pub(super) fn report(&self, metrics: &GroupMetrics) {
        let leads = leader_of(metrics) == Some(metrics.id);
        let answered = metrics.millis_since_quorum_ack.filter(|_| leads);
        let answered = answered.map(Duration::from_millis);
        self.lock().answered = answered.map(PastMoment::ago);
        if let Some(age) = answered
            && has_applied_all(metrics)
        {
            self.complete(age);
        }
    }

    /// Notes that this node has everything that was committed until some time ago. That is not
    /// undone by what a leader of before says later.
    pub(super) fn complete(&self, age: Duration) {
        let complete = &mut self.lock().complete;
        if complete.is_none_or(|before| before.elapsed() > age) {
            *complete = Some(PastMoment::ago(age));
        }
    }

    /// Returns when a majority answered this node, if it leads.
    pub(super) fn answered(&self) -> Option<PastMoment> {
        self.lock().answered
    }

    /// Returns how long ago this node had everything that was committed, or `None` if it has had
    /// that never since it was opened.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        self.lock().complete.map(PastMoment::elapsed)
    }
}

/// Notes when openraft reports, until the group has ended.
pub(super) async fn note_reports(
    mut metrics: watch::Receiver<GroupMetrics>,
    noted: watch::Sender<Instant>,
    age: Arc<StateAge>,
) {
    while metrics.changed().await.is_ok() {
        age.report(&metrics.borrow_and_update());
        let now = Instant::now();
        noted.send_replace(now);
        tokio::time::sleep(REPORT_PAUSE).await;
        // The process may have been halted. What has come before that is no news.
        if now.elapsed() > REPORT_PAUSE * 2 {
            metrics.mark_unchanged();
        }
    }
}

/// Returns whether a leader has applied what is committed, as far as its metrics say. A new one may
/// not have applied yet what was committed before.
fn has_applied_all(metrics: &GroupMetrics) -> bool {
    metrics.last_applied.is_some_and(|applied| {
        applied.leader_id.term == metrics.current_term
            && Some(applied.index) >= majority_index(metrics)
    })
}

/// Returns the index up to which majorities have the log. No later entry is committed.
fn majority_index(metrics: &GroupMetrics) -> Option<u64> {
    let at = |id: &u64| metrics.replication.as_ref()?.get(id)?.map(|at| at.index);
    let voters = metrics.membership_config.membership().get_joint_config().iter();
    let majorities = voters.map(|voters| {
        let mut indexes: Vec<_> = voters.iter().map(at).collect();
        indexes.sort_unstable();
        indexes.get(voters.len().saturating_sub(1) / 2).copied().flatten()
    });
    majorities.min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{CommittedLeaderId, LogId, Membership, ServerState, StoredMembership};
    use std::collections::{BTreeMap, BTreeSet};

    const SECOND: Duration = Duration::from_secs(1);

    fn at(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    /// A leader of nodes that have the log up to some indexes. The first is the leader itself.
    fn leading(applied: u64, replicated: &[u64]) -> GroupMetrics {
        let ids = || 1..=replicated.len() as u64;
        let membership = Membership::new(vec![ids().collect()], ids().collect::<BTreeSet<u64>>());
        let replication: BTreeMap<_, _> =
            ids().zip(replicated.iter().map(|it| Some(at(*it)))).collect();
        let mut metrics = GroupMetrics::new_initial(1);
        metrics.current_term = 1;
        metrics.state = ServerState::Leader;
        metrics.current_leader = Some(1);
        metrics.last_applied = Some(at(applied));
        metrics.millis_since_quorum_ack = Some(3000);
        metrics.membership_config = Arc::new(StoredMembership::new(None, membership));
        metrics.replication = Some(replication);
        metrics
    }

    #[test]
    fn a_majority_has_what_more_than_half_of_the_voters_have() {
        for (replicated, expected) in [
            (&[7][..], 7),
            (&[7, 5], 5),
            (&[7, 5, 3], 5),
            (&[7, 5, 3, 2], 3),
            (&[7, 7, 3, 2, 2], 3),
        ] {
            assert_eq!(majority_index(&leading(0, replicated)), Some(expected), "{replicated:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_as_old_as_its_majority_once_it_has_applied_what_is_committed() {
        let age = StateAge::default();
        let answered = || age.answered().map(PastMoment::elapsed);
        assert_eq!((answered(), age.elapsed()), (None, None));
        age.report(&leading(5, &[7, 5, 3]));
        assert_eq!((answered(), age.elapsed()), (Some(3 * SECOND), Some(3 * SECOND)));
        tokio::time::advance(SECOND).await;
        // An entry is committed, and not applied.
        age.report(&leading(5, &[7, 6, 3]));
        assert_eq!((answered(), age.elapsed()), (Some(3 * SECOND), Some(4 * SECOND)));
        age.report(&leading(6, &[7, 6, 3]));
        assert_eq!(age.elapsed(), Some(3 * SECOND));
        // A leader that has applied nothing of its own term may lack what was committed before.
        tokio::time::advance(SECOND).await;
        let metrics = GroupMetrics { current_term: 2, ..leading(6, &[7, 6, 3]) };
        age.report(&metrics);
        assert_eq!(age.elapsed(), Some(4 * SECOND));
        age.report(&GroupMetrics { state: ServerState::Follower, ..metrics });
        assert_eq!((answered(), age.elapsed()), (None, Some(4 * SECOND)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_adds_the_age_that_its_leader_tells_and_forgets_nothing_newer() {
        let age = StateAge::default();
        age.complete(2 * SECOND);
        tokio::time::advance(SECOND).await;
        assert_eq!(age.elapsed(), Some(3 * SECOND));
        age.complete(60 * SECOND);
        assert_eq!(age.elapsed(), Some(3 * SECOND));
        age.complete(SECOND);
        assert_eq!(age.elapsed(), Some(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_of_before_a_halt_is_no_news_after_it() {
        let (openraft, metrics) = watch::channel(leading(6, &[7, 6, 3]));
        let (noted, reported) = watch::channel(Instant::now());
        let age = Arc::new(StateAge::default());
        tokio::spawn(note_reports(metrics, noted, Arc::clone(&age)));
        let answered = || age.answered().map(PastMoment::elapsed);
        let report = async || {
            openraft.send_modify(|_| {});
            tokio::time::sleep(REPORT_PAUSE / 2).await;
        };
        report().await;
        assert_eq!(answered(), Some(3 * SECOND + REPORT_PAUSE / 2));
        // This one waits until the pause is over, and that takes long.
        openraft.send_modify(|_| {});
        tokio::time::advance(60 * SECOND).await;
        tokio::time::sleep(REPORT_PAUSE).await;
        assert!(answered() > Some(63 * SECOND), "{:?}", answered());
        assert!(reported.borrow().elapsed() > 60 * SECOND);
        report().await;
        assert_eq!(answered(), Some(3 * SECOND + REPORT_PAUSE / 2));
    }
}
