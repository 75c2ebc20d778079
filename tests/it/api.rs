//! Every public method and its edge cases.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bitcask::{
    AppendMode, Batch, Bitcask, Compression, Error, Expiry, MergePolicy, Options, RecoveryReport,
    Stats, SyncPolicy, UnorderedIter, UnorderedKeys, Value, WriteOptions,
};
use tempfile::TempDir;

use crate::support::{crash_copy, files_of, logs, open, pairs, small};

fn store() -> (TempDir, Bitcask) {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    (dir, db)
}

/// Puts a key that has expired by the time the call returns.
fn put_expired(db: &Bitcask, key: &str) {
    db.put_opt(key, "expired", WriteOptions::new().ttl(Duration::ZERO)).unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_key_is_present_until_it_is_deleted() {
    let (dir, db) = store();
    assert_eq!(db.get("key").unwrap(), None);
    db.put("key", "value").unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    db.put("key", "other").unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "other");
    assert!(db.delete("key").unwrap());
    assert_eq!(db.get("key").unwrap(), None);
    assert!(!db.delete("key").unwrap());
    db.put("key", "again").unwrap();
    db.close().unwrap();
    assert_eq!(open(dir.path()).get("key").unwrap().unwrap(), "again");
}

#[test]
fn keys_and_values_may_be_any_bytes_or_empty() {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"\xff\xfe\xc3", &all_bytes];
    let (dir, db) = store();
    for (at, key) in samples.iter().enumerate() {
        db.put(key, samples.iter().rev().nth(at).unwrap()).unwrap();
    }
    let check = |db: &Bitcask| {
        for (at, key) in samples.iter().enumerate() {
            let value = db.get(key).unwrap().unwrap();
            assert_eq!(value, **samples.iter().rev().nth(at).unwrap());
        }
        assert_eq!(db.len().unwrap(), 7);
        assert_eq!(pairs(db).len(), 7);
    };
    check(&db);
    db.close().unwrap();
    check(&open(dir.path()));
}

#[test]
fn every_type_of_bytes_is_accepted_as_key_and_value() {
    let (_dir, db) = store();
    db.put("str", String::from("string")).unwrap();
    db.put(b"array", [1, 2, 3]).unwrap();
    db.put(vec![1_u8], vec![2_u8].as_slice()).unwrap();
    let value = db.get("str").unwrap().unwrap();
    db.put(&value, &value).unwrap();
    assert_eq!(db.get("string").unwrap().unwrap(), "string");
}

#[test]
fn the_largest_key_is_accepted_and_one_byte_more_is_refused() {
    let (dir, db) = store();
    let key = vec![b'k'; 65_536];
    db.put(&key[1..], "largest").unwrap();
    for error in [
        db.put(&key, "").unwrap_err(),
        db.delete(&key).unwrap_err(),
        db.put_if_absent(&key, "").unwrap_err(),
        db.compare_and_swap(&key, None, Some(b"")).unwrap_err(),
        db.update(&key, |_| Some("")).unwrap_err(),
        db.write(Batch::new().put("other", "").put(&key, "")).unwrap_err(),
    ] {
        assert!(matches!(error, Error::KeyTooLarge { size: 65_536, limit: 65_535 }), "{error}");
    }
    // A key of this size cannot be present, and asking for it is not an error.
    assert_eq!(db.get(&key).unwrap(), None);
    assert!(!db.contains_key(&key).unwrap());
    db.close().unwrap();
    let db = open(dir.path());
    assert_eq!(db.len().unwrap(), 1);
    assert_eq!(db.get(&key[1..]).unwrap().unwrap(), "largest");
}

#[test]
fn smaller_size_limits_apply_to_puts_only() {
    let (dir, db) = store();
    db.put("a long key", "a long value").unwrap();
    db.close().unwrap();
    let options = small().key_size_limit(4).value_size_limit(5);
    let db = Bitcask::open(dir.path(), options).unwrap();
    assert_eq!(db.get("a long key").unwrap().unwrap(), "a long value");
    db.put("four", "five!").unwrap();
    let error = db.put("fives", "").unwrap_err();
    assert!(matches!(error, Error::KeyTooLarge { size: 5, limit: 4 }), "{error}");
    let error = db.put("four", "sixsix").unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { size: 6, limit: 5 }), "{error}");
    let error = db.update("four", |_| Some("sixsix")).unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { .. }), "{error}");
    assert_eq!(db.get("four").unwrap().unwrap(), "five!");
    assert!(db.delete("a long key").unwrap());
}

#[test]
fn keydir_size_per_key_stays_bounded_after_overwrites_and_a_reopen() {
    // Regression: opening reserved memory for every entry in the log, including dead ones, and kept
    // it.
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().sync_policy(SyncPolicy::Never);
    let db = Bitcask::open(dir.path(), options()).unwrap();
    for _ in 0..10 {
        for key in 0..60_000_u32 {
            db.put(key.to_be_bytes(), "v").unwrap();
        }
    }
    let per_key = |db: &Bitcask| db.stats().keydir_size / db.len().unwrap();
    // 27 bytes, plus the shards' fixed cost, which is 4 bytes per key with this few keys.
    assert!(per_key(&db) <= 31, "{}", per_key(&db));
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), options()).unwrap();
    assert!(per_key(&db) <= 31, "{}", per_key(&db));
}

