//! A process that does everything a store can do, killed again and again.
//!
//! - Each step follows from its number. So the number of reported steps determines what the store
//!   must hold; one more step may have been made but not reported.
//! - The settings of a generation (sync policy, append mode, segment size, who merges) follow from
//!   its number.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::time::Duration;

use bitcask::{
    AppendMode, AutoMerge, Batch, Bitcask, Error, MergeOptions, MergePolicy, Options, ReadOnly,
    SyncPolicy, WriteOptions,
};

use crate::support::{Actor, Pairs, Random, SAYS, actor, in_memory, pairs};

/// Environment variable: the generation of a child process.
const GENERATION: &str = "BITCASK_TEST_GENERATION";
/// Environment variable: the number of the first step to make.
const FROM: &str = "BITCASK_TEST_FROM";

/// A key and its new value, or `None` if it is removed.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// One step of a child process.
#[derive(Debug)]
enum Step {
    Put(Change),
    /// With a time to live that outlasts this run.
    PutLasting(Change),
    /// With a time to live that ends immediately.
    PutExpired(Change),
    PutSynced(Change),
    Delete(Change),
    Batch(Vec<Change>),
    Sync,
    Merge,
    Clear,
}

impl Step {
    fn new(number: u64) -> Self {
        let mut random = Random(number << 20 ^ 0x6b69_6c6c);
        let mut key = || format!("key {}", random.below(60).min(number % 60)).into_bytes();
        let (one, others) = (key(), [key(), key(), key(), key(), key()]);
        let value = |random: &mut Random| {
            // About one value in 40 is larger than a segment.
            let size = if random.below(40) == 0 { 6000 } else { random.below(300) };
            let size = usize::try_from(size).unwrap();
            Some(format!("{number} ").into_bytes().into_iter().cycle().take(size).collect())
        };
        match random.below(200) {
            0 => Self::Clear,
            1..6 => Self::Merge,
            6..16 => Self::Sync,
            16..30 => Self::PutSynced((one, value(&mut random))),
            30..45 => Self::PutExpired((one, None)),
            45..60 => Self::PutLasting((one, value(&mut random))),
            60..90 => Self::Delete((one, None)),
            90..130 => {
                let len = usize::try_from(1 + random.below(5)).unwrap();
                let change = |key| {
                    let stays = random.below(3) > 0;
                    (key, if stays { value(&mut random) } else { None })
                };
                Self::Batch(others.into_iter().take(len).map(change).collect())
            }
            _ => Self::Put((one, value(&mut random))),
        }
    }

    fn make(&self, db: &Bitcask) -> bitcask::Result<()> {
        let day = Duration::from_secs(24 * 3600);
        let with = |change: &Change, options| {
            db.put_opt(&change.0, change.1.as_deref().unwrap_or(b"gone"), options)
        };
        match self {
            Self::Put(change) => with(change, WriteOptions::new()),
            Self::PutLasting(change) => with(change, WriteOptions::new().ttl(day)),
            Self::PutExpired(change) => with(change, WriteOptions::new().ttl(Duration::ZERO)),
            Self::PutSynced(change) => with(change, WriteOptions::new().durable(true)),
            Self::Delete((key, _)) => db.delete(key).map(drop),
            Self::Batch(changes) => {
                let mut batch = Batch::new();
                for (key, value) in changes {
                    match value {
                        Some(value) => batch.put(key, value),
                        None => batch.delete(key),
                    };
                }
                db.write(&batch)
            }
            Self::Sync => db.sync(),
            Self::Merge => merge(db, &mut Random(db.stats().appends)),
            Self::Clear => db.clear(),
        }
    }

    fn apply(self, state: &mut Pairs) {
        let changes = match self {
            Self::Put(change)
            | Self::PutLasting(change)
            | Self::PutExpired(change)
            | Self::PutSynced(change)
            | Self::Delete(change) => vec![change],
            Self::Batch(changes) => changes,
            Self::Sync | Self::Merge => vec![],
            Self::Clear => return state.clear(),
        };
        for (key, value) in changes {
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
    }
}

/// Merges a random part of the segments, so that entries in the others could wrongly come back.
fn merge(db: &Bitcask, random: &mut Random) -> bitcask::Result<()> {
    let mut chosen: Vec<u32> = db.segments().iter().map(|segment| segment.id).collect();
    chosen.retain(|_| random.below(3) > 0);
    match db.merge_opt(MergeOptions::new().segments(chosen)) {
        // A concurrent merge or clear came first.
        Err(Error::InvalidOption { name: "segments", .. }) => Ok(()),
        merged => merged.map(drop),
    }
}

/// Every combination of modes, policies, sizes and merges in 24 generations.
fn options(generation: u64) -> Options {
    let modes = [AppendMode::Mapped, AppendMode::Positioned];
    let policies =
        [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_millis(2)), SyncPolicy::Always];
    let eager = AutoMerge::new()
        .trigger_dead_percent(10)
        .dead_percent(5)
        .idle_dead_percent(1)
        .small_count(2)
        .check_interval(Duration::from_millis(3));
    let merges = [MergePolicy::Auto(eager), MergePolicy::Manual];
    let choose = |step: u64, len: u64| usize::try_from(generation / step % len).unwrap();
    Options::new()
        .append_mode(modes.get(choose(1, 2)).copied().unwrap())
        .sync_policy(policies.get(choose(2, 3)).copied().unwrap())
        .segment_size(if choose(6, 2) == 0 { 4096 } else { 1 << 16 })
        .merge_policy(merges.get(choose(12, 2)).cloned().unwrap())
}

