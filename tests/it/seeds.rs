//! Every storage defect of this store's two predecessors, bitcaskpy and pybitcask, as a test that
//! tells its story.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bitcask::{Batch, Bitcask, Error, SyncPolicy};

use crate::support::{
    FIRST_OFFSET, Forged, crash_copy, files_of, logs, open, pairs, patch, remove_hints, small,
    unsealed_copy,
};

/// Opens a store with one entry per segment.
fn open_one_each(path: &Path) -> Bitcask {
    Bitcask::open(path, small().segment_entries(1)).unwrap()
}

fn assert_value(db: &Bitcask, key: &str, expected: &str) {
    let found = db.get(key).unwrap().unwrap_or_else(|| panic!("{key} is absent"));
    assert!(found == expected, "{key} is {found:?}, not {expected:?}");
}

// bitcaskpy took the size of the active segment from a `.hint` that was written when the segment
// was created, every 60 seconds, and at a close that the store did not have. After a restart the
// size was 0 although the file held 46 bytes. The next put was recorded at offset 0, and `get('c')`
// returned '11111', another key's value, from then on.
#[test]
fn a_put_after_a_restart_has_the_right_offset() {
    for killed in [false, true] {
        let mut dir = tempfile::tempdir().unwrap();
        for restart in 0..5 {
            let db = open(dir.path());
            db.put(format!("a{restart}"), "11111").unwrap();
            db.put(format!("b{restart}"), "22222").unwrap();
            if killed {
                dir = crash_copy(dir.path());
            } else {
                db.close().unwrap();
            }
            let db = open(dir.path());
            db.put(format!("c{restart}"), "33333").unwrap();
            for round in 0..=restart {
                assert_value(&db, &format!("a{round}"), "11111");
                assert_value(&db, &format!("b{round}"), "22222");
                assert_value(&db, &format!("c{round}"), "33333");
            }
        }
    }
}

// bitcaskpy recorded a key's length in characters but wrote its UTF-8 bytes. A record with a
// non-ASCII character could not be read, nor could any record after it.
#[test]
fn non_ascii_keys_and_values_and_the_following_entries_are_read() {
    let samples = [
        ("caf\u{e9}", "\u{fc}ber"),
        ("\u{65e5}\u{672c}", "\u{8a9e}"),
        ("\u{1f980}", "\u{1f980}\u{1f980}"),
        ("e\u{301}", "decomposed"),
        ("\u{e9}", "composed"),
        ("\u{0}", "\u{7f}\u{80}"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for (key, value) in samples {
        db.put(key, value).unwrap();
    }
    db.put("after", "them").unwrap();
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    remove_hints(dir.path());
    for path in [dir.path(), copy.path()] {
        let db = open(path);
        for (key, value) in samples {
            assert_value(&db, key, value);
        }
        assert_value(&db, "after", "them");
        assert_eq!(db.len().unwrap(), 7);
    }
}

// bitcaskpy only checked whether a segment was already full. A record that did not fit into the
// rest of the segment raised "Segment is full": after a value of 9 MiB, one of 2 MiB failed every
// time.
#[test]
fn an_entry_that_does_not_fit_starts_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::support::options().segment_size(10 << 20).sync_policy(SyncPolicy::Never);
    let db = Bitcask::open(dir.path(), options).unwrap();
    let (nine, two) = (vec![9; 9 << 20], vec![2; 2 << 20]);
    db.put("nine", &nine).unwrap();
    db.put("two", &two).unwrap();
    assert_eq!(db.stats().segments, 2);
    db.close().unwrap();
    let db = open(dir.path());
    assert!(db.get("nine").unwrap().unwrap() == nine);
    assert!(db.get("two").unwrap().unwrap() == two);
}

// bitcaskpy could not store a record larger than a segment.
#[test]
fn a_value_larger_than_a_segment_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let value = vec![5; 100_000];
    for key in ["first", "second"] {
        db.put(key, &value).unwrap();
        db.put("small", key).unwrap();
    }
    db.close().unwrap();
    let db = open(dir.path());
    assert!(db.get("first").unwrap().unwrap() == value);
    assert!(db.get("second").unwrap().unwrap() == value);
    assert_value(&db, "small", "second");
}

