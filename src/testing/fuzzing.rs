//! What fuzz targets run: one function each, from any bytes to properties that have to hold.
//!
//! - Built for tests and under `cfg(bitcask_fuzzing)` alone, so that nothing of it is part of the crate.
//!   `fuzz/` has the targets, which do no more than call these, and the inputs worth keeping.
//! - A broken property panics. An error of the store breaks none: bad bytes have to be refused.
//! - A checksum that an input was given on purpose proves nothing, so behind one there is less to
//!   ask for: no panic, and no memory that the file's size does not account for.

mod decoders;
mod directory;
mod index;
mod input;
mod segment;
#[cfg(test)]
mod tests;

pub use decoders::{codec, entry, hint, manifest};
pub use directory::directory;
pub use index::index;
pub use segment::segment;

use crate::segment::header::Identity;
use crate::store;

/// Where the stores lie on the disk in memory.
const DIR: &str = "/store";

/// What sets these stores apart from others. An input that has it is nothing special.
const IDENTITY: Identity = Identity { store_id: 0x6663_7566_7a7a_6572, hash_seed: 5 };

/// Runs operations that the bytes stand for, cuts the power at some moments, and compares what is
/// left with what was acknowledged and what was durable then.
pub fn operations(bytes: &[u8]) {
    store::tests::crash::operations(bytes);
}
