//! Runs of all kinds against a map of all versions.

mod gaps;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use super::build::{BLOCK_SIZE_MAX, Encoded, common_size, prefix};
use super::file::HEADER_SIZE;
use super::*;
use crate::entry::{Flags, Header};
use crate::error::Error;
use crate::fs::Fs;
use crate::options::AppendMode;
use crate::segment::budget::allowed;
use crate::segment::header::{Identity, Kind, SegmentHeader};
use crate::segment::hint::{HintSource, Summary};
use crate::segment::read::scan::Scanned;
use crate::segment::write::active::Active;
use crate::segment::write::draft::Draft;
use crate::segment::{Dir, SegmentId};
use crate::testing::twin::{Call, Fault, FaultKind, Twin};

const IDENTITY: Identity = Identity { store_id: 1, hash_seed: 2 };

/// What the test knows about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowVersion {
    timestamp: u64,
    is_put: bool,
    expiry: Option<u64>,
}

/// What a scan returns for a key: the key, its timestamp, its expiry.
type Shown = (Vec<u8>, u64, Option<u64>);

/// Numbers that depend only on a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }
}

/// Segments, and everything that was appended to them.
struct World {
    twin: Arc<Twin>,
    fs: Fs,
    dir: Dir,
    context: Arc<IndexContext>,
    actives: Vec<Active>,
    versions: BTreeMap<Vec<u8>, BTreeSet<RowVersion>>,
    clock: u64,
}

impl World {
    fn new(segments: u32) -> Self {
        let (twin, dir) = (Twin::new(), Dir::new("/store".into()));
        twin.create_dir(Path::new("/store")).unwrap();
        let fs = Fs::Twin(Arc::clone(&twin));
        let context = IndexContext::new(&fs, &dir, IDENTITY);
        let (actives, versions) = (Vec::new(), BTreeMap::new());
        let mut world = Self { twin, fs, dir, context, actives, versions, clock: 100 };
        (0..segments).for_each(|_| world.add_segment());
        world
    }

    fn add_segment(&mut self) {
        let id = SegmentId(u32::try_from(self.actives.len()).unwrap() + 1);
        let (kind, identity, created) = (Kind::Log, IDENTITY, 5);
        let header = SegmentHeader { kind, id, identity, created };
        let mode = AppendMode::Positioned;
        let active = Active::create(&self.fs, &self.dir, header, 128 << 20, mode).unwrap();
        self.actives.push(active);
    }

    fn append(&mut self, segment: usize, key: &[u8], version: RowVersion) {
        let draft = if version.is_put {
            Draft::put(key, b"value", version.expiry)
        } else {
            Draft::tombstone(key)
        };
        let active = &mut self.actives[segment];
        active.reserve(64 + key.len() as u64).unwrap();
        active.append(&draft, version.timestamp).unwrap();
        active.flush().unwrap();
        self.versions.entry(key.to_vec()).or_default().insert(version);
        self.clock = self.clock.max(version.timestamp);
    }

    fn put(&mut self, segment: usize, key: &[u8]) {
        let timestamp = self.clock + 1;
        self.append(segment, key, RowVersion { timestamp, is_put: true, expiry: None });
    }

    fn segment(&self, at: usize) -> &Arc<Segment> {
        self.actives[at].segment()
    }

    fn seal(&mut self, at: usize) {
        self.clock += 1;
        self.actives[at].finish(SegmentId(99), None, self.clock).unwrap();
        self.segment(at).summarize(self.summary(at));
    }

    /// The part of a segment's hint summary that matters here.
    fn summary(&self, at: usize) -> Summary {
        let last_timestamp = run::rows_of(&self.context, self.segment(at)).unwrap().time;
        Summary { last_timestamp, ..Summary::default() }
    }

    fn source(&self, at: usize) -> HintSource {
        self.context.source(self.segment(at))
    }

    /// Reopens the segments, so that they forget what they know about their indexes.
    fn reopened(&self, at: usize) -> Arc<Segment> {
        let HintSource { id, length, .. } = self.source(at);
        let segment = Segment::sealed(&self.fs, &self.dir, id, length, IDENTITY, true).unwrap();
        segment.summarize(self.summary(at));
        Arc::new(segment)
    }

