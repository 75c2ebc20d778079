//! Snapshots that a node is receiving.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use openraft::raft::SnapshotResponse;
use openraft::{BasicNode, Snapshot, SnapshotMeta, Vote};
use tokio::sync::{Semaphore, watch};

use super::drawn;
use super::error::ClusterError;
use super::group::{GroupMetrics, RaftGroup};
use super::membership::PAUSE;
use super::network::PeerTransport;
use super::node::{Node, discard};
use crate::error::Error;
use crate::raft::{SnapshotFiles, blocking};

/// Number of snapshots that a node checks and installs at the same time. Each takes a thread, and
/// the memory of a keydir. The other groups of the node wait.
const INSTALLED_AT_ONCE: usize = 2;

/// The turns to check and install a snapshot.
pub(super) struct InstallTurns(pub(super) Semaphore);

impl Default for InstallTurns {
    fn default() -> Self {
        Self(Semaphore::new(INSTALLED_AT_ONCE))
    }
}

/// The snapshot of each group that is being received, or was received last.
pub(super) type SnapshotsByGroup = BTreeMap<u64, ReceivedSnapshot>;

/// A snapshot, which has a number of its own.
pub(super) struct ReceivedSnapshot {
    number: u64,
    stage: ReceptionStage,
}

/// How far a snapshot has come.
enum ReceptionStage {
    Arriving(SnapshotFiles),
    /// It is being checked and installed, or was. The answer stays for a leader that asks again,
    /// since the connection was lost on which it has asked.
    Complete(watch::Receiver<Option<InstallAnswer>>),
}

/// What has become of a snapshot: the vote of this node, or why it was refused.
type InstallAnswer = Result<Vote<u64>, String>;

/// What says which entries a snapshot has.
type ClusterSnapshotMeta = SnapshotMeta<u64, BasicNode>;

impl ReceivedSnapshot {
    fn is_being_installed(&self) -> bool {
        match &self.stage {
            ReceptionStage::Arriving(_) => false,
            // A task that has ended without an answer does not go on either.
            ReceptionStage::Complete(answer) => {
                answer.borrow().is_none() && answer.has_changed().is_ok()
            }
        }
    }
}

/// Refuses a snapshot if one is being installed, which it would replace.
fn check_none_installed(snapshots: &SnapshotsByGroup, group: u64) -> Result<(), ClusterError> {
    if snapshots.get(&group).is_some_and(ReceivedSnapshot::is_being_installed) {
        return Err(ClusterError::Failed("a snapshot is being installed".to_owned()));
    }
    Ok(())
}

/// Returns the vote of this node if it does not need a snapshot: if the leader that has sent it
/// leads no more, or if its last entry is applied here. openraft would answer the same.
fn needless(
    metrics: &GroupMetrics,
    vote: Vote<u64>,
    meta: &ClusterSnapshotMeta,
) -> Option<Vote<u64>> {
    let is_needless = metrics.vote > vote || metrics.last_applied >= meta.last_log_id;
    is_needless.then_some(metrics.vote)
}

fn replaced<T>() -> Result<T, String> {
    Err("another snapshot has taken the place of this one".to_owned())
}

impl<T: PeerTransport> Node<T> {
    fn snapshots(&self) -> MutexGuard<'_, SnapshotsByGroup> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unreceived(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.unreceived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why a snapshot of a group could not be received, and returns it.
    pub(super) fn note_unreceived(&self, group: u64, why: &impl std::fmt::Display) -> String {
        let why = why.to_string();
        self.unreceived().insert(group, format!("no snapshot was installed here: {why}"));
        why
    }

