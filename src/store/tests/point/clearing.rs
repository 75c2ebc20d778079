//! Transactions that remove all keys: whatever others write meanwhile is no conflict, and is
//! removed too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::TransactionOptions;
use crate::store::tests::merge::basics::{lab, seal};
use crate::store::tests::*;

fn once() -> TransactionOptions {
    TransactionOptions::new().attempts(1)
}

fn keys(db: &Bitcask) -> Vec<String> {
    let text = |key: crate::value::Value| String::from_utf8(key.to_vec()).unwrap();
    db.keys().map(|key| text(key.unwrap())).collect()
}

#[test]
fn a_transaction_sees_nothing_but_its_own_writes_after_a_clear() {
    let db = lab().open();
    for key in ["a", "b", "c"] {
        let hour = WriteOptions::new().ttl(Duration::from_secs(3600));
        db.put_opt(key, "old", hour).unwrap();
    }
    db.transaction_opt(once(), |tx| {
        tx.put("d", "forgotten");
        tx.clear();
        assert_eq!((tx.get("a")?, tx.get("d")?), (None, None));
        assert!(!tx.contains_key("a")? && tx.ttl("a")?.is_none() && tx.expiry("a")?.is_none());
        assert_eq!(tx.range(..).count() + tx.prefix("b").rev().count(), 0);
        tx.put_opt("b", "new", WriteOptions::new().keep_ttl(true));
        assert_eq!(tx.ttl("b")?, Some(Ttl::Never));
        tx.put("e", "1");
        tx.delete("e");
        assert_eq!(tx.range(..).count(), 1);
        Ok(())
    })
    .unwrap();
    assert_eq!(keys(&db), ["b"]);
    assert_eq!(db.get("b").unwrap().unwrap(), "new");
    assert_eq!(db.ttl("b").unwrap(), Some(Ttl::Never));
    db.transaction(|tx| {
        tx.clear();
        tx.rollback();
        assert!(tx.contains_key("b")?);
        Ok(())
    })
    .unwrap();
    assert_eq!(keys(&db), ["b"]);
}

#[test]
fn a_clear_removes_what_others_have_written_meanwhile() {
    let lab = lab();
    let db = lab.open();
    db.put("a", "1").unwrap();
    db.put("gone", "1").unwrap();
    seal(&db);
    db.transaction_opt(once(), |tx| {
        tx.clear();
        db.put("a", "2")?;
        db.put("b", "2")?;
        db.delete("gone")?;
        seal(&db);
        db.put("c", "2")?;
        tx.put("new", "3");
        Ok(())
    })
    .unwrap();
    assert_eq!(keys(&db), ["new"]);
    assert_eq!(db.len().unwrap(), 1);
    db.close().unwrap();
    assert_eq!(keys(&lab.open()), ["new"]);
}

#[test]
fn what_was_read_before_a_clear_still_counts() {
    let db = lab().open();
    db.put("a", "1").unwrap();
    let conflict = db.transaction_opt(once(), |tx| {
        let _ = tx.get("a")?;
        tx.clear();
        db.put("a", "2")
    });
    assert!(matches!(conflict, Err(Error::Conflict { attempts: 1 })), "{conflict:?}");
    let conflict = db.transaction_opt(once(), |tx| {
        let _ = tx.prefix("b").count();
        tx.clear();
        db.put("b", "2")
    });
    assert!(matches!(conflict, Err(Error::Conflict { attempts: 1 })), "{conflict:?}");
    assert_eq!(keys(&db), ["a", "b"]);
}

#[test]
fn a_clear_of_the_store_meanwhile_is_no_conflict() {
    let db = lab().open();
    db.put("a", "1").unwrap();
    db.transaction_opt(once(), |tx| {
        tx.clear();
        db.clear()?;
        db.put("b", "2")
    })
    .unwrap();
    assert_eq!(keys(&db), [""; 0]);
    // Nothing is left to be removed.
    let position = db.position();
    db.transaction_opt(once(), |tx| {
        tx.clear();
        Ok(())
    })
    .unwrap();
    assert_eq!(db.position(), position);
}

/// Others put pairs of new keys all the time. A clear is made in its first attempt, and removes
/// both keys of a pair or none.
#[test]
fn a_clear_is_made_however_much_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::new().segment_size(64 << 10)).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (db, is_over) = (&db, &is_over);
            scope.spawn(move || {
                for number in 0..100_000 {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let pair = [format!("{writer}/{number}/a"), format!("{writer}/{number}/b")];
                    db.write(Batch::new().put(&pair[0], "x").put(&pair[1], "x")).unwrap();
                }
            });
        }
        for round in 0..50 {
            db.transaction_opt(once(), |tx| {
                tx.clear();
                tx.put("round", round.to_string());
                Ok(())
            })
            .unwrap();
            let snapshot = db.snapshot();
            assert!(snapshot.contains_key("round").unwrap());
            for key in snapshot.keys() {
                let key = String::from_utf8(key.unwrap().to_vec()).unwrap();
                if let Some(pair) = key.strip_suffix("/a") {
                    assert!(snapshot.contains_key(format!("{pair}/b")).unwrap(), "{key}");
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_a_clock_that_is_ahead_hides_is_removed_too() {
    let lab = lab();
    let db = lab.open();
    let hour = Duration::from_secs(3600);
    db.put_opt("a", "1", WriteOptions::new().ttl(hour)).unwrap();
    seal(&db);
    db.put_opt("b", "1", WriteOptions::new().ttl(hour)).unwrap();
    lab.hands.jump(2 * hour);
    assert_eq!(keys(&db), [""; 0]);
    db.transaction_opt(once(), |tx| {
        tx.clear();
        Ok(())
    })
    .unwrap();
    lab.hands.step_back(2 * hour);
    assert_eq!(keys(&db), [""; 0]);
    assert_eq!((db.get("a").unwrap(), db.get("b").unwrap()), (None, None));
    db.close().unwrap();
    assert_eq!(keys(&lab.open()), [""; 0]);
}

#[test]
fn the_position_before_what_a_clear_deletes_is_reported() {
    let db = lab().open();
    for key in ["a", "b", "gone"] {
        db.put(key, "1").unwrap();
    }
    let noted = Arc::new(Mutex::new(Vec::new()));
    let clear = |tx: &mut Transaction| {
        let noted = Arc::clone(&noted);
        tx.clear_noting(Some(Box::new(move |before| noted.lock().unwrap().push(before))));
    };
    db.transaction_opt(once(), |tx| {
        clear(tx);
        tx.put("b", "2");
        tx.delete("absent");
        db.delete("gone")?;
        db.put("c", "1")
    })
    .unwrap();
    let before = std::mem::take(&mut *noted.lock().unwrap());
    let [before] = before[..] else { panic!("{before:?}") };
    // What comes next is the whole batch, and nothing else.
    let (mut changes, mut deleted, mut is_over) = (db.changes(before).unwrap(), Vec::new(), false);
    while let Some(change) = changes.try_recv().unwrap() {
        assert!(!is_over);
        is_over = !change.batch_continues;
        if change.operation == Operation::Delete {
            deleted.push(change.key.to_vec());
        }
    }
    assert!(is_over);
    assert_eq!(deleted, [b"a", b"c"]);
    // Where there is nothing to delete, nothing is reported.
    db.clear().unwrap();
    db.transaction_opt(once(), |tx| {
        clear(tx);
        tx.put("d", "1");
        Ok(())
    })
    .unwrap();
    assert!(noted.lock().unwrap().is_empty());
}
