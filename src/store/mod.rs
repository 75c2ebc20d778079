//! The data path, and the only conductor: open, close, and what the verbs share.
//!
//! ARCHITECTURE.md has the order in which locks are taken, under "Lock order"; each lock's field says its
//! place in it.
//! No lock is held while a caller's closure runs.

mod admin;
mod changes;
mod clear;
mod close;
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
mod transaction;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

pub use admin::backup::BackupReport;
pub use admin::verify::{Damage, VerifyProgress, VerifyReport};
pub use changes::Changes;
pub use changes::change::{Change, Operation};
pub use changes::position::Position;
pub use merging::control::MergePause;
pub use point::batch::Batch;
pub use point::compare_and_swap::CompareAndSwapError;
pub use point::ttl::Ttl;
pub use point::version::Version;
pub use read_only::ReadOnly;
pub use reader::Reader;
pub use scan::iter::{Iter, Keys};
pub use scan::key_range::KeyRange;
pub use scan::range::{Range, RangeKeys};
pub use snapshot::Snapshot;
pub use transaction::{Transaction, TransactionRange};

pub(crate) use admin::new_dir::NewDir;
pub(crate) use admin::verify::damage;
pub(crate) use open::{dry_run, new_identity};

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
use follower::Follower;
use merging::permit::MergeControl;
use open_attempt::OpenAttempt;
use scan::indexing::Indexing;
use snapshot::pins::Pins;

/// A store that is open for writing.
///
/// Everything that reads is a method of [`Reader`], which this type dereferences to: `get`, ordered and
/// unordered scans, snapshots, changes, figures. What is added here writes, merges, backs up and closes.
///
/// All methods take `&self` and block; share the store between threads in an [`Arc`]. One process
/// at a time may have a store open for writing, others may open it as [`ReadOnly`].
///
/// Dropping the store closes it and swallows the error that [`close`](Self::close) would return. It is
/// not `Clone`, so that a closed store is closed: to close one that was shared, take it out with
/// [`Arc::into_inner`].
///
/// A store belongs to the process that has opened it. In one that is forked from it later every call
/// that can fail returns [`Forked`](Error::Forked), and those that can't say that there is nothing: no
/// keys, no segments, figures of zero, [`Position::START`]. What was lent before, a
/// [`Value`](crate::Value), can still be read. A program that becomes a daemon opens the store
/// afterwards, or drops it in the child and opens it again.
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

/// What the store's threads share.
#[derive(Debug)]
struct Inner {
    /// The process that may use it.
    opener: Opener,
    fs: Fs,
    dir: Dir,
    clock: Clock,
    /// As they were given to open. The sync policy that holds now is in the log, the merge policy in
    /// `merging`.
    options: Options,
    identity: Identity,
    keydir: Keydir,
    segments: Segments,
    /// Fills the keydir, shard by shard.
    filler: Filler,
    /// As it was when the store was opened or refreshed, where that was read-only.
    manifest: Arc<ManifestFile>,
    /// What snapshots need.
    pins: Pins,
    /// The end of the log as opening found it, once that was asked for.
    found_end: OnceLock<Place>,
    /// What the indexes of segments need.
    index: Arc<index::IndexContext>,
    /// Whether keys were ever wanted in order.
    ordered: AtomicBool,
    /// Lock 8: the stretches of keys that hold nothing, as scans have found. Replaced by an empty list when
    /// everything is loaded anew.
    gaps: Mutex<Arc<index::Gaps>>,
    report: RecoveryReport,
    /// Wakes the thread that merges.
    merge_signal: Arc<Signal>,
    role: Role,
}

/// What a store was opened for, and what only that role has.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a store has one, inside an allocation of its own")]
enum Role {
    Writer(Writer),
    Follower(Follower),
}

/// What only the one writer has.
#[derive(Debug)]
struct Writer {
    /// Lock 1: the turn to merge.
    merging: MergeControl,
    /// Lock 2: held while segment files that hold entries are removed, or while they have to stay, as for a
    /// backup.
    files: Mutex<()>,
    /// The owner of the end of the log.
    log: LogWriter,
    /// Writes the indexes of segments. Holds lock 6.
    indexing: Indexing,
    /// Lock 8: the lock of the store's directory, which is held for as long as the store is open.
    lock: Mutex<Option<Lock>>,
    /// The same file, which a forked child lets go of: there `lock` may be locked for ever.
    lock_file: File,
}

/// What a store stands on: the machine, or what a test puts in its place.
#[derive(Debug, Clone)]
pub(crate) struct Env {
    pub(crate) fs: Fs,
    pub(crate) clock: Clock,
    pub(crate) hasher: fn(u64) -> KeyHasher,
    /// Whether what can wait is done by a thread; otherwise it is done when a test says so.
    pub(crate) threads: bool,
}

impl Default for Env {
    fn default() -> Self {
        Self { fs: Fs::DISK, clock: Clock::system(), hasher: KeyHasher::new, threads: true }
    }
}

