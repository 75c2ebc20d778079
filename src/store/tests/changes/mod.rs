//! Tests of the change feed.

pub(crate) mod feed;
pub(crate) mod follow;
pub(crate) mod kept;
mod leases;
pub(crate) mod waiting;
