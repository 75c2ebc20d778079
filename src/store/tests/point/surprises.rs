//! Cases that have surprised callers: closures that conflict with themselves or panic, seeks in
//! ranges, and clears of an empty store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::options::{MergeOptions, MergePolicy};
use crate::store::tests::merge::basics::{seal, sealed};
use crate::store::tests::*;
use crate::value::Value;
use crate::{AutoMerge, Position};

fn lab() -> Lab {
    crate::store::tests::merge::basics::lab()
}

#[test]
fn an_update_that_conflicts_with_itself_ends_with_an_error() {
    let db = lab().open();
    db.put("key", "0").unwrap();
    let mut runs = 0_u32;
    let result = db.update("key", |_| {
        runs += 1;
        db.put("key", runs.to_string()).unwrap();
        Some("mine")
    });
    assert!(matches!(result, Err(Error::Conflict { attempts: 100 })), "{result:?}");
    assert!(result.unwrap_err().is_conflict());
    assert_eq!((runs, &*db.get("key").unwrap().unwrap()), (100, &b"100"[..]));
    // A put of an absent key, a delete and a change of the expiry count as changes, too.
    let put_and_deleted = db.update_opt("other", WriteOptions::new(), |old| {
        match old {
            None => db.put("other", "1").unwrap(),
            Some(_) => assert!(db.delete("other").unwrap()),
        }
        None::<&str>
    });
    assert!(put_and_deleted.unwrap_err().is_conflict());
    let expiring = db.update("key", |_| {
        assert!(db.expire("key", Duration::from_secs(60)).unwrap());
        Some("mine")
    });
    assert!(expiring.unwrap_err().is_conflict());
    // An update that other writers overtake a few times is retried as often as necessary.
    let mut runs = 0;
    let stored = db.update("key", |_| {
        runs += 1;
        if runs < 90 {
            db.put("key", "theirs").unwrap();
        }
        Some("mine")
    });
    assert_eq!((stored.unwrap().unwrap(), runs), (b"mine".to_vec().into(), 90));
}

fn keys(pairs: impl Iterator<Item = Result<Value>>) -> Vec<String> {
    pairs.map(|key| String::from_utf8(key.unwrap().into()).unwrap()).collect()
}

#[test]
fn a_range_can_seek_anywhere_without_narrowing() {
    let db = lab().open();
    for key in ["a", "b", "bb", "c", "e", "f", "g"] {
        db.put(key, key).unwrap();
    }
    let mut range = db.range_keys("b".."f");
    let all = ["b", "bb", "c", "e"];
    assert_eq!(range.by_ref().count(), 4);
    for (at, rest) in
        [("c", 2), ("", 0), ("b", 0), ("ba", 1), ("d", 3), ("e", 3), ("ea", 4), ("f", 4), ("z", 4)]
    {
        assert_eq!(keys(range.seek(at).by_ref()), all[rest..], "{at}");
        assert_eq!(
            keys(range.seek(at).rev()),
            all[rest..].iter().rev().copied().collect::<Vec<_>>()
        );
    }
    for (at, rest) in
        [("c", 3), ("", 0), ("a", 0), ("b", 1), ("bz", 2), ("e", 4), ("f", 4), ("z", 4)]
    {
        assert_eq!(keys(range.seek_back(at).by_ref()), all[..rest], "{at}");
        let reversed: Vec<_> = all[..rest].iter().rev().copied().collect();
        assert_eq!(keys(range.seek_back(at).rev()), reversed, "{at}");
    }
    // A seek discards what was read ahead, at either end.
    let mut range = db.range(..);
    let next = |range: &mut Range| Vec::from(range.next().unwrap().unwrap().0);
    assert_eq!(next(&mut range), b"a");
    assert_eq!(next(range.seek("e")), b"e");
    assert_eq!(next(range.seek("b")), b"b");
    assert_eq!(next(&mut range), b"bb");
    assert_eq!(range.seek_back("d").next_back().unwrap().unwrap().0, "c");
    assert_eq!(next(&mut range), b"a");
    // The range shows the moment at which it was made.
    db.put("d", "new").unwrap();
    assert_eq!(next(range.seek("d")), b"e");
    // `after` and `before` narrow a range permanently.
    let mut range = db.range_keys(..).after("b").before("f");
    assert_eq!(keys(range.seek("a").by_ref()), ["bb", "c", "d", "e"]);
    assert_eq!(keys(range.seek_back("z").by_ref()), ["bb", "c", "d", "e"]);
    assert_eq!(keys(db.range_keys(..).after("e").after("a")), ["f", "g"]);
    let excluded = (std::ops::Bound::Excluded("b"), std::ops::Bound::Included("e"));
    let mut range = db.range_keys(excluded);
    assert_eq!(keys(range.seek("b").by_ref()), ["bb", "c", "d", "e"]);
    assert_eq!(keys(range.seek_back("e").by_ref()), ["bb", "c", "d", "e"]);
}

