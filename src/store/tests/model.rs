//! Random operations, closes, kills and power cuts, compared with a `BTreeMap`.
//!
//! - After each operation, the keys it touched are compared. After every other opening everything
//!   is compared; otherwise shards are filled only as they are touched.
//! - After a kill, the state is unchanged. After a power cut, it is the state after a prefix of the
//!   operations that includes every durable one.
//! - Some runs merge segments: any of them, by steps between the other operations, to the end or
//!   not. In these runs an expired key may have been removed, and the clock is never set back.
//!   Policies change while the store is open, and the policy of the moment merges too.
//! - The runs are reproducible. `BITCASK_LONG=10` makes ten times as many, and `BITCASK_SEED=7`
//!   makes others.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;
use crate::merge::Merge;
use crate::options::{AutoMerge, MergePolicy};

/// Default number of runs of each test.
const CASES: u32 = 100;

type Key = usize;

/// A value to be written: its size, and its time to live in seconds.
type New = (usize, Option<u64>);

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: Key,
        new: New,
        sync: Option<bool>,
    },
    Delete {
        key: Key,
        sync: Option<bool>,
    },
    Update {
        key: Key,
        new: Option<New>,
        sync: Option<bool>,
    },
    InsertNew {
        key: Key,
        new: New,
        sync: Option<bool>,
    },
    Swap {
        key: Key,
        right: bool,
        new: Option<New>,
        sync: Option<bool>,
    },
    /// A put that keeps the key's time to live, in one of several ways.
    Keep {
        key: Key,
        new: New,
        way: u8,
        sync: Option<bool>,
    },
    Expire {
        key: Key,
        ttl: u64,
    },
    Persist {
        key: Key,
    },
    Batch {
        changes: Vec<(Key, Option<New>)>,
        ttl: Option<u64>,
        sync: Option<bool>,
    },
    Clear,
    Sync,
    /// Replaces the sync policy, by number.
    SetSyncPolicy {
        policy: usize,
    },
    /// Replaces the merge policy, by one that merges whatever is dead, or by none.
    SetMergePolicy {
        eager: bool,
    },
    /// Does what the thread that merges would do now.
    MergeDue,
    Work,
    Mark,
    Advance {
        seconds: u64,
    },
    TurnBack {
        seconds: u64,
    },
    Reopen {
        without_hints: bool,
    },
    KillInPlace,
    KillAndCopy,
    PowerCut {
        within: u8,
        keep: u64,
    },
    /// Begins to merge the sealed segments whose bits are set.
    BeginMerge {
        segments: u64,
    },
    /// Continues the merge.
    Merge {
        steps: u8,
    },
    /// Stops the merge early.
    StopMerge,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..40_usize, 4 => 40..400_usize, 1 => 400..6000_usize]
}

fn new() -> impl Strategy<Value = New> {
    (size(), prop_oneof![4 => Just(None), 1 => (0..100_u64).prop_map(Some)])
}

fn merge_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<u64>().prop_map(|segments| Step::BeginMerge { segments }),
        6 => (1..6_u8).prop_map(|steps| Step::Merge { steps }),
        2 => Just(Step::Merge { steps: u8::MAX }),
        1 => Just(Step::StopMerge),
        1 => any::<bool>().prop_map(|eager| Step::SetMergePolicy { eager }),
        2 => Just(Step::MergeDue),
    ]
}

