//! Tests of backup, verification, repair and limits.

pub(crate) mod backup;
pub(crate) mod full_disk;
pub(crate) mod limits;
pub(crate) mod new_dir;
pub(crate) mod repair;
pub(crate) mod unmapped;
pub(crate) mod verify;
