//! What a caller chooses: how a store is opened, and how one write is made.
//!
//! - Plain data with chainable setters. Nothing is checked before [`Bitcask::open`], which refuses
//!   a bad value by its name.
//! - `merge` has what is chosen about giving space back.
//!
//! [`Bitcask::open`]: crate::Bitcask::open

mod getters;
mod merge;
mod sync_policy;
mod transaction;
mod write;

use std::time::Duration;

pub use merge::{AutoMerge, MergeOptions, MergePolicy};
pub use sync_policy::SyncPolicy;
pub use transaction::TransactionOptions;
pub(crate) use write::Lifetime;
pub use write::WriteOptions;

use crate::codec::Codec;
use crate::error::{Error, Result};

/// The largest segment that a place can address: 2^26 units of 8 bytes.
pub(crate) const SEGMENT_SIZE_LIMIT: u64 = 512 << 20;
/// The smallest segment size that can be asked for.
pub(crate) const SEGMENT_SIZE_MIN: u64 = 512;
/// The largest key: its size is 16 bits on disk.
pub(crate) const KEY_SIZE_LIMIT: u64 = u16::MAX as u64;
/// The largest value: its size is 32 bits on disk.
pub(crate) const VALUE_SIZE_LIMIT: u64 = u32::MAX as u64;

/// The shortest interval between two rounds of a background thread. Tests of rounds that don't depend on how
/// much time has passed have a shorter one.
pub(crate) const INTERVAL_MIN: Duration = if cfg!(any(test, bitcask_fuzzing)) {
    Duration::from_nanos(1)
} else {
    Duration::from_millis(1)
};

/// How a store is opened.
///
/// ```
/// use std::time::Duration;
/// use bitcask::{Bitcask, Options, SyncPolicy};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let options = Options::default()
///     .sync_policy(SyncPolicy::Interval(Duration::from_millis(100)))
///     .segment_size(64 << 20);
/// let db = Bitcask::open(dir.path(), options)?;
/// # db.close()
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "options open nothing by themselves"]
pub struct Options {
    pub(crate) create_if_missing: bool,
    pub(crate) sync_policy: SyncPolicy,
    pub(crate) verify_reads: bool,
    pub(crate) segment_size: u64,
    pub(crate) segment_entries: u64,
    pub(crate) key_size_limit: u64,
    pub(crate) value_size_limit: u64,
    pub(crate) append_mode: AppendMode,
    pub(crate) merge_policy: MergePolicy,
    pub(crate) compression: Compression,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) dir_mode: u32,
    pub(crate) file_mode: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            sync_policy: SyncPolicy::default(),
            verify_reads: true,
            segment_size: 128 << 20,
            segment_entries: u64::MAX,
            key_size_limit: KEY_SIZE_LIMIT,
            value_size_limit: VALUE_SIZE_LIMIT,
            append_mode: AppendMode::default(),
            merge_policy: MergePolicy::default(),
            compression: Compression::default(),
            default_ttl: None,
            dir_mode: 0o777,
            file_mode: 0o666,
        }
    }
}

