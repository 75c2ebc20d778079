//! The store against a `BTreeMap`: random operations of every kind on a real disk. At any point the
//! store is closed and reopened, or killed.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use bitcask::{Batch, Bitcask, Options, ReadOnly, Reader, SyncPolicy, Ttl as Told, WriteOptions};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::TempDir;

use crate::support::{crash_copy, options, pairs};

/// An operation on a store. Numbers stand for keys and values.
#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u8,
        value: Content,
        ttl: Ttl,
        sync: Option<bool>,
    },
    Delete {
        key: u8,
        sync: Option<bool>,
    },
    Update {
        key: u8,
        value: Option<Content>,
        ttl: Ttl,
    },
    InsertNew {
        key: u8,
        value: Content,
        ttl: Ttl,
    },
    CompareAndSwap {
        key: u8,
        expected: Expected,
        new: Option<Content>,
        ttl: Ttl,
    },
    /// A put that keeps the key's time to live, in one of several ways.
    Keep {
        key: u8,
        value: Content,
        ttl: Ttl,
        way: u8,
    },
    Expire {
        key: u8,
        ttl: Duration,
    },
    Persist {
        key: u8,
    },
    Write {
        changes: Vec<Change>,
        ttl: Ttl,
    },
    Clear,
    Sync,
    Compare,
    Reopen(Opening),
    Kill(Opening),
}

type Change = (u8, Option<Content>, Ttl);

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(1 << 20);

#[derive(Debug, Clone, Copy)]
enum Ttl {
    None,
    Zero,
    Long,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Absent,
    AsItIs,
    Other,
}

/// A value: its size and its fill byte.
#[derive(Debug, Clone, Copy)]
struct Content(usize, u8);

impl Content {
    fn bytes(self) -> Vec<u8> {
        (0..self.0).map(|at| at.to_be_bytes()[7].wrapping_mul(self.1)).collect()
    }
}

/// The options of an opening.
#[derive(Debug, Clone)]
struct Opening {
    segment_size: u64,
    segment_entries: u64,
    sync: SyncPolicy,
    verify_reads: bool,
}

impl Opening {
    fn options(&self) -> Options {
        options()
            .segment_size(self.segment_size)
            .segment_entries(self.segment_entries)
            .sync_policy(self.sync)
            .verify_reads(self.verify_reads)
    }
}

fn content() -> impl Strategy<Value = Content> {
    let size = prop_oneof![4 => 0..40_usize, 3 => 40..600_usize, 1 => 600..18_000_usize];
    (size, any::<u8>()).prop_map(|(size, fill)| Content(size, fill))
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![4 => Just(Ttl::None), 1 => Just(Ttl::Zero), 1 => Just(Ttl::Long)]
}

fn key() -> impl Strategy<Value = u8> {
    0..12_u8
}

fn sync() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![8 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))]
}

