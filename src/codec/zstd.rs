//! Zstandard frames, without a dictionary and without a checksum: the entry has one.
//!
//! - Each thread keeps one context for compression and one for decompression. Creating a context
//!   costs more than compressing a small value.

use std::cell::RefCell;
use std::io;
use std::thread::LocalKey;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use super::reserved;

/// Largest number of bytes that one stored byte can expand to: the smallest block that yields
/// anything has 4 bytes, and no block yields more than 128 KiB (RFC 8878, section 3.1.1.2).
const RATIO_MAX: u64 = (128 << 10) / 4;

thread_local! {
    static COMPRESSOR: Context<Compressor<'static>> = const { RefCell::new(None) };
    static DECOMPRESSOR: Context<Decompressor<'static>> = const { RefCell::new(None) };
}

/// A thread's context, once it has one.
type Context<T> = RefCell<Option<T>>;

/// Returns the largest size that stored bytes can expand to.
pub(super) fn raw_size_max(stored: &[u8]) -> u64 {
    RATIO_MAX * stored.len() as u64
}

pub(super) fn compress(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut stored = reserved(compress_bound(raw.len()))?;
    with_context(
        &COMPRESSOR,
        || Compressor::new(level),
        |context| {
            context.set_compression_level(level)?;
            context.compress_to_buffer(raw, &mut stored)
        },
    )
    .ok()?;
    Some(stored)
}

pub(super) fn decompress(stored: &[u8], raw: &mut Vec<u8>) -> Option<()> {
    // Empty input would be taken for zero frames, which are valid.
    if stored.is_empty() {
        return None;
    }
    with_context(&DECOMPRESSOR, Decompressor::new, |context| {
        context.decompress_to_buffer(stored, raw)
    })
    .ok()
}

/// Runs `work` with the thread's context, or with a new one if the thread is ending and its context
/// is gone.
fn with_context<C>(
    cell: &'static LocalKey<Context<C>>,
    create: impl FnOnce() -> io::Result<C>,
    work: impl FnOnce(&mut C) -> io::Result<usize>,
) -> io::Result<()> {
    let kept = cell.try_with(RefCell::take).ok().flatten();
    let mut context = kept.map_or_else(create, Ok)?;
    let result = work(&mut context);
    let _ = cell.try_with(|cell| cell.replace(Some(context)));
    result.map(drop)
}