    fn parts(&self) -> Vec<Part> {
        let parts = self.actives.iter().flat_map(|active| {
            let runs = active.segment().runs(&self.context).unwrap();
            runs.into_iter().map(|run| (Arc::clone(active.segment()), run))
        });
        parts.collect()
    }

    /// Appends an entry of any kind to some unsealed segment.
    fn append_any(&mut self, random: &mut Random, keys: &[Vec<u8>]) {
        let open: Vec<_> =
            (0..self.actives.len()).filter(|at| self.segment(*at).summary().is_none()).collect();
        let Some(segment) = open.get(usize::try_from(random.below(open.len() as u64 + 1)).unwrap())
        else {
            return;
        };
        let key = &keys[usize::try_from(random.below(keys.len() as u64)).unwrap()];
        let timestamp = self.clock + 1 + random.below(3);
        let expiry = random.one_in(3).then(|| 50 + random.below(200));
        let version = match random.below(8) {
            0 | 1 => RowVersion { timestamp, is_put: false, expiry: None },
            // A copy, or the tombstone that a merge makes of an expired put.
            2 => match self.versions.get(key).and_then(|versions| versions.last()) {
                Some(last) if last.is_put && random.one_in(2) => {
                    RowVersion { is_put: false, expiry: None, ..*last }
                }
                Some(last) => *last,
                None => return,
            },
            _ => RowVersion { timestamp, is_put: true, expiry },
        };
        self.append(*segment, key, version);
    }

    fn expected(&self, bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>), moment: Moment) -> Vec<Shown> {
        let is_within = |key: &[u8]| {
            let above = match &bounds.0 {
                Bound::Included(start) => key >= start.as_slice(),
                Bound::Excluded(start) => key > start.as_slice(),
                Bound::Unbounded => true,
            };
            above
                && match &bounds.1 {
                    Bound::Included(end) => key <= end.as_slice(),
                    Bound::Excluded(end) => key < end.as_slice(),
                    Bound::Unbounded => true,
                }
        };
        let shown = |(key, versions): (&Vec<u8>, &BTreeSet<RowVersion>)| {
            let seen = versions.iter().filter(|version| version.timestamp <= moment.timestamp);
            let newest = seen.max_by_key(|version| (version.timestamp, version.is_put))?;
            let exists = newest.is_put && newest.expiry.is_none_or(|expiry| expiry > moment.now);
            (exists && is_within(key)).then(|| (key.clone(), newest.timestamp, newest.expiry))
        };
        self.versions.iter().filter_map(shown).collect()
    }

    fn shown(hit: &Hit, segment: &Arc<Segment>) -> Shown {
        let stored = segment.entry(hit.offset).unwrap();
        stored.check().unwrap();
        assert_eq!(stored.entry().key(), &*hit.key);
        assert_eq!(stored.timestamp(), hit.timestamp);
        assert!(!stored.is_tombstone());
        (hit.key.to_vec(), hit.timestamp, stored.expiry())
    }

    /// Scans the keys from both ends, as `choose` says, and continues past the end.
    fn walk(
        parts: Vec<Part>,
        bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        moment: Moment,
        is_forward: impl FnMut() -> bool,
    ) -> Vec<Shown> {
        Self::walk_all(Merged::new(parts, bounds, moment), is_forward)
    }

    fn walk_all(mut merged: Merged, mut is_forward: impl FnMut() -> bool) -> Vec<Shown> {
        let (mut front, mut back) = (Vec::new(), Vec::new());
        loop {
            let forward = is_forward();
            let hit = if forward { merged.next() } else { merged.next_back() };
            let Some(hit) = hit.unwrap() else { break };
            let shown = Self::shown(&hit, merged.segment(&hit).unwrap());
            if forward { front.push(shown) } else { back.push(shown) }
        }
        for _ in 0..3 {
            assert!(merged.next().unwrap().is_none() && merged.next_back().unwrap().is_none());
        }
        front.extend(back.into_iter().rev());
        front
    }

    /// Compares everything at many moments, in many bounds, from both ends.
    fn check(&self, random: &mut Random, rounds: u64) {
        let keys: Vec<_> = self.versions.keys().cloned().collect();
        for round in 0..rounds {
            let timestamp = if round == 0 { u64::MAX - 1 } else { 95 + random.below(self.clock) };
            let moment = Moment { timestamp, now: random.below(300) };
            let mut bound = || {
                let mut key = match keys.len() as u64 {
                    0 => Vec::new(),
                    len => keys[usize::try_from(random.below(len)).unwrap()].clone(),
                };
                match random.below(3) {
                    0 => drop(key.pop()),
                    1 => key.push(0),
                    _ => {}
                }
                match random.below(3) {
                    0 => Bound::Unbounded,
                    1 => Bound::Included(key),
                    _ => Bound::Excluded(key),
                }
            };
            let bounds = match round {
                0..3 => (Bound::Unbounded, Bound::Unbounded),
                _ => (bound(), bound()),
            };
            let expected = self.expected(&bounds, moment);
            let story = format!("round {round}, {bounds:?}, {moment:?}");
            let front = World::walk(self.parts(), bounds.clone(), moment, || true);
            assert_eq!(front, expected, "{story}");
            let back = World::walk(self.parts(), bounds.clone(), moment, || false);
            assert_eq!(back, expected, "{story}");
            let choices = 1 + random.below(4);
            let both = World::walk(self.parts(), bounds, moment, || random.below(choices + 1) == 0);
            assert_eq!(both, expected, "{story}");
        }
        self.check_look_ups(random, &keys);
    }

    fn check_look_ups(&self, random: &mut Random, keys: &[Vec<u8>]) {
        let parts = self.parts();
        for key in keys.iter().take(50) {
            let moment =
                Moment { timestamp: 95 + random.below(self.clock), now: random.below(300) };
            let missing = [key.as_slice(), b"\0"].concat();
            for key in [key, &missing] {
                let only = (Bound::Included(key.clone()), Bound::Included(key.clone()));
                let found = find(&parts, key, moment).unwrap();
                let shown = found.map(|hit| Self::shown(&hit, &parts[hit.part].0));
                assert_eq!(shown, self.expected(&only, moment).pop(), "{key:?} {moment:?}");
            }
        }
    }
}

