//! Merges concurrent with everything else, on real files: in a process that is killed again and
//! again, in one that closes in the middle of merges, and while readers hold values and iterators.
//!
//! - Each of eight threads writes to separate keys, and reads all keys. Each write follows from its
//!   thread and its number. So the number of each thread's writes that have returned determines
//!   what the store must hold; one more write per thread may have been in progress.
//! - A value names its write, and every byte of it shows whether it is complete: see `threads`.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index in a helper fails the test")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use bitcask::{
    AutoMerge, Batch, Bitcask, Error, MergeOptions, MergePolicy, Options, Reader, SyncPolicy,
    UnorderedIter, Value, WriteOptions,
};

use crate::support::{Actor, Random, SAYS, actor, files_of, logs, open, open_read_only, options};
use crate::threads::{checked, key, number, value};

const THREADS: usize = 8;
const KEYS_EACH: u64 = 8;
const KEYS: u64 = THREADS as u64 * KEYS_EACH;
/// Number of keys per thread that are never deleted.
const STABLE: u64 = 2;

/// Limit on segments that wait to be sealed. While there are more, no thread continues.
const UNSEALED_MAX: u64 = 16;

/// For each present key, the number of the write that stored its value.
type State = BTreeMap<u64, u64>;

/// Returns the thread that writes to a key.
fn owner(key: u64) -> u64 {
    key / KEYS_EACH
}

fn is_stable(key: u64) -> bool {
    key % KEYS_EACH < STABLE
}

/// Returns the part of a state that belongs to a thread.
fn part_of(state: &State, thread: u64) -> State {
    state.range(thread * KEYS_EACH..(thread + 1) * KEYS_EACH).map(|(key, at)| (*key, *at)).collect()
}

/// Checks every byte of every value in a store, and returns the store's state.
fn found(db: &Reader) -> State {
    let mut state = State::new();
    for pair in db.iter_unordered() {
        let (at, bytes) = pair.unwrap();
        let at = number(&at);
        let (writer, sequence) = checked(at, &bytes);
        assert_eq!(writer, owner(at), "key {at}");
        assert_eq!(state.insert(at, sequence), None, "key {at} appears twice");
    }
    for at in 0..KEYS {
        assert_eq!(db.contains_key(key(at)).unwrap(), state.contains_key(&at), "key {at}");
    }
    state
}

/// The method that makes a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Put,
    PutSynced,
    InsertNew,
    Update,
    CompareAndSwap,
    Delete,
    /// A put of a value that has already expired.
    Expire,
    Batch,
}

/// One write: its keys, each with whether it is present afterwards.
#[derive(Debug)]
struct Change {
    verb: Verb,
    writer: u64,
    sequence: u64,
    keys: Vec<(u64, bool)>,
}

impl Change {
    /// Returns the write that a thread makes at a number.
    fn new(writer: u64, sequence: u64) -> Self {
        let mut random = Random(writer << 48 ^ sequence << 8);
        // Some keys are written often. Others are written so rarely that their entries, including
        // tombstones, get into old segments: about one write in 64 of a thread goes to its last
        // key.
        let any = |random: &mut Random| {
            let at = random.below(KEYS_EACH).min(random.below(KEYS_EACH));
            writer * KEYS_EACH + at
        };
        let at = any(&mut random);
        let verb = match random.below(20) {
            0..8 => Verb::Put,
            8 => Verb::PutSynced,
            9 => Verb::InsertNew,
            10 => Verb::Update,
            11 => Verb::CompareAndSwap,
            12..15 => Verb::Delete,
            15..17 => Verb::Expire,
            _ => Verb::Batch,
        };
        let stays = |at, random: &mut Random| match verb {
            Verb::Delete | Verb::Expire => is_stable(at),
            Verb::Put | Verb::PutSynced | Verb::InsertNew => true,
            _ => is_stable(at) || random.below(3) > 0,
        };
        let mut keys = vec![(at, stays(at, &mut random))];
        if verb == Verb::Batch {
            // Some of them twice; the last change wins.
            for _ in 0..=random.below(5) {
                let at = any(&mut random);
                keys.push((at, stays(at, &mut random)));
            }
        }
        Self { verb, writer, sequence, keys }
    }

