//! A store that is written to, and the states that a power cut at any moment may leave.
//!
//! - Operations are rolled with dice: pseudo-random numbers, or the bytes of a fuzzer.
//! - [`Run::points`] records, for each moment of the disk's trace, which states are allowed after
//!   it. What was acknowledged and what is durable follows only from the results of calls, never
//!   from what the store reports about itself.

use super::super::story::Random;
use super::super::*;
use crate::TransactionOptions;
use crate::merge::Merge;
use crate::options::MergeOptions;
use crate::value::Value;

/// A source of choices.
pub(super) trait Dice {
    /// Returns a number below the limit, which must not be zero.
    fn below(&mut self, limit: u64) -> u64;

    /// Returns whether nothing is left to roll.
    fn is_over(&self) -> bool;
}

/// Any number of rolls.
impl Dice for Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.below(limit)
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Bytes, one for each roll.
impl Dice for &[u8] {
    fn below(&mut self, limit: u64) -> u64 {
        let Some((first, rest)) = self.split_first() else { return 0 };
        *self = rest;
        u64::from(*first) % limit
    }

    fn is_over(&self) -> bool {
        self.is_empty()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Op {
    Put {
        key: usize,
        size: usize,
        ttl: Option<u64>,
        sync: bool,
    },
    Delete {
        key: usize,
        sync: bool,
    },
    /// Replaces the value if it is as expected, or fails if it is not. `None` as the size means a
    /// delete.
    CompareAndSwap {
        key: usize,
        right: bool,
        size: Option<usize>,
        ttl: Option<u64>,
        sync: bool,
    },
    /// Stores a part of the present value and a new one, or deletes the key if there is no size.
    Update {
        key: usize,
        size: Option<usize>,
        sync: bool,
    },
    /// A put that keeps the key's time to live.
    Keep {
        key: usize,
        size: usize,
        sync: bool,
    },
    /// Sets another time to live, or removes it.
    Expire {
        key: usize,
        ttl: Option<u64>,
    },
    /// Puts, or deletes where there is no size.
    Batch {
        changes: Vec<(usize, Option<usize>)>,
        sync: bool,
    },
    /// The same changes by a transaction that has read all keys, one by one or in order.
    Transaction {
        changes: Vec<(usize, Option<usize>)>,
        by_range: bool,
        sync: bool,
    },
    /// Takes a snapshot if there is none; otherwise reads it in order and drops it. Files that a
    /// merge removed meanwhile are then still on disk, and indexes are created.
    Snapshot,
    Sync,
    /// Replaces the sync policy by one of [`POLICIES`].
    SetSyncPolicy {
        policy: usize,
    },
    /// Does what the threads that prepare, seal and sync would do now.
    Work,
    /// Writes a lone mark.
    Mark,
    /// Begins to merge the sealed segments whose bits are set.
    BeginMerge {
        segments: u64,
    },
    Merge {
        steps: u64,
    },
    /// Merges everything that is sealed, in one go.
    MergeAll,
    Backup,
    Clear,
    /// Closes and reopens.
    Reopen,
    /// Kills the process, and reopens the store.
    Kill,
    Advance {
        seconds: u64,
    },
}

/// Sync policies that a run may change to. The interval is over at each look.
const POLICIES: [SyncPolicy; 3] =
    [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_nanos(1)), SyncPolicy::Always];

/// The parameters of a run, besides its operations.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) options: Options,
    pub(super) keys: usize,
    /// Maximum size of a value, in bytes.
    pub(super) size_max: u64,
    pub(super) weak_hash: bool,
}

