//! Runs the tasks of a plan on a real store, and records every call that they make.

use std::sync::{Mutex, Weak};

use super::history::{Call, History, Moment, Outcome, Told, ToldChange};
use super::plan::{Life, Op, Role};
use super::*;
use crate::options::MergeOptions;
use crate::sync::{Ordering, yield_now};
use crate::testing::twin::CALLER;
use crate::value::Value;

/// Minimum number of disk operations during which a snapshot is held, if there are that many.
const LINGER_OPS: usize = 60;

/// Number of times that the snapshot's task yields for them.
const LINGER_TRIES: usize = 600;

#[derive(Debug, Default)]
struct Notes {
    stamp: usize,
    calls: Vec<Call>,
    told: Vec<Told>,
}

/// State shared by the tasks. No task is switched while the notes are locked.
#[derive(Clone)]
struct World {
    lab: Lab,
    keys: Arc<Vec<Vec<u8>>>,
    notes: Arc<Mutex<Notes>>,
}

/// Runs a plan in a schedule.
pub(super) fn run(plan: &Plan) -> History {
    let (lab, keys) = (plan.lab(), Arc::new(plan.keys.clone()));
    let world = World { lab: lab.clone(), keys, notes: Arc::default() };
    let mut db = lab.open_exactly();
    for op in &plan.before {
        world.call(&db, op);
    }
    if plan.reopened {
        db.close().unwrap();
        db = lab.open_exactly();
    }
    let db = Arc::new(db);
    let mut callers = Vec::new();
    let mut followers = Vec::new();
    for role in plan.roles.clone() {
        let (world, weak) = (world.clone(), Arc::downgrade(&db));
        match role {
            Role::Calls(ops) => {
                let db = Arc::clone(&db);
                let act = move || ops.iter().for_each(|op| world.call(&db, op));
                callers.push(shuttle::thread::spawn(act));
            }
            Role::Reader { refreshes } => {
                callers.push(shuttle::thread::spawn(move || world.read(refreshes)));
            }
            Role::Follower { by_prefix } => {
                followers.push(shuttle::thread::spawn(move || world.follow(&weak, by_prefix)));
            }
        }
    }
    for task in callers {
        task.join().unwrap();
    }
    let last = snapshot(&db);
    alone(db).close().unwrap();
    for task in followers {
        task.join().unwrap();
    }
    let db = lab.open_exactly();
    let reopened = snapshot(&db);
    assert_eq!(db.verify().unwrap().damage, []);
    kill(db);
    let mut notes = world.notes.lock().unwrap();
    let (calls, told) = (std::mem::take(&mut notes.calls), std::mem::take(&mut notes.told));
    History { lab, calls, told, last, reopened }
}

/// Waits until no other task holds the store.
fn alone(mut db: Arc<Bitcask>) -> Bitcask {
    loop {
        match Arc::try_unwrap(db) {
            Ok(db) => return db,
            Err(shared) => db = shared,
        }
        yield_now();
    }
}

fn pairs_of(pairs: impl Iterator<Item = Result<(Value, Value)>>) -> Pairs {
    pairs.map(Result::unwrap).map(|(key, value)| (key.into(), value.into())).collect()
}

impl World {
    fn moment(&self) -> Moment {
        let ops = self.lab.twin.op_count();
        let mut notes = self.notes.lock().unwrap();
        notes.stamp += 1;
        Moment { stamp: notes.stamp, ops }
    }

    /// Records the start of a call, and returns its number, counted from 1.
    fn begin(&self, op: &Op) -> usize {
        let began = self.moment();
        let mut notes = self.notes.lock().unwrap();
        notes.calls.push(Call { op: op.clone(), began, ended: began, outcome: Outcome::Running });
        let number = notes.calls.len();
        CALLER.with(|caller| caller.set(number as u64));
        number
    }

