//! Tests of the change feed.

pub(crate) mod feed;
pub(crate) mod follow;
pub(crate) mod kept;
pub(crate) mod waiting;