fn opening() -> impl Strategy<Value = Opening> {
    let policy = prop_oneof![
        3 => Just(SyncPolicy::Never),
        1 => Just(SyncPolicy::Interval(Duration::from_millis(1))),
        1 => Just(SyncPolicy::Always),
    ];
    let entries = prop_oneof![2 => Just(u64::MAX), 1 => 1..40_u64];
    (512..16_000_u64, entries, policy, any::<bool>()).prop_map(
        |(segment_size, segment_entries, sync, verify_reads)| Opening {
            segment_size,
            segment_entries,
            sync,
            verify_reads,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![1 => Just(Expected::Absent), 2 => Just(Expected::AsItIs), 1 => Just(Expected::Other)];
    let some = || proptest::option::weighted(0.7, content());
    let changes = proptest::collection::vec((key(), some(), ttl()), 0..8);
    prop_oneof![
        12 => (key(), content(), ttl(), sync())
            .prop_map(|(key, value, ttl, sync)| Step::Put { key, value, ttl, sync }),
        6 => (key(), sync()).prop_map(|(key, sync)| Step::Delete { key, sync }),
        3 => (key(), some(), ttl())
            .prop_map(|(key, value, ttl)| Step::Update { key, value, ttl }),
        2 => (key(), content(), ttl())
            .prop_map(|(key, value, ttl)| Step::InsertNew { key, value, ttl }),
        3 => (key(), expected, some(), ttl())
            .prop_map(|(key, expected, new, ttl)| Step::CompareAndSwap { key, expected, new, ttl }),
        4 => (key(), content(), ttl(), 0..6_u8)
            .prop_map(|(key, value, ttl, way)| Step::Keep { key, value, ttl, way }),
        2 => (key(), prop_oneof![Just(Duration::ZERO), Just(LONG)])
            .prop_map(|(key, ttl)| Step::Expire { key, ttl }),
        2 => key().prop_map(|key| Step::Persist { key }),
        4 => (changes, ttl()).prop_map(|(changes, ttl)| Step::Write { changes, ttl }),
        1 => Just(Step::Clear),
        2 => Just(Step::Sync),
        1 => Just(Step::Compare),
        2 => opening().prop_map(Step::Reopen),
        2 => opening().prop_map(Step::Kill),
    ]
}

/// State of a key in the model. An expired key is absent for readers, but counts until it is
/// removed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Slot {
    /// The key's value, and whether it has a time to live, a long one.
    Live(Vec<u8>, bool),
    Expired,
}

/// A store and its model.
struct Pair {
    dir: TempDir,
    db: Option<Bitcask>,
    model: BTreeMap<Vec<u8>, Slot>,
}

/// The empty key, keys with a common prefix, and a long key.
fn key_bytes(key: u8) -> Vec<u8> {
    match key {
        0 => Vec::new(),
        11 => vec![b'k'; 700],
        key => vec![0; usize::from(key / 2)].into_iter().chain([key]).collect(),
    }
}

fn slot(value: Content, ttl: Ttl) -> Slot {
    match ttl {
        Ttl::Zero => Slot::Expired,
        Ttl::None => Slot::Live(value.bytes(), false),
        Ttl::Long => Slot::Live(value.bytes(), true),
    }
}

fn duration(ttl: Ttl) -> Option<Duration> {
    match ttl {
        Ttl::None => None,
        Ttl::Zero => Some(Duration::ZERO),
        Ttl::Long => Some(LONG),
    }
}

fn with_ttl(ttl: Ttl) -> WriteOptions {
    duration(ttl).map_or(WriteOptions::new(), |ttl| WriteOptions::new().ttl(ttl))
}

impl Pair {
    fn new(opening: &Opening) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), opening.options()).unwrap();
        Self { dir, db: Some(db), model: BTreeMap::new() }
    }

    fn db(&self) -> &Bitcask {
        self.db.as_ref().unwrap()
    }

    fn live(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.model.get(key) {
            Some(Slot::Live(value, _)) => Some(value.clone()),
            Some(Slot::Expired) | None => None,
        }
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Slot>) {
        match value {
            Some(value) => drop(self.model.insert(key, value)),
            None => drop(self.model.remove(&key)),
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Put { key, value, ttl, sync } => {
                let options = with_ttl(*ttl);
                let options = sync.map_or(options, |sync| options.durable(sync));
                self.db().put_opt(key_bytes(*key), value.bytes(), options).unwrap();
                self.set(key_bytes(*key), Some(slot(*value, *ttl)));
                self.compare_key(*key);
            }
            Step::Delete { key, sync } => {
                let options = WriteOptions::new();
                let options = sync.map_or(options, |sync| options.durable(sync));
                let existed = self.db().delete_opt(key_bytes(*key), options).unwrap();
                assert_eq!(existed, self.live(&key_bytes(*key)).is_some());
                self.set(key_bytes(*key), None);
                self.compare_key(*key);
            }
            Step::Update { key, value, ttl } => self.update(*key, *value, *ttl),
            Step::InsertNew { key, value, ttl } => {
                let (bytes, options) = (value.bytes(), with_ttl(*ttl));
                let inserted =
                    self.db().put_if_absent_opt(key_bytes(*key), bytes, options).unwrap();
                assert_eq!(inserted, self.live(&key_bytes(*key)).is_none());
                if inserted {
                    self.set(key_bytes(*key), Some(slot(*value, *ttl)));
                }
                self.compare_key(*key);
            }
            Step::CompareAndSwap { key, expected, new, ttl } => {
                self.compare_and_swap(*key, *expected, *new, *ttl);
            }
            Step::Keep { key, value, ttl, way } => self.keep(*key, *value, *ttl, *way),
            Step::Expire { key, ttl } => {
                let is_there = self.db().expire(key_bytes(*key), *ttl).unwrap();
                self.set_ttl(*key, is_there, Some(*ttl));
            }
            Step::Persist { key } => {
                let is_there = self.db().persist(key_bytes(*key)).unwrap();
                self.set_ttl(*key, is_there, None);
            }
            Step::Write { changes, ttl } => self.write(changes, *ttl),
            Step::Clear => {
                self.db().clear().unwrap();
                self.model.clear();
                self.compare();
            }
            Step::Sync => self.db().sync().unwrap(),
            Step::Compare => self.compare(),
            Step::Reopen(opening) => {
                self.db.take().unwrap().close().unwrap();
                self.db = Some(Bitcask::open(self.dir.path(), opening.options()).unwrap());
                assert!(self.db().recovery().is_clean(), "{:?}", self.db().recovery());
                self.compare();
            }
            Step::Kill(opening) => {
                let copy = crash_copy(self.dir.path());
                self.db = None;
                let reader = ReadOnly::open(copy.path(), opening.options()).unwrap();
                self.compare_with(&reader);
                self.db = Some(Bitcask::open(copy.path(), opening.options()).unwrap());
                self.dir = copy;
                assert!(self.db().recovery().cuts.is_empty(), "{:?}", self.db().recovery());
                self.compare();
            }
        }
        assert_eq!(self.db().len().unwrap(), self.model.len() as u64);
    }

    fn keep(&mut self, key: u8, value: Content, ttl: Ttl, way: u8) {
        let (name, new) = (key_bytes(key), value.bytes());
        let (options, new) = (with_ttl(ttl).keep_ttl(true), new.as_slice());
        let (db, old) = (self.db(), self.live(&name));
        let version = db.get_versioned(&name).unwrap().map(|(_, version)| version);
        match way {
            0 => db.put_opt(&name, new, options).unwrap(),
            1 => drop(db.update_opt(&name, options, |_| Some(new)).unwrap()),
            2 => {
                let swapped = db.compare_and_swap_opt(&name, old.as_deref(), Some(new), options);
                swapped.unwrap().unwrap();
            }
            3 => {
                let new = Some(new);
                let swapped = db.compare_and_swap_versioned_opt(&name, version, new, options);
                swapped.unwrap().unwrap();
            }
            4 => db.write(Batch::new().put_opt(&name, new, options)).unwrap(),
            _ => db
                .transaction(|tx| {
                    assert_eq!(tx.version(&name)?, version);
                    tx.put_opt(&name, new, options);
                    Ok(())
                })
                .unwrap(),
        }
        let slot = match self.model.get(&name) {
            Some(Slot::Live(_, expires)) => Slot::Live(new.to_vec(), *expires),
            Some(Slot::Expired) | None => slot(value, ttl),
        };
        self.set(name, Some(slot));
        self.compare_key(key);
    }

    fn set_ttl(&mut self, key: u8, is_there: bool, ttl: Option<Duration>) {
        let value = self.live(&key_bytes(key));
        assert_eq!(is_there, value.is_some());
        if let Some(value) = value {
            let is_over = ttl == Some(Duration::ZERO);
            let slot = if is_over { Slot::Expired } else { Slot::Live(value, ttl.is_some()) };
            self.set(key_bytes(key), Some(slot));
        }
        self.compare_key(key);
    }

    fn update(&mut self, key: u8, value: Option<Content>, ttl: Ttl) {
        let expected = self.live(&key_bytes(key));
        let stored = self.db().update_opt(key_bytes(key), with_ttl(ttl), |old| {
            assert_eq!(old, expected.as_deref());
            value.map(Content::bytes)
        });
        assert_eq!(stored.unwrap().map(Vec::from), value.map(Content::bytes));
        self.set(key_bytes(key), value.map(|value| slot(value, ttl)));
        self.compare_key(key);
    }

    fn compare_and_swap(&mut self, key: u8, expected: Expected, new: Option<Content>, ttl: Ttl) {
        let current = self.live(&key_bytes(key));
        let expected = match expected {
            Expected::Absent => None,
            Expected::AsItIs => current.clone(),
            Expected::Other => Some(vec![b'?'; 3]),
        };
        let (bytes, options) = (new.map(Content::bytes), with_ttl(ttl));
        let (expected, bytes) = (expected.as_deref(), bytes.as_deref());
        let swapped = self.db().compare_and_swap_opt(key_bytes(key), expected, bytes, options);
        let swapped = swapped.unwrap();
        assert_eq!(swapped.is_ok(), expected == current.as_deref());
        if let Err(found) = &swapped {
            assert_eq!(found.current.as_deref(), current.as_deref());
            assert_eq!(found.version.is_some(), current.is_some());
        } else {
            self.set(key_bytes(key), new.map(|new| slot(new, ttl)));
        }
        self.compare_key(key);
    }

    fn write(&mut self, changes: &[Change], default: Ttl) {
        let mut batch = Batch::new();
        for (key, value, ttl) in changes {
            match value {
                None => batch.delete(key_bytes(*key)),
                Some(value) => batch.put_opt(key_bytes(*key), value.bytes(), with_ttl(*ttl)),
            };
        }
        self.db().write_opt(&batch, with_ttl(default)).unwrap();
        for (key, value, ttl) in changes {
            let ttl = if matches!(ttl, Ttl::None) { default } else { *ttl };
            self.set(key_bytes(*key), value.map(|value| slot(value, ttl)));
        }
        for (key, ..) in changes {
            self.compare_key(*key);
        }
    }

    fn compare_key(&self, key: u8) {
        let key = key_bytes(key);
        let expected = self.live(&key);
        let mut buffer = vec![1, 2, 3];
        assert_eq!(self.db().get(&key).unwrap().map(Vec::from), expected);
        assert_eq!(self.db().get_with(&key, <[u8]>::to_vec).unwrap(), expected);
        assert_eq!(self.db().get_into(&key, &mut buffer).unwrap(), expected.is_some());
        assert_eq!(buffer, expected.clone().unwrap_or_default());
        assert_eq!(self.db().contains_key(&key).unwrap(), expected.is_some());
        let size = expected.map(|value| value.len() as u64);
        assert_eq!(self.db().value_len(&key).unwrap(), size);
        let is_right = match (self.model.get(&key), self.db().ttl(&key).unwrap()) {
            (Some(Slot::Live(_, true)), Some(Told::In(left))) => left <= LONG && left > LONG / 2,
            (Some(Slot::Live(_, false)), ttl) => ttl == Some(Told::Never),
            (Some(Slot::Expired) | None, ttl) => ttl.is_none(),
            _ => false,
        };
        assert!(is_right, "{:?}", self.db().ttl(&key));
    }

    fn compare(&self) {
        self.compare_with(self.db());
        let stats = self.db().stats();
        assert_eq!(stats.log_size, 64 * stats.segments + stats.live_size + stats.dead_size);
        (0..12).for_each(|key| self.compare_key(key));
    }

    fn compare_with(&self, db: &Reader) {
        let live = self.model.keys().filter_map(|key| Some((key.clone(), self.live(key)?)));
        assert_eq!(pairs(db), live.collect());
        assert_eq!(db.len().unwrap(), self.model.len() as u64);
    }
}

proptest! {
    // The seed is fixed, so a failure is reproducible on every machine. PROPTEST_RNG_SEED and
    // PROPTEST_CASES extend the search.
    #![proptest_config(ProptestConfig {
        cases: env("PROPTEST_CASES").unwrap_or(40),
        rng_seed: RngSeed::Fixed(env("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_store_is_a_map_that_survives_being_closed_and_killed(
        opening in opening(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut pair = Pair::new(&opening);
        for step in &steps {
            pair.apply(step);
        }
        pair.apply(&Step::Kill(opening.clone()));
        pair.apply(&Step::Reopen(opening));
    }
}

fn env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
