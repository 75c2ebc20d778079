//! Tests of snapshots, indexes and ordered scans.

pub(crate) mod cursors;
pub(crate) mod index;
pub(crate) mod queues;
pub(crate) mod snapshots;
