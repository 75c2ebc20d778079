//! Stores written by every format version so far, which later builds must open forever.
//!
//! `tests/fixtures/README.md` describes how they were made. A unit test, which has access to the
//! decoders, compares the bytes themselves with `docs/format.md`.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bitcask::{Batch, Bitcask, Error, Options, ReadOnly, Reader, RecoveryReport};

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The codecs: name, number, and whether this build has it.
const CODECS: [(&str, u8, bool); 2] =
    [("lz4", 1, cfg!(feature = "lz4")), ("zstd", 2, cfg!(feature = "zstd"))];

/// Returns the codecs that this build has, or those that it lacks.
fn codecs(present: bool) -> impl Iterator<Item = (&'static str, u8)> {
    let chosen = CODECS.into_iter().filter(move |codec| codec.2 == present);
    chosen.map(|(name, number, _)| (name, number))
}

/// Returns the names of the stores that this build can read.
fn readable() -> impl Iterator<Item = String> {
    let plain = ["v1-closed", "v1-killed"].map(str::to_owned).into_iter();
    let compressed = |(codec, _)| [format!("v1-{codec}-closed"), format!("v1-{codec}-killed")];
    plain.chain(codecs(true).flat_map(compressed))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn expected(store: &Path) -> Pairs {
    let text = fs::read_to_string(store.join("expected.txt")).unwrap();
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (from_hex(k), from_hex(v))).unwrap();
    text.lines().map(pair).collect()
}