#[test]
fn a_clear_of_an_empty_store_keeps_the_history() {
    let lab = lab();
    let db = lab.open();
    let before = db.position();
    db.clear().unwrap();
    let mut changes = db.changes(before).unwrap();
    let mut from_start = db.changes(Position::START).unwrap();
    db.put("key", "1").unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().key, "key");
    assert_eq!(from_start.try_recv().unwrap().unwrap().key, "key");
    // Now the clear has something to remove.
    db.clear().unwrap();
    assert!(db.changes(before).is_err() || db.changes(before).unwrap().try_recv().is_err());
    let emptied = db.position();
    db.clear().unwrap();
    assert_eq!(db.position(), emptied);
    let mut changes = db.changes(emptied).unwrap();
    assert_eq!(changes.try_recv().unwrap(), None);
    let db = lab.reopen(db);
    db.clear().unwrap();
    db.put("key", "2").unwrap();
    let mut changes = db.changes(emptied).unwrap();
    assert_eq!(changes.try_recv().unwrap().unwrap().key, "key");
    assert_eq!(db.len().unwrap(), 1);
    // A delete is a change, too, even if nothing of the deleted value is left.
    db.delete("key").unwrap();
    db.clear().unwrap();
    assert!(db.is_empty().unwrap());
    assert!(db.changes(emptied).is_err());
}

/// Checks that a closure passed to a call panics.
fn panics<T>(call: impl FnOnce() -> T) {
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err(), "the closure was not called");
}

/// Makes calls that would block forever if a lock, a turn, a snapshot or an append in flight were
/// left behind.
fn assert_usable(db: &Bitcask) {
    db.put("goes on", "1").unwrap();
    db.write(Batch::new().put("a", "1").put("zzz", "2")).unwrap();
    seal(db);
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert_eq!(db.stats().snapshots, 0);
    assert!(db.range(..).count() >= 3);
    db.transaction(|tx| {
        tx.range(..).try_for_each(|pair| pair.map(drop))?;
        tx.put("goes on", "2");
        Ok(())
    })
    .unwrap();
    db.sync().unwrap();
    assert!(db.verify().unwrap().is_clean());
}

#[test]
fn a_store_stays_usable_after_a_callers_closure_panics() {
    let db = lab().open();
    for key in ["a", "b", "c", "d"] {
        db.put(key, "value").unwrap();
    }
    panics(|| db.update("a", |_| -> Option<&str> { panic!("in update") }));
    assert_usable(&db);
    panics(|| db.get_with("a", |_| panic!("in get_with")));
    assert_usable(&db);
    panics(|| db.snapshot().get_with("a", |_| panic!("in a snapshot's get_with")));
    assert_usable(&db);
    panics(|| db.get_many_with(&["a", "b"], |_, _| panic!("in get_many_with")));
    assert_usable(&db);
    panics(|| {
        db.transaction(|tx| -> Result<()> {
            tx.get("a")?;
            tx.range(..).next().transpose()?;
            tx.put("a", "never");
            panic!("in a transaction")
        })
    });
    assert_usable(&db);
    panics(|| db.retain(|_, _| panic!("in retain")));
    assert_usable(&db);
    seal(&db);
    panics(|| db.merge_opt(MergeOptions::new().force(true).progress(|_| panic!("in a merge"))));
    assert_usable(&db);
    panics(|| db.verify_with(|_| panic!("in verify")));
    assert_usable(&db);
    assert_eq!(db.get("a").unwrap().unwrap(), "1");
    db.clear().unwrap();
    db.close().unwrap();
}

#[test]
fn keys_removed_before_retains_closure_panics_stay_removed() {
    let lab = lab();
    let db = lab.open();
    for at in 0..100 {
        db.put(format!("key {at}"), "value").unwrap();
    }
    let mut seen = Vec::new();
    panics(|| {
        db.retain(|key, _| {
            assert!(seen.len() < 40, "enough");
            seen.push(key.to_vec());
            false
        })
    });
    assert_eq!((seen.len(), db.len().unwrap()), (40, 60));
    assert!(seen.iter().all(|key| !db.contains_key(key).unwrap()));
    assert_usable(&db);
    let db = lab.reopen(db);
    assert!(seen.iter().all(|key| !db.contains_key(key).unwrap()));
    assert_eq!(db.retain(|key, _| !key.starts_with(b"key")).unwrap(), 60);
}

/// The merging thread is not the caller's, and it survives the panic.
#[test]
fn merging_continues_after_on_finish_panics() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let auto = AutoMerge::new().trigger_dead_size(1).dead_size(1).on_finish(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        panic!("on_finish")
    });
    let lab = lab();
    let lab = lab.clone().with(lab.options.clone().merge_policy(MergePolicy::Auto(auto)));
    let db = lab.open();
    db.inner.merge_due().unwrap();
    for round in 1..4 {
        db.put("key", "value").unwrap();
        db.put("key", "value").unwrap();
        let before = seal(&db);
        db.put("key", "value").unwrap();
        db.inner.merge_due().unwrap();
        assert!(!sealed(&db).contains(&before));
        assert_eq!(calls.load(Ordering::Relaxed), round);
        assert_usable(&db);
    }
}

/// `len` counts expired keys until they are removed; a snapshot counts only present keys.
#[test]
fn expired_keys_count_until_a_merge_and_a_snapshot_leaves_them_out() {
    let lab = lab();
    let db = lab.open();
    db.put("stays", "1").unwrap();
    db.put_opt("goes", "1", WriteOptions::new().ttl(Duration::from_secs(5))).unwrap();
    lab.hands.advance(Duration::from_secs(6));
    assert_eq!((db.len().unwrap(), db.stats().keys, db.snapshot().len().unwrap()), (2, 2, 1));
    assert!(db.delete("stays").unwrap());
    assert!(!db.is_empty().unwrap() && db.snapshot().is_empty().unwrap());
    seal(&db);
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    assert!(db.is_empty().unwrap() && db.stats().keys == 0);
}