    fn value(&self, at: u64) -> Vec<u8> {
        value(at, self.writer, self.sequence)
    }

    /// Makes the write in a store, and checks its result against the thread's state.
    fn make(&self, db: &Bitcask, state: &State) {
        let (at, stays) = self.keys[0];
        let (name, new) = (key(at), self.value(at));
        let old = state.get(&at).map(|sequence| value(at, self.writer, *sequence));
        let kept = stays.then_some(new.as_slice());
        match self.verb {
            Verb::Batch => {
                let mut batch = Batch::new();
                let expired = WriteOptions::new().ttl(Duration::ZERO);
                for (at, stays) in &self.keys {
                    match (stays, self.sequence % 2) {
                        (true, _) => batch.put(key(*at), self.value(*at)),
                        (false, 0) => batch.delete(key(*at)),
                        (false, _) => batch.put_opt(key(*at), "gone", expired),
                    };
                }
                db.write(&batch).unwrap();
            }
            Verb::Update => {
                let stored = db.update(name, |found| {
                    assert!(found == old.as_deref(), "key {at}: not the latest value");
                    kept
                });
                assert!(stored.unwrap().as_deref() == kept);
            }
            Verb::CompareAndSwap => {
                let swapped = db.compare_and_swap(name, old.as_deref(), kept).unwrap();
                assert!(swapped.is_ok(), "key {at}: not the latest value");
            }
            Verb::InsertNew => assert_eq!(db.put_if_absent(name, new).unwrap(), old.is_none()),
            Verb::PutSynced => db.put_opt(name, new, WriteOptions::new().durable(true)).unwrap(),
            _ if stays => db.put(name, new).unwrap(),
            Verb::Expire => {
                let expired = WriteOptions::new().ttl(Duration::ZERO);
                db.put_opt(name, "gone", expired).unwrap();
            }
            _ => assert_eq!(db.delete(name).unwrap(), old.is_some(), "key {at}"),
        }
    }

    /// Applies the write to a state.
    fn apply(&self, state: &mut State) {
        for (at, stays) in &self.keys {
            match (self.verb, stays) {
                (Verb::InsertNew, _) => drop(state.entry(*at).or_insert(self.sequence)),
                (_, true) => drop(state.insert(*at, self.sequence)),
                (_, false) => drop(state.remove(at)),
            }
        }
    }
}

/// Outlives the process: how many writes of each thread have returned, and where the store was
/// cleared.
#[derive(Debug)]
struct Diary {
    path: PathBuf,
    returned: File,
    /// A line for the beginning and the end of each clear, with the number of returned writes of
    /// each thread.
    clears: File,
}

/// Size of a line of the diary of clears: 0 for a beginning or 1 for an end, then a number per
/// thread.
const CLEAR_SIZE: usize = 8 * (1 + THREADS);

