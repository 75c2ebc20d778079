//! Opening fills no shard. Each shard is filled when it is first touched, in any order, between
//! operations of every kind. The result must be the same as filling everything at open.

use crate::fs::Access;
use crate::manifest::Sealed;
use crate::segment::hint::{Hint, HintSource};
use crate::store::tests::story::*;
use crate::store::tests::*;
use crate::testing::twin::{Fault, FaultKind};

/// Returns the number of filled shards.
fn filled(db: &Reader) -> usize {
    (0..SHARD_COUNT).filter(|number| db.inner.keydir.shard(*number).is_filled()).count()
}

/// Several segments with hints and an unsealed one, ready to be opened.
fn written(lab: &Lab, keys: u32) -> Model {
    let db = lab.open();
    let mut expected = Model::new();
    for number in 0..keys {
        let (key, value) = (number.to_be_bytes().to_vec(), format!("first {number}").into_bytes());
        db.put(&key, &value).unwrap();
        expected.insert(key, Stored { value, expiry: None });
    }
    for number in (0..keys).step_by(3) {
        let (key, value) = (number.to_be_bytes().to_vec(), format!("second {number}").into_bytes());
        db.put(&key, &value).unwrap();
        expected.insert(key, Stored { value, expiry: None });
    }
    for number in (0..keys).step_by(5) {
        assert!(db.delete(number.to_be_bytes()).unwrap());
        expected.remove(number.to_be_bytes().as_slice());
    }
    db.inner.work();
    db.sync().unwrap();
    kill(db);
    expected
}

#[test]
fn opening_fills_nothing_and_a_touch_fills_one_shard() {
    let lab = Lab::new();
    let expected = written(&lab, 60);
    let db = lab.open();
    assert_eq!(filled(&db), 0);
    assert!(db.get(7_u32.to_be_bytes()).unwrap().is_some());
    assert_eq!(filled(&db), 1);
    db.put(7_u32.to_be_bytes(), "first 7").unwrap();
    assert_eq!(filled(&db), 1);
    assert!(db.iter_unordered().next().unwrap().is_ok());
    assert!(filled(&db) < 4);
    assert_eq!(db.len().unwrap(), expected.len() as u64);
    assert_eq!(filled(&db), SHARD_COUNT);
    check(&db, &expected);
}

#[test]
fn a_store_opened_read_only_is_filled() {
    let lab = Lab::new();
    let expected = written(&lab, 200);
    let db = lab.open_read_only();
    assert_eq!(filled(&db), SHARD_COUNT);
    check(&db, &expected);
}

/// The amount read at open does not grow with the number of entries.
#[test]
fn opening_reads_only_the_summary_of_a_hint() {
    let calls = |keys| {
        let lab =
            Lab::new().with(Options::new().segment_size(1 << 20).sync_policy(SyncPolicy::Never));
        written(&lab, keys);
        lab.open().close().unwrap();
        let before = lab.twin.call_count();
        let db = lab.open();
        let calls = lab.twin.call_count() - before;
        kill(db);
        calls
    };
    assert_eq!(calls(10), calls(3000));
}

