//! Clock changes while values have a time to live: what reads return, what `ttl` returns, and what
//! merges drop. The rows are those of the table in decision 37.

use crate::options::MergeOptions;
use crate::store::tests::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn lab() -> Lab {
    Lab::new().with(Options::new().merge_policy(crate::MergePolicy::Manual))
}

fn mortal(ttl: Duration) -> WriteOptions {
    WriteOptions::new().ttl(ttl)
}

fn left(db: &Reader, key: &str) -> Option<Duration> {
    match db.ttl(key).unwrap()? {
        Ttl::In(left) => Some(left),
        Ttl::Never => panic!("{key} does not expire"),
    }
}

fn merge(db: &Bitcask) -> crate::MergeReport {
    db.merge_opt(MergeOptions::new().force(true)).unwrap()
}

/// Checks that all ways to read, including transactions, agree on whether a key is present.
fn assert_present(db: &Bitcask, key: &str, exists: bool) {
    assert_reads(db, key, exists);
    let seen = db.transaction(|transaction| transaction.get(key)).unwrap();
    assert_eq!(seen.is_some(), exists, "a transaction");
}

/// Checks that all ways to read that both roles have agree on whether a key is present.
fn assert_reads(db: &Reader, key: &str, exists: bool) {
    let bytes = key.as_bytes();
    assert_eq!(db.get(key).unwrap().is_some(), exists, "get");
    assert_eq!(db.ttl(key).unwrap().is_some(), exists, "ttl");
    assert_eq!(db.keys_unordered().any(|found| *found.unwrap() == *bytes), exists, "keys");
    let snapshot = db.snapshot();
    assert_eq!(snapshot.get(key).unwrap().is_some(), exists, "a snapshot");
    let forward = snapshot.range(..).any(|pair| *pair.unwrap().0 == *bytes);
    let backward = snapshot.range(..).rev().any(|pair| *pair.unwrap().0 == *bytes);
    assert_eq!((forward, backward), (exists, exists), "ranges");
}

/// The ways in which an open store's clock can be behind the time that the store has seen.
const BEHIND: [&str; 3] = ["ahead at open", "jumped ahead and back", "set back"];

fn behind(lab: &Lab, how: &str) -> Bitcask {
    match how {
        "ahead at open" => {
            lab.hands.jump(DAY);
            let db = lab.open();
            lab.hands.step_back(DAY);
            db
        }
        "jumped ahead and back" => {
            let db = lab.open();
            db.put("before", "x").unwrap();
            lab.hands.jump(DAY);
            db.put("ahead", "x").unwrap();
            lab.hands.step_back(DAY);
            db
        }
        _ => {
            let db = lab.open();
            db.put("before", "x").unwrap();
            lab.hands.step_back(DAY);
            db
        }
    }
}

/// Regression: such a key stayed for a day, always with two seconds left.
#[test]
fn a_ttl_keeps_running_after_the_clock_was_set_back() {
    for how in BEHIND {
        let lab = lab();
        let db = behind(&lab, how);
        assert!(db.put_if_absent_opt("lease", "mine", mortal(2 * SECOND)).unwrap(), "{how}");
        assert_eq!(left(&db, "lease"), Some(2 * SECOND), "{how}");
        assert!(!db.put_if_absent("lease", "other's").unwrap());
        lab.hands.advance(SECOND);
        assert_eq!(left(&db, "lease"), Some(SECOND), "{how}");
        assert_present(&db, "lease", true);
        lab.hands.advance(SECOND);
        assert_present(&db, "lease", false);
        assert!(db.put_if_absent("lease", "other's").unwrap(), "{how}");
    }
}

