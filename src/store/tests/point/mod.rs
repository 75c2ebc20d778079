//! Tests of single keys: conditions, expiry, compression, transactions, counters.

pub(crate) mod batches;
pub(crate) mod clearing;
pub(crate) mod clocks;
pub(crate) mod collisions;
pub(crate) mod compression;
pub(crate) mod conditional;
pub(crate) mod counters;
pub(crate) mod guards;
pub(crate) mod held;
pub(crate) mod in_flight;
pub(crate) mod lifetimes;
pub(crate) mod plain;
pub(crate) mod surprises;
pub(crate) mod transactions;
pub(crate) mod ttl;
pub(crate) mod versions;
