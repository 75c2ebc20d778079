//! What `inspect` shows of the files of a store.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bitcask::inspect::{self, EntryInfo, EntryKind, SegmentItem};
use bitcask::{Batch, Bitcask, Error, MergeOptions, WriteOptions};

use crate::support::{contents, logs, open, patch, small};

fn items(dir: &Path, id: u32, from: u64) -> Vec<SegmentItem> {
    let mut items = Vec::new();
    let visit = |item: &SegmentItem| {
        items.push(item.clone());
        ControlFlow::Continue(())
    };
    inspect::items(dir, id, from, visit).unwrap();
    items
}

fn entries(dir: &Path, id: u32) -> Vec<EntryInfo> {
    let entry = |item| match item {
        SegmentItem::Entry(entry) => Some(entry),
        _ => None,
    };
    items(dir, id, 0).into_iter().filter_map(entry).collect()
}

#[test]
fn a_store_is_shown_while_it_is_open_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let db = open(path);
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    db.put_opt("late", "value", WriteOptions::new().expires_at(until)).unwrap();
    let mut batch = Batch::new();
    batch.put("b", "1").delete("late");
    db.write(&batch).unwrap();
    let before = contents(path);

    let manifest = inspect::manifest(path).unwrap();
    assert!(manifest.log_exists && manifest.segments.is_empty(), "{manifest:?}");
    let ids = inspect::segment_ids(path).unwrap();
    let segment = inspect::segment(path, manifest.log).unwrap();
    assert!(ids.contains(&segment.id) && segment.length.is_none() && !segment.merged);
    assert_eq!((segment.store_id, segment.hash_seed), (manifest.store_id, manifest.hash_seed));
    let found = entries(path, segment.id);
    let kinds: Vec<_> = found.iter().map(|entry| (entry.kind, entry.key.as_slice())).collect();
    let [put, delete] = [EntryKind::Put, EntryKind::Delete];
    assert_eq!(kinds, [(put, &b"late"[..]), (put, b"b"), (delete, b"late")]);
    assert_eq!(found[0].expires_at, Some(until));
    assert_eq!(
        [&found[0], &found[1], &found[2]].map(|entry| entry.batch_continues),
        [false, true, false]
    );
    assert!(found.is_sorted_by(|a, b| a.timestamp < b.timestamp && a.offset < b.offset));
    let log = fs::read(&segment.path).unwrap();
    let value = usize::try_from(found[0].value_offset).unwrap()..;
    assert_eq!(&log[value][..found[0].value_size as usize], b"value");
    assert!(inspect::hint(path, segment.id).unwrap().is_none());
    assert!(before == contents(path));
    db.close().unwrap();
}

#[test]
fn merged_segments_and_their_hints_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let db = open(path);
    for number in 0..300_u32 {
        db.put((number % 100).to_be_bytes(), [7; 60]).unwrap();
    }
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    db.close().unwrap();
    let manifest = inspect::manifest(path).unwrap();
    assert!(manifest.history.is_some());
    let mut keys = 0;
    for listed in manifest.segments.iter().filter(|listed| listed.merged) {
        let segment = inspect::segment(path, listed.id).unwrap();
        assert_eq!((segment.merged, segment.length), (true, Some(listed.length)));
        let found = entries(path, listed.id);
        let hint = inspect::hint(path, listed.id).unwrap().unwrap();
        let mut hinted: Vec<_> = hint.entries.iter().map(|entry| entry.offset).collect();
        hinted.sort_unstable();
        assert_eq!(hinted, found.iter().map(|entry| entry.offset).collect::<Vec<_>>());
        assert!(hint.entries.iter().all(|entry| entry.size.is_some() && !entry.delete));
        assert_eq!(hint.last_timestamp, found.iter().map(|entry| entry.timestamp).max().unwrap());
        keys += found.len();
    }
    assert_eq!(keys, 100);
}

#[test]
fn items_begin_anywhere_and_show_what_damage_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let db = open(path);
    for key in ["a", "b", "c", "d"] {
        db.put(key, "value").unwrap();
    }
    db.close().unwrap();
    let all = entries(path, 1);
    let offsets: Vec<_> = all.iter().map(|entry| entry.offset).collect();
    assert_eq!(items(path, 1, offsets[2]).len(), 2);
    // In the middle of an entry, and at a place that is no multiple of 8.
    let rest = items(path, 1, offsets[1] + 9);
    assert!(matches!(rest[0], SegmentItem::Lost { .. }) && rest.len() == 3, "{rest:?}");
    assert!(items(path, 1, u64::MAX).is_empty());
    let one = |item: &SegmentItem| {
        assert!(matches!(item, SegmentItem::Entry(entry) if entry.key == b"a"));
        ControlFlow::Break(())
    };
    inspect::items(path, 1, 0, one).unwrap();

    let damaged = usize::try_from(offsets[1]).unwrap() + 22;
    patch(&logs(path)[0], |bytes| bytes[damaged] ^= 1);
    let found = items(path, 1, 0);
    let [_, SegmentItem::Lost { offset, size, .. }, _, _] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*offset, *size), (offsets[1], offsets[2] - offsets[1]));
    patch(&logs(path)[0], |bytes| bytes[20] ^= 1);
    assert!(inspect::segment(path, 1).unwrap_err().is_corruption());
    assert_eq!(items(path, 1, 0).len(), 4);
}

#[test]
fn what_does_not_exist_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    assert!(matches!(inspect::manifest(path), Err(Error::NotFound { .. })));
    assert!(matches!(inspect::hint(path, 1), Err(Error::NotFound { .. })));
    assert!(matches!(inspect::segment(path, 1), Err(Error::MissingSegment { .. })));
    assert!(inspect::segment_ids(path).unwrap().is_empty());
    let nowhere = path.join("nowhere");
    assert!(matches!(inspect::segment_ids(&nowhere), Err(Error::NotFound { .. })));
    Bitcask::open(path, small()).unwrap().close().unwrap();
    patch(&path.join("MANIFEST"), |bytes| bytes[20] ^= 1);
    assert!(inspect::manifest(path).unwrap_err().is_corruption());
}