/// Short keys, many of which are prefixes of others, and the empty key.
fn short_keys() -> Vec<Vec<u8>> {
    let mut keys = vec![Vec::new()];
    for a in [0, b'a', 0xff] {
        keys.push(vec![a]);
        keys.extend([0, b'b', 0xff].map(|b| vec![a, b]));
        keys.extend([0, 1].map(|b| vec![a, 0, 0, 0, 0, 0, 0, 0, b]));
    }
    keys
}

/// Keys that share a prefix longer than the part that is compared first.
fn alike() -> Vec<Vec<u8>> {
    (0..60).map(|at| format!("user:000000000{at:04}:name").into_bytes()).collect()
}

/// Keys that each fill a separate block, some of them prefixes of others.
fn long_keys() -> Vec<Vec<u8>> {
    (1..12).map(|at| vec![b'x'; at * 100]).chain((0..5).map(|at| vec![at; 65_535])).collect()
}

#[test]
fn merged_runs_equal_a_map_of_all_versions() {
    let sets = [short_keys(), alike(), long_keys(), vec![b"one".to_vec()]];
    for (seed, keys) in (1..).zip(sets.iter().cycle().take(16)) {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut world = World::new(1 + u32::try_from(random.below(5)).unwrap());
        for _ in 0..6 {
            for _ in 0..random.below(200) {
                world.append_any(&mut random, keys);
            }
            match random.below(3) {
                0 => {
                    let at = usize::try_from(random.below(world.actives.len() as u64)).unwrap();
                    if world.segment(at).summary().is_none() {
                        world.seal(at);
                    }
                }
                1 => world.add_segment(),
                _ => {}
            }
            world.check(&mut random, 8);
            for active in &world.actives {
                if random.one_in(2) {
                    active.segment().write_index(&world.context).unwrap();
                }
            }
            world.check(&mut random, 3);
        }
    }
}