// When bitcaskpy's `.index` was missing, the rebuilt one held the offsets of the values, but reads
// expected those of the records. So every get raised an exception.
#[test]
fn a_missing_hint_is_rebuilt_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..200_u32 {
        db.put((number % 60).to_be_bytes(), vec![number.to_be_bytes()[3]; number as usize])
            .unwrap();
        db.delete((number * 7 % 60).to_be_bytes()).unwrap();
    }
    let expected = pairs(&db);
    db.close().unwrap();
    let hints = files_of(dir.path(), "hint");
    let before: Vec<Vec<u8>> = hints.iter().map(|hint| fs::read(hint).unwrap()).collect();
    assert!(hints.len() > 3);
    remove_hints(dir.path());
    let db = open(dir.path());
    assert_eq!(db.recovery().rebuilt_hints, hints.len() as u64);
    assert_eq!(pairs(&db), expected);
    db.close().unwrap();
    let after: Vec<Vec<u8>> = hints.iter().map(|hint| fs::read(hint).unwrap()).collect();
    assert!(before == after);
    assert!(open(dir.path()).recovery().is_clean());
}

// An empty or torn `.hint` made bitcaskpy's open raise a JSONDecodeError.
#[test]
fn a_torn_empty_or_foreign_hint_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [0; 100]).unwrap();
    }
    let expected = pairs(&db);
    db.close().unwrap();
    let hints = files_of(dir.path(), "hint");
    let whole = fs::read(&hints[0]).unwrap();
    let other = fs::read(&hints[1]).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 30] ^= 4;
    let half = whole[..whole.len() / 2].to_vec();
    let foreign = b"{\"id\": 0}".to_vec();
    for damaged in [Vec::new(), half, flipped.clone(), other, foreign, vec![0; 5000]] {
        // The part after the summary is read only when it is needed.
        let rebuilt_at_open = u64::from(damaged != flipped);
        fs::write(&hints[0], damaged).unwrap();
        let db = open(dir.path());
        assert_eq!(db.recovery().rebuilt_hints, rebuilt_at_open);
        assert_eq!(pairs(&db), expected);
        drop(db);
        assert!(fs::read(&hints[0]).unwrap() == whole);
    }
}

// bitcaskpy's `.hint` held the paths at which the files had been created, so a moved directory
// opened as an empty store.
#[test]
fn a_moved_directory_keeps_everything() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("below/new"));
    let db = open(&old);
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), [0; 100]).unwrap();
    }
    let expected = pairs(&db);
    db.close().unwrap();
    fs::create_dir(parent.path().join("below")).unwrap();
    fs::rename(&old, &new).unwrap();
    let db = open(&new);
    assert!(db.recovery().is_clean());
    assert_eq!(pairs(&db), expected);
    db.put("more", "1").unwrap();
    let killed = crash_copy(&new);
    drop(db);
    assert_eq!(open(killed.path()).len().unwrap(), 101);
    assert!(!old.exists(), "nothing may be written to the old path");
}

// Both stores could be opened twice on one directory. In bitcaskpy the two instances overwrote each
// other's records; in pybitcask neither saw the other's.
#[test]
fn a_directory_has_one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    first.put("first", "1").unwrap();
    let indirect = dir.path().join("../").join(dir.path().file_name().unwrap());
    for path in [dir.path().to_path_buf(), indirect] {
        let error = Bitcask::open(path, small()).unwrap_err();
        let own = std::process::id();
        assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == own), "{error}");
        assert!(error.is_locked());
        assert!(error.to_string().contains(&own.to_string()), "{error}");
    }
    // The refused opening has left the lock unchanged.
    assert!(Bitcask::open(dir.path(), small()).unwrap_err().is_locked());
    first.put("second", "2").unwrap();
    first.close().unwrap();
    assert_eq!(open(dir.path()).len().unwrap(), 2);
}