    fn end(&self, number: usize, outcome: Outcome) {
        CALLER.with(|caller| caller.set(0));
        let ended = self.moment();
        let mut notes = self.notes.lock().unwrap();
        let call = &mut notes.calls[number - 1];
        (call.ended, call.outcome) = (ended, outcome);
    }

    fn call(&self, db: &Bitcask, op: &Op) {
        let expected = match op {
            Op::CompareAndSwap { key, .. } => self.get(db, *key).1,
            _ => None,
        };
        let number = self.begin(op);
        let outcome = self.outcome(db, op, number, expected);
        self.end(number, outcome);
    }

    /// Returns the number of the call, and the value that it found.
    fn get(&self, db: &Bitcask, key: usize) -> (usize, Option<Vec<u8>>) {
        let number = self.begin(&Op::Get { key });
        let value = db.get(&self.keys[key]).unwrap().map(Vec::from);
        self.end(number, Outcome::Held(vec![(key, value.clone())]));
        (number, value)
    }

    fn outcome(&self, db: &Bitcask, op: &Op, number: usize, expected: Option<Vec<u8>>) -> Outcome {
        let key = |at: usize| &self.keys[at];
        let value = |at: usize| value(number, at);
        match op {
            Op::Put { key: at, life, sync } => {
                db.put_opt(key(*at), value(*at), options(*life, *sync)).unwrap();
                Outcome::Done
            }
            Op::Delete { key: at, sync } => {
                let options = options(Life::Endless, *sync);
                Outcome::Existed(db.delete_opt(key(*at), options).unwrap())
            }
            Op::Batch { changes, sync } => {
                let mut batch = Batch::new();
                for (at, put) in changes {
                    if *put {
                        batch.put(key(*at), value(*at))
                    } else {
                        batch.delete(key(*at))
                    };
                }
                db.write_opt(&batch, options(Life::Endless, *sync)).unwrap();
                Outcome::Done
            }
            Op::CompareAndSwap { key: at, put } => {
                let new = put.then(|| value(*at));
                let swapped = db.compare_and_swap(key(*at), expected.as_deref(), new.as_deref());
                Outcome::Swapped { expected, swapped: swapped.unwrap().is_ok() }
            }
            Op::Insert { key: at } => {
                Outcome::Existed(!db.put_if_absent(key(*at), value(*at)).unwrap())
            }
            Op::Update { key: at } => {
                let mut old = None;
                let change = |found: Option<&[u8]>| {
                    old = found.map(<[u8]>::to_vec);
                    Some(value(*at))
                };
                db.update(key(*at), change).unwrap();
                Outcome::Updated { old }
            }
            Op::Live { key: at, life } => Outcome::Existed(match life {
                Life::For(ttl) => db.expire(key(*at), *ttl).unwrap(),
                Life::Endless => db.persist(key(*at)).unwrap(),
            }),
            Op::Transaction { reads, by_range, changes } => {
                self.transaction(db, number, reads, *by_range, changes)
            }
            Op::RemoveAll => {
                db.delete_range(..).unwrap();
                Outcome::Done
            }
            _ => self.look(db, op).unwrap_or_else(|| tend(db, op, number)),
        }
    }

    fn transaction(
        &self,
        db: &Bitcask,
        number: usize,
        reads: &[usize],
        by_range: bool,
        changes: &[(usize, bool)],
    ) -> Outcome {
        let result = db.transaction(|tx| {
            let all = by_range.then(|| pairs_of(tx.range(..)));
            let mut keys = Vec::new();
            for at in reads {
                keys.push((*at, tx.get(&self.keys[*at])?.map(Vec::from)));
            }
            for (at, put) in changes {
                let key = &self.keys[*at];
                if *put { tx.put(key, value(number, *at)) } else { tx.delete(key) }
            }
            Ok(Outcome::Committed { keys, all })
        });
        match result {
            Err(Error::Conflict { .. }) => Outcome::Refused,
            result => result.unwrap(),
        }
    }