#[test]
fn a_written_index_is_used_and_gives_the_same_result() {
    let mut world = World::new(3);
    let mut random = Random(7);
    (0..1500).for_each(|_| world.append_any(&mut random, &alike()));
    for at in 0..3 {
        world.seal(at);
        assert!(world.segment(at).write_index(&world.context).unwrap());
        assert!(!world.segment(at).write_index(&world.context).unwrap());
        let reopened = world.reopened(at);
        let runs = reopened.runs(&world.context).unwrap();
        assert!(runs.len() == 1 && runs[0].is_on_disk());
        assert!(!reopened.write_index(&world.context).unwrap());
        let path = world.dir.index(reopened.id());
        let bytes = world.twin.contents(&path).unwrap();
        let built = run::rows_of(&world.context, &reopened).unwrap().finish(reopened.id());
        assert_eq!(built.encode(world.source(at)), bytes);
        assert!(built.directory.len() > 20);
        assert!(has_index(&world.fs, &world.dir, world.source(at)));
        // It was not requested before it was written.
        assert!(world.segment(at).index.0.lock().whole.is_none());
    }
    world.check(&mut random, 10);
}

/// A segment with versions of a few keys in a few blocks, and its index as it was written.
fn indexed() -> (World, Vec<u8>) {
    let mut world = World::new(1);
    let mut random = Random(3);
    let keys: Vec<_> = (0..9).map(|at| format!("key {at}").into_bytes()).collect();
    (0..50).for_each(|_| world.append_any(&mut random, &keys));
    world.seal(0);
    assert!(world.segment(0).write_index(&world.context).unwrap());
    let bytes = world.twin.contents(&world.dir.index(SegmentId(1))).unwrap();
    (world, bytes)
}

/// What scans return at some moments, with an index that may be damaged.
fn shown_by(world: &World, segment: &Arc<Segment>) -> Vec<Vec<Shown>> {
    let moments = [u64::MAX - 1, 120].map(|timestamp| Moment { timestamp, now: 100 });
    let mut shown = Vec::new();
    for moment in moments {
        for forward in [true, false] {
            let runs = segment.runs(&world.context).unwrap().into_iter();
            let parts: Vec<_> = runs.map(|run| (Arc::clone(segment), run)).collect();
            let bounds = (Bound::Included(b"key 1".to_vec()), Bound::Unbounded);
            shown.push(World::walk(parts, bounds, moment, || forward));
        }
    }
    shown
}

#[test]
fn a_damaged_cut_or_foreign_index_changes_nothing() {
    let (world, bytes) = indexed();
    let path = world.dir.index(SegmentId(1));
    let expected = shown_by(&world, &world.reopened(0));
    assert!(!expected[0].is_empty() && expected[0] == expected[1]);
    let check = |changed: Vec<u8>, what: &str| {
        let is_same = changed == bytes;
        world.twin.put_file(&path, changed);
        let segment = world.reopened(0);
        assert_eq!(shown_by(&world, &segment), expected, "{what}");
        // It is rewritten, unless the scan did not meet the damage.
        let run = segment.runs(&world.context).unwrap().pop().unwrap();
        if !run.is_on_disk() {
            assert!(!is_same && segment.write_index(&world.context).unwrap(), "{what}");
            assert_eq!(world.twin.contents(&path).unwrap(), bytes, "{what}");
            assert!(run.is_on_disk());
        }
        assert_eq!(shown_by(&world, &segment), expected, "{what}");
    };
    check(bytes.clone(), "as it was");
    for at in 0..bytes.len() {
        for mask in [0x01, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            check(changed, &format!("byte {at}"));
        }
        check(bytes[..at].to_vec(), &format!("cut at {at}"));
    }
    check([bytes.clone(), vec![0]].concat(), "lengthened");
    check([bytes.clone(), bytes.clone()].concat(), "doubled");
    let other = World::new(1);
    for source in [
        HintSource { id: SegmentId(2), ..world.source(0) },
        HintSource { length: 5 << 20, ..world.source(0) },
        HintSource { identity: Identity { store_id: 9, ..IDENTITY }, ..world.source(0) },
        HintSource { identity: Identity { hash_seed: 9, ..IDENTITY }, ..world.source(0) },
    ] {
        let rows = run::rows_of(&world.context, world.segment(0)).unwrap();
        check(rows.finish(source.id).encode(source), "of another segment");
        let rows = run::rows_of(&other.context, other.segment(0)).unwrap();
        check(rows.finish(source.id).encode(source), "of an empty segment");
    }
    world.twin.delete_file(&path);
    assert_eq!(shown_by(&world, &world.reopened(0)), expected);
}

