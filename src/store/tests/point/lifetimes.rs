//! How long a put key lives: as the write says, as the key did before, or by the store's default.

use std::time::UNIX_EPOCH;

use crate::store::tests::*;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A call that puts a value under the key "k", which may be present already.
type Put = fn(&Bitcask, WriteOptions);

const PUTS: [(&str, Put); 7] = [
    ("put", |db, options| db.put_opt("k", "new", options).unwrap()),
    ("update", |db, options| drop(db.update_opt("k", options, |_| Some("new")).unwrap())),
    ("compare_and_swap", |db, options| {
        let old = db.get("k").unwrap();
        let swapped = db.compare_and_swap_opt("k", old.as_deref(), Some(b"new"), options);
        swapped.unwrap().unwrap();
    }),
    ("compare_and_swap_versioned", |db, options| {
        let version = db.get_versioned("k").unwrap().map(|(_, version)| version);
        let swapped = db.compare_and_swap_versioned_opt("k", version, Some(b"new"), options);
        swapped.unwrap().unwrap();
    }),
    ("batch", |db, options| db.write(Batch::new().put_opt("k", "new", options)).unwrap()),
    ("whole batch", |db, options| db.write_opt(Batch::new().put("k", "new"), options).unwrap()),
    ("transaction", |db, options| {
        let put = |tx: &mut Transaction| {
            tx.put_opt("k", "new", options);
            Ok(())
        };
        db.transaction(put).unwrap();
    }),
];

fn in_seconds(seconds: u64) -> Ttl {
    Ttl::In(Duration::from_secs(seconds))
}

#[test]
fn every_put_keeps_or_sets_the_time_to_live_as_requested() {
    let (keep, mortal) = (WriteOptions::new().keep_ttl(true), WriteOptions::new().ttl(HOUR));
    let both = mortal.keep_ttl(true);
    for compression in Compression::all() {
        for (name, put) in PUTS {
            let lab = Lab::new();
            let lab = lab.clone().with(lab.options.compression(compression));
            let db = lab.open();
            let ttl = || db.ttl("k").unwrap();
            put(&db, keep);
            assert_eq!(ttl(), Some(Ttl::Never), "{name}: the key was absent");
            put(&db, both);
            assert_eq!(ttl(), Some(Ttl::Never), "{name}: the key had no time to live");
            put(&db, mortal);
            assert_eq!(ttl(), Some(in_seconds(3600)), "{name}");
            lab.hands.advance(MINUTE);
            put(&db, keep);
            assert_eq!(ttl(), Some(in_seconds(3540)), "{name}: kept");
            put(&db, both);
            assert_eq!(ttl(), Some(in_seconds(3540)), "{name}: keep_ttl takes precedence");
            put(&db, WriteOptions::new());
            assert_eq!(ttl(), Some(Ttl::Never), "{name}: not kept");
            put(&db, WriteOptions::new().ttl(MINUTE));
            lab.hands.advance(MINUTE);
            put(&db, both);
            assert_eq!(ttl(), Some(in_seconds(3600)), "{name}: an expired key counts as absent");
            let expected = raw(&db);
            check(&lab.reopen(db), &expected);
        }
    }
}

#[test]
fn an_insert_with_keep_ttl_has_no_time_to_live_to_keep() {
    let lab = Lab::new();
    let db = lab.open();
    let options = WriteOptions::new().ttl(MINUTE).keep_ttl(true);
    assert!(db.put_if_absent_opt("k", "1", options).unwrap());
    lab.hands.advance(MINUTE);
    assert!(db.put_if_absent_opt("k", "2", WriteOptions::new().keep_ttl(true)).unwrap());
    assert_eq!(db.ttl("k").unwrap(), Some(Ttl::Never));
}

