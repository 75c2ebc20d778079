#![doc = include_str!("../README.md")]

mod encoding;
mod store;

pub use store::BitcaskSessions;
