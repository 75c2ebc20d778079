//! What a request may write.
//!
//! - Whether a request is refused is part of its result, so it is decided by figures that are the
//!   same on all nodes: sizes before compression, and the keys that have not expired.
//! - The record of what was applied has no limits. So the store has none either.

use openraft::RaftTypeConfig;

use super::apply::Apply;
use crate::error::{Error, Result};
use crate::options::{KEY_SIZE_LIMIT, Options, VALUE_SIZE_LIMIT};
use crate::store::Transaction;

/// Maximum size of what a request writes, in bytes: keys, values, and `WRITE_OVERHEAD` for each. It
/// is half of what a batch of the store can have. So whatever is within it fits into a batch,
/// together with the record of what was applied. Tests have no room for as much.
pub(crate) const REQUEST_SIZE_MAX: u64 = if cfg!(test) { 128 << 10 } else { 256 << 20 };

/// About how many bytes a write takes besides its key and its value, and never less than it takes.
pub(crate) const WRITE_OVERHEAD: u64 = 64;

/// Returns the options of a state machine's store.
pub(super) fn without_limits(options: Options) -> Options {
    options.key_size_limit(KEY_SIZE_LIMIT).value_size_limit(VALUE_SIZE_LIMIT)
}

/// Applies a request to a transaction. Returns the answer, or why all nodes refuse the request.
pub(super) fn outcome<C: RaftTypeConfig, A: Apply<C>>(
    application: &A,
    tx: &mut Transaction,
    request: &C::D,
    options: &Options,
) -> Result<Result<C::R>> {
    match application.apply(tx, request) {
        // The application may see earlier than the store that a request is too large.
        Err(error @ Error::BatchTooLarge { .. }) => Ok(Err(error)),
        Err(error) => Err(error),
        Ok(answer) => Ok(refusal(tx, options)?.map_or(Ok(answer), Err)),
    }
}

/// Returns why a request is refused, if it is: it writes too much, or a key or a value that is too
/// large. All nodes refuse it.
fn refusal(tx: &Transaction, options: &Options) -> Result<Option<Error>> {
    let size = tx.write_size(WRITE_OVERHEAD)?;
    if size > REQUEST_SIZE_MAX {
        return Ok(Some(Error::BatchTooLarge { size, limit: REQUEST_SIZE_MAX }));
    }
    Ok(tx.check_sizes(options.key_size_limit, options.value_size_limit).err())
}
