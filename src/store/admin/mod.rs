//! Operations on a whole store: backups and verification.

pub(crate) mod backup;
pub(crate) mod new_dir;
pub(crate) mod verify;
