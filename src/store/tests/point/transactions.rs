//! Transactions: everything read must still be so at the end, or the closure runs again. Also the
//! removal of many keys, which follows the same rule key by key.
//!
//! - The tests cause conflicts by writing from within the closure, outside the transaction.

use std::cell::Cell;
use std::ops::Bound;

use crate::TransactionOptions;
use crate::options::SyncPolicy;
use crate::store::tests::merge::basics::{merge, seal};
use crate::store::tests::*;
use crate::value::Value;

fn lab() -> Lab {
    crate::store::tests::merge::basics::lab()
}

fn put_all(db: &Bitcask, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        db.put(key, value).unwrap();
    }
}

fn texts(pairs: impl Iterator<Item = Result<(Value, Value)>>) -> Vec<(String, String)> {
    let text = |value: Value| String::from_utf8(value.into()).unwrap();
    pairs.map(Result::unwrap).map(|(key, value)| (text(key), text(value))).collect()
}

/// Runs a transaction and calls `others` during its first run. Returns the number of runs.
fn runs(
    db: &Bitcask,
    mut run: impl FnMut(&mut Transaction) -> Result<()>,
    others: impl Fn(),
) -> u32 {
    let count = Cell::new(0);
    db.transaction(|tx| {
        run(tx)?;
        count.set(count.get() + 1);
        if count.get() == 1 {
            others();
        }
        tx.put("written", "by the transaction");
        Ok(())
    })
    .unwrap();
    assert_eq!(db.get("written").unwrap().unwrap(), "by the transaction");
    count.get()
}