#[test]
fn a_key_expires_at_the_requested_time() {
    for (name, put) in PUTS {
        let lab = Lab::new();
        let db = lab.open();
        let time = |seconds| {
            let now = crate::clock::system_time(lab.hands.clock().now());
            WriteOptions::new().expires_at(now + Duration::from_secs(seconds))
        };
        put(&db, time(60));
        assert_eq!(db.ttl("k").unwrap(), Some(in_seconds(60)), "{name}");
        lab.hands.advance(Duration::from_secs(59));
        assert!(db.contains_key("k").unwrap(), "{name}");
        lab.hands.advance(Duration::from_secs(1));
        assert!(!db.contains_key("k").unwrap(), "{name}");
        // The present, the beginning of time, and before that. The last time set is used.
        let beginning = std::time::UNIX_EPOCH;
        for past in [time(0), time(60).expires_at(beginning), time(60).expires_at(beginning - HOUR)]
        {
            put(&db, past);
            assert_eq!(db.ttl("k").unwrap(), None, "{name}");
        }
        put(&db, time(0).ttl(HOUR));
        assert_eq!(db.ttl("k").unwrap(), Some(in_seconds(3600)), "{name}");
        // The end of time means no expiry.
        let end = beginning + Duration::from_micros(crate::clock::TIME_MAX - 1);
        for never in [end, end + HOUR] {
            put(&db, WriteOptions::new().expires_at(never));
            assert_eq!(db.ttl("k").unwrap(), Some(Ttl::Never), "{name}");
        }
        put(&db, WriteOptions::new().expires_at(end - Duration::from_micros(1)));
        assert!(matches!(db.ttl("k").unwrap(), Some(Ttl::In(_))), "{name}");
        let expected = raw(&db);
        check(&lab.reopen(db), &expected);
    }
}

#[test]
fn a_store_may_have_a_default_time_to_live() {
    for (name, put) in PUTS {
        let lab = Lab::new();
        let db = lab.open();
        db.put("before", "x").unwrap();
        db.close().unwrap();
        let lab = lab.clone().with(lab.options.default_ttl(Some(HOUR)));
        let db = lab.open();
        let ttl = |key: &str| db.ttl(key).unwrap();
        assert_eq!(ttl("before"), Some(Ttl::Never), "{name}: the key was present already");
        put(&db, WriteOptions::new());
        assert_eq!(ttl("k"), Some(in_seconds(3600)), "{name}");
        put(&db, WriteOptions::new().ttl(MINUTE));
        assert_eq!(ttl("k"), Some(in_seconds(60)), "{name}");
        put(&db, WriteOptions::new().keep_ttl(true));
        assert_eq!(ttl("k"), Some(in_seconds(60)), "{name}");
        put(&db, WriteOptions::new().ttl(Duration::MAX));
        assert_eq!(ttl("k"), Some(Ttl::Never), "{name}");
        put(&db, WriteOptions::new());
        assert!(db.persist("k").unwrap());
        assert_eq!(ttl("k"), Some(Ttl::Never), "{name}");
        assert!(db.put_if_absent("inserted", "").unwrap());
        assert_eq!(ttl("inserted"), Some(in_seconds(3600)));
        let expected = raw(&db);
        check(&lab.reopen(db), &expected);
    }
}

/// After a clock that was far ahead wrote to the log, earlier values expire by the wall clock, and
/// new ones by the time of the log. The remaining time to live is kept.
#[test]
fn the_remaining_ttl_is_kept_where_the_log_is_ahead_of_the_clock() {
    let lab = Lab::new();
    let db = lab.open();
    db.put_opt("k", "old", WriteOptions::new().ttl(HOUR)).unwrap();
    lab.hands.jump(HOUR * 24);
    db.put("ahead", "").unwrap();
    db.close().unwrap();
    lab.hands.step_back(HOUR * 24);
    let db = lab.open();
    assert_eq!(db.ttl("k").unwrap(), Some(in_seconds(3600)));
    db.put_opt("k", "new", WriteOptions::new().keep_ttl(true)).unwrap();
    assert_eq!(db.ttl("k").unwrap(), Some(in_seconds(3600)));
    lab.hands.advance(Duration::from_secs(3599));
    assert!(db.contains_key("k").unwrap());
    lab.hands.advance(Duration::from_secs(1));
    assert!(!db.contains_key("k").unwrap());
}

/// A time of day means the same whether or not the log is ahead of the clock.
#[test]
fn a_key_expires_at_its_time_of_day_if_the_log_is_ahead_of_the_clock() {
    let lab = Lab::new();
    let db = lab.open();
    lab.hands.jump(HOUR * 24);
    db.put("ahead", "").unwrap();
    db.close().unwrap();
    lab.hands.step_back(HOUR * 24);
    let db = lab.open();
    let time = UNIX_EPOCH + Duration::from_micros(lab.hands.clock().wall()) + HOUR;
    db.put_opt("k", "v", WriteOptions::new().expires_at(time)).unwrap();
    db.put_opt("over", "v", WriteOptions::new().expires_at(UNIX_EPOCH)).unwrap();
    assert_eq!(db.ttl("k").unwrap(), Some(in_seconds(3600)));
    assert!(!db.contains_key("over").unwrap());
    let db = lab.reopen(db);
    lab.hands.advance(Duration::from_secs(3599));
    assert!(db.contains_key("k").unwrap());
    lab.hands.advance(Duration::from_secs(1));
    assert!(!db.contains_key("k").unwrap());
}

