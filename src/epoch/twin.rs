//! A collector for models and schedules. It promises what `own` promises, and as little more as
//! possible. Each store has its own, as without models.
//!
//! - A thread that starts to wait notes the guards that exist. The wait is over when none of them
//!   is left.
//! - A thread that pins after that sees everything that the waiting thread had seen. When the wait
//!   is over, the waiting thread sees everything that the awaited readers have done. The collector
//!   orders nothing else: the rest of it is hidden from the model checker.
//! - Loading a pointer after its target was freed panics immediately.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Core;
use crate::counters::Stripe;
use crate::sync::{AtomicUsize, Ordering};

#[derive(Default)]
pub(super) struct Machine {
    /// Released by a thread that starts to wait, and acquired by every later pin.
    awaited: AtomicUsize,
    /// Released by a thread that unpins, and acquired by a thread whose wait is over.
    unpinned: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    guards: BTreeSet<usize>,
    next_guard: usize,
    /// The addresses of freed values.
    freed: BTreeSet<usize>,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_made<T>(&self, pointer: *const T) {
        self.state().freed.remove(&pointer.addr());
    }

    pub(super) fn note_freed<T>(&self, pointer: *const T) {
        assert!(self.state().freed.insert(pointer.addr()), "freed twice");
    }
}

/// Models and schedules have no barriers.
pub(crate) fn move_to_other_side() {}

/// All threads of a model share a stripe.
pub(super) fn stripe(core: &Arc<Core>) -> &Stripe {
    core.stripes.shared()
}

pub(super) struct Entered {
    number: usize,
    core: Arc<Core>,
}

impl Entered {
    pub(super) fn new(core: &Arc<Core>, _: &Stripe) -> Self {
        core.machine.awaited.fetch_add(0, Ordering::Acquire);
        let mut state = core.machine.state();
        state.next_guard += 1;
        let number = state.next_guard;
        state.guards.insert(number);
        drop(state);
        Self { number, core: Arc::clone(core) }
    }

    pub(super) fn leave(&self, core: &Core, _: &Stripe) {
        core.machine.unpinned.fetch_add(0, Ordering::Release);
        core.machine.state().guards.remove(&self.number);
    }

    pub(super) fn check<T>(&self, pointer: *const T) {
        let state = self.core.machine.state();
        assert!(!state.freed.contains(&pointer.addr()), "read after it was freed");
    }
}

/// The guards to wait for.
pub(super) struct Wait(BTreeSet<usize>);

impl Wait {
    #[expect(clippy::unnecessary_wraps, reason = "it may fail without models")]
    pub(super) fn new(core: &Core) -> Option<Self> {
        core.machine.awaited.fetch_add(0, Ordering::AcqRel);
        Some(Self(core.machine.state().guards.clone()))
    }

    pub(super) fn is_over(&mut self, core: &Core) -> bool {
        core.machine.unpinned.fetch_add(0, Ordering::Acquire);
        self.0.is_disjoint(&core.machine.state().guards)
    }
}
