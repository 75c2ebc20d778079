//! Shows what the files of a store contain: the manifest, segments, their entries, and hints.
//!
//! For tools and for people who want to understand a store; `docs/format.md` describes the bytes.
//! Nothing is locked or changed, and the store does not have to be one that can be opened. While a
//! writer has it open, files may change or go between two calls. To find out whether a store is
//! damaged, use [`repair::verify`](crate::repair::verify).
//!
//! ```
//! use std::ops::ControlFlow;
//! use bitcask::inspect::{self, SegmentItem};
//! # use bitcask::{Bitcask, Options};
//! # fn main() -> bitcask::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path();
//! let db = Bitcask::open(path, Options::default())?;
//! db.put("key", "value")?;
//! db.close()?;
//!
//! let manifest = inspect::manifest(path)?;
//! assert_eq!(manifest.segments.len(), 1);
//! let mut keys = Vec::new();
//! for id in inspect::segment_ids(path)? {
//!     inspect::items(path, id, 0, |item| {
//!         if let SegmentItem::Entry(entry) = item {
//!             keys.push(entry.key.clone());
//!         }
//!         ControlFlow::Continue(())
//!     })?;
//! }
//! assert_eq!(keys, [b"key"]);
//! # Ok(())
//! # }
//! ```

mod info;

use std::ops::ControlFlow;
use std::path::Path;

use crate::clock::system_time;
use crate::entry::{ALIGNMENT, Flags, Invalid};
use crate::error::{Error, Result};
use crate::keydir::SHARD_COUNT;
use crate::manifest::{Manifest, Sealed};
use crate::segment::header::{Kind, SegmentHeader};
use crate::segment::hint::{HintFile, HintSource};
use crate::segment::read::resync::{ResyncItem, ResyncWalk};
use crate::segment::read::scan::{Scanned, end_of_content};
use crate::segment::{Dir, FIRST_OFFSET, FileKind, SegmentId, open_listed};
use crate::store::Env;

pub use info::{
    EntryInfo, EntryKind, HintEntry, HintInfo, ListedSegment, ManifestInfo, SegmentInfo,
    SegmentItem,
};

/// Reads the manifest of a store.
///
/// # Errors
///
/// [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory) if the path holds no
/// manifest, [`Corrupt`](Error::Corrupt) if it is damaged,
/// [`UnsupportedVersion`](Error::UnsupportedVersion) if a newer release wrote it,
/// [`Unfinished`](Error::Unfinished) if a backup or a salvage into the directory was interrupted.
pub fn manifest(path: impl AsRef<Path>) -> Result<ManifestInfo> {
    let (env, dir) = Env::default().enter(path.as_ref())?;
    let manifest = Manifest::read(&env.fs, &dir)?;
    let manifest = manifest.ok_or_else(|| Error::NotFound { path: dir.path().into() })?;
    let listed = |sealed: &Sealed| ListedSegment {
        id: sealed.id.0,
        merged: sealed.kind == Kind::Merged,
        length: sealed.length,
    };
    Ok(ManifestInfo {
        store_id: manifest.identity.store_id,
        hash_seed: manifest.identity.hash_seed,
        log: manifest.log.0,
        log_exists: manifest.log_exists,
        bound: manifest.bound.0,
        history: manifest.history.map(|place| (place.segment.0, place.offset)),
        time: manifest.time.map(system_time),
        segments: manifest.sealed.iter().map(listed).collect(),
    })
}

