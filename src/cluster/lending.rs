//! Snapshots that a node lends to an administrator, who copies their files.

use std::sync::{Arc, MutexGuard, PoisonError};

use openraft::storage::RaftStateMachine as _;

use super::error::ClusterError;
use super::group::{PATIENCE, RaftGroup, stopped};
use super::network::PeerTransport;
use super::network::messages::{LentFile, PIECE_SIZE, PeerAnswer};
use super::node::{Node, SnapshotsByGroup, discard};
use crate::raft::{SnapshotFiles, blocking};

impl<T: PeerTransport> Node<T> {
    /// Builds a snapshot of a group that has everything that was acknowledged before, and keeps its
    /// files until they are returned, or another one of this group is lent.
    pub(super) async fn lend_snapshot(
        self: &Arc<Self>,
        group: &RaftGroup,
    ) -> Result<PeerAnswer, ClusterError> {
        self.catch_up(group).await?;
        let applied = group.metrics().last_applied.map(|it| it.index);
        group.build_snapshot().await?;
        let wait = group.raft.wait(Some(PATIENCE));
        let is_built = wait.metrics(
            |metrics| metrics.snapshot.map(|it| it.index) >= applied,
            "a snapshot of what is applied",
        );
        is_built.await.map_err(|error| stopped(&error))?;
        let current = group.state().clone().get_current_snapshot().await;
        let current = current.map_err(|error| stopped(&error))?;
        let none = || ClusterError::Refused("the group has no entries yet".to_owned());
        let snapshot = current.ok_or_else(none)?;
        let index = snapshot.meta.last_log_id.map_or(0, |it| it.index);
        let files = blocking(|| snapshot.snapshot.files())?;
        let files = files.into_iter().map(|it| LentFile { name: it.name, size: it.size }).collect();
        let number = self.next_snapshot();
        let before = self.lent().insert(group.number, (number, *snapshot.snapshot));
        discard(before);
        Ok(PeerAnswer::SnapshotLent { snapshot: number, index, files })
    }

    /// Reads a piece of a file of a snapshot that is lent.
    pub(super) fn lent_piece(
        &self,
        group: u64,
        snapshot: u64,
        name: &str,
        offset: u64,
    ) -> Result<PeerAnswer, ClusterError> {
        let lent = self.lent().get(&group).filter(|(number, _)| *number == snapshot).cloned();
        let gone = || ClusterError::Refused("another snapshot was lent meanwhile".to_owned());
        let (_, files): (u64, SnapshotFiles) = lent.ok_or_else(gone)?;
        let mut bytes = vec![0; PIECE_SIZE];
        let size = blocking(|| files.read(name, offset, &mut bytes))?;
        bytes.truncate(size);
        Ok(PeerAnswer::Piece(bytes.into()))
    }

    /// Takes a snapshot back.
    pub(super) fn take_back(&self, group: u64) -> PeerAnswer {
        discard(self.lent().remove(&group));
        PeerAnswer::Done
    }

    fn lent(&self) -> MutexGuard<'_, SnapshotsByGroup> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
