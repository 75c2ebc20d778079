//! The data path and the orchestration: open, close, and everything that the operations share.
//!
//! The section "Lock order" of ARCHITECTURE.md gives the order in which locks are taken. The field
//! of each lock states its place in that order. No lock is held while a caller's closure runs.

mod admin;
pub(crate) mod changes;
mod clear;
mod close;
mod disk_waits;
mod follower;
mod forked;
mod full_disk;
#[cfg(all(test, loom))]
mod loom_tests;
mod merging;
mod open;
mod open_attempt;
mod point;
mod read_only;
mod reader;
mod scan;
mod snapshot;
mod stats;
#[cfg(all(any(test, bitcask_fuzzing), not(loom)))]
pub(crate) mod tests;
mod threads;
mod traits;
mod transaction;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub use admin::backup::BackupReport;
pub use admin::verify::{Damage, VerifyProgress, VerifyReport};
pub use changes::Changes;
pub use changes::backlog::Backlog;
pub use changes::change::{Change, Operation};
pub use changes::position::Position;
pub use merging::control::MergePause;
pub use merging::lease::HistoryLease;
pub use point::batch::Batch;
pub use point::compare_and_swap::CompareAndSwapError;
pub use point::ttl::{Expiry, Ttl};
#[cfg(feature = "server")]
pub(crate) use point::version::BoundedGet;
pub use point::version::Version;
pub use read_only::ReadOnly;
pub use reader::Reader;
pub use scan::iter::{UnorderedIter, UnorderedKeys};
pub use scan::key_range::KeyRange;
pub use scan::range::{Range, RangeKeys};
pub use snapshot::Snapshot;
pub use traits::{ReadStore, WriteStore};
#[cfg(feature = "resp")]
pub(crate) use transaction::ClearNote;
pub use transaction::{Transaction, TransactionRange};

pub(crate) use admin::new_dir::NewDir;
pub(crate) use admin::verify::damage;
pub(crate) use open::{dry_run, new_identity};
pub(crate) use scan::key_range::prefix_bounds;

use crate::background::{Signal, Worker};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::fs::{self, File, Fs, Lock, Modes};
use crate::key_hash::KeyHasher;
use crate::keydir::Keydir;
use crate::log::{LogWriter, Publisher};
use crate::manifest::ManifestFile;
use crate::options::{Options, SyncPolicy};
use crate::process::Opener;
use crate::recovery::{Filler, RecoveryReport};
use crate::segment::header::Identity;
use crate::segment::{Dir, Place, Segments, index};
use crate::sync::Mutex;
use crate::trace::Trace;
use disk_waits::DiskWaits;
use follower::Follower;
use merging::permit::MergeControl;
use scan::indexing::Indexing;
use snapshot::pins::Pins;

/// A store that is open for writing.
///
/// All read operations are methods of [`Reader`], to which this type dereferences: `get`, ordered
/// and unordered scans, snapshots, changes, statistics. This type adds writing, merging, backups
/// and closing.
///
/// All methods take `&self` and block. To share the store between threads, put it in an [`Arc`].
/// Only one process at a time can have a store open for writing; others can open it as
/// [`ReadOnly`].
///
/// Dropping the store closes it and ignores the error that [`close`](Self::close) would return.
/// `Bitcask` is not `Clone`, so no other handle keeps the store open after `close`. To close a
/// shared store, take it out with [`Arc::into_inner`].
///
/// A store belongs to the process that opened it. In a process forked from that one, every fallible
/// call returns [`Forked`](Error::Forked), and the infallible ones return empty results: no keys,
/// no segments, zero statistics, [`Position::START`]. A [`Value`](crate::Value) lent before the
/// fork stays readable. A program that becomes a daemon should open the store afterwards, or drop
/// it in the child and open it again.
///
/// ```
/// use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("answer", b"42")?;
/// assert_eq!(db.get("answer")?.as_deref(), Some(&b"42"[..]));
/// assert!(db.delete("answer")?);
/// assert_eq!(db.get("answer")?, None);
/// db.close()
/// # }
/// ```
pub struct Bitcask {
    reader: Reader,
    workers: Vec<Worker>,
    open: bool,
}