impl Diary {
    /// Opens the diary of a store, which lies next to the store.
    fn of(store: &Path) -> Self {
        let path = store.with_extension("diary");
        fs::create_dir_all(&path).unwrap();
        let open = |name: &str| {
            let path = path.join(name);
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let (returned, clears) = (open("returned"), open("clears"));
        Self { path, returned, clears }
    }

    /// Returns how many writes of a thread have returned.
    fn returned(&self, thread: usize) -> u64 {
        let mut bytes = [0; 8];
        // The file is empty before the first write.
        let _ = self.returned.read_exact_at(&mut bytes, thread as u64 * 8);
        u64::from_be_bytes(bytes)
    }

    fn set_returned(&self, thread: usize, sequence: u64) {
        self.returned.write_all_at(&sequence.to_be_bytes(), thread as u64 * 8).unwrap();
    }

    fn all_returned(&self) -> [u64; THREADS] {
        std::array::from_fn(|thread| self.returned(thread))
    }

    /// Records a clear. No thread writes meanwhile.
    fn note_clear(&self, done: bool) {
        let line = [u64::from(done)].into_iter().chain(self.all_returned());
        let line: Vec<u8> = line.flat_map(u64::to_be_bytes).collect();
        self.clears.write_all_at(&line, self.clears.metadata().unwrap().len()).unwrap();
    }

    /// Returns the counts of returned writes at the last completed clear, and whether another clear
    /// has begun since.
    fn clears(&self) -> (Option<[u64; THREADS]>, bool) {
        let bytes = fs::read(self.path.join("clears")).unwrap();
        let (mut last, mut begun) = (None, false);
        for line in bytes.chunks_exact(CLEAR_SIZE) {
            begun = number(&line[..8]) == 0;
            if !begun {
                last = Some(std::array::from_fn(|thread| number(&line[8 + thread * 8..][..8])));
            }
        }
        (last, begun)
    }

    /// Starts over after a kill: the write that may have been in progress counts as returned.
    fn turn_page(&self) {
        for thread in 0..THREADS {
            self.set_returned(thread, self.returned(thread) + 1);
        }
        self.clears.set_len(0).unwrap();
    }
}

/// Checks the state of a store after a kill, given the state and the counts of returned writes
/// before.
fn judge(before: &State, from: [u64; THREADS], diary: &Diary, after: &State) {
    let (cleared, clearing) = diary.clears();
    let state_at = |thread: usize, until: u64| {
        let writer = thread as u64;
        let (mut state, from) = match cleared {
            Some(cleared) => (State::new(), cleared[thread]),
            None => (part_of(before, writer), from[thread]),
        };
        (from + 1..=until).for_each(|at| Change::new(writer, at).apply(&mut state));
        state
    };
    if clearing && after.is_empty() {
        return;
    }
    for thread in 0..THREADS {
        let (returned, part) = (diary.returned(thread), part_of(after, thread as u64));
        let expected = state_at(thread, returned);
        let one_more = state_at(thread, returned + 1);
        assert!(
            part == expected || !clearing && part == one_more,
            "thread {thread} after {returned} writes has {part:?}\nand not {expected:?}\nor, with one \
             more {one_more:?}: {:?}\ncleared {cleared:?}, clearing {clearing}",
            Change::new(thread as u64, returned + 1),
        );
    }
}

/// For each key, the number of the oldest write whose value it may still have.
type Oldest = BTreeMap<u64, u64>;

/// State shared by the threads of a process.
#[derive(Debug, Default)]
struct Shared {
    /// Number of clears so far. Writers hold the lock, so that no thread writes during a clear: the
    /// diary could not tell which came first.
    clears: RwLock<u64>,
    diary: Option<Diary>,
    /// Stops the threads that would otherwise run for ever.
    done: AtomicBool,
}

impl Shared {
    fn clears(&self) -> u64 {
        *self.clears.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// An iterator between two steps.
struct Walk<'a> {
    iter: UnorderedIter<'a>,
    /// Keys that must appear, unless the store was cleared after `clears` was read.
    expected: BTreeSet<u64>,
    clears: u64,
    found: BTreeSet<u64>,
    /// No value may be older than these.
    oldest: Oldest,
}

/// A thread that writes to its keys, and reads all keys.
struct Worker<'a> {
    db: &'a Bitcask,
    shared: &'a Shared,
    thread: usize,
    sequence: u64,
    /// State of this thread's keys.
    state: State,
    clears: u64,
    oldest: Oldest,
    held: VecDeque<(u64, u64, Value)>,
    walk: Option<Walk<'a>>,
    buffer: Vec<u8>,
    random: Random,
}

impl<'a> Worker<'a> {
    fn new(db: &'a Bitcask, shared: &'a Shared, thread: usize, sequence: u64, seed: u64) -> Self {
        let mut worker = Self {
            db,
            shared,
            thread,
            sequence,
            state: State::new(),
            clears: shared.clears(),
            oldest: Oldest::default(),
            held: VecDeque::new(),
            walk: None,
            buffer: Vec::new(),
            random: Random(seed ^ (thread as u64) << 56),
        };
        for at in worker.own_keys() {
            let bytes = db.get(key(at)).unwrap();
            worker.state.extend(bytes.map(|bytes| (at, checked(at, &bytes).1)));
        }
        worker
    }