impl Op {
    pub(super) fn roll(dice: &mut impl Dice, setting: &Setting) -> Self {
        let keys = setting.keys as u64;
        let kind = dice.below(64);
        let key = |dice: &mut dyn FnMut(u64) -> u64| usize::try_from(dice(keys)).unwrap();
        let mut roll = |limit| dice.below(limit);
        let size = |roll: &mut dyn FnMut(u64) -> u64| match roll(8) {
            0 => 0,
            1 => usize::try_from(roll(setting.size_max)).unwrap(),
            _ => usize::try_from(roll(setting.size_max.min(40))).unwrap(),
        };
        match kind {
            0..=18 => Self::Put {
                key: key(&mut roll),
                size: size(&mut roll),
                ttl: (roll(8) == 0).then(|| roll(40)),
                sync: roll(12) == 0,
            },
            19..=21 => Self::CompareAndSwap {
                key: key(&mut roll),
                right: roll(4) > 0,
                size: (roll(4) > 0).then(|| size(&mut roll)),
                ttl: (roll(8) == 0).then(|| roll(40)),
                sync: roll(12) == 0,
            },
            22..=28 => Self::Delete { key: key(&mut roll), sync: roll(12) == 0 },
            29..=30 => Self::Update {
                key: key(&mut roll),
                size: (roll(4) > 0).then(|| size(&mut roll)),
                sync: roll(12) == 0,
            },
            31..=32 => Self::Expire { key: key(&mut roll), ttl: (roll(4) > 0).then(|| roll(40)) },
            33..=41 => {
                let change = |roll: &mut dyn FnMut(u64) -> u64| {
                    (key(roll), (roll(3) > 0).then(|| size(roll)))
                };
                let changes = (0..=roll(4)).map(|_| change(&mut roll)).collect();
                let (sync, by_range) = (roll(12) == 0, roll(2) == 0);
                if roll(2) == 0 {
                    return Self::Batch { changes, sync };
                }
                Self::Transaction { changes, by_range, sync }
            }
            42 => Self::Sync,
            43..=46 => Self::Work,
            47 => Self::Snapshot,
            48 => Self::Mark,
            49..=50 => Self::BeginMerge { segments: roll(256) | roll(256) },
            51..=55 => Self::Merge { steps: 1 + roll(4) },
            56..=57 => Self::MergeAll,
            58 => Self::Backup,
            59 => match roll(4) {
                0 => Self::Clear,
                1 => Self::SetSyncPolicy { policy: usize::try_from(roll(3)).unwrap() },
                _ => Self::Keep { key: key(&mut roll), size: size(&mut roll), sync: roll(12) == 0 },
            },
            60 => Self::Reopen,
            61 => Self::Kill,
            62 => Self::Advance { seconds: roll(30) },
            _ => Self::Put { key: key(&mut roll), size: size(&mut roll), ttl: None, sync: true },
        }
    }

    fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Put { .. }
                | Self::Delete { .. }
                | Self::CompareAndSwap { .. }
                | Self::Update { .. }
                | Self::Keep { .. }
                | Self::Expire { .. }
                | Self::Batch { .. }
                | Self::Transaction { .. }
                | Self::Clear
        )
    }
}

/// The states that may be left at a moment of the trace, by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// The oldest state that a power cut may leave.
    pub(super) durable: usize,
    /// The oldest state that the death of the process may leave.
    pub(super) acknowledged: usize,
    /// The newest allowed state, which is the one after the current call.
    pub(super) latest: usize,
    /// The clock's time.
    pub(super) now: u64,
    /// Number of backups that have returned.
    pub(super) backups: usize,
}

/// A finished run: the disk with its trace, and what is allowed at each moment of it.
pub(super) struct Run {
    pub(super) lab: Lab,
    pub(super) keys: Vec<Vec<u8>>,
    /// The state before the first write and after each one.
    pub(super) states: Vec<Model>,
    /// By the number of completed disk operations.
    pub(super) points: Vec<Point>,
    /// Directories in which backups were begun, each with the number of the state in it.
    pub(super) backups: Vec<(PathBuf, usize)>,
    /// The changes, of a store that keeps history.
    #[cfg(test)]
    pub(super) feed: Vec<super::history::Recorded>,
}

/// A run in progress.
struct Running {
    run: Run,
    db: Option<Bitcask>,
    merge: Option<Merge>,
    snapshot: Option<(Snapshot, Pairs)>,
    values: usize,
    /// The current sync policy.
    policy: SyncPolicy,
    now: Point,
}

