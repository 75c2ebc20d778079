//! Wrong clocks: a log whose timestamps are far ahead of the clock, and a clock that is set back
//! when nothing in the log shows its timestamps any more.

use std::ops::ControlFlow;

use crate::clock::TIME_MAX;
use crate::manifest::Manifest;
use crate::options::MergeOptions;
use crate::repair::{salvage_on, verify_on};
use crate::store::tests::*;

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const YEARS_AHEAD: [u32; 4] = [0, 5, 11, 50];

/// One segment for everything.
fn whole() -> Lab {
    let options = Options::new().segment_size(8 << 20).sync_policy(SyncPolicy::Never);
    Lab::new().with(options.merge_policy(crate::MergePolicy::Manual))
}

/// Flips a bit in the first entry of a segment.
fn damage_first_entry(lab: &Lab, path: &Path) {
    let mut bytes = lab.twin.contents(path).unwrap();
    bytes[usize::try_from(FIRST_OFFSET).unwrap() + 22] ^= 1;
    lab.twin.put_file(path, bytes);
}

/// What happens to the only sealed segment before the log continues.
const BEFORE: [&str; 4] =
    ["it stays", "a merge drops it", "a clear drops it", "its hint is missing"];

/// A store that was written while the clock was ahead, and reopened with the clock corrected.
fn ahead(years: u32, before: &str) -> (Lab, Bitcask) {
    let lab = whole();
    lab.hands.advance(YEAR * years);
    let db = lab.open();
    db.put("seed", "x").unwrap();
    if before == "a merge drops it" {
        db.delete("seed").unwrap();
    }
    db.close().unwrap();
    if before == "its hint is missing" {
        lab.delete_hints();
    }
    lab.hands.step_back(YEAR * years);
    let db = lab.open();
    match before {
        "a merge drops it" => drop(db.merge_opt(MergeOptions::new().force(true)).unwrap()),
        "a clear drops it" => db.clear().unwrap(),
        _ => {}
    }
    (lab, db)
}

fn put_durably(db: &Bitcask) {
    for key in ["a", "b", "c", "d"] {
        db.put(key, "durable").unwrap();
        db.sync().unwrap();
    }
}

/// A device without a battery-backed clock, or with a clock that was wrong once: the log continues
/// from its highest timestamp. Regression: with timestamps more than ten years ahead of the clock,
/// marks were ignored, and durable data was cut off as torn.
#[test]
fn durable_data_is_not_cut_however_far_ahead_of_the_clock_its_times_are() {
    for (years, before) in YEARS_AHEAD.into_iter().flat_map(|y| BEFORE.map(|before| (y, before))) {
        let (lab, db) = ahead(years, before);
        put_durably(&db);
        let lab = lab.powered_off(|_| false);
        kill(db);
        let (_, path) = lab.logs().pop().unwrap();
        damage_first_entry(&lab, &path);
        let told = verify_on(&lab.env(), Path::new(DIR)).unwrap();
        for opened in
            [told.opening.map(drop), lab.try_open_read_only().map(drop), lab.try_open().map(drop)]
        {
            let error = opened.expect_err("opening must fail instead of cutting durable data");
            assert!(error.is_corruption(), "{years} years ahead, {before}: {error}");
        }
    }
}

#[test]
fn a_refresh_reports_damage_however_far_ahead_of_the_clock_the_times_are() {
    for (years, before) in YEARS_AHEAD.into_iter().flat_map(|y| BEFORE.map(|before| (y, before))) {
        let (lab, db) = ahead(years, before);
        let reader = lab.open_read_only();
        put_durably(&db);
        kill(db);
        let (_, path) = lab.logs().pop().unwrap();
        let whole = lab.twin.contents(&path).unwrap();
        damage_first_entry(&lab, &path);
        let error = reader.refresh().unwrap_err();
        assert!(error.is_corruption(), "{years} years ahead, {before}: {error}");
        lab.twin.put_file(&path, whole);
        assert!(reader.refresh().unwrap());
        assert_eq!(reader.get("d").unwrap().unwrap(), "durable");
    }
}

/// Salvages a store, and returns the number of keys.
fn salvage(lab: &Lab) -> u64 {
    let (from, to) = (Path::new(DIR), Path::new("/rescued"));
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = salvage_on(&lab.env(), from, to, &lab.options, go_on).unwrap();
    let db = Bitcask::open_on(&lab.env(), to, lab.options.clone()).unwrap();
    assert_eq!(db.len().unwrap(), report.keys);
    report.keys
}