fn pairs(db: &Reader) -> Pairs {
    db.iter_unordered()
        .map(|pair| pair.unwrap())
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

/// Returns the names and contents of all files of a store.
fn files(store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn copy(store: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files(store) {
        fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    dir
}

/// Opens a copy of a store, compares it with the expected content, changes it, and reopens it.
/// Returns the recovery report of the first opening.
fn open_copy(name: &str) -> RecoveryReport {
    let store = fixture(name);
    let (dir, mut expected) = (copy(&store), expected(&store));
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    assert_eq!(pairs(&db), expected, "{name}");
    for (key, value) in &expected {
        assert_eq!(db.get(key).unwrap().unwrap(), *value);
    }
    assert_eq!(db.get("is gone").unwrap(), None);
    let report = db.recovery().clone();

    let (first, _) = expected.pop_first().unwrap();
    assert!(db.delete(first).unwrap());
    for (key, value) in &mut expected {
        value.push(b'!');
        db.put(key, value).unwrap();
    }
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    assert_eq!(pairs(&db), expected, "{name}");
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    report
}

#[test]
fn every_format_version_has_stores_that_were_closed_and_killed() {
    let page = include_str!("../../docs/format.md");
    let heading = page.lines().next().unwrap();
    let newest: u16 = heading.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(newest >= 1);
    for version in 1..=newest {
        for end in ["closed", "killed"] {
            let name = format!("v{version}-{end}");
            assert!(readable().any(|readable| readable == name), "no test opens {name}");
            assert!(fixture(&name).join("MANIFEST").exists(), "{name} is missing");
        }
    }
}

#[test]
fn every_stored_fixture_is_opened_by_a_test() {
    let tested: BTreeSet<_> =
        readable()
            .chain(codecs(false).flat_map(|(codec, _)| {
                [format!("v1-{codec}-closed"), format!("v1-{codec}-killed")]
            }))
            .collect();
    let entries = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap());
    let dirs = entries.filter(|entry| entry.path().is_dir());
    let stored: BTreeSet<_> = dirs.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(stored, tested);
}

#[test]
fn a_cleanly_closed_store_of_version_1_opens() {
    for name in readable().filter(|name| name.contains("closed")) {
        let report = open_copy(&name);
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn a_killed_store_of_version_1_is_recovered_completely() {
    let report = open_copy("v1-killed");
    assert_eq!(report.recovered_segments, 2);
    assert_eq!(report.leftovers.len(), 1);
    assert!(report.cuts.is_empty(), "{report:?}");
}

#[test]
fn a_killed_store_with_compressed_values_is_recovered_completely() {
    for (codec, _) in codecs(true) {
        let report = open_copy(&format!("v1-{codec}-killed"));
        assert_eq!(report.recovered_segments, 1);
        assert!(report.cuts.is_empty(), "{report:?}");
    }
}

/// Returns whether an error says that this build lacks a codec, and names the place.
fn lacks(number: u8, error: &Error) -> bool {
    let Error::UnsupportedCodec { path, offset, codec } = error else { return false };
    let said = error.to_string();
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains(&format!("codec {number}")), "{said}");
    *codec == number && error.is_unsupported() && said.contains(&format!("offset {offset} "))
}

#[test]
fn a_build_without_a_codec_reads_uncompressed_values_and_names_the_codec_of_others() {
    for (codec, number) in codecs(false) {
        read_without(codec, number);
    }
}

fn read_without(codec: &str, number: u8) {
    let store = fixture(&format!("v1-{codec}-closed"));
    let (dir, mut expected) = (copy(&store), expected(&store));
    let compressed = ["batch 1", "batch 2", "key 3", "key 4", "key 5", "lives long"];
    let compressed = BTreeSet::from(compressed.map(|key| key.as_bytes().to_vec()));
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    assert_eq!(db.get("is gone").unwrap(), None);
    for (key, value) in &expected {
        assert!(db.contains_key(key).unwrap());
        match db.get(key) {
            Ok(found) => assert!(found.unwrap() == *value && !compressed.contains(key)),
            Err(error) => assert!(lacks(number, &error) && compressed.contains(key), "{error}"),
        }
    }
    let keys: BTreeSet<Vec<u8>> = db.keys_unordered().map(|key| key.unwrap().into()).collect();
    assert!(keys.iter().eq(expected.keys()));
    let (read, refused): (Vec<_>, Vec<_>) = db.iter_unordered().partition(Result::is_ok);
    assert_eq!((read.len(), refused.len()), (expected.len() - 6, 6));
    assert!(refused.iter().all(|pair| lacks(number, pair.as_ref().unwrap_err())));
    assert!(lacks(number, &db.update("key 3", |_| Some("new")).unwrap_err()));

    // None of these operations reads a value, so they all succeed.
    db.put("key 3", "new").unwrap();
    db.delete("key 4").unwrap();
    let mut batch = Batch::new();
    batch.put("key 5", "new").put("batch 1", "new").delete("batch 2").put("lives long", "new");
    db.write(&batch).unwrap();
    for key in compressed {
        expected.insert(key, b"new".to_vec());
    }
    expected.retain(|key, _| key != b"key 4" && key != b"batch 2");
    assert_eq!(pairs(&db), expected);
    db.close().unwrap();
    assert_eq!(pairs(&Bitcask::open(dir.path(), Options::default()).unwrap()), expected);
}

#[test]
fn a_build_without_a_codec_does_not_cut_compressed_entries_off_an_unsealed_log() {
    for (codec, number) in codecs(false) {
        let dir = copy(&fixture(&format!("v1-{codec}-killed")));
        let before = files(dir.path());
        let (path, options) = (dir.path(), Options::new);
        for opened in
            [ReadOnly::open(path, options()).map(drop), Bitcask::open(path, options()).map(drop)]
        {
            let error = opened.unwrap_err();
            assert!(lacks(number, &error), "{error}");
            let mut after = files(dir.path());
            after.retain(|path, _| !path.ends_with("LOCK"));
            assert_eq!(after, before);
        }
    }
}

#[test]
fn a_store_of_version_1_opens_without_its_hints() {
    for name in readable() {
        let store = fixture(&name);
        let dir = copy(&store);
        for path in files(dir.path()).into_keys() {
            if path.extension().is_some_and(|extension| extension == "hint") {
                fs::remove_file(path).unwrap();
            }
        }
        let db = Bitcask::open(dir.path(), Options::default()).unwrap();
        assert_eq!(pairs(&db), expected(&store), "{name}");
        // The stores that were killed with compressed values have no sealed segment.
        let has_hints = !name.ends_with("-killed") || name == "v1-killed";
        assert_eq!(db.recovery().rebuilt_hints > 0, has_hints, "{name}");
    }
}

#[test]
fn hints_of_version_1_are_rebuilt_byte_for_byte() {
    for name in readable().filter(|name| name.contains("closed")) {
        let store = fixture(&name);
        let dir = copy(&store);
        let is_hint = |path: &Path| path.extension().is_some_and(|extension| extension == "hint");
        for path in files(dir.path()).into_keys().filter(|path| is_hint(path)) {
            fs::remove_file(path).unwrap();
        }
        Bitcask::open(dir.path(), Options::default()).unwrap().close().unwrap();
        for (path, bytes) in files(&store).into_iter().filter(|(path, _)| is_hint(path)) {
            assert_eq!(fs::read(dir.path().join(path.file_name().unwrap())).unwrap(), bytes);
        }
    }
}

#[test]
fn a_store_of_version_1_is_read_without_changes() {
    for name in readable() {
        let store = fixture(&name);
        let before = files(&store);
        let db = ReadOnly::open(&store, Options::new()).unwrap();
        assert_eq!(pairs(&db), expected(&store), "{name}");
        drop(db);
        assert_eq!(files(&store), before, "{name}");
    }
}
