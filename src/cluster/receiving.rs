//! Snapshots that a node is receiving.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use openraft::raft::SnapshotResponse;
use openraft::{BasicNode, Snapshot, SnapshotMeta, Vote};
use tokio::sync::watch;

use super::error::ClusterError;
use super::group::RaftGroup;
use super::membership::PAUSE;
use super::network::PeerTransport;
use super::node::{Node, discard};
use crate::raft::{SnapshotFiles, blocking};

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
        self.unreceived().insert(group, format!("this node cannot take a snapshot: {why}"));
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
        if self.snapshots().get(&group.number).is_some_and(ReceivedSnapshot::is_being_installed) {
            return Err(ClusterError::Failed("a snapshot is being installed".to_owned()));
        }
        // openraft would stop the group for good if that failed.
        let files = blocking(|| group.state().receive()).inspect_err(|error| {
            self.note_unreceived(group.number, error);
        })?;
        self.receive(group.number, files)
    }

    pub(super) fn receive(&self, group: u64, files: SnapshotFiles) -> Result<u64, ClusterError> {
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let mut snapshots = self.snapshots();
        if let Err(stopped) = self.check_not_stopped() {
            drop(snapshots);
            blocking(|| drop(files));
            return Err(stopped);
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
        let mut answer = self.installing(group, snapshot, vote, meta)?;
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
        let (files, checked) = blocking(|| {
            let checked = self.check_snapshot(group, &files, vote, &meta);
            // Removing what is refused may take long too.
            (checked.is_ok().then_some(files), checked)
        });
        checked.map_err(|why| self.note_unreceived(group.number, &why))?;
        let Some(files) = files else { return replaced() };
        let snapshot = Snapshot { meta, snapshot: Box::new(files) };
        let installed = group.raft.install_full_snapshot(vote, snapshot).await;
        installed.map(|response| response.vote).map_err(|fatal| fatal.to_string())
    }

    /// Reads all of a snapshot that has arrived. openraft stops the group for good if it cannot be
    /// installed, and does not notice damage to keys that may be intact here.
    fn check_snapshot(
        &self,
        group: &RaftGroup,
        files: &SnapshotFiles,
        vote: Vote<u64>,
        meta: &ClusterSnapshotMeta,
    ) -> Result<(), String> {
        let is_stopped = || self.check_not_stopped().is_err();
        let found = group.state().find_damage(meta, files, is_stopped);
        self.check_not_stopped().map_err(|stopped| stopped.to_string())?;
        let sender = vote.leader_id().node_id;
        match found {
            Ok(None) => Ok(()),
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