#[test]
fn size_limits_of_zero_still_allow_empty_keys_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small().key_size_limit(0).value_size_limit(0)).unwrap();
    db.put("", "").unwrap();
    assert_eq!(db.get("").unwrap().unwrap(), "");
    assert!(db.put("a", "").is_err() && db.put("", "a").is_err());
}

#[test]
fn values_of_boundary_sizes_are_read_back() {
    // Around the sizes of headers, pages, single write calls and segments.
    let around = |size: usize| (size - 70)..(size + 3);
    let sizes = (0..40).chain(around(4096)).chain(around(256 << 10)).chain(around(512 << 10));
    let sizes: Vec<usize> = sizes.step_by(3).collect();
    let value = |size: usize| -> Vec<u8> {
        (0..size).map(|at| (at * 31 + size).to_be_bytes()[7]).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small().segment_size(1 << 20)).unwrap();
    for size in &sizes {
        db.put(size.to_string(), value(*size)).unwrap();
    }
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        let db = open(path);
        for size in &sizes {
            assert!(db.get(size.to_string()).unwrap().unwrap() == value(*size), "{size}");
        }
    }
}

#[test]
fn a_value_of_forty_mebibytes_gets_a_dedicated_segment() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().segment_size(1 << 20);
    let db = Bitcask::open(dir.path(), options.clone()).unwrap();
    let mut value = vec![7_u8; 40 << 20];
    value[20 << 20..21 << 20].fill(8);
    db.put("before", "small").unwrap();
    db.put("large", &value).unwrap();
    db.put("after", "small").unwrap();
    assert!(db.get("large").unwrap().unwrap() == value);
    db.close().unwrap();
    let sizes: Vec<u64> =
        logs(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes[0] < 1000 && sizes[1] > 40 << 20 && sizes[2] < 1000, "{sizes:?}");
    let db = Bitcask::open(dir.path(), options).unwrap();
    assert!(db.get("large").unwrap().unwrap() == value);
    assert_eq!(db.get("before").unwrap().unwrap(), "small");
    assert_eq!(db.get("after").unwrap().unwrap(), "small");
    assert!(db.delete("large").unwrap());
}

#[test]
fn a_segment_ends_at_its_size_limit() {
    let (dir, db) = store();
    for number in 0..300_u32 {
        db.put(number.to_be_bytes(), [0; 100]).unwrap();
    }
    let segments = db.stats().segments;
    db.close().unwrap();
    let sizes: Vec<u64> =
        logs(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(sizes.len() as u64, segments);
    assert!(sizes.iter().all(|size| *size <= 4096), "{sizes:?}");
    let full = &sizes[..sizes.len() - 1];
    assert!(full.iter().all(|size| *size > 4096 - 200), "a segment ended too early: {sizes:?}");
}

#[test]
fn a_segment_ends_at_its_entry_limit() {
    let dir = tempfile::tempdir().unwrap();
    let options = crate::support::options().sync_policy(SyncPolicy::Never).segment_entries(10);
    let db = Bitcask::open(dir.path(), options.clone()).unwrap();
    for number in 0..20_u32 {
        db.put(number.to_be_bytes(), "").unwrap();
    }
    assert_eq!(db.stats().segments, 2);
    // Deletes are entries, too. Deletes of absent keys are not written.
    for number in 0..100_u32 {
        assert_eq!(db.delete(number.to_be_bytes()).unwrap(), number < 20);
    }
    assert_eq!(db.stats().segments, 4);
    // A batch is never split.
    let batch = (0..25_u32).map(|key| (key.to_be_bytes(), "b")).collect::<Batch>();
    db.write(&batch).unwrap();
    assert_eq!(db.stats().segments, 5);
    db.put("next", "").unwrap();
    assert_eq!(db.stats().segments, 6);
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), options).unwrap();
    assert_eq!(db.len().unwrap(), 26);
    assert_eq!(db.stats().sealed_segments, 6);
}

#[test]
fn one_entry_per_segment_works() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().segment_entries(1);
    let db = Bitcask::open(dir.path(), options.clone()).unwrap();
    for number in 0..30_u32 {
        db.put((number % 7).to_be_bytes(), number.to_string()).unwrap();
    }
    db.close().unwrap();
    let db = Bitcask::open(dir.path(), options).unwrap();
    assert_eq!((db.len().unwrap(), db.stats().segments), (7, 30));
    for key in 0..7_u32 {
        let newest = (0..30).rev().find(|number| number % 7 == key).unwrap();
        assert_eq!(db.get(key.to_be_bytes()).unwrap().unwrap(), newest.to_string());
    }
}