fn step(keys: usize) -> impl Strategy<Value = Step> {
    let key = move || 0..keys;
    let sync = || prop_oneof![6 => Just(None), 1 => any::<bool>().prop_map(Some)];
    let some_new = || prop_oneof![2 => new().prop_map(Some), 1 => Just(None)];
    let change = move || (key(), some_new());
    prop_oneof![
        24 => (key(), new(), sync()).prop_map(|(key, new, sync)| Step::Put { key, new, sync }),
        10 => (key(), sync()).prop_map(|(key, sync)| Step::Delete { key, sync }),
        5 => (key(), some_new(), sync()).prop_map(|(key, new, sync)| Step::Update { key, new, sync }),
        5 => (key(), new(), sync()).prop_map(|(key, new, sync)| Step::InsertNew { key, new, sync }),
        5 => (key(), any::<bool>(), some_new(), sync())
            .prop_map(|(key, right, new, sync)| Step::Swap { key, right, new, sync }),
        6 => (key(), new(), 0..6_u8, sync())
            .prop_map(|(key, new, way, sync)| Step::Keep { key, new, way, sync }),
        4 => (key(), 0..100_u64).prop_map(|(key, ttl)| Step::Expire { key, ttl }),
        3 => key().prop_map(|key| Step::Persist { key }),
        10 => (vec(change(), 0..6), prop_oneof![5 => Just(None), 1 => (0..50_u64).prop_map(Some)],
            sync()).prop_map(|(changes, ttl, sync)| Step::Batch { changes, ttl, sync }),
        1 => Just(Step::Clear),
        4 => Just(Step::Sync),
        2 => (0..SYNC_POLICIES.len()).prop_map(|policy| Step::SetSyncPolicy { policy }),
        5 => Just(Step::Work),
        4 => Just(Step::Mark),
        4 => (0..60_u64).prop_map(|seconds| Step::Advance { seconds }),
        2 => (0..60_u64).prop_map(|seconds| Step::TurnBack { seconds }),
        3 => any::<bool>().prop_map(|without_hints| Step::Reopen { without_hints }),
        2 => Just(Step::KillInPlace),
        2 => Just(Step::KillAndCopy),
        5 => (any::<u8>(), any::<u64>())
            .prop_map(|(within, keep)| Step::PowerCut { within, keep }),
    ]
}

/// The interval is over at each look.
const SYNC_POLICIES: [SyncPolicy; 3] =
    [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_nanos(1)), SyncPolicy::Always];

fn options() -> impl Strategy<Value = Options> {
    let [never, interval, always] = SYNC_POLICIES;
    let policy = prop_oneof![2 => Just(never), 2 => Just(interval), 1 => Just(always)];
    let entries = prop_oneof![1 => Just(u64::MAX), 1 => 1..8_u64];
    let compression = select(Compression::all());
    let ttl = prop_oneof![3 => Just(None), 1 => (0..100_u64).prop_map(Some)];
    (512..4096_u64, entries, policy, any::<bool>(), compression, ttl).prop_map(
        |(size, entries, policy, verify, compression, ttl)| {
            let options = Options::new().segment_size(size).segment_entries(entries);
            let options = options.default_ttl(ttl.map(Duration::from_secs));
            options.sync_policy(policy).verify_reads(verify).compression(compression)
        },
    )
}

/// A store and its model.
struct World {
    lab: Lab,
    /// Options for successive openings, used in rotation.
    options: Vec<Options>,
    openings: usize,
    /// `None` only while the store is being replaced.
    db: Option<Bitcask>,
    model: Model,
    /// States since the last durable one, each with the end of the log at that time.
    history: Vec<(Place, Model)>,
    /// Number of disk operations before the last step.
    ops_before: usize,
    keys: Vec<Vec<u8>>,
    writes: usize,
    /// Whether this run merges segments.
    merges: bool,
    merge: Option<Merge>,
    scan: Option<CursorScan>,
}

/// A scan by cursor that continues between steps, across closes, kills and power cuts.
#[derive(Default)]
struct CursorScan {
    cursor: u64,
    /// The keys that have existed since it began.
    throughout: BTreeSet<Vec<u8>>,
    seen: BTreeSet<Vec<u8>>,
}

impl World {
    fn new(lab: Lab, options: Vec<Options>, keys: Vec<Vec<u8>>, merges: bool) -> Self {
        let (model, history, merge) = (Model::new(), Vec::new(), None);
        let mut world = Self {
            lab,
            options,
            openings: 0,
            db: None,
            model,
            history,
            ops_before: 0,
            keys,
            writes: 0,
            merges,
            merge,
            scan: None,
        };
        world.open();
        world
    }

    fn db(&self) -> &Bitcask {
        self.db.as_ref().unwrap()
    }

