//! Imports from other systems: stores that those have written, and what the options do.
//!
//! `BITCASK_FIXTURES` names a directory with stores of the real systems, and with what each holds:
//!
//! - `bitcaskpy/`, `pybitcask-json/` and `pybitcask-protobuf/`, with a file `NAME.expected.json`
//!   beside each: an object of keys and values;
//! - `basho/` with `basho.expected.txt`: a line for each key, with key and value in hexadecimal, or
//!   `-` for an empty value.
//!
//! Without it, those tests say that they are skipped. `BITCASK_LONG` makes them truncate the files
//! at every length instead of some.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]
#![expect(clippy::indexing_slicing, reason = "an out-of-bounds index fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bitcask::import::{self, ImportOptions, ImportReport};
use bitcask::{Bitcask, Options, Result, SyncPolicy, Ttl};
use tempfile::TempDir;

use crate::support::{Pairs, open, options, pairs, small};

type Importer = fn(&Path, &Bitcask, ImportOptions<'_>) -> Result<ImportReport>;

/// The systems of which there may be fixtures.
const SYSTEMS: [(&str, Importer); 4] = [
    ("basho", |from, to, options| import::basho(from, to, options)),
    ("bitcaskpy", |from, to, options| import::bitcaskpy(from, to, options)),
    ("pybitcask-json", |from, to, options| import::pybitcask(from, to, options)),
    ("pybitcask-protobuf", |from, to, options| import::pybitcask(from, to, options)),
];

/// Returns the directory of a fixture, or `None` if there is none.
fn fixture(name: &str) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("BITCASK_FIXTURES") else {
        println!("skipped {name}: BITCASK_FIXTURES is not set");
        return None;
    };
    let dir = PathBuf::from(dir).join(name);
    assert!(dir.is_dir(), "{} is missing", dir.display());
    Some(dir)
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = if text == "-" { "" } else { text };
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Returns what a fixture holds. Values that are not text are JSON.
fn expected(dir: &Path) -> Pairs {
    if dir.ends_with("basho") {
        let text = fs::read_to_string(dir.with_extension("expected.txt")).unwrap();
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ').unwrap();
            (from_hex(key), from_hex(value))
        };
        return text.lines().map(pair).collect();
    }
    let text = fs::read_to_string(dir.with_extension("expected.json")).unwrap();
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let value = |value: serde_json::Value| match value {
        serde_json::Value::String(text) if dir.ends_with("bitcaskpy") => text.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    object.into_iter().map(|(key, it)| (key.into_bytes(), value(it))).collect()
}

/// Returns pairs whose values are JSON in one spelling.
fn respelled(dir: &Path, pairs: Pairs) -> Pairs {
    if !dir.to_str().unwrap().contains("pybitcask-") {
        return pairs;
    }
    let value = |value: Vec<u8>| {
        serde_json::from_slice::<serde_json::Value>(&value).unwrap().to_string().into_bytes()
    };
    pairs.into_iter().map(|(key, it)| (key, value(it))).collect()
}

/// Returns everything about a directory that an import must not change.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u32)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let state = |path: PathBuf| {
        let metadata = fs::metadata(&path).unwrap();
        let state = (fs::read(&path).unwrap(), metadata.modified().unwrap());
        (path, (state.0, state.1, metadata.permissions().mode()))
    };
    entries.map(state).collect()
}

fn new_store() -> (TempDir, Bitcask) {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), options().sync_policy(SyncPolicy::Never)).unwrap();
    (dir, db)
}

#[test]
fn the_stores_of_the_real_systems_are_imported_whole() {
    for (name, import) in SYSTEMS {
        let Some(dir) = fixture(name) else { return };
        let before = contents(&dir);
        let (_new, db) = new_store();
        let report = import(&dir, &db, ImportOptions::new()).unwrap();
        println!("{name}: {report}");
        let expected = expected(&dir);
        assert!(report.is_complete(), "{name}: {report}");
        assert_eq!(respelled(&dir, pairs(&db)), expected, "{name}");
        assert_eq!(report.keys, expected.len() as u64);
        let again = import(&dir, &db, ImportOptions::new()).unwrap();
        assert_eq!((again.written, again.unchanged), (0, report.keys), "{name}");
        assert_eq!(contents(&dir), before, "{name} has changed");
    }
}