/// Regression: one flipped byte lost all entries after it, because none was allowed a timestamp
/// later than ten years from now.
#[test]
fn salvage_finds_entries_after_damage_however_far_ahead_of_the_clock() {
    for (years, merged, hints) in
        YEARS_AHEAD.into_iter().flat_map(|years| [(years, true, true), (years, true, false)]).chain(
            YEARS_AHEAD.into_iter().flat_map(|years| [(years, false, true), (years, false, false)]),
        )
    {
        let (lab, db) = ahead(years, "it stays");
        for number in 0..100_u32 {
            db.put(number.to_be_bytes(), "durable").unwrap();
        }
        if merged {
            db.merge_opt(MergeOptions::new().force(true)).unwrap();
        }
        db.put("tail", "x").unwrap();
        db.close().unwrap();
        let size = |path: &PathBuf| lab.twin.contents(path).unwrap().len();
        let (_, path) = lab.logs().into_iter().max_by_key(|(_, path)| size(path)).unwrap();
        damage_first_entry(&lab, &path);
        if !hints {
            lab.delete_hints();
        }
        let told = format!("{years} years ahead, merged: {merged}, hints: {hints}");
        assert_eq!(salvage(&lab), 101, "{told}");
    }
}

/// In this case nothing shows the store's time: there is no hint, and the header was written when
/// the clock was right again.
#[test]
fn salvage_finds_entries_after_the_first_one_of_the_only_segment() {
    for (years, closed) in YEARS_AHEAD.into_iter().flat_map(|y| [(y, true), (y, false)]) {
        let (lab, db) = ahead(years, "a merge drops it");
        for number in 0..100_u32 {
            db.put(number.to_be_bytes(), "durable").unwrap();
        }
        if closed {
            db.close().unwrap();
        } else {
            kill(db);
        }
        lab.delete_hints();
        let logs = lab.logs();
        let [(_, path)] = logs.as_slice() else { panic!("{logs:?}") };
        damage_first_entry(&lab, path);
        for with_manifest in [true, false] {
            let lab = lab.killed();
            if !with_manifest {
                lab.twin.delete_file(&Dir::new(DIR.into()).manifest());
            }
            assert_eq!(salvage(&lab), 99, "{years} years ahead, closed: {closed}");
        }
    }
}

/// Entries above 1 MiB are tried immediately only if something shows the store's time.
#[test]
fn salvage_finds_large_entries_whatever_shows_their_time() {
    let shown_by = ["another segment", "the manifest", "a hint", "nothing but the clock"];
    for (years, shown_by) in YEARS_AHEAD.into_iter().flat_map(|y| shown_by.map(|by| (y, by))) {
        let alone = shown_by != "another segment";
        let (lab, db) = ahead(years, if alone { "a merge drops it" } else { "it stays" });
        for key in ["a", "b", "c"] {
            db.put(key, vec![7; 1_200_000]).unwrap();
        }
        db.close().unwrap();
        damage_first_entry(&lab, &lab.logs().pop().unwrap().1);
        if shown_by != "a hint" {
            lab.delete_hints();
        }
        if alone && shown_by != "the manifest" {
            lab.twin.delete_file(&Dir::new(DIR.into()).manifest());
        }
        let found = if alone { 2 } else { 3 };
        assert_eq!(salvage(&lab), found, "{years} years, {shown_by}");
    }
}

/// Bytes that look like large headers from the far future at every offset, with nothing after them
/// that disproves it. The attempts made last have a budget, too.
#[test]
fn crafted_timestamps_do_not_make_salvage_quadratic() {
    let lab = whole();
    let db = lab.open();
    db.put("before", "1").unwrap();
    // Key size 0x4007, no flags, value size 2 MiB. With a four-byte key, the value starts at a
    // multiple of 8.
    db.put("evil", 0x0020_0000_4007_0000_u64.to_be_bytes().repeat(3 << 17)).unwrap();
    kill(db);
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    bytes[usize::try_from(log_entries(&lab)[1].place.offset).unwrap()] ^= 1;
    let size = bytes.len();
    lab.twin.put_file(&path, bytes);
    let calls = lab.twin.call_count();
    assert_eq!(salvage(&lab), 1);
    let calls = lab.twin.call_count() - calls;
    println!("{calls} calls for {size} bytes");
    assert!(calls < 40 * (size >> 18), "{calls} calls for {size} bytes");
}

