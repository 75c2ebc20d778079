//! Activity during a merge: figures, readers and callbacks. Also how a merge handles damage.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::basics::*;
use crate::fs::Access;
use crate::options::{AutoMerge, MergeOptions, MergePolicy};
use crate::segment::hint::{Hint, HintSource};
use crate::store::tests::story::Random;
use crate::store::tests::*;
use crate::value::Value;

fn force<'a>() -> MergeOptions<'a> {
    MergeOptions::new().force(true)
}

/// Scans the log, and returns bytes by segment: those of entries that a slot names, and of these,
/// those that are not expired.
fn scan_live(lab: &Lab, db: &Bitcask) -> BTreeMap<u32, (u64, u64)> {
    let segments: BTreeMap<u32, u32> =
        db.inner.segments.all().iter().map(|(number, segment)| (*number, segment.id().0)).collect();
    let mut named = BTreeSet::new();
    for number in 0..SHARD_COUNT {
        let shard = db.inner.shard(number).unwrap();
        named.extend(shard.addresses().map(|found| (segments[&found.segment], found.offset)));
    }
    let mut live: BTreeMap<u32, (u64, u64)> = segments.values().map(|id| (*id, (0, 0))).collect();
    for (id, path) in lab.logs() {
        let bytes = lab.twin.contents(&path).unwrap();
        for at in named.iter().filter(|(segment, _)| *segment == id.0) {
            let entry = Entry::decode(&bytes[usize::try_from(at.1).unwrap()..]).unwrap().unwrap();
            let (all, unexpired) = live.get_mut(&id.0).unwrap();
            *all += entry.layout.entry_size();
            if !entry.is_expired(&db.inner.clock.read()) {
                *unexpired += entry.layout.entry_size();
            }
        }
    }
    live
}

/// Compares all figures with a scan. Returns, for each sealed segment, the bytes that are live and
/// not expired. Expired entries that a stopped merge had dropped are back if their segment was not
/// removed; they are still expired.
fn check_accounts(lab: &Lab, db: &Bitcask) -> BTreeMap<u32, u64> {
    check_figures(db);
    let scanned = scan_live(lab, db);
    let segments = db.segments();
    assert_eq!(segments.iter().map(|stats| SegmentId(stats.id)).collect::<Vec<_>>(), sealed(db));
    for stats in &segments {
        assert_eq!(stats.live_size, scanned[&stats.id].0, "segment {}", stats.id);
        assert_eq!(stats.dead_size() + stats.live_size + FIRST_OFFSET, stats.size);
        let path = db.inner.dir.log(SegmentId(stats.id));
        assert_eq!(stats.size, lab.twin.contents(&path).unwrap().len() as u64);
    }
    let stats = db.stats();
    assert_eq!(stats.live_size, scanned.values().map(|(all, _)| all).sum::<u64>());
    assert_eq!(stats.sealed_segments, segments.len() as u64);
    segments.iter().map(|stats| (stats.id, scanned[&stats.id].1)).collect()
}

