//! The age of log segments, for history that is kept for a duration.
//!
//! - A wall clock that jumps ahead must not end history early, and one that is set back must not
//!   keep it forever.
//! - For a segment that this process has sealed, the monotonic clock counts from the seal. Nothing
//!   can set that clock, though it stops while the machine sleeps.
//! - For a segment of an earlier process, the time is over as soon as either of two clocks shows
//!   it. The first is the monotonic clock, counted from the opening of the store.
//! - The second uses the times of entries, and the same boundary as [`Clock::certain`]. Times below
//!   it are compared with the believed time of day (see `trust`). Later ones were written while the
//!   clock was ahead, or after a jump that is not believed yet. They are compared with the log's
//!   own time: the last time in the log when the store was opened, plus the time since then.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Clock, Now};

/// The moment at which the age of history is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    by_times: Now,
    steady: u64,
    opened: u64,
}

impl Clock {
    /// Returns the time of the monotonic clock, in microseconds.
    pub(crate) fn running(&self) -> u64 {
        self.monotonic()
    }

    /// Returns the present moment, for judging the age of history.
    pub(crate) fn ages(&self) -> Ages {
        let Now { low, boundary, .. } = self.certain();
        let steady = self.monotonic();
        let opened = self.ahead.opened.load(Ordering::Relaxed);
        let log = steady.saturating_add(self.ahead.log.load(Ordering::Relaxed));
        Ages { by_times: Now { low, high: low.max(log), boundary }, steady, opened }
    }
}

impl Ages {
    /// Returns whether a segment has certainly ended longer than `duration` ago. The arguments are
    /// its last timestamp, and when this process sealed it by the monotonic clock, or `None` if an
    /// earlier process wrote it.
    pub(crate) fn is_past(
        &self,
        last_timestamp: u64,
        sealed_at: Option<u64>,
        duration: Duration,
    ) -> bool {
        let duration = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let end = |since: u64| since.saturating_add(duration);
        if let Some(sealed_at) = sealed_at {
            return end(sealed_at) <= self.steady;
        }
        self.by_times.is_over(last_timestamp, end(last_timestamp))
            || end(self.opened) <= self.steady
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

        /// Closes the store and opens it.
        fn reopen(&mut self) {
            self.clock = self.hands.clock();
            self.clock.resume(self.last);
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
    fn a_segment_is_past_when_the_duration_has_passed_since_its_seal() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(HOUR / 2);
        // The segment is sealed late.
        log.lasts((last, Some(log.clock.running())), HOUR);
        assert!(!log.clock.ages().is_past(last, None, Duration::MAX));
    }

    #[test]
    fn a_segment_of_an_earlier_process_ages_from_its_last_entry() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(SECOND);
        log.reopen();
        log.seal();
        log.lasts((last, None), HOUR.saturating_sub(SECOND));
    }

    /// The wall clock is believed if it advances by less than a minute at a time.
    #[test]
    fn no_clock_that_is_too_fast_makes_a_segment_past_early() {
        let mut log = Log::new();
        let sealed = log.seal();
        for _ in 0..59 {
            log.hands.advance(SECOND);
            log.hands.jump(59 * SECOND);
            log.seal();
            assert!(!log.is_past(sealed));
        }
        log.lasts(sealed, HOUR.saturating_sub(59 * SECOND));
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
        // As if the clock had never been set, although the log is ahead by two days.
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
        log.reopen();
        assert!(!log.is_past((last, None)), "the clock may be wrong");
        log.hands.advance(SECOND);
        log.seal();
        // A process that runs for a second every two hours.
        log.hands.advance(2 * HOUR);
        log.reopen();
        assert!(log.is_past((last, None)), "two processes have seen this time");
        // Without a write, it is past when the store was open for long enough.
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(2 * HOUR);
        log.reopen();
        log.lasts((last, None), HOUR);
    }

    #[test]
    fn a_log_that_is_years_ahead_keeps_its_segments_no_longer() {
        let mut log = Log::new();
        log.hands.jump(1000 * DAY);
        log.clock = log.hands.clock();
        let (last, _) = log.seal();
        log.hands.step_back(1000 * DAY);
        log.reopen();
        assert!(!log.is_past((last, None)));
        log.lasts((last, None), HOUR);
        // The same in processes of one minute each.
        let (last, _) = log.seal();
        for minute in 0..60 {
            log.reopen();
            assert!(!log.is_past((last, None)), "{minute}");
            log.hands.advance(60 * SECOND);
            log.seal();
        }
        log.reopen();
        assert!(log.is_past((last, None)));
    }

    #[test]
    fn entries_from_before_a_wrong_clock_age_by_the_right_one() {
        let mut log = Log::new();
        let (last, _) = log.seal();
        log.hands.advance(SECOND);
        log.hands.jump(DAY);
        log.reopen();
        let (ahead, _) = log.seal();
        log.hands.step_back(DAY);
        log.reopen();
        assert!(!log.is_past((last, None)) && !log.is_past((ahead, None)));
        log.lasts((last, None), HOUR.saturating_sub(SECOND));
    }
}