    fn own_keys(&self) -> std::ops::Range<u64> {
        let first = self.thread as u64 * KEYS_EACH;
        first..first + KEYS_EACH
    }

    /// Makes one step, once the disk has caught up: eight threads fill tiny segments much faster
    /// than one thread can seal them.
    fn step(&mut self) {
        let unsealed = || {
            let stats = self.db.stats();
            // The two figures are not from the same moment.
            stats.segments.saturating_sub(stats.sealed_segments)
        };
        while unsealed() > UNSEALED_MAX {
            thread::sleep(Duration::from_millis(1));
        }
        let at = self.random.below(KEYS);
        match self.random.below(20) {
            0..9 => self.write(),
            9..11 => {
                let bytes = self.db.get(key(at)).unwrap();
                self.see(at, bytes.as_deref());
            }
            11 => {
                let mut sequence = None;
                let see = |bytes: &[u8]| sequence = Some(checked(at, bytes).1);
                self.db.get_with(key(at), see).unwrap();
                self.note(at, sequence);
            }
            12 => {
                let mut buffer = std::mem::take(&mut self.buffer);
                let is_there = self.db.get_into(key(at), &mut buffer).unwrap();
                self.see(at, is_there.then_some(buffer.as_slice()));
                self.buffer = buffer;
            }
            13 => {
                let several: Vec<u64> = (0..8).map(|step| (at + step * 9) % KEYS).collect();
                let keys: Vec<_> = several.iter().copied().map(key).collect();
                let found = self.db.get_many(&keys).unwrap();
                for (at, bytes) in several.into_iter().zip(found) {
                    self.see(at, bytes.as_deref());
                }
            }
            14 => self.read_own(),
            15..19 => self.hold(at),
            _ => self.walk(),
        }
    }

    fn write(&mut self) {
        let shared = self.shared;
        let gate = shared.clears.read().unwrap();
        self.catch_up(*gate);
        self.sequence += 1;
        let change = Change::new(self.thread as u64, self.sequence);
        change.make(self.db, &self.state);
        change.apply(&mut self.state);
        if let Some(diary) = &shared.diary {
            diary.set_returned(self.thread, self.sequence);
        }
        drop(gate);
        for (at, _) in change.keys {
            if let Some(sequence) = self.state.get(&at) {
                self.oldest.insert(at, *sequence);
            }
        }
    }

    /// Clears the known state if the store has been cleared.
    fn catch_up(&mut self, clears: u64) {
        if std::mem::replace(&mut self.clears, clears) != clears {
            self.state.clear();
        }
    }

    /// Reads all of the thread's keys and compares them with its state.
    fn read_own(&mut self) {
        let shared = self.shared;
        let gate = shared.clears.read().unwrap();
        self.catch_up(*gate);
        for at in self.own_keys() {
            let bytes = self.db.get(key(at)).unwrap();
            let sequence = bytes.map(|bytes| checked(at, &bytes).1);
            assert_eq!(sequence.as_ref(), self.state.get(&at), "key {at}");
        }
    }

    /// Records what was read of a key.
    fn see(&mut self, at: u64, bytes: Option<&[u8]>) {
        self.note(at, bytes.map(|bytes| checked(at, bytes).1));
    }

