//! Serves a store to clients of Redis, with the feature `resp`.
//!
//! A [`RespServer`] listens on an address and speaks both versions of the Redis protocol, RESP2 and
//! RESP3. Strings of Redis are the keys and values of the store, byte by byte, so a program can
//! open the same store and read what clients have written. Small hashes are supported too. The page
//! `docs/redis.md` of the repository lists the commands, and says where the server differs from
//! Redis.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//! use std::sync::Arc;
//! use bitcask::resp::{RespOptions, RespServer};
//! use bitcask::{Bitcask, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let db = Arc::new(Bitcask::open(dir.path(), Options::default())?);
//! let server = RespServer::bind("127.0.0.1:0", Arc::clone(&db), RespOptions::new())?;
//! let (address, stop) = (server.address(), server.stop_handle());
//! let running = std::thread::spawn(move || server.run());
//!
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"SET greeting hello\r\n")?;
//! let mut reply = [0; 5];
//! client.read_exact(&mut reply)?;
//! assert_eq!(&reply, b"+OK\r\n");
//!
//! stop.stop();
//! running.join().expect("it does not panic")?;
//! assert_eq!(db.get("greeting")?.unwrap(), "hello");
//! # Ok(())
//! # }
//! ```

mod admission;
mod chance;
mod clients_names;
mod clustered;
#[cfg(all(test, feature = "cluster"))]
mod clustered_tests;
mod commands;
mod commands_table;
mod connection;
mod counts;
mod database;
mod encoding;
mod events;
mod followers;
mod gets;
mod glob;
mod grouping;
mod holding;
mod hub;
mod keyspace;
mod keyspace_hashes;
mod keyspace_strings;
mod keyspace_transaction;
mod ledger;
mod monitor;
mod numbers;
mod options;
mod outbox;
mod peers;
mod presence;
mod read_ahead;
mod refusal;
#[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "clusters alone need it"))]
mod replicated;
mod reply;
mod reply_buffer;
mod reply_memory;
#[cfg(feature = "cluster")]
mod restoring;
#[cfg(feature = "cluster")]
mod sent_reply;
mod server;
mod server_state;
mod session;
#[cfg(test)]
mod session_tests;
mod settings;
#[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "clusters alone need it"))]
mod shards;
mod shared_writes;
mod shown_settings;
mod slots;
mod syncing;
mod tracking;
mod transaction;

#[cfg(feature = "cluster")]
pub(crate) use chance::random as chance;
#[cfg(feature = "cluster")]
pub(crate) use keyspace::{ENTRY_WRITE_OVERHEAD, ENTRY_WRITES_MAX};
pub use options::RespOptions;
#[cfg(feature = "cluster")]
pub(crate) use replicated::{
    CommandsRequest, ReplicatedKeys, ReplicatedReply, SharedEntry, StringEntry,
};
#[cfg(feature = "cluster")]
pub(crate) use sent_reply::sendable;
pub use server::{RespServer, RespStopHandle};
#[cfg(feature = "cluster")]
pub(crate) use shards::{
    ClusterShards, ShardFailure, ShardReplies, Topology, TopologyNode, TopologyShard,
};
#[cfg(feature = "cluster")]
pub(crate) use slots::{SLOT_COUNT, slot_of};
#[cfg(feature = "cluster")]
pub(crate) use {
    encoding::decode_key,
    restoring::{GrowingCommand, put_again},
};

/// The version of Redis whose replies and errors clients get.
const REDIS_VERSION: &str = "7.0.15";