// bitcaskpy's recovery used the record with the later wall-clock time. If the clock went backwards
// between two puts, the older value came back at the next start.
#[test]
fn the_later_entry_wins_despite_an_earlier_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("key", "old").unwrap();
    db.put("deleted", "old").unwrap();
    db.close().unwrap();
    // Forge a timestamp as if the clock had been a hundred years ahead.
    let century = 100 * 365 * 86_400 * 1_000_000;
    let timestamp = |log: &Path| Forged::read(&fs::read(log).unwrap(), FIRST_OFFSET).timestamp;
    patch(&logs(dir.path())[0], |bytes| {
        for offset in [FIRST_OFFSET, FIRST_OFFSET + 32] {
            let mut entry = Forged::read(bytes, offset);
            entry.timestamp += century;
            entry.write(bytes, 1, offset);
        }
    });
    remove_hints(dir.path());
    let db = open(dir.path());
    db.put("key", "new").unwrap();
    assert!(db.delete("deleted").unwrap());
    assert_value(&db, "key", "new");
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        remove_hints(path);
        let db = open(path);
        assert_value(&db, "key", "new");
        assert_eq!(db.len().unwrap(), 1);
        let logs = logs(path);
        assert!(timestamp(&logs[1]) > timestamp(&logs[0]), "times increase along the log");
    }
}

// Neither store had checksums. A changed byte was returned as part of a value, or misled the scan.
// pybitcask's get swallowed every error and returned None.
#[test]
fn a_changed_byte_causes_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("key", "the value that was put").unwrap();
    db.put("other", "value").unwrap();
    db.close().unwrap();
    let log = logs(dir.path()).remove(0);
    patch(&log, |bytes| bytes[FIRST_OFFSET + 30] ^= 1);
    let db = open(dir.path());
    let is_damage = |error: &Error| {
        assert!(error.is_corruption(), "{error}");
        matches!(error, Error::Corrupt { path, offset: 64, .. } if *path == log)
    };
    assert!(is_damage(&db.get("key").unwrap_err()));
    assert!(is_damage(&db.get_with("key", |_| ()).unwrap_err()));
    let mut buffer = b"old".to_vec();
    assert!(is_damage(&db.get_into("key", &mut buffer).unwrap_err()));
    assert_eq!(buffer, b"");
    assert_eq!(db.iter_unordered().filter(Result::is_err).count(), 1);
    assert_value(&db, "other", "value");
    db.put("key", "put again").unwrap();
    assert_value(&db, "key", "put again");
}

// If several of bitcaskpy's segments were marked active, as after a kill, the file system's listing
// order decided which of them was used.
#[test]
fn segments_are_ordered_by_age_not_by_listing_order() {
    let fill = |db: &Bitcask| {
        for round in 0..6 {
            db.put("key", round.to_string()).unwrap();
        }
    };
    let ordered = unsealed_copy(small().segment_entries(1), fill);
    // The next segment may have been prepared, and is empty.
    let names = logs(ordered.path());
    let count = names.len();
    assert!((7..=8).contains(&count), "{names:?}");
    for shift in 0..count {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(ordered.path().join("MANIFEST"), dir.path().join("MANIFEST")).unwrap();
        for at in 0..count {
            let from = &names[(at * 3 + shift) % count];
            fs::copy(from, dir.path().join(from.file_name().unwrap())).unwrap();
        }
        let db = open(dir.path());
        assert!((7..=count as u64).contains(&db.recovery().recovered_segments));
        assert_value(&db, "key", "5");
        assert_value(&db, "first", "entry");
    }
}

