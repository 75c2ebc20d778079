//! Who syncs when: group commit, how far the log is durable, and poison.
//!
//! - One thread syncs for everything appended so far; whoever waits meanwhile is served by it or
//!   by the next.
//! - The durable place only moves up, and over segments: a segment counts only when all before it
//!   are synced.
//! - The first failed sync, or write after its first byte, poisons the store for good. A sync is
//!   never tried again: the kernel marks the pages clean that it could not write.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::File;
use crate::mistake::{Mistake, made};
use crate::process::Opener;
use crate::segment::Place;
use crate::sync::unmodeled::{AtomicU64, Condvar, Mutex, MutexGuard};
use crate::sync::{Instant, Ordering, yield_now};

/// A sync is put off by at most as long as the last one took, and by no more than this.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// The threads that wait for a sync.
#[derive(Debug, Default)]
struct Group {
    syncing: bool,
    /// Threads that have come to wait since the last sync began; the next one serves them all.
    len: usize,
    /// How many the last one served, and how long it took.
    last_len: usize,
    last_sync: Duration,
}

/// What has to be synced to make the log durable up to a place.
#[derive(Debug)]
pub(crate) struct Unsynced {
    /// Oldest first.
    pub(crate) files: Vec<File>,
    pub(crate) end: Place,
}

/// How far the log is durable.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    /// Who may write.
    opener: Opener,
    /// Who waits for what. Innermost of all locks.
    group: Mutex<Group>,
    done: Condvar,
    /// The durable place, packed.
    durable: AtomicU64,
    syncs: AtomicU64,
    poison: OnceLock<Arc<Error>>,
}

impl Commit {
    pub(crate) fn new(opener: Opener) -> Self {
        Self { opener, ..Self::default() }
    }

    /// Returns the place below which the whole log is durable.
    pub(crate) fn durable(&self) -> Place {
        Place::unpack(self.durable.load(Ordering::Acquire))
    }

    /// Notes that the log is durable up to a place, by other means than a sync of it here.
    pub(crate) fn advance(&self, durable: Place) {
        self.durable.fetch_max(durable.pack(), Ordering::Release);
    }

    /// Waits until the log is durable up to a place. Syncs what `unsynced` names then, unless
    /// another thread is doing so and gets that far. A sync counts if `check` says then that what was
    /// synced is still the store's.
    pub(crate) fn wait(
        &self,
        place: Place,
        unsynced: impl Fn() -> Unsynced,
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        if self.durable() >= place {
            return Ok(());
        }
        let mut group = self.group.lock();
        group.len += 1;
        loop {
            if self.durable() >= place {
                return Ok(());
            }
            self.check()?;
            if group.syncing {
                group = self.done.wait(group);
                if made(Mistake::ServedByAnySync) {
                    return Ok(());
                }
                continue;
            }
            group.syncing = true;
            group = self.gather(group);
            let started = Instant::now();
            let (held, result) = self.group.unlocked(group, || self.sync(&unsynced(), &check));
            group = held;
            group.last_sync = started.elapsed();
            group.syncing = false;
            self.done.notify_all();
            result?;
        }
    }

    /// Waits a moment for the threads that shared the last sync: those which it has just let go
    /// are about to be back, and would otherwise need a sync of their own each second time.
    fn gather<'a>(&'a self, mut group: MutexGuard<'a, Group>) -> MutexGuard<'a, Group> {
        let (started, at_most) = (Instant::now(), GATHER_MAX.min(group.last_sync));
        while group.len < group.last_len && started.elapsed() < at_most {
            (group, ()) = self.group.unlocked(group, yield_now);
        }
        group.last_len = std::mem::take(&mut group.len);
        group
    }

    fn sync(&self, unsynced: &Unsynced, check: impl Fn() -> Result<()>) -> Result<()> {
        self.check()?;
        if made(Mistake::DurableBeforeSync) {
            self.advance(unsynced.end);
        }
        for file in unsynced.files.iter().filter(|_| !made(Mistake::LogNotSynced)) {
            file.sync().map_err(|error| self.poison(error))?;
        }
        check().map_err(|error| self.poison(error))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.advance(unsynced.end);
        Ok(())
    }

    /// Returns how often the log was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Ends writing for good, and returns the error that says so. The first cause is kept.
    pub(crate) fn poison(&self, cause: Error) -> Error {
        let cause = match cause {
            Error::Poisoned { cause } => cause,
            cause => Arc::new(cause),
        };
        Error::Poisoned { cause: Arc::clone(self.poison.get_or_init(|| cause)) }
    }

    /// Refuses if writing has ended, or this is another process than the one that may write.
    pub(crate) fn check(&self) -> Result<()> {
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
    fn the_durable_place_only_moves_up() {
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
    fn waiters_share_syncs_and_all_get_there() {
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
        assert!(commit.syncs() <= 8 * EACH);
        assert_eq!(commit.durable(), place(1, 64 + 8 * EACH * 8));
    }
}