    /// Reads; returns `None` for an operation that does not read.
    fn look(&self, db: &Bitcask, op: &Op) -> Option<Outcome> {
        Some(match op {
            Op::Get { key } => {
                let value = db.get(&self.keys[*key]).unwrap().map(Vec::from);
                Outcome::Held(vec![(*key, value)])
            }
            Op::GetMany => {
                let values = db.get_many(&self.keys).unwrap();
                let values = values.into_iter().map(|value| value.map(Vec::from));
                Outcome::Held(values.enumerate().collect())
            }
            Op::Contains { key } => {
                Outcome::Contains(*key, db.contains_key(&self.keys[*key]).unwrap())
            }
            Op::Snapshot => Outcome::View(self.seen(&db.snapshot())),
            Op::Scan => Outcome::View(pairs_of(db.range(..))),
            Op::Iterate => {
                let pairs = snapshot(db);
                let held = self.keys.iter().map(|key| pairs.get(key).cloned()).enumerate();
                Outcome::Held(held.collect())
            }
            _ => return None,
        })
    }

    /// Returns what a snapshot shows. It must be the same each time and by every way of reading.
    fn seen(&self, snapshot: &Snapshot) -> Pairs {
        let by_key = || -> Pairs {
            let seen = |key: &Vec<u8>| Some((key.clone(), snapshot.get(key).unwrap()?.into()));
            self.keys.iter().filter_map(seen).collect()
        };
        let first = by_key();
        assert_eq!(pairs_of(snapshot.iter()), first, "a snapshot in order");
        self.linger();
        assert_eq!(by_key(), first, "a snapshot, once more");
        assert_eq!(pairs_of(snapshot.iter()), first, "a snapshot in order, read again");
        first
    }

    /// Yields until other tasks have used the disk, if they are going to.
    fn linger(&self) {
        let enough = self.lab.twin.op_count() + LINGER_OPS;
        for _ in 0..LINGER_TRIES {
            yield_now();
            if self.lab.twin.op_count() >= enough {
                return;
            }
        }
    }

    /// Reads the store from outside, like another process.
    fn read(&self, refreshes: u64) {
        let number = self.begin(&Op::Reader);
        let reader = Arc::new(self.lab.open_read_only());
        let (world, shared) = (self.clone(), Arc::clone(&reader));
        let other = shuttle::thread::spawn(move || world.look_during_refreshes(&shared, refreshes));
        let mut held = reader.snapshot();
        let mut seen = self.seen(&held);
        self.end(number, Outcome::View(seen.clone()));
        for _ in 0..refreshes {
            let number = self.begin(&Op::Reader);
            reader.refresh().unwrap();
            let snapshot = reader.snapshot();
            let new = self.seen(&snapshot);
            self.end(number, Outcome::View(new.clone()));
            assert_eq!(self.seen(&held), seen, "a reader's snapshot after a refresh");
            (held, seen) = (snapshot, new);
        }
        other.join().unwrap();
    }

    /// Reads from a reader while it is other.
    fn look_during_refreshes(&self, reader: &Reader, times: u64) {
        for _ in 0..times {
            let number = self.begin(&Op::Reader);
            let position = reader.position().place();
            let held = self.keys.iter().map(|key| reader.get(key).unwrap().map(Vec::from));
            let held = held.enumerate().collect();
            self.end(number, Outcome::Behind(position, held));
            assert_eq!(reader.verify().unwrap().damage, []);
        }
    }

    /// Follows the store from now to its end, and looks up each key that it receives.
    fn follow(&self, db: &Weak<Bitcask>, by_prefix: bool) {
        let prefix = by_prefix.then(|| self.keys[0].clone());
        let begin = || {
            let db = db.upgrade()?;
            let (since, changes) = loop {
                let since = db.position();
                match db.changes(since) {
                    // A merge or a clear came in between.
                    Err(error) if error.needs_resync() => {}
                    changes => break (since, changes.unwrap()),
                }
            };
            let changes = changes.prefix(prefix.as_deref().unwrap_or_default());
            let (since, prefix) = (since.place(), prefix.clone());
            Some((changes, Told { since, changes: Vec::new(), prefix, to_the_end: false }))
        };
        while let Some((mut changes, mut told)) = begin() {
            told.to_the_end = loop {
                match changes.recv() {
                    Ok(None) => break true,
                    Ok(Some(change)) => self.note(&mut told, &change, db),
                    Err(error) => {
                        assert!(error.needs_resync(), "{error}");
                        break false;
                    }
                }
            };
            let is_over = told.to_the_end;
            self.notes.lock().unwrap().told.push(told);
            if is_over {
                return;
            }
        }
    }