    fn now(&self) -> u64 {
        self.db().inner.clock.now()
    }

    /// Opens the store on the lab's disk, with the next options. Compares everything every other
    /// time; otherwise most shards stay unfilled until a step touches them.
    fn open(&mut self) {
        self.lab.options = self.options[self.openings % self.options.len()].clone();
        self.openings += 1;
        self.db = Some(self.lab.open());
        self.note();
        if self.openings.is_multiple_of(2) {
            self.db().inner.fill_due();
        } else {
            self.check();
        }
    }

    fn check(&self) {
        self.check_that(self.db());
    }

    fn check_that(&self, db: &Reader) {
        let check = if self.merges { check_visible } else { check_with };
        check(db, &self.model, &self.keys);
        let report = db.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }

    /// Returns whether two states are equal, as far as they have to be.
    fn same(&self, a: &Model, b: &Model) -> bool {
        let now = self.lab.hands.clock().now();
        if self.merges { visible(a, now) == visible(b, now) } else { a == b }
    }

    /// Records the state that has just been reached.
    fn note(&mut self) {
        let end = self.db().inner.writer().unwrap().log.lock().end();
        self.history.push((end, self.model.clone()));
    }

    /// Drops states that cannot come back because a later one is durable.
    fn forget(&mut self) {
        let inner = &self.db.as_ref().unwrap().inner;
        let sealed = inner.manifest.get(|manifest| Place::new(manifest.log, 0));
        let durable = inner.log().unwrap().durable().max(sealed);
        let last = self.history.iter().rposition(|(end, _)| *end <= durable);
        self.history.drain(..last.expect("the initial state is durable"));
    }

    /// Returns a value that no other write stores.
    fn value(&mut self, size: usize) -> Vec<u8> {
        self.writes += 1;
        let mut value = format!("{:04}", self.writes).into_bytes();
        let filler = u8::try_from(self.writes % 251).unwrap();
        value.resize(size.max(4), filler);
        if size == 0 { Vec::new() } else { value }
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let stored = self.model.get(key)?;
        let is_live = stored.expiry.is_none_or(|at| at > time_for(self.db(), key));
        is_live.then(|| stored.value.clone())
    }

    /// Makes a change in the model. A delete of an absent key leaves the model unchanged.
    fn apply(&mut self, key: &[u8], value: Option<Vec<u8>>, ttl: Option<u64>) {
        let expiry = ttl.map(|seconds| self.now() + seconds * 1_000_000);
        match value {
            Some(value) => self.model.insert(key.to_vec(), Stored { value, expiry }),
            None => self.model.remove(key),
        };
    }

    /// Returns the time to live, in seconds, of a put that requests this one.
    fn or_default(&self, ttl: Option<u64>) -> Option<u64> {
        ttl.or(self.lab.options.default_ttl.map(|ttl| ttl.as_secs()))
    }