/// Every operation that touches a shard, on stores with a few filled shards.
#[test]
fn shards_are_filled_one_by_one_between_operations() {
    for seed in 0..if long() { 400 } else { 40 } {
        let lab = if seed % 2 == 0 { Lab::new() } else { Lab::weak() };
        let mut expected = written(&lab, 40);
        let mut random = Random(seed);
        for round in 0..6 {
            let db = lab.open();
            for step in 0..random.below(30) {
                if random.below(3) == 0 {
                    let number = usize::try_from(random.below(SHARD_COUNT as u64)).unwrap();
                    drop(db.inner.shard(number).unwrap());
                }
                let key = u32::try_from(random.below(50)).unwrap().to_be_bytes().to_vec();
                let old = expected.get(&key).map(|stored| stored.value.clone());
                let value = format!("{seed} {round} {step}").into_bytes();
                let new = Stored { value: value.clone(), expiry: None };
                match random.below(6) {
                    0 => {
                        db.put(&key, value).unwrap();
                        expected.insert(key, new);
                    }
                    1 => {
                        assert_eq!(db.delete(&key).unwrap(), old.is_some());
                        expected.remove(&key);
                    }
                    2 => {
                        assert_eq!(db.put_if_absent(&key, value).unwrap(), old.is_none());
                        expected.entry(key).or_insert(new);
                    }
                    3 => {
                        let other = u32::try_from(random.below(50)).unwrap().to_be_bytes().to_vec();
                        db.write(Batch::new().delete(&other).put(&key, value)).unwrap();
                        expected.remove(&other);
                        expected.insert(key, new);
                    }
                    4 => assert_eq!(db.contains_key(&key).unwrap(), old.is_some()),
                    _ => assert_eq!(db.get(&key).unwrap().map(Vec::from), old),
                }
            }
            if random.below(3) == 0 {
                check(&db, &expected);
            }
            db.inner.work();
            if random.below(2) == 0 { kill(db) } else { db.close().unwrap() }
        }
        check(&lab.open(), &expected);
    }
}

#[test]
fn a_key_that_expires_before_its_shard_is_filled_is_absent_but_counts() {
    let lab = Lab::new();
    let db = lab.open();
    let ttl = |seconds| WriteOptions::new().ttl(Duration::from_secs(seconds));
    db.put_opt("short", "1", ttl(10)).unwrap();
    db.put_opt("long", "2", ttl(1000)).unwrap();
    db.put("kept", "3").unwrap();
    let db = lab.reopen(db);
    lab.hands.advance(Duration::from_secs(100));
    assert_eq!(db.get("short").unwrap(), None);
    assert_eq!(db.get("long").unwrap().unwrap(), "2");
    assert_eq!(db.len().unwrap(), 3);
    assert!(!db.delete("short").unwrap());
    assert_eq!(db.len().unwrap(), 2);
    check_figures(&db);
}

#[test]
fn a_store_is_cleared_before_its_shards_are_filled() {
    for touched in [0, 3, SHARD_COUNT] {
        let lab = Lab::new();
        written(&lab, 100);
        lab.delete_hints();
        let db = lab.open();
        assert!(db.recovery().rebuilt_hints > 3);
        for number in 0..touched {
            drop(db.inner.shard(number).unwrap());
        }
        db.clear().unwrap();
        check(&db, &Model::new());
        assert_eq!(filled(&db), SHARD_COUNT);
        assert!(db.inner.filler.is_done(), "removed segments would be kept open");
        db.put("a", "1").unwrap();
        db.inner.work();
        assert_eq!(lab.hints(), [], "a hint without a segment");
        let db = lab.reopen(db);
        assert!(db.recovery().is_clean());
        check(&db, &model([("a", "1")]));
    }
}

/// The hints of recovered segments, and missing hints, are written in the background, or at the
/// latest by a close.
#[test]
fn hints_are_written_after_the_open() {
    for close in [true, false] {
        let lab = Lab::new();
        let expected = written(&lab, 60);
        lab.delete_hints();
        let db = lab.open();
        assert_eq!(lab.hints(), []);
        let listed = db.inner.manifest.get(|manifest| manifest.sealed.clone());
        assert!(listed.len() > 3);
        if close {
            db.close().unwrap();
        } else {
            db.inner.work();
            kill(db);
        }
        assert_eq!(lab.hints().len(), listed.len());
        let db = lab.open();
        assert!(db.recovery().is_clean(), "{:?}", db.recovery());
        check(&db, &expected);
    }
}

