//! Operations on a store as a whole, next to its normal use: backups and verification.

pub(crate) mod backup;
pub(crate) mod new_dir;
pub(crate) mod verify;
