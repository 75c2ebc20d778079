//! One round: a new store, threads of all kinds, and a check of the state after the store was
//! closed and reopened.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitcask::{Bitcask, MergeOptions, MergePolicy, Options, Position, ReadOnly};

use super::actor::{Actor, Counters, Layout, Notes, SHORT, Shared, tag};
use super::history::{Act, Op, Told, complete};
use super::linear::disorder;
use super::load::{processors, spin, step_back};
use crate::support::{Random, in_memory, small};

/// The parameters of a round, derived from its seed.
#[derive(Debug)]
pub(super) struct Plan {
    seed: u64,
    layout: Layout,
    segment_size: u64,
    writers: u64,
    readers: u64,
    followers: u64,
    /// Number of threads that only keep processors busy.
    spinners: u64,
    /// Number of writers that run at the lowest priority.
    slow: u64,
    merges: bool,
    backups: bool,
    clears: bool,
}

impl Plan {
    pub(super) fn new(seed: u64, merges: bool) -> Self {
        let mut random = Random(seed);
        let mut below = |limit: u64| random.below(limit);
        let writers = 3 + below(3);
        let (plain, narrow) = (8 + below(17), 2 + below(3));
        let wide = if below(3) == 0 { 40 } else { 4 };
        let slow = if below(5) > 0 { writers.div_ceil(2) } else { 0 };
        Self {
            seed,
            layout: Layout::new(plain, &[narrow, wide]),
            segment_size: 2048 << below(3),
            writers,
            readers: 1 + below(2),
            followers: 1 + below(2),
            spinners: below(3) * processors().div_ceil(2),
            slow,
            merges,
            backups: below(2) == 0,
            clears: below(4) == 0,
        }
    }
}

/// The result of a round.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Number of operations on keys, in all histories.
    pub(super) ops: u64,
    /// Number of merges that had something to do.
    pub(super) merges: u64,
    pub(super) violations: Vec<String>,
}

/// Amount of work in a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    /// Number of times that the store is closed and reopened.
    pub(super) generations: u64,
    /// Number of steps of each writer between two reopenings.
    pub(super) writes: u64,
    /// The same for writers of the lowest priority.
    pub(super) slow_writes: u64,
    pub(super) reads: u64,
}

/// Prints the round's plan if the round panics.
struct Named<'a>(&'a Plan);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("in round {:?}", self.0);
        }
    }
}

/// Counts a writer as done however it ends, because other threads wait for that.
struct Writing<'a>(&'a AtomicU64);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Plays a round. Repeatedly, the threads do their work, and the store is read, closed, reopened
/// and read again.
pub(super) fn play(plan: &Plan, steps: Steps) -> Outcome {
    let _named = Named(plan);
    let home = in_memory();
    let path = home.path().join("store");
    let open = || {
        let options: Options = small().segment_size(plan.segment_size);
        Bitcask::open(&path, options.merge_policy(MergePolicy::Manual)).unwrap()
    };
    let counters = Counters::default();
    let look = |db: &Bitcask, thread, call| {
        let shared = Shared { db, layout: &plan.layout, counters: &counters };
        let mut actor = Actor::new(&shared, plan.seed, thread);
        actor.read_all(call);
        actor.notes
    };
    let mut outcome = Histories::new(&plan.layout);
    let mut db = open();
    for generation in 0..steps.generations {
        let first = generation * 100;
        let shared = Shared { db: &db, layout: &plan.layout, counters: &counters };
        let mut notes = work(plan, steps, &shared, home.path(), first);
        outlast(SHORT);
        let gone = counters.stamp();
        notes.push(look(&db, first + 90, "look at the end"));
        db.close().unwrap();
        db = open();
        notes.push(look(&db, first + 91, "look after reopening"));
        outcome.add(notes, gone);
    }
    let mut notes = Vec::new();
    if plan.merges {
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        notes.push(look(&db, 1, "look after a last merge"));
    }
    db.close().unwrap();
    notes.push(look(&open(), 2, "look after the last opening"));
    outcome.add(notes, counters.stamp());
    outcome.judge(&plan.layout, counters.merges.into_inner())
}

/// Waits until twice a time has passed, so that it is over by any clock.
fn outlast(time: Duration) {
    let over = Instant::now() + time * 2;
    while Instant::now() < over {
        thread::yield_now();
    }
}