    fn note(&mut self, at: u64, sequence: Option<u64>) {
        let oldest = self.oldest.entry(at).or_default();
        match sequence {
            Some(sequence) => {
                assert!(sequence >= *oldest, "key {at}: {sequence} after {oldest}");
                *oldest = sequence;
            }
            // The earlier value must not come back.
            None => *oldest += u64::from(*oldest > 0),
        }
    }

    /// Holds a value. Checks that the oldest held value has not changed, and drops it.
    fn hold(&mut self, at: u64) {
        let bytes = self.db.get(key(at)).unwrap();
        self.see(at, bytes.as_deref());
        let sequence = self.oldest[&at];
        self.held.extend(bytes.map(|bytes| (at, sequence, bytes)));
        if self.held.len() > 16
            && let Some((at, sequence, bytes)) = self.held.pop_front()
        {
            assert_eq!(checked(at, &bytes), (owner(at), sequence));
        }
    }

    /// Advances an iterator by several steps, or starts a new one.
    fn walk(&mut self) {
        let (db, shared) = (self.db, self.shared);
        let mut walk = self.walk.take().unwrap_or_else(|| {
            let clears = shared.clears();
            let is_there = |at: &u64| is_stable(*at) && db.contains_key(key(*at)).unwrap();
            let expected = (0..KEYS).filter(is_there).collect();
            Walk {
                iter: db.iter_unordered(),
                expected,
                clears,
                found: BTreeSet::new(),
                oldest: self.oldest.clone(),
            }
        });
        for _ in 0..self.random.below(KEYS / 2) {
            let Some(pair) = walk.iter.next() else {
                assert!(walk.clears != shared.clears() || walk.expected.is_subset(&walk.found));
                return;
            };
            let (at, bytes) = pair.unwrap();
            let at = number(&at);
            let (_, sequence) = checked(at, &bytes);
            assert!(walk.found.insert(at), "key {at} appears twice");
            let oldest = walk.oldest.get(&at).copied().unwrap_or(0);
            assert!(sequence >= oldest, "key {at}: {sequence} after {oldest}");
            let oldest = self.oldest.entry(at).or_default();
            *oldest = sequence.max(*oldest);
        }
        self.walk = Some(walk);
    }
}

/// Merges some of the segments, and stops at a random point. Returns whether there was anything to
/// merge.
fn merge_at_random(db: &Bitcask, random: &mut Random) -> bool {
    let mut chosen: Vec<u32> = db.segments().iter().map(|segment| segment.id).collect();
    let (part, stop) = (random.below(3) + 1, random.below(12));
    chosen.retain(|_| random.below(4) < part);
    let (limit, way, probe) = (random.below(4), random.below(16), key(random.below(KEYS)));
    let options = MergeOptions::new().bytes_per_second((limit == 0).then_some(1 << 20));
    let mut calls = 0;
    let options = options.progress(|progress| {
        assert!(progress.segments_done <= progress.segments_total, "{progress:?}");
        assert!(progress.read_size <= progress.total_size, "{progress:?}");
        db.get_with(probe, |bytes| checked(number(&probe), bytes)).unwrap();
        calls += 1;
        if stop > 0 && calls == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let options = match way {
        0 => options.force(true),
        1 => options,
        _ => options.segments(chosen.iter().copied()),
    };
    match db.merge_opt(options) {
        Ok(report) if !report.cancelled && way > 1 => {
            let left = db.segments();
            let left = left.iter().find(|segment| chosen.contains(&segment.id));
            assert_eq!(left, None, "a merged segment is still listed: {report:?}");
            report.segments_in > 0
        }
        Ok(report) => report.segments_in > 0,
        // A concurrent merge or clear came first.
        Err(Error::InvalidOption { name: "segments", .. }) if way > 1 => false,
        Err(error) => panic!("{error}"),
    }
}

/// Calls the other methods of a store.
fn keep_house(db: &Bitcask, shared: &Shared, random: &mut Random) {
    match random.below(240) {
        0 => {
            let mut clears = shared.clears.write().unwrap();
            if let Some(diary) = &shared.diary {
                diary.note_clear(false);
            }
            db.clear().unwrap();
            if let Some(diary) = &shared.diary {
                diary.note_clear(true);
            }
            *clears += 1;
        }
        1..80 => db.sync().unwrap(),
        80..160 => {
            let (stats, segments) = (db.stats(), db.segments());
            assert!(stats.live_size <= stats.log_size, "{stats:?}");
            let is_sound = segments.iter().all(|each| each.live_size <= each.size);
            assert!(is_sound, "{segments:?}");
            let ids: BTreeSet<u32> = segments.iter().map(|segment| segment.id).collect();
            assert_eq!(ids.len(), segments.len(), "{segments:?}");
        }
        _ => {
            let plan = db.needs_merge();
            assert!(plan.live_size() <= plan.size(), "{plan:?}");
            assert!(db.len().unwrap() <= KEYS);
        }
    }
    thread::sleep(Duration::from_millis(1));
}

/// Runs merges and the other calls until the writing threads are done. Returns what those threads
/// know of their keys.
fn run<'a>(
    db: &'a Bitcask,
    shared: &'a Shared,
    seed: u64,
    merged: impl Fn() + Sync,
    work: impl Fn(&mut Worker<'a>) + Sync,
) -> State {
    let start = |thread| {
        let sequence = shared.diary.as_ref().map_or(0, |diary| diary.returned(thread));
        Worker::new(db, shared, thread, sequence, seed)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    let mut worker = start(thread);
                    work(&mut worker);
                    (worker.clears, worker.state)
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random(seed ^ 1 << 40);
            while !shared.is_done() {
                if merge_at_random(db, &mut random) {
                    merged();
                } else {
                    thread::yield_now();
                }
            }
        });
        scope.spawn(|| {
            let mut random = Random(seed ^ 1 << 41);
            while !shared.is_done() {
                keep_house(db, shared, &mut random);
            }
        });
        let results: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        shared.done.store(true, Ordering::Release);
        results.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    })
    .into_iter()
    .filter(|(clears, _)| *clears == shared.clears())
    .flat_map(|(_, state)| state)
    .collect()
}

