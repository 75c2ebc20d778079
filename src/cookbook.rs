//! [typed values]: #typed-values
//! [metrics and logs]: #metrics-and-logs
//! [async code]: #async-code
//! [axum state]: #state-of-an-axum-service
//! [cookbook]: self
//! [`Bitcask::backup`]: crate::Bitcask::backup
//! [`Bitcask::clear`]: crate::Bitcask::clear
//! [`Bitcask::delete_range`]: crate::Bitcask::delete_range
//! [`Bitcask::expire`]: crate::Bitcask::expire
//! [`Bitcask::update`]: crate::Bitcask::update
//! [`Changes`]: crate::Changes
//! [`Error::is_conflict`]: crate::Error::is_conflict
//! [`Error::is_corruption`]: crate::Error::is_corruption
//! [`Error::is_locked`]: crate::Error::is_locked
//! [`Error::is_no_space`]: crate::Error::is_no_space
//! [`Error::is_poisoned`]: crate::Error::is_poisoned
//! [`Error::needs_resync`]: crate::Error::needs_resync
//! [`Options::background`]: crate::Options::background
//! [`ReadOnly`]: crate::ReadOnly
//! [`ReadStore`]: crate::ReadStore
//! [`Reader::changes`]: crate::Reader::changes
//! [`Reader::counters`]: crate::Reader::counters
//! [`Reader::get_with`]: crate::Reader::get_with
//! [`Reader::stats`]: crate::Reader::stats
//! [`Reader::verify`]: crate::Reader::verify
//! [`Snapshot`]: crate::Snapshot
//! [`TransactionOptions::durable`]: crate::TransactionOptions::durable
//! [`Value`]: crate::Value
//! [`WriteOptions::durable`]: crate::WriteOptions::durable
//! [`WriteStore`]: crate::WriteStore

// The pages work in the repository and here. Their links have labels, whose targets are files at
// the end of each page. Above they are items of the crate: of two targets, the first one counts.
#![doc = include_str!("../docs/cookbook.md")]
// The recipes that need features follow if all of these are enabled, as they are where the
// documentation is published, and their code is tested then. To leave out code piece by piece, a
// page would need lines that its readers see.
#![cfg_attr(
    all(feature = "metrics", feature = "serde", feature = "server"),
    doc = include_str!("../docs/cookbook-features.md")
)]
#![cfg_attr(
    not(all(feature = "metrics", feature = "serde", feature = "server")),
    doc = "The other recipes follow if the features `metrics`, `serde` and `server` are enabled."
)]
