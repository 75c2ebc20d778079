//! Whether threads hold guards, as far as others have to know before they free anything.
//!
//! - A thread with its own stripe enters and leaves with a load and a store. Ordering these against
//!   the loads in between is up to `epoch::barrier`.
//! - Threads that share a stripe form a crowd, and enter and leave with atomic additions. The crowd
//!   has two sides, only one of which is entered at a time, so that the other one empties however
//!   many threads come (as in Linux's sleepable read-copy-update).
//! - Presence orders what it guards, so its atomics are those that checkers know.

#![cfg_attr(all(test, shuttle), expect(dead_code, reason = "all tasks share one thread"))]

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// Bits of a presence that hold the number of guards. No memory has room for more.
const DEPTH: u64 = (1 << 32) - 1;
/// Number that is added when the last guard is dropped.
const VISIT: u64 = 1 << 32;
/// Bits of a presence that are all zero in one of 128 visits.
const OCCASIONALLY: u64 = 127 * VISIT;

/// Whether one thread holds guards, and since when. Only this thread changes it.
///
/// The lower half is the number of its guards, the upper half that of its earlier visits.
#[derive(Debug)]
pub(crate) struct Presence(AtomicU64);

/// A visit that was under way when it was looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit(u64);

impl Presence {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds a guard of the calling thread. Returns `true` for the first guard in one of 128 visits.
    #[inline]
    pub(crate) fn enter(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        // A thread that sees this visit may free what the one before has protected.
        self.0.store(word.wrapping_add(1), Ordering::Release);
        word & (OCCASIONALLY | DEPTH) == 0
    }

    /// Removes a guard of the calling thread.
    #[inline]
    pub(crate) fn leave(&self) {
        let word = self.0.load(Ordering::Relaxed).wrapping_sub(1);
        let left = if word & DEPTH == 0 { word.wrapping_add(VISIT) } else { word };
        // A thread that sees this may free what the guard has protected.
        self.0.store(left, Ordering::Release);
    }

    /// Returns the visit that is under way, if there is one.
    pub(crate) fn visit(&self) -> Option<Visit> {
        let word = self.0.load(Ordering::Acquire);
        (word & DEPTH > 0).then_some(Visit(word))
    }

    /// Returns whether a visit is over. What the thread has read during it was read before.
    pub(crate) fn is_over(&self, visit: Visit) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word & DEPTH == 0 || word & !DEPTH != visit.0 & !DEPTH
    }
}

/// How many guards are held by threads that share a stripe.
#[derive(Debug)]
pub(crate) struct Crowd {
    sides: [AtomicUsize; 2],
    /// Number of times that the side to enter has changed.
    turns: AtomicUsize,
}

/// The side of a crowd on which a guard was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CrowdSide {
    Even,
    Odd,
}

/// Waiting until each guard that was in the crowd is dropped.
#[derive(Debug)]
pub(crate) struct CrowdWait {
    side: CrowdSide,
    is_last: bool,
}

impl CrowdSide {
    /// Returns the side to enter after so many turns.
    fn after(turns: usize) -> Self {
        if turns.is_multiple_of(2) { Self::Even } else { Self::Odd }
    }
}

impl Crowd {
    pub(super) fn new() -> Self {
        Self { sides: [AtomicUsize::new(0), AtomicUsize::new(0)], turns: AtomicUsize::new(0) }
    }

    fn count(&self, side: CrowdSide) -> &AtomicUsize {
        let [even, odd] = &self.sides;
        match side {
            CrowdSide::Even => even,
            CrowdSide::Odd => odd,
        }
    }

    /// Adds a guard. The caller has to order this before its loads.
    pub(crate) fn enter(&self) -> CrowdSide {
        let side = CrowdSide::after(self.turns.load(Ordering::Relaxed));
        self.count(side).fetch_add(1, Ordering::SeqCst);
        side
    }

    /// Removes a guard.
    pub(crate) fn leave(&self, side: CrowdSide) {
        self.count(side).fetch_sub(1, Ordering::Release);
    }

    /// Starts to wait.
    pub(crate) fn wait(&self) -> CrowdWait {
        CrowdWait { side: self.turn(), is_last: false }
    }

    /// Lets later guards enter on the other side. Returns the side that empties.
    fn turn(&self) -> CrowdSide {
        CrowdSide::after(self.turns.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns whether all guards that were in the crowd when the wait started have left: once both
    /// sides were seen empty. A guard that was about to enter may do so on either side.
    pub(crate) fn is_over(&self, wait: &mut CrowdWait) -> bool {
        while self.count(wait.side).load(Ordering::Acquire) == 0 {
            if wait.is_last {
                return true;
            }
            *wait = CrowdWait { side: self.turn(), is_last: true };
        }
        false
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_over_when_its_last_guard_is_dropped() {
        let presence = Presence::new();
        assert!(presence.visit().is_none());
        presence.enter();
        let visit = presence.visit().unwrap();
        presence.enter();
        assert!(!presence.is_over(visit));
        presence.leave();
        assert!(!presence.is_over(visit));
        presence.leave();
        assert!(presence.is_over(visit) && presence.visit().is_none());
        // Another visit is not the same one.
        presence.enter();
        assert!(presence.is_over(visit) && presence.visit().is_some());
    }

    #[test]
    fn one_in_128_visits_is_told() {
        let presence = Presence::new();
        let told = (0..1280).filter(|_| {
            let is_told = presence.enter();
            presence.leave();
            is_told
        });
        assert_eq!(told.count(), 10);
    }

    #[test]
    fn waiting_for_a_crowd_waits_for_both_sides_and_not_for_later_guards() {
        let crowd = Crowd::new();
        let before = crowd.enter();
        let mut wait = crowd.wait();
        let later = crowd.enter();
        assert!(!crowd.is_over(&mut wait));
        crowd.leave(before);
        // The other side is not empty, but nothing more enters it.
        assert!(!crowd.is_over(&mut wait));
        let last = crowd.enter();
        crowd.leave(later);
        assert!(crowd.is_over(&mut wait));
        crowd.leave(last);
        assert!(crowd.is_over(&mut crowd.wait()));
    }

    /// A thread that has read the number of turns, and is about to count itself.
    #[test]
    fn a_guard_that_enters_on_the_side_that_empties_is_not_missed() {
        let crowd = Crowd::new();
        let (old, mut first) = (CrowdSide::Even, crowd.wait());
        assert!(crowd.is_over(&mut first));
        crowd.count(old).fetch_add(1, Ordering::SeqCst);
        let mut second = crowd.wait();
        assert!(!crowd.is_over(&mut second) && !crowd.is_over(&mut second));
        crowd.leave(old);
        assert!(crowd.is_over(&mut second));
    }
}
