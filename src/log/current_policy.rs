//! The current sync policy, which can be replaced while the store is open.

use std::fmt;
use std::time::Duration;

use super::LogWriter;
use crate::error::Result;
use crate::mistake::{Mistake, made};
use crate::options::SyncPolicy;
use crate::sync::Ordering;
use crate::sync::unmodeled::AtomicU64;

const NEVER: u64 = 0;
const ALWAYS: u64 = u64::MAX;

/// A sync policy in one word: [`NEVER`], [`ALWAYS`], or the nanoseconds of an interval.
///
/// Every write reads it, and it hardly ever changes. So it has its own cache line, which stays in
/// the caches of all cores.
#[repr(align(128))]
pub(crate) struct CurrentSyncPolicy(AtomicU64);

impl CurrentSyncPolicy {
    pub(crate) fn new(policy: SyncPolicy) -> Self {
        Self(AtomicU64::new(encode(policy)))
    }

    pub(super) fn get(&self) -> SyncPolicy {
        match self.0.load(Ordering::Relaxed) {
            NEVER => SyncPolicy::Never,
            ALWAYS => SyncPolicy::Always,
            nanos => SyncPolicy::Interval(Duration::from_nanos(nanos)),
        }
    }
}

/// Intervals of more than 584 years are cut to that.
fn encode(policy: SyncPolicy) -> u64 {
    match policy {
        SyncPolicy::Never => NEVER,
        SyncPolicy::Always => ALWAYS,
        SyncPolicy::Interval(interval) => {
            let nanos = u64::try_from(interval.as_nanos()).unwrap_or(ALWAYS);
            nanos.clamp(NEVER + 1, ALWAYS - 1)
        }
    }
}

impl fmt::Debug for CurrentSyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl LogWriter {
    /// Returns the current sync policy.
    pub(crate) fn sync_policy(&self) -> SyncPolicy {
        self.context.sync_policy.get()
    }

    /// Replaces the sync policy, and makes everything durable that was written under the old one.
    pub(crate) fn set_sync_policy(&self, policy: SyncPolicy) -> Result<()> {
        self.check()?;
        self.context.sync_policy.0.store(encode(policy), Ordering::Relaxed);
        // A write that still saw the old policy may have left it to the thread to notice.
        self.sync_signal.wake();
        if made(Mistake::PolicyNotSynced) {
            return Ok(());
        }
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_was_set() {
        let interval = |nanos| SyncPolicy::Interval(Duration::from_nanos(nanos));
        for policy in [SyncPolicy::Never, SyncPolicy::Always, interval(1), interval(u64::MAX - 1)] {
            assert_eq!(CurrentSyncPolicy::new(policy).get(), policy);
        }
        let longest = CurrentSyncPolicy::new(SyncPolicy::Interval(Duration::MAX));
        assert_eq!(longest.get(), interval(u64::MAX - 1));
    }
}
