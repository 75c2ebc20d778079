//! Fuzzes a directory: a store's files are changed arbitrarily, then the store is opened and used.
//!
//! - A value read under a key must once have been written under it. Which of its values it is, and
//!   whether the key exists at all, is not checked: bytes that were not known to be durable may be
//!   cut.
//! - An input may have checksums corrected after a change. Then values may be anything.
//! - Changes are made by XOR. A fuzzer that learns which checksum was expected thus can't write it
//!   into the file: a forged checksum would not be a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::input::{
    Input, aligned, repair_entry, repair_hint, repair_index, repair_log, repair_manifest,
};
use super::{DIR, IDENTITY};
use crate::clock::Hands;
use crate::entry::Salt;
use crate::fs::Fs;
use crate::key_hash::KeyHasher;
use crate::manifest::Manifest;
use crate::segment::{Dir, FileKind, SegmentId};
use crate::store::Env;
use crate::testing::twin::Twin;
use crate::{
    Batch, Bitcask, Error, MergeOptions, Options, ReadOnly, Reader, Result, SyncPolicy,
    WriteOptions,
};

/// Largest size in bytes that a change can give a file.
const SIZE_MAX: usize = 8192;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A store on a disk, and everything that was ever written to it.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    hasher: fn(u64) -> KeyHasher,
    pub(crate) files: Files,
    written: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

/// One store with the regular hash, and one with a hash of four values.
pub(crate) static BASES: LazyLock<[Base; 2]> =
    LazyLock::new(|| [Base::new(KeyHasher::new), Base::new(KeyHasher::weak)]);

/// Decodes arbitrary bytes as changes of a store's files. The store is then opened, read, written,
/// merged, closed and opened again.
pub fn directory(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let [real, weak] = &*BASES;
    let mut lab = Lab::new(if choice & 1 == 0 { real.clone() } else { weak.clone() });
    while !input.is_empty() {
        lab.change(&mut input);
    }
    lab.put_files();
    lab.use_read_only();
    if lab.use_for_writing().is_some() {
        lab.reopen();
    }
}

impl Base {
    /// Creates merged, sealed and unsealed segments, with entries of every kind.
    fn new(hasher: fn(u64) -> KeyHasher) -> Self {
        let twin = Twin::new();
        let manifest = Manifest::new(IDENTITY).encode().into_bytes();
        twin.put_file(&Dir::new(DIR.into()).manifest(), manifest);
        let mut base = Self { hasher, files: Files::new(), written: BTreeMap::new() };
        let db = base.open(&twin).unwrap();
        for round in 0..3_u32 {
            for key in 0..6_u8 {
                base.put(&db, &[key], &[round.to_be_bytes().as_slice(), &[key; 9]].concat());
            }
            // Keys that are never written again stay in old segments.
            for number in 0..3 {
                let key = format!("of round {round}, {number}");
                base.put(&db, key.as_bytes(), format!("stays {round} {number}").as_bytes());
            }
            let ttl = Duration::from_secs(if round == 1 { 1 } else { 1 << 20 });
            db.put_opt("ttl", round.to_string(), WriteOptions::new().ttl(ttl)).unwrap();
            base.note(b"ttl", round.to_string().as_bytes());
            assert!(db.delete([u8::try_from(round).unwrap()]).unwrap());
            let (one, two) = (format!("one {round}"), format!("two {round}"));
            db.write(Batch::new().put("one", &one).put("two", &two).delete([4])).unwrap();
            base.note(b"one", one.as_bytes());
            base.note(b"two", two.as_bytes());
            base.put(&db, b"long", &[b'a' + u8::try_from(round).unwrap(); 200]);
            db.sync().unwrap();
            match round {
                0 => {
                    db.work();
                    let merge = MergeOptions::new().force(true);
                    assert!(db.merge_opt(merge).unwrap().segments_in > 0);
                }
                1 => db.work(),
                _ => {}
            }
        }
        base.put(&db, b"", b"");
        base.put(&db, &[5], b"the last");
        let twin = twin.kill_image_now();
        db.kill();
        let contents = |path: PathBuf| (path.clone(), twin.contents(&path).unwrap());
        base.files = twin.files().into_iter().map(contents).collect();
        for bytes in base.files.values_mut() {
            // Allocated space contains nothing, and would only make the files longer.
            let size = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 9);
            bytes.truncate(size);
        }
        base
    }

    fn env(&self, twin: &Arc<Twin>) -> Env {
        let (fs, clock) = (Fs::Twin(Arc::clone(twin)), Hands::new().clock());
        Env { fs, clock, hasher: self.hasher, threads: false }
    }

    fn open(&self, twin: &Arc<Twin>) -> Result<Bitcask> {
        let options = Options::new().segment_size(512).sync_policy(SyncPolicy::Never);
        Bitcask::open_on(&self.env(twin), Path::new(DIR), options)
    }

    fn open_read_only(&self, twin: &Arc<Twin>) -> Result<ReadOnly> {
        ReadOnly::open_on(&self.env(twin), Path::new(DIR), Options::new())
    }

    fn put(&mut self, db: &Bitcask, key: &[u8], value: &[u8]) {
        db.put(key, value).unwrap();
        self.note(key, value);
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.written.entry(key.to_vec()).or_default().insert(value.to_vec());
    }
}

