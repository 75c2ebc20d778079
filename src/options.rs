//! Options: how to open a store, and how to make one write.
//!
//! - Plain data with chainable setters. [`Bitcask::open`] does the validation and names the option
//!   that it rejects.
//! - `merge` holds the options for reclaiming space.
//!
//! [`Bitcask::open`]: crate::Bitcask::open

mod append_mode;
mod compression;
mod getters;
mod history;
mod merge;
mod merge_order;
mod sync_policy;
mod transaction;
mod write;

use std::time::Duration;

pub use append_mode::AppendMode;
pub use compression::Compression;
pub use history::History;
pub use merge::{AutoMerge, MergeOptions, MergePolicy};
pub use sync_policy::SyncPolicy;
pub use transaction::TransactionOptions;
pub(crate) use write::Lifetime;
pub use write::WriteOptions;

use crate::background::Background;
use crate::error::{Error, Result};

/// Maximum segment size: a place addresses 2^26 units of 8 bytes.
pub(crate) const SEGMENT_SIZE_LIMIT: u64 = 512 << 20;
/// Minimum segment size.
pub(crate) const SEGMENT_SIZE_MIN: u64 = 512;
/// Maximum key size: 16 bits on disk.
pub(crate) const KEY_SIZE_LIMIT: u64 = u16::MAX as u64;
/// Maximum value size: 32 bits on disk.
pub(crate) const VALUE_SIZE_LIMIT: u64 = u32::MAX as u64;

/// Minimum interval between two rounds of a background thread. Tests use shorter ones for rounds
/// that do not depend on elapsed time.
pub(crate) const INTERVAL_MIN: Duration = if cfg!(any(test, bitcask_fuzzing)) {
    Duration::from_nanos(1)
} else {
    Duration::from_millis(1)
};

/// Options for opening a store.
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
#[must_use = "options do nothing until a store is opened with them"]
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
    pub(crate) keep_history: History,
    pub(crate) compression: Compression,
    pub(crate) default_ttl: Option<Duration>,
    pub(crate) dir_mode: u32,
    pub(crate) file_mode: u32,
    pub(crate) background: Option<Background>,
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
            keep_history: History::default(),
            compression: Compression::default(),
            default_ttl: None,
            dir_mode: 0o777,
            file_mode: 0o666,
            background: None,
        }
    }
}

