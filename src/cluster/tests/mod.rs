//! Tests of what a node does with entries, and of whole clusters, with a network and disks that do
//! not exist.

mod applying;
mod bytes;
pub(crate) mod chance;
mod leads;
mod lending;
mod members;
mod moves;
mod pairs;
mod parted;
mod receiving;
mod restoring;
mod scripted;
#[cfg(not(shuttle))]
mod simulation;
mod starting;
mod transfers;
