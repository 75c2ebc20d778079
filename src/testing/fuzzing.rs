//! The functions that fuzz targets run: each takes arbitrary bytes and checks properties that must
//! hold.
//!
//! - They are built only for tests and under `cfg(bitcask_fuzzing)`, so the crate contains none of
//!   them. `fuzz/` has the targets, which only call these functions, and the inputs worth keeping.
//! - A violated property panics. An error from the store is not a violation: bad bytes must be
//!   refused.
//! - A checksum that was deliberately corrected proves nothing. For such inputs only two properties
//!   are checked: no panic, and no memory beyond what the file's size accounts for.

mod decoders;
mod directory;
mod import;
mod index;
mod input;
mod resp;
mod segment;
#[cfg(test)]
mod tests;

pub use decoders::{codec, entry, hint, manifest};
pub use directory::directory;
pub use import::import;
pub use index::index;
pub use resp::resp;
pub use segment::segment;

use crate::segment::header::Identity;
use crate::store;

/// The directory of the stores on the in-memory disk.
const DIR: &str = "/store";

/// The identity of these stores. An input may contain it too, which does no harm.
const IDENTITY: Identity = Identity { store_id: 0x6663_7566_7a7a_6572, hash_seed: 5 };

/// Runs the operations that the bytes encode, cuts the power at some moments, and compares what is
/// left with what had been acknowledged and what was durable then.
pub fn operations(bytes: &[u8]) {
    store::tests::crash::operations(bytes);
}