impl Run {
    /// Runs the operations on an empty disk.
    pub(super) fn of(setting: &Setting, ops: &[Op]) -> Self {
        let lab = if setting.weak_hash { Lab::weak() } else { Lab::new() };
        let lab = lab.with(setting.options.clone()).seeded(7);
        let now = lab.hands.clock().now();
        let now = Point { durable: 0, acknowledged: 0, latest: 0, now, backups: 0 };
        let keys = (0..setting.keys).map(|at| vec![b'a' + u8::try_from(at).unwrap(); at * 3]);
        let run = Self {
            lab,
            keys: keys.collect(),
            states: vec![Model::new()],
            points: Vec::new(),
            backups: Vec::new(),
            #[cfg(test)]
            feed: Vec::new(),
        };
        let policy = run.lab.options.sync_policy;
        let (db, merge, snapshot, values) = (None, None, None, 0);
        let mut running = Running { run, db, merge, snapshot, values, policy, now };
        running.open();
        for op in ops {
            running.step(op);
        }
        running.kill();
        running.reached();
        running.run
    }
}

fn pairs_of(pairs: impl Iterator<Item = Result<(Value, Value)>>) -> Pairs {
    pairs.map(Result::unwrap).map(|(key, value)| (key.into(), value.into())).collect()
}

impl Running {
    fn db(&self) -> &Bitcask {
        self.db.as_ref().unwrap()
    }

    /// Fills in the current point for all moments up to now that have none yet.
    fn reached(&mut self) {
        self.run.points.resize(self.run.lab.twin.op_count() + 1, self.now);
    }

    fn model(&self) -> Model {
        self.run.states.last().unwrap().clone()
    }