// pybitcask sorted its files by name: `data_10` before `data_9`. With a value in data_9 and its
// tombstone in data_11, the deleted key was back after a reopen, and data_9 was appended to again.
#[test]
fn a_key_deleted_in_the_eleventh_segment_does_not_return() {
    let dir = tempfile::tempdir().unwrap();
    let db = open_one_each(dir.path());
    for number in 1..=8 {
        db.put(format!("filler {number}"), "x").unwrap();
    }
    db.put("victim", "in the ninth").unwrap();
    db.put("rewritten", "in the tenth").unwrap();
    assert!(db.delete("victim").unwrap());
    db.put("rewritten", "in the twelfth").unwrap();
    assert_eq!(db.stats().segments, 12);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        for round in 0..3 {
            if round == 1 {
                remove_hints(path);
            }
            let db = open_one_each(path);
            assert_eq!(db.get("victim").unwrap(), None);
            assert_value(&db, "rewritten", "in the twelfth");
            let before = logs(path);
            db.put(format!("round {round}"), "x").unwrap();
            let after = logs(path);
            assert_eq!(after[..before.len()], before, "the new segment is the last one");
            // The next segment may have been prepared by now.
            assert!((1..=2).contains(&(after.len() - before.len())));
        }
        assert_eq!(open(path).len().unwrap(), 12);
    }
}

// The same with hundreds of segments, with each key put and deleted in many of them.
#[test]
fn deletes_and_rewrites_across_many_segments_stay_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let db = open_one_each(dir.path());
    for number in 0..150_u32 {
        let key = (number % 11).to_be_bytes();
        if number % 3 == 0 {
            db.delete(key).unwrap();
        } else {
            db.put(key, number.to_be_bytes()).unwrap();
        }
    }
    assert!(db.stats().segments > 100);
    let expected = pairs(&db);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        assert_eq!(pairs(&open(path)), expected);
        remove_hints(path);
        assert_eq!(pairs(&open(path)), expected);
    }
}

// pybitcask ordered records by a time in milliseconds, with `<`. Of two puts of a key within one
// millisecond, the older one was present after a reopen. `batch_write` gave one time to all its
// records.
#[test]
fn the_later_of_two_puts_with_the_same_timestamp_wins() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..500_u32 {
        db.put("key", number.to_string()).unwrap();
        db.put((number % 5).to_be_bytes(), number.to_string()).unwrap();
    }
    for number in 0..10_u32 {
        let mut batch: Batch = [("batch", "early"), ("in between", "x")].into_iter().collect();
        db.write(batch.put("batch", number.to_string())).unwrap();
    }
    let expected = pairs(&db);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        remove_hints(path);
        let db = open(path);
        assert_value(&db, "key", "499");
        assert_value(&db, "batch", "9");
        assert_eq!(pairs(&db), expected);
    }
}

// After a kill in the middle of a write, pybitcask appended after the torn record. Everything
// written from then on was lost at the next start.
#[test]
fn writes_after_a_torn_tail_are_recovered() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut expected = BTreeSet::new();
    for generation in 0..6_u8 {
        let db = open(dir.path());
        for number in 0..3 {
            let key = format!("{generation} {number}").into_bytes();
            db.put(&key, "value").unwrap();
            expected.insert(key);
        }
        dir = crash_copy(dir.path());
        drop(db);
        let log = logs(dir.path()).pop().unwrap();
        patch(&log, |bytes| {
            // The beginning of an incomplete entry, or arbitrary bytes.
            let end = FIRST_OFFSET + 3 * 32;
            let torn = match generation % 3 {
                0 => bytes[FIRST_OFFSET..][..25].to_vec(),
                1 => vec![0xff; 300],
                _ => vec![generation; 19],
            };
            assert_eq!(bytes[end..][..torn.len()], vec![0; torn.len()]);
            bytes[end..][..torn.len()].copy_from_slice(&torn);
        });
        let db = open(dir.path());
        assert_eq!(db.recovery().cuts.len(), 1);
        let cut = &db.recovery().cuts[0];
        assert_eq!((&cut.path, cut.offset), (&log, 160));
        let quarantine = cut.quarantine.as_ref().unwrap();
        assert_eq!(fs::metadata(quarantine).unwrap().len(), cut.size);
        let found: BTreeSet<Vec<u8>> = pairs(&db).into_keys().collect();
        assert_eq!(found, expected);
    }
    assert_eq!(open(dir.path()).len().unwrap(), 18);
}