impl Options {
    /// The defaults, which suit most programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the store, and its directory, if there is none. Default: `true`. Has no effect on a store
    /// that is opened as [`ReadOnly`](crate::ReadOnly), which has to exist.
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.create_if_missing = yes;
        self
    }

    /// When writes reach the disk. Default: [`SyncPolicy::Interval`] of one second.
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.sync_policy = policy;
        self
    }

    /// Checks the checksum of every entry that is read. Default: `true`.
    ///
    /// Costs a pass over the key and the value. Without it a damaged value is handed out as it is;
    /// recovery checks everything it reads in any case.
    pub fn verify_reads(mut self, yes: bool) -> Self {
        self.verify_reads = yes;
        self
    }

    /// The size in bytes at which a segment is full and the next one is started.
    ///
    /// Default: 128 MiB. Limits: 512 bytes to 512 MiB. An entry or a batch that is larger gets a
    /// segment of its own. May differ from one opening to the next. Starting and sealing a segment
    /// takes several syncs, some milliseconds, so small ones are slow; and a store can have no more
    /// than 262,144 of them, the last 64 of which are left to deletes, merges and clears. Beyond a
    /// quarter of the mappings that the kernel allows a process they are read without one, which is
    /// slower; see [`Stats::mappings_limit`](crate::Stats::mappings_limit).
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// The number of entries (puts and deletes) at which a segment is full. Default: no limit;
    /// at least 1. A batch is never divided, whatever its length. Small segments are slow, see
    /// [`segment_size`](Self::segment_size).
    pub fn segment_entries(mut self, entries: u64) -> Self {
        self.segment_entries = entries;
        self
    }

    /// The largest key that can be put, in bytes. Default, and the most: 65,535.
    pub fn key_size_limit(mut self, bytes: u64) -> Self {
        self.key_size_limit = bytes;
        self
    }

    /// The largest value that can be put, in bytes. Default, and the most: 4 GiB - 1.
    pub fn value_size_limit(mut self, bytes: u64) -> Self {
        self.value_size_limit = bytes;
        self
    }

    /// How entries are appended. Default: [`AppendMode::Mapped`] on Linux, else
    /// [`AppendMode::Positioned`]. Does not change a byte on disk.
    pub fn append_mode(mut self, mode: AppendMode) -> Self {
        self.append_mode = mode;
        self
    }

    /// When space is given back. Default: [`MergePolicy::Auto`] with the defaults of [`AutoMerge`].
    pub fn merge_policy(mut self, policy: MergePolicy) -> Self {
        self.merge_policy = policy;
        self
    }

    /// How values are compressed that are written from now on. Default: [`Compression::None`].
    ///
    /// May differ from one opening to the next: each entry says how its value is stored, and reads
    /// answer with what was put, however that was. A build without the feature that a value was
    /// compressed with can't read it, see [`Error::UnsupportedCodec`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The time to live of keys that are put without one of their own. Default: `None`, such keys do
    /// not expire.
    ///
    /// Applies to every put from now on: of [`put`](crate::Bitcask::put), batches, transactions and
    /// conditional writes. [`WriteOptions::ttl`], [`WriteOptions::expires_at`] and
    /// [`WriteOptions::keep_ttl`] overrule it for one write; a TTL of [`Duration::MAX`] means that
    /// the key does not expire. Keys that are in the store already, and copies that a merge makes,
    /// stay as they are. May differ from one opening to the next.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use bitcask::{Bitcask, Options, Ttl, WriteOptions};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let day = Duration::from_secs(24 * 3600);
    /// let db = Bitcask::open(dir.path(), Options::new().default_ttl(Some(day)))?;
    /// db.put("session", "token")?;
    /// assert!(matches!(db.ttl("session")?, Some(Ttl::In(left)) if left <= day));
    /// db.put_opt("config", "kept", WriteOptions::new().ttl(Duration::MAX))?;
    /// assert_eq!(db.ttl("config")?, Some(Ttl::Never));
    /// # db.close()
    /// # }
    /// ```
    pub fn default_ttl(mut self, ttl: Option<Duration>) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// The permissions of directories that are created: the store's own, those on the way to it, and
    /// the quarantine. Default: `0o777`.
    ///
    /// The process's umask takes permissions away from these, as from everything that it creates. The
    /// owner has to keep all of theirs. Directories that are there already stay as they are. A
    /// [`backup`](crate::Bitcask::backup) gets the same permissions.
    ///
    /// ```
    /// # use std::os::unix::fs::PermissionsExt;
    /// # use bitcask::Options;
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let path = dir.path().join("private");
    /// let db = Options::new().dir_mode(0o700).file_mode(0o600).open(&path)?;
    /// assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    /// # db.close()
    /// # }
    /// ```
    pub fn dir_mode(mut self, mode: u32) -> Self {
        self.dir_mode = mode;
        self
    }

    /// The permissions of files that are created. Default: `0o666`; otherwise as
    /// [`dir_mode`](Self::dir_mode).
    ///
    /// A process that opens the store [read-only](crate::ReadOnly) needs permission to read all of its
    /// files. A process that opens it for writing needs permission to read and to write them.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// Refuses the first value that makes no sense, by its name.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse =
            |name, value: String, reason| Err(Error::InvalidOption { name, value, reason });
        let size = self.segment_size;
        if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_LIMIT).contains(&size) {
            return refuse("segment_size", size.to_string(), "it has to be 512 bytes to 512 MiB");
        }
        if self.segment_entries == 0 {
            return refuse("segment_entries", "0".into(), "a segment has to hold an entry");
        }
        if self.key_size_limit > KEY_SIZE_LIMIT {
            let value = self.key_size_limit.to_string();
            return refuse("key_size_limit", value, "keys have at most 65,535 bytes");
        }
        if self.value_size_limit > VALUE_SIZE_LIMIT {
            let value = self.value_size_limit.to_string();
            return refuse("value_size_limit", value, "values have at most 4 GiB - 1 bytes");
        }
        self.sync_policy.check()?;
        let modes = [("dir_mode", self.dir_mode, 0o700_u32), ("file_mode", self.file_mode, 0o600)];
        let is_bad = |(_, mode, least): &(_, u32, u32)| *mode > 0o777 || mode & least != *least;
        if let Some((name, mode, _)) = modes.into_iter().find(is_bad) {
            let reason = "it has to be at most 0o777, and let the owner use what is created";
            return refuse(name, format!("{mode:#o}"), reason);
        }
        self.merge_policy.check()
    }
}