/// Scanning an unsealed segment collects the same as a second reading, wherever the segment is
/// torn.
#[test]
fn the_hint_of_a_recovered_segment_matches_the_segment() {
    let mut story = Story::begin(Lab::new());
    let ttl = WriteOptions::new().ttl(Duration::from_secs(1 << 20));
    story.put_opt("a", "1", ttl);
    story.sync();
    story.db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    story.batch(&[("b", "2"), ("c", "3"), ("a", "4")], &[]);
    story
        .db
        .write(Batch::new().put_opt("d", "5", WriteOptions::new().ttl(Duration::MAX)).delete("b"))
        .unwrap();
    let end = story.db.inner.writer().unwrap().log.lock().end().offset;
    let told = story.killed();
    let (id, log) = told.lab.logs().remove(0);
    let whole = told.lab.twin.contents(&log).unwrap();
    for torn in FIRST_OFFSET..=end {
        let lab = told.lab.on(told.disk());
        let mut bytes = whole.clone();
        bytes.truncate(usize::try_from(torn).unwrap());
        lab.twin.put_file(&log, bytes);
        // If a mark shows that the bytes were durable, the store is refused.
        let Ok(db) = lab.try_open() else { continue };
        db.inner.work();
        let listed = db.inner.manifest.get(|manifest| manifest.sealed.clone());
        for Sealed { length, .. } in listed {
            let source = HintSource { id, identity: db.inner.identity, length };
            let file = db.inner.fs.open(&log, Access::Read).unwrap();
            let hint = Hint::build(&file, source, |key| db.inner.keydir.hash(key)).unwrap();
            let written = lab.twin.contents(&lab.hints()[0].1).unwrap();
            assert_eq!(written, hint.encode(source), "torn at {torn}");
        }
        kill(db);
    }
}

#[test]
fn a_crash_before_the_hints_are_written_only_rebuilds_them() {
    let lab = Lab::new();
    let expected = written(&lab, 60);
    lab.delete_hints();
    let start = lab.twin.op_count();
    let db = lab.open();
    db.inner.work();
    db.put("more", "1").unwrap();
    db.sync().unwrap();
    kill(db);
    let mut with_more = expected.clone();
    with_more.extend(model([("more", "1")]));
    for ops in start..=lab.twin.op_count() {
        for disk in [lab.twin.kill_image(ops), lab.twin.power_image(ops, |_| false)] {
            let disk = lab.on(disk);
            let db = disk.try_open().unwrap();
            let found = raw(&db);
            assert!(found == expected || found == with_more, "at {ops}");
            check(&db, &found);
            kill(db);
        }
    }
}

/// Returns the paths of a segment's hint and log.
fn sidecar(lab: &Lab, at: usize) -> (PathBuf, PathBuf) {
    (lab.hints()[at].1.clone(), lab.logs()[at].1.clone())
}

#[test]
fn a_block_damaged_after_the_open_is_found_and_the_hint_rewritten() {
    let lab = Lab::new();
    let expected = written(&lab, 60);
    let db = lab.open();
    let (hint, _) = sidecar(&lab, 1);
    let whole = lab.twin.contents(&hint).unwrap();
    let mut bytes = whole.clone();
    bytes[512 + 3] ^= 1;
    lab.twin.put_file(&hint, bytes);
    let before = lab.twin.call_count();
    assert_eq!(db.len().unwrap(), expected.len() as u64);
    let filling = lab.twin.call_count() - before;
    check(&db, &expected);
    db.inner.work();
    assert_eq!(lab.twin.contents(&hint).unwrap(), whole);
    kill(db);
    let db = lab.open();
    assert!(db.recovery().is_clean());
    let before = lab.twin.call_count();
    check(&db, &expected);
    let undamaged = lab.twin.call_count() - before;
    assert!(filling < undamaged + 20, "{filling} calls: the hint was built more than once");
}

#[test]
fn stats_fill_nothing_and_say_what_they_have_not_counted() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let keys = written(&lab, 1000).len() as u64;
    let db = lab.open();
    assert_eq!((db.stats().keys, db.stats().unfilled_shards), (0, SHARD_COUNT as u64));
    assert_eq!(filled(&db), 0);
    assert_eq!(db.len().unwrap(), keys);
    assert_eq!((db.stats().keys, db.stats().unfilled_shards), (keys, 0));
}