#[test]
fn a_transaction_sees_its_snapshot_and_its_own_writes() {
    let db = lab().open();
    put_all(&db, &[("a", "1"), ("b", "2"), ("c", "3"), ("e", "5")]);
    let options = TransactionOptions::new().attempts(1);
    db.transaction_opt(options, |tx| {
        db.put("z", "others").unwrap();
        assert_eq!(tx.get("z")?, None);
        tx.put("b", "two");
        tx.delete("c");
        tx.put_opt("d", "4", WriteOptions::new().ttl(Duration::from_secs(1)));
        assert_eq!(tx.get("b")?.unwrap(), "two");
        assert_eq!(
            (tx.get("c")?, tx.contains_key("c")?, tx.contains_key("d")?),
            (None, false, true)
        );
        let expected = [("a", "1"), ("b", "two"), ("d", "4"), ("e", "5")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(texts(tx.range(.."f")), expected);
        let mut back = texts(tx.range(.."f").rev());
        back.reverse();
        assert_eq!(back, expected);
        let mut both = tx.range("b"..="d");
        assert_eq!(texts([both.next(), both.next_back()].into_iter().flatten()).len(), 2);
        assert!(both.next().is_none() && both.next_back().is_none());
        assert_eq!(texts(tx.prefix("c")), []);
        assert_eq!(texts(tx.range("d".."a")), []);
        assert_eq!(texts(tx.range((Bound::Excluded("b"), Bound::Excluded("b")))), []);
        assert_eq!(db.get("b")?.unwrap(), "2");
        Ok(())
    })
    // The transaction has read `z` as absent, and another write has put it since.
    .unwrap_err()
    .is_conflict()
    .then_some(())
    .unwrap();
    assert_eq!(db.get("b").unwrap().unwrap(), "2");
}

#[test]
fn writes_appear_atomically_at_the_end() {
    let lab = lab();
    let db = lab.open();
    put_all(&db, &[("a", "1"), ("b", "2")]);
    let before = db.snapshot();
    let result = db.transaction(|tx| {
        tx.put("a", "one");
        tx.delete("b");
        tx.put_opt("c", "3", WriteOptions::new().ttl(Duration::from_secs(10)));
        assert_eq!(db.get("a")?.unwrap(), "1");
        Ok(7)
    });
    assert_eq!(result.unwrap(), 7);
    assert_eq!(texts(db.range(..)).len(), 2);
    assert_eq!(texts(before.iter()), [("a".into(), "1".into()), ("b".into(), "2".into())]);
    // A single batch, so a crash loses all of it or nothing.
    let entries = log_entries(&lab);
    let continues: Vec<bool> =
        entries.iter().rev().take(3).map(|entry| entry.flags.has(Flags::CONTINUES)).collect();
    assert_eq!(continues, [false, true, true]);
    lab.hands.advance(Duration::from_secs(10));
    assert_eq!(db.get("c").unwrap(), None);
}

#[test]
fn a_failed_or_rolled_back_transaction_writes_nothing() {
    let db = lab().open();
    db.put("a", "1").unwrap();
    let refused: Result<()> = db.transaction(|tx| {
        tx.put("a", "2");
        Err(Error::ReadOnly)
    });
    assert!(matches!(refused, Err(Error::ReadOnly)));
    db.transaction(|tx| {
        tx.put("a", "3");
        tx.rollback();
        assert_eq!(tx.get("a")?.unwrap(), "1");
        Ok(())
    })
    .unwrap();
    assert_eq!(db.get("a").unwrap().unwrap(), "1");
    let none = db.transaction_opt(TransactionOptions::new().attempts(0), |_| Ok(()));
    assert!(none.unwrap_err().is_invalid_input());
}

/// Each of these changes what was read in one way or another.
#[test]
fn a_transaction_is_retried_if_its_reads_change() {
    let get = |key: &'static str| move |tx: &mut Transaction| tx.get(key).map(drop);
    let has = |key: &'static str| move |tx: &mut Transaction| tx.contains_key(key).map(drop);
    let db = || {
        let db = lab().open();
        put_all(&db, &[("a", "1"), ("b", "2"), ("m", "3"), ("x", "4")]);
        db
    };
    let all = |tx: &mut Transaction| {
        tx.range(..).for_each(|pair| drop(pair.unwrap()));
        Ok(())
    };
    let first = |tx: &mut Transaction| tx.range("b"..).next().transpose().map(drop);
    let last = |tx: &mut Transaction| tx.range(.."n").next_back().transpose().map(drop);

    let store = db();
    assert_eq!(runs(&store, get("a"), || store.put("a", "1").unwrap()), 2);
    assert_eq!(runs(&store, get("a"), || store.put("b", "1").unwrap()), 1);
    assert_eq!(runs(&store, get("a"), || assert!(store.delete("a").unwrap())), 2);
    assert_eq!(
        runs(&store, get("a"), || assert!(!store.delete("a").unwrap())),
        1,
        "a delete of an absent key is no change"
    );
    assert_eq!(runs(&store, has("a"), || store.put("a", "1").unwrap()), 2);
    assert_eq!(runs(&store, has("a"), || store.clear().unwrap()), 2);

    let store = db();
    assert_eq!(runs(&store, all, || store.put("new", "1").unwrap()), 2);
    assert_eq!(runs(&store, all, || assert!(store.delete("new").unwrap())), 2);
    assert_eq!(runs(&store, all, || store.put("b", "2").unwrap()), 2);
    assert_eq!(runs(&store, all, || store.clear().unwrap()), 2);

    let store = db();
    // Keys before the first or after the last item taken do not count as read.
    assert_eq!(runs(&store, first, || put_all(&store, &[("a", "new"), ("c", "new")])), 1);
    assert_eq!(runs(&store, first, || store.put("b", "new").unwrap()), 2);
    assert_eq!(runs(&store, first, || assert!(store.delete("b").unwrap())), 2);
    assert_eq!(runs(&store, first, || store.put("b0", "new").unwrap()), 2);
    assert_eq!(runs(&store, last, || put_all(&store, &[("l", "new"), ("n", "new")])), 1);
    assert_eq!(runs(&store, last, || store.put("m1", "new").unwrap()), 2);
    let none = |tx: &mut Transaction| tx.prefix("q").next().transpose().map(drop);
    assert_eq!(runs(&store, none, || store.put("q1", "new").unwrap()), 2);
    assert_eq!(runs(&store, none, || store.put("p", "new").unwrap()), 1);
}

/// A range is compared with the log, even if that was meanwhile rotated, sealed or merged.
#[test]
fn reads_are_validated_across_rotations_seals_and_merges() {
    let all = |tx: &mut Transaction| tx.prefix("k").try_for_each(|pair| pair.map(drop));
    for is_touched in [false, true] {
        let db = lab().open();
        put_all(&db, &[("k1", "1"), ("k2", "2")]);
        let key = if is_touched { "k3" } else { "other" };
        let expected = if is_touched { 2 } else { 1 };
        let rotated = || {
            db.put(key, "x").unwrap();
            db.inner.log().unwrap().rotate_active().unwrap();
        };
        assert_eq!(runs(&db, all, rotated), expected);
        let sealed = || {
            db.put(key, "x").unwrap();
            seal(&db);
        };
        assert_eq!(runs(&db, all, sealed), expected);
        // The log of merged segments is gone, so the range is read again.
        let merged = || {
            db.put(key, "x").unwrap();
            let id = seal(&db);
            merge(&db, &[id]);
        };
        assert_eq!(runs(&db, all, merged), expected);
        let merged_and_cleared = || {
            merged();
            db.clear().unwrap();
        };
        assert_eq!(runs(&db, all, merged_and_cleared), 2);
        put_all(&db, &[("k1", "1"), ("k2", "2")]);
        // A store that was just opened, or whose active segment is empty, has no log end to compare
        // with.
        db.inner.log().unwrap().rotate_active().unwrap();
        seal(&db);
        assert_eq!(runs(&db, all, || ()), 1);
    }
    let lab = lab();
    let db = lab.open();
    db.put("k1", "1").unwrap();
    let db = lab.reopen(db);
    assert_eq!(runs(&db, all, || ()), 1);
    let db = lab.reopen(db);
    assert_eq!(runs(&db, all, || db.put("k2", "2").unwrap()), 2);
}

/// A merge alone changes nothing that a transaction can have read, in any part of a range.
#[test]
fn a_merge_alone_does_not_retry_a_transaction() {
    let parts: [fn(&mut Transaction) -> Result<()>; 5] = [
        |tx| tx.range(..).try_for_each(|pair| pair.map(drop)),
        |tx| tx.prefix("k").next().transpose().map(drop),
        |tx| tx.range("a"..).next_back().transpose().map(drop),
        |tx| {
            let mut range = tx.range(..);
            range.next().transpose()?;
            range.next_back().transpose().map(drop)
        },
        |tx| tx.prefix("none").next().transpose().map(drop),
    ];
    for part in parts {
        let db = lab().open();
        put_all(&db, &[("k1", "1"), ("k2", "2"), ("k3", "3"), ("z", "4")]);
        let merge_all = || {
            seal(&db);
            merge(&db, &crate::store::tests::merge::basics::sealed(&db));
        };
        assert_eq!(runs(&db, part, merge_all), 1);
        // Keys that were put and deleted meanwhile leave nothing visible.
        let put_and_deleted = || {
            put_all(&db, &[("k0", "1"), ("k9", "2"), ("nonesuch", "3")]);
            for key in ["k0", "k9", "nonesuch"] {
                assert!(db.delete(key).unwrap());
            }
            merge_all();
        };
        assert_eq!(runs(&db, part, put_and_deleted), 1);
        // Rewriting the same value makes a new version, and so does deleting it and putting it
        // back.
        let put_again = || {
            let pairs: Vec<_> = db.range(..).map(Result::unwrap).collect();
            for (key, value) in &pairs {
                db.put(key, value).unwrap();
            }
            db.put("none", "present now").unwrap();
            merge_all();
        };
        assert_eq!(runs(&db, part, put_again), 2);
    }
}

/// A key read individually is compared by its timestamp, and a range with expired keys by the
/// clock.
#[test]
fn after_a_merge_keys_and_expiries_are_validated_as_before() {
    let lab = lab();
    let db = lab.open();
    let minute = WriteOptions::new().ttl(Duration::from_secs(60));
    put_all(&db, &[("a", "1"), ("k1", "1")]);
    db.put_opt("k2", "1", minute).unwrap();
    let merge_all = || {
        seal(&db);
        merge(&db, &crate::store::tests::merge::basics::sealed(&db));
    };
    let read = |tx: &mut Transaction| {
        tx.get("a")?;
        tx.prefix("k").try_for_each(|pair| pair.map(drop))
    };
    assert_eq!(runs(&db, read, merge_all), 1);
    let changed = || {
        db.put("a", "2").unwrap();
        merge_all();
    };
    assert_eq!(runs(&db, read, changed), 2);
    let expired = || {
        lab.hands.advance(Duration::from_secs(61));
        merge_all();
    };
    assert_eq!(runs(&db, read, expired), 2);
}

/// A key that expires between its read and the end of the transaction has changed.
#[test]
fn a_key_that_expires_meanwhile_is_a_change() {
    let lab = lab();
    let db = lab.open();
    let ttl = WriteOptions::new().ttl(Duration::from_secs(5));
    db.put_opt("a", "1", ttl).unwrap();
    let get = |tx: &mut Transaction| tx.get("a").map(drop);
    assert_eq!(runs(&db, get, || lab.hands.advance(Duration::from_secs(5))), 2);
}

#[test]
fn attempts_are_bounded_and_a_conflict_is_reported() {
    let db = lab().open();
    db.put("a", "0").unwrap();
    let count = Cell::new(0_u32);
    let result = db.transaction_opt(TransactionOptions::new().attempts(7), |tx| {
        tx.get("a")?;
        tx.put("b", "never");
        count.set(count.get() + 1);
        db.put("a", count.get().to_string())
    });
    let error = result.unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains("7 times"), "{error}");
    assert_eq!((count.get(), db.get("b").unwrap()), (7, None));
    // A read-only transaction has no conflicts.
    let seen = db.transaction(|tx| {
        let seen = tx.get("a")?;
        db.put("a", "x")?;
        Ok(seen)
    });
    assert_eq!(seen.unwrap().unwrap(), "7");
}

