//! The shards that will soon need a larger table, so that it can be made ahead of their writers.

use crate::sync::Mutex;

/// The numbers of shards whose tables are nearly full. Lock 8.
#[derive(Debug, Default)]
pub(super) struct Crowded(Mutex<Vec<usize>>);

impl Crowded {
    /// Notes that a shard soon needs a larger table. A shard may be noted more than once.
    #[cold]
    pub(super) fn note(&self, shard: usize) {
        self.0.lock().push(shard);
    }

    /// Returns the noted shards, and forgets them. Keeps the memory for the next ones.
    pub(super) fn take(&self) -> Vec<usize> {
        self.0.lock().drain(..).collect()
    }
}
