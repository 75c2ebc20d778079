//! The first 64 bytes of every segment: what it is and which store it belongs to.
//!
//! - The header is written and synced before the segment gets its name. So an invalid header is
//!   damage, never a torn write.
//! - The first 64 bytes and their checksum keep this form in every later version, so that an old
//!   build can tell a newer segment from a damaged one.

use std::path::Path;

use super::SegmentId;
use crate::error::{Error, Result};
use crate::fs::File;

/// The size of a segment's header in bytes.
pub(crate) const SIZE: usize = 64;
/// The format version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"bitcask\0";

// Offsets, in the order of `docs/format.md`.
const VERSION_AT: usize = 8;
const KIND_AT: usize = VERSION_AT + 2;
const ID_AT: usize = KIND_AT + 2 + 4;
const STORE_ID_AT: usize = ID_AT + 8;
const SEED_AT: usize = STORE_ID_AT + 8;
const CREATED_AT: usize = SEED_AT + 8;
const CHECKSUM_AT: usize = CREATED_AT + 8 + 12;

const _: () = assert!(ID_AT == 16 && CHECKSUM_AT + 4 == SIZE);

/// The identity of a store, which distinguishes it from every other store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store_id: u64,
    /// The seed of the hash of keys. Hints contain bits of that hash.
    pub(crate) hash_seed: u64,
}

/// How a segment was created. The numbers are stored on disk: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Writes append to it.
    Log = 1,
    /// A merge, a salvage or an import wrote it.
    Merged = 2,
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) kind: Kind,
    pub(crate) id: SegmentId,
    pub(crate) identity: Identity,
    /// When it was created, in microseconds since the epoch. Only people read it.
    pub(crate) created: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let mut put = |offset: usize, field: &[u8]| {
            let targets = bytes.iter_mut().skip(offset);
            targets.zip(field).for_each(|(target, source)| *target = *source);
        };
        put(0, MAGIC);
        put(VERSION_AT, &VERSION.to_be_bytes());
        put(KIND_AT, &(self.kind as u16).to_be_bytes());
        put(ID_AT, &u64::from(self.id.0).to_be_bytes());
        put(STORE_ID_AT, &self.identity.store_id.to_be_bytes());
        put(SEED_AT, &self.identity.hash_seed.to_be_bytes());
        put(CREATED_AT, &self.created.to_be_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Decodes a header. The path is for the error.
    pub(crate) fn decode(bytes: &[u8; SIZE], path: &Path) -> Result<Self> {
        let corrupt = |offset: usize, reason| Err(Error::corrupt(path, offset as u64, reason));
        let (summed, checksum) = bytes.split_at(CHECKSUM_AT);
        if !summed.starts_with(MAGIC) {
            return corrupt(0, "this is not a bitcask segment");
        }
        if crc32fast::hash(summed).to_be_bytes() != checksum {
            return corrupt(CHECKSUM_AT, "the segment header's checksum does not match");
        }
        let found = u16::from_be_bytes(field(bytes, VERSION_AT));
        if found != VERSION {
            let path = path.to_path_buf();
            return Err(Error::UnsupportedVersion { path, found, supported: VERSION });
        }
        let kind = match u16::from_be_bytes(field(bytes, KIND_AT)) {
            1 => Kind::Log,
            2 => Kind::Merged,
            _ => return corrupt(KIND_AT, "the segment is of an unknown kind"),
        };
        let Ok(id) = u32::try_from(u64::from_be_bytes(field(bytes, ID_AT))) else {
            return corrupt(ID_AT, "the segment's id is out of range");
        };
        let identity = Identity {
            store_id: u64::from_be_bytes(field(bytes, STORE_ID_AT)),
            hash_seed: u64::from_be_bytes(field(bytes, SEED_AT)),
        };
        let created = u64::from_be_bytes(field(bytes, CREATED_AT));
        Ok(Self { kind, id: SegmentId(id), identity, created })
    }

    /// Reads the header of a file, and checks that the file is the segment that its name states.
    pub(crate) fn read(file: &File, id: SegmentId, identity: Identity) -> Result<Self> {
        let header = Self::load(file)?;
        header.check(file.path(), id, identity)?;
        Ok(header)
    }

    /// Checks that the header belongs to the segment that the file's name states.
    pub(crate) fn check(&self, path: &Path, id: SegmentId, identity: Identity) -> Result<()> {
        let (at, reason) = if self.identity != identity {
            (STORE_ID_AT, "the segment belongs to another store")
        } else if self.id != id {
            (ID_AT, "the file has another segment's name")
        } else {
            return Ok(());
        };
        Err(Error::corrupt(path, at as u64, reason))
    }

    /// Reads the header of a file, whatever store and segment it belongs to.
    pub(crate) fn load(file: &File) -> Result<Self> {
        let mut bytes = [0; SIZE];
        if file.read_at(&mut bytes, 0)? < SIZE {
            return Err(Error::corrupt(file.path(), 0, "the file ends within the segment header"));
        }
        Self::decode(&bytes, file.path())
    }
}

fn field<const N: usize>(bytes: &[u8; SIZE], offset: usize) -> [u8; N] {
    std::array::from_fn(|at| bytes.get(offset + at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let identity = Identity { store_id: 0x0123_4567_89ab_cdef, hash_seed: 42 };
        SegmentHeader { kind: Kind::Log, id: SegmentId(7), identity, created: 1_700_000_000 }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let path = Path::new("7.log");
        assert_eq!(SegmentHeader::decode(&header().encode(), path).unwrap(), header());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..SIZE * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = SegmentHeader::decode(&bytes, Path::new("7.log")).unwrap_err();
            assert!(error.is_corruption(), "bit {bit}: {error}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut bytes = header().encode();
        bytes[VERSION_AT + 1] = 2;
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        let error = SegmentHeader::decode(&bytes, Path::new("7.log")).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, supported: 1, .. }));
    }
}
