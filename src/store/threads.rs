//! The store's background work, done by its own threads or by shared ones. Tests without threads
//! call it directly.
//!
//! - No piece of work waits for another: a writer, a seal or a merge does whatever it needs itself
//!   if the background has not done it yet. So any number of threads is enough, even one.
//! - Only a merge runs a caller's function, waits for a rate limit, a pause or another merge, or
//!   takes minutes. So among shared threads, some are reserved for merges.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use crate::background::{Background, Crew, Signal, Worker};
use crate::epoch::move_to_other_side;
use crate::error::Result;
use crate::fs;
use crate::log::LogWriter;

/// Time after a sync until a separate mark is appended, if no entry has been appended meanwhile.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// How long a piece of work rests if nothing wakes it.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// The same in an idle store, so that hundreds of idle stores do not keep a processor busy.
const AT_REST: Duration = Duration::from_secs(10);

/// How long the merging work rests if the policy requires no checks: a change of the policy wakes
/// it.
const UNTIL_WOKEN: Duration = Duration::MAX;

/// For how long a preparation lets syncs go first on shared threads. If it comes too late, the
/// writer that needs it does the work itself.
const SOON: Duration = Duration::from_millis(100);

/// For how long a seal, or filling a part of the keydir, lets other work go first.
const LATER: Duration = Duration::from_secs(1);

impl Inner {
    /// Starts the background work of a writable store, on its own threads or on shared ones.
    pub(super) fn start_workers(
        self: &Arc<Self>,
        shared: Option<&Background>,
    ) -> Result<Vec<Worker>> {
        let (short, merges) = shared.map(|shared| (shared.short(), shared.merges())).unzip();
        let start = |crew, patience, signal: &Signal, job: fn(&Self) -> Option<Duration>| {
            let inner = Arc::clone(self);
            // In a child forked by a callback of the work, there is nothing to do.
            let work = move || inner.opener.is_here().then(|| job(&inner)).flatten();
            let started = match crew {
                Some(crew) => Ok(Crew::employ(crew, signal, patience, work)),
                None => Worker::alone(signal, work),
            };
            fs::io_context("start a thread for", self.dir.path(), started)
        };
        let log = self.log()?;
        let due = Duration::ZERO;
        let mut workers = vec![
            start(short, due, &log.sync_signal, |inner| Some(inner.sync_and_mark_due()))?,
            start(short, SOON, &log.prepare_signal, |inner| Some(inner.prepare_due()))?,
            start(short, LATER, &log.seal_signal, |inner| {
                move_to_other_side();
                Some(inner.seal_due())
            })?,
            start(merges, due, &self.merge_signal, |inner| {
                Some(inner.merge_due().unwrap_or(UNTIL_WOKEN))
            })?,
        ];
        for _ in 0..self.filler.threads() {
            workers.push(start(short, LATER, &Signal::default(), Self::fill_due)?);
        }
        Ok(workers)
    }

    /// Seals a rotated segment, or writes a missing hint or index. Returns how long to wait for
    /// more.
    pub(super) fn seal_due(&self) -> Duration {
        self.segments.free_retired();
        self.remove_late();
        // A fatal failure has poisoned the store, and the next write reports it. A full disk may
        // have space again the next time.
        let worked = self
            .seal_oldest()
            .and_then(|sealed| Ok(sealed || self.write_hint()? || self.write_index()?));
        // One at a time, so that closing has to wait for only one.
        match worked {
            Ok(true) => Duration::ZERO,
            Ok(false) => self.idle_seal(),
            Err(_) => IDLE,
        }
    }

    fn has_freed_all(&self) -> bool {
        self.segments.retired() == (0, None) && !self.pins.has_late()
    }

    /// Frees what was retired. Segments that are still being read are left to the work that seals.
    pub(super) fn free_or_leave_retired(&self) {
        self.segments.free_retired();
        self.look_again();
    }

    /// Wakes the work that seals, and that frees what others leave to it. In a store at rest, no
    /// append does so.
    pub(super) fn look_again(&self) {
        let _ = self.log().map(|log| log.seal_signal.wake());
    }

    /// Returns how long a seal that has found nothing to do rests.
    fn idle_seal(&self) -> Duration {
        let _ = self.log().map(LogWriter::give_up_idle_hint);
        if self.has_freed_all() { self.idle() } else { IDLE }
    }

    /// Returns how long a piece of work that has found nothing to do rests.
    fn idle(&self) -> Duration {
        let is_at_rest = self.log().is_ok_and(LogWriter::is_at_rest);
        if is_at_rest { AT_REST } else { IDLE }
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
        self.keydir.prepare();
        self.idle()
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
        let wait = log.sync_if_due();
        let _ = log.mark_if_due(MARK_DELAY);
        match wait {
            Some(wait) => wait.min(IDLE),
            None if log.come_to_rest() => AT_REST,
            None => IDLE,
        }
    }
}