    fn run(&mut self, step: &Step) {
        if !matches!(step, Step::PowerCut { .. }) {
            self.forget();
            self.ops_before = self.lab.twin.op_count();
        }
        match step {
            Step::Put { .. }
            | Step::Delete { .. }
            | Step::Update { .. }
            | Step::InsertNew { .. }
            | Step::Swap { .. } => self.change(step),
            Step::Keep { key, new, way, sync } => self.keep(*key, *new, *way, *sync),
            Step::Expire { key, ttl } => self.set_ttl(*key, Some(*ttl)),
            Step::Persist { key } => self.set_ttl(*key, None),
            Step::Batch { changes, ttl, sync } => self.batch(changes, *ttl, *sync),
            Step::Clear => {
                self.stop_merge();
                self.db().clear().unwrap();
                self.model.clear();
            }
            Step::Sync => self.db().sync().unwrap(),
            Step::SetSyncPolicy { policy } => {
                self.db().set_sync_policy(SYNC_POLICIES[*policy]).unwrap();
                let log = self.db().inner.log().unwrap();
                assert!(log.durable() >= log.lock().end(), "a new policy begins with a sync");
            }
            Step::SetMergePolicy { eager } => {
                let auto = AutoMerge::new().trigger_dead_percent(1).dead_percent(1);
                let policy = if *eager { MergePolicy::Auto(auto) } else { MergePolicy::Manual };
                self.db().set_merge_policy(policy).unwrap();
            }
            Step::MergeDue => self.merge_due(),
            Step::Work => drop(self.db().inner.work()),
            Step::Mark => self.db().inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap(),
            Step::Advance { seconds } => self.lab.hands.advance(Duration::from_secs(*seconds)),
            Step::TurnBack { .. } if self.merges => {}
            Step::TurnBack { seconds } => self.lab.hands.step_back(Duration::from_secs(*seconds)),
            Step::Reopen { without_hints } => {
                self.check();
                self.stop_merge();
                self.db.take().unwrap().close().unwrap();
                if *without_hints {
                    self.lab.delete_hints();
                }
                self.open();
                let report = self.db().recovery();
                assert_eq!(report.is_clean(), report.rebuilt_hints == 0, "{report:?}");
            }
            Step::KillInPlace => {
                self.check();
                self.merge = None;
                kill(self.db.take().unwrap());
                self.open();
                assert_eq!(self.db().recovery().cuts, []);
            }
            Step::KillAndCopy => {
                let killed = self.lab.killed();
                self.move_to(killed);
            }
            Step::PowerCut { within, keep } => return self.power_cut(*within, *keep),
            Step::BeginMerge { segments } => self.begin_merge(*segments),
            Step::Merge { steps } => self.merge(*steps),
            Step::StopMerge => self.stop_merge(),
        }
        self.note();
    }

    /// Continues the scan by cursor, or begins one, only now and then, so that shards stay
    /// unfilled.
    fn scan(&mut self) {
        let there: BTreeSet<Vec<u8>> = visible_in(self.db(), &self.model).into_keys().collect();
        let mut scan = self
            .scan
            .take()
            .unwrap_or_else(|| CursorScan { throughout: there.clone(), ..CursorScan::default() });
        scan.throughout.retain(|key| there.contains(key));
        if !self.writes.is_multiple_of(4) {
            self.scan = Some(scan);
            return;
        }
        let (keys, next) = self.db().scan_from(scan.cursor, 1 + self.writes % 3).unwrap();
        for key in keys.iter().map(|key| key.to_vec()) {
            assert!(there.contains(&key), "{key:?} is not there");
            assert!(scan.seen.insert(key), "a key is returned twice");
        }
        let Some(cursor) = next else {
            return assert!(scan.throughout.is_subset(&scan.seen), "a key is missing");
        };
        self.scan = Some(CursorScan { cursor, ..scan });
    }

    fn begin_merge(&mut self, segments: u64) {
        self.stop_merge();
        self.merge = Some(begin_merge(self.db(), segments));
    }

    fn merge(&mut self, steps: u8) {
        let Some(mut merge) = self.merge.take() else { return };
        let inner = &self.db.as_ref().unwrap().inner;
        for _ in 0..steps {
            if merge.step(&**inner).unwrap().is_none() {
                assert!(!merge.is_pending());
                return self.check();
            }
        }
        self.merge = Some(merge);
    }

    /// Merges as the policy says.
    fn merge_due(&mut self) {
        self.stop_merge();
        let db = self.db();
        let is_manual = matches!(db.merge_policy(), MergePolicy::Manual);
        let before: Vec<u32> = db.segments().iter().map(|segment| segment.id).collect();
        assert_eq!(db.inner.merge_due().is_none(), is_manual);
        let after: Vec<u32> = db.segments().iter().map(|segment| segment.id).collect();
        assert!(!is_manual || before == after, "a merge that was not requested");
        self.check();
    }

    fn stop_merge(&mut self) {
        if let Some(mut merge) = self.merge.take() {
            merge.publish(&*self.db().inner).unwrap();
            self.check();
        }
    }

