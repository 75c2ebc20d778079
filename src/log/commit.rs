//! Group commit: which thread syncs, how far the log is durable, and poisoning.
//!
//! - One thread syncs for everything appended so far. Threads that wait meanwhile are served by
//!   this sync or the next.
//! - The durable place only moves forward, across segments too: a segment counts only once all
//!   segments before it are synced.
//! - The first sync that fails, or write that fails after its first byte, poisons the store for
//!   good. A sync is never retried, since the kernel marks the pages clean that it failed to write.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::counters::Recorder;
use crate::error::{Error, Result};
use crate::fs::File;
use crate::mistake::{Mistake, made};
use crate::process::Opener;
use crate::segment::Place;
use crate::sync::unmodeled::{AtomicU64, Condvar, Mutex, MutexGuard};
use crate::sync::{Instant, Ordering, yield_now};
use crate::trace::{Event, Trace};

/// Maximum time that a sync is delayed. It is never delayed for longer than the last one took.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// The threads that wait for a sync.
#[derive(Debug, Default)]
struct Group {
    syncing: bool,
    /// Number of threads that started to wait since the last sync began; the next one serves them
    /// all.
    len: usize,
    /// Number of threads that the last sync served; `last_sync` is how long it took.
    last_len: usize,
    last_sync: Duration,
}

/// What must be synced to make the log durable up to a place.
#[derive(Debug)]
pub(super) struct Unsynced {
    /// Oldest first.
    pub(super) files: Vec<File>,
    pub(super) end: Place,
}

/// A sync that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyncDone {
    pub(super) files: u64,
    pub(super) took: Duration,
}

/// How far the log is durable.
#[derive(Debug, Default)]
pub(super) struct Commit {
    /// The process that may write.
    opener: Opener,
    /// Lock 8: the waiting threads. No lock is taken while this is held: it is released for a sync,
    /// which locks the log.
    group: Mutex<Group>,
    done: Condvar,
    /// The durable place, packed.
    durable: AtomicU64,
    /// How long syncs took.
    pub(super) syncs: Recorder,
    poison: OnceLock<Arc<Error>>,
    trace: Trace,
}

impl Commit {
    pub(super) fn new(opener: Opener, trace: Trace) -> Self {
        Self { opener, trace, ..Self::default() }
    }

    /// Returns the place below which the whole log is durable.
    pub(super) fn durable(&self) -> Place {
        Place::unpack(self.durable.load(Ordering::Acquire))
    }

    /// Records that the log is durable up to a place, for a reason other than a sync here.
    pub(super) fn advance(&self, durable: Place) {
        self.durable.fetch_max(durable.pack(), Ordering::Release);
    }

    /// Waits until the log is durable up to a place. Syncs the files that `unsynced` returns,
    /// unless another thread is syncing and gets that far. A sync counts only if `check` then
    /// confirms that the files still belong to the store. Returns the last sync that the calling
    /// thread has made, if it has made one.
    pub(super) fn wait(
        &self,
        place: Place,
        unsynced: impl Fn() -> Unsynced,
        check: impl Fn() -> Result<()>,
    ) -> Result<Option<SyncDone>> {
        if self.durable() >= place {
            return Ok(None);
        }
        let mut done = None;
        let mut group = self.group.lock();
        group.len += 1;
        loop {
            if self.durable() >= place {
                return Ok(done);
            }
            self.check()?;
            if group.syncing {
                group = self.done.wait(group);
                if made(Mistake::ServedByAnySync) {
                    return Ok(done);
                }
                continue;
            }
            group.syncing = true;
            group = self.gather(group);
            let (held, result) = self.group.unlocked(group, || self.sync(&unsynced, &check));
            group = held;
            group.syncing = false;
            self.done.notify_all();
            group.last_sync = done.insert(result?).took;
        }
    }

    /// Waits briefly for the threads that shared the last sync. They have just been released and
    /// are about to return; without this wait, every second time they would need a separate sync.
    fn gather<'a>(&'a self, mut group: MutexGuard<'a, Group>) -> MutexGuard<'a, Group> {
        let (started, at_most) = (Instant::now(), GATHER_MAX.min(group.last_sync));
        while group.len < group.last_len && started.elapsed() < at_most {
            (group, ()) = self.group.unlocked(group, yield_now);
        }
        group.last_len = std::mem::take(&mut group.len);
        group
    }

    /// Syncs.
    fn sync(
        &self,
        unsynced: impl Fn() -> Unsynced,
        check: impl Fn() -> Result<()>,
    ) -> Result<SyncDone> {
        let (started, unsynced) = (Instant::now(), unsynced());
        self.check()?;
        if made(Mistake::DurableBeforeSync) {
            self.advance(unsynced.end);
        }
        for file in unsynced.files.iter().filter(|_| !made(Mistake::LogNotSynced)) {
            file.sync().map_err(|error| self.poison(error))?;
        }
        check().map_err(|error| self.poison(error))?;
        let took = started.elapsed();
        self.syncs.record(took);
        self.advance(unsynced.end);
        Ok(SyncDone { files: unsynced.files.len() as u64, took })
    }

    /// Ends writing for good. Returns the `Poisoned` error. The first cause is kept.
    pub(super) fn poison(&self, cause: Error) -> Error {
        let cause = match cause {
            Error::Poisoned { cause } => cause,
            cause => Arc::new(cause),
        };
        let first = self.poison.get_or_init(|| {
            self.trace.note(Event::Poisoned { cause: Arc::clone(&cause) });
            cause
        });
        Error::Poisoned { cause: Arc::clone(first) }
    }

    /// Returns an error if writing has ended, or if this process is not the one that may write.
    pub(super) fn check(&self) -> Result<()> {
        self.opener.check()?;
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentId;

    fn place(segment: u32, offset: u64) -> Place {
        Place::new(SegmentId(segment), offset)
    }

    #[test]
    fn the_durable_place_only_moves_forward() {
        let commit = Commit::default();
        commit.advance(place(2, 64));
        commit.advance(place(1, 4096));
        assert_eq!(commit.durable(), place(2, 64));
        commit.advance(place(2, 72));
        assert_eq!(commit.durable(), place(2, 72));
    }

    #[test]
    fn the_first_cause_of_poison_is_kept() {
        let commit = Commit::default();
        commit.check().unwrap();
        let first = commit.poison(Error::ReadOnly);
        let second = commit.poison(Error::NoSpace { path: "b".into() });
        for error in [first, second, commit.check().unwrap_err()] {
            let Error::Poisoned { cause } = error else { panic!("{error}") };
            assert!(matches!(*cause, Error::ReadOnly));
        }
    }

    #[test]
    fn waiting_threads_share_syncs_and_all_become_durable() {
        const EACH: u64 = if cfg!(miri) { 2 } else { 200 };
        let commit = Commit::default();
        let appended = AtomicU64::new(64);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let end = appended.fetch_add(8, Ordering::SeqCst) + 8;
                        let unsynced = || Unsynced {
                            files: Vec::new(),
                            end: place(1, appended.load(Ordering::SeqCst)),
                        };
                        commit.wait(place(1, end), unsynced, || Ok(())).unwrap();
                        assert!(commit.durable() >= place(1, end));
                    }
                });
            }
        });
        assert!(commit.syncs.count() <= 8 * EACH);
        assert_eq!(commit.durable(), place(1, 64 + 8 * EACH * 8));
    }
}
