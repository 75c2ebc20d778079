//! Reads entries of the log, in order to send or to apply them.

use std::fmt::{self, Debug};
use std::ops::{Bound, RangeBounds};

use openraft::{
    ErrorSubject, ErrorVerb, OptionalSend, RaftLogId as _, RaftLogReader, RaftTypeConfig,
    StorageError,
};

use super::LogStore;
use crate::error::Error;
use crate::raft::blocking::blocking;
use crate::raft::failure::During as _;
use crate::store::Bitcask;

/// Size of entries in bytes above which
/// [`limited_get_log_entries`](RaftLogReader::limited_get_log_entries) returns no more of them.
const PAYLOAD_SIZE: u64 = 4 << 20;

/// Reads the entries of a [`LogStore`], for the tasks of openraft that send them to other nodes.
///
/// A leader does not truncate its log. Once the log has been truncated, a reader from before
/// belongs to a leader of the past, and finds nothing any more.
pub struct LogReader<C: RaftTypeConfig> {
    pub(super) log: LogStore<C>,
    /// Number of times that the log had been truncated when the reader was made.
    pub(super) truncations: u64,
}

impl<C: RaftTypeConfig> Debug for LogReader<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader").field("group", &self.log.group).finish_non_exhaustive()
    }
}

/// Returns the first index of a range, and the index behind its last.
fn ends_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

/// The error for an entry that is missing between others.
pub(super) fn gap(store: &Bitcask, group: u64, missing: u64) -> Error {
    let reason = format!(
        "the Raft log of group {group} has no entry {missing}, but later ones; restore the node \
         from a snapshot or a backup"
    );
    Error::corrupt(store.path(), 0, reason)
}

impl<C: RaftTypeConfig> LogStore<C> {
    fn entries(
        &self,
        start: u64,
        end: u64,
        size: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let entries = blocking(|| self.group.read(&self.shared.store, start, end, size));
        entries.during(ErrorSubject::Logs, ErrorVerb::Read)
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let (start, end) = ends_of(&range);
        self.entries(start, end, u64::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        self.entries(start, end, PAYLOAD_SIZE)
    }
}

impl<C: RaftTypeConfig> LogReader<C> {
    /// Returns what was read, unless the log has been truncated since the reader was made: then the
    /// entries may be of two leaders.
    fn current(&self, entries: Vec<C::Entry>) -> Vec<C::Entry> {
        if self.log.group.truncations() == self.truncations { entries } else { Vec::new() }
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogReader<C> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let entries = self.log.try_get_log_entries(range).await?;
        Ok(self.current(entries))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let mut entries = self.log.limited_get_log_entries(start, end).await?;
        // The rest of a range whose beginning was purged does not follow what the other node has.
        if entries.first().is_some_and(|first| first.get_log_id().index != start) {
            entries.clear();
        }
        Ok(self.current(entries))
    }
}