/// Returns an interval as an error shows it.
fn shown(interval: Duration) -> String {
    if interval.is_zero() { "0".into() } else { format!("{interval:?}") }
}

/// How entries are appended to the log. Both modes write the same bytes and make the same
/// promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendMode {
    /// Entries are copied into a shared mapping of the active segment, without a system call.
    ///
    /// Room is set aside and touched before anything is copied there, so that a full disk is an
    /// error and not a signal. A file system that fails under us all the same, a disk pulled out
    /// say, ends the process with SIGBUS. Falls back to `Positioned` on a kernel older than 5.14
    /// and where no mapping can be had.
    Mapped,
    /// Entries are written with `pwrite`. Several times slower; recommended on copy-on-write and
    /// network file systems, where room that was set aside is no promise.
    Positioned,
}

impl Default for AppendMode {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Mapped } else { Self::Positioned }
    }
}

/// How values are compressed before they are appended.
///
/// Each value by itself, by the writing thread, before it takes any lock. A value is stored as it
/// is unless compression makes its whole entry smaller. Limits of size count before compression.
///
/// A value that was compressed is decompressed each time that it is read, into memory of its own,
/// while others are lent without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Values are stored as they are.
    #[default]
    None,
    /// LZ4, in blocks: fast, and good for text and whatever else repeats itself. Needs the feature
    /// `lz4`.
    ///
    /// ```
    /// use bitcask::{Bitcask, Compression, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let options = Options::default().compression(Compression::lz4());
    /// let db = Bitcask::open(dir.path(), options)?;
    /// let page = "all work and no play ".repeat(100);
    /// db.put("page", &page)?;
    /// assert_eq!(db.get("page")?.expect("it was put just now"), page);
    /// assert!(db.stats().live_size < 100);
    /// # db.close()
    /// # }
    /// ```
    #[cfg(feature = "lz4")]
    Lz4 {
        /// Values of fewer bytes are not tried.
        size_min: u32,
    },
}

impl Compression {
    /// Returns LZ4 for values of 256 bytes and more. Needs the feature `lz4`.
    #[cfg(feature = "lz4")]
    pub fn lz4() -> Self {
        Self::Lz4 { size_min: 256 }
    }

    /// Returns what compresses values from which size on.
    pub(crate) fn codec(self) -> Option<(Codec, u64)> {
        match self {
            Self::None => None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min } => Some((Codec::Lz4, size_min.into())),
        }
    }

    /// Returns all that this build has, for values of any size.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        vec![
            Self::None,
            #[cfg(feature = "lz4")]
            Self::Lz4 { size_min: 0 },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_option_is_refused_by_its_name() {
        let refused = |options: Options| match options.check() {
            Err(Error::InvalidOption { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(Options::new().segment_size(511)), "segment_size");
        assert_eq!(refused(Options::new().segment_size((512 << 20) + 1)), "segment_size");
        assert_eq!(refused(Options::new().segment_entries(0)), "segment_entries");
        assert_eq!(refused(Options::new().key_size_limit(65_536)), "key_size_limit");
        assert_eq!(refused(Options::new().value_size_limit(1 << 32)), "value_size_limit");
        assert_eq!(
            refused(Options::new().sync_policy(SyncPolicy::Interval(Duration::ZERO))),
            "sync_policy"
        );
        assert_eq!(refused(Options::new().dir_mode(0o600)), "dir_mode");
        assert_eq!(refused(Options::new().dir_mode(0o1700)), "dir_mode");
        assert_eq!(refused(Options::new().file_mode(0o400)), "file_mode");
        Options::new().dir_mode(0o700).file_mode(0o600).check().unwrap();
        Options::default().check().unwrap();
    }
}
