//! The change feed, case by case. `follow` tests it together with everything else a store does.

use crate::Value;
use crate::options::MergeOptions;
use crate::store::tests::*;

/// A change in short: the key, its value or `None` for a delete, and whether its batch continues.
type Told = (String, Option<String>, bool);

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn short(change: &Change) -> Told {
    let value = match &change.operation {
        Operation::Put { value, .. } => Some(text(value)),
        Operation::Delete => None,
    };
    (text(&change.key), value, change.batch_continues)
}

fn told<const N: usize>(changes: [(&str, Option<&str>, bool); N]) -> Vec<Told> {
    let own =
        |(key, value, more): (&str, Option<&str>, bool)| (key.into(), value.map(Into::into), more);
    changes.into_iter().map(own).collect()
}

/// Takes all changes that are available now.
fn take(changes: &mut Changes) -> Vec<Change> {
    std::iter::from_fn(|| changes.try_recv().unwrap()).collect()
}

fn since(db: &Reader, position: Position) -> Vec<Told> {
    take(&mut db.changes(position).unwrap()).iter().map(short).collect()
}

fn refusal(db: &Reader, position: Position) -> Error {
    db.changes(position).map(|_| ()).unwrap_err()
}

fn history(db: &Bitcask) -> Place {
    db.inner.manifest.get(Manifest::history)
}

fn merge_all(db: &Bitcask) {
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
}

#[test]
fn every_put_and_delete_is_reported_in_order_and_can_be_resumed_after() {
    let lab = Lab::new();
    let db = lab.open();
    assert_eq!(since(&db, Position::START), []);
    let empty = db.position();
    let mut live = db.changes(empty).unwrap();
    for number in 0..60 {
        db.put(format!("k{}", number % 7), "x".repeat(number)).unwrap();
        match number % 4 {
            0 => db.write(Batch::new().put("a", "1").delete("k1").put("b", "2")).unwrap(),
            1 => assert!(!db.delete("absent").unwrap()),
            2 => drop(db.delete("a").unwrap()),
            _ => drop(db.inner.work()),
        }
    }
    assert!(lab.logs().len() > 3);
    let all = take(&mut live);
    assert_eq!(since(&db, Position::START), all.iter().map(short).collect::<Vec<_>>());
    assert_eq!(db.position(), all.last().unwrap().position);
    let keys: Vec<LogEntry> = log_entries(&lab)
        .into_iter()
        .filter(|entry| !entry.flags.has(Flags::END) && !entry.flags.has(Flags::MARK_ONLY))
        .collect();
    assert_eq!(keys.len(), all.len());
    for (entry, change) in keys.iter().zip(&all) {
        assert_eq!(entry.key, *change.key);
        assert_eq!(crate::clock::system_time(entry.timestamp), change.timestamp);
        assert_eq!(entry.flags.has(Flags::CONTINUES), change.batch_continues);
    }
    assert!(all.is_sorted_by(|a, b| a.position < b.position && a.timestamp < b.timestamp));
    let db = lab.reopen(db);
    for (at, change) in all.iter().enumerate() {
        let rest: Vec<Told> = all[at + 1..].iter().map(short).collect();
        assert_eq!(since(&db, change.position), rest);
        let stored = Position::from_bytes(change.position.to_bytes());
        assert_eq!(stored.to_string().parse::<Position>().unwrap(), change.position);
        assert_eq!(lab.open_read_only().changes(stored).unwrap().count(), rest.len());
    }
    assert_eq!(since(&db, empty).len(), all.len());
    assert_eq!(db.position(), all.last().unwrap().position);
}

#[test]
fn a_put_is_reported_with_its_expiry_even_if_that_has_passed() {
    for compression in Compression::all() {
        let lab = Lab::new().with(Lab::new().options.compression(compression));
        let db = lab.open();
        let value = "long and compressible ".repeat(20);
        db.put_opt("a", &value, WriteOptions::new().ttl(Duration::from_secs(5))).unwrap();
        lab.hands.advance(Duration::from_secs(10));
        let changes = take(&mut db.changes(Position::START).unwrap());
        let Operation::Put { value: found, expires_at } = &changes[0].operation else { panic!() };
        assert_eq!((changes.len(), found), (1, &Value::from(value.into_bytes())));
        let expiry = changes[0].timestamp + Duration::from_secs(5);
        assert_eq!(*expires_at, Some(expiry));
    }
}

