//! Whether to believe a wall clock that has jumped ahead.
//!
//! - A merge destroys expired entries, so it needs a time that is certain. A clock that has jumped
//!   ahead is believed once it has kept to the new time for a day of running time. A clock that was
//!   set back is believed immediately. Until a jump is believed, entries from before it expire as
//!   if it had not happened.
//! - A machine that has slept, or a store that was closed for a while, looks like a jump. That does
//!   no harm: entries that expired meanwhile can't be read, and are removed a day later.

/// Microseconds by which the clock may advance in one step without proof: a minute.
const SLACK: u64 = 60 * 1_000_000;

/// Microseconds for which a clock has to keep to a jump before it is believed: a day.
const PROOF: u64 = 24 * 3600 * 1_000_000;

/// How far the clock is believed to be ahead of the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Trust {
    believed: u64,
    /// The first jump ahead of `believed` that was not taken back.
    jump: Option<Jump>,
}

#[derive(Debug)]
struct Jump {
    /// When the jump was noticed, by the monotonic clock.
    at: u64,
    /// How far the clock was ahead then.
    ahead: u64,
}

impl Trust {
    /// Believes a clock that is `ahead` of the monotonic clock.
    pub(super) fn new(ahead: u64) -> Self {
        Self { believed: ahead, jump: None }
    }

    /// Believes the offset `believed`, while the clock, which may have jumped from there, is
    /// `ahead` now.
    pub(super) fn since(believed: u64, now: u64, ahead: u64) -> Self {
        let mut trust = Self::new(believed);
        trust.note(now, ahead);
        trust
    }

    /// Records how far the clock is ahead at a moment of the monotonic clock.
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
    fn small_steps_and_steps_back_are_believed_immediately() {
        let mut trust = Trust::new(10 * HOUR);
        for ahead in [10 * HOUR + SLACK, 2 * HOUR, 2 * HOUR + 1, 0] {
            trust.note(0, ahead);
            assert_eq!(trust.believed(), ahead);
        }
    }

    #[test]
    fn a_jump_is_believed_when_the_clock_has_kept_to_it() {
        let mut trust = Trust::new(HOUR);
        for (now, believed) in [(0, HOUR), (PROOF - 1, HOUR), (PROOF, 9 * HOUR)] {
            trust.note(now, 9 * HOUR);
            assert_eq!(trust.believed(), believed);
        }
    }

    #[test]
    fn each_jump_needs_its_own_proof() {
        let mut trust = Trust::new(HOUR);
        for (now, ahead, believed) in [
            (0, 9 * HOUR, HOUR),
            // A second jump.
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
    fn a_partly_reverted_jump_starts_a_new_proof() {
        let mut trust = Trust::new(HOUR);
        trust.note(0, 30 * HOUR);
        trust.note(PROOF - 1, 9 * HOUR);
        trust.note(PROOF, 9 * HOUR);
        assert_eq!(trust.believed(), HOUR);
        trust.note(2 * PROOF - 1, 9 * HOUR);
        assert_eq!(trust.believed(), 9 * HOUR);
    }
}
