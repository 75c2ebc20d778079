//! Whether a clock is to be believed that shows a later time than it did.
//!
//! - A merge destroys what has expired, so it goes by a time that is certain. A clock that has jumped
//!   ahead is believed once it has stood by that for a day of running time; one that is set back is
//!   believed at once. Until then an entry from before the jump counts as it did without the jump.
//! - A machine that has slept, and a store that was closed for a while, look the same. Nothing is lost
//!   by that: what has expired meanwhile can't be read, and goes a day later.

/// The clock may go ahead by so many microseconds at once: a minute.
const SLACK: u64 = 60 * 1_000_000;

/// Microseconds for which a clock has to stand by a jump before it is believed: a day.
const PROOF: u64 = 24 * 3600 * 1_000_000;

/// How far the clock is believed to be ahead of the monotonic one.
#[derive(Debug, Default)]
pub(super) struct Trust {
    believed: u64,
    /// The first jump from there that was not taken back.
    jump: Option<Jump>,
}

#[derive(Debug)]
struct Jump {
    /// When it was seen, by the monotonic clock.
    at: u64,
    /// How far the clock was ahead then.
    ahead: u64,
}

impl Trust {
    /// Believes a clock.
    pub(super) fn new(ahead: u64) -> Self {
        Self { believed: ahead, jump: None }
    }

    /// Believes a time, from where a clock may have jumped that is `ahead`, now.
    pub(super) fn since(believed: u64, now: u64, ahead: u64) -> Self {
        let mut trust = Self::new(believed);
        trust.note(now, ahead);
        trust
    }

    /// Notes how far the clock is ahead at a moment of the monotonic one.
    pub(super) fn note(&mut self, now: u64, ahead: u64) {
        if ahead <= self.believed.saturating_add(SLACK) {
            *self = Self::new(ahead);
            return;
        }
        let stands = |jump: &Jump| ahead.saturating_add(SLACK) >= jump.ahead;
        match self.jump.take().filter(stands) {
            Some(jump) if now.saturating_sub(jump.at) >= PROOF => {
                *self = Self::since(jump.ahead.min(ahead), now, ahead);
            }
            Some(jump) => self.jump = Some(jump),
            None => self.jump = Some(Jump { at: now, ahead }),
        }
    }

    pub(super) fn believed(&self) -> u64 {
        self.believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = PROOF / 24;

    #[test]
    fn small_steps_and_steps_back_are_believed_at_once() {
        let mut trust = Trust::new(10 * HOUR);
        for ahead in [10 * HOUR + SLACK, 2 * HOUR, 2 * HOUR + 1, 0] {
            trust.note(0, ahead);
            assert_eq!(trust.believed(), ahead);
        }
    }

    #[test]
    fn a_jump_is_believed_when_the_clock_has_stood_by_it() {
        let mut trust = Trust::new(HOUR);
        for (now, believed) in [(0, HOUR), (PROOF - 1, HOUR), (PROOF, 9 * HOUR)] {
            trust.note(now, 9 * HOUR);
            assert_eq!(trust.believed(), believed);
        }
    }

    #[test]
    fn each_jump_is_proved_for_itself() {
        let mut trust = Trust::new(HOUR);
        for (now, ahead, believed) in [
            (0, 9 * HOUR, HOUR),
            // A second one.
            (HOUR, 20 * HOUR, HOUR),
            (PROOF, 20 * HOUR, 9 * HOUR),
            (2 * PROOF - 1, 20 * HOUR, 9 * HOUR),
            (2 * PROOF, 20 * HOUR, 20 * HOUR),
        ] {
            trust.note(now, ahead);
            assert_eq!(trust.believed(), believed, "at {now}");
        }
    }

    #[test]
    fn a_jump_that_is_taken_back_in_part_is_another() {
        let mut trust = Trust::new(HOUR);
        trust.note(0, 30 * HOUR);
        trust.note(PROOF - 1, 9 * HOUR);
        trust.note(PROOF, 9 * HOUR);
        assert_eq!(trust.believed(), HOUR);
        trust.note(2 * PROOF - 1, 9 * HOUR);
        assert_eq!(trust.believed(), 9 * HOUR);
    }
}
