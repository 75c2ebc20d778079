//! What the store's threads do, each when it is due. Tests that have no threads do it themselves.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::background::{Signal, Worker};
use crate::error::Result;
use crate::fs;
use crate::log::LogWriter;

/// How long after a sync the log may go without an entry before a mark of its own is appended.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// How long the threads sleep when nothing wakes them.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// How long the thread that merges sleeps when the policy has it do nothing: another policy wakes it.
const UNTIL_WOKEN: Duration = Duration::from_secs(3600);

impl Inner {
    /// Starts the threads of a store that is open for writing.
    pub(super) fn start_workers(self: &Arc<Self>) -> Result<Vec<Worker>> {
        let start = |signal: &Arc<Signal>, job: fn(&Self) -> Option<Duration>| {
            let (signal, inner) = (Arc::clone(signal), Arc::clone(self));
            // In a child that was forked by what the thread calls it has no work.
            let work = move || inner.opener.is_here().then(|| job(&inner)).flatten();
            let started = Worker::start(signal, work);
            fs::io_context("start a thread for", self.dir.path(), started)
        };
        let log = self.log()?;
        let mut workers = vec![
            start(&log.sync_signal, |inner| Some(inner.sync_and_mark_due()))?,
            start(&log.seal_signal, |inner| Some(inner.seal_due()))?,
            start(&log.prepare_signal, |inner| Some(inner.prepare_due()))?,
            start(&self.merge_signal, |inner| Some(inner.merge_due().unwrap_or(UNTIL_WOKEN)))?,
        ];
        for _ in 0..self.filler.threads() {
            workers.push(start(&Arc::default(), Self::fill_due)?);
        }
        Ok(workers)
    }

    /// Seals what is rotated, writes hints that are missing, and says how long to wait for more.
    pub(super) fn seal_due(&self) -> Duration {
        self.segments.free_retired();
        self.remove_late();
        // A failure is kept as poison, and told by the next write; a full disk may have room
        // again the next time.
        let worked = self
            .seal_oldest()
            .and_then(|sealed| Ok(sealed || self.write_hint()? || self.write_index()?));
        // One at a time, so that closing waits for no more than that.
        if worked.unwrap_or(false) { Duration::ZERO } else { IDLE }
    }

    /// Seals the oldest segment that has been rotated. Returns whether there was one.
    pub(super) fn seal_oldest(&self) -> Result<bool> {
        self.log()?.seal_oldest(&self.keydir)
    }

    /// Seals the segments that have been rotated by now.
    pub(super) fn seal_rotated(&self) -> Result<()> {
        self.log()?.seal_rotated(&self.keydir)
    }

    /// Prepares what writers are about to need, and returns how long to wait for more.
    pub(super) fn prepare_due(&self) -> Duration {
        let _ = self.log().map(LogWriter::prepare);
        IDLE
    }

    /// Does what the threads that prepare, seal and sync do, where a test has none.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(super) fn work(&self) -> Duration {
        self.prepare_due();
        while self.seal_due().is_zero() {}
        self.sync_and_mark_due()
    }

    /// Syncs and marks if that is due, and says how long the rest may wait.
    pub(super) fn sync_and_mark_due(&self) -> Duration {
        let Ok(log) = self.log() else { return IDLE };
        let wait = log.sync_if_due().map_or(IDLE, |left| left.min(IDLE));
        let _ = log.mark_if_due(MARK_DELAY);
        wait
    }
}
