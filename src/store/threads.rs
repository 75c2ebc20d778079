//! The work of the store's background threads. Tests without threads call it directly.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::background::{Signal, Worker};
use crate::error::Result;
use crate::fs;
use crate::log::LogWriter;

/// Time after a sync until a separate mark is appended, if no entry has been appended meanwhile.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// Time that the threads sleep when nothing wakes them.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// How long the thread that merges sleeps when the policy has it do nothing: another policy wakes it.
const UNTIL_WOKEN: Duration = Duration::from_secs(3600);

impl Inner {
    /// Starts the threads of a writable store.
    pub(super) fn start_workers(self: &Arc<Self>) -> Result<Vec<Worker>> {
        let start = |signal: &Arc<Signal>, job: fn(&Self) -> Option<Duration>| {
            let (signal, inner) = (Arc::clone(signal), Arc::clone(self));
            // In a child forked by a callback of the thread, there is nothing to do.
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

    /// Seals a rotated segment, or writes a missing hint or index. Returns how long to wait for
    /// more.
    pub(super) fn seal_due(&self) -> Duration {
        self.segments.free_retired();
        self.remove_late();
        // A fatal failure is kept as poison, which the next write reports. A full disk may have
        // space again the next time.
        let worked = self
            .seal_oldest()
            .and_then(|sealed| Ok(sealed || self.write_hint()? || self.write_index()?));
        // One at a time, so that closing has to wait for only one.
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

    /// Prepares what writers will need soon. Returns how long to wait for more.
    pub(super) fn prepare_due(&self) -> Duration {
        let _ = self.log().map(LogWriter::prepare);
        IDLE
    }

    /// Does the work of the threads that prepare, seal and sync, for tests without threads.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(super) fn work(&self) -> Duration {
        self.prepare_due();
        while self.seal_due().is_zero() {}
        self.sync_and_mark_due()
    }

    /// Syncs and marks if that is due. Returns how long to wait until the next time.
    pub(super) fn sync_and_mark_due(&self) -> Duration {
        let Ok(log) = self.log() else { return IDLE };
        let wait = log.sync_if_due().map_or(IDLE, |left| left.min(IDLE));
        let _ = log.mark_if_due(MARK_DELAY);
        wait
    }
}
