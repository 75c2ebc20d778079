//! How far the snapshots are that a group is sending.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// A snapshot on its way to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotTransfer {
    /// The number of the node that receives it.
    pub node: u64,
    /// Bytes that the node has acknowledged.
    pub sent: u64,
    /// Size of all its files, in bytes.
    pub size: u64,
}

/// The snapshots that a group is sending, one to each node at most.
#[derive(Debug, Default)]
pub(crate) struct SnapshotProgress {
    /// Lock 9: the transfers by node, each only for a moment.
    by_node: Mutex<BTreeMap<u64, SnapshotTransfer>>,
}

impl SnapshotProgress {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, SnapshotTransfer>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the transfers of now.
    pub(crate) fn transfers(&self) -> Vec<SnapshotTransfer> {
        self.lock().values().copied().collect()
    }

    /// Begins a transfer. It lasts until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, node: u64, size: u64) -> TransferGuard {
        self.lock().insert(node, SnapshotTransfer { node, sent: 0, size });
        TransferGuard { progress: Arc::clone(self), node }
    }
}

/// A transfer that goes on.
pub(super) struct TransferGuard {
    progress: Arc<SnapshotProgress>,
    node: u64,
}

impl TransferGuard {
    /// Notes bytes that the other node has acknowledged.
    pub(super) fn sent(&self, bytes: u64) {
        if let Some(transfer) = self.progress.lock().get_mut(&self.node) {
            transfer.sent = transfer.sent.saturating_add(bytes);
        }
    }
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        self.progress.lock().remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_shown_while_it_goes_on() {
        let progress = Arc::new(SnapshotProgress::default());
        let (to_two, to_three) = (progress.begin(2, 100), progress.begin(3, 50));
        to_two.sent(10);
        to_two.sent(30);
        let shown = progress.transfers();
        assert_eq!(shown[0], SnapshotTransfer { node: 2, sent: 40, size: 100 });
        assert_eq!(shown[1], SnapshotTransfer { node: 3, sent: 0, size: 50 });
        drop(to_two);
        assert_eq!(progress.transfers().len(), 1);
        drop(to_three);
        assert!(progress.transfers().is_empty());
    }
}