/// A value is imported whole, or not at all.
#[test]
fn the_stores_of_the_real_systems_are_imported_truncated_anywhere() {
    let is_long = std::env::var_os("BITCASK_LONG").is_some();
    for (name, import) in SYSTEMS {
        let Some(dir) = fixture(name) else { return };
        let copy = tempfile::tempdir().unwrap();
        let files: Vec<(PathBuf, Vec<u8>)> = contents(&dir)
            .into_iter()
            .map(|(path, (bytes, ..))| (copy.path().join(path.file_name().unwrap()), bytes))
            .collect();
        for (path, bytes) in &files {
            fs::write(path, bytes).unwrap();
        }
        let mut checked = BTreeSet::new();
        let all: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        for (path, bytes) in &files {
            let step = if is_long { 1 } else { bytes.len() / 2 - 7 };
            for length in (0..bytes.len()).step_by(step) {
                fs::write(path, &bytes[..length]).unwrap();
                let (_new, db) = new_store();
                let report = import(copy.path(), &db, ImportOptions::new()).unwrap();
                // What was cut off is at most one record.
                assert!(report.skipped_count <= 1, "{name} {length}: {report}");
                let found = pairs(&db);
                assert_eq!(found.len() as u64, report.written, "{name} {length}");
                for value in found.into_values().filter(|value| !value.is_empty()) {
                    if !checked.contains(&value) {
                        let is_there = all.windows(value.len()).any(|it| it == value);
                        assert!(is_there, "{name} {length}: {value:?}");
                        checked.insert(value);
                    }
                }
            }
            fs::write(path, bytes).unwrap();
        }
    }
}

/// Encodes a record of prologic's bitcask.
fn prologic(key: &[u8], value: &[u8], expiry: u64) -> Vec<u8> {
    let mut bytes = u32::try_from(key.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend([key, value].concat());
    let crc = value.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1)))
    });
    bytes.extend((!crc).to_be_bytes());
    bytes.extend(expiry.to_be_bytes());
    bytes
}

/// Encodes a record of Basho's bitcask.
fn basho(time: u32, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut body = time.to_be_bytes().to_vec();
    body.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend([key, value].concat());
    let of_value = prologic(b"", &body, 0);
    [of_value[of_value.len() - 12..of_value.len() - 8].to_vec(), body].concat()
}

fn seconds(duration_since_epoch: Duration) -> u64 {
    duration_since_epoch.as_secs()
}

fn now() -> u64 {
    seconds(SystemTime::UNIX_EPOCH.elapsed().unwrap())
}