/// Regression: 86,398 seconds were left.
#[test]
fn a_ttl_continues_where_it_was_after_a_reopen() {
    for (how, closed) in BEHIND.into_iter().flat_map(|how| [(how, true), (how, false)]) {
        let lab = lab();
        let db = behind(&lab, how);
        db.put_opt("lease", "mine", mortal(4 * SECOND)).unwrap();
        lab.hands.advance(SECOND);
        db.put_opt("later", "x", mortal(4 * SECOND)).unwrap();
        let (lab, db) = if closed {
            (lab.clone(), lab.reopen(db))
        } else {
            let lab = lab.killed();
            (lab.clone(), lab.open())
        };
        let told = format!("{how}, closed: {closed}");
        let about = |duration: Option<Duration>| duration.map(|left| left.as_millis().div_ceil(10));
        assert_eq!(about(left(&db, "lease")), Some(300), "{told}");
        assert_eq!(about(left(&db, "later")), Some(400), "{told}");
        db.put_opt("new", "x", mortal(SECOND)).unwrap();
        assert_eq!(left(&db, "new"), Some(SECOND), "{told}");
        lab.hands.advance(SECOND);
        assert_present(&db, "new", false);
        assert_present(&db, "lease", true);
        lab.hands.advance(2 * SECOND);
        assert_present(&db, "lease", false);
        assert_present(&db, "later", true);
        let report = merge(&db);
        assert_eq!(report.expired_dropped, 2, "{told}");
        lab.hands.advance(SECOND);
        assert_present(&db, "later", false);
    }
}

/// Time passes even if a store is only opened briefly, again and again, and only read.
#[test]
fn a_ttl_keeps_running_without_further_writes() {
    for how in BEHIND {
        let lab = lab();
        let db = behind(&lab, how);
        db.put_opt("lease", "mine", mortal(4 * SECOND)).unwrap();
        let mut db = lab.reopen(db);
        for passed in 1..4 {
            lab.hands.advance(SECOND);
            let ttl = left(&db, "lease").unwrap() + SECOND / 2;
            assert_eq!(ttl.as_secs(), 4 - passed, "{how}");
            db = lab.reopen(db);
        }
        lab.hands.advance(SECOND);
        assert_present(&db, "lease", false);
        for _ in 0..2 {
            db = lab.reopen(db);
            assert_present(&db, "lease", false);
        }
    }
}

/// A device whose clock has lost the date and is corrected later.
#[test]
fn a_clock_that_starts_years_behind_continues_from_the_log() {
    let lab = lab();
    let db = lab.open();
    db.put_opt("short", "x", mortal(2 * SECOND)).unwrap();
    db.put_opt("hour", "x", mortal(HOUR)).unwrap();
    db.put_opt("year", "x", mortal(YEAR)).unwrap();
    db.close().unwrap();
    lab.hands.advance(2 * HOUR);
    lab.hands.step_back(20 * YEAR);
    let db = lab.open();
    assert_eq!(left(&db, "short").unwrap().as_secs(), 1);
    lab.hands.advance(2 * SECOND);
    assert_present(&db, "short", false);
    assert_present(&db, "hour", true);
    db.put_opt("new", "x", mortal(HOUR)).unwrap();
    lab.hands.jump(20 * YEAR);
    assert_present(&db, "hour", false);
    assert_present(&db, "year", true);
    assert_present(&db, "new", false);
    db.put_opt("newer", "x", mortal(HOUR)).unwrap();
    assert_eq!(left(&db, "newer"), Some(HOUR));
    let db = lab.reopen(db);
    assert_present(&db, "year", true);
    assert_eq!(left(&db, "newer"), Some(HOUR));
}

/// What happens while the clock is ahead, between two periods in which it is right.
const AHEAD: [&str; 6] = [
    "nothing",
    "a merge",
    "two merges",
    "a put and a merge",
    "a merge, reopened",
    "opened, a merge",
];

