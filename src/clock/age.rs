//! How old what the log holds is, for history that is kept for a time.
//!
//! - Neither a wall clock that jumps ahead may end history early, nor one that is set back keep it for
//!   ever. Two clocks are asked, and either may say that the time is over.
//! - The first goes by the times of entries, and by the same border as [`Clock::certain`]. Times below
//!   it go by the believed time of day (see `trust`). Later ones were written while the clock was
//!   ahead, or since a jump that is not believed yet. They go by the log's own time, which is the last
//!   time in the log when the store was opened, and the time that it has been open since.
//! - The second is the monotonic clock, and counts from the moment at which this process sealed a
//!   segment or found it sealed. Nothing can set it, but it stops while the machine sleeps, and knows
//!   nothing of earlier processes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Clock, Now};

/// A moment by which the age of history is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    by_times: Now,
    steady: u64,
}

impl Clock {
    /// Returns the time of the monotonic clock, in microseconds.
    pub(crate) fn running(&self) -> u64 {
        self.monotonic()
    }

    /// Returns the moment by which the age of history is judged now.
    pub(crate) fn ages(&self) -> Ages {
        let Now { low, boundary, .. } = self.certain();
        let steady = self.monotonic();
        let log = steady.saturating_add(self.ahead.log.load(Ordering::Relaxed));
        Ages { by_times: Now { low, high: low.max(log), boundary }, steady }
    }
}

impl Ages {
    /// Returns whether a segment has certainly ended longer ago than `duration`. The arguments are the
    /// last time in it, and since when this process has known it to be sealed.
    pub(crate) fn is_past(
        &self,
        last_timestamp: u64,
        sealed_since: Option<u64>,
        duration: Duration,
    ) -> bool {
        let duration = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let end = |since: u64| since.saturating_add(duration);
        self.by_times.is_over(last_timestamp, end(last_timestamp))
            || sealed_since.is_some_and(|since| end(since) <= self.steady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hands;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A store that is written to now and then.
    struct Log {
        hands: Hands,
        clock: Clock,
        last: u64,
    }

    impl Log {
        fn new() -> Self {
            let hands = Hands::new();
            Self { clock: hands.clock(), hands, last: 0 }
        }

        /// Writes an entry and seals its segment.
        fn seal(&mut self) -> (u64, Option<u64>) {
            self.last = self.clock.now().max(self.last + 1);
            (self.last, Some(self.clock.running()))
        }

        /// Closes the store and opens it. What was sealed before is found sealed then.
        fn reopen(&mut self) -> u64 {
            self.clock = self.hands.clock();
            self.clock.resume(self.last);
            self.clock.running()
        }

        fn is_past(&self, (last, since): (u64, Option<u64>)) -> bool {
            self.clock.ages().is_past(last, since, HOUR)
        }

        /// Asserts that a segment is past after this much time, and not before.
        #[track_caller]
        fn lasts(&self, segment: (u64, Option<u64>), time: Duration) {
            self.hands.advance(time.saturating_sub(SECOND));
            assert!(!self.is_past(segment), "too early");
            self.hands.advance(SECOND);
            assert!(self.is_past(segment), "too late");
        }
    }

    #[test]
    fn a_segment_is_past_when_the_duration_has_passed_since_its_last_entry() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(HOUR / 2);
        // It is sealed late.
        log.lasts((last, Some(log.clock.running())), HOUR / 2);
        assert!(!log.clock.ages().is_past(last, None, Duration::MAX));
    }

    #[test]
    fn no_jump_ahead_makes_a_segment_past_early() {
        let mut log = Log::new();
        let before = log.seal();
        for _ in 0..3 {
            log.hands.jump(DAY);
            let after = log.seal();
            assert!(!log.is_past(before) && !log.is_past(after));
        }
        log.lasts(before, HOUR);
        let mut log = Log::new();
        log.seal();
        log.reopen();
        log.hands.jump(DAY);
        let after = log.seal();
        log.hands.jump(DAY);
        // As if nothing had been set, although the log is ahead by two days.
        log.lasts(after, HOUR);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_a_segment_no_longer() {
        let mut log = Log::new();
        let before = log.seal();
        log.hands.step_back(DAY);
        let after = log.seal();
        log.hands.advance(HOUR / 2);
        log.hands.step_back(DAY);
        log.lasts(before, HOUR / 2);
        assert!(log.is_past(after));
    }

    #[test]
    fn time_in_which_a_store_is_closed_counts_once_something_is_written() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(2 * HOUR);
        let found = log.reopen();
        assert!(!log.is_past((last, Some(found))), "the clock may be wrong");
        log.hands.advance(SECOND);
        log.seal();
        // A process that runs for a second every two hours.
        log.hands.advance(2 * HOUR);
        let found = log.reopen();
        assert!(log.is_past((last, Some(found))), "two processes have seen this time");
        // Without a write, it is past when the store was open for long enough.
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(2 * HOUR);
        let found = log.reopen();
        log.lasts((last, Some(found)), HOUR);
    }

    #[test]
    fn a_log_that_is_years_ahead_keeps_its_segments_no_longer() {
        let mut log = Log::new();
        log.hands.jump(1000 * DAY);
        log.clock = log.hands.clock();
        let (last, _) = log.seal();
        log.hands.step_back(1000 * DAY);
        let found = log.reopen();
        assert!(!log.is_past((last, Some(found))));
        log.lasts((last, Some(found)), HOUR);
        // The same in processes of one minute each.
        let (last, _) = log.seal();
        for minute in 0..60 {
            let found = log.reopen();
            assert!(!log.is_past((last, Some(found))), "{minute}");
            log.hands.advance(60 * SECOND);
            log.seal();
        }
        let found = log.reopen();
        assert!(log.is_past((last, Some(found))));
    }

    #[test]
    fn what_was_written_before_a_wrong_clock_goes_by_the_right_one() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(SECOND);
        log.hands.jump(DAY);
        log.reopen();
        let (ahead, _) = log.seal();
        log.hands.step_back(DAY);
        let found = log.reopen();
        assert!(!log.is_past((last, Some(found))) && !log.is_past((ahead, Some(found))));
        log.lasts((last, Some(found)), HOUR.saturating_sub(SECOND));
    }
}
