//! Background threads, which know nothing about the work that they do. A store has its own threads,
//! or shares the threads of a [`Background`] with other stores.
//!
//! - `crew` runs the threads, and `queue` decides what they do next.

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

/// Maximum number of threads of each kind.
const THREADS_MAX: usize = 1024;

/// Background threads that several stores share.
///
/// By default, each store that is open for writing has its own four threads, and some more while it
/// loads its keys. With [`Options::background`](crate::Options::background), stores share the
/// threads of a `Background` instead, so that hundreds of stores need only a few threads. Clones
/// share the same threads. The threads end when the last clone has been dropped and the last store
/// that uses them has been closed; the call that does the last of these waits for them.
///
/// # What the threads do
///
/// *Short work* is done by the number of threads passed to [`new`](Self::new): syncing by
/// [`SyncPolicy::Interval`](crate::SyncPolicy::Interval), preparing space and segments ahead of
/// writers, sealing full segments, writing indexes, and loading keys after an open. A thread does
/// one piece at a time: one sync of one store, one segment, one part of the keys. The stores take
/// turns. A sync that is due comes first, then preparations, then the rest. What has waited for a
/// second takes turns with syncs.
///
/// *Merges* are done by separate threads, so that no sync waits for a merge: by one thread, or by
/// the number passed to [`with_merges`](Self::with_merges). Each merges one store at a time. A
/// merge keeps its thread while it waits: for its [rate limit](crate::AutoMerge::bytes_per_second),
/// for the end of a [pause](crate::Bitcask::pause_merges), or for another merge of the same store.
/// So does the callback [`on_finish`](crate::AutoMerge::on_finish). Other stores may have to wait
/// for that thread, so a callback must not wait for a merge of another store.
///
/// # How many threads to use
///
/// Two threads, and one for merges, are enough for hundreds of mostly idle stores. Stores that
/// write at the same time share the disk anyway, and one thread per processor keeps it busy. Use
/// more merge threads if one cannot reclaim space as fast as all stores together produce dead data,
/// or if merges are slowed down or paused for long.
///
/// # If all threads are busy
///
/// No promise depends on these threads, except how much a power loss can take under
/// [`SyncPolicy::Interval`](crate::SyncPolicy::Interval). Writes do not wait for them.
/// [`Bitcask::sync`](crate::Bitcask::sync), durable writes and
/// [`SyncPolicy::Always`](crate::SyncPolicy::Always) sync on the calling thread. A writer that
/// finds nothing prepared does the preparation itself, and a writer that is far ahead of the
/// sealing seals a segment. A call that needs keys that are not loaded loads them.
///
/// A sync at an interval starts as soon as a thread is free. If all threads are busy when it is
/// due, it is delayed until the first of them has finished its piece and the syncs that were due
/// earlier are done. If the threads cannot keep up, so that other work has waited for a second, one
/// piece of that work may come before each of these syncs. A power loss may then take that much
/// more than an interval. The longest pieces read a whole segment, to seal it or to write its
/// index: tens to hundreds of milliseconds for 128 MiB, or longer on a slow disk. Smaller
/// [segments](crate::Options::segment_size) make the pieces shorter, and the more threads there
/// are, the more rarely all of them are busy.
///
/// # Forks
///
/// The threads belong to the process that started them. In a forked child, opening a store with
/// them returns [`Forked`](Error::Forked), and dropping the handle does nothing. A child may start
/// its own `Background`.
///
/// ```
/// use bitcask::{Background, Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let options = Options::new().background(&Background::new(2)?);
/// let ann = Bitcask::open(dir.path().join("ann"), options.clone())?;
/// let bob = Bitcask::open(dir.path().join("bob"), options)?;
/// ann.put("key", "value")?; // Synced within a second, as with own threads.
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