/// Regression: a merge permanently removed keys that had an hour left to live.
#[test]
fn keys_alive_by_the_corrected_clock_return_despite_merges() {
    for (what, by) in
        AHEAD.into_iter().flat_map(|what| [2 * HOUR, DAY, 73 * YEAR].map(|by| (what, by)))
    {
        let (lab, told) = (lab(), format!("{what}, {by:?} ahead"));
        let mut db = lab.open();
        db.put_opt("hour", "x", mortal(HOUR)).unwrap();
        db.put_opt("gone", "x", mortal(SECOND)).unwrap();
        db.put("endless", "x").unwrap();
        lab.hands.advance(SECOND);
        if what == "opened, a merge" {
            db.close().unwrap();
            lab.hands.jump(by);
            db = lab.open();
        } else {
            lab.hands.jump(by);
        }
        assert_present(&db, "hour", false);
        if what == "a put and a merge" {
            db.put_opt("ahead", "x", mortal(HOUR)).unwrap();
        }
        if what != "nothing" {
            // What has expired since the store's last entry before the close is just as uncertain.
            let certain = u64::from(what != "opened, a merge");
            assert_eq!(merge(&db).expired_dropped, certain, "{told}");
        }
        if what == "two merges" {
            lab.hands.advance(SECOND);
            assert_eq!(merge(&db).expired_dropped, 0, "{told}");
        }
        if what == "a merge, reopened" {
            db = lab.reopen(db);
            assert_present(&db, "hour", false);
        }
        lab.hands.step_back(by);
        // No key returns while the store is open.
        assert_present(&db, "hour", false);
        merge(&db);
        let db = lab.reopen(db);
        assert_present(&db, "hour", true);
        assert!(left(&db, "hour").unwrap() > 59 * HOUR / 60, "{told}");
        assert_present(&db, "gone", false);
        assert_present(&db, "endless", true);
        if what == "a put and a merge" {
            assert!(left(&db, "ahead").unwrap() <= HOUR, "{told}");
        }
        lab.hands.advance(HOUR);
        assert_present(&db, "hour", false);
    }
}

/// After a sleep of the machine, or while a store was closed, the clock seems to jump.
#[test]
fn expired_keys_are_dropped_a_day_after_a_clock_jump() {
    for closed in [true, false] {
        let lab = lab();
        let mut db = lab.open();
        db.put_opt("old", "x", mortal(2 * DAY)).unwrap();
        db.put("endless", "x").unwrap();
        if closed {
            db.close().unwrap();
            lab.hands.advance(YEAR);
            db = lab.open();
        } else {
            lab.hands.jump(YEAR);
        }
        // The space of a value put now is freed as soon as the value has expired.
        db.put_opt("new", "x", mortal(SECOND)).unwrap();
        lab.hands.advance(SECOND);
        assert_eq!((merge(&db).expired_dropped, db.len().unwrap()), (1, 2), "closed: {closed}");
        lab.hands.advance(86_398 * SECOND);
        assert_eq!((merge(&db).expired_dropped, db.len().unwrap()), (0, 2), "closed: {closed}");
        lab.hands.advance(SECOND);
        assert_eq!((merge(&db).expired_dropped, db.len().unwrap()), (1, 1), "closed: {closed}");
        assert_present(&db, "endless", true);
    }
}

/// A merge must not be planned repeatedly for entries that cannot be dropped yet.
#[test]
fn no_merge_is_planned_for_entries_it_would_not_drop() {
    let lab = Lab::new().with(Options::new());
    let db = lab.open();
    db.put_opt("hour", vec![7; 10_000], mortal(HOUR)).unwrap();
    let db = lab.reopen(db);
    lab.hands.jump(DAY);
    assert_eq!(db.segments().iter().map(|segment| segment.expired_size).sum::<u64>(), 0);
    assert!(db.needs_merge().segments.is_empty());
    lab.hands.advance(DAY);
    assert!(db.needs_merge().segments.len() == 1);
}

/// A step of less than a minute counts as an ordinary clock correction.
#[test]
fn small_clock_steps_do_not_keep_expired_keys() {
    let lab = lab();
    let db = lab.open();
    for _ in 0..3 {
        db.put_opt("key", "x", mortal(30 * SECOND)).unwrap();
        lab.hands.jump(40 * SECOND);
        assert_eq!(merge(&db).expired_dropped, 1);
        lab.hands.step_back(10 * SECOND);
    }
}

/// One store holds values written while the clock was right and values written while it was ahead.
#[test]
fn each_key_expires_by_the_clock_it_was_written_with() {
    let lab = lab();
    let db = lab.open();
    for (key, ttl) in [("a", 10), ("c", 30)] {
        db.put_opt(key, "right", mortal(ttl * SECOND)).unwrap();
    }
    lab.hands.jump(DAY);
    for (key, ttl) in [("b", 20), ("d", 40)] {
        db.put_opt(key, "ahead", mortal(ttl * SECOND)).unwrap();
    }
    lab.hands.step_back(DAY);
    let mut db = lab.reopen(db);
    let reader = lab.open_read_only();
    for (seconds, expected) in [(9, "abcd"), (1, "bcd"), (9, "bcd"), (1, "cd"), (10, "d"), (10, "")]
    {
        lab.hands.advance(seconds * SECOND);
        let expected: Vec<&[u8]> = expected.as_bytes().chunks(1).collect();
        let both: [&Reader; 2] = [&db, &reader];
        for db in both {
            let keys = db.range_keys(..).map(|key| key.unwrap().to_vec());
            assert_eq!(keys.collect::<Vec<_>>(), expected);
            for key in ["a", "b", "c", "d"] {
                assert_reads(db, key, expected.contains(&key.as_bytes()));
            }
        }
        for key in ["a", "b", "c", "d"] {
            assert_present(&db, key, expected.contains(&key.as_bytes()));
        }
        merge(&db);
        assert_eq!(db.len().unwrap(), expected.len() as u64);
        db = lab.reopen(db);
    }
}

