//! Every length and every byte: each file is truncated at every length, each byte is changed, and
//! each record is torn in the middle of the log.
//!
//! What must hold in each case: no panic; no pair that was not there; and no more records lost than
//! those that were damaged.

use std::collections::BTreeSet;
use std::ops::Range;

use super::old::{CHANGES, Kind, OldStore, Pairs, TIME, bitcaskpy};
use crate::import::ImportReport;

/// Returns the ranges of the records in a file.
fn record_ranges(kind: Kind, file: usize) -> Vec<Range<usize>> {
    let mut end = kind.head().len();
    let record = |(number, key, value): &(u32, &str, Option<&str>)| {
        let start = end;
        end += kind.record(*number, key, *value).len();
        start..end
    };
    CHANGES[file].iter().map(record).collect()
}

/// Returns the contents after the changes for which the closure returns `true`.
fn replay(is_there: impl Fn(usize, usize) -> bool) -> Pairs {
    let mut pairs = Pairs::new();
    for (file, changes) in CHANGES.iter().enumerate() {
        for (at, (_, key, value)) in changes.iter().enumerate() {
            if !is_there(file, at) {
                continue;
            }
            match value {
                Some(value) => {
                    pairs.insert(key.as_bytes().to_vec(), value.as_bytes().to_vec());
                }
                None => drop(pairs.remove(key.as_bytes())),
            }
        }
    }
    pairs
}

/// Returns all pairs that ever were in the store.
fn ever() -> BTreeSet<(Vec<u8>, Vec<u8>)> {
    let changes = CHANGES.concat();
    let puts = changes.iter().filter_map(|(_, key, value)| Some((key, (*value)?)));
    puts.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn each_file_truncated_at_every_length_has_what_is_whole() {
    for kind in Kind::ALL {
        let store = OldStore::sample(kind);
        for file in 0..store.files.len() {
            let ranges = record_ranges(kind, file);
            assert_eq!(ranges.last().map(|range| range.end), Some(store.files[file].len()));
            for length in 0..store.files[file].len() {
                let mut torn = store.clone();
                torn.files[file].truncate(length);
                let (report, pairs) = torn.import();
                // A line counts without its line end.
                let spare = usize::from(kind == Kind::Lines);
                let is_whole = |range: &Range<usize>| range.end <= length + spare;
                let expected = replay(|at, number| at != file || is_whole(&ranges[number]));
                assert_eq!(pairs, expected, "{kind:?} file {file} length {length}: {report}");
                let is_boundary =
                    ranges.iter().any(|range| range.start == length || range.end - spare == length);
                let is_clean = is_boundary || length < kind.head().len();
                assert_eq!(report.is_complete(), is_clean, "{kind:?} {file} {length}: {report}");
            }
        }
    }
}

/// Returns whether a pair is one of the store's in which one byte was changed in this way.
fn is_changed_pair(kind: Kind, key: &[u8], value: &[u8], mask: u8) -> bool {
    let found = [key, value].concat();
    ever().iter().any(|(old_key, old_value)| {
        let old = [old_key.as_slice(), old_value].concat();
        let different: Vec<u8> =
            old.iter().zip(&found).map(|(a, b)| a ^ b).filter(|mask| *mask > 0).collect();
        // A delete that lost its flag is a put of nothing.
        let is_flag = kind == Kind::Bitcaskpy && value.is_empty();
        is_flag || (old_key.len(), old.len()) == (key.len(), found.len()) && different == [mask]
    })
}

/// Imports a store with each bit, and all bits, of each byte changed. Calls a closure with the
/// mask, the outcome, and a description of the place.
fn for_each_change(store: &OldStore, mut check: impl FnMut(u8, &ImportReport, &Pairs, &str)) {
    for file in 0..store.files.len() {
        for offset in 0..store.files[file].len() {
            for mask in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                let mut changed = store.clone();
                changed.files[file][offset] ^= mask;
                let (report, pairs) = changed.import();
                let place = format!("{:?} file {file} offset {offset} mask {mask:#x}", store.kind);
                check(mask, &report, &pairs, &place);
            }
        }
    }
}

