//! The tests of the program: they run it, on real stores.

#[cfg(feature = "server")]
mod abuse;
mod compatibility;
mod config;
mod data;
mod disks;
#[cfg(feature = "server")]
mod followers;
mod interruption;
mod maintenance;
mod manners;
mod moving;
#[cfg(feature = "server")]
mod remote;
#[cfg(feature = "server")]
mod server;
mod support;
mod transcripts;