/// Salvages large entries, each eleven years later than the one before it and directly after a
/// damaged one. Returns the number of disk calls per MiB.
fn calls_for_rising_times(entries: u32) -> usize {
    let size = 256 << 20;
    let lab = Lab::new().with(whole().options.segment_size(size));
    let db = lab.open();
    db.put("before", "1").unwrap();
    for number in 0..entries {
        db.put(format!("small{number}"), "x").unwrap();
        lab.hands.advance(YEAR * 11);
        db.put(format!("large{number}"), vec![7; (1 << 20) + 64]).unwrap();
    }
    kill(db);
    lab.hands.step_back(YEAR * 11 * entries);
    let (_, path) = lab.logs().remove(0);
    let mut bytes = lab.twin.contents(&path).unwrap();
    for entry in log_entries(&lab).iter().skip(1).step_by(2) {
        bytes[usize::try_from(entry.place.offset).unwrap()] ^= 1;
    }
    let size = bytes.len();
    lab.twin.put_file(&path, bytes);
    let calls = lab.twin.call_count();
    assert_eq!(salvage(&lab), u64::from(entries) + 1);
    (lab.twin.call_count() - calls) / (size >> 20)
}

/// Regression: each entry was found by a second search, made after the first one had scanned the
/// rest of the segment.
#[test]
fn timestamps_that_rise_by_decades_do_not_make_salvage_quadratic() {
    let (few, many) = (calls_for_rising_times(6), calls_for_rising_times(24));
    assert!(many < 2 * few, "{few} calls per MiB with few entries, {many} with many");
}

/// Ways in which the log loses its highest timestamp after a reader was opened.
const LOSSES: [&str; 4] = ["clear", "merge of deletes", "merge of expired keys", "lone mark"];

/// Makes the log lose its highest timestamp after a reader was opened. Returns the reader.
fn lose_times(lab: &Lab, db: &Bitcask, loss: &str) -> ReadOnly {
    db.put("k", "old").unwrap();
    lab.hands.advance(Duration::from_millis(1));
    match loss {
        "merge of deletes" => {
            db.put("gone", "x").unwrap();
            db.delete("gone").unwrap();
        }
        "merge of expired keys" => {
            let ttl = WriteOptions::new().ttl(Duration::from_millis(1));
            db.put_opt("gone", "x", ttl).unwrap();
        }
        "lone mark" => {
            db.sync().unwrap();
            db.inner.log().unwrap().rotate_active().unwrap();
            lab.hands.advance(Duration::from_millis(1));
            db.inner.log().unwrap().mark_if_due(Duration::ZERO).unwrap();
        }
        _ => {}
    }
    let reader = lab.open_read_only();
    lab.hands.advance(Duration::from_millis(1));
    match loss {
        "clear" => db.clear().unwrap(),
        "lone mark" => {}
        _ => drop(db.merge_opt(MergeOptions::new().force(true)).unwrap()),
    }
    reader
}

/// Snapshots go by timestamps, including those of a reader in another process, of which the writer
/// does not know. Regression: if nothing in the log showed the highest timestamp any more and the
/// clock had been set back, later writes were not newer than such a snapshot, which showed them
/// after a refresh.
#[test]
fn a_readers_snapshot_shows_nothing_newer_despite_a_clock_set_back() {
    let backs = [Duration::ZERO, Duration::from_millis(10), 20 * YEAR];
    for (loss, back) in LOSSES.into_iter().flat_map(|loss| backs.map(|back| (loss, back))) {
        for closed in [true, false] {
            let (lab, told) = (whole(), format!("{loss}, {back:?} back, closed: {closed}"));
            let db = lab.open();
            let reader = lose_times(&lab, &db, loss);
            let snapshot = reader.snapshot();
            if closed {
                db.close().unwrap();
            } else {
                kill(db);
            }
            lab.hands.step_back(back);
            let db = lab.open();
            db.put("k", "new").unwrap();
            reader.refresh().unwrap();
            assert_eq!(snapshot.get("k").unwrap().unwrap(), "old", "{told}");
            let pairs: Vec<_> = snapshot.range(..).map(|pair| pair.unwrap().1).collect();
            assert_eq!(pairs, ["old"], "{told}");
            assert_eq!(reader.get("k").unwrap().unwrap(), "new");
            assert_eq!(reader.snapshot().get("k").unwrap().unwrap(), "new");
            kill(db);
        }
    }
}

/// Opens a store, puts a key, and returns the entry's timestamp.
fn time_of_a_put(lab: &Lab, dir: &str) -> u64 {
    let db = Bitcask::open_on(&lab.env(), Path::new(dir), lab.options.clone()).unwrap();
    db.put("later", "x").unwrap();
    let time = db.inner.writer().unwrap().log.lock().last_timestamp();
    kill(db);
    time
}