#[test]
fn changes_removed_by_a_merge_or_a_clear_require_a_resync() {
    let lab = Lab::new();
    let db = lab.open();
    let start = db.position();
    let mut positions = vec![start];
    for number in 0..8 {
        db.put(format!("k{number}"), "v".repeat(300)).unwrap();
        positions.push(db.position());
    }
    let (mut early, mut late) = (db.changes(start).unwrap(), db.changes(db.position()).unwrap());
    early.try_recv().unwrap().unwrap();
    merge_all(&db);
    for position in &positions[..8] {
        let error = refusal(&db, *position);
        assert!(matches!(error, Error::HistoryGone { .. }) && error.needs_resync(), "{error}");
        assert!(error.to_string().contains(&position.to_string()), "{error}");
    }
    assert!(matches!(refusal(&db, Position::START), Error::HistoryGone { .. }));
    // A follower that has reached the end misses nothing.
    assert_eq!(since(&db, positions[8]), []);
    assert_eq!(db.position(), positions[8]);
    // Changes in held segments can still be read to their end. Removed changes after those are
    // missed.
    let mut read = 1;
    let error = loop {
        match early.try_recv() {
            Ok(change) => assert_eq!(change.unwrap().key, format!("k{read}")),
            Err(error) => break error,
        }
        read += 1;
    };
    assert!(read < 8 && matches!(error, Error::HistoryGone { .. }), "{read}: {error}");
    assert!(early.try_recv().is_err(), "the follower must not continue after the gap");
    db.put("new", "1").unwrap();
    assert_eq!(
        take(&mut late).iter().map(short).collect::<Vec<_>>(),
        told([("new", Some("1"), false)])
    );

    let before = db.position();
    db.clear().unwrap();
    assert!(matches!(refusal(&db, before), Error::HistoryGone { .. }));
    assert!(matches!(late.try_recv().unwrap_err(), Error::HistoryGone { .. }));
    let cleared = db.position();
    assert_eq!(since(&db, cleared), []);
    // The empty segment in which the log was to continue is removed.
    let db = lab.reopen(db);
    assert_eq!((since(&db, cleared), db.position()), (vec![], cleared));
    db.put("newer", "2").unwrap();
    let newer = told([("newer", Some("2"), false)]);
    assert_eq!(since(&db, cleared), newer);
    assert_eq!(since(&lab.reopen(db), cleared), newer);
}

// Regression: the last change of most segments is followed by a lone mark or an end entry. A
// follower that had received all changes was told to resync when such a segment was merged.
#[test]
fn a_follower_with_all_changes_of_a_segment_survives_its_removal() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let marked = db.position();
    db.sync().unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(db.position(), marked);
    let db = lab.reopen(db);
    assert_eq!(db.position(), marked, "a mark is not a change");
    merge_all(&db);
    assert_eq!(history(&db), marked.place());
    assert_eq!((since(&db, marked), db.position()), (vec![], marked));
    let db = lab.reopen(db);
    assert_eq!((since(&db, marked), db.position()), (vec![], marked));
    db.put("b", "2").unwrap();
    let ended = db.position();
    merge_all(&db);
    assert_eq!(history(&db), ended.place(), "an end entry is not a change");
    assert_eq!(db.position(), ended);
    assert_eq!(since(&lab.reopen(db), ended), []);
}

#[test]
fn merged_segments_report_no_change_a_second_time() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    merge_all(&db);
    let position = db.position();
    db.put("b", "2").unwrap();
    let expected = told([("b", Some("2"), false)]);
    assert_eq!(since(&db, position), expected);
    // The merged segment has a higher id, but older entries.
    merge_all(&db);
    db.put("c", "3").unwrap();
    assert!(refusal(&db, position).needs_resync());
    let mut copied = begin_merge(&db, u64::MAX);
    while copied.step(&*db.inner).unwrap().is_some() {}
    assert_eq!(since(&db, db.position()), []);
}

#[test]
fn positions_of_other_stores_and_lost_ones_are_refused() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    let synced = db.position();
    db.put("b", "2").unwrap();
    let lost = db.position();
    let other = Lab::new().open();
    assert!(matches!(refusal(&other, synced), Error::ForeignPosition { .. }));
    assert!(refusal(&other, synced).needs_resync());
    let image = lab.powered_off(|_| false);
    for read_only in [true, false] {
        let again = image.try_open_in_role(read_only).unwrap();
        assert_eq!(since(&again, synced), []);
        let error = refusal(&again, lost);
        assert!(matches!(error, Error::PositionLost { .. }) && error.needs_resync(), "{error}");
    }
    let db = image.open();
    db.put("c", "3").unwrap();
    assert_eq!(since(&db, synced), told([("c", Some("3"), false)]));
    assert!(matches!(refusal(&db, lost), Error::PositionLost { .. }));
    // Also after the segment that it was in is removed, and after many more writes.
    merge_all(&db);
    assert!(refusal(&db, lost).needs_resync());

    let between = Position::new(synced.store_id(), Place::new(SegmentId(1), 72));
    let error = refusal(&lab.open_read_only(), between);
    assert!(matches!(error, Error::InvalidPosition { .. }) && error.is_invalid_input(), "{error}");
    for text in
        ["", "1-2", "0000000000000001-000000000000000g", "+000000000000001-0000000000000001"]
    {
        assert!(matches!(text.parse::<Position>(), Err(Error::InvalidPosition { .. })), "{text}");
    }
}

