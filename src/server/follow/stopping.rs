//! Says that a follower has to end, and wakes it if it waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A signal from a follower's owner to its threads.
#[derive(Debug, Clone, Default)]
pub(super) struct FollowStop(Arc<FollowSignal>);

#[derive(Debug, Default)]
struct FollowSignal {
    /// Lock 9: whether it was raised.
    raised: Mutex<bool>,
    condition: Condvar,
}

impl FollowStop {
    pub(super) fn raise(&self) {
        *self.0.raised.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.condition.notify_all();
    }

    pub(super) fn is_raised(&self) -> bool {
        *self.0.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a time, or until the signal is raised. Returns whether it is.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut raised = self.0.raised.lock().unwrap_or_else(PoisonError::into_inner);
        while !*raised {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.condition.wait_timeout(raised, left);
            raised = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *raised
    }
}