impl Env {
    /// The same, with a store's directory held open.
    pub(crate) fn within(&self, dir: &Dir) -> Result<Self> {
        Ok(Self { fs: self.fs.within(dir.path())?, ..self.clone() })
    }

    /// The same, with the permissions of what is created as options have them.
    fn with_modes(&self, options: &Options) -> Self {
        // Options that were checked have no larger ones.
        let mode = |mode| u16::try_from(mode).unwrap_or(0o600);
        let modes = Modes::new(mode(options.dir_mode), mode(options.file_mode));
        Self { fs: self.fs.with_modes(modes), ..self.clone() }
    }

    /// The same, of a store that has to be there.
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
    /// Opens the store in a directory, and creates it if there is none, with the directories on the way.
    ///
    /// The directory is held open, and the path is not followed again: a store that is renamed goes on
    /// where it is. If another directory takes its place at the path, writing ends with
    /// [`DirectoryReplaced`](Error::DirectoryReplaced). An open that fails removes what it has made.
    ///
    /// After a crash this recovers what was durable, and more where it can; what it had to cut
    /// off is set aside, and [`recovery`](Reader::recovery) reports it.
    ///
    /// It does not wait until all keys are gathered: the first that needs a part of them gathers
    /// it, and background threads do the rest, from the hints of all segments, 16 bytes for every
    /// entry in the log. Where a hint is missing its segment is read instead, now.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an option that makes no sense,
    /// [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory) for a path that
    /// holds no store, [`Locked`](Error::Locked) while another writer has it,
    /// [`Unfinished`](Error::Unfinished) for what a crash has left of a backup or a salvage,
    /// [`Corrupt`](Error::Corrupt) and [`MissingSegment`](Error::MissingSegment) if data known to
    /// be durable is damaged, [`UnsupportedVersion`](Error::UnsupportedVersion) and its kin for a
    /// store of a newer release, and whatever the operating system says.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_on(&Env::default(), path.as_ref(), options)
    }

    pub(crate) fn open_on(env: &Env, path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let env = &env.with_modes(&options);
        let opener = fs::io_context("watch for forks with", path, Opener::this())?;
        let dir = Dir::new(fs::absolute(path)?);
        match env.fs.is_dir(dir.path())? {
            Some(false) => return Err(Error::NotADirectory { path: dir.path().into() }),
            None if !options.create_if_missing => {
                return Err(Error::NotFound { path: dir.path().into() });
            }
            _ => {}
        }
        let mut begun = OpenAttempt::new(env, dir)?;
        let inner = Inner::open_writable(&mut begun, options, opener);
        let inner = Arc::new(inner.inspect_err(|_| begun.take_back())?);
        // What can't be set aside now may be later.
        let _ = inner.log().and_then(LogWriter::keep_reserve);
        let workers = if env.threads { inner.start_workers() } else { Ok(Vec::new()) };
        let workers = workers.inspect_err(|_| begun.take_back())?;
        Ok(Self { reader: Reader { inner }, workers, open: true })
    }

    /// Makes everything that has been written so far durable, with one sync if any is needed.
    ///
    /// # Errors
    ///
    /// A failed sync [poisons](Error::Poisoned) the store; what was not durable before may be
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

    /// Replaces the sync policy, from now on and until the store is closed.
    ///
    /// First makes everything durable that was written before, with one sync if any is needed, so that the
    /// new policy's promise holds for the whole log, and nothing that the old one has promised is left
    /// undone. A write that is under way meanwhile may follow either policy. The next open takes the policy
    /// from its [`Options`] again.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](Error::InvalidOption) for an interval that is too short; the old policy stays then.
    /// Otherwise as [`sync`](Self::sync).
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

    /// Returns the sync policy that holds now. In a forked child, which can't write, it is
    /// [`SyncPolicy::Never`].
    pub fn sync_policy(&self) -> SyncPolicy {
        self.inner.log().map_or(SyncPolicy::Never, LogWriter::sync_policy)
    }
}

impl Options {
    /// Opens the store in a directory with these options: [`Bitcask::open`].
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

/// What a test does with a store that has no threads.
#[cfg(any(test, bitcask_fuzzing))]
impl Bitcask {
    /// Does what the threads that prepare, seal and sync do.
    pub(crate) fn work(&self) {
        self.inner.work();
    }

    /// Ends the store as the death of its process does, on the same disk: nothing is written,
    /// synced or sealed any more, and what was not synced is still not synced.
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

    /// Returns the owner of the end of the log.
    #[inline]
    fn log(&self) -> Result<&LogWriter> {
        Ok(&self.writer()?.log)
    }

    /// Returns whether writing has not ended. A store opened read-only has no writing to end.
    fn is_sound(&self) -> bool {
        self.log().map_or(true, |log| log.check().is_ok())
    }
}

impl Publisher for Keydir {
    fn wait_for_writers(&self) {
        self.wait_for_writers();
    }
}
