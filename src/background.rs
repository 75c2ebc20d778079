//! Threads that work in the background, without knowledge of the work. A store has some of its own,
//! or shares those of a [`Background`] with other stores.
//!
//! - `crew` has the threads, and `queue` decides what they do next.

mod crew;
mod queue;
#[cfg(all(test, shuttle))]
mod schedule_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::fmt;

pub(crate) use crew::{Crew, Signal, Worker};

use crate::error::{Error, Result};
use crate::process::Opener;

/// Maximum number of threads of either kind.
const THREADS_MAX: usize = 1024;

/// Threads that work in the background for several stores.
///
/// By default, each store that is open for writing has four threads of its own, and some more while
/// it loads its keys. With [`Options::background`](crate::Options::background), stores share the
/// threads of a `Background` instead, so that hundreds of stores need only a few threads. Clones
/// share the same threads. The threads end when the last clone has been dropped and the last store
/// that uses them has been closed; whoever does that waits for them.
///
/// # What the threads do
///
/// *Short work* is done by as many threads as [`new`](Self::new) is told: syncing by
/// [`SyncPolicy::Interval`](crate::SyncPolicy::Interval), preparing space and segments ahead of
/// writers, sealing full segments, writing indexes, and loading keys after an open. A thread does
/// one piece at a time: one sync of one store, one segment, one part of the keys. The stores take
/// turns. A sync that is due comes first, then preparations, then the rest. What has waited for a
/// second takes turns with syncs.
///
/// *Merges* are done by threads that do nothing else, so that no sync waits for a merge. There is
/// one such thread, unless [`with_merges`](Self::with_merges) asks for more. It merges one store at
/// a time. A merge keeps its thread while it waits: for its [rate
/// limit](crate::AutoMerge::bytes_per_second), for the end of a
/// [pause](crate::Bitcask::pause_merges), or for another merge of the same store. So does the
/// callback [`on_finish`](crate::AutoMerge::on_finish). Other stores are merged afterwards, so a
/// callback must not wait for a merge of another store.
///
/// # How many threads to take
///
/// Two, and one for merges, are enough for hundreds of stores that are mostly idle. Stores that
/// write at the same time share the disk anyway, and a thread per processor keeps it busy. Take
/// more threads for merges if one of them cannot reclaim space as fast as all stores together
/// produce dead data, or if merges are slowed down or paused for long.
///
/// # If all threads are busy
///
/// No promise depends on these threads, except for the time that a power loss can take. Writes do
/// not wait for them. [`Bitcask::sync`](crate::Bitcask::sync), durable writes and
/// [`SyncPolicy::Always`](crate::SyncPolicy::Always) sync on the calling thread. A writer that
/// finds nothing prepared prepares what it needs, and one that is far ahead of the sealing seals a
/// segment. A call that needs keys that are not loaded loads them.
///
/// A sync at an interval starts as soon as a thread is free. If all of them are busy when it is
/// due, it is late by the time that the first of them takes to finish its piece, plus the syncs
/// that were due earlier. If the threads cannot keep up, so that other work has waited for a
/// second, one piece of it may come before each of these syncs, so that none of it waits for ever.
/// A power loss may then take that much more than an interval. The longest pieces read a whole
/// segment, to seal it or to write its index: tens to hundreds of milliseconds for one of 128 MiB,
/// or longer on a slow disk. Smaller [segments](crate::Options::segment_size) make the pieces
/// shorter, and more threads are rarely busy all at once.
///
/// # Forks
///
/// The threads belong to the process that started them. In a forked child, opening a store with
/// them returns [`Forked`](Error::Forked), and dropping the handle does nothing. A child may start
/// threads of its own.
///
/// ```
/// use bitcask::{Background, Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let options = Options::new().background(&Background::new(2)?);
/// let ann = Bitcask::open(dir.path().join("ann"), options.clone())?;
/// let bob = Bitcask::open(dir.path().join("bob"), options)?;
/// ann.put("key", "value")?; // Is synced within a second, as with a thread of its own.
/// # ann.close()?;
/// # bob.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Background {
    short: Crew,
    merges: Crew,
}

impl Background {
    /// Starts this many threads for short work, and one more for merges.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) if the number is not between 1 and 1,024.
    /// [`Threads`](Error::Threads) if the operating system refuses a thread.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_merges(threads, 1)
    }

    /// Starts this many threads for short work, and this many more for merges.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), for either number.
    ///
    /// ```
    /// # use bitcask::Background;
    /// # fn main() -> bitcask::Result<()> {
    /// let background = Background::with_merges(4, 2)?; // Six threads.
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_merges(threads: usize, merges: usize) -> Result<Self> {
        if let Some(number) = [threads, merges].into_iter().find(|number| !is_valid(*number)) {
            let reason =
                "it takes at least 1 thread for short work and 1 for merges, and at most 1,024";
            let value = format!("a `Background` of {number} threads");
            return Err(Error::InvalidOption { name: "background", value, reason });
        }
        let failed = |source| Error::Threads { source };
        let opener = Opener::this().map_err(failed)?;
        Ok(Self {
            short: Crew::start(opener, threads).map_err(failed)?,
            merges: Crew::start(opener, merges).map_err(failed)?,
        })
    }

    /// Returns an error in a process that was forked from the one that started the threads.
    pub(crate) fn check(&self) -> Result<()> {
        let opener = self.short.opener();
        if opener.is_surely_here() { Ok(()) } else { Err(opener.refusal()) }
    }

    /// Returns the threads for short work.
    pub(crate) fn short(&self) -> &Crew {
        &self.short
    }

    /// Returns the threads for work that may take minutes.
    pub(crate) fn merges(&self) -> &Crew {
        &self.merges
    }
}

fn is_valid(number: usize) -> bool {
    (1..=THREADS_MAX).contains(&number)
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("threads", &self.short.len())
            .field("merges", &self.merges.len())
            .finish()
    }
}