    /// Changes one key, and checks the result and the state afterwards.
    fn change(&mut self, step: &Step) {
        let (Step::Put { key, .. }
        | Step::Delete { key, .. }
        | Step::Update { key, .. }
        | Step::InsertNew { key, .. }
        | Step::Swap { key, .. }) = step
        else {
            unreachable!()
        };
        let key = self.keys[*key].clone();
        let old = self.get(&key);
        match step {
            Step::Put { new: (size, ttl), sync, .. } => {
                let value = self.value(*size);
                self.db().put_opt(&key, &value, write_options(*ttl, *sync)).unwrap();
                self.apply(&key, Some(value), self.or_default(*ttl));
            }
            Step::Delete { sync, .. } => {
                let existed = self.db().delete_opt(&key, write_options(None, *sync)).unwrap();
                assert_eq!(existed, old.is_some());
                self.apply(&key, None, None);
            }
            Step::Update { new, sync, .. } => {
                let ttl = new.and_then(|(_, ttl)| ttl);
                let new = new.map(|(size, _)| {
                    let mut value = old.clone().unwrap_or_default();
                    value.truncate(600);
                    value.extend(self.value(size));
                    value
                });
                let change = |seen: Option<&[u8]>| {
                    assert_eq!(seen, old.as_deref());
                    new.clone()
                };
                let options = write_options(ttl, *sync);
                let stored = self.db().update_opt(&key, options, change).unwrap();
                assert_eq!(stored.map(Vec::from), new);
                self.apply(&key, new, self.or_default(ttl));
            }
            Step::InsertNew { new: (size, ttl), sync, .. } => {
                let value = self.value(*size);
                let options = write_options(*ttl, *sync);
                let inserted = self.db().put_if_absent_opt(&key, &value, options).unwrap();
                assert_eq!(inserted, old.is_none());
                if inserted {
                    self.apply(&key, Some(value), self.or_default(*ttl));
                }
            }
            Step::Swap { right, new, sync, .. } => {
                let expected = if *right { old.clone() } else { Some(b"never".to_vec()) };
                let ttl = new.and_then(|(_, ttl)| ttl);
                let new = new.map(|(size, _)| self.value(size));
                let options = write_options(ttl, *sync);
                let (expected, value) = (expected.as_deref(), new.as_deref());
                let swapped = self.db().compare_and_swap_opt(&key, expected, value, options);
                assert_eq!(swapped.as_ref().unwrap().is_ok(), *right);
                if let Err(found) = swapped.unwrap() {
                    assert_eq!(found.current.map(Vec::from), old);
                }
                if *right {
                    self.apply(&key, new, self.or_default(ttl));
                }
            }
            _ => unreachable!(),
        }
        assert_eq!(self.db().get(&key).unwrap().map(Vec::from), self.get(&key));
        if !self.merges {
            assert_eq!(self.db().len().unwrap(), self.model.len() as u64);
        }
    }

    /// A put that keeps the key's expiry.
    fn keep(&mut self, key: Key, (size, ttl): New, way: u8, sync: Option<bool>) {
        let key = self.keys[key].clone();
        let (old, value) = (self.get(&key), self.value(size));
        // Where the log is ahead of the clock, a new value may expire by another time.
        let now = self.db().inner.clock.read();
        let ahead = now.of(now.highest()) - time_for(self.db(), &key);
        let kept = old.as_ref().map(|_| self.model[&key].expiry.map(|expiry| expiry + ahead));
        let db = self.db();
        let version = db.get_versioned(&key).unwrap().map(|(_, version)| version);
        let other = version.is_none().then_some(Version::from(1));
        let found = db.compare_and_swap_versioned(&key, other, None).unwrap().unwrap_err();
        assert_eq!(found.current.map(Vec::from), old);
        assert_eq!(found.version, version);
        let options = write_options(ttl, sync).keep_ttl(true);
        let (expected, new) = (old.as_deref(), Some(value.as_slice()));
        match way {
            0 => db.put_opt(&key, &value, options).unwrap(),
            1 => drop(db.update_opt(&key, options, |_| new).unwrap()),
            2 => db.compare_and_swap_opt(&key, expected, new, options).unwrap().unwrap(),
            3 => {
                db.compare_and_swap_versioned_opt(&key, version, new, options).unwrap().unwrap();
            }
            4 => db.write(Batch::new().put_opt(&key, &value, options)).unwrap(),
            _ => db
                .transaction(|tx| {
                    assert_eq!(tx.version(&key)?, version);
                    assert_eq!(tx.ttl(&key)?.is_some(), old.is_some());
                    tx.put_opt(&key, &value, options);
                    Ok(())
                })
                .unwrap(),
        }
        match kept {
            Some(expiry) => drop(self.model.insert(key.clone(), Stored { value, expiry })),
            None => self.apply(&key, Some(value), self.or_default(ttl)),
        }
        let now_there = self.db().get_versioned(&key).unwrap();
        assert_eq!(now_there.as_ref().map(|(value, _)| value.to_vec()), self.get(&key));
        assert!(now_there.is_none_or(|(_, new)| version.is_none_or(|old| old < new)));
        check_ttl(self.db(), &self.model, &key);
    }

