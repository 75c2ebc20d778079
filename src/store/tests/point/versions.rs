//! Versions, which identify the change that gave a key its state.

use crate::store::tests::*;

fn version(db: &Bitcask, key: &str) -> Option<Version> {
    db.get_versioned(key).unwrap().map(|(_, version)| version)
}

#[test]
fn every_change_of_a_key_raises_its_version_and_nothing_else_does() {
    for lab in [Lab::new(), Lab::weak()] {
        let mut db = lab.open();
        assert_eq!(db.get_versioned("k").unwrap(), None);
        let mut last = None;
        let changes: [fn(&Bitcask); 6] = [
            |db| db.put("k", "1").unwrap(),
            |db| db.put("k", "1").unwrap(),
            |db| assert!(db.expire("k", Duration::from_secs(60)).unwrap()),
            |db| assert!(db.persist("k").unwrap()),
            |db| drop(db.update("k", |old| old.map(<[u8]>::to_vec)).unwrap()),
            |db| db.write(Batch::new().put("k", "1").put("other", "")).unwrap(),
        ];
        for change in changes {
            change(&db);
            let new = version(&db, "k");
            assert!(last < new, "{last:?} {new:?}");
            last = new;
        }
        db.put("another", "").unwrap();
        assert_eq!(version(&db, "k"), last);
        assert!(version(&db, "another") > last);
        db = lab.reopen(db);
        let mut merge = begin_merge(&db, u64::MAX);
        while merge.step(&*db.inner).unwrap().is_some() {}
        assert_eq!(version(&db, "k"), last);
        let copy = lab.killed().open();
        assert_eq!(version(&copy, "k"), last);
        // The version increases as a number, too. A delete followed by a put of the same value
        // makes a new version.
        let number = u64::from(last.unwrap());
        assert_eq!(
            (Some(Version::from(number)), last.unwrap().to_string()),
            (last, number.to_string())
        );
        assert!(db.delete("k").unwrap());
        assert_eq!(version(&db, "k"), None);
        db.put("k", "1").unwrap();
        assert!(version(&db, "k") > last);
    }
}

#[test]
fn a_swap_by_version_succeeds_only_if_the_key_is_unchanged() {
    for lab in [Lab::new(), Lab::weak()] {
        let db = lab.open();
        let swap = |expected, new: Option<&'static str>| {
            db.compare_and_swap_versioned("k", expected, new.map(str::as_bytes)).unwrap()
        };
        let unknown = Some(Version::from(u64::MAX));
        let found = swap(unknown, Some("0")).unwrap_err();
        assert_eq!((found.current.clone(), found.version), (None, None));
        assert!(found.to_string().contains("absent"), "{found}");
        swap(None, None).unwrap();
        assert_eq!(db.stats().appends, 0);
        swap(None, Some("1")).unwrap();
        let first = version(&db, "k");
        for wrong in [None, unknown] {
            let found = swap(wrong, Some("2")).unwrap_err();
            assert_eq!(found.current.unwrap(), "1");
            assert_eq!(found.version, first);
        }
        // The key was changed and changed back.
        db.put("k", "2").unwrap();
        db.put("k", "1").unwrap();
        let found = swap(first, Some("3")).unwrap_err();
        assert!(found.version > first && found.current.unwrap() == "1");
        let second = version(&db, "k");
        swap(second, Some("3")).unwrap();
        let third = version(&db, "k");
        swap(third, None).unwrap();
        assert_eq!(db.get("k").unwrap(), None);
        assert_eq!(swap(third, Some("4")).unwrap_err().version, None);
        check(&lab.reopen(db), &Model::new());
    }
}

#[test]
fn an_expired_key_has_no_version() {
    let lab = Lab::new();
    let db = lab.open();
    db.put_opt("k", "1", WriteOptions::new().ttl(Duration::from_secs(1))).unwrap();
    let before = version(&db, "k");
    assert!(before.is_some());
    lab.hands.advance(Duration::from_secs(1));
    assert_eq!(version(&db, "k"), None);
    let found = db.compare_and_swap_versioned("k", before, Some(b"2")).unwrap().unwrap_err();
    assert_eq!((found.current, found.version), (None, None));
    db.compare_and_swap_versioned("k", None, Some(b"2")).unwrap().unwrap();
}

#[test]
fn a_transaction_sees_the_versions_of_its_start() {
    let db = Lab::new().open();
    db.put("k", "1").unwrap();
    let first = version(&db, "k");
    let mut runs = 0;
    db.transaction(|tx| {
        runs += 1;
        let seen = tx.version("k")?;
        assert_eq!(tx.version("absent")?, None);
        tx.put("k", "3");
        assert_eq!(tx.version("k")?, seen, "an uncommitted write has no version yet");
        if runs == 1 {
            assert_eq!(seen, first);
            // A key whose version was read counts as read.
            db.put("k", "2")?;
            assert_eq!(tx.version("k")?, first);
        } else {
            assert!(seen > first);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(runs, 2);
    assert_eq!(db.get("k").unwrap().unwrap(), "3");
}

#[test]
fn a_failed_swap_returns_the_value_it_compared() {
    for compression in Compression::all() {
        let lab = Lab::new();
        let lab = lab.clone().with(lab.options.compression(compression));
        let db = lab.open();
        let long = "all work and no play ".repeat(20);
        db.put("k", &long).unwrap();
        for expected in [None, Some(&b"other"[..]), Some(&b""[..])] {
            let found = db.compare_and_swap("k", expected, None).unwrap().unwrap_err();
            assert_eq!(found.current.unwrap(), long);
            assert_eq!(found.version, version(&db, "k"));
        }
        assert_eq!(db.stats().appends, 1);
    }
}