#[test]
fn live_bytes_are_accounted_exactly_at_all_times() {
    for (seed, lab) in [Lab::new, Lab::weak].into_iter().cycle().take(8).enumerate() {
        let (lab, mut random) = (lab().seeded(seed as u64), Random(seed as u64));
        let mut db = lab.open();
        for round in 0..150_u32 {
            let key = [b'a' + u8::try_from(random.below(12)).unwrap()];
            let value = vec![1; usize::try_from(random.below(200)).unwrap()];
            let ttl = WriteOptions::new().ttl(Duration::from_secs(random.below(20)));
            match random.below(16) {
                0..6 => db.put(key, value).unwrap(),
                6..9 => drop(db.delete(key).unwrap()),
                9..12 => db.put_opt(key, value, ttl).unwrap(),
                12 => db.write(Batch::new().put("a", &value).delete("b").put(key, "")).unwrap(),
                13 => lab.hands.advance(Duration::from_secs(random.below(10))),
                _ => {
                    seal_active(&db);
                    let all = sealed(&db);
                    let ids: Vec<_> = all.into_iter().filter(|_| random.below(3) > 0).collect();
                    let mut merge = begin(&db, &ids);
                    let mut steps = random.below(20);
                    while steps > 0 && merge.step(&*db.inner).unwrap().is_some() {
                        check_figures(&db);
                        db.put(key, &value).unwrap();
                        steps -= 1;
                    }
                    merge.publish(&*db.inner).unwrap();
                }
            }
            let before = check_accounts(&lab, &db);
            if round % 15 == 0 {
                let killed = lab.killed();
                let image = killed.open();
                let after = check_accounts(&killed, &image);
                assert_eq!(snapshot(&image), snapshot(&db));
                assert!(before.iter().all(|(id, live)| after[id] == *live), "{before:?} {after:?}");
                kill(image);
            }
            if round % 40 == 0 {
                db = lab.reopen(db);
                let after = check_accounts(&lab, &db);
                assert!(before.iter().all(|(id, live)| after[id] == *live), "{before:?} {after:?}");
            }
        }
    }
}

/// A store of three segments. Each holds `a`, `b` and `c`, live only in the last segment, and a
/// separate live key.
fn three_segments(lab: &Lab) -> (Bitcask, Vec<SegmentId>) {
    let db = lab.open();
    let mut ids = Vec::new();
    for round in 0..3 {
        for key in ["a", "b", "c"] {
            db.put(key, format!("{key} {round}")).unwrap();
        }
        db.put(format!("own {round}"), "x".repeat(100)).unwrap();
        ids.push(seal(&db));
    }
    (db, ids)
}

#[test]
fn values_read_before_a_merge_stay_unchanged() {
    let lab = lab();
    let (db, ids) = three_segments(&lab);
    let held = db.get("a").unwrap().unwrap();
    let all = snapshot(&db);
    let mut iter = db.iter_unordered();
    let mut seen = Pairs::new();
    let mut take = |pair: Result<(Value, Value)>| {
        let (key, value) = pair.unwrap();
        assert_eq!(seen.insert(key.to_vec(), value.to_vec()), None, "{key:?} twice");
        seen.len()
    };
    assert_eq!(take(iter.next().unwrap()), 1);
    let report = db.merge_opt(force()).unwrap();
    assert_eq!(report.segments_in, 3);
    assert!(ids.iter().all(|id| lab.twin.contents(&db.inner.dir.log(*id)).is_none()));
    db.put("a", "new").unwrap();
    db.put("a", "b 2").unwrap();
    assert_eq!(iter.map(take).last(), Some(all.len()));
    seen.insert(b"a".to_vec(), b"a 2".to_vec());
    assert_eq!(seen, all);
    assert_eq!(held, "a 2");
    db.close().unwrap();
    assert_eq!(held, "a 2");
}

#[test]
fn closures_that_read_may_merge() {
    let lab = lab();
    let (db, _) = three_segments(&lab);
    let merge = |value: Option<&[u8]>| {
        let before = value.unwrap().to_vec();
        assert!(db.merge_opt(force()).unwrap().segments_in > 0);
        db.put("other", "value").unwrap();
        assert_eq!(value.unwrap(), before);
        before
    };
    assert_eq!(db.get_with("a", |value| merge(Some(value))).unwrap().unwrap(), b"a 2");
    db.get_many_with(&["a", "b"], |_, value| drop(merge(value))).unwrap();
    let updated = db.update("a", |value| Some(merge(value))).unwrap();
    assert_eq!(updated.unwrap(), "a 2");
    for (_, value) in db.iter_unordered().map(Result::unwrap) {
        merge(Some(&value));
    }
    check_figures(&db);
    assert!(lab.reopen(db).recovery().is_clean());
}