    /// Waits until this node cannot take part in a group, and returns why. The leader need not hear
    /// of that.
    pub(super) async fn unable(&self, number: u64) -> ClusterError {
        loop {
            if let Err(stopped) = self.check_not_stopped() {
                return stopped;
            }
            let running = self.group(number).map_or(Ok(()), |group| group.check_running());
            if let Err(stopped) = running {
                return stopped;
            }
            if let Some(why) = self.unreceived().get(&number) {
                return ClusterError::Failed(why.clone());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Begins to receive a snapshot, in the place of the one before. Returns its number.
    pub(super) fn begin_snapshot(&self, group: &RaftGroup) -> Result<u64, ClusterError> {
        group.check_running()?;
        check_none_installed(&self.snapshots(), group.number)?;
        // openraft would stop the group for good if that failed.
        let files = blocking(|| group.state().receive()).inspect_err(|error| {
            self.note_unreceived(group.number, error);
        })?;
        self.receive(group.number, files)
    }

    pub(super) fn receive(&self, group: u64, files: SnapshotFiles) -> Result<u64, ClusterError> {
        // A leader that was deposed may still send pieces, to a number of before a restart.
        let number = drawn::number();
        let mut snapshots = self.snapshots();
        let is_free =
            self.check_not_stopped().and_then(|()| check_none_installed(&snapshots, group));
        if let Err(refusal) = is_free {
            drop(snapshots);
            blocking(|| drop(files));
            return Err(refusal);
        }
        let stage = ReceptionStage::Arriving(files);
        let before = snapshots.insert(group, ReceivedSnapshot { number, stage });
        drop(snapshots);
        discard(before);
        Ok(number)
    }

    /// Returns the snapshot that is being received.
    pub(super) fn arriving(&self, group: u64, snapshot: u64) -> Result<SnapshotFiles, String> {
        match self.snapshots().get(&group).filter(|it| it.number == snapshot).map(|it| &it.stage) {
            Some(ReceptionStage::Arriving(files)) => Ok(files.clone()),
            _ => replaced(),
        }
    }

    /// Takes a piece of a snapshot that is being received.
    pub(super) fn put_piece(
        &self,
        group: u64,
        snapshot: u64,
        name: &str,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let files = self.arriving(group, snapshot)?;
        let written = blocking(|| {
            let written = files.write(name, offset, bytes);
            drop(files);
            written
        });
        written.map_err(|error| self.unwritten(group, snapshot, &error))
    }

    /// Notes why a piece could not be written, and returns it. A piece may come twice, and too late
    /// the second time: that the snapshot cannot be written any more says nothing of this node.
    pub(super) fn unwritten(&self, group: u64, snapshot: u64, error: &Error) -> String {
        if self.arriving(group, snapshot).is_ok() {
            return self.note_unreceived(group, error);
        }
        error.to_string()
    }

    /// Removes a snapshot that has not arrived as a whole.
    pub(super) fn discard_arriving(&self, group: u64) {
        let mut snapshots = self.snapshots();
        let is_arriving = |it: &ReceivedSnapshot| matches!(it.stage, ReceptionStage::Arriving(_));
        if snapshots.get(&group).is_some_and(is_arriving) {
            let arriving = snapshots.remove(&group);
            drop(snapshots);
            discard(arriving);
        }
    }

    /// Installs a snapshot that has arrived, if nothing is wrong with it. Whoever asks for that
    /// again gets the same answer.
    pub(super) async fn install(
        self: &Arc<Self>,
        group: &Arc<RaftGroup>,
        snapshot: u64,
        vote: Vote<u64>,
        meta: ClusterSnapshotMeta,
    ) -> Result<SnapshotResponse<u64>, String> {
        let begun = self.installing(group, snapshot, vote, meta.clone());
        let mut answer = match begun {
            Ok(answer) => answer,
            // It may have been installed before this node was started again.
            Err(why) => {
                let needless = needless(&group.metrics(), vote, &meta);
                return needless.map(SnapshotResponse::new).ok_or(why);
            }
        };
        let answer = answer.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        let broken_off = || Err("the installation was broken off".to_owned());
        answer.unwrap_or_else(broken_off).map(SnapshotResponse::new)
    }

    /// Begins to install a snapshot, unless that has begun. The answer arrives where this says.
    fn installing(
        self: &Arc<Self>,
        group: &Arc<RaftGroup>,
        snapshot: u64,
        vote: Vote<u64>,
        meta: ClusterSnapshotMeta,
    ) -> Result<watch::Receiver<Option<InstallAnswer>>, String> {
        let mut snapshots = self.snapshots();
        let found = snapshots.get_mut(&group.number).filter(|it| it.number == snapshot);
        let Some(found) = found else { return replaced() };
        let files = match &found.stage {
            ReceptionStage::Arriving(files) => files.clone(),
            ReceptionStage::Complete(answer) => return Ok(answer.clone()),
        };
        let (tell, answer) = watch::channel(None);
        found.stage = ReceptionStage::Complete(answer.clone());
        drop(snapshots);
        let (node, group) = (Arc::clone(self), Arc::clone(group));
        tokio::spawn(async move {
            let installed = node.check_and_install(&group, files, vote, meta).await;
            tell.send_replace(Some(installed));
        });
        Ok(answer)
    }

    async fn check_and_install(
        &self,
        group: &RaftGroup,
        files: SnapshotFiles,
        vote: Vote<u64>,
        meta: ClusterSnapshotMeta,
    ) -> InstallAnswer {
        let mut metrics = group.raft.metrics();
        let overtaken = async {
            let is_needless = |metrics: &GroupMetrics| needless(metrics, vote, &meta).is_some();
            metrics.wait_for(is_needless).await.map(|metrics| metrics.vote)
        };
        let turn = tokio::select! {
            biased;
            Ok(vote) = overtaken => {
                blocking(|| drop(files));
                return Ok(vote);
            }
            turn = self.install_turns.0.acquire() => turn,
        };
        let (files, checked) = blocking(|| {
            let checked = self.check_snapshot(group, &files, vote, &meta);
            // Removing what is refused may take long too.
            (matches!(checked, Ok(None)).then_some(files), checked)
        });
        if let Some(vote) = checked.map_err(|why| self.note_unreceived(group.number, &why))? {
            return Ok(vote);
        }
        let Some(files) = files else { return replaced() };
        let snapshot = Snapshot { meta, snapshot: Box::new(files) };
        let installed = group.raft.install_full_snapshot(vote, snapshot).await;
        drop(turn);
        installed.map(|response| response.vote).map_err(|fatal| fatal.to_string())
    }

    /// Reads all of a snapshot that has arrived. openraft stops the group for good if it cannot be
    /// installed, and does not notice damage to keys that may be intact here.
    ///
    /// Ends early, and returns the vote of this node, once the snapshot is not needed any more: a
    /// later leader may have another one.
    fn check_snapshot(
        &self,
        group: &RaftGroup,
        files: &SnapshotFiles,
        vote: Vote<u64>,
        meta: &ClusterSnapshotMeta,
    ) -> Result<Option<Vote<u64>>, String> {
        let metrics = group.raft.metrics();
        let needless = || needless(&metrics.borrow(), vote, meta);
        let ends = || self.check_not_stopped().is_err() || needless().is_some();
        let found = group.state().find_damage(meta, files, ends);
        self.check_not_stopped().map_err(|stopped| stopped.to_string())?;
        if let Some(vote) = needless() {
            return Ok(Some(vote));
        }
        let sender = vote.leader_id().node_id;
        match found {
            Ok(None) => Ok(None),
            Ok(Some(damage)) => Err(format!("the snapshot of node {sender} is damaged: {damage}")),
            Err(error) => Err(format!("the snapshot of node {sender} was not read: {error}")),
        }
    }

    /// Removes the snapshots of a node that was stopped, and waits until nothing is installed any
    /// more: whoever opens the groups next may give the same names to other files.
    pub(super) async fn stop_receiving(&self) {
        let received = std::mem::take(&mut *self.snapshots());
        let answers: Vec<_> = received
            .values()
            .filter_map(|it| match &it.stage {
                ReceptionStage::Arriving(_) => None,
                ReceptionStage::Complete(answer) => Some(answer.clone()),
            })
            .collect();
        drop(tokio::task::spawn_blocking(move || drop(received)).await);
        for mut answer in answers {
            // An error says that the task has ended without one.
            drop(answer.wait_for(Option::is_some).await);
        }
    }
}