#[test]
fn an_index_that_is_damaged_during_a_scan_is_rebuilt_by_it() {
    let (world, bytes) = indexed();
    let path = world.dir.index(SegmentId(1));
    let segment = world.reopened(0);
    let parts: Vec<Part> =
        vec![(Arc::clone(&segment), segment.runs(&world.context).unwrap()[0].clone())];
    let moment = Moment { timestamp: u64::MAX - 1, now: 0 };
    let expected = world.expected(&(Bound::Unbounded, Bound::Unbounded), moment);
    let mut count = 0;
    let damage = || {
        count += 1;
        if count == 3 {
            let mut damaged = bytes.clone();
            damaged[HEADER_SIZE..].fill(7);
            // The open file is still the same one: it is written in place.
            let file = world.fs.open(&path, crate::fs::Access::Write).unwrap();
            file.write_at(&damaged, 0).unwrap();
        }
        true
    };
    let shown = World::walk(parts, (Bound::Unbounded, Bound::Unbounded), moment, damage);
    assert_eq!(shown, expected);
    assert!(!segment.runs(&world.context).unwrap()[0].is_on_disk());
    assert!(segment.write_index(&world.context).unwrap());
    assert_eq!(world.twin.contents(&path).unwrap(), bytes);
}

/// With a valid directory and invalid blocks, a scan can't continue if the directory is not the
/// segment's: it returns the error once, and repairs the index.
#[test]
fn a_valid_index_of_another_segment_is_reported_once_and_then_rebuilt() {
    let (world, bytes) = indexed();
    let mut foreign = RunBuilder::default();
    let built = run::rows_of(&world.context, world.segment(0)).unwrap().finish(SegmentId(1));
    let run = Run::in_memory(&world.context, SegmentId(1), {
        let mut builder = RunBuilder::default();
        run::add_walked(&mut builder, world.segment(0), 0, u64::MAX).unwrap();
        builder
    });
    let block = run.block(0, world.segment(0)).unwrap().unwrap();
    block.rows().for_each(|row| foreign.push(&row));
    let mut foreign = foreign.finish(SegmentId(1)).encode(world.source(0));
    assert_ne!(built.directory.len(), 1);
    foreign[HEADER_SIZE + 5] ^= 1;
    let path = world.dir.index(SegmentId(1));
    world.twin.put_file(&path, foreign);
    let segment = world.reopened(0);
    let parts = || vec![(Arc::clone(&segment), segment.runs(&world.context).unwrap()[0].clone())];
    let moment = Moment { timestamp: u64::MAX - 1, now: 0 };
    let all = (Bound::Unbounded, Bound::Unbounded);
    let mut merged = Merged::new(parts(), all.clone(), moment);
    let error = merged.next().unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path: found, .. } if *found == path), "{error}");
    assert!(merged.next().unwrap().is_none());
    assert_eq!(World::walk(parts(), all.clone(), moment, || true), world.expected(&all, moment));
    assert!(segment.write_index(&world.context).unwrap());
    assert_eq!(world.twin.contents(&path).unwrap(), bytes);
}

#[test]
fn only_damage_of_the_log_is_an_error() {
    let (world, _) = indexed();
    let log = world.dir.log(SegmentId(1));
    world.twin.delete_file(&world.dir.index(SegmentId(1)));
    let segment = world.reopened(0);
    let whole = world.twin.contents(&log).unwrap();
    let mut damaged = whole.clone();
    damaged[70] ^= 1;
    world.twin.put_file(&log, damaged);
    let error = segment.runs(&world.context).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, offset: 64, .. } if *path == log), "{error}");
    world.twin.put_file(&log, whole);
    assert_eq!(segment.runs(&world.context).unwrap().len(), 1);
    // If its name is gone, it is read through the open file.
    let segment = world.reopened(0);
    let expected = shown_by(&world, &segment);
    let segment = world.reopened(0);
    world.twin.delete_file(&log);
    assert_eq!(shown_by(&world, &segment), expected);
}