#[test]
fn removing_empty_segments_invalidates_no_position() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let a = db.position();
    // The active segment is empty at first; then it holds a mark, but no change.
    db.inner.log().unwrap().rotate_active().unwrap();
    assert_eq!(db.position(), a);
    let mut live = db.changes(a).unwrap();
    db.sync().unwrap();
    db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
    assert_eq!(take(&mut live), []);
    assert_eq!((live.resume_position(), db.position()), (a, a));
    // A reader finds them, too.
    assert_eq!(lab.open_read_only().position(), a);
    let db = lab.reopen(db);
    assert_eq!(lab.logs().len(), 1);
    assert_eq!(
        (since(&db, a), since(&db, live.resume_position()), db.position()),
        (vec![], vec![], a)
    );
    db.put("b", "2").unwrap();
    assert_eq!(since(&db, a), told([("b", Some("2"), false)]));
    assert_eq!(take(&mut live), [], "its store is closed and has no more changes");
}

#[test]
fn a_prefix_filter_keeps_batches_together_and_ends_them_correctly() {
    let db = Lab::new().open();
    let mut users = db.watch_prefix("u/").unwrap();
    let batch: Batch =
        ["o/1", "u/1", "o/2", "u/2", "o/3"].map(|key| (key, "")).into_iter().collect();
    db.write(&batch).unwrap();
    db.put("o/4", "").unwrap();
    db.put("u/3", "").unwrap();
    let first = users.try_recv().unwrap().unwrap();
    assert_eq!(short(&first), ("u/1".into(), Some(String::new()), true));
    let rest: Vec<Told> = take(&mut users).iter().map(short).collect();
    assert_eq!(rest, told([("u/2", Some(""), false), ("u/3", Some(""), false)]));
    // In the middle of a batch.
    let resumed = take(&mut db.changes(first.position).unwrap().prefix("u/"));
    assert_eq!(resumed.iter().map(short).collect::<Vec<_>>(), rest);
    db.put("o/5", "").unwrap();
    assert_eq!((take(&mut users), users.resume_position()), (vec![], db.position()));
}

#[test]
fn a_durable_follower_receives_only_durable_changes() {
    let lab = Lab::new();
    let db = lab.open();
    let mut durable = db.changes(Position::START).unwrap().durable();
    db.write(Batch::new().put("a", "1").put("b", "2")).unwrap();
    assert_eq!(take(&mut durable), []);
    db.sync().unwrap();
    db.put("c", "3").unwrap();
    assert_eq!(take(&mut durable).len(), 2);
    // A rotated segment is not durable before it is sealed, whatever follows it.
    db.inner.log().unwrap().rotate_active().unwrap();
    db.put("d", "4").unwrap();
    assert_eq!(take(&mut durable), []);
    db.inner.seal_rotated().unwrap();
    assert_eq!(
        take(&mut durable).iter().map(short).collect::<Vec<_>>(),
        told([("c", Some("3"), false)])
    );
    let reader = lab.open_read_only();
    assert_eq!(take(&mut reader.changes(Position::START).unwrap().durable()).len(), 3);
    assert_eq!(take(&mut reader.changes(Position::START).unwrap()).len(), 4);
    assert_eq!(reader.changes(Position::START).unwrap().recv().unwrap().unwrap().key, "a");
    db.close().unwrap();
    assert_eq!(
        take(&mut durable).iter().map(short).collect::<Vec<_>>(),
        told([("d", Some("4"), false)])
    );
}

#[test]
fn a_closed_store_reports_its_last_changes_and_its_lock_is_free() {
    let lab = Lab::new();
    let db = lab.open();
    let mut changes = db.changes(Position::START).unwrap();
    for number in 0..50 {
        db.put(number.to_string(), "x".repeat(100)).unwrap();
    }
    db.close().unwrap();
    let db = lab.open();
    merge_all(&db);
    assert_eq!(changes.by_ref().map(Result::unwrap).count(), 50);
    assert_eq!(changes.recv().unwrap(), None);

    // After a failed write the content of the files is unknown, and recovery cuts them.
    let mut changes = db.changes(db.position()).unwrap();
    db.put("a", "1").unwrap();
    kill(db);
    assert!(changes.try_recv().unwrap_err().is_poisoned());
    let told = changes.by_ref();
    assert!(told.next().unwrap().unwrap_err().is_poisoned());
    assert!(told.next().is_none(), "an iterator ends after an error");
    lab.open().close().unwrap();
}

