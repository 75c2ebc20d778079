//! Changes that depend on the present state: either all conditions and the caller's check of the
//! log hold when the changes are made, or nothing changes.

use crate::log::Log;
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::tests::*;

fn is<'a>(key: &'a str, value: Option<&'a str>) -> Condition<'a> {
    let value = value.map(str::as_bytes);
    Condition { key: key.as_bytes(), expected: Expected::Value(value) }
}

/// Puts keys, and deletes those without a value.
fn change(db: &Bitcask, conditions: &[Condition<'_>], changes: &[(&str, Option<&str>)]) -> bool {
    let drafts = changes.iter().map(|(key, value)| match value {
        Some(value) => Draft::put(key.as_bytes(), value.as_bytes(), None),
        None => Draft::tombstone(key.as_bytes()),
    });
    let (drafts, options) = (drafts.collect(), WriteOptions::new());
    db.inner.change_atomically(conditions, drafts, options, |_| Ok(true)).unwrap()
}

#[test]
fn changes_are_made_only_if_all_conditions_hold() {
    for lab in [Lab::new(), Lab::weak()] {
        let db = lab.open();
        db.write(Batch::new().put("a", "1").put("b", "2")).unwrap();
        let right = || [is("a", Some("1")), is("absent", None), is("b", Some("2"))];
        let wrong = [is("a", Some("2")), is("absent", Some("1")), is("b", None)];
        for (at, wrong) in (0..).zip(wrong) {
            let mut conditions = right();
            conditions[at] = wrong;
            assert!(!change(&db, &conditions, &[("a", Some("3")), ("c", Some("4"))]));
            check(&db, &model([("a", "1"), ("b", "2")]));
        }
        let appends = db.stats().appends;
        assert!(change(&db, &right(), &[("absent", None)]));
        assert!(change(&db, &right(), &[]));
        assert_eq!(db.stats().appends, appends);
        // Changed keys and keys that are only conditions, in the same shard and in different ones.
        assert!(change(&db, &right(), &[("a", Some("3")), ("c", Some("4")), ("b", None)]));
        let expected = model([("a", "3"), ("c", "4")]);
        check(&db, &expected);
        let entries = log_entries(&lab);
        let goes_on = |entry: &LogEntry| entry.flags.has(Flags::CONTINUES);
        assert_eq!(entries[2..].iter().map(goes_on).collect::<Vec<_>>(), [true, true, false]);
        check(&lab.reopen(db), &expected);
    }
}

#[test]
fn an_unchanged_condition_fails_once_the_key_is_rewritten() {
    let lab = Lab::new();
    let db = lab.open();
    let since = |key: &'static str, timestamp| Condition {
        key: key.as_bytes(),
        expected: Expected::Unchanged(timestamp),
    };
    let time = |key: &str| {
        let guard = db.inner.pin();
        let stored = db.inner.locate(key.as_bytes(), &guard).unwrap();
        stored.map(|stored| stored.timestamp())
    };
    assert!(change(&db, &[since("a", None)], &[("a", Some("1"))]));
    let first = time("a");
    assert!(!change(&db, &[since("a", None)], &[("b", Some("1"))]));
    assert!(change(&db, &[since("a", first)], &[("b", Some("1"))]));
    // Rewriting the same value makes the condition fail, too.
    db.put("a", "1").unwrap();
    assert!(!change(&db, &[since("a", first)], &[("b", Some("2"))]));
    // A merge moves an entry but keeps its timestamp.
    let second = time("a");
    db.merge_opt(crate::options::MergeOptions::new().force(true)).unwrap();
    assert!(change(&db, &[since("a", second), since("c", None)], &[("b", None)]));
    check(&db, &model([("a", "1")]));
}

#[test]
fn a_refused_check_of_the_log_changes_nothing() {
    let lab = Lab::new();
    let db = lab.open();
    db.put("a", "1").unwrap();
    let end = db.inner.writer().unwrap().log.lock().end();
    let appends = db.stats().appends;
    for (drafts, answer) in [(1, Ok(false)), (0, Ok(false)), (1, Err(())), (1, Ok(true))] {
        let drafts = (0..drafts).map(|_| Draft::put(b"a", b"2", None)).collect();
        let validate = |log: &Log| {
            assert_eq!(log.end(), end);
            answer.map_err(|()| Error::ReadOnly)
        };
        let options = WriteOptions::new();
        let made = db.inner.change_atomically(&[is("a", Some("1"))], drafts, options, validate);
        assert_eq!(made.map_err(drop), answer);
        let is_made = u64::from(answer == Ok(true));
        assert_eq!(db.stats().appends, appends + is_made);
    }
    check(&db, &model([("a", "2")]));
}

/// The sum of two accounts must not become negative. Each writer reads both and withdraws from one.
/// If a key that is only read were not locked until the change of the other key is published, both
/// writers could withdraw simultaneously.
#[test]
fn conditions_hold_until_the_changes_are_published() {
    let lab = Lab::new();
    let db = lab.open();
    let amount = |key: &str| -> i64 {
        let value = db.get(key).unwrap().map(Vec::from);
        String::from_utf8(value.unwrap()).unwrap().parse().unwrap()
    };
    for _ in 0..if cfg!(miri) { 2 } else { 300 } {
        db.write(Batch::new().put("a", "1").put("b", "0")).unwrap();
        std::thread::scope(|scope| {
            for own in ["a", "b"] {
                let (db, amount) = (&db, &amount);
                scope.spawn(move || {
                    let (a, b) = (amount("a"), amount("b"));
                    if a + b < 1 {
                        return;
                    }
                    let (taken, a, b) = (amount(own) - 1, a.to_string(), b.to_string());
                    let both = [is("a", Some(&a)), is("b", Some(&b))];
                    let _ = change(db, &both, &[(own, Some(&taken.to_string()))]);
                });
            }
        });
        assert!(amount("a") + amount("b") >= 0);
    }
}

#[test]
fn a_durable_change_is_durable_when_it_returns() {
    let durable = WriteOptions::new().durable(true);
    let changes: [fn(&Bitcask, WriteOptions) -> bool; 4] = [
        |db, durable| db.put_if_absent_opt("new", "1", durable).unwrap(),
        |db, durable| {
            db.compare_and_swap_opt("a", Some(b"1"), Some(b"2"), durable).unwrap().is_ok()
        },
        |db, durable| db.update_opt("a", durable, |_| Some("2")).unwrap().is_some(),
        |db, durable| db.update_opt("a", durable, |_| None::<&str>).unwrap().is_none(),
    ];
    for change in changes {
        let lab = Lab::new();
        let db = lab.open();
        db.put("a", "1").unwrap();
        assert!(change(&db, durable));
        check(&lab.powered_off(|_| false).open(), &raw(&db));
    }
}

#[test]
fn a_conditional_change_may_have_a_time_to_live() {
    let lab = Lab::new();
    let db = lab.open();
    let minute = WriteOptions::new().ttl(Duration::from_secs(60));
    assert!(db.put_if_absent_opt("new", "1", minute).unwrap());
    assert!(db.compare_and_swap_opt("swapped", None, Some(b"1"), minute).unwrap().is_ok());
    db.update_opt("updated", minute, |_| Some("1")).unwrap();
    for key in ["new", "swapped", "updated"] {
        assert_eq!(db.ttl(key).unwrap(), Some(Ttl::In(Duration::from_secs(60))));
    }
    lab.hands.advance(Duration::from_secs(60));
    assert!(db.keys_unordered().next().is_none());
}