#[test]
fn a_progress_callback_may_use_the_store() {
    let lab = lab();
    let (db, _) = three_segments(&lab);
    let mut seen = Vec::new();
    let options = force().progress(|progress| {
        seen.push(*progress);
        db.put("a", "put meanwhile").unwrap();
        assert_eq!(db.get("a").unwrap().unwrap(), "put meanwhile");
        assert!(db.delete("own 1").unwrap() || seen.len() > 1);
        db.sync().unwrap();
        assert!(db.stats().segments > 3 && db.segments().len() >= 3);
        for refused in [db.merge().map(drop), db.merge_opt(force()).map(drop), db.clear()] {
            assert!(matches!(refused, Err(Error::WithinMerge)), "{refused:?}");
        }
        ControlFlow::Continue(())
    });
    let report = db.merge_opt(options).unwrap();
    assert!(!report.cancelled && report.segments_in == 3);
    assert!(seen.is_sorted_by_key(|progress| (progress.read_size, progress.copied_size)));
    assert!(seen.iter().all(|progress| progress.segments_total == 3));
    assert!(seen.iter().all(|progress| progress.read_size <= progress.total_size));
    let expected = [("a", "put meanwhile"), ("b", "b 2"), ("c", "c 2")];
    for db in [db, lab.killed().open()] {
        assert!(expected.iter().all(|(key, value)| db.get(key).unwrap().unwrap() == **value));
        assert_eq!((db.get("own 1").unwrap(), db.len().unwrap()), (None, 5));
        db.merge().unwrap();
    }
}

