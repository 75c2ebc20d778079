//! Checks that each call has appended what it had to. The content of the log is the reference for
//! everything else.

use super::history::Outcome;
use super::judge::{Judge, Seen};
use super::order::{Made, Step};
use super::plan::{Life, Op};
use super::tasks::value;
use super::*;

/// What a call had to append for a key.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Nothing,
    /// The call's value.
    Put,
    /// A tombstone, unless the key was absent.
    Delete,
    /// The present value, or nothing if that would change nothing.
    Again {
        must: bool,
    },
    /// A tombstone, or nothing.
    Maybe,
}

impl Judge<'_> {
    /// Returns whether the store was empty at some moment of a call.
    fn was_empty(&self, at: usize) -> bool {
        let call = &self.history.calls[at];
        let written = |ops: usize| self.order.0.iter().filter(|step| step.written <= ops).count();
        let mut moments = written(call.began.ops)..=written(call.ended.ops);
        moments.any(|len| self.order.state(len).is_empty())
    }

    /// Checks that a call has appended what it should, and nothing else.
    pub(super) fn appended(&self, at: usize, seen: &Seen) {
        let call = &self.history.calls[at];
        let mut own = BTreeMap::new();
        let mut cleared = 0;
        let mut steps: Vec<_> =
            (0..).zip(&self.order.0).filter(|(_, step)| step.call == at + 1).collect();
        for (_, step) in &steps {
            match &step.change {
                Made::Clear => cleared += 1,
                Made::Entry { key, value, expiry, .. } => {
                    let twice = own.insert(key.clone(), value.clone());
                    assert!(twice.is_none(), "call {} appended {key:?} twice", at + 1);
                    if value.is_some() && !self.is_life(at, *expiry) {
                        self.fail(at, &format!("it appended an expiry of {expiry:?}"));
                    }
                }
            }
        }
        let last = steps.pop().map(|(last, _)| last);
        let is_batch = matches!(call.op, Op::Batch { .. } | Op::Transaction { .. });
        for (place, (len, step)) in (0..).zip(&steps) {
            let goes_on = continues(step);
            // The changes of one call form one batch, without a gap.
            if is_batch && (!goes_on || last != Some(len + steps.len() - place)) {
                self.fail(at, "its changes do not form one batch");
            }
        }
        let ends = last.is_none_or(|last| !continues(&self.order.0[last]));
        if !ends || !is_batch && steps.iter().any(|(_, step)| continues(step)) {
            self.fail(at, "it appended an unfinished batch");
        }
        let is_right = match call.op {
            // A clear of an empty store leaves the log unchanged.
            Op::Clear => cleared == 1 || cleared == 0 && self.was_empty(at),
            _ => cleared == 0,
        };
        if !is_right {
            self.fail(at, "it cleared the store unexpectedly, or failed to");
        }
        for key in 0..self.plan.keys.len() {
            let found = own.get(self.key(key));
            let is_right = match self.wanted(at, key) {
                Wanted::Nothing => found.is_none(),
                Wanted::Put => found == Some(&Some(value(at + 1, key))),
                Wanted::Again { must } => match found {
                    None => !must,
                    Some(value) => {
                        value.is_some() && value.as_ref() == self.before(at).get(self.key(key))
                    }
                },
                Wanted::Maybe => found.is_none_or(Option::is_none),
                // An expired key counts as absent, but a delete of it is written.
                Wanted::Delete => match found {
                    None => self.may_be_absent(at, key, seen),
                    Some(value) => value.is_none(),
                },
            };
            if !is_right {
                self.fail(at, &format!("for {:?} it appended {found:?}", self.key(key)));
            }
        }
    }

    /// Returns what a returned call had to append for a key.
    fn wanted(&self, at: usize, key: usize) -> Wanted {
        let call = &self.history.calls[at];
        let last = |changes: &[(usize, bool)]| {
            let own = changes.iter().rfind(|(other, _)| *other == key);
            own.map_or(Wanted::Nothing, |(_, put)| if *put { Wanted::Put } else { Wanted::Delete })
        };
        match (&call.op, &call.outcome) {
            (_, Outcome::Refused) => Wanted::Nothing,
            (Op::RemoveAll, _) if self.is_removed(at, key) => Wanted::Delete,
            (Op::RemoveAll, _) => Wanted::Maybe,
            (Op::Batch { changes, .. } | Op::Transaction { changes, .. }, _) => last(changes),
            (Op::Put { key: own, .. } | Op::Update { key: own }, _) if *own == key => Wanted::Put,
            (Op::Insert { key: own }, Outcome::Existed(false)) if *own == key => Wanted::Put,
            (Op::Delete { key: own, .. }, _) if *own == key => Wanted::Delete,
            (Op::Live { key: own, life }, Outcome::Existed(true)) if *own == key => {
                Wanted::Again { must: matches!(life, Life::For(_)) }
            }
            (Op::CompareAndSwap { key: own, put }, Outcome::Swapped { swapped: true, .. })
                if *own == key =>
            {
                if *put {
                    Wanted::Put
                } else {
                    Wanted::Delete
                }
            }
            _ => Wanted::Nothing,
        }
    }

    /// Returns whether a call's puts should have this expiry. The clock stands still.
    fn is_life(&self, at: usize, expiry: Option<u64>) -> bool {
        let life = match &self.history.calls[at].op {
            Op::Put { life, .. } | Op::Live { life, .. } => *life,
            _ => Life::Endless,
        };
        let now = self.history.lab.hands.clock().now();
        let wanted = match life {
            Life::For(ttl) => Some(now + u64::try_from(ttl.as_micros()).unwrap()),
            Life::Endless => None,
        };
        expiry == wanted
    }

    /// Returns the state before a call's first change, or the final state if it made none.
    fn before(&self, at: usize) -> Pairs {
        let first = self.order.0.iter().position(|step| step.call == at + 1);
        self.order.state(first.unwrap_or(self.order.0.len()))
    }

    /// Returns whether a key was absent when a call made its changes, or at some moment of a call
    /// without changes.
    fn may_be_absent(&self, at: usize, key: usize, seen: &Seen) -> bool {
        let key = self.key(key);
        if self.order.0.iter().any(|step| step.call == at + 1) {
            return !self.before(at).contains_key(key);
        }
        let least = seen.by_key.get(key).copied().unwrap_or(0).max(seen.all);
        (least..=self.most(at)).any(|len| !self.order.state(len).contains_key(key))
    }

    /// Returns whether a call that removes everything has removed a key, or had to because no other
    /// call changed the key meanwhile.
    fn is_removed(&self, at: usize, key: usize) -> bool {
        let key = self.key(key);
        let own = |step: &order::Step| match &step.change {
            Made::Clear => true,
            Made::Entry { key: other, .. } => other == key,
        };
        let call = &self.history.calls[at];
        let before = self.order.0.iter().take_while(|step| step.written <= call.began.ops).count();
        let most = self.most(at);
        let (during, exists) =
            (&self.order.0[before..most], self.order.state(before).contains_key(key));
        let by_others = during.iter().any(|step| step.call != at + 1 && own(step));
        let by_this = during.iter().any(|step| step.call == at + 1 && own(step));
        by_this || exists && !by_others
    }
}

fn continues(step: &Step) -> bool {
    matches!(step.change, Made::Entry { continues: true, .. })
}