    /// Changes only a key's expiry.
    fn set_ttl(&mut self, key: Key, ttl: Option<u64>) {
        let key = self.keys[key].clone();
        let old = self.get(&key);
        let exists = match ttl {
            Some(ttl) => self.db().expire(&key, Duration::from_secs(ttl)).unwrap(),
            None => self.db().persist(&key).unwrap(),
        };
        assert_eq!(exists, old.is_some());
        if exists {
            self.apply(&key, old, ttl);
        }
        assert_eq!(self.db().get(&key).unwrap().map(Vec::from), self.get(&key));
        check_ttl(self.db(), &self.model, &key);
    }

    fn batch(&mut self, changes: &[(Key, Option<New>)], ttl: Option<u64>, sync: Option<bool>) {
        let mut batch = Batch::new();
        for (key, new) in changes {
            let key = self.keys[*key].clone();
            let Some((size, own_ttl)) = new else {
                batch.delete(&key);
                self.apply(&key, None, None);
                continue;
            };
            let value = self.value(*size);
            batch.put_opt(&key, &value, write_options(*own_ttl, None));
            self.apply(&key, Some(value), self.or_default(own_ttl.or(ttl)));
        }
        self.db().write_opt(&batch, write_options(ttl, sync)).unwrap();
        for (key, _) in changes {
            let key = &self.keys[*key];
            assert_eq!(self.db().get(key).unwrap().map(Vec::from), self.get(key));
        }
    }

    /// Continues on another disk, which must hold the same state. Opens it read-only first.
    fn move_to(&mut self, lab: Lab) {
        let reader = lab.open_read_only();
        self.check_that(&reader);
        drop(reader);
        assert_eq!(lab.twin.op_count(), 0, "a store opened read-only changes nothing");
        self.lab = lab;
        self.merge = None;
        self.ops_before = 0;
        self.open();
        assert_eq!(self.db().recovery().cuts, []);
    }

    /// Zeroes parts of unsynced writes: a disk may write only a part of what it was given.
    fn tear(&self, image: &Lab, keeping: &mut Keeping) {
        let durable = self.db().inner.log().unwrap().durable();
        let manifest = self.db().inner.manifest.get(Clone::clone);
        let is_sealed = |id| id < manifest.log || manifest.lists(id);
        for (id, path) in image.logs().into_iter().filter(|(id, _)| !is_sealed(*id)) {
            let mut bytes = image.twin.contents(&path).unwrap();
            let synced = match id.cmp(&durable.segment) {
                Ordering::Less => bytes.len(),
                Ordering::Equal => usize::try_from(durable.offset.max(FIRST_OFFSET)).unwrap(),
                Ordering::Greater => usize::try_from(FIRST_OFFSET).unwrap(),
            };
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if synced < used && keeping.next() {
                let start = synced + keeping.below(used - synced);
                let end = if keeping.next() { used } else { start + keeping.below(used - start) };
                bytes[start..end].fill(0);
                image.twin.put_file(&path, bytes);
            }
        }
    }

