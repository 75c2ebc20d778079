//! Tests of whole clusters, with a network and disks that do not exist.

pub(crate) mod chance;
#[cfg(not(shuttle))]
mod simulation;