    /// Records a change that a follower received, and that a lookup shows it or a later one.
    fn note(&self, told: &mut Told, change: &Change, db: &Weak<Bitcask>) {
        let value = match &change.operation {
            Operation::Put { value, .. } => Some(value.to_vec()),
            Operation::Delete => None,
        };
        let key = change.key.to_vec();
        let at = self.keys.iter().position(|it| *it == key).unwrap();
        let get = db.upgrade().map(|db| self.get(&db, at).0);
        told.changes.push(ToldChange { key, value, get });
    }
}

/// Does the work of background threads, and rare operations.
fn tend(db: &Bitcask, op: &Op, number: usize) -> Outcome {
    let inner = &db.inner;
    match op {
        Op::Seal => drop(inner.seal_due()),
        Op::SyncDue => drop(inner.sync_and_mark_due()),
        Op::Sync => db.sync().unwrap(),
        Op::Prepare => drop(inner.prepare_due()),
        Op::Fill => drop(inner.fill_due()),
        Op::Index => drop(inner.write_index().unwrap()),
        Op::MergeAll => match db.merge_opt(MergeOptions::new().force(true)) {
            Err(Error::MergesPaused) => return Outcome::Refused,
            result => drop(result.unwrap()),
        },
        Op::Pause { steps } => {
            let pauses = &inner.writer().unwrap().merging.pauses;
            let pause = db.pause_merges().unwrap();
            for _ in 0..=*steps {
                assert!(
                    pauses.works.load(Ordering::Relaxed) == 0,
                    "a merge is at work during a pause"
                );
                yield_now();
            }
            drop(pause);
        }
        Op::MergeSome { segments } => {
            let sealed = db.segments();
            let is_chosen = |at: &usize| segments >> (at % 64) & 1 == 1;
            let ids = (0..sealed.len()).filter(is_chosen).map(|at| sealed[at].id);
            match db.merge_opt(MergeOptions::new().segments(ids.collect::<Vec<_>>())) {
                // Another merge has taken the segment meanwhile.
                Err(Error::InvalidOption { .. } | Error::MergesPaused) => return Outcome::Refused,
                result => drop(result.unwrap()),
            }
        }
        Op::Backup => drop(db.backup(backup(number)).unwrap()),
        Op::Verify => assert_eq!(db.verify().unwrap().damage, []),
        Op::Clear => db.clear().unwrap(),
        Op::Figures => {
            let stats = db.stats();
            assert!(stats.live_size <= stats.log_size, "{stats:?}");
            for segment in db.segments() {
                assert!(segment.live_size <= segment.size, "{segment:?}");
            }
        }
        _ => unreachable!("{op:?} is not background work"),
    }
    Outcome::Done
}

fn options(life: Life, sync: bool) -> WriteOptions {
    let options = match life {
        Life::For(ttl) => WriteOptions::new().ttl(ttl),
        Life::Endless => WriteOptions::new(),
    };
    if sync { options.durable(true) } else { options }
}

/// Returns a value that no other call writes.
pub(super) fn value(call: usize, key: usize) -> Vec<u8> {
    let mut value = format!("{call}:{key}").into_bytes();
    value.resize(value.len() + (call * 37 + key * 11) % 60, b'.');
    value
}

/// Returns the path of a call's backup.
pub(super) fn backup(call: usize) -> PathBuf {
    PathBuf::from(format!("/backup{call}"))
}