fn tiny(seed: u64) -> Options {
    let policies = [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_millis(5))];
    let policy = policies[usize::try_from(seed / 3 % 2).unwrap()];
    options().segment_size(4096 << (seed % 2)).sync_policy(policy).merge_policy(MergePolicy::Manual)
}

/// Merges as often as possible.
fn eager() -> AutoMerge {
    AutoMerge::new()
        .trigger_dead_percent(10)
        .dead_percent(5)
        .idle_dead_percent(1)
        .small_count(2)
        .check_interval(Duration::from_millis(3))
}

/// Line that a child process prints after each merge.
const MERGED: &str = "merged";
/// Environment variable: the seed of a child process.
const SEED: &str = "BITCASK_TEST_SEED";

/// Uses a store until it is killed, and reports now and then that it is still running.
pub(crate) fn merge_and_write(store: &Path) {
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    // After a panic in one thread, the others would continue; abort instead.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::abort();
    }));
    let options = match seed % 4 {
        0 => tiny(seed).merge_policy(MergePolicy::Auto(eager())),
        _ => tiny(seed),
    };
    println!("{SAYS}opening");
    let db = Bitcask::open(store, options).unwrap();
    let shared = Shared { diary: Some(Diary::of(store)), ..Shared::default() };
    let say_merged = || println!("{SAYS}{MERGED}");
    run(&db, &shared, seed, say_merged, |worker| {
        loop {
            (0..8).for_each(|_| worker.step());
            println!("{SAYS}eight steps");
        }
    });
}

