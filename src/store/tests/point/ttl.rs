//! Changing and reading a key's expiry without its value. The random operations of `model` and
//! `crash` do both all the time; these tests cover what those cannot check.

use crate::store::tests::*;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn an_entry_is_appended_again_as_stored() {
    for compression in Compression::all() {
        let lab = Lab::new();
        let lab = lab.clone().with(lab.options.compression(compression));
        let value = "all work and no play ".repeat(10);
        let db = lab.open();
        db.put("key", &value).unwrap();
        db.close().unwrap();
        // New values are no longer compressed, but this one stays compressed: it was not decoded.
        let limit = lab.options.clone().compression(Compression::None).value_size_limit(10);
        let lab = lab.with(limit);
        let db = lab.open();
        assert!(db.expire("key", HOUR).unwrap());
        assert!(db.persist("key").unwrap());
        let expected = model([("key", value.as_str())]);
        check(&db, &expected);
        let entries = log_entries(&lab);
        let entries: Vec<_> = entries.iter().filter(|entry| entry.key == b"key").collect();
        let [put, expired, persisted] = entries[..] else { panic!("{entries:?}") };
        for again in [expired, persisted] {
            assert_eq!((&again.value, again.raw_size), (&put.value, put.raw_size));
            assert!(again.timestamp > put.timestamp);
        }
        let expiry = lab.hands.clock().after(HOUR);
        assert_eq!((expired.expiry, persisted.expiry), (expiry, None));
        check(&lab.reopen(db), &expected);
    }
}

/// At the end of the log it would prevent the store from opening.
#[test]
fn an_entry_with_an_unknown_codec_is_not_appended_again() {
    for lab in [Lab::new(), Lab::weak()] {
        let lab = super::compression::with_unknown(lab);
        let db = lab.open();
        assert_eq!(db.ttl("unknown").unwrap(), Some(Ttl::Never));
        assert!(db.value_len("unknown").unwrap().is_some());
        assert!(db.expire("unknown", HOUR).unwrap_err().is_unsupported());
        assert!(db.persist("unknown").unwrap_err().is_unsupported());
        assert!(db.expire("other", HOUR).unwrap());
        let db = lab.reopen(db);
        assert!(db.persist("other").unwrap());
        assert!(db.contains_key("unknown").unwrap());
    }
}

/// Without a check of the old entry, its damage would be hidden by a new valid checksum.
#[test]
fn a_damaged_entry_is_not_appended_again() {
    for verify in [true, false] {
        let lab = Lab::new();
        let lab = lab.clone().with(lab.options.verify_reads(verify));
        let db = lab.open();
        db.put("key", "a value").unwrap();
        db.close().unwrap();
        let (_, path) = lab.logs().remove(0);
        let mut bytes = lab.twin.contents(&path).unwrap();
        let at = bytes.windows(7).position(|bytes| bytes == b"a value").unwrap();
        bytes[at] ^= 1;
        lab.twin.put_file(&path, bytes);
        let db = lab.open();
        for error in [db.expire("key", HOUR).unwrap_err(), db.persist("key").unwrap_err()] {
            assert!(error.is_corruption(), "{error}");
        }
        assert_eq!(db.stats().appends, 0);
        // Operations that do not need the value still work.
        assert_eq!(db.value_len("key").unwrap(), Some(7));
        assert_eq!(db.ttl("key").unwrap(), Some(Ttl::Never));
    }
}

#[test]
fn persisting_a_key_without_expiry_writes_nothing() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("key", "value").unwrap();
    assert!(db.persist("key").unwrap());
    assert!(!db.persist("absent").unwrap());
    assert!(!db.expire("absent", HOUR).unwrap());
    assert_eq!(db.stats().appends, 1);
    db.put_opt("key", "value", WriteOptions::new().ttl(HOUR)).unwrap();
    lab.hands.advance(HOUR);
    assert!(!db.persist("key").unwrap());
    assert!(!db.expire("key", HOUR).unwrap());
    assert_eq!(db.stats().appends, 2);
}

/// A caller that learns that a key never expires may rely on it, even if another writer did that.
#[test]
fn a_needless_persist_makes_its_reason_durable() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Always));
    let db = lab.open();
    let wait = |yes| WriteOptions::new().durable(yes);
    db.put_opt("key", "1", wait(true).ttl(HOUR)).unwrap();
    db.put_opt("key", "2", wait(false)).unwrap();
    assert!(db.persist("key").unwrap());
    check(&lab.powered_off(|_| false).open(), &model([("key", "2")]));
}

/// One thread puts while the other only changes the expiry, which must never bring an old value
/// back.
#[test]
fn an_expiry_change_keeps_concurrently_put_values() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.put("key", "start").unwrap();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            for number in 0..if cfg!(miri) { 5 } else { 20_000_u32 } {
                let value = number.to_be_bytes();
                db.put("key", value).unwrap();
                for _ in 0..3 {
                    assert_eq!(db.get("key").unwrap().unwrap(), value);
                }
            }
        });
        while !putting.is_finished() {
            for changed in [db.expire("key", HOUR), db.persist("key")] {
                // A thread that does not run often may lose every attempt.
                assert!(matches!(changed, Ok(true) | Err(Error::Conflict { .. })), "{changed:?}");
            }
        }
    });
}
