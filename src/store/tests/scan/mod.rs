//! Tests of snapshots, indexes and scans.

pub(crate) mod cursors;
pub(crate) mod index;
pub(crate) mod queues;
pub(crate) mod snapshots;
pub(crate) mod unordered;