#[test]
fn an_index_for_which_there_is_no_room_stays_in_memory() {
    let (world, bytes) = indexed();
    let path = world.dir.index(SegmentId(1));
    world.twin.delete_file(&path);
    let segment = world.reopened(0);
    let expected = shown_by(&world, &segment);
    world.twin.fail(Fault::new(FaultKind::Enospc).for_ever());
    assert!(!segment.write_index(&world.context).unwrap());
    world.twin.clear_fault();
    assert!(world.twin.files().iter().all(|file| !file.to_str().unwrap().contains("index")));
    assert_eq!(shown_by(&world, &segment), expected);
    assert!(segment.write_index(&world.context).unwrap());
    assert_eq!(world.twin.contents(&path).unwrap(), bytes);
    world.twin.delete_file(&path);
    let segment = world.reopened(0);
    world.twin.fail(Fault::new(FaultKind::Eio).only(Call::Sync).for_ever());
    let error = segment.write_index(&world.context).unwrap_err();
    assert!(crate::fs::is_failed_sync(&error), "{error}");
}

#[test]
fn a_segment_that_grows_has_few_runs_and_one_when_it_is_sealed() {
    let mut world = World::new(1);
    let mut random = Random(11);
    let mut most = 0;
    for round in 0..300 {
        for _ in 0..random.below(4) {
            world.append_any(&mut random, &short_keys());
        }
        let runs = world.segment(0).runs(&world.context).unwrap();
        let rows: Vec<_> = runs.iter().map(|run| run.rows()).collect();
        assert!(rows.windows(2).all(|pair| pair[0] >= RATIO * pair[1]), "{rows:?}");
        most = most.max(runs.len());
        if round % 20 == 0 {
            world.check(&mut random, 4);
        }
    }
    assert!((2..6).contains(&most), "{most}");
    world.put(0, b"another");
    world.seal(0);
    let runs = world.segment(0).runs(&world.context).unwrap();
    assert_eq!(runs.len(), 1);
    world.check(&mut random, 10);
    assert!(world.segment(0).write_index(&world.context).unwrap());
    assert!(runs[0].is_on_disk());
    world.check(&mut random, 10);
    // Rows sorted step by step equal rows built in one step.
    let bytes = world.twin.contents(&world.dir.index(SegmentId(1))).unwrap();
    let built = run::rows_of(&world.context, world.segment(0)).unwrap().finish(SegmentId(1));
    assert_eq!(built.encode(world.source(0)), bytes);
}

#[test]
fn a_segment_that_is_never_scanned_has_no_index() {
    let mut world = World::new(1);
    world.put(0, b"key");
    assert!(!world.segment(0).write_index(&world.context).unwrap());
    world.seal(0);
    let state = world.segment(0).index.0.lock();
    assert!(state.whole.is_none() && state.parts.is_empty() && !state.is_written);
}

#[test]
fn a_segment_without_entries_has_an_empty_index() {
    let mut world = World::new(2);
    world.put(1, b"key");
    world.seal(0);
    assert!(world.segment(0).write_index(&world.context).unwrap());
    let reopened = world.reopened(0);
    let runs = reopened.runs(&world.context).unwrap();
    assert!(runs[0].is_on_disk() && runs[0].rows() == 0);
    world.check(&mut Random(1), 10);
}

/// Six sealed segments with indexes on disk, of which some are kept open.
fn six_indexes(kept: usize) -> (World, Random) {
    let (mut world, mut random) = (World::new(6), Random(5));
    (0..600).for_each(|_| world.append_any(&mut random, &alike()));
    allowed::descriptors(kept);
    for at in 0..6 {
        world.seal(at);
        world.segment(at).runs(&world.context).unwrap();
        assert!(world.segment(at).write_index(&world.context).unwrap());
    }
    (world, random)
}

fn kept(world: &World) -> usize {
    world.parts().iter().filter(|(_, run)| run.kept().is_some()).count()
}

/// More indexes than can be kept open.
#[test]
fn an_index_that_is_not_kept_open_is_read_too() {
    for budget in [0, 4] {
        let (world, mut random) = six_indexes(budget);
        world.check(&mut random, 10);
        assert!(world.parts().iter().all(|(_, run)| run.is_on_disk()));
        assert_eq!(kept(&world), budget);
        // Once descriptors are available, every index is kept open when it is read.
        allowed::descriptors(usize::MAX);
        world.check(&mut random, 2);
        assert_eq!(kept(&world), 6);
    }
}