// A prepared segment is not part of the log, and may never become one.
#[test]
fn prepared_segments_are_skipped() {
    let lab = Lab::new();
    let db = lab.open();
    let mut live = db.changes(Position::START).unwrap();
    for number in 0..40 {
        db.put(number.to_string(), "x".repeat(number * 29 % 700)).unwrap();
        db.inner.log().unwrap().prepare_next().unwrap();
        assert_eq!(take(&mut live).len(), 1);
    }
    // The prepared segment is too small for this entry, and is removed.
    db.put("large", "x".repeat(5000)).unwrap();
    assert_eq!(take(&mut live).len(), 1);
    assert_eq!(since(&lab.reopen(db), Position::START).len(), 41);
}

#[test]
fn a_store_merged_by_an_older_release_does_not_claim_its_whole_history() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    merge_all(&db);
    db.close().unwrap();
    let path = Dir::new(DIR.into()).manifest();
    let bytes = lab.twin.contents(&path).unwrap();
    let mut manifest = Manifest::decode(&bytes, &path).unwrap();
    manifest.history = None;
    lab.twin.put_file(&path, manifest.encode().into_bytes());
    let db = lab.open();
    assert!(matches!(refusal(&db, Position::START), Error::HistoryGone { .. }));
    let position = db.position();
    for number in 0..40 {
        db.put(number.to_string(), "x".repeat(100)).unwrap();
    }
    db.inner.work();
    assert_eq!(since(&db, position).len(), 40);
    assert_eq!(since(&lab.reopen(db), position).len(), 40);
}

#[test]
fn an_unreadable_value_is_an_error_each_time_and_nothing_is_skipped() {
    let lab = Lab::new();
    let db = lab.open();
    for key in ["a", "b"] {
        db.put(key, "value").unwrap();
    }
    let first = take(&mut db.changes(Position::START).unwrap())[0].position;
    db.close().unwrap();
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    let at = bytes.windows(5).rposition(|bytes| bytes == b"value").unwrap();
    bytes[at] ^= 1;
    lab.twin.put_file(&path, bytes);
    let db = lab.open();
    let mut changes = db.changes(Position::START).unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().position, first);
    for _ in 0..2 {
        assert!(changes.try_recv().unwrap_err().is_corruption());
        assert_eq!(changes.resume_position(), first);
    }
}

#[test]
fn an_unreadable_rest_of_a_batch_is_an_error_each_time_and_nothing_is_skipped() {
    // Regression: `batch_continues` was determined after the change, and only once the change had
    // been consumed.
    let lab = Lab::new();
    let db = lab.open();
    db.write(Batch::new().put("a", "1").put("b", "damaged")).unwrap();
    db.close().unwrap();
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    let at = bytes.windows(7).rposition(|bytes| bytes == b"damaged").unwrap();
    bytes[at] ^= 1;
    lab.twin.put_file(&path, bytes);
    let db = lab.open();
    let mut changes = db.changes(Position::START).unwrap();
    let before = changes.resume_position();
    for _ in 0..3 {
        assert!(changes.try_recv().unwrap_err().is_corruption());
        assert_eq!(changes.resume_position(), before);
    }
}

#[test]
fn a_store_merged_and_closed_by_an_older_release_stays_openable() {
    // Such a store's history is assumed to begin where the next segment will, at the bound of the
    // ids. Regression: if that was written before an id was reserved, by a backup or by a merge
    // that only drops entries, the store was refused.
    let lab = Lab::new();
    let db = lab.open();
    for number in 0..8 {
        let options = WriteOptions::new().ttl(Duration::from_secs(5));
        db.put_opt(number.to_string(), "x".repeat(300), options).unwrap();
    }
    merge_all(&db);
    db.close().unwrap();
    let path = Dir::new(DIR.into()).manifest();
    let mut manifest = Manifest::decode(&lab.twin.contents(&path).unwrap(), &path).unwrap();
    manifest.history = None;
    lab.twin.put_file(&path, manifest.encode().into_bytes());
    let db = lab.open();
    let position = db.position();
    db.backup("/backup").unwrap();
    lab.hands.advance(Duration::from_secs(10));
    merge_all(&db);
    assert_eq!(db.stats().sealed_segments, 0);
    let db = lab.reopen(db);
    assert_eq!(since(&db, position), []);
    let backup = Bitcask::open_on(&lab.env(), Path::new("/backup"), lab.options.clone());
    assert_eq!(since(&backup.unwrap(), position), []);
}

#[test]
fn a_waiting_follower_of_a_failing_store_gets_an_error_not_the_end() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.sync().unwrap();
    db.put("not durable", "1").unwrap();
    let mut changes = db.changes(Position::START).unwrap().durable();
    assert_eq!(take(&mut changes).len(), 1);
    let waiting = std::thread::spawn(move || changes.recv());
    db.kill();
    assert!(waiting.join().unwrap().unwrap_err().is_poisoned());
}