#[test]
fn timestamps_increase_despite_a_clock_set_back_and_a_log_without_times() {
    for (loss, closed) in LOSSES.into_iter().flat_map(|loss| [(loss, true), (loss, false)]) {
        let lab = whole();
        let db = lab.open();
        drop(lose_times(&lab, &db, loss));
        let highest = db.inner.writer().unwrap().log.lock().last_timestamp();
        db.backup("/backup").unwrap();
        let lab = if closed {
            db.close().unwrap();
            lab.killed()
        } else {
            lab.powered_off(|_| true)
        };
        lab.hands.step_back(20 * YEAR);
        // Openings that write nothing keep the known timestamps.
        lab.reopen(lab.open()).close().unwrap();
        salvage(&lab);
        for dir in [DIR, "/rescued", "/backup"] {
            let time = time_of_a_put(&lab, dir);
            assert!(time > highest, "{loss}, closed: {closed}, {dir}: {time}, not above {highest}");
        }
    }
}

/// A wrong hint with a valid checksum must not lead to an unreadable manifest.
#[test]
fn merging_a_segment_with_a_hint_from_the_end_of_time_leaves_a_store_that_opens() {
    use crate::segment::hint::{Hint, HintSource};
    let lab = whole();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let identity = db.inner.identity;
    db.close().unwrap();
    let (id, path) = lab.hints().pop().unwrap();
    let length = lab.twin.contents(&lab.logs().pop().unwrap().1).unwrap().len() as u64;
    let source = HintSource { id, identity, length };
    let mut hint = Hint::decode(&lab.twin.contents(&path).unwrap(), source).unwrap();
    hint.summary.last_timestamp = u64::MAX;
    lab.twin.put_file(&path, hint.encode(source));
    let db = lab.open();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    let db = lab.reopen(db);
    db.clear().unwrap();
    db.put("b", "2").unwrap();
    check(&lab.reopen(db), &model([("b", "2")]));
}

/// A store whose log has a timestamp that no clock will reach, in its manifest or in an entry.
fn at_the_end_of_time(lab: &Lab, by_entry: bool) {
    let db = lab.open();
    db.put("a", "1").unwrap();
    if by_entry {
        let ahead = TIME_MAX - (1 << 20) - 2 - db.inner.clock.now();
        lab.hands.jump(Duration::from_micros(ahead));
        db.put("late", "1").unwrap();
        db.put("last", "1").unwrap();
        lab.hands.step_back(Duration::from_micros(ahead));
    }
    db.close().unwrap();
    if !by_entry {
        let dir = Dir::new(DIR.into());
        let mut manifest = Manifest::read(&lab.env().fs, &dir).unwrap().unwrap();
        manifest.note_time(u64::MAX);
        lab.twin.put_file(&dir.manifest(), manifest.encode().into_bytes());
    }
}

/// Regression: timestamps were repeated there, so snapshots and transactions confused versions.
#[test]
fn a_store_at_the_end_of_time_refuses_writes_and_can_be_read_and_copied() {
    for by_entry in [true, false] {
        let lab = whole();
        at_the_end_of_time(&lab, by_entry);
        let db = lab.open();
        assert_eq!(db.get("a").unwrap().unwrap(), "1");
        let writes = [
            db.put("b", "2").unwrap_err(),
            db.delete("a").unwrap_err(),
            db.write(Batch::new().put("b", "2").put("c", "3")).unwrap_err(),
            db.update("a", |_| Some("2")).unwrap_err(),
        ];
        for error in writes {
            assert!(matches!(error, Error::EndOfTime { .. }), "{error}");
        }
        assert_eq!(db.snapshot().iter().count(), if by_entry { 3 } else { 1 });
        db.merge_opt(MergeOptions::new().force(true)).unwrap();
        db.clear().unwrap();
        assert!(matches!(db.put("b", "2").unwrap_err(), Error::EndOfTime { .. }));
        let db = lab.reopen(db);
        assert!(db.is_empty().unwrap() && db.put("b", "2").is_err());
    }
}

#[test]
fn a_clock_at_the_end_of_time_writes_no_entry() {
    let lab = whole();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let ahead = Duration::from_micros(TIME_MAX - db.inner.clock.now());
    lab.hands.jump(ahead);
    assert!(matches!(db.put("b", "2").unwrap_err(), Error::EndOfTime { .. }));
    lab.hands.step_back(ahead);
    let db = lab.reopen(db);
    db.put("b", "2").unwrap();
    check(&db, &model([("a", "1"), ("b", "2")]));
}