#[test]
fn the_segment_size_may_change_between_openings() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    for (round, size) in [512_u64, 1 << 20, 513, 512 << 20, 4096].into_iter().enumerate() {
        let db = Bitcask::open(dir.path(), small().segment_size(size)).unwrap();
        assert_eq!(pairs(&db), expected);
        for key in 0..20 {
            let pair = (format!("{}", key * (round + 1)), format!("{round} {key}"));
            db.put(&pair.0, &pair.1).unwrap();
            expected.insert(pair.0.into_bytes(), pair.1.into_bytes());
        }
        db.close().unwrap();
    }
    assert_eq!(pairs(&open(dir.path())), expected);
}

#[test]
fn every_method_treats_an_expired_key_as_absent() {
    let (dir, db) = store();
    for key in ["get", "delete", "insert", "cas", "cas none", "update", "batch", "put"] {
        put_expired(&db, key);
    }
    let mut buffer = b"old".to_vec();
    assert_eq!(db.get("get").unwrap(), None);
    assert_eq!(db.get_with("get", <[u8]>::len).unwrap(), None);
    assert!(!db.get_into("get", &mut buffer).unwrap());
    assert_eq!(buffer, b"");
    assert!(!db.contains_key("get").unwrap());
    assert_eq!(db.ttl("get").unwrap(), None);
    assert_eq!(db.value_len("get").unwrap(), None);
    assert!(!db.expire("get", Duration::from_secs(60)).unwrap());
    assert!(!db.persist("get").unwrap());
    assert_eq!(db.iter_unordered().count(), 0);
    assert_eq!(db.keys_unordered().count(), 0);
    assert_eq!(db.len().unwrap(), 8, "expired keys count until they are removed");
    assert!(!db.delete("delete").unwrap());
    assert!(db.put_if_absent("insert", "1").unwrap());
    let found = db.compare_and_swap("cas", Some(b"expired"), Some(b"1")).unwrap().unwrap_err();
    assert_eq!((found.current, found.version), (None, None));
    assert!(db.compare_and_swap("cas", None, Some(b"1")).unwrap().is_ok());
    assert!(db.compare_and_swap("cas none", None, None).unwrap().is_ok());
    let seen = db.update("update", |old| Some(format!("{old:?}"))).unwrap().unwrap();
    assert_eq!(seen, "None");
    db.write(Batch::new().delete("batch")).unwrap();
    db.put("put", "1").unwrap();
    let live = ["insert", "cas", "update", "put"].map(|key| key.as_bytes().to_vec());
    let check = |db: &Bitcask| {
        assert_eq!(pairs(db).into_keys().collect::<BTreeSet<_>>(), BTreeSet::from(live.clone()));
        assert_eq!(db.len().unwrap(), 5, "the untouched expired key still counts");
    };
    check(&db);
    let copy = crash_copy(dir.path());
    check(&open(copy.path()));
    db.close().unwrap();
    check(&open(dir.path()));
}

#[test]
fn a_key_lives_until_it_expires_and_a_put_without_ttl_never_expires() {
    let (dir, db) = store();
    for (key, ttl) in [("hour", HOUR), ("ever", Duration::MAX), ("replaced", Duration::ZERO)] {
        db.put_opt(key, "value", WriteOptions::new().ttl(ttl)).unwrap();
    }
    db.put("replaced", "value").unwrap();
    db.put("ended", "value").unwrap();
    put_expired(&db, "ended");
    db.close().unwrap();
    let db = open(dir.path());
    for key in ["hour", "ever", "replaced"] {
        assert_eq!(db.get(key).unwrap().unwrap(), "value", "{key}");
        assert!(db.contains_key(key).unwrap());
    }
    assert_eq!(db.get("ended").unwrap(), None, "the earlier value must not return");
    assert_eq!(pairs(&db).len(), 3);
    assert!(db.delete("hour").unwrap());
}

#[test]
fn get_into_reuses_its_buffer() {
    let (_dir, db) = store();
    db.put("long", [1; 1000]).unwrap();
    db.put("short", [2; 10]).unwrap();
    let mut buffer = Vec::new();
    assert!(db.get_into("long", &mut buffer).unwrap());
    assert_eq!(buffer, [1; 1000]);
    let (address, capacity) = (buffer.as_ptr(), buffer.capacity());
    assert!(db.get_into("short", &mut buffer).unwrap());
    assert_eq!(buffer, [2; 10]);
    assert!(!db.get_into("absent", &mut buffer).unwrap());
    assert_eq!(buffer, [0; 0]);
    assert_eq!((buffer.as_ptr(), buffer.capacity()), (address, capacity));
}

#[test]
fn get_with_lends_the_value_and_the_closure_may_use_the_store() {
    let (_dir, db) = store();
    db.put("key", "value").unwrap();
    let seen = db.get_with("key", |value| {
        db.put("key", "other").unwrap();
        db.delete("absent").unwrap();
        (value.to_vec(), db.get("key").unwrap().unwrap())
    });
    let (lent, now) = seen.unwrap().unwrap();
    assert_eq!(lent, b"value", "a lent value does not change");
    assert_eq!(now, "other");
    assert_eq!(db.get_with("absent", |_| unreachable!("the key is absent")).unwrap(), None::<()>);
}

