//! Figures about a store at one moment.

/// Figures about a store at one moment, from [`Bitcask::stats`](crate::Bitcask::stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that the keydir holds, expired ones that nothing has removed yet among them.
    pub keys: u64,
    /// Segments, the active one among them.
    pub segments: u64,
    /// Segments that are sealed: listed in the manifest, synced, never written again.
    pub sealed_segments: u64,
    /// Bytes of log: headers and entries of all segments, preallocated room not counted.
    pub log_size: u64,
    /// Bytes of the entries that the keydir points to.
    pub live_size: u64,
    /// Bytes of log that a merge could give back: overwritten, deleted, and tombstones.
    pub dead_size: u64,
    /// Memory that the keydir takes, in bytes.
    pub keydir_size: u64,
    /// Entries appended since the store was opened: puts and deletes.
    pub appends: u64,
    /// Bytes appended since the store was opened.
    pub appended_size: u64,
    /// Times that the log was synced since the store was opened.
    pub syncs: u64,
}

impl Stats {
    /// Returns the part of the log that is dead, from 0 to 1.
    pub fn dead_ratio(&self) -> f64 {
        if self.log_size == 0 { 0.0 } else { ratio(self.dead_size, self.log_size) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people needs no 53 bits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