/// Lets all threads do their work, and returns their notes. The threads are numbered from `first`.
fn work(plan: &Plan, steps: Steps, shared: &Shared<'_>, home: &Path, first: u64) -> Vec<Notes> {
    let actor = |thread| Actor::new(shared, plan.seed, first + thread);
    shared.counters.writers.store(plan.writers, Ordering::SeqCst);
    shared.counters.progress.store(0, Ordering::Relaxed);
    thread::scope(|scope| {
        let mut actors = Vec::new();
        for number in 0..plan.writers {
            actors.push(scope.spawn(move || {
                let _writing = Writing(&shared.counters.writers);
                if number < plan.slow {
                    step_back();
                }
                let mut actor = actor(1 + number);
                actor.write(if number < plan.slow { steps.slow_writes } else { steps.writes });
                actor.notes
            }));
        }
        for number in 0..plan.readers {
            actors.push(scope.spawn(move || {
                let mut actor = actor(20 + number);
                actor.read(steps.reads);
                actor.notes
            }));
        }
        for number in 0..plan.followers {
            actors.push(scope.spawn(move || {
                let mut actor = actor(40 + number);
                actor.follow(Position::START);
                actor.notes
            }));
        }
        actors.push(scope.spawn(move || {
            let mut actor = actor(60);
            keep_house(plan, &mut actor, home);
            actor.notes
        }));
        for _ in 0..plan.spinners {
            scope.spawn(|| spin(|| shared.is_over()));
        }
        if plan.merges {
            actors.push(scope.spawn(move || {
                let mut actor = actor(80);
                merge(&mut actor);
                actor.notes
            }));
        }
        actors.into_iter().map(|actor| actor.join().unwrap()).collect()
    })
}

/// Merges all the time.
fn merge(actor: &mut Actor<'_>) {
    let (mut failed, mut first) = (0, None);
    for number in 0_u64.. {
        if actor.shared.is_over() {
            break;
        }
        match actor.db().merge_opt(MergeOptions::new().force(number % 5 > 0)) {
            Ok(report) => {
                let counted = u64::from(report.segments_in > 0);
                actor.shared.counters.merges.fetch_add(counted, Ordering::Relaxed);
            }
            Err(error) => {
                failed += 1;
                first.get_or_insert(error);
            }
        }
        thread::yield_now();
    }
    if let Some(first) = first {
        actor.complain(format!("{failed} merges failed, the first with: {first}"));
    }
}

/// Syncs again and again. If the plan says so, also backs up and clears, each after some more steps
/// of the writers.
fn keep_house(plan: &Plan, actor: &mut Actor<'_>, home: &Path) {
    const BETWEEN: u64 = 20;
    let mut next = BETWEEN;
    while !actor.shared.is_over() {
        if actor.shared.counters.progress.load(Ordering::Relaxed) < next {
            thread::yield_now();
            continue;
        }
        next += BETWEEN;
        actor.db().sync().unwrap();
        let number = next / BETWEEN;
        if plan.backups && number.is_multiple_of(3) {
            back_up(actor, &home.join(format!("backup {} {number}", actor.thread)));
        }
        if plan.clears && number % 3 == 1 {
            let (span, result) = actor.timed(Bitcask::clear);
            result.unwrap();
            for register in 0..plan.layout.registers() {
                actor.note(register, span, "clear", Act::Write(None));
            }
        }
    }
}

/// Makes a backup and records its content, which is the store's state at one moment of the call.
/// Values with a time to live may have expired when the backup is opened, so absence says nothing,
/// except for a group.
fn back_up(actor: &mut Actor<'_>, path: &Path) {
    let layout = actor.shared.layout;
    let (span, result) = actor.timed(|db| db.backup(path));
    result.unwrap();
    let backup = ReadOnly::open(path, small()).unwrap();
    let found: Vec<_> = (0..layout.keys())
        .map(|at| backup.get(layout.name(at)).unwrap().map(|value| tag(at, &value)))
        .collect();
    for (at, found) in found.iter().enumerate() {
        if found.is_some() || at >= layout.plain {
            actor.note(at, span, "backup", Act::Saw(*found));
        }
    }
    for group in 0..layout.groups.len() {
        let found = &found[layout.members(group)];
        if actor.is_whole(group, "backup", found) {
            actor.note(layout.keys() + group, span, "backup", Act::Saw(found[0]));
        }
    }
}

/// The notes of all threads, by key.
#[derive(Debug)]
struct Histories {
    ops: Vec<Vec<Op>>,
    /// The values that each follower received.
    told: Vec<Vec<Vec<Told>>>,
    wrong: Vec<String>,
}

impl Histories {
    fn new(layout: &Layout) -> Self {
        let len = layout.registers();
        Self { ops: vec![Vec::new(); len], told: vec![Vec::new(); len], wrong: Vec::new() }
    }

    /// Adds the notes of a period at whose end all short lifetimes were over.
    fn add(&mut self, notes: Vec<Notes>, gone: u64) {
        for Notes { ops, told, wrong } in notes {
            self.wrong.extend(wrong);
            for (register, mut op) in ops {
                op.act.end_short_life(gone);
                self.ops[register].push(op);
            }
            for (register, values) in told {
                self.told[register].push(values);
            }
        }
    }

    /// Searches for an order, key by key.
    fn judge(self, layout: &Layout, merges: u64) -> Outcome {
        let mut outcome = Outcome { merges, ..Outcome::default() };
        for (register, (mut ops, told)) in self.ops.into_iter().zip(self.told).enumerate() {
            outcome.ops += ops.len() as u64;
            let mut wrong = complete(&mut ops, &told);
            wrong.extend(disorder(&ops));
            let name = layout.name(register);
            outcome.violations.extend(wrong.into_iter().map(|wrong| format!("{name}: {wrong}")));
        }
        outcome.violations.extend(self.wrong);
        outcome
    }
}
