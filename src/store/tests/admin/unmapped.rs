//! Segments without a mapping, of which there may be more than a process may map or hold open.

use crate::options::MergeOptions;
use crate::segment::budget::allowed;
use crate::store::changes::position::Position;
use crate::store::tests::merge::basics::{seal, sealed};
use crate::store::tests::*;
use crate::testing::twin::{Call, Fault, FaultKind};

fn merge_all(db: &Bitcask) {
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

/// A lab whose stores map nothing and keep up to `descriptors` files open for readers.
fn lab(descriptors: usize) -> Lab {
    allowed::mappings(0);
    allowed::descriptors(descriptors);
    Lab::new()
}

/// Ten segments of two keys each.
fn filled(lab: &Lab) -> Bitcask {
    let db = lab.open();
    for number in 0..10_u8 {
        db.put([number], [number; 40]).unwrap();
        db.put([number, 1], [number; 600]).unwrap();
        seal(&db);
    }
    db
}

/// Waits for the guards of other tests, which delay the release of removed segments.
fn settle(db: &Bitcask) {
    while !db.inner.segments.is_quiescent() {
        db.inner.segments.free_retired();
        std::thread::yield_now();
    }
    db.work();
}

fn logs_of(lab: &Lab, ids: &[SegmentId]) -> usize {
    lab.logs().iter().filter(|(id, _)| ids.contains(id)).count()
}

#[test]
fn a_store_without_mappings_works_like_one_with_mappings() {
    for mode in [AppendMode::Mapped, AppendMode::Positioned] {
        let lab = lab(usize::MAX);
        let options = lab.options.clone().append_mode(mode);
        let lab = lab.with(options);
        let mut db = lab.open_exactly();
        let mut expected = Model::new();
        for number in 0..100_u32 {
            // Some are larger than the first read.
            let size = if number % 7 == 0 { 700 } else { 30 };
            let (key, value) = (number.to_be_bytes().to_vec(), vec![7; size]);
            db.put(&key, &value).unwrap();
            expected.insert(key, Stored { value, expiry: None });
            if number % 40 == 3 {
                db.delete(number.to_be_bytes()).unwrap();
                expected.remove(number.to_be_bytes().as_slice());
            }
        }
        check(&db, &expected);
        check(&lab.killed().open(), &expected);
        check(&lab.killed().open_read_only(), &expected);
        for _ in 0..2 {
            merge_all(&db);
            check(&db, &expected);
            assert!(db.verify().unwrap().is_clean());
            db = lab.reopen(db);
            assert!(db.recovery().is_clean() && db.recovery().unmapped_segments > 0);
            let stats = db.stats();
            assert_eq!(stats.unmapped_segments, stats.segments);
            check(&db, &expected);
        }
    }
}

#[test]
fn a_held_segment_stays_readable_after_its_file_is_unlinked() {
    let lab = lab(usize::MAX);
    let db = filled(&lab);
    let before = sealed(&db);
    let mut changes = db.changes(Position::START).unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().key, [0]);
    let guard = db.inner.pin();
    let (number, first) = db.inner.segments.all().swap_remove(0);
    assert_eq!(first.id(), before[0]);
    drop(first);
    let held = db.inner.segments.get(number, &guard);
    merge_all(&db);
    assert_eq!(logs_of(&lab, &before), 0);
    assert_eq!(held.entry(FIRST_OFFSET).unwrap().entry().key(), [0]);
    drop(guard);
    // The rest of the held segment. The segments after it were removed by the merge.
    assert_eq!(changes.try_recv().unwrap().unwrap().key, [0, 1]);
    assert!(changes.try_recv().unwrap_err().needs_resync());
}

#[test]
fn a_held_segment_keeps_its_name_until_a_descriptor_is_available() {
    let lab = lab(0);
    let db = filled(&lab);
    let before = sealed(&db);
    let mut changes = db.changes(Position::START).unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().key, [0]);
    merge_all(&db);
    settle(&db);
    assert_eq!(logs_of(&lab, &before), 1, "the other segments are not held");
    assert_eq!(changes.try_recv().unwrap().unwrap().key, [0, 1]);
    db.work();
    assert_eq!(logs_of(&lab, &before), 1);
    drop(changes);
    settle(&db);
    assert_eq!(logs_of(&lab, &before), 0);

    let before = sealed(&db);
    let held: Vec<_> = db.inner.segments.all().into_iter().map(|(_, segment)| segment).collect();
    db.clear().unwrap();
    assert_eq!(logs_of(&lab, &before), before.len());
    allowed::descriptors(usize::MAX);
    db.work();
    assert_eq!(logs_of(&lab, &before), 0);
    let was_sealed = held.iter().filter(|segment| before.contains(&segment.id()));
    assert!(was_sealed.clone().all(|segment| segment.entry(FIRST_OFFSET).is_ok()));
    assert_eq!(was_sealed.count(), before.len());
}

#[test]
fn a_file_kept_for_lack_of_a_descriptor_is_a_leftover_at_the_next_opening() {
    let lab = lab(0);
    let db = filled(&lab);
    let before = sealed(&db);
    let held: Vec<_> = db.inner.segments.all();
    db.clear().unwrap();
    assert_eq!(logs_of(&lab, &before), before.len());
    db.close().unwrap();
    drop(held);
    let db = lab.open();
    assert_eq!(logs_of(&lab, &before), 0);
    assert!(db.is_empty().unwrap());
}

