//! Which guards exist, and when all guards of a time are dropped.
//!
//! - A thread enters its stripe when it pins, and leaves it when it drops the last guard. Both are
//!   a load and a store on a cache line of its own.
//! - A thread that wants to free something first looks which threads are present, behind a barrier
//!   that all threads pass. Threads that were absent see that it is unlinked. It can be freed when
//!   each of the others has left once.

use std::sync::Arc;

use super::{Core, barrier};
use crate::counters::{CrowdSide, CrowdWait, Stripe, Visit};

pub(crate) use super::barrier::move_to_other_side;
pub(super) use super::handles::stripe;

/// What a guard has entered.
#[derive(Debug)]
pub(super) struct Entered {
    /// The side of the crowd, if the thread shares its stripe.
    side: Option<CrowdSide>,
}

/// The guards to wait for.
pub(super) struct Wait {
    visits: Vec<(Arc<Stripe>, Visit)>,
    crowd: CrowdWait,
}

#[derive(Debug, Default)]
pub(super) struct Machine;

/// What models check.
#[expect(clippy::unused_self, reason = "models keep the pointers")]
impl Machine {
    pub(super) fn note_made<T>(&self, _: *const T) {}

    pub(super) fn note_freed<T>(&self, _: *const T) {}
}

impl Entered {
    #[expect(clippy::inline_always, reason = "every get pins")]
    #[inline(always)]
    pub(super) fn new(core: &Arc<Core>, stripe: &Stripe) -> Self {
        if stripe.is_shared() {
            return Self::of_crowd(core);
        }
        let is_occasion = stripe.presence.enter();
        barrier::of_reader();
        if is_occasion {
            core.look_in_passing();
        }
        Self { side: None }
    }

    #[cold]
    #[inline(never)]
    fn of_crowd(core: &Core) -> Self {
        let side = core.stripes.crowd().enter();
        barrier::of_reader();
        core.look_in_passing();
        Self { side: Some(side) }
    }

    #[inline]
    pub(super) fn leave(&self, core: &Core, stripe: &Stripe) {
        match self.side {
            None => stripe.presence.leave(),
            Some(side) => core.stripes.crowd().leave(side),
        }
    }

    /// In models, checks that a pointer was not freed.
    #[expect(clippy::unused_self, reason = "models know the pointers")]
    #[inline]
    pub(super) fn check<T>(&self, _: *const T) {}
}

impl Wait {
    /// Finds the guards that exist. Returns `None` if that is impossible now.
    pub(super) fn new(core: &Core) -> Option<Self> {
        let look = || {
            let visits = core.stripes.visits()?;
            Some(Self { visits, crowd: core.stripes.crowd().wait() })
        };
        barrier::of_other_side(look).flatten()
    }

    /// Returns whether all of them are dropped.
    pub(super) fn is_over(&mut self, core: &Core) -> bool {
        self.visits.retain(|(stripe, visit)| !stripe.presence.is_over(*visit));
        self.visits.is_empty() && core.stripes.crowd().is_over(&mut self.crowd)
    }
}