    /// Returns a value that no other write stores.
    fn value(&mut self, size: usize) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{:05}", self.values).into_bytes();
        value.resize(size.max(5), u8::try_from(self.values % 251).unwrap());
        if size == 0 { Vec::new() } else { value }
    }

    fn step(&mut self, op: &Op) {
        self.reached();
        let is_always = self.policy == SyncPolicy::Always;
        let is_interval = matches!(self.policy, SyncPolicy::Interval(_));
        let mut after = self.model();
        let is_durable = match op {
            // A refused swap does not wait for durability.
            Op::CompareAndSwap { right: false, .. } => false,
            Op::Put { sync, .. }
            | Op::Delete { sync, .. }
            | Op::CompareAndSwap { sync, .. }
            | Op::Update { sync, .. }
            | Op::Keep { sync, .. }
            | Op::Batch { sync, .. }
            | Op::Transaction { sync, .. } => *sync || is_always,
            Op::Expire { .. } => is_always,
            Op::Sync | Op::SetSyncPolicy { .. } | Op::Clear | Op::Reopen | Op::Kill => true,
            Op::Work => is_interval,
            _ => false,
        };
        self.now.latest += usize::from(op.is_write());
        self.call(op, &mut after);
        // During the call, its write may already have been present.
        self.reached();
        if op.is_write() {
            self.run.states.push(after);
            self.now.acknowledged = self.now.latest;
        }
        if is_durable {
            self.now.durable = self.now.acknowledged;
        }
        #[cfg(test)]
        if let Some(db) = &self.db {
            super::history::record(db, &mut self.run.feed);
        }
        self.now.now = self.run.lab.hands.clock().now();
        *self.run.points.last_mut().unwrap() = self.now;
    }

    fn call(&mut self, op: &Op, after: &mut Model) {
        match op {
            Op::Sync => self.db().sync().unwrap(),
            Op::SetSyncPolicy { policy } => {
                self.policy = POLICIES[*policy];
                self.db().set_sync_policy(self.policy).unwrap();
            }
            Op::Work => drop(self.db().inner.work()),
            Op::Snapshot => self.snapshot(),
            Op::Mark => self.db().inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap(),
            Op::BeginMerge { segments } => self.begin_merge(*segments),
            Op::Merge { steps } => self.merge(*steps),
            Op::MergeAll => {
                self.stop_merge();
                self.db().merge_opt(MergeOptions::new().force(true)).unwrap();
            }
            Op::Backup => {
                self.stop_merge();
                let path = PathBuf::from(format!("/backup{}", self.run.backups.len()));
                self.run.backups.push((path.clone(), self.now.acknowledged));
                self.db().backup(&path).unwrap();
                // Counts only from here on: at the moments within the call, the backup need not be
                // complete yet.
                self.reached();
                self.now.backups += 1;
            }
            Op::Clear => {
                self.merge = None;
                self.db().clear().unwrap();
                after.clear();
            }
            Op::Reopen => {
                self.stop_merge();
                self.db.take().unwrap().close().unwrap();
                self.open();
            }
            Op::Kill => {
                self.kill();
                self.open();
            }
            Op::Advance { seconds } => self.run.lab.hands.advance(Duration::from_secs(*seconds)),
            _ => self.write(op, after),
        }
    }

    /// Opens the store, with the policy that its options name.
    fn open(&mut self) {
        self.db = Some(self.run.lab.open_exactly());
        self.policy = self.run.lab.options.sync_policy;
    }

    /// A killed process drops nothing.
    fn kill(&mut self) {
        self.merge = None;
        if let Some((snapshot, _)) = self.snapshot.take() {
            std::mem::forget(snapshot);
        }
        kill(self.db.take().unwrap());
    }

    fn snapshot(&mut self) {
        if let Some((snapshot, pairs)) = self.snapshot.take() {
            assert_eq!(pairs_of(snapshot.iter()), pairs);
            return;
        }
        let pairs = visible(&self.model(), self.db().inner.clock.now());
        self.snapshot = Some((self.db().snapshot(), pairs));
    }

    /// Makes changes in a transaction that reads everything first.
    fn transaction(&mut self, changes: &[(usize, Option<Vec<u8>>)], by_range: bool, sync: bool) {
        let pairs = visible(&self.model(), self.db().inner.clock.now());
        let mut options = TransactionOptions::new().attempts(1);
        if sync {
            options = options.durable(true);
        }
        let keys = &self.run.keys;
        let result = self.db().transaction_opt(options, |tx| {
            if by_range {
                assert_eq!(pairs_of(tx.range(..)), pairs);
            } else {
                for key in keys {
                    assert_eq!(tx.get(key)?.map(Vec::from).as_ref(), pairs.get(key));
                }
            }
            for (at, value) in changes {
                match value {
                    Some(value) => tx.put(&keys[*at], value),
                    None => tx.delete(&keys[*at]),
                }
            }
            Ok(())
        });
        result.unwrap();
    }

    fn write(&mut self, op: &Op, after: &mut Model) {
        let key = |key: &usize| self.run.keys[*key].clone();
        match op {
            Op::Put { key: at, size, ttl, sync } => {
                let key = key(at);
                let value = self.value(*size);
                self.db().put_opt(&key, &value, options(*ttl, *sync)).unwrap();
                after.insert(key, Stored { value, expiry: self.expiry(*ttl) });
            }
            Op::Delete { key: at, sync } => {
                let key = key(at);
                self.db().delete_opt(&key, options(None, *sync)).unwrap();
                after.remove(&key);
            }
            Op::Batch { changes, sync } => {
                let mut batch = Batch::new();
                for (at, size) in changes {
                    let key = self.run.keys[*at].clone();
                    if let Some(size) = size {
                        let value = self.value(*size);
                        batch.put(&key, &value);
                        after.insert(key, Stored { value, expiry: None });
                    } else {
                        batch.delete(&key);
                        after.remove(&key);
                    }
                }
                self.db().write_opt(&batch, options(None, *sync)).unwrap();
            }
            Op::Transaction { changes, by_range, sync } => {
                let mut new = Vec::new();
                for (at, size) in changes {
                    let key = self.run.keys[*at].clone();
                    let value = size.map(|size| self.value(size));
                    match value.clone() {
                        Some(value) => after.insert(key, Stored { value, expiry: None }),
                        None => after.remove(&key),
                    };
                    new.push((*at, value));
                }
                self.transaction(&new, *by_range, *sync);
            }
            Op::CompareAndSwap { key: at, .. }
            | Op::Update { key: at, .. }
            | Op::Keep { key: at, .. }
            | Op::Expire { key: at, .. } => self.change(op, key(at), after),
            _ => unreachable!("this operation is not a write"),
        }
    }

    /// A write that depends on the present value.
    fn change(&mut self, op: &Op, key: Vec<u8>, after: &mut Model) {
        let mut pairs = visible(after, self.db().inner.clock.now());
        let old = pairs.remove(&key);
        let new = match op {
            Op::CompareAndSwap { right, size, ttl, sync, .. } => {
                let new = size.map(|size| self.value(size));
                let wrong = Some(b"never".to_vec());
                let expected = if *right { old.as_deref() } else { wrong.as_deref() };
                let (new_value, options) = (new.as_deref(), options(*ttl, *sync));
                let swapped = self.db().compare_and_swap_opt(&key, expected, new_value, options);
                assert_eq!(swapped.unwrap().is_ok(), *right);
                if !right {
                    return;
                }
                new.map(|value| Stored { value, expiry: self.expiry(*ttl) })
            }
            Op::Update { size, sync, .. } => {
                let new = size.map(|size| {
                    let mut value = old.unwrap_or_default();
                    value.truncate(100);
                    value.extend(self.value(size));
                    value
                });
                let stored = self.db().update_opt(&key, options(None, *sync), |_| new.as_ref());
                assert_eq!(stored.unwrap().map(Vec::from), new);
                new.map(|value| Stored { value, expiry: None })
            }
            Op::Keep { size, sync, .. } => {
                let value = self.value(*size);
                let keep = options(None, *sync).keep_ttl(true);
                self.db().put_opt(&key, &value, keep).unwrap();
                let kept = old.is_some().then(|| after.get(&key).and_then(|stored| stored.expiry));
                Some(Stored { value, expiry: kept.flatten() })
            }
            Op::Expire { ttl, .. } => {
                let exists = match ttl {
                    Some(ttl) => self.db().expire(&key, Duration::from_secs(*ttl)).unwrap(),
                    None => self.db().persist(&key).unwrap(),
                };
                assert_eq!(exists, old.is_some());
                let Some(value) = old else { return };
                Some(Stored { value, expiry: self.expiry(*ttl) })
            }
            _ => unreachable!("this operation does not depend on the present value"),
        };
        match new {
            Some(new) => after.insert(key, new),
            None => after.remove(&key),
        };
    }

    /// Returns the expiry of a key that was written just now.
    fn expiry(&self, ttl: Option<u64>) -> Option<u64> {
        ttl.map(|ttl| self.db().inner.clock.now() + ttl * 1_000_000)
    }

    fn begin_merge(&mut self, segments: u64) {
        self.stop_merge();
        self.merge = Some(begin_merge(self.db(), segments));
    }

    fn merge(&mut self, steps: u64) {
        let Some(mut merge) = self.merge.take() else { return };
        let inner = &self.db.as_ref().unwrap().inner;
        for _ in 0..steps {
            if merge.step(&**inner).unwrap().is_none() {
                return;
            }
        }
        self.merge = Some(merge);
    }

    fn stop_merge(&mut self) {
        if let Some(mut merge) = self.merge.take() {
            merge.publish(&*self.db().inner).unwrap();
        }
    }
}

fn options(ttl: Option<u64>, sync: bool) -> WriteOptions {
    let mut options = WriteOptions::new();
    if let Some(ttl) = ttl {
        options = options.ttl(Duration::from_secs(ttl));
    }
    if sync { options.durable(true) } else { options }
}