/// After a power cut, a transaction is present as a whole or not at all. One that returned with a
/// requested sync is present.
#[test]
fn a_durable_transaction_survives_a_power_cut() {
    let lab = lab().with(Options::new().sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.transaction_opt(TransactionOptions::new().durable(true), |tx| {
        tx.put("a", "1");
        tx.put("b", "2");
        Ok(())
    })
    .unwrap();
    db.transaction(|tx| {
        tx.put("a", "lost");
        tx.delete("b");
        Ok(())
    })
    .unwrap();
    let after = lab.powered_off(|_| false);
    check(&after.open(), &model([("a", "1"), ("b", "2")]));
}

#[test]
fn many_keys_are_removed_by_one_call() {
    let db = lab().open();
    let keys = ["a", "b/1", "b/2", "b/3", "c"];
    put_all(&db, &keys.map(|key| (key, key)));
    assert_eq!(db.delete_prefix("b/").unwrap(), 3);
    assert_eq!(db.delete_prefix("b/").unwrap(), 0);
    assert_eq!(db.delete_range("b".."c").unwrap(), 0);
    assert_eq!(db.delete_range("b"..="c").unwrap(), 1);
    check(&db, &model([("a", "a")]));
    put_all(&db, &keys.map(|key| (key, key)));
    assert_eq!(db.retain(|key, value| key.len() > 1 && value == key).unwrap(), 2);
    assert_eq!(db.len().unwrap(), 3);
    assert_eq!(db.delete_range(..).unwrap(), 3);
    assert!(db.is_empty().unwrap());
}

/// A key put while many keys are being removed was absent when they were looked up.
#[test]
fn keys_put_meanwhile_are_not_removed() {
    let db = lab().open();
    put_all(&db, &[("a", "1"), ("b", "2")]);
    let removed = db.retain(|key, _| {
        db.put(key, "put again").unwrap();
        false
    });
    assert_eq!(removed.unwrap(), 0);
    check(&db, &model([("a", "put again"), ("b", "put again")]));
}

/// A key in a range that was read expires before the transaction ends. That is a change, as it
/// would be for a key read individually.
#[test]
fn a_key_that_expires_in_a_read_range_is_a_conflict() {
    let lab = lab();
    let db = lab.open();
    let second = WriteOptions::new().ttl(Duration::from_secs(1));
    for by_range in [false, true] {
        db.put_opt("k", "v", second).unwrap();
        let read = |tx: &mut Transaction| {
            if by_range {
                tx.prefix("k").for_each(|pair| drop(pair.unwrap()));
            } else {
                drop(tx.get("k")?);
            }
            Ok(())
        };
        let count = runs(&db, read, || lab.hands.advance(Duration::from_secs(2)));
        assert_eq!(count, 2, "by range: {by_range}");
    }
}