#[test]
fn the_default_ttl_of_the_store_does_not_apply() {
    let old = tempfile::tempdir().unwrap();
    let expiry = now() + 1_000_000;
    let records = [prologic(b"for ever", b"1", 0), prologic(b"for a while", b"2", expiry)];
    fs::write(old.path().join("000000000.data"), records.concat()).unwrap();
    let new = tempfile::tempdir().unwrap();
    let db = small().default_ttl(Some(Duration::from_secs(60))).open(new.path()).unwrap();
    import::prologic(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!(db.ttl("for ever").unwrap(), Some(Ttl::Never));
    let Some(Ttl::In(left)) = db.ttl("for a while").unwrap() else { panic!("it has no expiry") };
    assert!(left > Duration::from_secs(60) && left <= Duration::from_secs(1_000_000), "{left:?}");
    // The same value with another expiry is not the same.
    db.put("for ever", "1").unwrap();
    let report = import::prologic(old.path(), &db, ImportOptions::new().overwrite(false)).unwrap();
    assert_eq!((report.kept, report.unchanged), (1, 1));
    let report = import::prologic(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!((report.written, report.unchanged), (1, 1));
    assert_eq!(db.ttl("for ever").unwrap(), Some(Ttl::Never));
}

#[test]
fn the_expiry_of_a_cask_counts_from_the_time_of_each_record() {
    let old = tempfile::tempdir().unwrap();
    let time = |ago: u64| u32::try_from(now() - ago).unwrap();
    let records = [basho(time(500_000), b"young", b"1"), basho(time(2_000_000), b"old", b"2")];
    fs::write(old.path().join("1.bitcask.data"), records.concat()).unwrap();
    let new = tempfile::tempdir().unwrap();
    let db = open(new.path());
    let options = || ImportOptions::new().expire_after(Some(Duration::from_secs(1_000_000)));
    let report = import::basho(old.path(), &db, options()).unwrap();
    assert_eq!((report.written, report.expired), (1, 1), "{report}");
    assert!(matches!(db.ttl("young").unwrap(), Some(Ttl::In(left))
        if left <= Duration::from_secs(500_000)));
    let report = import::basho(old.path(), &db, options()).unwrap();
    assert_eq!((report.written, report.unchanged), (0, 1), "{report}");
    let report = import::basho(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!((report.written, report.expired), (2, 0), "{report}");
}

#[test]
fn files_that_a_merge_of_basho_has_marked_are_left_out() {
    let old = tempfile::tempdir().unwrap();
    for (number, mode) in [(1_u32, 0o601), (2, 0o600), (3, 0o4600)] {
        let path = old.path().join(format!("{number}.bitcask.data"));
        let key = format!("key {number}");
        fs::write(&path, basho(1_700_000_000 + number, key.as_bytes(), b"1")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let new = tempfile::tempdir().unwrap();
    let db = open(new.path());
    let report = import::basho(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!(pairs(&db).into_keys().collect::<Vec<_>>(), [b"key 2"]);
    assert_eq!((report.files, report.leftovers.len()), (1, 2));
    assert!(report.to_string().contains("3.bitcask.data"), "{report}");
}

#[test]
fn files_of_basho_on_a_file_system_without_permissions_are_all_read() {
    let old = tempfile::tempdir().unwrap();
    for number in [1_u32, 2] {
        let path = old.path().join(format!("{number}.bitcask.data"));
        let key = format!("key {number}");
        fs::write(&path, basho(1_700_000_000 + number, key.as_bytes(), b"1")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let new = tempfile::tempdir().unwrap();
    let db = open(new.path());
    let report = import::basho(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!((report.files, report.written, report.leftovers.len()), (2, 2, 0));
    assert!(report.marks_ignored && report.to_string().contains("permissions"), "{report}");
    let one = old.path().join("2.bitcask.data");
    fs::set_permissions(&one, fs::Permissions::from_mode(0o600)).unwrap();
    let report = import::basho(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!((report.files, report.leftovers.len(), report.marks_ignored), (1, 1, false));
}

#[test]
fn a_pair_that_the_store_does_not_accept_is_skipped_and_the_others_are_not() {
    let old = tempfile::tempdir().unwrap();
    let large = vec![b'x'; 2 << 20];
    let records = [
        prologic(b"a", b"1", 0),
        prologic(b"a long key", b"2", 0),
        prologic(b"b", b"a long value", 0),
        prologic(b"large", &large, 0),
        prologic(b"c", b"3", 0),
    ];
    fs::write(old.path().join("000000000.data"), records.concat()).unwrap();
    let new = tempfile::tempdir().unwrap();
    let limited = small().key_size_limit(5).value_size_limit(10).open(new.path()).unwrap();
    let report = import::prologic(old.path(), &limited, ImportOptions::new()).unwrap();
    assert_eq!(pairs(&limited).into_keys().collect::<Vec<_>>(), [b"a", b"c"]);
    assert_eq!((report.written, report.written_size), (2, 4));
    let offsets: Vec<u64> = report.skipped.iter().map(|skipped| skipped.offset).collect();
    let sizes = records.each_ref().map(|record| record.len() as u64);
    assert_eq!(report.skipped_count, 3, "{report}");
    let starts = [sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]];
    assert!(starts.iter().all(|start| offsets.contains(start)), "{report}");
    limited.close().unwrap();

    let db = open(new.path());
    let report = import::prologic(old.path(), &db, ImportOptions::new()).unwrap();
    assert_eq!((report.written, report.unchanged), (3, 2));
    assert_eq!(db.get("large").unwrap().unwrap(), large[..]);
}

#[test]
fn thousands_of_pairs_are_written_in_batches_and_are_durable() {
    let old = tempfile::tempdir().unwrap();
    for file in 0..3_u32 {
        let keys = (0..2000).map(|number| format!("{file} {number}"));
        let records = keys.map(|key| prologic(key.as_bytes(), &[b'v'; 400], 0));
        let bytes = records.collect::<Vec<_>>().concat();
        fs::write(old.path().join(format!("{file:09}.data")), bytes).unwrap();
    }
    let (_new, db) = new_store();
    let (syncs, mut written) = (db.stats().syncs, Vec::new());
    let options = ImportOptions::new().progress(|progress| {
        assert!(progress.size_done <= progress.size_total);
        written.push(progress.written);
        ControlFlow::Continue(())
    });
    let report = import::prologic(old.path(), &db, options).unwrap();
    assert_eq!((report.files, report.written), (3, 6000));
    assert!(db.stats().syncs > syncs, "what was imported is durable");
    assert!(written.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] <= 1000));
    assert_eq!(written.last(), Some(&6000));
    assert_eq!(db.len().unwrap(), 6000);
}

#[test]
fn plain_strings_are_decoded_and_other_values_are_not() {
    let old = tempfile::tempdir().unwrap();
    let values = ["\"text\"", "\"\\u00e9\\n\"", "12", "null", "[\"x\"]", "\"\"", "\"\\ud800\""];
    let line = |(at, value): (usize, &&str)| {
        format!("{{\"key\": \"{at}\", \"value\": {value}, \"timestamp\": 1700000000000}}\n")
    };
    let lines: String = values.iter().enumerate().map(line).collect();
    fs::write(old.path().join("data_1.db"), format!("\u{2}{lines}")).unwrap();
    let new = tempfile::tempdir().unwrap();
    let db = open(new.path());
    let _ = import::pybitcask(old.path(), &db, ImportOptions::new()).unwrap();
    assert!(pairs(&db).into_values().eq(values.iter().map(|value| value.as_bytes())));
    let options = ImportOptions::new().plain_strings(true);
    let report = import::pybitcask(old.path(), &db, options).unwrap();
    let plain = ["text", "\u{e9}\n", "12", "null", "[\"x\"]", "", "\"\\ud800\""];
    assert!(pairs(&db).into_values().eq(plain.iter().map(|value| value.as_bytes())));
    assert_eq!((report.written, report.unchanged), (3, 4));
    let debug = format!("{:?}", ImportOptions::new().progress(|_| ControlFlow::Break(())));
    assert!(debug.contains("plain_strings: false") && debug.contains("progress: Some(..)"));
}

#[test]
fn a_source_that_is_no_directory_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path().join("new"), Options::new()).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let message =
        |path: &Path| import::basho(path, &db, ImportOptions::new()).unwrap_err().to_string();
    assert!(message(&file).contains("is not a directory"), "{}", message(&file));
    assert!(message(&dir.path().join("none")).contains("does not exist"));
    // A store of this crate is none of the others'.
    assert!(message(&dir.path().join("new")).contains("no file named N.bitcask.data"));
}