/// State that the store's threads share.
#[derive(Debug)]
struct Inner {
    /// The process that may use the store.
    opener: Opener,
    fs: Fs,
    dir: Dir,
    clock: Clock,
    /// As passed to open. The log and `merging` have the current policies.
    options: Options,
    identity: Identity,
    keydir: Keydir,
    segments: Segments,
    /// Fills the keydir, shard by shard.
    filler: Filler,
    /// In a read-only store, the manifest as of the last open or refresh.
    manifest: Arc<ManifestFile>,
    /// The live snapshots and the segments they pin.
    pins: Pins,
    /// The end of the log as found by opening. Computed on first use.
    found_end: OnceLock<Place>,
    /// Shared context of the segments' indexes.
    index: Arc<index::IndexContext>,
    /// Whether an ordered scan has ever been requested.
    ordered: AtomicBool,
    /// Whether look-ups have recently waited for the disk.
    disk_waits: DiskWaits,
    /// Lock 8: the ranges that scans have found empty, forgotten by a clear and a full reload.
    gaps: Mutex<Arc<index::Gaps>>,
    report: RecoveryReport,
    /// Wakes the merge thread.
    merge_signal: Arc<Signal>,
    trace: Trace,
    role: Role,
}

/// The role in which the store was opened, with the state specific to it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each store has only one, in its own allocation")]
enum Role {
    Writer(Writer),
    Follower(Follower),
}

/// State that only the writer has.
#[derive(Debug)]
struct Writer {
    /// Lock 1: the turn to merge.
    merging: MergeControl,
    /// Lock 2: held while segment files with entries are removed, or while they must stay, for
    /// example during a backup.
    files: Mutex<()>,
    /// Owns the end of the log.
    log: LogWriter,
    /// Writes the indexes of segments. Holds lock 6.
    indexing: Indexing,
    /// Lock 8: the lock on the store's directory, held for as long as the store is open.
    lock: Mutex<Option<Lock>>,
    /// The file of `lock`. A forked child closes it through this handle, since its copy of the
    /// mutex `lock` may be locked forever.
    lock_file: File,
}

/// The environment of a store: the real machine, or a test's replacement.
#[derive(Debug, Clone)]
pub(crate) struct Env {
    pub(crate) fs: Fs,
    pub(crate) clock: Clock,
    pub(crate) hasher: fn(u64) -> KeyHasher,
    /// Whether background threads do deferred work. If not, the test decides when to do it.
    pub(crate) threads: bool,
}

impl Default for Env {
    fn default() -> Self {
        Self { fs: Fs::DISK, clock: Clock::system(), hasher: KeyHasher::new, threads: true }
    }
}

impl Env {
    /// Returns the same environment with the store's directory held open.
    pub(crate) fn within(&self, dir: &Dir) -> Result<Self> {
        Ok(Self { fs: self.fs.within(dir.path())?, ..self.clone() })
    }

    /// Returns the same environment with the options' permissions for new files and directories.
    pub(crate) fn with_modes(&self, options: &Options) -> Self {
        // Validated options have no larger modes.
        let mode = |mode| u16::try_from(mode).unwrap_or(0o600);
        let modes = Modes::new(mode(options.dir_mode), mode(options.file_mode));
        Self { fs: self.fs.with_modes(modes), ..self.clone() }
    }

    /// Returns the environment and directory of a store that must exist.
    pub(crate) fn enter(&self, path: &Path) -> Result<(Self, Dir)> {
        let dir = Dir::new(fs::absolute(path)?);
        match self.fs.is_dir(dir.path())? {
            Some(true) => Ok((self.within(&dir)?, dir)),
            Some(false) => Err(Error::NotADirectory { path: dir.path().into() }),
            None => Err(Error::NotFound { path: dir.path().into() }),
        }
    }
}