/// Returns the ids of the segments whose files are in a directory, in ascending order. They include
/// files that the manifest does not list, such as the active segment and leftovers.
///
/// # Errors
///
/// [`NotFound`](Error::NotFound) and [`NotADirectory`](Error::NotADirectory), and any error of the
/// operating system.
pub fn segment_ids(path: impl AsRef<Path>) -> Result<Vec<u32>> {
    let (env, dir) = Env::default().enter(path.as_ref())?;
    let names = env.fs.list(dir.path())?.into_iter().filter(|entry| entry.is_file);
    let mut ids: Vec<u32> = names
        .filter_map(|entry| match FileKind::of(&entry.name) {
            FileKind::Log(id) => Some(id.0),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Reads the header of a segment.
///
/// # Errors
///
/// [`MissingSegment`](Error::MissingSegment) if there is no such file, [`Corrupt`](Error::Corrupt)
/// if its header is damaged, [`UnsupportedVersion`](Error::UnsupportedVersion) if a newer release
/// wrote it, and those of [`segment_ids`].
pub fn segment(path: impl AsRef<Path>, id: u32) -> Result<SegmentInfo> {
    let (env, dir) = Env::default().enter(path.as_ref())?;
    let file = open_listed(&env.fs, &dir.log(SegmentId(id)))?;
    let header = SegmentHeader::load(&file)?;
    Ok(SegmentInfo {
        path: file.path().to_path_buf(),
        id: header.id.0,
        merged: header.kind == Kind::Merged,
        store_id: header.identity.store_id,
        hash_seed: header.identity.hash_seed,
        created: system_time(header.created),
        file_size: file.size()?,
        length: sealed_length(&env, &dir, SegmentId(id)),
    })
}

/// Returns the length of a segment that the manifest lists. If there is no manifest that can be
/// read, none is listed.
fn sealed_length(env: &Env, dir: &Dir, id: SegmentId) -> Option<u64> {
    let manifest = Manifest::read(&env.fs, dir).ok().flatten()?;
    manifest.sealed.iter().find(|sealed| sealed.id == id).map(|sealed| sealed.length)
}

/// Passes everything in a segment to a closure, in order, until the closure returns
/// [`ControlFlow::Break`]: entries, the end entry, and bytes that are no entries.
///
/// Begins at an offset, in bytes from the start of the file. If no entry starts there, what lies
/// before the next entry is [`SegmentItem::Lost`]; from offset 0, the first entry is the first
/// item. Each entry is verified. Nothing is read as a whole except keys, whatever sizes the bytes
/// claim.
///
/// # Errors
///
/// [`MissingSegment`](Error::MissingSegment) if there is no such file, and those of
/// [`segment_ids`]. Damage is not an error but an item.
pub fn items(
    path: impl AsRef<Path>,
    id: u32,
    from: u64,
    mut visit: impl FnMut(&SegmentItem) -> ControlFlow<()>,
) -> Result<()> {
    let (env, dir) = Env::default().enter(path.as_ref())?;
    let id = SegmentId(id);
    let file = open_listed(&env.fs, &dir.log(id))?;
    let size = file.size()?;
    let sealed = sealed_length(&env, &dir, id);
    let end = sealed.map_or_else(|| end_of_content(&file, FIRST_OFFSET), Ok)?;
    let start = from.clamp(FIRST_OFFSET, end.max(FIRST_OFFSET));
    let start = start - start % ALIGNMENT;
    let limit = sealed.unwrap_or(size);
    let mut walk = ResyncWalk::new(&file, id, start..end, limit, env.clock.now())?;
    loop {
        let offset = walk.offset();
        let item = match walk.next()? {
            None => return Ok(()),
            Some(ResyncItem::Entry(entry)) => SegmentItem::Entry(entry_info(&entry, true)),
            Some(ResyncItem::Strange(entry, invalid)) => {
                // Without the codec, everything but the value is known.
                let is_codec = matches!(invalid, Invalid::UnknownCodec(_));
                SegmentItem::Entry(EntryInfo { flags_known: is_codec, ..entry_info(&entry, false) })
            }
            Some(ResyncItem::End { next, timestamp }) => {
                SegmentItem::End { offset, next: next.0, timestamp: system_time(timestamp) }
            }
            Some(ResyncItem::Lost(lost)) => SegmentItem::Lost {
                offset: lost.bytes.start,
                size: lost.bytes.end - lost.bytes.start,
                reason: lost.reason,
            },
        };
        if visit(&item).is_break() {
            return Ok(());
        }
    }
}

fn entry_info(entry: &Scanned<'_>, supported: bool) -> EntryInfo {
    let (header, flags) = (&entry.header, entry.header.flags);
    let kind = if flags.has(Flags::MARK_ONLY) {
        EntryKind::Mark
    } else if flags.has(Flags::TOMBSTONE) {
        EntryKind::Delete
    } else {
        EntryKind::Put
    };
    EntryInfo {
        offset: entry.offset,
        size: header.entry_size(),
        kind,
        timestamp: system_time(header.timestamp),
        expires_at: header.expiry.map(system_time),
        mark: header.mark.map(|mark| (mark.segment, mark.offset)),
        batch_continues: flags.has(Flags::CONTINUES),
        collides: flags.has(Flags::COLLIDES),
        key: entry.key.to_vec(),
        value_offset: entry.offset + header.size() as u64 + u64::from(header.key_size),
        value_size: header.value_size,
        raw_size: header.raw_size,
        supported,
        flags_known: true,
    }
}

/// Reads the hint of a sealed segment. Returns `None` if there is none, or if it can't be used: it
/// is damaged, or belongs to another segment or another length.
///
/// Takes up to 56 bytes of memory for each entry of the segment.
///
/// # Errors
///
/// Those of [`manifest`]. A segment that the manifest does not list has no hint.
pub fn hint(path: impl AsRef<Path>, id: u32) -> Result<Option<HintInfo>> {
    let (env, dir) = Env::default().enter(path.as_ref())?;
    let manifest = Manifest::read(&env.fs, &dir)?;
    let manifest = manifest.ok_or_else(|| Error::NotFound { path: dir.path().into() })?;
    let id = SegmentId(id);
    let Some(sealed) = manifest.sealed.iter().find(|sealed| sealed.id == id) else {
        return Ok(None);
    };
    let source = HintSource { id, identity: manifest.identity, length: sealed.length };
    let Some(hint) = HintFile::open(&env.fs, &dir, source) else { return Ok(None) };
    let Some(slots) = hint.slots(&env.fs, &(0..SHARD_COUNT)) else { return Ok(None) };
    let summary = hint.summary();
    let entries = slots.iter().map(|slot| HintEntry {
        fingerprint: slot.hash().fingerprint,
        offset: slot.offset(),
        size: slot.size(),
        delete: slot.is_tombstone(),
        expires: slot.expires(),
        collides: slot.collides(),
    });
    Ok(Some(HintInfo {
        path: dir.hint(id),
        tombstones: summary.tombstones,
        key_size: summary.key_size,
        value_size: summary.value_size,
        first_timestamp: system_time(summary.first_timestamp),
        last_timestamp: system_time(summary.last_timestamp),
        entries: entries.collect(),
    }))
}
