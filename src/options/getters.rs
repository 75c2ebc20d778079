//! Options as they were set. The plain names belong to the setters, so getters have a prefix, as those
//! of `std::process::Command` do.

use std::time::Duration;

use super::{AppendMode, Compression, MergePolicy, Options, SyncPolicy};

/// What was set, or the default. For each setter there is a getter.
///
/// ```
/// use bitcask::Options;
///
/// let options = Options::new().segment_size(64 << 20);
/// assert_eq!(options.get_segment_size(), 64 << 20);
/// assert!(options.get_create_if_missing());
/// ```
impl Options {
    /// Returns whether the store is created if there is none:
    /// [`create_if_missing`](Self::create_if_missing).
    pub fn get_create_if_missing(&self) -> bool {
        self.create_if_missing
    }

    /// Returns when writes reach the disk: [`sync_policy`](Self::sync_policy).
    pub fn get_sync_policy(&self) -> SyncPolicy {
        self.sync_policy
    }

    /// Returns whether reads check checksums: [`verify_reads`](Self::verify_reads).
    pub fn get_verify_reads(&self) -> bool {
        self.verify_reads
    }

    /// Returns the size of a full segment in bytes: [`segment_size`](Self::segment_size).
    pub fn get_segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Returns the number of entries of a full segment: [`segment_entries`](Self::segment_entries).
    /// [`u64::MAX`] stands for no limit.
    pub fn get_segment_entries(&self) -> u64 {
        self.segment_entries
    }

    /// Returns the size of the largest key in bytes: [`key_size_limit`](Self::key_size_limit).
    pub fn get_key_size_limit(&self) -> u64 {
        self.key_size_limit
    }

    /// Returns the size of the largest value in bytes: [`value_size_limit`](Self::value_size_limit).
    pub fn get_value_size_limit(&self) -> u64 {
        self.value_size_limit
    }

    /// Returns how entries are appended: [`append_mode`](Self::append_mode).
    pub fn get_append_mode(&self) -> AppendMode {
        self.append_mode
    }

    /// Returns when space is given back: [`merge_policy`](Self::merge_policy).
    pub fn get_merge_policy(&self) -> &MergePolicy {
        &self.merge_policy
    }

    /// Returns how values are compressed: [`compression`](Self::compression).
    pub fn get_compression(&self) -> Compression {
        self.compression
    }

    /// Returns the permissions of directories that are created: [`dir_mode`](Self::dir_mode).
    pub fn get_dir_mode(&self) -> u32 {
        self.dir_mode
    }

    /// Returns the permissions of files that are created: [`file_mode`](Self::file_mode).
    pub fn get_file_mode(&self) -> u32 {
        self.file_mode
    }

    /// Returns the time to live of keys that are put without one: [`default_ttl`](Self::default_ttl).
    pub fn get_default_ttl(&self) -> Option<Duration> {
        self.default_ttl
    }
}