// pybitcask's batch was a loop of puts, so a kill could leave a part of it.
#[test]
fn a_batch_cut_anywhere_is_absent_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("before", "value").unwrap();
    db.write(Batch::new().put("a", "one").put("b", "two").delete("before").put("c", "three"))
        .unwrap();
    let whole = crash_copy(dir.path());
    let bytes = fs::read(&logs(whole.path())[0]).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let start = FIRST_OFFSET + 32;
    for cut in (start..end).step_by(7) {
        let copy = crash_copy(dir.path());
        patch(&logs(copy.path())[0], |bytes| bytes[cut..].fill(0));
        let db = open(copy.path());
        let keys: Vec<Vec<u8>> = pairs(&db).into_keys().collect();
        assert_eq!(keys, [b"before"], "cut at {cut}");
        db.put("after", "value").unwrap();
        drop(db);
        assert_eq!(open(copy.path()).len().unwrap(), 2);
    }
    assert_eq!(open(whole.path()).len().unwrap(), 3);
}

// A JSON `null` put into pybitcask was dropped by its next compaction, yet still listed among the
// keys. Other stores of the family treat an empty value, or one that begins with their tombstone
// marker, as a delete.
#[test]
fn values_that_resemble_tombstones_are_values() {
    let values: [&[u8]; 7] =
        [b"", b"null", b"\0", b"\0\0\0\0\0\0\0\0", b"None", b"bitcask_tombstone", b"\x01"];
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for (number, value) in values.iter().enumerate() {
        db.put(number.to_string(), value).unwrap();
    }
    db.put("", "").unwrap();
    let check = |db: &Bitcask| {
        for (number, value) in values.iter().enumerate() {
            assert_eq!(db.get(number.to_string()).unwrap().as_deref(), Some(*value));
            assert!(db.contains_key(number.to_string()).unwrap());
        }
        assert_eq!(db.get("").unwrap().as_deref(), Some(b"".as_slice()));
        assert_eq!((db.len().unwrap(), db.keys_unordered().count(), pairs(db).len()), (8, 8, 8));
    };
    check(&db);
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        check(&open(path));
        remove_hints(path);
        check(&open(path));
    }
}

// Neither store's put ever synced, whatever its comment said ("written to disk", for a flush of the
// process's own buffer). pybitcask's delete synced on every call, requested or not.
#[test]
fn writes_are_synced_only_on_request() {
    for (policy, synced) in [(SyncPolicy::Never, 0), (SyncPolicy::Always, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), crate::support::options().sync_policy(policy)).unwrap();
        db.put("key", "value").unwrap();
        assert_eq!(db.stats().syncs, synced);
        assert!(db.delete("key").unwrap());
        assert_eq!(db.stats().syncs, 2 * synced);
        db.write(Batch::new().put("a", "").put("b", "")).unwrap();
        assert_eq!(db.stats().syncs, 3 * synced);
    }
}

// bitcaskpy appended a tombstone for every delete, even of a key that had never existed, and did
// not report that.
#[test]
fn a_delete_of_an_absent_key_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    db.put("key", "value").unwrap();
    let size = db.stats().log_size;
    for number in 0..100_u32 {
        assert!(!db.delete(number.to_be_bytes()).unwrap());
    }
    assert_eq!(db.stats().log_size, size);
    assert!(db.delete("key").unwrap());
    assert!(!db.delete("key").unwrap());
}

// pybitcask's deletes never rotated, and without a rotation strategy nothing did: one file grew
// without bound.
#[test]
fn deletes_fill_segments_like_puts() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let batch = (0..400_u32).map(|key| (key.to_be_bytes(), "")).collect::<Batch>();
    db.write(&batch).unwrap();
    let segments = db.stats().segments;
    for number in 0..400_u32 {
        assert!(db.delete(number.to_be_bytes()).unwrap());
    }
    assert!(db.stats().segments >= segments + 2, "9,600 bytes of tombstones");
    db.close().unwrap();
    assert!(open(dir.path()).is_empty().unwrap());
}