/// A condition or a range is valid until its first key expires, by the clock of that key.
#[test]
fn conditions_on_a_key_fail_by_that_keys_clock() {
    for (key, jumps) in [("right", false), ("ahead", true)] {
        let lab = lab();
        let db = lab.open();
        db.put("first", "x").unwrap();
        if !jumps {
            db.put_opt(key, "x", mortal(2 * SECOND)).unwrap();
        }
        lab.hands.jump(DAY);
        db.put("time", "x").unwrap();
        if jumps {
            db.put_opt(key, "x", mortal(2 * SECOND)).unwrap();
        }
        lab.hands.step_back(DAY);
        let db = lab.reopen(db);
        assert!(db.compare_and_swap("first", Some(b"x"), Some(b"y")).unwrap().is_ok());
        let mut runs = 0;
        let seen = db.transaction(|transaction| {
            runs += 1;
            let seen = transaction.range(..).count();
            transaction.put("seen", "x");
            if runs == 1 {
                lab.hands.advance(2 * SECOND);
            }
            Ok(seen)
        });
        assert_eq!((seen.unwrap(), runs), (2, 2), "{key}");
        assert!(!db.delete(key).unwrap());
    }
}

/// The reader's clock is right, and the writer's is ahead.
#[test]
fn a_reader_judges_expiry_by_the_entrys_clock() {
    let lab = lab();
    let reader_lab = Lab { hands: Hands::new(), ..lab.clone() };
    let db = lab.open();
    db.put_opt("right", "x", mortal(2 * SECOND)).unwrap();
    let reader = reader_lab.open_read_only();
    lab.hands.jump(DAY);
    db.put_opt("ahead", "x", mortal(2 * SECOND)).unwrap();
    assert!(reader.refresh().unwrap());
    assert_reads(&reader, "right", true);
    assert_reads(&reader, "ahead", true);
    reader_lab.hands.advance(SECOND);
    assert_eq!(left(&reader, "ahead"), Some(SECOND));
    assert_eq!(left(&reader, "right"), Some(SECOND));
    reader_lab.hands.advance(SECOND);
    assert_reads(&reader, "right", false);
    assert_reads(&reader, "ahead", false);
}

/// 292,000 years is still finite.
#[test]
fn a_ttl_beyond_the_end_of_time_means_no_expiry() {
    let lab = lab();
    let db = lab.open();
    db.put_opt("put", "x", mortal(Duration::MAX)).unwrap();
    db.put_opt("expired", "x", mortal(HOUR)).unwrap();
    assert!(db.expire("expired", Duration::MAX).unwrap());
    db.write(Batch::new().put_opt("batch", "x", WriteOptions::new().ttl(Duration::MAX))).unwrap();
    db.update_opt("updated", mortal(Duration::MAX), |_| Some("x")).unwrap();
    assert!(db.put_if_absent_opt("inserted", "x", mortal(Duration::MAX)).unwrap());
    db.transaction(|it| {
        it.put_opt("transaction", "x", WriteOptions::new().ttl(Duration::MAX));
        Ok(())
    })
    .unwrap();
    let db = lab.reopen(db);
    assert_eq!(db.len().unwrap(), 6);
    for key in db.keys_unordered() {
        assert_eq!(db.ttl(key.unwrap()).unwrap(), Some(Ttl::Never));
    }
    db.put_opt("long", "x", mortal(100_000 * YEAR)).unwrap();
    assert_eq!(left(&db, "long"), Some(100_000 * YEAR));
}
