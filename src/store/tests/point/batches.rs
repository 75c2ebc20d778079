//! Batches: how they are filled, their size in the log, and that one can be written more than once.

use crate::store::tests::*;

#[test]
fn a_batch_knows_its_size_in_the_log() {
    let lab = Lab::new().with(Options::new().sync_policy(SyncPolicy::Never));
    let db = lab.open();
    db.put("gone", "").unwrap();
    let mortal = WriteOptions::new().ttl(Duration::from_secs(60));
    let mut batch = Batch::new();
    for size in [0, 1, 3, 4, 5, 100, 3000] {
        batch.put(format!("key {size}"), vec![0; size]);
        batch.put_opt(format!("mortal {size}"), vec![0; size], mortal);
        batch.put_opt(
            format!("at {size}"),
            "",
            WriteOptions::new().expires_at(std::time::UNIX_EPOCH),
        );
    }
    batch.delete("gone");
    let before = db.stats().appended_size;
    db.write(&batch).unwrap();
    assert_eq!(db.stats().appended_size - before, batch.size());
    assert_eq!(batch.len(), 22);
    assert_eq!(format!("{batch:?}"), format!("Batch {{ len: 22, size: {}, .. }}", batch.size()));
    batch.clear();
    assert_eq!((batch.len(), batch.size(), batch.is_empty()), (0, 0, true));
}

#[test]
fn pairs_can_be_collected_into_and_added_to_a_batch() {
    let db = Lab::new().open();
    let mut batch: Batch = [("a", "1"), ("b", "1")].into_iter().collect();
    batch.extend(BTreeMap::from([("b".to_owned(), vec![b'2']), ("c".to_owned(), vec![b'3'])]));
    batch.extend([("d", "4")].iter().copied());
    let copy = batch.clone();
    batch.delete("d");
    assert_eq!((batch.len(), copy.len(), copy.size()), (6, 5, 5 * 24));
    db.write(&batch).unwrap();
    check(&db, &model([("a", "1"), ("b", "2"), ("c", "3")]));
    db.write(&copy).unwrap();
    check(&db, &model([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]));
}

#[test]
fn a_batch_can_be_rewritten_after_a_full_disk() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("before", "").unwrap();
    let batch: Batch = (0..50_u8).map(|key| ([key], [key; 100])).collect();
    lab.twin.set_space(0);
    assert!(db.write(&batch).unwrap_err().is_no_space());
    check(&db, &model([("before", "")]));
    lab.twin.set_space(u64::MAX);
    db.write(&batch).unwrap();
    db.write(&batch).unwrap();
    let mut expected = model([("before", "")]);
    let stored = |key: u8| (vec![key], Stored { value: vec![key; 100], expiry: None });
    expected.extend((0..50).map(stored));
    check(&lab.reopen(db), &expected);
}

#[test]
fn one_durable_change_makes_the_whole_batch_durable() {
    let durable = WriteOptions::new().durable(true);
    let lab = Lab::new();
    let db = lab.open();
    db.write(Batch::new().put("a", "1").put_opt("b", "2", durable)).unwrap();
    check(&lab.powered_off(|_| false).open(), &model([("a", "1"), ("b", "2")]));
    db.transaction(|tx| {
        tx.put("c", "3");
        tx.put_opt("d", "4", durable);
        Ok(())
    })
    .unwrap();
    let all = model([("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
    check(&lab.powered_off(|_| false).open(), &all);
    // The options of the batch as a whole take precedence.
    let syncs = db.stats().syncs;
    db.write_opt(Batch::new().put_opt("e", "5", durable), durable.durable(false)).unwrap();
    assert_eq!(db.stats().syncs, syncs);
}