    /// Cuts the power at some moment of the last step or right after it.
    fn power_cut(&mut self, within: u8, keep: u64) {
        let ops = self.lab.twin.op_count();
        let range = (ops - self.ops_before) as u64;
        let at = if within < 128 { range } else { u64::from(within - 128) * range / 128 };
        let mut keeping = Keeping(keep);
        let cut = self.ops_before + usize::try_from(at).unwrap();
        let image = self.lab.on(self.lab.twin.power_image(cut, |_| keeping.next()));
        if at == range {
            self.check();
            self.forget();
            self.tear(&image, &mut keeping);
        }
        self.merge = None;
        let seen = raw(&image.open_read_only());
        assert_eq!(image.twin.op_count(), 0, "a store opened read-only changes nothing");

        let db = image.open();
        let found = raw(&db);
        assert_eq!(seen, found, "read-only and writable openings differ");
        let allowed = self.history.iter().any(|(_, model)| self.same(model, &found));
        assert!(allowed, "{found:?} is none of the states {:?}", self.history);
        let copy = image.killed();
        kill(db);
        // Makes a second power cut, and a kill, right after the recovery.
        for again in [image.powered_off(|_| keeping.next()), copy] {
            let db = again.open();
            assert_eq!(raw(&db), found);
            assert_eq!(db.recovery().cuts, []);
        }
        self.db = None;
        self.lab = image;
        self.model = found;
        self.history.clear();
        self.ops_before = 0;
        self.open();
    }
}

fn write_options(ttl: Option<u64>, sync: Option<bool>) -> WriteOptions {
    let mut options = WriteOptions::new();
    if let Some(seconds) = ttl {
        options = options.ttl(Duration::from_secs(seconds));
    }
    if let Some(sync) = sync {
        options = options.durable(sync);
    }
    options
}

/// Decides what reaches the disk: nothing, everything, or a part. The initial number determines
/// which.
struct Keeping(u64);

impl Keeping {
    /// The lowest bits are constant, and determine how much is kept.
    fn random(&mut self) -> u64 {
        let random = (self.0 >> 3).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(12345);
        self.0 = random << 3 | self.0 & 0b111;
        random >> 40
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random()).unwrap() % limit.max(1)
    }

    fn next(&mut self) -> bool {
        let dice = self.random() % 16;
        match self.0 & 0b111 {
            0 | 1 => false,
            2 => true,
            3 => dice < 14,
            4 => dice < 2,
            _ => dice < 8,
        }
    }
}

/// Reads a number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn runner(stream: u8) -> TestRunner {
    let long = setting("BITCASK_LONG").unwrap_or(1).max(1);
    let config = Config {
        cases: CASES * u32::try_from(long).unwrap(),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut seed = [stream; 32];
    seed[..8].copy_from_slice(&setting("BITCASK_SEED").unwrap_or(0).to_be_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// Keys of several lengths, including the empty one.
fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| vec![b'a' + u8::try_from(at).unwrap(); at * at]).collect()
}

fn run(stream: u8, seed: u64, keys: &[Vec<u8>], lab: impl Fn() -> Lab) {
    let cases = (vec(options(), 1..4), vec(step(keys.len()), 1..60));
    run_cases(stream, seed, keys, lab, &cases, false);
}

fn run_with_merges(stream: u8, seed: u64, keys: &[Vec<u8>], lab: impl Fn() -> Lab) {
    let steps = prop_oneof![2 => step(keys.len()), 1 => merge_step()];
    run_cases(stream, seed, keys, lab, &(vec(options(), 1..4), vec(steps, 1..120)), true);
}