/// Makes steps until it is killed, and reports each one that has returned. In some generations a
/// second thread merges all the time.
pub(crate) fn do_everything(store: &Path) {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (generation, from) = (number(GENERATION), number(FROM));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::abort();
    }));
    println!("{SAYS}opening");
    let db = Bitcask::open(store, options(generation)).unwrap();
    std::thread::scope(|scope| {
        if generation % 3 == 1 {
            scope.spawn(|| {
                let mut random = Random(generation);
                loop {
                    merge(&db, &mut random).unwrap();
                }
            });
        }
        for step in from.. {
            Step::new(step).make(&db).unwrap();
            println!("{SAYS}{step}");
        }
    });
}

/// Kills one process per generation, and checks after each what it has left on disk.
fn killed(generations: u64, seed: u64) {
    // A kill leaves what the kernel holds, on any file system.
    let dir = in_memory();
    let store = dir.path().join("store");
    let (mut state, mut last, mut random) = (Pairs::new(), 0_u64, Random(seed));
    for generation in 0..generations {
        let mut command = actor("do everything", &store);
        command.env(GENERATION, generation.to_string()).env(FROM, (last + 1).to_string());
        let mut child = Actor::start(command).unwrap();
        assert_eq!(child.hear().unwrap(), "opening");
        // Some are killed while they open, or before they have written.
        let steps = random.below(90).saturating_sub(8);
        let mut said = |said: Option<String>| {
            let Some(step) = said else { return false };
            let step: u64 = step.parse().unwrap();
            assert_eq!(step, last + 1);
            Step::new(step).apply(&mut state);
            last = step;
            true
        };
        for _ in 0..steps {
            assert!(said(child.hear()), "generation {generation} ended before it was killed");
        }
        child.kill();
        // Steps that were reported before the kill count, too.
        while said(child.hear()) {}
        if let Some(one_more) = left_behind(&store, generation, &state, last + 1) {
            state = one_more;
            last += 1;
        }
    }
    println!("{generations} processes killed, {last} steps made");
}

/// Checks what a process has left on disk: `state`, or the state after one more step, which is
/// returned in that case. Then prepares the store for the next process in one of several ways.
fn left_behind(store: &Path, generation: u64, state: &Pairs, next: u64) -> Option<Pairs> {
    let mut one_more = state.clone();
    Step::new(next).apply(&mut one_more);
    let options = |number: u64| options(generation + number).merge_policy(MergePolicy::Manual);
    let found = match ReadOnly::open(store, options(0)) {
        Ok(db) => pairs(&db),
        // The process was killed before it had created a store.
        Err(Error::NotFound { .. }) => Pairs::new(),
        Err(error) => panic!("generation {generation}: {error}"),
    };
    assert!(
        found == *state || found == one_more,
        "generation {generation}: neither the state after {} steps nor after {next}",
        next - 1
    );
    if !generation.is_multiple_of(4) {
        let db = Bitcask::open(store, options(1)).unwrap();
        assert!(pairs(&db) == found, "generation {generation}: opened for writing");
        assert!(db.verify().unwrap().is_clean());
        if generation % 4 > 1 {
            merge(&db, &mut Random(next)).unwrap();
            assert!(pairs(&db) == found, "generation {generation}: merged");
        }
        if generation % 4 > 2 {
            db.close().unwrap();
            let db = Bitcask::open(store, options(2)).unwrap();
            assert!(db.recovery().is_clean());
            assert!(pairs(&db) == found, "generation {generation}: closed and opened");
        }
    }
    (found != *state).then_some(one_more)
}

#[test]
fn every_acknowledged_step_survives_the_kills_of_sixty_processes() {
    killed(60, 0x006b_696c_6c73);
}

#[test]
#[ignore = "long; BITCASK_LONG sets the number of processes to kill"]
fn every_acknowledged_step_survives_for_long() {
    let generations = std::env::var("BITCASK_LONG").map_or(1000, |text| text.parse().unwrap());
    let seed = std::env::var("BITCASK_SEED").map_or(1, |text| text.parse().unwrap());
    killed(generations, seed);
}