#[test]
fn delete_returns_whether_the_key_was_present_and_writes_nothing_otherwise() {
    let (_dir, db) = store();
    assert!(!db.delete("key").unwrap());
    assert_eq!(db.stats().appends, 0);
    db.put("key", "").unwrap();
    assert!(db.delete("key").unwrap());
    assert_eq!(db.stats().appends, 2);
    assert!(!db.delete_opt("key", WriteOptions::new().durable(true)).unwrap());
    assert_eq!(db.stats().appends, 2);
    assert!(db.is_empty().unwrap());
}

#[test]
fn put_if_absent_does_not_overwrite_a_present_key() {
    let (_dir, db) = store();
    assert!(db.put_if_absent("key", "").unwrap());
    let appends = db.stats().appends;
    assert!(!db.put_if_absent("key", "other").unwrap());
    assert_eq!(db.get("key").unwrap().unwrap(), "");
    assert_eq!(db.stats().appends, appends);
    assert!(db.delete("key").unwrap());
    assert!(db.put_if_absent("key", "other").unwrap());
}

#[test]
fn compare_and_swap_changes_a_key_only_if_its_value_is_as_expected() {
    let (_dir, db) = store();
    let swap = |expected: Option<&str>, new: Option<&str>| {
        let bytes = |text: Option<&'static str>| text.map(str::as_bytes);
        let leak = |text: Option<&str>| bytes(text.map(|text| &*text.to_owned().leak()));
        db.compare_and_swap("key", leak(expected), leak(new)).unwrap().is_ok()
    };
    assert!(!swap(Some(""), Some("a")), "an absent key does not equal an empty value");
    assert!(swap(None, None));
    assert_eq!(db.stats().appends, 0);
    assert!(swap(None, Some("")));
    assert!(!swap(None, Some("a")));
    assert!(swap(Some(""), Some("a")));
    assert!(!swap(Some(""), Some("b")) && !swap(Some("aa"), Some("b")));
    assert_eq!(db.get("key").unwrap().unwrap(), "a");
    assert!(!swap(Some("b"), None));
    assert!(swap(Some("a"), None));
    assert_eq!(db.get("key").unwrap(), None);
}

#[test]
fn update_returns_the_stored_value() {
    let (_dir, db) = store();
    let append = |old: Option<&[u8]>| Some([old.unwrap_or(b"start"), b"+"].concat());
    assert_eq!(db.update("key", append).unwrap().unwrap(), "start+");
    assert_eq!(db.update("key", append).unwrap().unwrap(), "start++");
    assert_eq!(db.get("key").unwrap().unwrap(), "start++");
    let appends = db.stats().appends;
    assert_eq!(db.update("absent", |_| None::<&str>).unwrap(), None);
    assert_eq!(db.stats().appends, appends);
    assert_eq!(db.update("key", |_| None::<&str>).unwrap(), None);
    assert!(!db.contains_key("key").unwrap());
    assert_eq!(db.update("key", |old| Some(format!("{old:?}"))).unwrap().unwrap(), "None");
}

#[test]
fn update_retries_if_the_key_changes_meanwhile() {
    type Interfere = fn(&Bitcask);
    let changes: [(Interfere, &str); 5] = [
        (|db| db.put("key", "other").unwrap(), "other!"),
        // Rewriting the same bytes is a change, too.
        (|db| db.put("key", "value").unwrap(), "value!"),
        (|db| assert!(db.delete("key").unwrap()), "absent!"),
        (|db| db.clear().unwrap(), "absent!"),
        (|db| db.write(Batch::new().put("a", "").put("key", "batch")).unwrap(), "batch!"),
    ];
    for (interfere, expected) in changes {
        let (_dir, db) = store();
        db.put("key", "value").unwrap();
        let mut runs = 0;
        let stored = db.update("key", |old| {
            runs += 1;
            if runs == 1 {
                interfere(&db);
            }
            Some([old.unwrap_or(b"absent"), b"!"].concat())
        });
        assert_eq!((stored.unwrap().unwrap().to_vec(), runs), (expected.into(), 2));
        assert_eq!(db.get("key").unwrap().unwrap(), expected);
    }
}

#[test]
fn update_of_an_absent_key_retries_if_the_key_is_created_meanwhile() {
    let (_dir, db) = store();
    let mut seen = Vec::new();
    db.update("key", |old| {
        seen.push(old.map(<[u8]>::to_vec));
        db.put_if_absent("key", "first").unwrap();
        db.put("unrelated", "").unwrap();
        Some("second")
    })
    .unwrap();
    assert_eq!(seen, [None, Some(b"first".to_vec())]);
}

