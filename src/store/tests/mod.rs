//! Tests of the store on the twin disk, with a clock that the test sets.
//!
//! - A [`Lab`] is the environment in which a store is opened. Crashes make new labs, on images of
//!   its disk.
//! - A [`Model`] is the expected content of a store. [`check`] compares the two through every
//!   reading method; [`raw`] reads the entries that the keydir names, including expired ones.
//! - [`log_entries`] reads the log itself.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod changes;
pub(crate) mod crash;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod model;
#[cfg(test)]
mod point;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod scan;
#[cfg(all(test, shuttle))]
mod schedules;
mod story;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Hands;
use crate::entry::{Entry, Flags, Mark, Salt};
use crate::keydir::SHARD_COUNT;
use crate::manifest::Manifest;
use crate::merge::{Host as _, Merge};
#[cfg(test)]
use crate::options::Compression;
use crate::options::{AppendMode, SyncPolicy, WriteOptions};
use crate::segment::{FIRST_OFFSET, FileKind, Place, SegmentId};
use crate::testing::twin::{Twin, Unsynced};

const DIR: &str = "/store";

/// The expected state of a key: its value, and its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    value: Vec<u8>,
    expiry: Option<u64>,
}

/// The expected content of a store, including expired keys that nothing has removed yet.
type Model = BTreeMap<Vec<u8>, Stored>;

/// Keys with unexpired values.
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The environment of a store: a disk, a clock and a hash; no threads.
#[derive(Debug, Clone)]
struct Lab {
    twin: Arc<Twin>,
    hands: Hands,
    hasher: fn(u64) -> KeyHasher,
    options: Options,
}

impl Lab {
    /// An empty disk, the hash that stores normally have, small segments, and only explicit syncs.
    fn new() -> Self {
        let options = Options::new().segment_size(1024).sync_policy(SyncPolicy::Never);
        Self { twin: Twin::new(), hands: Hands::new(), hasher: KeyHasher::new, options }
    }

    /// The same with a hash of only four values, so that keys collide all the time.
    fn weak() -> Self {
        Self { hasher: KeyHasher::weak, ..Self::new() }
    }

