//! Pages of the documentation whose code is compiled and run with that of the crate.

/// The README's code, compiled and run with the documentation's.
#[doc = include_str!("../README.md")]
#[derive(Debug)]
struct ReadmeDoctests;

/// The code in the page about the Redis port, compiled too.
#[cfg(feature = "resp")]
#[doc = include_str!("../docs/redis.md")]
#[derive(Debug)]
struct RedisDoctests;

/// The code in the page about the client, compiled too.
#[cfg(feature = "client")]
#[doc = include_str!("../docs/client.md")]
#[derive(Debug)]
struct ClientDoctests;
