//! The rate limit of a merge.

use std::sync::Arc;
use std::time::Duration;

use super::control::CurrentPolicy;
use crate::store::Inner;
use crate::sync::{Instant, sleep};

/// Maximum time between two checks whether a merge has to stop.
const NAP: Duration = Duration::from_millis(10);
/// Interval between two checks whether others write.
const LOOK: Duration = Duration::from_millis(100);

/// A limit in bytes per second.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    per_second: Option<u64>,
    /// The policy that the limit comes from, if it can change.
    policy: Option<Arc<CurrentPolicy>>,
    /// Whether the limit only applies while others write.
    only_if_busy: bool,
    busy: bool,
    seen_appends: u64,
    looked: Instant,
    /// Bytes moved since then count towards the limit.
    started: Instant,
    size: u64,
}

impl RateLimiter {
    /// Returns a limit that always applies.
    pub(crate) fn constant(per_second: Option<u64>) -> Self {
        Self::new(per_second, false)
    }

    /// Returns the limit of a policy, which applies while others write and follows the policy.
    pub(crate) fn by_policy(policy: &Arc<CurrentPolicy>) -> Self {
        Self { policy: Some(Arc::clone(policy)), ..Self::new(policy.rate(), true) }
    }

    fn new(per_second: Option<u64>, only_if_busy: bool) -> Self {
        let now = Instant::now();
        Self {
            per_second,
            policy: None,
            only_if_busy,
            busy: true,
            seen_appends: 0,
            looked: now,
            started: now,
            size: 0,
        }
    }

    /// Records moved bytes, and waits for as long as the limit requires.
    pub(crate) fn keep(
        &mut self,
        size: u64,
        mut is_to_stop: impl FnMut() -> bool,
        appends: impl Fn() -> u64,
    ) {
        self.size = self.size.saturating_add(size);
        loop {
            self.follow();
            let Some(per_second) = self.per_second else { return };
            if is_to_stop() {
                return;
            }
            self.look(&appends);
            let due = due(self.size, per_second);
            match due.checked_sub(self.started.elapsed()) {
                Some(left) if !left.is_zero() && self.busy => sleep(left.min(NAP)),
                _ => return,
            }
        }
    }

    /// Starts counting again, after a time in which nothing could be moved.
    pub(crate) fn restart(&mut self) {
        (self.started, self.size) = (Instant::now(), 0);
    }

    /// Takes over the policy's limit if it has changed. Bytes moved before do not count against the
    /// new one.
    fn follow(&mut self) {
        let Some(rate) = self.policy.as_ref().map(|policy| policy.rate()) else { return };
        if rate != self.per_second {
            self.per_second = rate;
            self.restart();
        }
    }

    /// Checks from time to time whether others write. Bytes moved while no one else wrote do not
    /// count.
    fn look(&mut self, appends: impl Fn() -> u64) {
        if !self.only_if_busy || self.looked.elapsed() < LOOK {
            return;
        }
        let appends = appends();
        let was_busy = std::mem::replace(&mut self.busy, appends != self.seen_appends);
        (self.seen_appends, self.looked) = (appends, Instant::now());
        if self.busy && !was_busy {
            self.restart();
        }
    }
}

/// Returns how long it should take to move this many bytes.
fn due(size: u64, per_second: u64) -> Duration {
    let nanos = u128::from(size) * 1_000_000_000 / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Inner {
    /// Returns the number of appended entries.
    pub(crate) fn appends(&self) -> u64 {
        self.log().map_or(0, |log| log.lock().appends())
    }

    /// Returns whether space matters more than speed: most of the log is dead, or the free disk
    /// space is less than a tenth of the log's size.
    pub(crate) fn is_space_short(&self) -> bool {
        let stats = self.stats();
        let left = self.fs.available_space(self.dir.path()).unwrap_or(u64::MAX);
        let dead_size = stats.dead_size.saturating_sub(stats.history_size);
        dead_size > stats.live_size || left < stats.log_size / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{AutoMerge, MergePolicy};

    #[test]
    fn moving_bytes_takes_as_long_as_the_limit_requires() {
        assert_eq!(due(64 << 20, 64 << 20), Duration::from_secs(1));
        assert_eq!(due(1, 1_000), Duration::from_millis(1));
        assert_eq!(due(0, 1), Duration::ZERO);
        assert!(due(u64::MAX, 1) > Duration::from_secs(u64::from(u32::MAX)));
    }

    #[test]
    fn nothing_waits_without_a_limit_or_when_asked_to_stop() {
        RateLimiter::constant(None).keep(u64::MAX, || false, || 0);
        RateLimiter::constant(Some(1)).keep(u64::MAX, || true, || 0);
    }

    fn policy(rate: Option<u64>) -> Arc<CurrentPolicy> {
        Arc::new(CurrentPolicy::new(auto(rate)))
    }

    fn auto(rate: Option<u64>) -> MergePolicy {
        MergePolicy::Auto(AutoMerge::new().bytes_per_second(rate))
    }

    #[test]
    fn a_merge_that_is_held_back_follows_the_policy() {
        let policy = policy(Some(1));
        let mut pace = RateLimiter::by_policy(&policy);
        let (mut looks, appends) = (0, std::cell::Cell::new(0));
        let mut set_at_second = |rate| {
            looks += 1;
            if looks == 2 {
                policy.set(auto(rate));
            }
            false
        };
        // Another thread writes all the time, so only a new limit ends the wait.
        let write = || appends.replace(appends.get() + 1);
        pace.keep(u64::MAX, || set_at_second(None), write);
        assert_eq!(looks, 2);
        policy.set(auto(Some(1)));
        pace.keep(0, || false, write);
        assert_eq!((pace.per_second, pace.size), (Some(1), 0), "bytes moved before do not count");
    }

    #[test]
    fn a_limit_while_busy_ends_when_writes_stop() {
        let mut pace = RateLimiter::by_policy(&policy(Some(1)));
        // No one writes any more at the second check.
        pace.keep(u64::MAX, || false, || 7);
        assert!(!pace.busy);
    }
}
