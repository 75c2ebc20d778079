//! What [`inspect`](super) returns, as plain data.

use std::path::PathBuf;
use std::time::SystemTime;

/// The content of a manifest, from [`manifest`](super::manifest).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestInfo {
    /// The store's id.
    pub store_id: u64,
    /// The seed of the store's key hash.
    pub hash_seed: u64,
    /// Unsealed segments have this id or a higher one.
    pub log: u32,
    /// Whether the segment with the id `log` exists.
    pub log_exists: bool,
    /// No id at or above this one has ever been used.
    pub bound: u32,
    /// The segment and the offset in it after which the log has every change, if merges or clears
    /// have removed older ones.
    pub history: Option<(u32, u64)>,
    /// The latest time of the entries that merges or clears have removed.
    pub time: Option<SystemTime>,
    /// The sealed segments, oldest first.
    pub segments: Vec<ListedSegment>,
}

/// A sealed segment, as the manifest lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedSegment {
    /// The segment's id.
    pub id: u32,
    /// Whether a merge or a salvage wrote it.
    pub merged: bool,
    /// Size of its header and entries in bytes. Whatever follows in the file does not count.
    pub length: u64,
}

/// The header of a segment, from [`segment`](super::segment).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The file.
    pub path: PathBuf,
    /// The id in the header, which is that of the file's name unless the file was renamed.
    pub id: u32,
    /// Whether a merge or a salvage wrote it.
    pub merged: bool,
    /// The id of the store that it belongs to.
    pub store_id: u64,
    /// The seed of that store's key hash.
    pub hash_seed: u64,
    /// When it was created, by the clock of that time.
    pub created: SystemTime,
    /// Size of the file in bytes, including space that is allocated ahead.
    pub file_size: u64,
    /// Size of its header and entries in bytes, if the manifest lists it as sealed.
    pub length: Option<u64>,
}

/// What lies in a segment, from [`items`](super::items).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentItem {
    /// An entry.
    Entry(EntryInfo),
    /// The last entry of a segment, which names the segment in which the log continues.
    End {
        /// Where it starts, in bytes from the start of the file.
        offset: u64,
        /// The id of the next segment.
        next: u32,
        /// Its time.
        timestamp: SystemTime,
    },
    /// Bytes that are no entry.
    Lost {
        /// Where they start, in bytes from the start of the file.
        offset: u64,
        /// Number of bytes.
        size: u64,
        /// Which check failed.
        reason: String,
    },
}

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A key got a value.
    Put,
    /// A key was deleted.
    Delete,
    /// A note of how far the log was durable, and nothing else.
    Mark,
}

/// An entry whose checksum matches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each stands for a bit or two in the entry")]
pub struct EntryInfo {
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// Its size in bytes, including the padding.
    pub size: u64,
    /// What it stands for.
    pub kind: EntryKind,
    /// Its time, which is later than that of any earlier entry of the store.
    pub timestamp: SystemTime,
    /// The time from which on the key is absent.
    pub expires_at: Option<SystemTime>,
    /// The segment and the offset in it up to which the log was durable when the entry was written,
    /// if the entry records that.
    pub mark: Option<(u32, u64)>,
    /// Whether the next entry belongs to the same batch.
    pub batch_continues: bool,
    /// Whether another key with the same hash bits may have existed.
    pub collides: bool,
    /// The key.
    pub key: Vec<u8>,
    /// Where the value starts, in bytes from the start of the file.
    pub value_offset: u64,
    /// Size of the value as stored, in bytes.
    pub value_size: u32,
    /// Size of the value before it was compressed, in bytes, if it is compressed.
    pub raw_size: Option<u32>,
    /// Whether this build can read the entry with its value.
    pub supported: bool,
    /// Whether this build knows all of the entry's flags. If not, a newer release wrote it, and the
    /// other fields may not say everything.
    pub flags_known: bool,
}

/// The content of a hint, from [`hint`](super::hint).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HintInfo {
    /// The file.
    pub path: PathBuf,
    /// Number of deletes among the entries.
    pub tombstones: u64,
    /// Total size of the keys in bytes.
    pub key_size: u64,
    /// Total size of the values in bytes, as stored.
    pub value_size: u64,
    /// Time of the earliest entry, or the Unix epoch if there are no entries.
    pub first_timestamp: SystemTime,
    /// Time of the latest entry, or the Unix epoch if there are no entries.
    pub last_timestamp: SystemTime,
    /// The entries, sorted by their fingerprints.
    pub entries: Vec<HintEntry>,
}

/// What a hint says about one entry of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HintEntry {
    /// 64 bits of the key's hash.
    pub fingerprint: u64,
    /// Where the entry starts, in bytes from the start of the segment's file.
    pub offset: u64,
    /// Size of the entry in bytes, or `None` if it is too large for the hint.
    pub size: Option<u64>,
    /// Whether the entry is a delete.
    pub delete: bool,
    /// Whether the entry has an expiry.
    pub expires: bool,
    /// Whether another key with the same hash bits may have existed.
    pub collides: bool,
}