#[test]
fn an_index_is_opened_once_if_a_descriptor_is_available_and_else_for_each_block() {
    let shortage = || Fault::new(FaultKind::Emfile).only(Call::Open).reads_too().for_ever();
    let (world, mut random) = six_indexes(usize::MAX);
    world.twin.fail(shortage());
    world.check(&mut random, 10);
    assert_eq!(world.twin.fault_count(), 0);
    world.twin.clear_fault();
    let segment = world.reopened(0);
    let run = segment.runs(&world.context).unwrap().pop().unwrap();
    world.twin.fail(shortage());
    assert!((0..run.directory.len()).all(|number| run.block(number, &segment).is_ok()));
    assert_eq!(world.twin.fault_count(), 0);

    let (world, _) = six_indexes(0);
    let (segment, run) = world.parts().swap_remove(0);
    world.twin.fail(shortage());
    for number in 0..run.directory.len() {
        let error = run.block(number, &segment).unwrap_err();
        assert!(crate::fs::is_out_of_files(&error), "{error}");
        assert_eq!(world.twin.fault_count(), number + 1);
    }
    world.twin.clear_fault();
    assert!(run.is_on_disk() && run.block(0, &segment).unwrap().is_some());
}

#[test]
fn an_index_is_closed_with_its_run_and_when_it_turns_out_to_be_damaged() {
    let (world, bytes) = indexed();
    let path = world.dir.index(SegmentId(1));
    let segment = world.reopened(0);
    let run = segment.runs(&world.context).unwrap().pop().unwrap();
    let file = run.kept().unwrap();
    // Another file with its name changes nothing.
    world.twin.put_file(&path, vec![7; bytes.len()]);
    assert!(run.block(0, &segment).unwrap().is_some() && run.is_on_disk());
    world.twin.put_file(&path, bytes);
    drop((run, segment));
    assert!(file.upgrade().is_none());

    let segment = world.reopened(0);
    let run = segment.runs(&world.context).unwrap().pop().unwrap();
    let file = run.kept().unwrap();
    let cut = world.fs.open(&path, crate::fs::Access::Write).unwrap();
    cut.set_size(HEADER_SIZE as u64).unwrap();
    assert!(run.block(0, &segment).unwrap().is_some() && !run.is_on_disk());
    assert!(file.upgrade().is_none());
}

/// The file of a segment that is not mapped may be removed while only its index is still open.
#[test]
fn the_index_of_a_segment_without_a_mapping_is_not_kept_open() {
    let (world, _) = indexed();
    allowed::mappings(0);
    let segment = world.reopened(0);
    let run = segment.runs(&world.context).unwrap().pop().unwrap();
    assert!(run.block(0, &segment).unwrap().is_some() && run.is_on_disk());
    assert!(run.kept().is_none());
}

#[test]
fn an_index_that_is_kept_open_frees_its_space_when_space_is_needed() {
    let (world, bytes) = indexed();
    let (path, backup) = (world.dir.index(SegmentId(1)), Path::new("/store/backup"));
    let expected = shown_by(&world, &world.reopened(0));
    for is_linked in [true, false] {
        let segment = world.reopened(0);
        let run = segment.runs(&world.context).unwrap().pop().unwrap();
        let file = run.kept().unwrap();
        if is_linked {
            assert!(world.fs.link(&path, &world.fs, backup).unwrap());
        }
        let mut attempts = 0;
        let result = crate::segment::sidecar::making_room(&world.fs, &world.dir, || {
            attempts += 1;
            let needed = Err(Error::NoSpace { path: path.clone() });
            if attempts == 1 { needed } else { Ok(()) }
        });
        assert!(result.is_ok() && attempts == 2 && !world.fs.exists(&path));
        assert_eq!(shown_by(&world, &segment), expected);
        assert_eq!(file.upgrade().is_some(), is_linked, "it is empty if no backup has it");
        if is_linked {
            assert_eq!(world.twin.contents(backup).unwrap(), bytes);
            world.twin.delete_file(backup);
        }
        drop((run, segment));
        world.twin.put_file(&path, bytes.clone());
    }
}

