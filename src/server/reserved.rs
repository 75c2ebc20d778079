//! The key that the server keeps for itself, which clients neither see nor write.

use super::failure::ApiFailure;
use crate::error::Result;
use crate::followed::FOLLOW_KEY;
use crate::store::Reader;

/// Returns whether a key is the server's own.
pub(super) fn is_reserved(key: &[u8]) -> bool {
    key == FOLLOW_KEY
}

/// Refuses the server's own key.
pub(super) fn check(key: &[u8]) -> Result<(), ApiFailure> {
    if is_reserved(key) { Err(ApiFailure::reserved_key()) } else { Ok(()) }
}

/// Returns the number of keys that clients see.
pub(super) fn visible_len(db: &Reader) -> Result<u64> {
    let own = u64::from(db.contains_key(FOLLOW_KEY)?);
    Ok(db.len()?.saturating_sub(own))
}