/// Within a batch or a transaction, a time to live is kept from the change before.
#[test]
fn a_kept_ttl_is_that_of_an_earlier_change_of_the_same_batch_or_transaction() {
    let minute = WriteOptions::new().ttl(MINUTE);
    let keep = WriteOptions::new().keep_ttl(true);
    for in_transaction in [false, true] {
        let lab = Lab::new();
        let db = lab.open();
        db.put_opt("deleted", "", WriteOptions::new().ttl(HOUR)).unwrap();
        if in_transaction {
            let changes = |tx: &mut crate::Transaction| {
                tx.put_opt("new", "1", minute);
                tx.put_opt("new", "2", keep);
                tx.delete("deleted");
                tx.put_opt("deleted", "again", keep);
                Ok(())
            };
            db.transaction(changes).unwrap();
        } else {
            let mut batch = Batch::new();
            batch.put_opt("new", "1", minute).put_opt("new", "2", keep);
            batch.delete("deleted").put_opt("deleted", "again", keep);
            db.write(&batch).unwrap();
        }
        assert_eq!(db.get("new").unwrap().unwrap(), "2");
        assert_eq!(db.ttl("new").unwrap(), Some(in_seconds(60)), "{in_transaction}");
        assert_eq!(db.ttl("deleted").unwrap(), Some(Ttl::Never), "{in_transaction}");
    }
}

#[test]
fn a_batchs_ttl_is_for_new_keys_where_a_change_only_keeps_one() {
    let lab = Lab::new();
    let db = lab.open();
    db.put_opt("old", "", WriteOptions::new().ttl(HOUR)).unwrap();
    let keep = WriteOptions::new().keep_ttl(true);
    let mut batch = Batch::new();
    batch.put_opt("old", "1", keep).put_opt("new", "1", keep);
    db.write_opt(&batch, WriteOptions::new().ttl(MINUTE)).unwrap();
    assert_eq!(db.ttl("old").unwrap(), Some(in_seconds(3600)));
    assert_eq!(db.ttl("new").unwrap(), Some(in_seconds(60)));
}

#[test]
fn a_transaction_knows_when_its_keys_expire() {
    let lab = Lab::new();
    let lab = lab.clone().with(lab.options.default_ttl(Some(HOUR)));
    let db = lab.open();
    db.put_opt("mortal", "", WriteOptions::new().ttl(MINUTE)).unwrap();
    db.put_opt("immortal", "", WriteOptions::new().ttl(Duration::MAX)).unwrap();
    db.put_opt("expired", "", WriteOptions::new().ttl(Duration::ZERO)).unwrap();
    let never = WriteOptions::new().ttl(Duration::MAX);
    let keep = never.keep_ttl(true);
    db.transaction(|tx| {
        assert_eq!(tx.ttl("mortal")?, Some(in_seconds(60)));
        assert_eq!(tx.ttl("immortal")?, Some(Ttl::Never));
        assert_eq!((tx.ttl("expired")?, tx.ttl("absent")?), (None, None));
        tx.put("absent", "");
        assert_eq!(tx.ttl("absent")?, Some(in_seconds(3600)));
        tx.put_opt("absent", "", never);
        assert_eq!(tx.ttl("absent")?, Some(Ttl::Never));
        tx.put_opt("absent", "", keep);
        assert_eq!(tx.ttl("absent")?, Some(Ttl::Never));
        tx.put_opt("mortal", "", keep);
        assert_eq!(tx.ttl("mortal")?, Some(in_seconds(60)));
        tx.delete("mortal");
        assert_eq!(tx.ttl("mortal")?, None);
        Ok(())
    })
    .unwrap();
    assert_eq!(db.ttl("mortal").unwrap(), None);
}

#[test]
fn a_change_of_a_read_time_to_live_is_a_conflict() {
    let db = Lab::new().open();
    db.put("k", "").unwrap();
    let mut runs = 0;
    db.transaction(|tx| {
        runs += 1;
        let ttl = tx.ttl("k")?;
        if runs == 1 {
            assert_eq!(ttl, Some(Ttl::Never));
            assert!(db.expire("k", HOUR)?);
        } else {
            assert_eq!(ttl, Some(in_seconds(3600)));
        }
        tx.put("other", "");
        Ok(())
    })
    .unwrap();
    assert_eq!(runs, 2);
}
