//! Snapshots that a node is receiving.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::error::ClusterError;
use super::membership::PAUSE;
use super::network::PeerTransport;
use super::node::{Node, discard};
use crate::raft::{SnapshotFiles, blocking};

/// Snapshots by group, each with a number.
pub(super) type SnapshotsByGroup = BTreeMap<u64, (u64, SnapshotFiles)>;

impl<T: PeerTransport> Node<T> {
    pub(super) fn snapshots(&self) -> MutexGuard<'_, SnapshotsByGroup> {
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
    pub(super) fn receive(&self, group: u64, files: SnapshotFiles) -> Result<u64, ClusterError> {
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let mut snapshots = self.snapshots();
        if let Err(stopped) = self.check_not_stopped() {
            drop(snapshots);
            blocking(|| drop(files));
            return Err(stopped);
        }
        let before = snapshots.insert(group, (number, files));
        drop(snapshots);
        discard(before);
        Ok(number)
    }

    /// Returns the snapshot that is being received, and forgets it if it is complete.
    pub(super) fn received(
        &self,
        group: u64,
        snapshot: u64,
        is_complete: bool,
    ) -> Result<SnapshotFiles, String> {
        let mut snapshots = self.snapshots();
        let found = snapshots.get(&group).filter(|(number, _)| *number == snapshot);
        let files = found.map(|(_, files)| files.clone());
        if is_complete && files.is_some() {
            snapshots.remove(&group);
        }
        files.ok_or_else(|| "another snapshot has taken the place of this one".to_owned())
    }
}