#[test]
fn a_snapshot_that_outlives_its_store_keeps_files_open_or_the_store_locked() {
    let lab = lab(usize::MAX);
    let db = filled(&lab);
    let snapshot = db.snapshot();
    db.close().unwrap();
    let db = lab.open();
    merge_all(&db);
    db.clear().unwrap();
    for number in 0..10_u8 {
        assert_eq!(snapshot.get([number]).unwrap().unwrap(), [number; 40]);
        assert_eq!(snapshot.get([number, 1]).unwrap().unwrap(), [number; 600]);
    }
    drop(snapshot);
    db.close().unwrap();

    let lab = self::lab(3);
    let db = filled(&lab);
    let snapshot = db.snapshot();
    db.close().unwrap();
    assert!(lab.try_open().unwrap_err().is_locked());
    assert_eq!(snapshot.get([9]).unwrap().unwrap(), [9; 40]);
    drop(snapshot);
    assert_eq!(lab.open().len().unwrap(), 20);
}

#[test]
fn a_reader_reports_a_removed_segment_and_recovers_by_a_refresh() {
    for descriptors in [usize::MAX, 0] {
        let lab = lab(descriptors);
        let db = filled(&lab);
        let reader = lab.open_read_only();
        merge_all(&db);
        settle(&db);
        let read = reader.get([3, 1]);
        if descriptors > 0 {
            assert_eq!(read.unwrap().unwrap(), [3; 600], "its file was open");
        } else {
            let error = read.unwrap_err();
            assert!(matches!(error, Error::SegmentRemoved { .. }), "{error}");
            assert!(error.to_string().contains("call `refresh`"), "{error}");
        }
        assert!(reader.refresh().unwrap());
        assert_eq!(reader.get([3, 1]).unwrap().unwrap(), [3; 600]);
        assert_eq!(snapshot(&reader), snapshot(&db));
    }
}

#[test]
fn a_shortage_of_descriptors_is_reported_and_temporary() {
    let lab = lab(usize::MAX);
    let db = filled(&lab);
    assert_eq!(db.range(..).count(), 20);
    db.work();
    assert_eq!(lab.indexes().len(), sealed(&db).len());
    let shortage = || Fault::new(FaultKind::Emfile).only(Call::Open).reads_too().for_ever();
    let is_told = |error: &Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Io { action: "open", .. }), "{text}");
        assert!(text.contains("Too many open files"), "{text}");
    };
    lab.twin.fail(shortage());
    is_told(&db.get([3]).unwrap_err());
    is_told(&db.range(..).next().unwrap().unwrap_err());
    let read: Result<Vec<_>> = db.iter_unordered().collect();
    is_told(&read.unwrap_err());
    is_told(&db.merge_opt(MergeOptions::new().force(true)).unwrap_err());
    db.work();
    lab.twin.clear_fault();
    assert_eq!(db.range(..).map(Result::unwrap).count(), 20);
    db.put("on", "and on").unwrap();
    merge_all(&db);
    assert_eq!(sealed(&db).len(), db.segments().iter().filter(|stats| stats.merged).count());
    assert_eq!(lab.reopen(db).len().unwrap(), 21);
}

/// A file that is open takes space after its last name is removed.
#[test]
fn the_index_of_a_removed_segment_is_closed_with_the_segment() {
    let lab = Lab::new();
    let db = filled(&lab);
    assert_eq!(db.range(..).count(), 20);
    db.work();
    assert_eq!(db.range(..).count(), 20);
    let all = db.inner.segments.all();
    let before: Vec<_> = all.iter().filter_map(|(_, segment)| segment.kept_index()).collect();
    assert_eq!(before.len(), sealed(&db).len());
    drop(all);
    let (snapshot, mut range) = (db.snapshot(), db.range(..));
    assert_eq!(range.next().unwrap().unwrap().0, [0]);
    merge_all(&db);
    assert_eq!(snapshot.range(..).map(Result::unwrap).count(), 20);
    assert!(before.iter().all(|file| file.upgrade().is_some()), "a snapshot has the segments");
    drop(snapshot);
    assert_eq!(range.map(Result::unwrap).count(), 19);
    settle(&db);
    assert!(before.iter().all(|file| file.upgrade().is_none()));
    assert_eq!(db.range(..).map(Result::unwrap).count(), 20);
}

#[test]
fn files_that_are_removed_late_keep_a_store_at_rest_looking_for_descriptors() {
    let lab = lab(0);
    let db = filled(&lab);
    let snapshot = db.snapshot();
    let readers = db.inner.segments.all();
    merge_all(&db);
    db.work();
    let log = db.inner.log().unwrap();
    db.sync().unwrap();
    log.mark_if_due(Duration::ZERO).unwrap();
    let at_rest = db.inner.sync_and_mark_due();
    assert_eq!(db.inner.seal_due(), at_rest);
    log.seal_signal.take_woken();
    let before = lab.logs().len();
    lab.twin.fail(Fault::new(FaultKind::Emfile).only(Call::Open).reads_too().for_ever());
    drop(snapshot);
    assert!(log.seal_signal.take_woken());
    assert_eq!((lab.logs().len(), db.stats().retired_segments), (before, 0));
    assert!(db.inner.seal_due() < at_rest);
    lab.twin.clear_fault();
    drop(readers);
    assert_eq!(db.inner.seal_due(), at_rest);
    assert!(lab.logs().len() < before);
}