impl Bitcask {
    /// Opens the store in a directory. If it does not exist, creates it along with any missing
    /// parent directories.
    ///
    /// The store holds its directory open and does not resolve the path again: a store that is
    /// renamed continues where it is. If another directory takes its place at the path, writes
    /// return [`DirectoryReplaced`](Error::DirectoryReplaced). If opening fails, it removes
    /// everything that it created.
    ///
    /// After a crash, opening recovers everything that was durable, and more where it can. It sets
    /// aside what it has to cut off, and [`recovery`](Reader::recovery) reports it.
    ///
    /// Opening does not wait until all keys are loaded. The first access to a part of the keys
    /// loads that part, and background threads load the rest from the segments' hints, 16 bytes for
    /// each entry in the log. If a hint is missing, opening reads its segment instead, before it
    /// returns.
    ///
    /// # Errors
    ///
    /// - [`InvalidOption`](Error::InvalidOption) for an invalid option.
    /// - [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory) if the path
    ///   holds no store.
    /// - [`Locked`](Error::Locked) while another writer has the store open.
    /// - [`Unfinished`](Error::Unfinished) if a crash has left an incomplete backup or salvage.
    /// - [`Corrupt`](Error::Corrupt) and [`MissingSegment`](Error::MissingSegment) if data known to
    ///   be durable is damaged.
    /// - [`UnsupportedVersion`](Error::UnsupportedVersion) and similar errors for a store written
    ///   by a newer release.
    /// - Any error of the operating system.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_on(&Env::default(), path.as_ref(), options)
    }

    /// Makes everything written so far durable, with one sync if any is needed.
    ///
    /// # Errors
    ///
    /// A failed sync [poisons](Error::Poisoned) the store; writes that were not yet durable may be
    /// lost.
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, SyncPolicy};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::new().sync_policy(SyncPolicy::Never))?;
    /// db.put("a", "1")?;
    /// db.put("b", "2")?;
    /// db.sync()?; // Both survive a power loss from here on.
    /// # db.close()
    /// # }
    /// ```
    #[doc(alias = "flush")]
    pub fn sync(&self) -> Result<()> {
        self.inner.log()?.sync()
    }

    /// Replaces the sync policy until the store is closed.
    ///
    /// Makes everything durable that was written before, with one sync if any is needed, so that
    /// the new policy's promise holds for the whole log. If that sync fails, the new policy applies
    /// all the same. A concurrent write may follow either policy. The next open takes the policy
    /// from its [`Options`] again.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an interval that is too short; the old policy
    /// then stays in effect. Otherwise as [`sync`](Self::sync).
    ///
    /// ```
    /// # use bitcask::{Bitcask, Options, SyncPolicy};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Bitcask::open(dir.path(), Options::new().sync_policy(SyncPolicy::Never))?;
    /// for key in 0..100_u32 {
    ///     db.put(key.to_be_bytes(), "loaded in bulk")?;
    /// }
    /// db.set_sync_policy(SyncPolicy::Always)?; // What was loaded is durable too.
    /// assert_eq!(db.sync_policy(), SyncPolicy::Always);
    /// # db.close()
    /// # }
    /// ```
    pub fn set_sync_policy(&self, policy: SyncPolicy) -> Result<()> {
        let log = self.inner.log()?;
        policy.check()?;
        log.set_sync_policy(policy)
    }

    /// Returns the current sync policy. In a forked child, which can't write, it is
    /// [`SyncPolicy::Never`].
    pub fn sync_policy(&self) -> SyncPolicy {
        self.inner.log().map_or(SyncPolicy::Never, LogWriter::sync_policy)
    }

    /// Returns whether values are compressed before they are written.
    #[cfg(feature = "resp")]
    pub(crate) fn compresses(&self) -> bool {
        self.inner.options.compression.compressor().is_some()
    }
}

impl Options {
    /// Opens the store in a directory with these options; see [`Bitcask::open`].
    ///
    /// # Errors
    ///
    /// As [`Bitcask::open`].
    ///
    /// ```
    /// use bitcask::{Options, SyncPolicy};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let db = Options::new().sync_policy(SyncPolicy::Always).open(dir.path())?;
    /// db.put("key", "value")?;
    /// # db.close()
    /// # }
    /// ```
    pub fn open(self, path: impl AsRef<Path>) -> Result<Bitcask> {
        Bitcask::open(path, self)
    }
}

#[cfg(feature = "server")]
impl Bitcask {
    /// Returns whether the store can still write.
    pub(crate) fn is_sound(&self) -> bool {
        self.inner.is_sound()
    }
}

/// Operations that tests use on a store without threads.
#[cfg(any(test, bitcask_fuzzing))]
impl Bitcask {
    /// Does the work of the threads that prepare segments, seal and sync.
    pub(crate) fn work(&self) {
        self.inner.work();
    }

    /// Ends the store the way the death of its process would, on the same disk: nothing more is
    /// written, synced or sealed, and unsynced data stays unsynced.
    pub(crate) fn kill(self) {
        let _ = self.inner.log().map(|log| log.poison(Error::ReadOnly));
    }
}

impl Inner {
    fn writer(&self) -> Result<&Writer> {
        self.here()?;
        match &self.role {
            Role::Writer(writer) => Ok(writer),
            Role::Follower(_) => Err(Error::ReadOnly),
        }
    }

    /// Returns the writer of the log.
    #[inline]
    fn log(&self) -> Result<&LogWriter> {
        Ok(&self.writer()?.log)
    }

    /// Returns whether the store can still write. A read-only store has no writes that could have
    /// failed.
    fn is_sound(&self) -> bool {
        self.log().map_or(true, |log| log.check().is_ok())
    }
}

impl Publisher for Keydir {
    fn wait_for_writers(&self) {
        self.wait_for_writers();
    }
}