#[test]
fn one_key_of_many_versions_is_found_at_each_of_its_times() {
    let mut world = World::new(2);
    world.put(0, b"a");
    for _ in 0..1000 {
        world.put(0, b"key");
    }
    world.put(1, b"key");
    world.put(0, b"z");
    let parts = world.parts();
    for timestamp in 0..=world.clock + 1 {
        let moment = Moment { timestamp, now: 0 };
        let all = (Bound::Unbounded, Bound::Unbounded);
        let found = find(&parts, b"key", moment).unwrap();
        let only = (Bound::Included(b"key".to_vec()), Bound::Included(b"key".to_vec()));
        let shown = found.map(|hit| World::shown(&hit, &parts[hit.part].0));
        assert_eq!(shown, world.expected(&only, moment).pop());
        if timestamp % 50 == 0 {
            for forward in [true, false] {
                let shown = World::walk(world.parts(), all.clone(), moment, || forward);
                assert_eq!(shown, world.expected(&all, moment));
            }
        }
    }
}

#[test]
fn nothing_is_read_before_the_first_step_and_then_one_block_per_run() {
    let mut world = World::new(3);
    let mut random = Random(9);
    let keys: Vec<_> = (0..500).map(|at| format!("{at:05}").into_bytes()).collect();
    for key in &keys {
        world.put(usize::try_from(random.below(3)).unwrap(), key);
    }
    for at in 0..3 {
        world.seal(at);
        world.segment(at).runs(&world.context).unwrap();
        world.segment(at).write_index(&world.context).unwrap();
    }
    let parts = world.parts();
    let before = world.twin.call_count();
    let moment = Moment { timestamp: u64::MAX - 1, now: 0 };
    let bounds = (Bound::Included(b"00200".to_vec()), Bound::Excluded(b"00202".to_vec()));
    let mut merged = Merged::new(parts, bounds, moment);
    assert_eq!(world.twin.call_count(), before);
    assert_eq!(merged.next().unwrap().unwrap().key, b"00200");
    // A block is read, and, if the key would be its last one, so is the next block.
    assert!(world.twin.call_count() - before <= 3 * 2, "{}", world.twin.call_count() - before);
}

#[test]
fn a_key_is_held_without_its_run() {
    let mut world = World::new(1);
    (0..100).for_each(|at: u8| world.put(0, &[at; 9]));
    let moment = Moment { timestamp: u64::MAX - 1, now: 0 };
    let mut merged = Merged::new(world.parts(), (Bound::Unbounded, Bound::Unbounded), moment);
    let mut held = Vec::new();
    while let Some(hit) = merged.next().unwrap() {
        held.push(hit.key);
    }
    drop((merged, world));
    assert!(held.iter().zip(0..).all(|(key, at): (_, u8)| *key == [at; 9]));
    assert_eq!(held.len(), 100);
}

#[test]
fn keys_have_the_order_of_their_first_bytes_where_these_differ() {
    let keys = short_keys();
    for a in &keys {
        for b in &keys {
            if prefix(a) < prefix(b) {
                assert!(a < b, "{a:?} {b:?}");
            }
            let size = common_size(a, b);
            assert_eq!(a[..size], b[..size]);
            assert!(a.get(size) != b.get(size) || a == b);
        }
    }
}

#[test]
fn blocks_are_led_by_short_keys_and_are_not_too_large() {
    let (mut builder, keys) = (RunBuilder::default(), long_keys());
    let mut header = Header::new(Flags::default(), 0, 0);
    header.timestamp = 7;
    for key in keys.iter().chain(&alike()) {
        builder.add(&Scanned { offset: 64, header, key });
    }
    let Encoded { directory, .. } = builder.finish(SegmentId(1));
    let mut shorter = 0;
    for at in 0..directory.len() {
        let (range, lead) = (directory.range(at), directory.key(at));
        let long = keys.iter().any(|key| key.starts_with(lead) && key.len() + 26 > BLOCK_SIZE_MAX);
        assert!(long || range.end - range.start <= BLOCK_SIZE_MAX as u64);
        shorter += usize::from(lead.len() < 22);
    }
    assert!(shorter > 5, "{shorter}");
}