#[test]
fn a_cancelled_merge_changes_nothing_visible() {
    let lab = lab();
    let (db, _) = three_segments(&lab);
    let pairs = snapshot(&db);
    for calls in 0..4 {
        let mut left = calls;
        let options = force().progress(|_| {
            left -= 1;
            if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let report = db.merge_opt(options).unwrap();
        assert_eq!(report.cancelled, left < 0);
        for db in [&lab.killed().open(), &lab.powered_off(|_| false).open(), &db] {
            assert_eq!(snapshot(db), pairs);
            check_figures(db);
        }
    }
    assert!(lab.reopen(db).recovery().is_clean());
}

/// A panicking callback stops the merge like a cancelling one. Slots name the copies by then, and
/// the next merge would treat the originals as dead.
#[test]
fn a_progress_callback_that_panics_loses_nothing() {
    let lab = lab();
    let (db, _) = three_segments(&lab);
    let pairs = snapshot(&db);
    let merge = || db.merge_opt(force().progress(|_| panic!("in a callback")));
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let caught = catch_unwind(AssertUnwindSafe(merge));
    std::panic::set_hook(hook);
    caught.unwrap_err();
    assert_eq!(snapshot(&lab.killed().open()), pairs);
    db.merge_opt(force()).unwrap();
    assert_eq!(snapshot(&db), pairs);
    assert_eq!(snapshot(&lab.killed().open()), pairs);
    assert_eq!(snapshot(&lab.reopen(db)), pairs);
}

#[test]
fn a_read_only_or_manual_store_is_not_merged_automatically() {
    let lab = lab();
    let options = lab.options.clone().merge_policy(MergePolicy::Manual);
    let lab = lab.with(options);
    let (db, ids) = three_segments(&lab);
    assert!(db.needs_merge().is_empty());
    assert_eq!(db.inner.merge_due(), None);
    assert_eq!(sealed(&db), ids);
    let report = db.merge().unwrap();
    assert!(report.segments_in > 0 && report.freed_size() > 0, "{report:?}");
    db.close().unwrap();
    let reader = lab.open_read_only();
    assert!(!reader.segments().is_empty());
}

/// A lab with a policy that merges every segment with dead entries.
fn eager() -> Lab {
    let lab = lab();
    let auto = AutoMerge::new().trigger_dead_percent(1).dead_percent(1).small_size(0);
    let options = lab.options.clone().merge_policy(MergePolicy::Auto(auto));
    lab.with(options)
}

/// Flips bits in the byte at a distance from the start of an entry, and returns the entry's offset.
/// The store must be closed.
fn damage(lab: &Lab, id: SegmentId, key: &str, at: usize, mask: u8) -> u64 {
    let is_it = |entry: &LogEntry| entry.place.segment == id && entry.key == key.as_bytes();
    let entry = log_entries(lab).into_iter().find(is_it).unwrap();
    let (_, path) = lab.logs().into_iter().find(|(log, _)| *log == id).unwrap();
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(entry.place.offset).unwrap() + at] ^= mask;
    lab.twin.put_file(&path, bytes);
    entry.place.offset
}

#[test]
fn damage_stops_only_the_merge_of_its_segment() {
    let lab = eager();
    let (db, ids) = three_segments(&lab);
    db.close().unwrap();
    let offset = damage(&lab, ids[1], "own 1", 30, 8);
    let mut db = lab.open();
    let keys = ["a", "b", "c", "own 0", "own 2"];
    let read = |db: &Bitcask| keys.map(|key| db.get(key).unwrap().unwrap().to_vec());
    let before = read(&db);
    let planned = |db: &Bitcask| -> Vec<u32> {
        db.needs_merge().segments.iter().map(|planned| planned.id).collect()
    };
    assert!(planned(&db).contains(&ids[1].0));
    for round in 0..3 {
        let error = db.merge_opt(force()).unwrap_err();
        let Error::Corrupt { path, offset: found, .. } = &error else { panic!("{error}") };
        assert_eq!((path, *found), (&db.inner.dir.log(ids[1]), offset), "{error}");
        assert!(sealed(&db).contains(&ids[1]) && !sealed(&db).contains(&ids[0]), "{round}");
        assert_eq!(read(&db), before);
        assert!(db.get("own 1").unwrap_err().is_corruption());
        assert!(!planned(&db).contains(&ids[1].0));
        if round == 1 {
            db = lab.reopen(db);
            assert_eq!(read(&db), before);
        }
    }
    db.inner.merge_due();
    db.inner.merge_due();
    assert!(planned(&db).is_empty());
    // Damage no longer matters once its key is dead.
    assert_eq!(db.len().unwrap(), 6);
    db.put("own 1", "again").unwrap();
    db.merge_opt(force()).unwrap();
    assert!(!sealed(&db).contains(&ids[1]));
    check_figures(&db);
    assert_eq!(read(&lab.reopen(db)), before);
}

#[test]
fn damage_in_dead_entries_does_not_matter() {
    let lab = eager();
    let (db, ids) = three_segments(&lab);
    let pairs = snapshot(&db);
    db.close().unwrap();
    for key in ["c", "b", "a"] {
        damage(&lab, ids[0], key, 23, 8);
    }
    let db = lab.open();
    db.merge_opt(force()).unwrap();
    assert_eq!(snapshot(&db), pairs);
    assert_eq!(snapshot(&lab.reopen(db)), pairs);
}

/// When a damaged entry is overwritten, its size is taken from the damaged header, so the account
/// is wrong. A merge still finds that nothing is live.
#[test]
fn an_entry_of_damaged_size_may_be_overwritten_and_merged() {
    for mask in [8, 64] {
        let lab = eager();
        let (db, ids) = three_segments(&lab);
        db.close().unwrap();
        damage(&lab, ids[1], "own 1", 11, mask);
        let db = lab.open();
        let pairs =
            |db: &Bitcask| (db.get("own 1").unwrap(), db.get("own 0").unwrap(), db.len().unwrap());
        db.put("own 1", "again").unwrap();
        let before = pairs(&db);
        db.merge_opt(force()).unwrap();
        assert!(!sealed(&db).contains(&ids[1]));
        check_figures(&db);
        assert_eq!(pairs(&db), before);
        assert_eq!(pairs(&lab.reopen(db)), before);
    }
}

#[test]
fn unusable_hints_do_not_matter() {
    let lab = eager();
    let (db, _) = three_segments(&lab);
    let pairs = snapshot(&db);
    db.inner.fill_due();
    for (number, (_, path)) in lab.hints().into_iter().enumerate() {
        let mut bytes = lab.twin.contents(&path).unwrap();
        match number {
            0 => lab.twin.delete_file(&path),
            // The summary, a slot, and a wrong length.
            1 => bytes[40] ^= 1,
            _ => bytes[520] ^= 1,
        }
        if number > 0 {
            lab.twin.put_file(&path, bytes);
        }
    }
    let report = db.merge_opt(force()).unwrap();
    assert_eq!((report.segments_in, report.live_entries), (3, 6));
    assert_eq!(snapshot(&db), pairs);
    assert_eq!(snapshot(&lab.reopen(db)), pairs);
}

/// If damage prevents filling a part of the keydir, it is unknown what is live.
#[test]
fn a_store_whose_keydir_cannot_be_filled_is_not_merged() {
    let lab = eager();
    let (db, ids) = three_segments(&lab);
    db.close().unwrap();
    damage(&lab, ids[1], "own 1", 30, 8);
    let (_, hint) = lab.hints().into_iter().nth(1).unwrap();
    let mut bytes = lab.twin.contents(&hint).unwrap();
    bytes[520] ^= 1;
    lab.twin.put_file(&hint, bytes);
    let before = lab.twin.files();
    let db = lab.open();
    for refused in [db.merge(), db.merge_opt(force())] {
        let error = refused.unwrap_err();
        let Error::Corrupt { path, .. } = &error else { panic!("{error}") };
        assert_eq!(*path, db.inner.dir.log(ids[1]));
    }
    assert_eq!(lab.twin.files(), before);
}

/// An older segment that cannot be looked up may hold the key. So the tombstone is kept, and the
/// damage is left for readers of that segment to report.
#[test]
fn damage_outside_a_merge_keeps_tombstones_and_stops_nothing() {
    let lab = lab();
    let db = lab.open();
    db.put("another", "older").unwrap();
    let bottom = seal(&db);
    db.put("k", "x".repeat(700)).unwrap();
    db.delete("k").unwrap();
    let input = seal(&db);
    lab.twin.delete_file(&db.inner.dir.hint(bottom));
    let path = db.inner.dir.log(bottom);
    lab.twin.put_file(&path, vec![0xff; lab.twin.contents(&path).unwrap().len()]);
    let report = finish(&db, begin(&db, &[input]));
    assert_eq!((report.segments_in, report.tombstones_kept), (1, 1));
    assert_eq!((db.len().unwrap(), db.get("another").unwrap().unwrap().len()), (1, 5));
}

/// A valid hint that omits an entry could only come from a bug in this crate. The segment is not
/// removed while a slot still names the entry.
#[test]
fn a_live_entry_missing_from_a_hint_keeps_its_segment() {
    let lab = lab();
    let (db, ids) = three_segments(&lab);
    let pairs = snapshot(&db);
    let (id, path) = (ids[2], db.inner.dir.log(ids[2]));
    let length = lab.twin.contents(&path).unwrap().len() as u64;
    let source = HintSource { id, identity: db.inner.identity, length };
    let file = db.inner.fs.open(&path, Access::Read).unwrap();
    let mut hint = Hint::build(&file, source, |key| db.inner.keydir.hash(key)).unwrap();
    hint.slots.remove(1);
    hint.summary.entries -= 1;
    lab.twin.put_file(&db.inner.dir.hint(id), hint.encode(source));
    for _ in 0..2 {
        let error = db.merge_opt(force()).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { path: found, .. } if *found == path), "{error}");
        assert!(sealed(&db).contains(&id));
        assert_eq!(snapshot(&db), pairs);
    }
    db.close().unwrap();
    lab.delete_hints();
    assert_eq!(snapshot(&lab.open()), pairs);
}
