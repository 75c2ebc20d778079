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
    /// Lock 9: the transfers, each only for a moment.
    transfers: Mutex<TransfersByNode>,
}

/// The last transfer to each node, with a number that no other transfer has.
#[derive(Debug, Default)]
struct TransfersByNode {
    begun: u64,
    by_node: BTreeMap<u64, (u64, SnapshotTransfer)>,
}

impl SnapshotProgress {
    fn lock(&self) -> MutexGuard<'_, TransfersByNode> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the transfers of now.
    pub(crate) fn transfers(&self) -> Vec<SnapshotTransfer> {
        self.lock().by_node.values().map(|(_, transfer)| *transfer).collect()
    }

    /// Begins a transfer. It lasts until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, node: u64, size: u64) -> TransferGuard {
        let mut transfers = self.lock();
        transfers.begun += 1;
        let number = transfers.begun;
        transfers.by_node.insert(node, (number, SnapshotTransfer { node, sent: 0, size }));
        TransferGuard { progress: Arc::clone(self), node, number }
    }
}

/// A transfer that goes on. Another one to the same node may have begun before openraft has let go
/// of this one.
pub(super) struct TransferGuard {
    progress: Arc<SnapshotProgress>,
    node: u64,
    number: u64,
}

impl TransferGuard {
    /// Notes bytes that the other node has acknowledged.
    pub(super) fn sent(&self, bytes: u64) {
        if let Some((number, transfer)) = self.progress.lock().by_node.get_mut(&self.node)
            && *number == self.number
        {
            transfer.sent = transfer.sent.saturating_add(bytes);
        }
    }
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        let by_node = &mut self.progress.lock().by_node;
        if by_node.get(&self.node).is_some_and(|(number, _)| *number == self.number) {
            by_node.remove(&self.node);
        }
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
        let again = progress.begin(3, 70);
        to_three.sent(20);
        drop(to_three);
        assert_eq!(progress.transfers(), [SnapshotTransfer { node: 3, sent: 0, size: 70 }]);
        drop(again);
        assert!(progress.transfers().is_empty());
    }
}