impl Options {
    /// Returns the defaults, which suit most programs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the store and its directory if they do not exist. Default: `true`. Ignored when
    /// opening a [`ReadOnly`](crate::ReadOnly) store, which must exist.
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.create_if_missing = yes;
        self
    }

    /// Sets when writes reach the disk. Default: [`SyncPolicy::Interval`] of one second.
    pub fn sync_policy(mut self, policy: SyncPolicy) -> Self {
        self.sync_policy = policy;
        self
    }

    /// Verifies the checksum of every entry that is read. Default: `true`.
    ///
    /// Verification costs a pass over the key and the value. Without it, reads return a damaged
    /// value as it is. Recovery verifies everything it reads either way.
    pub fn verify_reads(mut self, yes: bool) -> Self {
        self.verify_reads = yes;
        self
    }

    /// Sets the size in bytes at which a segment is full and the store starts the next one.
    ///
    /// Default: 128 MiB. Range: 512 bytes to 512 MiB. A larger entry or batch gets a segment of its
    /// own. You can change the size each time you open the store.
    ///
    /// Small segments are slow: starting and sealing one takes several syncs, some milliseconds. A
    /// store can have at most 262,144 segments, and the last 64 are reserved for deletes, merges
    /// and clears. Once segments take up a quarter of the mappings that the kernel allows a
    /// process, the rest are read without a mapping, which is slower; see
    /// [`Stats::mappings_limit`](crate::Stats::mappings_limit).
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.segment_size = bytes;
        self
    }

    /// Sets the number of entries (puts and deletes) at which a segment is full. Default: no limit;
    /// minimum: 1. A batch is never split, whatever its length. Small segments are slow, see
    /// [`segment_size`](Self::segment_size).
    pub fn segment_entries(mut self, entries: u64) -> Self {
        self.segment_entries = entries;
        self
    }

    /// Sets the maximum key size in bytes. Default and upper limit: 65,535.
    pub fn key_size_limit(mut self, bytes: u64) -> Self {
        self.key_size_limit = bytes;
        self
    }

    /// Sets the maximum value size in bytes. Default and upper limit: 4 GiB - 1.
    pub fn value_size_limit(mut self, bytes: u64) -> Self {
        self.value_size_limit = bytes;
        self
    }

    /// Sets how entries are appended. Default: [`AppendMode::Mapped`] on Linux,
    /// [`AppendMode::Positioned`] elsewhere. The bytes on disk are the same.
    pub fn append_mode(mut self, mode: AppendMode) -> Self {
        self.append_mode = mode;
        self
    }

    /// Sets when space is reclaimed. Default: [`MergePolicy::Auto`] with the defaults of
    /// [`AutoMerge`].
    pub fn merge_policy(mut self, policy: MergePolicy) -> Self {
        self.merge_policy = policy;
        self
    }

    /// Sets how newly written values are compressed. Default: [`Compression::None`].
    ///
    /// You can change this each time you open the store. Each entry records how its value is
    /// stored, and reads always return the original value. A build without the feature that
    /// compressed a value cannot read it, see [`Error::UnsupportedCodec`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the time to live of keys that are put without one. Default: `None`, such keys do not
    /// expire.
    ///
    /// Applies to every put from now on: by [`put`](crate::Bitcask::put), batches, transactions and
    /// conditional writes. [`WriteOptions::ttl`], [`WriteOptions::expires_at`] and
    /// [`WriteOptions::keep_ttl`] override it for one write. A TTL of [`Duration::MAX`] means that
    /// the key does not expire. Keys that are already in the store keep their TTL, and so do the
    /// copies that a merge makes. You can change this each time you open the store.
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

    /// Sets the permissions of directories that the store creates: its own, its missing parents,
    /// and the quarantine. Default: `0o777`.
    ///
    /// As usual, the process's umask applies. The mode must leave the owner all permissions.
    /// Existing directories are left unchanged. A [`backup`](crate::Bitcask::backup) gets the same
    /// permissions.
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

    /// Sets the permissions of files that the store creates. Default: `0o666`; otherwise as
    /// [`dir_mode`](Self::dir_mode).
    ///
    /// To open the store [read-only](crate::ReadOnly), a process needs read permission for all of
    /// its files. To open it for writing, a process needs read and write permission.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.file_mode = mode;
        self
    }

    /// Has the store's background work done by threads that it shares with other stores. Default:
    /// the store has its own four threads, and some more while it loads its keys.
    ///
    /// [`Background`] describes what the threads do, and what changes if all of them are busy. The
    /// store keeps them running until it is closed. Ignored when opening a
    /// [`ReadOnly`](crate::ReadOnly) store, which has no threads.
    ///
    /// ```
    /// # use bitcask::{Background, Bitcask, Options};
    /// # fn main() -> bitcask::Result<()> {
    /// # let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    /// let background = Background::new(2)?;
    /// let first = Bitcask::open(here.path(), Options::new().background(&background))?;
    /// let second = Bitcask::open(there.path(), Options::new().background(&background))?;
    /// # first.close()?;
    /// # second.close()
    /// # }
    /// ```
    pub fn background(mut self, threads: &Background) -> Self {
        self.background = Some(threads.clone());
        self
    }

    /// Returns an error that names the first invalid option.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid =
            |name, value: String, reason| Err(Error::InvalidOption { name, value, reason });
        let size = self.segment_size;
        if !(SEGMENT_SIZE_MIN..=SEGMENT_SIZE_LIMIT).contains(&size) {
            return invalid(
                "segment_size",
                size.to_string(),
                "it must be between 512 bytes and 512 MiB",
            );
        }
        if self.segment_entries == 0 {
            return invalid(
                "segment_entries",
                "0".into(),
                "a segment must hold at least one entry",
            );
        }
        if self.key_size_limit > KEY_SIZE_LIMIT {
            let value = self.key_size_limit.to_string();
            return invalid("key_size_limit", value, "a key has at most 65,535 bytes");
        }
        if self.value_size_limit > VALUE_SIZE_LIMIT {
            let value = self.value_size_limit.to_string();
            return invalid("value_size_limit", value, "a value has at most 4 GiB - 1 bytes");
        }
        self.sync_policy.check()?;
        self.compression.check()?;
        self.keep_history.check()?;
        let modes = [("dir_mode", self.dir_mode, 0o700_u32), ("file_mode", self.file_mode, 0o600)];
        let is_bad = |(_, mode, least): &(_, u32, u32)| *mode > 0o777 || mode & least != *least;
        if let Some((name, mode, _)) = modes.into_iter().find(is_bad) {
            let reason =
                "it must be at most 0o777, and the owner must be able to use what is created";
            return invalid(name, format!("{mode:#o}"), reason);
        }
        self.merge_policy.check()
    }
}

/// Formats an interval for an error message.
fn shown(interval: Duration) -> String {
    if interval.is_zero() { "0".into() } else { format!("{interval:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_option_is_rejected_by_name() {
        let rejected = |options: Options| match options.check() {
            Err(Error::InvalidOption { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(rejected(Options::new().segment_size(511)), "segment_size");
        assert_eq!(rejected(Options::new().segment_size((512 << 20) + 1)), "segment_size");
        assert_eq!(rejected(Options::new().segment_entries(0)), "segment_entries");
        assert_eq!(rejected(Options::new().key_size_limit(65_536)), "key_size_limit");
        assert_eq!(rejected(Options::new().value_size_limit(1 << 32)), "value_size_limit");
        assert_eq!(
            rejected(Options::new().sync_policy(SyncPolicy::Interval(Duration::ZERO))),
            "sync_policy"
        );
        assert_eq!(rejected(Options::new().dir_mode(0o600)), "dir_mode");
        assert_eq!(rejected(Options::new().dir_mode(0o1700)), "dir_mode");
        assert_eq!(rejected(Options::new().file_mode(0o400)), "file_mode");
        Options::new().dir_mode(0o700).file_mode(0o600).check().unwrap();
        Options::default().check().unwrap();
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn a_level_that_zstandard_does_not_have_is_rejected() {
        let options = |level| Options::new().compression(Compression::Zstd { level, size_min: 0 });
        for level in [1, 3, 22, -7, 0] {
            options(level).check().unwrap();
        }
        for level in [23, i32::MIN, i32::MAX] {
            let error = options(level).check().unwrap_err();
            assert!(error.to_string().contains("compression"), "{error}");
        }
    }
}