#[test]
fn the_last_change_of_a_key_in_a_batch_wins() {
    let (dir, db) = store();
    db.put("c", "before").unwrap();
    let mut batch = Batch::new();
    batch
        .put("a", "1")
        .put("b", "1")
        .delete("a")
        .put("a", "2")
        .put("b", "2")
        .delete("b")
        .delete("c")
        .delete("absent");
    assert_eq!((batch.len(), batch.is_empty()), (8, false));
    db.write(&batch).unwrap();
    assert_eq!(db.stats().appends, 3, "one for c before, one for a, one for c");
    let expected = BTreeMap::from([(b"a".to_vec(), b"2".to_vec())]);
    assert_eq!(pairs(&db), expected);
    let copy = crash_copy(dir.path());
    assert_eq!(pairs(&open(copy.path())), expected);
    db.close().unwrap();
    assert_eq!(pairs(&open(dir.path())), expected);
}

#[test]
fn a_batch_without_effect_writes_nothing() {
    let (dir, db) = store();
    assert!(Batch::new().is_empty());
    db.write(&Batch::new()).unwrap();
    db.write_opt(&Batch::new(), WriteOptions::new().durable(true)).unwrap();
    db.write(Batch::new().delete("absent").put("x", "").delete("x")).unwrap();
    assert_eq!((db.stats().appends, db.stats().segments), (0, 0));
    db.close().unwrap();
    assert_eq!(logs(dir.path()).len(), 0);
}

