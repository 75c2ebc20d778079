//! LZ4's block format, without a frame and without a size prefix.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

use super::reserved;

/// Largest input, in bytes, that other implementations of LZ4 accept.
const RAW_SIZE_LIMIT: u32 = 0x7E00_0000;

/// Largest number of bytes that one stored byte can expand to: a length continues with one byte for
/// each 255.
const RATIO_MAX: u64 = 255;

/// Returns the largest size that stored bytes can expand to.
pub(super) fn raw_size_max(stored: &[u8]) -> u64 {
    (RATIO_MAX * stored.len() as u64).min(RAW_SIZE_LIMIT.into())
}

pub(super) fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() > RAW_SIZE_LIMIT as usize {
        return None;
    }
    let bound = get_maximum_output_size(raw.len());
    let mut stored = reserved(bound)?;
    stored.resize(bound, 0);
    let size = compress_into(raw, &mut stored).ok()?;
    stored.truncate(size);
    Some(stored)
}

pub(super) fn decompress(stored: &[u8], raw: &mut Vec<u8>) -> Option<()> {
    raw.resize(raw.capacity(), 0);
    let written = decompress_into(stored, raw).ok()?;
    raw.truncate(written);
    Some(())
}
