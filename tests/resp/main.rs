//! The tests of the Redis port: they talk to a server over sockets, in the protocol itself.

mod clients;
mod durable;
mod expiry;
mod hashes;
mod keys;
mod limits;
mod programs;
mod protocol;
mod publishing;
mod stopping;
mod strings;
mod support;
mod tables;
mod tracking;
mod transactions;