#[test]
fn the_ttl_of_a_batch_applies_to_its_puts_without_a_ttl() {
    let (dir, db) = store();
    db.put("deleted", "").unwrap();
    let mut batch = Batch::new();
    batch
        .put("without a ttl", "1")
        .put_opt("with a ttl", "2", WriteOptions::new().ttl(HOUR))
        .delete("deleted");
    db.write_opt(&batch, WriteOptions::new().ttl(Duration::ZERO)).unwrap();
    db.write(
        Batch::new()
            .put_opt("expired", "3", WriteOptions::new().ttl(Duration::ZERO))
            .put("lives", "4"),
    )
    .unwrap();
    let expected = BTreeMap::from([
        (b"with a ttl".to_vec(), b"2".to_vec()),
        (b"lives".to_vec(), b"4".to_vec()),
    ]);
    assert_eq!(pairs(&db), expected);
    db.close().unwrap();
    assert_eq!(pairs(&open(dir.path())), expected);
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_dedicated_segment() {
    let (dir, db) = store();
    db.put("before", "").unwrap();
    let batch =
        (0..500_u32).map(|key| (key.to_be_bytes(), [key.to_be_bytes()[3]; 100])).collect::<Batch>();
    db.write(&batch).unwrap();
    db.put("after", "").unwrap();
    assert_eq!(db.stats().segments, 3);
    db.close().unwrap();
    let db = open(dir.path());
    assert_eq!(db.len().unwrap(), 502);
    for key in 0..500_u32 {
        assert_eq!(db.get(key.to_be_bytes()).unwrap().unwrap(), [key.to_be_bytes()[3]; 100]);
    }
}

#[test]
fn clear_removes_everything_and_the_store_stays_usable() {
    let (dir, db) = store();
    for number in 0..200_u32 {
        db.put(number.to_be_bytes(), [1; 100]).unwrap();
    }
    let held = db.get(7_u32.to_be_bytes()).unwrap().unwrap();
    let mut iter = db.iter_unordered();
    let first = iter.next().unwrap().unwrap();
    db.clear().unwrap();
    assert_eq!(held, [1; 100]);
    assert_eq!(first.1, [1; 100], "held values stay readable");
    assert!(iter.all(|pair| pair.unwrap().1 == [1; 100]));
    assert!(db.is_empty().unwrap() && pairs(&db).is_empty());
    assert_eq!(db.get(7_u32.to_be_bytes()).unwrap(), None);
    let stats = db.stats();
    assert_eq!((stats.keys, stats.segments, stats.live_size, stats.dead_size), (0, 1, 0, 0));
    assert_eq!(logs(dir.path()).len(), 1, "clear must free the disk space");
    assert_eq!(files_of(dir.path(), "hint").len(), 0);
    let empty = crash_copy(dir.path());
    assert!(open(empty.path()).is_empty().unwrap());
    db.put("after", "clear").unwrap();
    db.clear().unwrap();
    db.clear().unwrap();
    db.put("after", "again").unwrap();
    let copy = crash_copy(dir.path());
    db.close().unwrap();
    for path in [dir.path(), copy.path()] {
        let db = open(path);
        assert_eq!(pairs(&db), BTreeMap::from([(b"after".to_vec(), b"again".to_vec())]));
    }
    assert_eq!(held, [1; 100]);
}

#[test]
fn a_store_closed_right_after_clear_opens_empty_and_clean() {
    let (dir, db) = store();
    db.put("key", "value").unwrap();
    db.clear().unwrap();
    db.close().unwrap();
    let db = open(dir.path());
    assert!(db.is_empty().unwrap());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(logs(dir.path()).len(), 0);
    db.clear().unwrap();
    db.put("key", "value").unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
}

#[test]
fn iteration_yields_a_key_that_stays_present_exactly_once() {
    let (_dir, db) = store();
    let key = |kind: &str, number: u32| format!("{kind} {number}");
    for number in 0..500 {
        db.put(key("kept", number), key("kept", number)).unwrap();
        db.put(key("replaced", number), "0").unwrap();
        db.put(key("deleted", number), "0").unwrap();
    }
    let mut met: HashMap<Vec<u8>, u32> = HashMap::new();
    for (step, pair) in db.iter_unordered().enumerate() {
        let (found, value) = pair.unwrap();
        if found.starts_with(b"kept") {
            assert_eq!(found, value);
        }
        *met.entry(found.to_vec()).or_default() += 1;
        let number = u32::try_from(step % 500).unwrap();
        db.put(key("replaced", number), step.to_string()).unwrap();
        db.put(key("new", number), "0").unwrap();
        db.delete(key("deleted", number)).unwrap();
        db.delete(key("new", (number * 7) % 500)).unwrap();
    }
    for number in 0..500 {
        assert_eq!(met.get(key("kept", number).as_bytes()), Some(&1), "{number}");
        assert_eq!(met.get(key("replaced", number).as_bytes()), Some(&1), "{number}");
    }
    assert!(met.values().all(|count| *count == 1), "no key may appear twice");
}

#[test]
fn keys_yields_the_keys_of_iter() {
    let (_dir, db) = store();
    assert!(db.keys_unordered().next().is_none() && db.iter_unordered().next().is_none());
    for number in 0..100_u32 {
        db.put(number.to_be_bytes(), "").unwrap();
    }
    let keys: BTreeSet<Vec<u8>> = db.keys_unordered().map(|key| key.unwrap().to_vec()).collect();
    assert_eq!(keys, pairs(&db).into_keys().collect());
    assert_eq!(keys.len(), 100);
    assert_eq!(db.keys_unordered().count(), 100);
    assert_eq!((&db).into_iter().count(), 100);
    let sorted: Vec<Vec<u8>> = db.keys().map(|key| key.unwrap().to_vec()).collect();
    assert!(sorted.iter().eq(&keys), "plain names are in order");
    let (first, last) =
        (db.iter().next().unwrap().unwrap(), db.iter().next_back().unwrap().unwrap());
    assert_eq!(Some(&*first.0), sorted.first().map(Vec::as_slice));
    assert_eq!(Some(&*last.0), sorted.last().map(Vec::as_slice));
}

#[test]
fn len_counts_keys_after_every_kind_of_change() {
    let (dir, db) = store();
    assert!(db.is_empty().unwrap());
    for number in 0..50_u32 {
        db.put(number.to_be_bytes(), "").unwrap();
        db.put(number.to_be_bytes(), "again").unwrap();
        assert_eq!(db.len().unwrap(), u64::from(number) + 1);
    }
    for number in 0..25_u32 {
        db.delete(number.to_be_bytes()).unwrap();
        db.delete(number.to_be_bytes()).unwrap();
    }
    assert_eq!((db.len().unwrap(), db.is_empty().unwrap()), (25, false));
    db.close().unwrap();
    assert_eq!(open(dir.path()).len().unwrap(), 25);
}

#[test]
fn stats_add_up_to_the_file_sizes() {
    let (dir, db) = store();
    assert_eq!((db.stats().log_size, db.stats().segments, db.stats().appends), (0, 0, 0));
    assert!(db.stats().dead_ratio().abs() < f64::EPSILON);
    for number in 0..200_u32 {
        db.put((number % 50).to_be_bytes(), vec![0; number as usize]).unwrap();
    }
    for number in 0..10_u32 {
        assert!(db.delete(number.to_be_bytes()).unwrap());
    }
    let stats = db.stats();
    assert_eq!((stats.keys, stats.appends, stats.syncs), (40, 210, 0));
    let padded = |size: u64| size.next_multiple_of(8);
    let live: u64 = (160..200).map(|number| padded(20 + 4 + number)).sum();
    assert_eq!(stats.live_size, live);
    let appended: u64 = (0..200).map(|number| padded(20 + 4 + number)).sum::<u64>() + 10 * 24;
    assert_eq!(stats.appended_size, appended);
    // Each header takes 64 bytes; each seal between two segments ends the earlier one with an entry
    // of 24.
    assert_eq!(stats.log_size, 64 * stats.segments + appended + 24 * (stats.segments - 1));
    assert_eq!(stats.log_size, 64 * stats.segments + stats.live_size + stats.dead_size);
    assert!(stats.dead_ratio() > 0.5 && stats.dead_ratio() < 1.0);
    assert!(stats.keydir_size > 40 * 16);
    db.close().unwrap();
    let on_disk: u64 = logs(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(stats.log_size, on_disk);
    let db = open(dir.path());
    assert_eq!(db.len().unwrap(), stats.keys);
    let again = db.stats();
    assert_eq!(again.unfilled_shards, 0);
    assert_eq!(again.sealed_segments, again.segments);
    let mut expected = stats;
    (expected.appends, expected.appended_size) = (0, 0);
    expected.unfilled_shards = 0;
    (expected.sealed_segments, expected.keydir_size) = (again.segments, again.keydir_size);
    // Without an active segment, only two reserves remain: for manifests, and for operations that
    // free space.
    assert!(again.reserve_size >= 8192 && stats.reserve_size >= again.reserve_size);
    expected.reserve_size = again.reserve_size;
    // These also count the process's other stores.
    (expected.mappings, expected.descriptors) = (again.mappings, again.descriptors);
    assert_eq!(again, expected);
}

#[test]
fn a_sync_happens_only_on_request_and_with_unsynced_writes() {
    let (_dir, db) = store();
    let syncs = || db.stats().syncs;
    db.sync().unwrap();
    db.put("a", "").unwrap();
    assert_eq!(syncs(), 0);
    db.sync().unwrap();
    assert_eq!(syncs(), 1);
    db.sync().unwrap();
    assert_eq!(syncs(), 1, "nothing has been written since the last sync");
    db.put_opt("b", "", WriteOptions::new().durable(true)).unwrap();
    assert_eq!(syncs(), 2);
    assert!(db.delete_opt("b", WriteOptions::new().durable(true)).unwrap());
    assert_eq!(syncs(), 3);
    let batch = (0..9_u8).map(|key| ([key], "")).collect::<Batch>();
    db.write_opt(&batch, WriteOptions::new().durable(true)).unwrap();
    assert_eq!(syncs(), 4, "one sync for the whole batch");
}

#[test]
fn a_write_may_opt_out_of_the_policys_sync() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), small().sync_policy(SyncPolicy::Always)).unwrap();
    db.put("a", "").unwrap();
    assert_eq!(db.stats().syncs, 1);
    db.put_opt("b", "", WriteOptions::new().durable(false)).unwrap();
    assert_eq!(db.stats().syncs, 1);
    db.delete("b").unwrap();
    db.put_if_absent("c", "").unwrap();
    db.update("c", |_| Some("1")).unwrap();
    db.compare_and_swap("c", Some(b"1"), None).unwrap().unwrap();
    assert_eq!(db.stats().syncs, 5);
}