/// A store whose files are being changed.
struct Lab {
    base: Base,
    twin: Arc<Twin>,
    /// Whether a checksum was corrected after a change.
    forged: bool,
}

impl Lab {
    fn new(base: Base) -> Self {
        Self { base, twin: Twin::new(), forged: false }
    }

    fn path(&self, input: &mut Input<'_>) -> PathBuf {
        let number = usize::from(input.byte()) % self.base.files.len().max(1);
        let path = self.base.files.keys().nth(number).cloned();
        path.unwrap_or_else(|| Dir::new(DIR.into()).manifest())
    }

    /// Makes one change.
    fn change(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let path = self.path(input);
        let mut bytes = self.base.files.remove(&path).unwrap_or_default();
        match kind % 16 {
            0 => return,
            1 => bytes.truncate(input.below(bytes.len() + 1)),
            2 => bytes.resize(bytes.len() + usize::from(input.byte()), 0),
            3 => bytes.extend_from_slice(input.bytes()),
            // Swaps the file with another, or renames it.
            4 => {
                let other = self.path(input);
                if let Some(others) = self.base.files.insert(other, bytes) {
                    self.base.files.insert(path, others);
                }
                return;
            }
            5 => {
                let names = ["0000000003.log", "0000000009.log", "0000000009.hint", "MANIFEST.tmp"];
                let name = names[usize::from(input.byte() % 4)];
                self.base.files.insert(Path::new(DIR).join(name), bytes.clone());
            }
            // Replaces some of its bytes by those of another file, or of another place.
            6 => {
                let other = self.path(input);
                let other = self.base.files.get(&other).unwrap_or(&bytes).clone();
                let (from, to) = (input.below(other.len()), input.below(bytes.len()));
                let (from, to) =
                    if input.byte() < 128 { (from, to) } else { (aligned(from), aligned(to)) };
                let size = input.below(512).min(other.len() - from).min(bytes.len() - to);
                bytes[to..to + size].copy_from_slice(&other[from..from + size]);
            }
            7 => {
                let (from, size) = (input.below(bytes.len()), input.below(512));
                let end = bytes.len().min(from + size);
                bytes[from.min(end)..end].fill(if input.byte() < 128 { 0 } else { 0xff });
            }
            8 | 9 => {
                self.forged = true;
                repair(&mut bytes, &path, input);
            }
            10 => drop(bytes.drain(..input.below(bytes.len() + 1))),
            _ => {
                let (at, changes) = (input.below(bytes.len()), input.bytes());
                let places = bytes.iter_mut().skip(at);
                places.zip(changes.iter().take(8)).for_each(|(byte, change)| *byte ^= change);
            }
        }
        bytes.truncate(SIZE_MAX);
        self.base.files.insert(path, bytes);
    }

    fn put_files(&self) {
        for (path, bytes) in &self.base.files {
            self.twin.put_file(path, bytes.clone());
        }
    }

    fn use_read_only(&self) {
        let files = |twin: &Twin| twin.files().len();
        let before = (files(&self.twin), self.twin.op_count());
        if let Some(db) = self.tolerate(self.base.open_read_only(&self.twin)) {
            self.read(&db);
            self.tolerate(db.verify());
        }
        assert_eq!((files(&self.twin), self.twin.op_count()), before, "it was opened read-only");
    }

    /// Opens the store, reads it, and uses every operation on it.
    fn use_for_writing(&mut self) -> Option<()> {
        let db = self.tolerate(self.base.open(&self.twin))?;
        self.read_in_full(&db);
        self.tolerate(db.verify());
        for key in 0..3_u8 {
            let value = [b'n', key];
            if self.tolerate(db.put([key], value)).is_some() {
                self.base.note(&[key], &value);
                let found = db.get([key]).unwrap().expect("the key was just put");
                assert_eq!(found, value.as_slice());
            }
            self.tolerate(db.delete([key + 1]));
        }
        self.tolerate(db.write(Batch::new().put([1], "batch").put("new", "batch")));
        self.base.note(&[1], b"batch");
        self.base.note(b"new", b"batch");
        db.work();
        self.read_in_full(&db);
        self.tolerate(db.merge_opt(MergeOptions::new().force(true)));
        self.read_in_full(&db);
        self.tolerate(db.verify());
        db.work();
        let before = self.read_in_full(&db);
        self.tolerate(db.close())?;
        // What has been read is read again, if it is opened again.
        let db = self.tolerate(self.base.open(&self.twin))?;
        assert_eq!(
            self.read_in_full(&db),
            before,
            "closed in order, and opened with something else"
        );
        db.kill();
        Some(())
    }

