//! Zstandard frames, without a dictionary and without a checksum: the entry has one.
//!
//! - Each thread keeps one context for compression and one for decompression. Creating a context
//!   costs more than compressing a small value.

use std::cell::RefCell;
use std::thread::LocalKey;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use super::reserved;

/// Largest number of bytes that one stored byte can expand to: the smallest block that yields
/// anything has 4 bytes, and no block yields more than 128 KiB (RFC 8878, section 3.1.1.2).
const RATIO_MAX: u64 = (128 << 10) / 4;

thread_local! {
    static COMPRESSOR: Context<CCtx<'static>> = const { RefCell::new(None) };
    static DECOMPRESSOR: Context<DCtx<'static>> = const { RefCell::new(None) };
}

/// A thread's context, once it has one.
type Context<T> = RefCell<Option<T>>;

/// Returns the largest size that stored bytes can expand to.
pub(super) fn raw_size_max(stored: &[u8]) -> u64 {
    RATIO_MAX * stored.len() as u64
}

pub(super) fn compress(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut stored = reserved(compress_bound(raw.len()))?;
    with_context(&COMPRESSOR, CCtx::try_create, |context| {
        context.set_parameter(CParameter::CompressionLevel(level)).ok()?;
        context.compress2(&mut stored, raw).ok()
    })?;
    Some(stored)
}

pub(super) fn decompress(stored: &[u8], raw: &mut Vec<u8>) -> Option<()> {
    // Empty input would be taken for zero frames, which are valid.
    if stored.is_empty() {
        return None;
    }
    with_context(&DECOMPRESSOR, DCtx::try_create, |context| context.decompress(raw, stored).ok())
}

/// Runs `work` with the thread's context, or with a new one if the thread is ending and its context
/// is gone. Returns `None` if `work` does, or if memory for a context is short.
fn with_context<C>(
    cell: &'static LocalKey<Context<C>>,
    create: impl FnOnce() -> Option<C>,
    work: impl FnOnce(&mut C) -> Option<usize>,
) -> Option<()> {
    let kept = cell.try_with(RefCell::take).ok().flatten();
    let mut context = kept.or_else(create)?;
    let result = work(&mut context);
    let _ = cell.try_with(|cell| cell.replace(Some(context)));
    result.map(drop)
}