#[test]
fn after_a_close_there_is_nothing_to_recover() {
    let (dir, db) = store();
    assert!(db.recovery().is_clean());
    for round in 0..3 {
        for number in 0..100_u32 {
            db.put(number.to_be_bytes(), [round; 50]).unwrap();
        }
    }
    db.close().unwrap();
    let hints = files_of(dir.path(), "hint");
    assert_eq!(hints.len(), logs(dir.path()).len(), "every segment has a hint");
    let db = open(dir.path());
    assert_eq!(db.recovery(), &RecoveryReport::default());
    assert!(db.recovery().is_clean());
    assert_eq!(db.len().unwrap(), 100);
}

#[test]
fn the_recovery_report_after_a_kill_lists_what_was_recovered() {
    let (dir, db) = store();
    for number in 0..10_u32 {
        db.put(number.to_be_bytes(), "value").unwrap();
    }
    db.delete(0_u32.to_be_bytes()).unwrap();
    let copy = crash_copy(dir.path());
    let copied = open(copy.path());
    let report = copied.recovery();
    assert!(!report.is_clean());
    assert_eq!((report.recovered_segments, report.recovered_entries), (1, 11));
    assert!(report.cuts.is_empty() && report.leftovers.is_empty());
    assert_eq!(pairs(&copied), pairs(&db));
}

#[test]
fn dropping_a_store_closes_it() {
    let (dir, db) = store();
    for number in 0..200_u32 {
        db.put(number.to_be_bytes(), [0; 50]).unwrap();
    }
    drop(db);
    let db = open(dir.path());
    assert!(db.recovery().is_clean(), "{:?}", db.recovery());
    assert_eq!(db.len().unwrap(), 200);
}

#[test]
fn opening_and_closing_without_a_write_leaves_the_directory_as_it_was() {
    let (dir, db) = store();
    db.put("key", "value").unwrap();
    db.close().unwrap();
    let before = crate::support::contents(dir.path());
    for _ in 0..3 {
        open(dir.path()).close().unwrap();
    }
    assert!(before == crate::support::contents(dir.path()));
}

#[test]
fn a_value_outlives_its_key_and_its_store() {
    let (dir, db) = store();
    db.put("key", "value").unwrap();
    let value = db.get("key").unwrap().unwrap();
    let copy = value.clone();
    db.put("key", "other").unwrap();
    db.delete("key").unwrap();
    db.close().unwrap();
    drop(dir);
    assert_eq!(value, "value");
    assert_eq!(std::thread::spawn(move || copy.to_vec()).join().unwrap(), b"value");
}

