//! Copies of groups that a node lends to an administrator, who fetches their files.
//!
//! An administrator may go away in the middle, so what nobody reads for a while is removed.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::drawn;
use super::error::ClusterError;
use super::group::RaftGroup;
use super::network::PeerTransport;
use super::network::messages::{LentFile, PIECE_SIZE, PeerAnswer};
use super::node::{Node, discard};
use crate::raft::{SnapshotFiles, blocking};

/// Time after which a copy is removed, if nobody has read from it meanwhile.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(600);

/// A copy of a group that is lent.
pub(super) struct LentCopy {
    number: u64,
    files: SnapshotFiles,
    /// When somebody has last read from it.
    read: Instant,
}

/// Copies by group.
pub(super) type LentCopies = BTreeMap<u64, LentCopy>;

impl<T: PeerTransport> Node<T> {
    /// Makes a copy of a group that has everything that was acknowledged before, and keeps it until
    /// it is returned, nobody reads it any more, or another one of this group is lent.
    pub(super) async fn lend_copy(
        self: &Arc<Self>,
        group: &RaftGroup,
    ) -> Result<PeerAnswer, ClusterError> {
        group.check_running()?;
        // Whatever is in the way may pass, and the administrator asks again.
        self.catch_up(group).await.map_err(|failure| match failure {
            // The one that is named may be this node, which is handing the lead over.
            ClusterError::NotLeader { .. } => ClusterError::NotLeader { leader: None },
            ClusterError::Busy => ClusterError::Busy,
            failure => ClusterError::Failed(failure.to_string()),
        })?;
        let (copy, index) = blocking(|| group.state().copy())?;
        let files = blocking(|| copy.files())?;
        let files = files.into_iter().map(|it| LentFile { name: it.name, size: it.size }).collect();
        // A restart must not give it again to another copy.
        let number = drawn::number();
        let copy = LentCopy { number, files: copy, read: Instant::now() };
        let mut lent = self.lent();
        if let Err(stopped) = self.check_not_stopped() {
            drop(lent);
            blocking(|| drop(copy));
            return Err(stopped);
        }
        let before = lent.insert(group.number, copy);
        drop(lent);
        discard(before);
        self.remove_when_unread(group.number, number);
        Ok(PeerAnswer::CopyLent { copy: number, index: index.unwrap_or(0), files })
    }

    /// Reads a piece of a file of a copy that is lent.
    pub(super) fn lent_piece(
        &self,
        group: u64,
        number: u64,
        name: &str,
        offset: u64,
    ) -> Result<PeerAnswer, ClusterError> {
        let files = {
            let mut lent = self.lent();
            let copy = lent.get_mut(&group).filter(|copy| copy.number == number);
            copy.map(|copy| {
                copy.read = Instant::now();
                copy.files.clone()
            })
        };
        let gone = || {
            let reason = "the node has the copy no more: another backup has begun, nothing was read \
                          for ten minutes, or the node was restarted";
            ClusterError::Refused(reason.to_owned())
        };
        let files = files.ok_or_else(gone)?;
        let mut bytes = vec![0; PIECE_SIZE];
        let size = blocking(|| files.read(name, offset, &mut bytes))?;
        bytes.truncate(size);
        Ok(PeerAnswer::Piece(bytes.into()))
    }

    /// Takes a copy back. One that was lent later stays.
    pub(super) fn take_back(&self, group: u64, number: u64) -> PeerAnswer {
        let mut lent = self.lent();
        let is_same = lent.get(&group).is_some_and(|copy| copy.number == number);
        discard(if is_same { lent.remove(&group) } else { None });
        PeerAnswer::Done
    }

    /// Waits until nobody reads a copy any more, and removes it. The node may end meanwhile.
    fn remove_when_unread(self: &Arc<Self>, group: u64, number: u64) {
        let node = Arc::downgrade(self);
        tokio::spawn(async move {
            let kept_until = || node.upgrade().and_then(|node| node.kept_until(group, number));
            while let Some(until) = kept_until() {
                tokio::time::sleep_until(until).await;
            }
        });
    }

    /// Removes a copy that was not read for long enough. Returns when to look again, if there is a
    /// copy.
    fn kept_until(&self, group: u64, number: u64) -> Option<Instant> {
        let mut lent = self.lent();
        let until = lent.get(&group).filter(|copy| copy.number == number)?.read + UNREAD_MAX;
        if Instant::now() < until {
            return Some(until);
        }
        discard(lent.remove(&group));
        None
    }

    pub(super) fn lent(&self) -> MutexGuard<'_, LentCopies> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
