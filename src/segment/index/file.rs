//! The format of an index on disk.
//!
//! - An index is a header, the blocks, and their directory, each part with its own checksum.
//!   `docs/format.md` specifies the bytes.
//! - Header and directory are read when an index is opened, and blocks when they are needed.

use super::build::Encoded;
use super::directory::Directory;
use crate::entry::HEADER_SIZE as ENTRY_SIZE_MIN;
use crate::error::Result;
use crate::fs::{Access, File, Fs, is_out_of_files};
use crate::segment::header::Identity;
use crate::segment::hint::HintSource;
use crate::segment::{Dir, SegmentId, sidecar};

/// The version of indexes. It changes independently, since indexes can be rebuilt.
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"bc-index";
pub(super) const HEADER_SIZE: usize = 96;

// Fields of the header, in the order of `docs/format.md`.
const FIELDS_AT: usize = 16;
const FIELDS_LEN: usize = 8;
const CHECKSUM_AT: usize = HEADER_SIZE - 4;

const _: () = assert!(FIELDS_AT + FIELDS_LEN * 8 <= CHECKSUM_AT);

/// What the header states about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IndexHeader {
    rows: u64,
    blocks: u64,
    blocks_size: u64,
    directory_size: u64,
}

impl IndexHeader {
    fn encode(&self, source: HintSource) -> Vec<u8> {
        let fields: [u64; FIELDS_LEN] = [
            u64::from(source.id.0),
            source.identity.store_id,
            source.identity.hash_seed,
            source.length,
            self.rows,
            self.blocks,
            self.blocks_size,
            self.directory_size,
        ];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        bytes.resize(FIELDS_AT, 0);
        bytes.extend(fields.into_iter().flat_map(u64::to_be_bytes));
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    /// Decodes a header. Returns `None` if it is invalid, implausible, or another segment's.
    fn decode(bytes: &[u8; HEADER_SIZE], source: HintSource) -> Option<Self> {
        let (summed, checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
        let version = summed.strip_prefix(MAGIC)?.get(..2)?;
        if crc32fast::hash(summed).to_be_bytes() != checksum || version != VERSION.to_be_bytes() {
            return None;
        }
        let (encoded, _) = summed.get(FIELDS_AT..)?.as_chunks::<8>();
        let fields: &[[u8; 8]; FIELDS_LEN] = encoded.first_chunk()?;
        let fields = fields.map(u64::from_be_bytes);
        let [id, store_id, hash_seed, length, rows, blocks, blocks_size, directory_size] = fields;
        let identity = Identity { store_id, hash_seed };
        let found = HintSource { id: SegmentId(u32::try_from(id).ok()?), identity, length };
        // A row is smaller than its entry by more than a block's checksum, and the key that leads
        // to a block is smaller than the block's first row. This bounds the bytes to be read.
        let makes_sense = rows <= length / ENTRY_SIZE_MIN as u64
            && blocks <= rows
            && blocks_size <= length
            && directory_size <= 2 * blocks_size + 6;
        let header = Self { rows, blocks, blocks_size, directory_size };
        (found == source && makes_sense).then_some(header)
    }

    fn file_size(&self) -> u64 {
        HEADER_SIZE as u64 + self.blocks_size + self.directory_size
    }
}

/// Opens a segment's index and reads its directory. Returns `None` if there is no index, or if it
/// can't be read or used. The blocks are not read. A shortage of file descriptors is an error.
pub(super) fn open(fs: &Fs, dir: &Dir, source: HintSource) -> Result<Option<(Directory, File)>> {
    let file = open_file(fs, dir, source.id)?;
    Ok(file.and_then(|file| Some((read_directory(&file, source)?, file))))
}

/// Opens a segment's index. Returns `None` if there is none, or if it can't be opened. A shortage
/// of file descriptors is an error, since the index may be intact.
pub(super) fn open_file(fs: &Fs, dir: &Dir, id: SegmentId) -> Result<Option<File>> {
    match fs.open(&dir.index(id), Access::Read) {
        Err(error) if is_out_of_files(&error) => Err(error),
        file => Ok(file.ok()),
    }
}

fn read_directory(file: &File, source: HintSource) -> Option<Directory> {
    let mut head = [0; HEADER_SIZE];
    file.read_at(&mut head, 0).ok()?;
    let header = IndexHeader::decode(&head, source)?;
    if file.size().ok()? != header.file_size() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(header.directory_size).ok()?];
    let whole = file.read_at(&mut bytes, HEADER_SIZE as u64 + header.blocks_size).ok()?;
    let len = usize::try_from(header.blocks).ok().filter(|_| whole == bytes.len())?;
    let directory = Directory::decode(&bytes, source.id, len, header.rows)?;
    (directory.blocks_size() == header.blocks_size).then_some(directory)
}

/// Returns whether a segment has an index whose header and directory are valid.
pub(crate) fn has_index(fs: &Fs, dir: &Dir, source: HintSource) -> bool {
    matches!(open(fs, dir, source), Ok(Some(_)))
}

/// Returns header and directory, which lie before and after the blocks.
fn around(directory: &Directory, source: HintSource) -> (Vec<u8>, Vec<u8>) {
    let encoded = directory.encode(source.id);
    let header = IndexHeader {
        rows: directory.rows,
        blocks: directory.len() as u64,
        blocks_size: directory.blocks_size(),
        directory_size: encoded.len() as u64,
    };
    (header.encode(source), encoded)
}

/// Writes the index next to its segment and syncs it. The name need not be durable.
///
/// Returns whether it was written. If it can't be, for lack of space or of a file descriptor, the
/// store does without it. Only an error that ends writing is returned.
pub(super) fn write(
    fs: &Fs,
    dir: &Dir,
    source: HintSource,
    blocks: &[u8],
    directory: &Directory,
) -> Result<bool> {
    let (header, directory) = around(directory, source);
    sidecar::write(fs, &dir.index(source.id), |write| {
        [header.as_slice(), blocks, &directory].into_iter().try_for_each(write)
    })
}

impl Encoded {
    pub(crate) fn encode(&self, source: HintSource) -> Vec<u8> {
        let (header, directory) = around(&self.directory, source);
        [header.as_slice(), &self.blocks, &directory].concat()
    }
}