    fn with(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// A disk with a new store whose hash has this seed, so that a run is reproducible.
    fn seeded(self, seed: u64) -> Self {
        let manifest = Manifest::new(Identity { store_id: !seed, hash_seed: seed });
        let path = Dir::new(DIR.into()).manifest();
        self.twin.put_file(&path, manifest.encode().into_bytes());
        self
    }

    /// The same clock, hash and options with another disk.
    fn on(&self, twin: Arc<Twin>) -> Self {
        Self { twin, ..self.clone() }
    }

    /// A lab with what the death of the process leaves at this moment. The store of this lab may
    /// stay open.
    fn killed(&self) -> Self {
        self.on(self.twin.kill_image_now())
    }

    /// A lab with what a power cut leaves at this moment. `keep` decides about each unsynced
    /// operation.
    fn powered_off(&self, keep: impl FnMut(Unsynced<'_>) -> bool) -> Self {
        self.on(self.twin.power_image(self.twin.op_count(), keep))
    }

    fn env(&self) -> Env {
        let fs = Fs::Twin(Arc::clone(&self.twin));
        Env { fs, clock: self.hands.clock(), hasher: self.hasher, threads: false }
    }

    fn try_open_with(&self, options: Options) -> Result<Bitcask> {
        let options = match std::env::var("BITCASK_APPEND_MODE").as_deref() {
            Ok("positioned") => options.append_mode(AppendMode::Positioned),
            _ => options,
        };
        Bitcask::open_on(&self.env(), Path::new(DIR), options)
    }

    fn try_open(&self) -> Result<Bitcask> {
        self.try_open_with(self.options.clone())
    }

    fn open(&self) -> Bitcask {
        self.try_open().unwrap()
    }

    fn try_open_read_only(&self) -> Result<ReadOnly> {
        ReadOnly::open_on(&self.env(), Path::new(DIR), self.options.clone())
    }

    fn open_read_only(&self) -> ReadOnly {
        self.try_open_read_only().unwrap()
    }

    fn try_open_in_role(&self, read_only: bool) -> Result<EitherRole> {
        if read_only {
            self.try_open_read_only().map(EitherRole::ReadOnly)
        } else {
            self.try_open().map(EitherRole::Writable)
        }
    }

    /// Opens with exactly these options, ignoring the environment's append mode.
    fn try_open_exactly(&self) -> Result<Bitcask> {
        Bitcask::open_on(&self.env(), Path::new(DIR), self.options.clone())
    }

    fn open_exactly(&self) -> Bitcask {
        self.try_open_exactly().unwrap()
    }

    /// Opens the store in another directory of the same disk.
    #[cfg(shuttle)]
    fn open_at(&self, path: &Path) -> Bitcask {
        Bitcask::open_on(&self.env(), path, self.options.clone()).unwrap()
    }

    /// Closes cleanly and reopens.
    fn reopen(&self, db: Bitcask) -> Bitcask {
        db.close().unwrap();
        self.open()
    }

    /// Returns the paths of the store's segments or hints, oldest first.
    fn paths(&self, kind: fn(SegmentId) -> FileKind) -> Vec<(SegmentId, PathBuf)> {
        let id = |path: &PathBuf| {
            if path.parent() != Some(Path::new(DIR)) {
                return None;
            }
            let file = FileKind::of(path.file_name()?.to_str()?);
            let (FileKind::Log(id) | FileKind::Hint(id) | FileKind::Index(id)) = file else {
                return None;
            };
            (file == kind(id)).then_some(id)
        };
        self.twin.files().into_iter().filter_map(|path| Some((id(&path)?, path))).collect()
    }

    fn logs(&self) -> Vec<(SegmentId, PathBuf)> {
        self.paths(FileKind::Log)
    }

    fn hints(&self) -> Vec<(SegmentId, PathBuf)> {
        self.paths(FileKind::Hint)
    }

    fn indexes(&self) -> Vec<(SegmentId, PathBuf)> {
        self.paths(FileKind::Index)
    }

    fn delete_hints(&self) {
        for (_, path) in self.hints() {
            self.twin.delete_file(&path);
        }
    }
}

/// A store, opened for writing or for reading.
#[derive(Debug)]
enum EitherRole {
    Writable(Bitcask),
    ReadOnly(ReadOnly),
}

impl EitherRole {
    fn kill(self) {
        match self {
            Self::Writable(db) => db.kill(),
            Self::ReadOnly(db) => drop(db),
        }
    }
}

impl Deref for EitherRole {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        match self {
            Self::Writable(db) => db,
            Self::ReadOnly(db) => db,
        }
    }
}

/// Ends a store like the death of its process, on the same disk.
fn kill(db: Bitcask) {
    db.kill();
}

/// Begins to merge the sealed segments whose bits are set: in the order of their keys if the number
/// of set bits is even.
fn begin_merge(db: &Bitcask, segments: u64) -> Merge {
    let inner = &db.inner;
    inner.filler.fill_all(&inner.keydir).unwrap();
    let sealed = inner.manifest.get(|manifest| manifest.sealed.clone());
    let kept = inner.kept_history();
    let free = (0..).zip(sealed).filter(|(_, sealed)| !kept.lists(sealed));
    let chosen = free.filter(|(at, _)| segments >> (at % 64) & 1 == 1);
    let ids = chosen.map(|(_, sealed)| sealed.id).collect();
    let is_ordered = segments.count_ones().is_multiple_of(2);
    Merge::begin(&inner.merge_context(), &ids).ordered(is_ordered)
}

/// Returns whether opening found everything in order. Hints do not count, because a crash may occur
/// before they are written.
fn found_in_order(db: &Reader) -> bool {
    RecoveryReport { rebuilt_hints: 0, ..db.recovery().clone() }.is_clean()
}

/// Returns all keys with unexpired values.
fn snapshot(db: &Reader) -> Pairs {
    let mut pairs = Pairs::new();
    for pair in db.iter_unordered() {
        let (key, value) = pair.unwrap();
        let twice = pairs.insert(key.to_vec(), value.to_vec());
        assert_eq!(twice, None, "{key:?} appears twice");
    }
    pairs
}

/// Returns the entries that the keydir names, each verified, including expired ones.
fn raw(db: &Reader) -> Model {
    let mut model = Model::new();
    let guard = db.inner.pin();
    for number in 0..SHARD_COUNT {
        for address in db.inner.shard(number).unwrap().addresses() {
            let segment = db.inner.segments.get(address.segment, &guard);
            let stored = segment.entry(address.offset).unwrap();
            stored.check().unwrap();
            let entry = stored.entry();
            assert!(!entry.layout.flags.has(Flags::TOMBSTONE), "a slot names a tombstone");
            let (value, expiry) = (stored.raw_value().unwrap().into_owned(), entry.expiry());
            let twice = model.insert(entry.key().to_vec(), Stored { value, expiry });
            assert_eq!(twice, None, "two slots name entries of one key");
        }
    }
    model
}

/// Returns the unexpired part of a model.
fn visible(model: &Model, now: u64) -> Pairs {
    let live = model.iter().filter(|(_, stored)| stored.expiry.is_none_or(|at| at > now));
    live.map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
}

/// Like `visible`, but uses the store's clock, which depends on when an entry was written.
fn visible_in(db: &Reader, model: &Model) -> Pairs {
    let is_live = |(key, stored): &(&Vec<u8>, &Stored)| {
        stored.expiry.is_none_or(|expiry| expiry > time_for(db, key))
    };
    let live = model.iter().filter(is_live);
    live.map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
}

/// Returns the time by which a key's expiry is judged.
fn time_for(db: &Reader, key: &[u8]) -> u64 {
    let (guard, hash) = (db.inner.pin(), db.inner.keydir.hash(key));
    let shard = db.inner.shard(hash.shard()).unwrap();
    let found = db.inner.find(&shard, hash, key, &guard).unwrap().own;
    db.inner.clock.read().of(found.map_or(0, |(_, located)| located.stored.timestamp()))
}

/// Returns a model of values that do not expire.
fn model<const N: usize>(pairs: [(&str, &str); N]) -> Model {
    let stored = |value: &str| Stored { value: value.into(), expiry: None };
    pairs.into_iter().map(|(key, value)| (key.into(), stored(value))).collect()
}

/// Checks that a store holds exactly the model, including expired keys that nothing has removed.
fn check_with(db: &Reader, model: &Model, keys: &[Vec<u8>]) {
    check_visible(db, model, keys);
    assert_eq!(raw(db), *model, "entries that the keydir names");
}

/// Checks that a store holds the unexpired part of a model, through every reading method, and that
/// its figures are right. `keys` are looked up as well, whether they are in the model or not.
fn check_visible(db: &Reader, model: &Model, keys: &[Vec<u8>]) {
    let pairs = visible_in(db, model);
    assert_eq!(snapshot(db), pairs, "iter");
    let listed: Vec<Vec<u8>> = db.keys_unordered().map(|key| key.unwrap().to_vec()).collect();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(sorted, pairs.keys().cloned().collect::<Vec<_>>(), "keys");
    let (mut scanned, mut next) = (Vec::new(), Some(0));
    while let Some(cursor) = next {
        let (keys, after) = db.scan_from(cursor, 3).unwrap();
        scanned.extend(keys.iter().map(|key| key.to_vec()));
        next = after;
    }
    scanned.sort();
    assert_eq!(scanned, sorted, "scan_from");
    let mut buffer = b"previous content".to_vec();
    for key in model.keys().chain(keys) {
        let value = pairs.get(key);
        assert_eq!(db.get(key).unwrap().map(Vec::from).as_ref(), value, "get {key:?}");
        assert_eq!(db.get_with(key, <[u8]>::to_vec).unwrap().as_ref(), value, "get_with {key:?}");
        assert_eq!(db.get_into(key, &mut buffer).unwrap(), value.is_some(), "get_into {key:?}");
        assert_eq!(Some(&buffer), value.or(Some(&Vec::new())), "get_into {key:?}");
        assert_eq!(db.contains_key(key).unwrap(), value.is_some(), "contains_key {key:?}");
        check_ttl(db, model, key);
    }
    let asked: Vec<&Vec<u8>> = model.keys().chain(keys).collect();
    let expected: Vec<Option<&Vec<u8>>> = asked.iter().map(|key| pairs.get(*key)).collect();
    let many = db.get_many(&asked).unwrap();
    let many: Vec<_> = many.into_iter().map(|value| value.map(Vec::from)).collect();
    assert_eq!(many.iter().map(Option::as_ref).collect::<Vec<_>>(), expected, "get_many");
    let mut lent = Vec::new();
    let gather = |at, value: Option<&[u8]>| lent.push((at, value.map(<[u8]>::to_vec)));
    db.get_many_with(&asked, gather).unwrap();
    assert_eq!(lent, (0..).zip(many).collect::<Vec<_>>(), "get_many_with");
    let raw = raw(db);
    assert_eq!(visible_in(db, &raw), pairs, "entries that the keydir names");
    assert_eq!(db.len().unwrap(), raw.len() as u64, "len");
    assert_eq!(db.is_empty().unwrap(), raw.is_empty(), "is_empty");
    check_figures(db);
}

/// Checks the metadata of a key.
fn check_ttl(db: &Reader, model: &Model, key: &[u8]) {
    let now = time_for(db, key);
    let stored = model.get(key).filter(|stored| stored.expiry.is_none_or(|at| at > now));
    let ttl = stored.map(|stored| match stored.expiry {
        Some(expiry) => Ttl::In(Duration::from_micros(expiry - now)),
        None => Ttl::Never,
    });
    assert_eq!(db.ttl(key).unwrap(), ttl, "ttl {key:?}");
    let size = stored.map(|stored| stored.value.len() as u64);
    assert_eq!(db.value_len(key).unwrap(), size, "value_len {key:?}");
}

fn check(db: &Reader, model: &Model) {
    check_with(db, model, &[b"".to_vec(), b"a key that is never put".to_vec()]);
}

/// Checks a store's figures against the entries that the keydir names.
fn check_figures(db: &Reader) {
    let mut sizes = BTreeMap::<u32, u64>::new();
    let guard = db.inner.pin();
    for number in 0..SHARD_COUNT {
        for address in db.inner.shard(number).unwrap().addresses() {
            let segment = db.inner.segments.get(address.segment, &guard);
            let size = segment.entry(address.offset).unwrap().layout.entry_size();
            *sizes.entry(address.segment).or_default() += size;
        }
    }
    for (number, segment) in db.inner.segments.all() {
        let size = sizes.get(&number).copied().unwrap_or_default();
        assert_eq!(segment.live_size(), size, "live size of segment {}", segment.id());
    }
    let stats = db.stats();
    assert_eq!(stats.keys, db.len().unwrap());
    assert_eq!(stats.live_size, sizes.values().sum::<u64>());
    assert_eq!(stats.log_size, stats.dead_size + stats.live_size + stats.segments * FIRST_OFFSET);
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LogEntry {
    place: Place,
    flags: Flags,
    key: Vec<u8>,
    /// The value as it is stored.
    value: Vec<u8>,
    raw_size: Option<u32>,
    timestamp: u64,
    expiry: Option<u64>,
    mark: Option<Mark>,
}

/// Returns all valid entries, including end entries and lone marks. Each segment is read up to the
/// first offset without a valid entry.
fn log_entries(lab: &Lab) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    for (id, path) in lab.logs() {
        let bytes = lab.twin.contents(&path).unwrap();
        let mut offset = FIRST_OFFSET;
        while let Some(rest) = bytes.get(usize::try_from(offset).unwrap()..)
            && let Ok(Some(entry)) = Entry::decode(rest)
            && entry.check(Salt::new(id.0, offset)).is_ok()
        {
            let header = entry.header().unwrap();
            entries.push(LogEntry {
                place: Place::new(id, offset),
                flags: header.flags,
                key: entry.key().to_vec(),
                value: entry.value().to_vec(),
                raw_size: header.raw_size,
                timestamp: header.timestamp,
                expiry: header.expiry,
                mark: header.mark,
            });
            offset += header.entry_size();
        }
    }
    entries
}

#[test]
fn a_store_returns_what_was_put() {
    for lab in [Lab::new(), Lab::weak()] {
        let db = lab.open();
        let mut expected = Model::new();
        for number in 0..100_u32 {
            let (key, value) = (number.to_be_bytes().to_vec(), number.to_string().into_bytes());
            db.put(&key, &value).unwrap();
            expected.insert(key, Stored { value, expiry: None });
        }
        for number in (0..100_u32).step_by(3) {
            assert!(db.delete(number.to_be_bytes()).unwrap());
            expected.remove(number.to_be_bytes().as_slice());
        }
        check(&db, &expected);
        check(&lab.killed().open(), &expected);
        check(&lab.killed().open_read_only(), &expected);
        let db = lab.reopen(db);
        assert!(db.recovery().is_clean());
        check(&db, &expected);
        kill(db);
        check(&lab.powered_off(|_| false).open(), &expected);
    }
}

#[test]
fn a_power_cut_may_lose_unsynced_writes() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    db.put("b", "2").unwrap();
    check(&lab.powered_off(|_| false).open(), &model([("a", "1")]));
    check(&lab.powered_off(|_| true).open(), &model([("a", "1"), ("b", "2")]));
}
