//! Imports of small stores that are made from the tables of bytes: whole, truncated, changed byte
//! by byte, and hostile.

mod old;
mod sweeps;

use std::ops::ControlFlow;

use super::ImportOptions;
use crate::error::Error;
use crate::store::Ttl;
use old::{CHANGES, EXPIRY, Kind, Lab, OldStore, Pairs, TIME};

fn pairs_of(pairs: &[(&str, &str)]) -> Pairs {
    pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// What the sample holds.
fn sample_pairs() -> Pairs {
    pairs_of(&[
        ("alpha", "1044"),
        ("back", "808"),
        ("beta", "9"),
        ("delta", "{\"q\": 5}"),
        ("zeta", "1234567"),
    ])
}

#[test]
fn each_format_is_read() {
    for kind in Kind::ALL {
        let (report, pairs) = OldStore::sample(kind).import();
        assert_eq!(pairs, sample_pairs(), "{kind:?}");
        assert!(report.is_complete(), "{kind:?}: {report}");
        let counts = (report.files, report.records, report.deletes, report.keys, report.written);
        assert_eq!(counts, (2, 13, 3, 5, 5), "{kind:?}");
        let size: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(report.written_size, size as u64);
    }
}

#[test]
fn a_second_import_writes_nothing_and_a_changed_source_only_what_has_changed() {
    for kind in Kind::ALL {
        let mut store = OldStore::sample(kind);
        let lab = Lab::new();
        lab.put(&store);
        lab.import(kind, ImportOptions::new()).unwrap();
        let appends = lab.db.stats().appends;
        let again = lab.import(kind, ImportOptions::new()).unwrap();
        assert_eq!((again.written, again.unchanged, again.keys), (0, 5, 5), "{kind:?}");
        assert_eq!(lab.db.stats().appends, appends, "{kind:?}");
        // The number is that of `zeta`, so that its expiry, if the format has one, stays as it is.
        store.files[1].extend(kind.record(14, "zeta", Some("77")));
        store.files[1].extend(kind.record(15, "alpha", None));
        lab.put(&store);
        let kept = lab.import(kind, ImportOptions::new().overwrite(false)).unwrap();
        assert_eq!((kept.written, kept.unchanged, kept.kept), (0, 3, 1), "{kind:?}");
        let changed = lab.import(kind, ImportOptions::new()).unwrap();
        assert_eq!((changed.written, changed.unchanged), (1, 3), "{kind:?}");
        let mut expected = sample_pairs();
        expected.insert(b"zeta".to_vec(), b"77".to_vec());
        // Deletes are not imported.
        assert_eq!(lab.into_pairs(), expected, "{kind:?}");
    }
}

#[test]
fn an_import_that_is_stopped_anywhere_is_completed_by_the_next() {
    for kind in Kind::ALL {
        let lab = Lab::new();
        lab.put(&OldStore::sample(kind));
        let mut stops = 0;
        for limit in 0..1000 {
            let mut calls = 0;
            stops += 1;
            let options = ImportOptions::new().progress(|progress| {
                assert!(progress.size_done <= progress.size_total, "{kind:?}: {progress:?}");
                calls += 1;
                if calls > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let report = lab.import(kind, options).unwrap();
            assert_eq!(report.cancelled, calls > limit);
            let pairs = lab.pairs();
            assert!(pairs.iter().all(|(key, value)| sample_pairs().get(key) == Some(value)));
            if !report.cancelled {
                break;
            }
        }
        assert!(stops > 4, "{kind:?}: {stops} stops");
        assert_eq!(lab.into_pairs(), sample_pairs(), "{kind:?}");
    }
}

#[test]
fn little_memory_makes_several_passes() {
    for kind in Kind::ALL {
        let keys: Vec<String> = (0..5000).map(|number| format!("key {number}")).collect();
        let records = (0..).zip(&keys).flat_map(|(number, key)| {
            [kind.record(number, key, Some("1")), kind.record(number + 1, key, Some("22"))]
        });
        let files = vec![[vec![kind.head()], records.collect()].concat().concat()];
        let lab = Lab::new();
        lab.put(&OldStore { kind, files });
        let mut last = None;
        let options = ImportOptions::new().memory_max(64 << 10).progress(|progress| {
            last = Some(*progress);
            ControlFlow::Continue(())
        });
        let report = lab.import(kind, options).unwrap();
        let counts = (report.records, report.keys, report.written);
        assert_eq!(counts, (10_000, 5000, 5000), "{kind:?}");
        let pairs = lab.into_pairs();
        assert_eq!(pairs.len(), 5000);
        assert!(pairs.values().all(|value| value == b"22"));
        assert!(last.is_some_and(|last| last.size_done <= last.size_total), "{last:?}");
    }
    let rejected = Lab::new().import(Kind::Basho, ImportOptions::new().memory_max(1));
    assert!(matches!(rejected, Err(Error::InvalidOption { name: "memory_max", .. })));
}

// bitcaskpy counted code points and read bytes.
#[test]
fn keys_and_values_of_bitcaskpy_that_are_not_ascii_are_read() {
    let pairs = [
        ("caf\u{e9}", "\u{fc}ber"),
        ("\u{65e5}\u{672c}", "\u{8a9e}"),
        ("\u{1f980}", ""),
        ("", "\u{1f980}\u{1f980}x"),
        ("plain", "text"),
    ];
    let kind = Kind::Bitcaskpy;
    let records = pairs.iter().map(|(key, value)| kind.record(1, key, Some(value)));
    let (report, found) =
        OldStore { kind, files: vec![records.collect::<Vec<_>>().concat()] }.import();
    assert!(report.is_complete(), "{report}");
    assert_eq!(found, pairs_of(&pairs));
}

// A clock without a battery begins in 1970, and is set later; and it may be set back.
#[test]
fn records_of_bitcaskpy_are_read_whatever_the_clock_did_in_between() {
    let now = f64::from(TIME);
    let clocks = [
        &[100.0, 100.5, now, now + 1.0, now + 2.0][..],
        &[now, now + 1.0, 100.0, 101.0, 102.0],
        &[0.0, 0.25, 0.5, 100.0, now],
        &[now, 100.0, now + 1.0, now + 2.0],
        &[100.0, now],
        &[now, 100.0],
    ];
    for times in clocks {
        let kind = Kind::Bitcaskpy;
        let keys: Vec<String> = (0..times.len()).map(|at| format!("key {at}")).collect();
        let records =
            times.iter().zip(&keys).map(|(time, key)| old::bitcaskpy(*time, key, Some("value")));
        let files = vec![records.collect::<Vec<_>>().concat()];
        let (report, found) = OldStore { kind, files }.import();
        let found: Vec<_> = found.into_keys().collect();
        assert!(found.iter().eq(keys.iter().map(String::as_bytes)), "{times:?}: {report}");
        assert!(report.is_complete(), "{times:?}: {report}");
    }
}

// A record may cross the buffer anywhere, also within a character.
#[test]
fn records_of_bitcaskpy_larger_than_the_buffer_are_read() {
    let kind = Kind::Bitcaskpy;
    for shift in 0..4 {
        let value = format!("{}{}", "x".repeat(shift), "\u{1f980}\u{8a9e}".repeat(30_000));
        let record = kind.record(1, "large", Some(&value));
        let files = vec![[record, kind.record(2, "next", Some("1"))].concat()];
        let (report, found) = OldStore { kind, files }.import();
        assert!(report.is_complete(), "{report}");
        assert_eq!(found, pairs_of(&[("large", &value), ("next", "1")]));
    }
}

// pybitcask sorts the names of its files as text, so the delete in `data_11` came before the put in
// `data_9`, and of two puts within a millisecond it kept the first.
#[test]
fn files_of_pybitcask_are_read_in_numeric_order() {
    let kind = Kind::Messages;
    let mut files = vec![kind.head(); 11];
    files[8].extend(kind.record(5, "victim", Some("1")));
    files[9].extend(kind.record(5, "twice", Some("1")));
    files[9].extend(kind.record(5, "twice", Some("2")));
    files[10].extend(kind.record(5, "victim", None));
    // Because of the order of its files, pybitcask went on writing in `data_9`.
    files[8].extend(kind.record(9, "late", Some("2")));
    files[9].extend(kind.record(6, "late", Some("1")));
    let (report, found) = OldStore { kind, files }.import();
    assert!(report.is_complete(), "{report}");
    assert_eq!(found, pairs_of(&[("late", "2"), ("twice", "2")]));
}

#[test]
fn both_encodings_of_pybitcask_may_be_in_one_file() {
    let (messages, lines) = (Kind::Messages, Kind::Lines);
    for first in [messages, lines] {
        let mut file = first.head();
        for number in 0..6 {
            let kind = if number % 3 == 1 { messages } else { lines };
            file.extend(kind.record(number, &format!("key {number}"), Some("null")));
        }
        let (report, found) = OldStore { kind: first, files: vec![file] }.import();
        assert!(report.is_complete(), "{report}");
        assert_eq!(found.len(), 6);
        assert!(found.values().all(|value| value == b"null"), "a stored null is a value");
    }
}

#[test]
fn values_of_pybitcask_keep_their_text() {
    let values = [
        "NaN",
        "-Infinity",
        "1.50e+10",
        "\"a\\u00e9\\ud83e\\udd80\\\"\"",
        "[]",
        "{}",
        "[[], {}]",
        "{\"a\": {\"b\": [1, -2.5, null, true]}}",
        "12345678901234567890123",
        "-0.0",
        "{\"key\": \"inner\", \"value\": 1, \"timestamp\": 1}",
        "\"\\ud800\"",
    ];
    for kind in [Kind::Messages, Kind::Lines] {
        let records =
            (0..).zip(values).map(|(number, value)| kind.record(number, value, Some(value)));
        let file = [vec![kind.head()], records.collect()].concat().concat();
        let (report, found) = OldStore { kind, files: vec![file] }.import();
        assert!(report.is_complete(), "{report}");
        assert_eq!(found, pairs_of(&values.map(|value| (value, value))));
    }
}

#[test]
fn text_that_python_would_not_read_is_skipped() {
    let values = [
        "",
        "01",
        "1 2",
        "nul",
        "\"",
        "[1,]",
        "{\"a\" 1}",
        "{1: 2}",
        "\"\\x\"",
        "--1",
        "[1",
        "\u{7f}",
        "\"\u{1}\"",
        "\"\\u12\"",
    ];
    for kind in [Kind::Messages, Kind::Lines] {
        for value in values {
            let file = [
                kind.head(),
                kind.record(1, "bad", Some(value)),
                kind.record(2, "good", Some("1")),
            ];
            let (report, found) = OldStore { kind, files: vec![file.concat()] }.import();
            assert_eq!(found, pairs_of(&[("good", "1")]), "{kind:?} {value}");
            assert_eq!(report.skipped_count, 1, "{kind:?} {value}: {report}");
        }
    }
}

#[test]
fn a_key_that_is_no_text_and_one_that_is_too_large_are_skipped() {
    let lines = b"\x02{\"key\": \"\\ud800\", \"value\": 1, \"timestamp\": 1700000000000}\n";
    let lab = Lab::new();
    lab.put_file("data_1.db", lines);
    let report = lab.import(Kind::Lines, ImportOptions::new()).unwrap();
    assert_eq!((report.keys, report.skipped_count), (0, 1));
    assert_eq!((report.skipped[0].offset, report.skipped[0].size), (1, lines.len() as u64 - 1));
    assert!(report.skipped[0].reason.contains("surrogate"), "{report}");

    let large = "k".repeat(65_536);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Basho) {
        let largest = &large[1..];
        let records =
            [kind.head(), kind.record(1, &large, Some("1")), kind.record(2, largest, Some("2"))];
        let (report, found) = OldStore { kind, files: vec![records.concat()] }.import();
        assert_eq!(found, pairs_of(&[(largest, "2")]), "{kind:?}");
        assert_eq!(report.skipped_count, 1, "{kind:?}: {report}");
        assert!(report.skipped[0].reason.contains("65,535"), "{report}");
    }
}

#[test]
fn of_records_of_basho_within_a_second_the_last_counts_and_an_earlier_time_never() {
    let kind = Kind::Basho;
    // What a merge has copied has a higher file number than what it has read.
    let files = vec![
        [kind.record(5, "a", Some("old")), kind.record(5, "a", Some("new"))].concat(),
        [kind.record(4, "a", Some("merged")), kind.record(4, "b", Some("1"))].concat(),
        [kind.record(5, "b", None), kind.record(5, "b", Some("2"))].concat(),
    ];
    let (report, found) = OldStore { kind, files }.import();
    assert!(report.is_complete(), "{report}");
    assert_eq!(found, pairs_of(&[("a", "new"), ("b", "2")]));
}

#[test]
fn expiries_of_prologic_are_kept_and_expired_keys_left_out() {
    let records = [
        old::prologic(b"ever", b"1", Some(0)),
        old::prologic(b"soon", b"2", Some(EXPIRY)),
        old::prologic(b"over", b"3", Some(u64::from(TIME))),
        // The newest record counts, even if it has expired.
        old::prologic(b"both", b"4", Some(0)),
        old::prologic(b"both", b"5", Some(1)),
    ];
    let lab = Lab::new();
    lab.put(&OldStore { kind: Kind::Prologic, files: vec![records.concat()] });
    let report = lab.import(Kind::Prologic, ImportOptions::new()).unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!((report.keys, report.written, report.expired), (4, 2, 2));
    assert_eq!(lab.db.ttl("ever").unwrap(), Some(Ttl::Never));
    assert!(matches!(lab.db.ttl("soon").unwrap(), Some(Ttl::In(_))));
    let message = report.to_string();
    assert!(message.contains("2 keys had expired"), "{message}");
    lab.db.kill();
}

#[test]
fn expiries_of_prologic_after_2106_are_kept() {
    let far = (1 << 32) + 5;
    let record = |key: &str, expiry| old::prologic(key.as_bytes(), b"1", Some(expiry));
    let files = [
        vec![record("ever", 0), record("far", far), record("farther", 2 * far), record("end", 0)],
        // The first records do not tell the version.
        vec![record("ever", far), record("far", far), record("farther", far), record("end", far)],
    ];
    for records in files {
        let lab = Lab::new();
        lab.put(&OldStore { kind: Kind::Prologic, files: vec![records.concat()] });
        let report = lab.import(Kind::Prologic, ImportOptions::new()).unwrap();
        assert!(report.is_complete() && report.written == 4, "{report}");
        let Some(Ttl::In(left)) = lab.db.ttl("far").unwrap() else { panic!("it has no expiry") };
        assert!(left.as_secs() > far - 4_000_000_000, "{left:?}");
        lab.db.kill();
    }
    // Nothing confirms a number that is too large, so it is damage.
    for expiry in [1 << 34, u64::MAX] {
        let files = vec![[record("a", 0), record("b", expiry), record("c", 0)].concat()];
        let (report, found) = OldStore { kind: Kind::Prologic, files }.import();
        assert_eq!(found, pairs_of(&[("a", "1"), ("c", "1")]), "{report}");
        assert_eq!(report.skipped_count, 1, "{report}");
    }
}

#[test]
fn a_database_of_the_fork_of_prologic_is_rejected() {
    let mut record = 3_u32.to_be_bytes().to_vec();
    record.extend(5_u64.to_be_bytes());
    record.extend(crc32fast::hash(b"value").to_be_bytes());
    record.extend([0; 8]);
    record.extend(b"keyvalue");
    for name in ["000000000.data", "0000000065f0a1b2-00000000deadbeef.data"] {
        let lab = Lab::new();
        lab.put_file(name, &record);
        match lab.import(Kind::Prologic, ImportOptions::new()) {
            Err(error @ Error::InvalidSource { .. }) => {
                let message = error.to_string();
                assert!(message.contains("octu0/bitcaskdb") && message.contains(name), "{message}");
                assert!(error.is_invalid_input());
            }
            other => panic!("{other:?}"),
        }
        lab.db.kill();
    }
}

#[test]
fn a_directory_without_files_of_the_format_is_rejected() {
    for kind in Kind::ALL {
        let lab = Lab::new();
        let message = |lab: &Lab| lab.import(kind, ImportOptions::new()).unwrap_err().to_string();
        assert!(message(&lab).contains("does not exist"));
        for name in
            ["LOCK", "segment_.log", "segment_x.log", "data_.db", "x1.bitcask.data", ".data"]
        {
            lab.put_file(name, b"something else");
        }
        assert!(message(&lab).contains("it has no file named"), "{}", message(&lab));
        lab.put_file(&kind.file_name(7), b"");
        let report = lab.import(kind, ImportOptions::new()).unwrap();
        assert_eq!((report.files, report.records), (1, 0));
        lab.db.kill();
    }
}

#[test]
fn sizes_that_promise_gigabytes_allocate_nothing() {
    let huge = [0xff; 8];
    let head = |bytes: &[&[u8]]| bytes.concat();
    let time = (f64::from(TIME)).to_be_bytes();
    let crc = 7_u32.to_be_bytes();
    let mut files = vec![
        (Kind::Bitcaskpy, head(&[&time, &huge[..4], &huge[..4], &[0], b"key"])),
        (Kind::Bitcaskpy, head(&[&time, &[0, 0, 0, 1], &huge[..4], &[0], b"key"])),
        (Kind::Messages, head(&[&[1], &huge[..4], &[0x0a, 3], b"key"])),
        (Kind::Messages, head(&[&[1], &[0, 0, 0, 9], &[0x0a], &huge, b"key"])),
        (Kind::Basho, head(&[&crc, &crc, &huge[..2], &huge[..4], b"key"])),
        (Kind::Prologic, head(&[&[0, 0, 0, 3], &huge, b"key"])),
        (Kind::Prologic, head(&[&huge[..4], &huge, b"key"])),
        (Kind::Prologic, head(&[&[0, 0, 0, 3], &[0x7f], &huge[..7], b"key"])),
    ];
    let nested = |depth: usize| {
        let value = "[".repeat(depth) + &"]".repeat(depth);
        [vec![2], old::line(1, "deep", Some(&value))].concat()
    };
    let (report, _) = OldStore { kind: Kind::Lines, files: vec![nested(1000)] }.import();
    assert_eq!(report.keys, 1, "a depth that Python reads");
    files.extend([1200, 100_000].map(|depth| (Kind::Lines, nested(depth))));
    for (kind, file) in files {
        let size = file.len() as u64;
        let (report, pairs) = OldStore { kind, files: vec![file] }.import();
        assert!(pairs.is_empty() && report.skipped_count > 0, "{kind:?}: {report}");
        let skipped: u64 = report.skipped.iter().map(|skipped| skipped.size).sum();
        assert_eq!(skipped, size - kind.head().len() as u64, "{kind:?}: {report}");
    }
}

#[test]
fn a_search_through_a_file_of_damage_ends() {
    // Each byte looks like a header whose sizes lead almost to the end of the file.
    for kind in Kind::ALL {
        let mut file = kind.head();
        for number in 0..20_000_u32 {
            file.extend((number % 3).to_be_bytes());
        }
        file.extend(kind.record(1, "end", Some("1")));
        let (report, _) = OldStore { kind, files: vec![file] }.import();
        assert!(report.skipped_count > 0, "{kind:?}");
    }
}

#[test]
fn the_changes_of_the_sample_are_what_the_tests_expect() {
    let count = CHANGES.iter().map(|changes| changes.len()).sum::<usize>();
    let deletes = CHANGES.concat().iter().filter(|(.., value)| value.is_none()).count();
    assert_eq!((count, deletes), (13, 3));
}

// Someone may keep a file of such a store as a value in it.
#[test]
fn records_within_a_damaged_value_are_not_taken() {
    for kind in [Kind::Basho, Kind::Prologic] {
        let inner = kind.record(3, "inner", Some("1"));
        let outer = match kind {
            Kind::Basho => old::basho(TIME, b"outer", &inner),
            _ => old::prologic(b"outer", &inner, Some(0)),
        };
        // The first byte of the value, or of the key.
        let damaged = if kind == Kind::Basho { 14 } else { 17 };
        let mut file = [outer, kind.record(4, "next", Some("2"))].concat();
        file[damaged] ^= 0x80;
        let (report, pairs) = OldStore { kind, files: vec![file] }.import();
        assert_eq!(pairs, pairs_of(&[("next", "2")]), "{kind:?}: {report}");
    }
}