/// If the segment is damaged as well, only operations that need it are refused, each time and
/// whatever they are. Nothing of it is counted or published.
#[test]
fn a_shard_that_cannot_be_filled_is_an_error_for_every_access() {
    let lab = Lab::new().with(Options::new().segment_size(64 << 10).sync_policy(SyncPolicy::Never));
    let expected = written(&lab, 1000);
    let db = lab.open();
    db.close().unwrap();
    let (hint, log) = sidecar(&lab, 0);
    let entries = log_entries(&lab);
    // The last block of the hint, and so the last shards; and an entry somewhere in the segment.
    let mut bytes = lab.twin.contents(&hint).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    lab.twin.put_file(&hint, bytes);
    let mut bytes = lab.twin.contents(&log).unwrap();
    let place = entries[500].place;
    bytes[usize::try_from(place.offset).unwrap() + 22] ^= 1;
    lab.twin.put_file(&log, bytes);

    let db = lab.open();
    assert!(db.recovery().is_clean());
    let refused = |error: &Error| {
        matches!(error, Error::Corrupt { path, offset, .. }
            if *path == log && *offset == place.offset)
    };
    let shard = |key: &[u8]| db.inner.keydir.hash(key).shard();
    let (mut lost, mut read) = (0, 0);
    let is_lost = |number: usize| db.inner.shard(number).is_err();
    for (key, stored) in &expected {
        let result = db.get(key);
        if is_lost(shard(key)) {
            lost += 1;
            assert!(refused(&result.unwrap_err()));
            assert!(refused(&db.put(key, "new").unwrap_err()));
            assert!(refused(&db.delete(key).unwrap_err()));
            assert!(refused(&db.write(Batch::new().put("a", "1").put(key, "2")).unwrap_err()));
        } else if *key != entries[500].key {
            read += 1;
            assert_eq!(result.unwrap().unwrap(), stored.value.as_slice());
        }
    }
    assert!(lost > 20 && read > 500, "{lost} lost, {read} read");
    let shards_lost = (0..SHARD_COUNT).filter(|number| is_lost(*number)).count();
    assert_eq!(filled(&db), SHARD_COUNT - shards_lost);
    let failed: Vec<_> = db.iter_unordered().filter_map(Result::err).collect();
    assert!(failed.iter().filter(|error| refused(error)).count() >= shards_lost);
    assert!(failed.len() <= shards_lost + 1);
    assert!(refused(&db.len().unwrap_err()), "what can't be counted is no number");
    assert!(!db.is_empty().unwrap(), "for that one key is enough");
    let stats = db.stats();
    assert!(stats.keys > 500 && stats.keys <= expected.len() as u64 - lost);
    assert_eq!(stats.unfilled_shards, shards_lost as u64);
    assert!(stats.live_size + stats.dead_size <= stats.log_size);
    let mut names = (0..).map(|number| format!("name {number}"));
    db.put(names.find(|name| !is_lost(shard(name.as_bytes()))).unwrap(), "1").unwrap();
    // The damage of the segment is remembered, so that the segment is not read again for every
    // access.
    let mut bytes = lab.twin.contents(&log).unwrap();
    bytes[usize::try_from(place.offset).unwrap() + 22] ^= 1;
    lab.twin.put_file(&log, bytes);
    let lost_key = expected.keys().find(|key| is_lost(shard(key))).unwrap();
    assert!(refused(&db.get(lost_key).unwrap_err()));
    // Nothing was lost: the next open rebuilds the hint.
    kill(db);
    let db = lab.open();
    for (key, stored) in &expected {
        assert_eq!(db.get(key).unwrap().unwrap(), stored.value.as_slice());
    }
}

/// A failure that may be temporary is not remembered: the next touch tries again.
#[test]
fn a_read_that_fails_once_does_not_prevent_a_later_fill() {
    let lab = Lab::new();
    let expected = written(&lab, 60);
    for after in 0..60 {
        let db = lab.open();
        lab.twin.fail(Fault::new(FaultKind::Eio).reads_too().after(after));
        let mut errors = 0;
        for (key, stored) in &expected {
            match db.get(key) {
                Ok(value) => assert_eq!(value.unwrap(), stored.value.as_slice()),
                Err(error) => {
                    assert!(matches!(error, Error::Io { .. }), "{error}");
                    errors += 1;
                }
            }
        }
        lab.twin.clear_fault();
        assert!(errors <= 1);
        check(&db, &expected);
        kill(db);
    }
}