#[test]
fn no_changed_byte_yields_a_pair_that_was_not_there() {
    for kind in Kind::ALL {
        let ever = ever();
        for_each_change(&OldStore::sample(kind), |mask, report, pairs, place| {
            for (key, value) in pairs {
                let was_there = ever.contains(&(key.clone(), value.clone()));
                // Only this format has a checksum over everything.
                let may_change = kind != Kind::Basho;
                assert!(
                    was_there || may_change && is_changed_pair(kind, key, value, mask),
                    "{place}: {key:?} {value:?}\n{report}"
                );
            }
            // Without a checksum, the record before the damaged one may be lost with it.
            let lost = 13 - report.records;
            let lost_max = if kind == Kind::Basho { 1 } else { 2 };
            assert!(lost <= lost_max, "{place}: {lost} lost\n{report}");
            assert!(lost == 0 || !report.is_complete(), "{place}\n{report}");
        });
    }
}

/// Returns a store of bitcaskpy whose clock was set again and again: to 2023, and back to 1970.
fn with_clock_jumps() -> OldStore {
    let time = |number: u32| {
        let base = if number % 5 < 2 { 0.0 } else { f64::from(TIME) };
        base + f64::from(number) * 1.125
    };
    let files = CHANGES.iter().map(|changes| {
        let records = changes.iter().map(|(at, key, value)| bitcaskpy(time(*at), key, *value));
        records.collect::<Vec<_>>().concat()
    });
    OldStore { kind: Kind::Bitcaskpy, files: files.collect() }
}

#[test]
fn jumps_of_the_clock_hide_no_damage() {
    let (store, ever) = (with_clock_jumps(), ever());
    let (report, pairs) = store.import();
    assert_eq!(pairs, replay(|_, _| true), "{report}");
    for_each_change(&store, |mask, report, pairs, place| {
        for (key, value) in pairs {
            let was_there = ever.contains(&(key.clone(), value.clone()));
            assert!(
                was_there || is_changed_pair(store.kind, key, value, mask),
                "{place}: {key:?} {value:?}\n{report}"
            );
        }
    });
    for file in 0..store.files.len() {
        for offset in 0..store.files[file].len() {
            let mut torn = store.clone();
            torn.files[file].truncate(offset);
            let (report, pairs) = torn.import();
            let is_there =
                |(key, value): (&Vec<u8>, &Vec<u8>)| ever.contains(&(key.clone(), value.clone()));
            assert!(pairs.iter().all(is_there), "file {file} length {offset}: {report}");
        }
    }
}

#[test]
fn what_follows_a_torn_record_is_read() {
    for kind in Kind::ALL {
        let store = OldStore::sample(kind);
        for (number, torn) in record_ranges(kind, 0).into_iter().enumerate() {
            // A line without its line end is whole.
            for length in 1..torn.len() - usize::from(kind == Kind::Lines) {
                let mut changed = store.clone();
                changed.files[0].drain(torn.start + length..torn.end);
                let (report, pairs) = changed.import();
                let expected = replay(|file, at| file != 0 || at != number);
                let place = format!("{kind:?} record {number} cut to {length} bytes: {report}");
                assert!(!report.is_complete(), "{place}");
                assert_eq!(pairs, expected, "{place}");
            }
        }
    }
}

#[test]
fn zeros_and_other_bytes_at_the_end_add_nothing() {
    let expected = replay(|_, _| true);
    for kind in Kind::ALL {
        for (byte, count) in [(0, 1), (0, 17), (0, 34), (0, 500), (0xff, 40), (b'A', 60)] {
            let mut store = OldStore::sample(kind);
            let size = store.files[1].len();
            store.files[1].resize(size + count, byte);
            let (report, pairs) = store.import();
            if kind == Kind::Bitcaskpy && byte > 0 {
                // Nothing confirms the sizes of the last record.
                assert_eq!((report.records, report.skipped_count), (12, 1), "{report}");
                continue;
            }
            assert_eq!(pairs, expected, "{kind:?} {count} of {byte}: {report}");
            assert_eq!(report.records, 13, "{kind:?} {count} of {byte}: {report}");
            let skipped: u64 = report.skipped.iter().map(|skipped| skipped.size).sum();
            assert_eq!(skipped, count as u64, "{kind:?} {count} of {byte}: {report}");
        }
    }
}
