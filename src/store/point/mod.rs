//! Operations on one key, or on several named keys: get, put, delete, time to live, batches, and
//! writes that depend on a key's value.

pub(crate) mod batch;
pub(crate) mod compare_and_swap;
pub(crate) mod conditional;
pub(crate) mod lookup;
pub(crate) mod multi_get;
pub(crate) mod plain;
pub(crate) mod read;
pub(crate) mod shards;
pub(crate) mod ttl;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod write;