    /// Opens the store once more after a kill.
    fn reopen(&self) {
        if let Some(db) = self.tolerate(self.base.open(&self.twin.kill_image_now())) {
            self.read_in_full(&db);
        }
    }

    /// Reads everything, including what only a writer returns.
    fn read_in_full(&self, db: &Bitcask) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let _ = db.needs_merge();
        self.read(db)
    }

    /// Reads all keys in every way, and checks that they hold what was written; what can't be
    /// read is left out.
    fn read(&self, db: &Reader) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut found = BTreeMap::new();
        for pair in db.iter_unordered() {
            if let Some((key, value)) = self.tolerate(pair) {
                self.check(&key, &value);
                let twice = found.insert(key.to_vec(), value.to_vec());
                assert!(self.forged || twice.is_none(), "{key:?} was returned twice");
            }
        }
        for key in self.base.written.keys() {
            let value = self.tolerate(db.get(key));
            let exists = self.tolerate(db.contains_key(key));
            if let Some(value) = value {
                assert!(exists.is_none_or(|exists| exists == value.is_some()));
                if !self.forged {
                    assert_eq!(value.as_deref(), found.get(key).map(Vec::as_slice), "{key:?}");
                }
                value.inspect(|value| self.check(key, value));
            }
        }
        db.keys_unordered().for_each(|key| drop(self.tolerate(key)));
        self.read_in_order(db, &found);
        let _ = (db.len(), db.stats(), db.segments());
        found
    }

    /// Reads the same in order, as far as possible.
    fn read_in_order(&self, db: &Reader, found: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let mut last: Option<Vec<u8>> = None;
        for pair in db.range(..) {
            let Some((key, value)) = self.tolerate(pair) else { continue };
            self.check(&key, &value);
            if !self.forged {
                assert!(last.as_deref().is_none_or(|last| last < &*key), "{key:?} after {last:?}");
                assert!(found.get(&*key).is_none_or(|found| **found == *value), "{key:?}");
            }
            last = Some(key.to_vec());
        }
        db.range_keys(..).rev().for_each(|key| drop(self.tolerate(key)));
    }

    fn check(&self, key: &[u8], value: &[u8]) {
        let is_known = self.base.written.get(key).is_some_and(|values| values.contains(value));
        assert!(self.forged || is_known, "{value:?} was never written under {key:?}");
    }

    /// Returns the value, or checks that the error is one that changed files can cause and that it
    /// names a file of the store.
    fn tolerate<T>(&self, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let cause = if let Error::Poisoned { cause } = &error { &**cause } else { &error };
        let path = match cause {
            Error::Corrupt { path, reason, .. } => {
                assert!(!reason.is_empty());
                path
            }
            // A directory with neither a manifest nor a segment is not a store.
            Error::MissingSegment { path } | Error::NotFound { path } => path,
            Error::UnsupportedVersion { path, .. }
            | Error::UnsupportedCodec { path, .. }
            | Error::UnsupportedFlags { path, .. }
                if self.forged =>
            {
                path
            }
            // A forged manifest can list too many segments.
            Error::TooManySegments { .. } if self.forged => return None,
            other => panic!("{other}: {other:?}"),
        };
        assert!(path.starts_with(DIR), "{error}");
        None
    }
}

/// Corrects checksums: that of one entry, or all in a file.
pub(crate) fn repair(bytes: &mut Vec<u8>, path: &Path, input: &mut Input<'_>) {
    let offset = aligned(input.below(2 * bytes.len()));
    match FileKind::of(path.file_name().unwrap().to_str().unwrap()) {
        FileKind::Log(SegmentId(id)) => match bytes.get_mut(offset..) {
            Some(rest) => drop(repair_entry(rest, Salt::new(id, offset as u64))),
            None => repair_log(bytes, SegmentId(id)),
        },
        FileKind::Hint(id) => repair_hint(bytes, id),
        FileKind::Index(id) => repair_index(bytes, id),
        _ => repair_manifest(bytes),
    }
}