/// Segments of a few entries, so that there are many outputs between unmerged segments.
fn run_with_many_merges(stream: u8, seed: u64, keys: &[Vec<u8>], lab: impl Fn() -> Lab) {
    let options = (1..4_u64).prop_map(|entries| {
        Options::new().segment_size(512).segment_entries(entries).sync_policy(SyncPolicy::Never)
    });
    let count = keys.len();
    let new = || (0..20_usize, prop_oneof![6 => Just(None), 1 => (0..9_u64).prop_map(Some)]);
    let steps = prop_oneof![
        8 => (0..count, new()).prop_map(|(key, new)| Step::Put { key, new, sync: None }),
        6 => (0..count).prop_map(|key| Step::Delete { key, sync: None }),
        6 => Just(Step::Work),
        5 => any::<u64>().prop_map(|segments| Step::BeginMerge { segments }),
        5 => Just(Step::Merge { steps: u8::MAX }),
        1 => (0..5_u64).prop_map(|seconds| Step::Advance { seconds }),
        1 => any::<bool>().prop_map(|without_hints| Step::Reopen { without_hints }),
        1 => (any::<u8>(), any::<u64>())
            .prop_map(|(within, keep)| Step::PowerCut { within, keep }),
        1 => merge_step(),
    ];
    run_cases(stream, seed, keys, lab, &(vec(options, 1..3), vec(steps, 20..150)), true);
}

fn run_cases(
    stream: u8,
    seed: u64,
    keys: &[Vec<u8>],
    lab: impl Fn() -> Lab,
    cases: &impl Strategy<Value = (Vec<Options>, Vec<Step>)>,
    merges: bool,
) {
    let result = runner(stream).run(cases, |(options, steps)| {
        let mut world = World::new(lab().seeded(seed), options, keys.to_vec(), merges);
        for step in &steps {
            world.run(step);
            world.scan();
        }
        world.run(&Step::KillAndCopy);
        world.run(&Step::Reopen { without_hints: false });
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn seed_for_one_hash(keys: &[Vec<u8>]) -> u64 {
    let all_collide = |seed: &u64| {
        let hash = |key: &Vec<u8>| KeyHasher::weak(*seed).hash(key);
        keys.iter().all(|key| hash(key) == hash(&keys[0]))
    };
    (0..10_000).find(all_collide).unwrap()
}

#[test]
fn random_operations_match_a_map() {
    run(1, 1, &keys(10), Lab::new);
}

#[test]
fn random_operations_match_a_map_when_keys_collide() {
    run(2, 2, &keys(10), Lab::weak);
}

#[test]
fn random_operations_match_a_map_when_all_keys_collide() {
    let keys = keys(4);
    run(3, seed_for_one_hash(&keys), &keys, Lab::weak);
}

#[test]
fn merges_change_nothing_visible() {
    run_with_merges(4, 4, &keys(8), Lab::new);
}

#[test]
fn merges_change_nothing_when_keys_collide() {
    run_with_merges(5, 5, &keys(8), Lab::weak);
}

#[test]
fn merges_change_nothing_when_all_keys_collide() {
    let keys = keys(4);
    run_with_merges(6, seed_for_one_hash(&keys), &keys, Lab::weak);
}

#[test]
fn merges_of_many_small_segments_change_nothing() {
    run_with_many_merges(7, 7, &keys(2), Lab::new);
}

#[test]
fn merges_of_many_small_segments_change_nothing_when_all_keys_collide() {
    let keys = keys(3);
    run_with_many_merges(8, seed_for_one_hash(&keys), &keys, Lab::weak);
}

#[test]
fn a_power_cut_while_a_store_is_created_leaves_a_store_or_nothing() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let written = lab.twin.op_count();
    db.sync().unwrap();
    let (before, after) = (Model::new(), model([("a", "1")]));
    for ops in 0..=lab.twin.op_count() {
        for keep in 0..200 {
            let mut keeping = Keeping(keep);
            let image = lab.on(lab.twin.power_image(ops, |_| keeping.next()));
            let db = image.try_open().unwrap_or_else(|error| panic!("{ops} {keep}: {error}"));
            let found = raw(&db);
            let synced = ops == lab.twin.op_count();
            assert!(found == after || found == before && !synced, "{ops} {keep}");
            assert!(ops >= written || found == before, "{ops} {keep}");
            db.put("b", "2").unwrap();
            let db = image.reopen(db);
            assert_eq!(db.len().unwrap(), found.len() as u64 + 1);
        }
    }
}
