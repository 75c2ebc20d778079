//! A circuit breaker: after several failures in a row, requests are refused for a while instead of
//! being sent to a server that does not answer.
//!
//! It knows neither a clock nor a network. The caller says what time it is.

use std::time::{Duration, Instant};

/// Counts failures, and decides whether a request may be sent.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// Number of failures in a row that open it; 0 for never.
    failures_max: u32,
    cooldown: Duration,
    state: BreakerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    /// Requests are sent.
    Closed { failures: u32 },
    /// No request is sent until the cooldown since then is over. Then one is sent, which begins a
    /// new cooldown, so that others wait for what becomes of it.
    Open { since: Instant },
}

impl CircuitBreaker {
    pub(super) fn new(failures_max: u32, cooldown: Duration) -> Self {
        Self { failures_max, cooldown, state: BreakerState::Closed { failures: 0 } }
    }

    /// Returns how much longer no request is sent, or `None` if one may be sent.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let BreakerState::Open { since } = self.state else { return None };
        let left = self.cooldown.saturating_sub(now.saturating_duration_since(since));
        (!left.is_zero()).then_some(left)
    }

    /// Allows a request, or returns how much longer none is sent.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(left) = self.wait(now) {
            return Err(left);
        }
        if let BreakerState::Open { since } = &mut self.state {
            *since = now;
        }
        Ok(())
    }

    /// Notes that the server has answered.
    pub(super) fn succeed(&mut self) {
        self.state = BreakerState::Closed { failures: 0 };
    }

    /// Notes that a request has failed.
    pub(super) fn fail(&mut self, now: Instant) {
        match &mut self.state {
            BreakerState::Open { since } => *since = now,
            BreakerState::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if self.failures_max > 0 && *failures >= self.failures_max {
                    self.state = BreakerState::Open { since: now };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_request_through_after_a_while() {
        let (mut breaker, start) = (CircuitBreaker::new(3, 5 * SECOND), Instant::now());
        breaker.fail(start);
        breaker.fail(start);
        breaker.succeed();
        breaker.fail(start);
        breaker.fail(start);
        assert_eq!(breaker.admit(start), Ok(()));
        breaker.fail(start);
        assert_eq!(breaker.admit(start + SECOND), Err(4 * SECOND));
        // The cooldown is over. One request goes, the others wait for it.
        assert_eq!(breaker.admit(start + 5 * SECOND), Ok(()));
        assert_eq!(breaker.admit(start + 6 * SECOND), Err(4 * SECOND));
        // It fails, so the time begins anew.
        breaker.fail(start + 7 * SECOND);
        assert_eq!(breaker.admit(start + 11 * SECOND), Err(SECOND));
        assert_eq!(breaker.admit(start + 12 * SECOND), Ok(()));
        breaker.succeed();
        assert_eq!(breaker.admit(start + 12 * SECOND), Ok(()));
        assert_eq!(breaker.admit(start + 12 * SECOND), Ok(()));
    }

    #[test]
    fn a_request_that_never_ends_does_not_keep_it_open() {
        let (mut breaker, start) = (CircuitBreaker::new(1, SECOND), Instant::now());
        breaker.fail(start);
        assert_eq!(breaker.admit(start + SECOND), Ok(()));
        assert_eq!(breaker.admit(start + 2 * SECOND), Ok(()));
    }

    #[test]
    fn it_can_be_switched_off() {
        let (mut breaker, now) = (CircuitBreaker::new(0, SECOND), Instant::now());
        for _ in 0..1000 {
            breaker.fail(now);
        }
        assert_eq!(breaker.admit(now), Ok(()));
    }
}
