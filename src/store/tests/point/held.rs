//! Transactions that the caller holds.

use crate::TransactionOptions;
use crate::store::tests::merge::basics::lab;
use crate::store::tests::*;

const OPTIONS: fn() -> TransactionOptions = TransactionOptions::new;

#[test]
fn a_held_transaction_takes_effect_when_it_is_committed() {
    let db = lab().open();
    db.put("a", "1").unwrap();
    let mut tx = db.begin();
    assert_eq!(tx.get("a").unwrap().unwrap(), "1");
    tx.put("a", "2");
    tx.put("b", "3");
    assert_eq!(tx.get("a").unwrap().unwrap(), "2");
    check(&db, &model([("a", "1")]));
    assert!(db.commit(tx, OPTIONS()).unwrap());
    check(&db, &model([("a", "2"), ("b", "3")]));
    let mut tx = db.begin();
    tx.put("c", "4");
    drop(tx);
    check(&db, &model([("a", "2"), ("b", "3")]));
}

#[test]
fn a_held_transaction_whose_reads_have_changed_writes_nothing() {
    let db = lab().open();
    db.put("a", "1").unwrap();
    let mut tx = db.begin();
    tx.get("a").unwrap();
    tx.put("b", "2");
    db.put("a", "changed").unwrap();
    assert!(!db.commit(tx, OPTIONS()).unwrap());
    assert_eq!(db.counters().conflicts, 1);
    check(&db, &model([("a", "changed")]));
}

#[test]
fn a_held_transaction_belongs_to_its_store() {
    let (first, second) = (lab(), lab());
    let (db, other) = (first.open(), second.open());
    let mut tx = db.begin();
    tx.put("a", "1");
    let error = other.commit(tx, OPTIONS()).unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    check(&other, &model([]));
    // It outlives its own store, but can't be committed to the next one in the same place.
    let mut tx = db.begin();
    tx.put("a", "1");
    db.close().unwrap();
    let db = first.open();
    assert!(db.commit(tx, OPTIONS()).unwrap_err().is_invalid_input());
    check(&db, &model([]));
}
