//! Tests of whole clusters, with a network and disks that do not exist.

pub(super) mod chance;
#[cfg(not(shuttle))]
mod simulation;