#[test]
fn a_value_behaves_like_its_bytes() {
    let (_dir, db) = store();
    db.put("a", "first").unwrap();
    db.put("b", "second").unwrap();
    let (a, b) = (db.get("a").unwrap().unwrap(), db.get("b").unwrap().unwrap());
    assert!(a == "first" && a == b"first" && a == *b"first" && a == b"first".as_slice());
    assert!(a == b"first".to_vec() && "first" == a && b == String::from("sec") + "ond");
    assert!(a != b && a < b && a.clone() == a);
    assert_eq!((a.len(), a.first(), a.as_ref()), (5, Some(&b'f'), b"first".as_slice()));
    assert_eq!(format!("{a:?}"), "b\"first\"");
    let sorted: BTreeMap<Value, u8> = BTreeMap::from([(b.clone(), 2), (a.clone(), 1)]);
    assert_eq!(sorted.get(b"first".as_slice()), Some(&1));
    assert!(HashSet::from([a.clone()]).contains(b"first".as_slice()));
    assert_eq!(Vec::from(a), b"first");
    assert_eq!(db.get("b").unwrap().as_deref(), Some(b"second".as_slice()));
}

#[test]
fn every_type_can_be_sent_and_shared_between_threads() {
    fn is_shared<T: Send + Sync + std::fmt::Debug>() {}
    is_shared::<Bitcask>();
    is_shared::<Value>();
    is_shared::<Options>();
    is_shared::<WriteOptions>();
    is_shared::<SyncPolicy>();
    is_shared::<Batch>();
    is_shared::<Stats>();
    is_shared::<RecoveryReport>();
    is_shared::<Error>();
    is_shared::<UnorderedIter<'_>>();
    is_shared::<UnorderedKeys<'_>>();
}

#[test]
fn a_store_can_be_shared_in_an_arc() {
    let (_dir, db) = store();
    let db = Arc::new(db);
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let db = Arc::clone(&db);
            std::thread::spawn(move || db.put([thread], [thread; 10]).unwrap())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(db.len().unwrap(), 4);
    Arc::into_inner(db).unwrap().close().unwrap();
}

#[test]
fn every_option_chains_and_has_a_getter() {
    let options = crate::support::options()
        .create_if_missing(true)
        .sync_policy(SyncPolicy::Interval(Duration::from_millis(1)))
        .verify_reads(false)
        .segment_size(512)
        .segment_entries(3)
        .key_size_limit(100)
        .value_size_limit(1000)
        .default_ttl(Some(HOUR));
    assert!(options.get_create_if_missing());
    let policy = SyncPolicy::Interval(Duration::from_millis(1));
    assert_eq!((options.get_sync_policy(), options.get_verify_reads()), (policy, false));
    assert_eq!((options.get_segment_size(), options.get_segment_entries()), (512, 3));
    assert_eq!((options.get_key_size_limit(), options.get_value_size_limit()), (100, 1000));
    assert_eq!(options.get_default_ttl(), Some(HOUR));
    let default = Options::new();
    assert_eq!(default.get_append_mode(), AppendMode::default());
    assert_eq!(default.get_compression(), Compression::None);
    assert!(matches!(default.get_merge_policy(), MergePolicy::Auto(_)));
    assert_eq!((default.get_segment_entries(), default.get_default_ttl()), (u64::MAX, None));
    assert_eq!(format!("{default:?}"), format!("{:?}", Options::default()));
    let write = WriteOptions::new().ttl(HOUR).durable(true);
    assert_ne!(write, WriteOptions::default());
    let dir = tempfile::tempdir().unwrap();
    let db = options.clone().open(dir.path()).unwrap();
    for number in 0..20_u32 {
        db.put_opt(number.to_be_bytes(), [0; 60], write).unwrap();
    }
    db.close().unwrap();
    assert_eq!(options.open(dir.path()).unwrap().len().unwrap(), 20);
}

#[test]
fn open_creates_a_missing_store_unless_create_if_missing_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let create_not = small().create_if_missing(false);
    let error = Bitcask::open(&path, create_not.clone()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path: found } if *found == path), "{error}");
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    let error = Bitcask::open(&path, create_not.clone()).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    open(&path).close().unwrap();
    let db = Bitcask::open(&path, create_not).unwrap();
    assert_eq!(db.path(), path);
    assert!(db.path().is_absolute());
}

#[test]
fn a_stored_expiry_is_returned_exactly() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(dir.path());
    let late = SystemTime::UNIX_EPOCH + Duration::from_micros(4_102_444_800_123_457);
    db.put_opt("late", "1", WriteOptions::new().expires_at(late)).unwrap();
    db.put_opt("over", "2", WriteOptions::new().expires_at(SystemTime::UNIX_EPOCH)).unwrap();
    db.put("ever", "3").unwrap();
    let snapshot = db.snapshot();
    db.persist("late").unwrap();
    for (key, expected) in [
        ("late", Some(Expiry::At(late))),
        ("over", None),
        ("ever", Some(Expiry::Never)),
        ("none", None),
    ] {
        assert_eq!(snapshot.expiry(key).unwrap(), expected, "{key}");
    }
    assert_eq!(db.expiry("late").unwrap(), Some(Expiry::Never));
    // The time says the same in another store.
    let other = open(copy.path());
    let Some(Expiry::At(time)) = snapshot.expiry("late").unwrap() else { panic!("no time") };
    let again = WriteOptions::new().expires_at(time);
    other.put_opt("late", "1", again).unwrap();
    assert_eq!(other.expiry("late").unwrap(), Some(Expiry::At(late)));
}
