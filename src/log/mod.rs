//! The end of the log: it assigns each entry its place, its timestamp and the mark that it carries,
//! moves from one segment to the next, and tracks how far the log is durable.
//!
//! - [`LogWriter`] owns the end of the log. The store locks it, appends, and publishes the appended
//!   entries in the keydir. The log itself knows nothing of the keydir except how keys are hashed.
//! - [`append`] appends entries; [`in_flight`] covers the time between the append and the
//!   publication.
//! - [`rotate`] ends a segment, [`next_segment`] provides the next one, [`seal`] seals full ones,
//!   and [`restart`] restarts the log. [`reserve`] is the space that these may use on a full disk.
//! - [`commit`] syncs, and stops all writing after a failure that leaves the state of the disk
//!   unknown. [`current_policy`] is the current sync policy.

mod append;
mod commit;
mod current_policy;
mod in_flight;
mod next_segment;
mod reserve;
mod restart;
mod rotate;
mod seal;
mod state;
#[cfg(test)]
mod tests;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use crate::background::Signal;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::fs::{self, File, Fs};
use crate::key_hash::KeyHasher;
use crate::manifest::ManifestFile;
use crate::options::{AppendMode, SyncPolicy};
use crate::process::Opener;
use crate::segment::header::Identity;
use crate::segment::{Dir, Place, SegmentId, Segments};
use crate::stats::{Counters, Stats};
use crate::sync::{Mutex, MutexGuard};
use crate::trace::{Event, Stage, Trace};
use commit::{Commit, SyncDone};
use reserve::Reserve;

pub(crate) use append::{Appended, BATCH_SIZE_LIMIT, Written};
pub(crate) use current_policy::CurrentSyncPolicy;
pub(crate) use in_flight::Publisher;
#[cfg(test)]
pub(crate) use state::ActiveSegment;
pub(crate) use state::{Log, UnsealedFile};
pub(crate) use waiters::News;

/// The dependencies and settings of the log.
#[derive(Debug)]
pub(crate) struct LogContext {
    pub(crate) fs: Fs,
    pub(crate) dir: Dir,
    pub(crate) clock: Clock,
    pub(crate) identity: Identity,
    pub(crate) hasher: KeyHasher,
    pub(crate) segments: Segments,
    pub(crate) manifest: Arc<ManifestFile>,
    /// The size at which a segment is full.
    pub(crate) segment_size: u64,
    /// The number of entries at which a segment is full.
    pub(crate) segment_entries: u64,
    pub(crate) append_mode: AppendMode,
    pub(crate) sync_policy: CurrentSyncPolicy,
    pub(crate) trace: Trace,
}

/// Owns the end of the log. The single writing process has one for as long as its store is open.
#[derive(Debug)]
pub(crate) struct LogWriter {
    context: LogContext,
    commit: Commit,
    reserve: Reserve,
    /// Wakes the work that syncs and marks.
    pub(crate) sync_signal: Arc<Signal>,
    /// Wakes the work that seals. Sealing may take far longer than the interval between two syncs,
    /// so each is a separate piece of work.
    pub(crate) seal_signal: Arc<Signal>,
    /// Wakes the work that prepares what writers will need soon. It must not wait for a seal.
    pub(crate) prepare_signal: Arc<Signal>,
    /// Lock 3: held while a segment moves from rotated to sealed, or from sealed to removed.
    maintenance: Mutex<()>,
    /// Lock 5: the end of the log, and everything that is decided when an entry gets its place.
    log: Mutex<Log>,
}

impl LogWriter {
    /// Takes over a log whose segments are all sealed or about to be sealed. New segments get ids
    /// from `next_id` on, and new entries get timestamps after `last_timestamp`. The reserve lies
    /// after the end of `lock_file`.
    pub(crate) fn new(
        context: LogContext,
        opener: Opener,
        lock_file: &File,
        next_id: SegmentId,
        last_timestamp: u64,
    ) -> Self {
        Self {
            commit: Commit::new(opener, context.trace.clone()),
            context,
            reserve: Reserve::new(lock_file.clone()),
            sync_signal: Arc::default(),
            seal_signal: Arc::default(),
            prepare_signal: Arc::default(),
            maintenance: Mutex::default(),
            log: Mutex::new(Log::new(next_id, last_timestamp)),
        }
    }

    /// Locks the end of the log.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock()
    }

    /// Prevents segments from being sealed or removed, and the log from being restarted.
    pub(crate) fn lock_maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock()
    }

    /// Does so if the lock is free.
    pub(crate) fn try_lock_maintenance(&self) -> Option<MutexGuard<'_, ()>> {
        self.maintenance.try_lock()
    }

    /// Returns an error if writing has ended, or in a forked child.
    pub(crate) fn check(&self) -> Result<()> {
        self.commit.check()
    }

    /// Ends writing for good. Returns the `Poisoned` error.
    #[cold]
    pub(crate) fn poison(&self, cause: Error) -> Error {
        let error = self.commit.poison(cause);
        if self.context.trace.has_notes() {
            // The caller may hold locks, so another thread reports it.
            self.seal_signal.wake();
        }
        error
    }

    /// Ends writing if a sync has failed, since the state of the disk is then unknown, or if the
    /// directory no longer belongs to the store.
    pub(crate) fn poison_if_sync_failed(&self, error: Error) -> Error {
        if fs::ends_writing(&error) { self.poison(error) } else { error }
    }

    /// Returns the place below which the whole log is durable.
    pub(crate) fn durable(&self) -> Place {
        self.commit.durable()
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let end = self.lock().end();
        self.sync_to(end)
    }

    /// Waits until the log is durable up to a place.
    pub(crate) fn sync_to(&self, place: Place) -> Result<()> {
        if self.commit.durable() >= place {
            return Ok(());
        }
        let trace = &self.context.trace;
        // Other threads may wait for the sync, so nothing is reported before they can go on.
        let _span = trace.enter(Stage::Sync);
        let done = self.commit.wait(place, || self.lock().unsynced(), || self.context.fs.check());
        let done = done.inspect_err(|_| trace.flush())?;
        self.lock().waiters.synced();
        if let Some(SyncDone { files, took }) = done {
            trace.report(Event::Synced { files, took });
        }
        Ok(())
    }

    /// Syncs if that is due under the sync policy. Returns how long the next sync can wait, if one
    /// is needed.
    pub(crate) fn sync_if_due(&self) -> Option<Duration> {
        let SyncPolicy::Interval(interval) = self.sync_policy() else { return None };
        let (dirty_since, end) = self.lock().dirty();
        let left = interval.checked_sub(dirty_since?.elapsed()).filter(|left| !left.is_zero());
        if left.is_none() {
            // The next write reports a failure, which has poisoned the store.
            let _ = self.sync_to(end);
        }
        left
    }

    /// Ends the log: nothing more will be appended. Wakes the followers that wait for changes.
    pub(crate) fn close(&self) {
        self.lock().close();
    }

    /// Adds the log's figures to the statistics.
    pub(crate) fn count(&self, stats: &mut Stats) {
        self.lock().count(stats);
        stats.reserve_size += self.reserve_size();
        stats.syncs = self.commit.syncs.count();
    }

    /// Adds what was appended, and the syncs.
    pub(crate) fn count_done(&self, counters: &mut Counters) {
        self.lock().count_entries(counters);
        self.commit.syncs.add_to(&mut counters.sync_latency);
        counters.syncs = counters.sync_latency.count();
    }
}
