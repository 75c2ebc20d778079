//! Judges whether the record of a run is possible, given the order in which changes were appended.
//!
//! - Each call takes effect at one moment between its start and its end; a change takes effect
//!   where its entry lies. A call sees everything that calls had returned for before it began. What
//!   one call has seen is never newer than what a later call sees.
//! - A look at one key sees some number of that key's changes. A view sees some number of all
//!   changes, with batches as a whole. Since the order of changes is given, the judge continues
//!   with the smallest number that fits, and needs no search.
//! - A crash leaves the result of a prefix of the changes: after a kill, all written changes; after
//!   a power cut, at least the durable ones.

use super::history::{Call, History, Outcome};
use super::order::{Made, Order};
use super::plan::Op;
use super::tasks::backup;
use super::*;

/// Number of kills and power cuts after which each schedule is judged.
const CRASHES: usize = 2;

pub(super) struct Judge<'a> {
    pub(super) plan: &'a Plan,
    pub(super) history: &'a History,
    pub(super) order: Order,
    /// For each call, the number of changes that it is known to have seen when it ended, by key and
    /// in views of everything.
    seen: Vec<Seen>,
}

/// The smallest number of changes that a call has seen, counted among all changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) by_key: BTreeMap<Vec<u8>, usize>,
    /// Of all keys.
    pub(super) all: usize,
}

/// Judges a run.
pub(super) fn all(plan: &Plan, history: &History, random: &mut Random) {
    let now = history.lab.hands.clock().now();
    let order = Order::of(history, now);
    let mut judge = Judge { plan, history, order, seen: Vec::new() };
    judge.calls();
    judge.followers();
    judge.ends();
    for _ in 0..CRASHES {
        judge.crash(random);
    }
}

