//! Getters for the options. The plain names belong to the setters, so getters have a prefix, like
//! those of `std::process::Command`.

use std::time::Duration;

use super::{
    AppendMode, AutoMerge, Background, Compression, History, MergePolicy, Options, SyncPolicy,
};

/// Getters, one for each setter. Each returns the value that was set, or the default.
///
/// ```
/// use bitcask::Options;
///
/// let options = Options::new().segment_size(64 << 20);
/// assert_eq!(options.get_segment_size(), 64 << 20);
/// assert!(options.get_create_if_missing());
/// ```
impl Options {
    /// Returns whether opening creates a missing store:
    /// [`create_if_missing`](Self::create_if_missing).
    pub fn get_create_if_missing(&self) -> bool {
        self.create_if_missing
    }

    /// Returns when writes reach the disk: [`sync_policy`](Self::sync_policy).
    pub fn get_sync_policy(&self) -> SyncPolicy {
        self.sync_policy
    }

    /// Returns whether reads verify checksums: [`verify_reads`](Self::verify_reads).
    pub fn get_verify_reads(&self) -> bool {
        self.verify_reads
    }

    /// Returns the size at which a segment is full, in bytes: [`segment_size`](Self::segment_size).
    pub fn get_segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Returns the number of entries at which a segment is full:
    /// [`segment_entries`](Self::segment_entries). [`u64::MAX`] means no limit.
    pub fn get_segment_entries(&self) -> u64 {
        self.segment_entries
    }

    /// Returns the maximum key size in bytes: [`key_size_limit`](Self::key_size_limit).
    pub fn get_key_size_limit(&self) -> u64 {
        self.key_size_limit
    }

    /// Returns the maximum value size in bytes: [`value_size_limit`](Self::value_size_limit).
    pub fn get_value_size_limit(&self) -> u64 {
        self.value_size_limit
    }

    /// Returns how entries are appended: [`append_mode`](Self::append_mode).
    pub fn get_append_mode(&self) -> AppendMode {
        self.append_mode
    }

    /// Returns when space is reclaimed: [`merge_policy`](Self::merge_policy).
    pub fn get_merge_policy(&self) -> &MergePolicy {
        &self.merge_policy
    }

    /// Returns how much history is kept for followers: [`keep_history`](Self::keep_history).
    pub fn get_keep_history(&self) -> History {
        self.keep_history
    }

    /// Returns how values are compressed: [`compression`](Self::compression).
    pub fn get_compression(&self) -> Compression {
        self.compression
    }

    /// Returns the permissions of new directories: [`dir_mode`](Self::dir_mode).
    pub fn get_dir_mode(&self) -> u32 {
        self.dir_mode
    }

    /// Returns the permissions of new files: [`file_mode`](Self::file_mode).
    pub fn get_file_mode(&self) -> u32 {
        self.file_mode
    }

    /// Returns the time to live of keys that are put without one:
    /// [`default_ttl`](Self::default_ttl).
    pub fn get_default_ttl(&self) -> Option<Duration> {
        self.default_ttl
    }

    /// Returns the threads that the store shares with others, or `None` if it has its own:
    /// [`background`](Self::background).
    pub fn get_background(&self) -> Option<&Background> {
        self.background.as_ref()
    }
}

/// Getters, one for each setter except [`on_finish`](Self::on_finish).
///
/// ```
/// use bitcask::AutoMerge;
///
/// let policy = AutoMerge::new().dead_percent(30).window(1, 5);
/// assert_eq!((policy.get_dead_percent(), policy.get_window()), (30, Some((1, 5))));
/// assert_eq!(policy.any_hour().get_window(), None);
/// ```
impl AutoMerge {
    /// Returns the dead share of one segment that triggers a run, in percent:
    /// [`trigger_dead_percent`](Self::trigger_dead_percent).
    pub fn get_trigger_dead_percent(&self) -> u8 {
        self.trigger_dead_percent
    }

    /// Returns the dead bytes of all segments that trigger a run:
    /// [`trigger_dead_size`](Self::trigger_dead_size).
    pub fn get_trigger_dead_size(&self) -> u64 {
        self.trigger_dead_size
    }

    /// Returns the dead share from which a segment is merged, in percent:
    /// [`dead_percent`](Self::dead_percent).
    pub fn get_dead_percent(&self) -> u8 {
        self.dead_percent
    }

    /// Returns the dead bytes from which a segment is merged: [`dead_size`](Self::dead_size).
    pub fn get_dead_size(&self) -> u64 {
        self.dead_size
    }

    /// Returns the dead share from which a segment of an idle store is merged, in percent:
    /// [`idle_dead_percent`](Self::idle_dead_percent).
    pub fn get_idle_dead_percent(&self) -> u8 {
        self.idle_dead_percent
    }

    /// Returns the size in bytes below which a segment is small: [`small_size`](Self::small_size).
    pub fn get_small_size(&self) -> u64 {
        self.small_size
    }

    /// Returns the number of small segments that triggers a run:
    /// [`small_count`](Self::small_count).
    pub fn get_small_count(&self) -> u64 {
        self.small_count
    }

    /// Returns the maximum number of bytes that one run copies: [`bytes_max`](Self::bytes_max).
    pub fn get_bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Returns the time between two checks: [`check_interval`](Self::check_interval).
    pub fn get_check_interval(&self) -> Duration {
        self.check_interval
    }

    /// Returns the maximum number of bytes per second that a run reads and writes:
    /// [`bytes_per_second`](Self::bytes_per_second).
    pub fn get_bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    /// Returns the hours in which runs may start, or `None` for any hour: [`window`](Self::window).
    pub fn get_window(&self) -> Option<(u8, u8)> {
        self.window
    }
}