/// Checks that a directory of a closed store holds what its manifest lists, and nothing else.
fn check_files(path: &Path) {
    let id = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let ids = |extension| files_of(path, extension).iter().map(id).collect::<BTreeSet<u32>>();
    let listed = open_read_only(path).segments().iter().map(|segment| segment.id).collect();
    assert_eq!(ids("log"), listed);
    assert_eq!(ids("hint"), listed);
    assert_eq!(files_of(path, "tmp"), Vec::<PathBuf>::new());
}

/// Opens a store whose process was killed, and returns its state. Then prepares the store for the
/// next process in one of several ways.
fn reopened(path: &Path, generation: u64, random: &mut Random) -> State {
    let state = found(&open_read_only(path));
    if generation.is_multiple_of(4) {
        return state;
    }
    for _ in 0..3 {
        let db = Bitcask::open(path, tiny(generation)).unwrap();
        assert_eq!(found(&db), state, "opened again");
        merge_at_random(&db, random);
        assert_eq!(found(&db), state, "merged");
    }
    if generation % 4 == 1 {
        let db = Bitcask::open(path, tiny(generation)).unwrap();
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        assert_eq!(found(&db), state, "merged");
        db.close().unwrap();
        check_files(path);
    }
    state
}

/// Kills one process per generation, each after a random number of merges, at most `merges_max`,
/// and then a random number of steps.
fn killed_while_merging(generations: u64, merges_max: u64, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    drop(open(&store));
    let (diary, mut random) = (Diary::of(&store), Random(seed));
    let mut state = State::new();
    for generation in 0..generations {
        let from = diary.all_returned();
        let mut command = actor("merger", &store);
        command.env(SEED, (seed + generation).to_string());
        let mut child = Actor::start(command).unwrap();
        let mut hear = || match child.hear() {
            Some(said) => said,
            None => panic!("generation {generation} of seed {seed}: {}", child.wait()),
        };
        // Some generations are killed while they open.
        hear();
        let mut merges = random.below(merges_max + 1) * u64::from(generation % 8 > 0);
        while merges > 0 {
            merges -= u64::from(hear() == MERGED);
        }
        for _ in 0..random.below(30) * u64::from(generation % 8 > 0) {
            hear();
        }
        child.kill();
        while child.hear().is_some() {}
        let after = reopened(&store, generation, &mut random);
        judge(&state, from, &diary, &after);
        diary.turn_page();
        state = after;
    }
}

#[test]
fn killing_merging_processes_loses_nothing_and_resurrects_nothing() {
    killed_while_merging(20, 6, 7);
}

#[test]
#[ignore = "long; BITCASK_LONG sets the number of processes to kill"]
fn killing_merging_processes_loses_and_resurrects_nothing_for_long() {
    let figure = |name: &str, default| {
        std::env::var(name).map_or(default, |figure| figure.parse::<u64>().unwrap())
    };
    killed_while_merging(figure("BITCASK_LONG", 300), 60, figure(SEED, 1));
}

/// Returns the total size of a directory's files, excluding the quarantine and the lock.
fn size_of_files(path: &Path) -> u64 {
    let files = ["log", "hint"].iter().flat_map(|extension| files_of(path, extension));
    files.map(|file| fs::metadata(file).unwrap().len()).sum()
}

