//! When writes reach the disk.

use std::time::Duration;

use super::{INTERVAL_MIN, shown};
use crate::error::{Error, Result};

/// When writes reach the disk, and so what a crash can lose.
///
/// Under every policy, a write that has returned survives the death of the process, because the
/// operating system holds it. [`Bitcask::sync`] makes everything written before it durable
/// immediately.
///
/// [`Bitcask::sync`]: crate::Bitcask::sync
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// The operating system decides when to write.
    ///
    /// Process crash: nothing is lost. Kernel crash or power loss: whatever the kernel had not yet
    /// written is lost, usually the last 30 seconds or so.
    Never,
    /// A background thread syncs at this interval while there is something to sync. Minimum: a
    /// millisecond.
    ///
    /// Process crash: nothing is lost. Kernel crash or power loss: at most the last interval is
    /// lost, plus the time that one sync takes.
    Interval(Duration),
    /// A write returns once it is durable. Writers that wait at the same time share one sync.
    ///
    /// Process crash, kernel crash, power loss: no write that has returned is lost.
    Always,
}

impl SyncPolicy {
    /// Refuses an interval that is too short.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Interval(interval) if interval < INTERVAL_MIN => Err(Error::InvalidOption {
                name: "sync_policy",
                value: format!("Interval({})", shown(interval)),
                reason: "an interval must be at least a millisecond; use `SyncPolicy::Always`",
            }),
            _ => Ok(()),
        }
    }
}

impl Default for SyncPolicy {
    /// Returns an interval of one second.
    fn default() -> Self {
        Self::Interval(Duration::from_secs(1))
    }
}
