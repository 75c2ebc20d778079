//! Snapshots that a node is receiving.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::error::ClusterError;
use super::network::PeerTransport;
use super::node::{Node, discard};
use crate::raft::{SnapshotFiles, blocking};

/// Snapshots by group, each with a number.
pub(super) type SnapshotsByGroup = BTreeMap<u64, (u64, SnapshotFiles)>;

impl<T: PeerTransport> Node<T> {
    pub(super) fn snapshots(&self) -> MutexGuard<'_, SnapshotsByGroup> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
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