#[test]
fn closing_in_the_middle_of_merges_keeps_the_state_and_no_garbage() {
    const STEPS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let (finished, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let on_finish = {
        let (finished, failed) = (Arc::clone(&finished), Arc::clone(&failed));
        move |result: &bitcask::Result<bitcask::MergeReport>| match result {
            Ok(_) => drop(finished.fetch_add(1, Ordering::Relaxed)),
            Err(error) => failed.lock().unwrap().push(error.to_string()),
        }
    };
    let auto = eager().bytes_per_second(Some(1 << 20)).on_finish(on_finish);
    let options = tiny(0).merge_policy(MergePolicy::Auto(auto));
    let mut state = State::new();
    for round in 0..4 {
        let db = Bitcask::open(dir.path(), options.clone()).unwrap();
        assert_eq!(found(&db), state, "round {round}");
        let (shared, until) = (Shared::default(), finished.load(Ordering::Relaxed) + 3);
        state = run(
            &db,
            &shared,
            round,
            || (),
            |worker| {
                worker.sequence = round << 32;
                let mut step = 0;
                while step < STEPS || finished.load(Ordering::Relaxed) < until {
                    worker.step();
                    step += 1;
                }
            },
        );
        assert_eq!(found(&db), state, "round {round}");
        drop(db);
        check_files(dir.path());
    }
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new());
    let db = Bitcask::open(dir.path(), options).unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(found(&db), state);
    let figures = db.stats();
    db.close().unwrap();
    check_files(dir.path());
    // Header, key and value, rounded up to a multiple of 8; at most 24 bytes of hint per key; and
    // each file's fixed size.
    let live = state.iter().map(|(at, sequence)| {
        let size = 20 + 8 + value(*at, owner(*at), *sequence).len();
        size.next_multiple_of(8) as u64
    });
    assert_eq!(figures.live_size, live.sum::<u64>(), "{figures:?}");
    let most = figures.live_size + 24 * figures.keys + 1024 * logs(dir.path()).len() as u64;
    let taken = size_of_files(dir.path());
    assert!(taken <= most, "the files take {taken} bytes, more than {most}: {figures:?}");
}

#[test]
fn held_values_keep_their_bytes_while_merges_remove_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), tiny(0)).unwrap();
    let put_all = |sequence| {
        for at in 0..KEYS {
            db.put(key(at), value(at, 0, sequence)).unwrap();
        }
    };
    (1..=6).for_each(put_all);
    let held: Vec<Value> = (0..KEYS).map(|at| db.get(key(at)).unwrap().unwrap()).collect();
    let mut iter = db.iter_unordered();
    let mut first: Vec<_> = iter.by_ref().take(20).map(Result::unwrap).collect();
    let before = logs(dir.path());
    for round in 7..12_u64 {
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        if round.is_multiple_of(2) {
            put_all(round);
        } else {
            (0..KEYS / 2).for_each(|at| assert!(db.delete(key(at)).unwrap()));
            put_all(round);
        }
    }
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let after = logs(dir.path());
    assert!(before.len() > 5 && after.iter().all(|path| !before.contains(path)), "{after:?}");
    for (at, bytes) in (0..).zip(&held) {
        assert_eq!(checked(at, bytes), (0, 6));
    }
    first.extend(iter.map(Result::unwrap));
    let keys: BTreeSet<u64> = first.iter().map(|(at, _)| number(at)).collect();
    assert_eq!((first.len() as u64, keys.len() as u64), (KEYS, KEYS));
    for (at, bytes) in &first {
        let (_, sequence) = checked(number(at), bytes);
        assert!(sequence == 6 || sequence == 11, "{sequence}");
    }
    let held_on = files_held(dir.path());
    drop((held, first));
    db.put("last", "entry").unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    if let Some(held_on) = held_on {
        assert!(held_on > 5, "held values map only {held_on} removed files");
        // Other tests' reads briefly delay the release. The store's thread then tries again.
        let is_free = || files_held(dir.path()) == Some(0);
        let soon = (0..1000).any(|_| {
            is_free() || {
                thread::sleep(Duration::from_millis(20));
                false
            }
        });
        assert!(soon, "{:?} removed files are still mapped", files_held(dir.path()));
    }
}

/// Returns how many removed files of a directory this process has mapped, or `None` if that is
/// unknown.
fn files_held(dir: &Path) -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let dir = dir.to_str().unwrap();
    Some(maps.lines().filter(|line| line.contains(dir) && line.ends_with("(deleted)")).count())
}