impl Judge<'_> {
    pub(super) fn key(&self, at: usize) -> &Vec<u8> {
        &self.plan.keys[at]
    }

    fn calls_in_order(&self) -> Vec<usize> {
        let mut calls: Vec<usize> = (0..self.history.calls.len()).collect();
        calls.sort_by_key(|at| self.history.calls[*at].began.stamp);
        calls
    }

    /// Panics with the reason why a call's result is impossible.
    pub(super) fn fail(&self, call: usize, why: &str) -> ! {
        let changes: Vec<String> =
            (1..).zip(&self.order.0).map(|(len, step)| format!("{len}: {step:?}")).collect();
        let calls: Vec<String> = (1..)
            .zip(&self.history.calls)
            .map(|(number, call)| format!("{number}: {call:?}"))
            .collect();
        panic!(
            "call {}: {why}\nchanges:\n{}\ncalls:\n{}",
            call + 1,
            changes.join("\n"),
            calls.join("\n")
        )
    }

    /// Checks all calls in the order in which they began.
    fn calls(&mut self) {
        self.seen = vec![Seen::default(); self.history.calls.len()];
        for at in self.calls_in_order() {
            let mut seen = self.known(at);
            self.appended(at, &seen);
            match self.history.calls[at].outcome.clone() {
                Outcome::Held(held) => {
                    for (key, value) in held {
                        self.look(at, &mut seen, key, |state| state == value.as_ref());
                    }
                }
                Outcome::Contains(key, exists) => {
                    self.look(at, &mut seen, key, |state| state.is_some() == exists);
                }
                Outcome::Behind(position, held) => self.behind(at, position, &held),
                Outcome::View(pairs) => self.view(at, &mut seen, |state| *state == pairs),
                outcome => self.changed(at, &mut seen, &outcome),
            }
            for (len, step) in (1..).zip(&self.order.0).filter(|(_, step)| step.call == at + 1) {
                match &step.change {
                    Made::Clear => seen.all = seen.all.max(len),
                    Made::Entry { key, .. } => {
                        let by_key = seen.by_key.entry(key.clone()).or_default();
                        *by_key = len.max(*by_key);
                    }
                }
            }
            self.seen[at] = seen;
        }
    }

    /// Returns what is known to have been seen when a call began.
    fn known(&self, at: usize) -> Seen {
        let began = self.history.calls[at].began.stamp;
        let is_reader = matches!(self.history.calls[at].op, Op::Reader);
        let mut known = Seen::default();
        for (other, call) in self.history.calls.iter().enumerate() {
            // A reader may see changes on disk that are not published yet.
            let is_measure = is_reader || !matches!(call.op, Op::Reader);
            if other != at && call.ended.stamp < began && is_measure {
                let seen = &self.seen[other];
                known.all = known.all.max(seen.all);
                for (key, len) in &seen.by_key {
                    let by_key = known.by_key.entry(key.clone()).or_default();
                    *by_key = (*by_key).max(*len);
                }
            }
        }
        known
    }

    /// Returns the number of changes that could be seen when a call ended.
    pub(super) fn most(&self, at: usize) -> usize {
        let ended = self.history.calls[at].ended.ops;
        self.order.0.iter().take_while(|step| step.written <= ended).count()
    }

    /// Checks what a call has found of one key.
    fn look(
        &self,
        at: usize,
        seen: &mut Seen,
        key: usize,
        is_it: impl Fn(Option<&Vec<u8>>) -> bool,
    ) {
        let key = self.key(key);
        let least = seen.by_key.get(key).copied().unwrap_or(0).max(seen.all);
        let fits = (least..=self.most(at)).find(|len| is_it(self.order.state(*len).get(key)));
        let Some(len) = fits else {
            self.fail(at, &format!("{key:?}: no state after {least} or more changes matches"));
        };
        // Changes of other keys do not show when the lookup was.
        let own = |step: &&order::Step| match &step.change {
            Made::Clear => true,
            Made::Entry { key: other, .. } => other == key,
        };
        let found = self.order.0[..len].iter().rposition(|step| own(&step));
        let by_key = seen.by_key.entry(key.clone()).or_default();
        *by_key = (*by_key).max(found.map_or(0, |found| found + 1));
    }

    /// Checks what a reader found of keys after it had reached a position.
    fn behind(&self, at: usize, position: Place, held: &[(usize, Option<Vec<u8>>)]) {
        let all_of = self.order.0.iter().take_while(|step| step.place < position);
        let mut seen = Seen { all: all_of.count(), ..Seen::default() };
        for (key, value) in held {
            self.look(at, &mut seen, *key, |state| state == value.as_ref());
        }
    }

    /// Checks what a call has seen of everything.
    fn view(&self, at: usize, seen: &mut Seen, is_it: impl Fn(&Pairs) -> bool) {
        let least = seen.by_key.values().copied().fold(seen.all, usize::max);
        let is_whole = |len: &usize| self.order.whole(*len) == *len;
        let mut lens = (least..=self.most(at)).filter(is_whole);
        let Some(len) = lens.find(|len| is_it(&self.order.state(*len))) else {
            self.fail(at, &format!("no state after {least} or more changes matches"));
        };
        seen.all = seen.all.max(len);
    }

    /// Checks what a call that may have changed something reports about the state before.
    fn changed(&self, at: usize, seen: &mut Seen, outcome: &Outcome) {
        let first = self.order.0.iter().position(|step| step.call == at + 1);
        let before = first.map(|first| self.order.state(first));
        let check =
            |key: usize, seen: &mut Seen, is_it: &dyn Fn(Option<&Vec<u8>>) -> bool| match &before {
                Some(before) if !is_it(before.get(self.key(key))) => {
                    self.fail(at, "the value that the change was based on had changed");
                }
                Some(_) => {}
                None => self.look(at, seen, key, is_it),
            };
        match (&self.history.calls[at].op, outcome) {
            (
                Op::Delete { key, .. } | Op::Insert { key } | Op::Live { key, .. },
                Outcome::Existed(existed),
            ) => check(*key, seen, &|value| value.is_some() == *existed),
            (Op::CompareAndSwap { key, .. }, Outcome::Swapped { expected, swapped }) => {
                check(*key, seen, &|value| (value == expected.as_ref()) == *swapped);
            }
            (Op::Update { key }, Outcome::Updated { old }) => {
                check(*key, seen, &|value| value == old.as_ref());
            }
            (_, Outcome::Committed { keys, all }) => {
                let is_it = |state: &Pairs| {
                    keys.iter().all(|(key, value)| state.get(self.key(*key)) == value.as_ref())
                        && all.as_ref().is_none_or(|all| all == state)
                };
                match &before {
                    Some(before) if !is_it(before) => {
                        self.fail(at, "the values that the transaction read had changed");
                    }
                    Some(_) => {}
                    None => self.view(at, seen, is_it),
                }
            }
            (Op::Backup, Outcome::Done) => {
                let copy = self.history.lab.open_at(&backup(at + 1));
                let pairs = snapshot(&copy);
                kill(copy);
                self.view(at, seen, |state| *state == pairs);
            }
            _ => {}
        }
    }

    /// Checks that followers received all changes in order, and none too early.
    fn followers(&self) {
        for told in &self.history.told {
            let wanted = |step: &&order::Step| match &step.change {
                Made::Clear => false,
                Made::Entry { key, .. } => {
                    step.place >= told.since
                        && told.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
                }
            };
            let mut wanted = (1..).zip(&self.order.0).filter(|(_, step)| wanted(step));
            for change in &told.changes {
                let next = wanted.next();
                let Some((len, order::Step { change: Made::Entry { key, value, .. }, .. })) = next
                else {
                    panic!("a follower received {change:?} after the last change");
                };
                assert_eq!(
                    (&change.key, &change.value),
                    (key, value),
                    "the change that a follower received"
                );
                if let Some(get) = change.get {
                    // The change was published before the follower received it.
                    let mut seen = self.known(get - 1);
                    let by_key = seen.by_key.entry(key.clone()).or_default();
                    *by_key = (*by_key).max(len);
                    let Outcome::Held(held) = &self.history.calls[get - 1].outcome else {
                        unreachable!("a follower's call is a lookup")
                    };
                    let (key, value) = &held[0];
                    self.look(get - 1, &mut seen, *key, |state| state == value.as_ref());
                }
            }
            let left: Vec<_> = wanted.collect();
            assert!(!told.to_the_end || left.is_empty(), "a follower did not receive {left:?}");
        }
    }

    /// Checks the store's content after all tasks were done, and after reopening.
    fn ends(&self) {
        let all = self.order.state(self.order.0.len());
        if self.history.last != all {
            self.fail(0, &format!("the final content was {:?}, not {all:?}", self.history.last));
        }
        if self.history.reopened != all {
            let found = &self.history.reopened;
            self.fail(0, &format!("the content after reopening was {found:?}, not {all:?}"));
        }
    }

    /// Kills the process or cuts the power at some moment, and opens what is left.
    fn crash(&self, random: &mut Random) {
        let twin = &self.history.lab.twin;
        let ops = usize::try_from(random.below(twin.op_count() as u64 + 1)).unwrap();
        let written = self.order.0.iter().take_while(|step| step.written <= ops).count();
        let most = self.order.whole(written);
        let is_kill = random.below(3) == 0;
        let (image, least) = if is_kill {
            (twin.kill_image(ops), most)
        } else {
            let mercy = random.below(4);
            let image = twin.power_image(ops, |_| random.below(4) < mercy);
            (image, self.durable(ops).min(most))
        };
        let lab = self.history.lab.on(image);
        let when = if is_kill { "killed" } else { "power lost" };
        let db = match lab.try_open_exactly() {
            Ok(db) => db,
            Err(error) => self.fail(0, &format!("{when} after {ops} operations: {error}")),
        };
        let found = snapshot(&db);
        kill(db);
        let allowed = (least..=most).any(|len| self.order.state(len) == found);
        if !allowed {
            let why = format!(
                "{when} after {ops} operations, of which {least} to {most} changes are left: {found:?}"
            );
            self.fail(0, &why);
        }
    }

    /// Returns the number of changes that returned calls have made durable by some operation.
    fn durable(&self, ops: usize) -> usize {
        let is_always = self.plan.options.sync_policy == SyncPolicy::Always;
        let of_call = |at: usize, call: &Call| -> usize {
            // A reported absence survives a power cut, too.
            let absent = |key: usize| self.seen[at].by_key.get(self.key(key)).copied().unwrap_or(0);
            let own = self.order.0.iter().rposition(|step| step.call == at + 1);
            let own = own.map_or(0, |last| last + 1);
            let before = call.began.ops;
            match &call.op {
                Op::Sync => self.order.0.iter().take_while(|step| step.written <= before).count(),
                Op::Clear => own,
                Op::RemoveAll if is_always => own,
                Op::Delete { key, sync } if own == 0 && (*sync || is_always) => absent(*key),
                Op::Put { sync, .. } | Op::Delete { sync, .. } | Op::Batch { sync, .. }
                    if *sync || is_always =>
                {
                    own
                }
                Op::Update { .. }
                | Op::Insert { .. }
                | Op::CompareAndSwap { .. }
                | Op::Transaction { .. }
                | Op::Live { .. }
                    if is_always =>
                {
                    own
                }
                _ => 0,
            }
        };
        let calls = self.history.calls.iter().enumerate();
        let over =
            calls.filter(|(_, call)| call.ended.ops <= ops && call.ended.stamp > call.began.stamp);
        over.map(|(at, call)| of_call(at, call)).max().unwrap_or(0)
    }
}
