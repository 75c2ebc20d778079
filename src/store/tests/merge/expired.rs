//! Expiry at the worst moment: between the look at a key and the change that depends on it, or
//! between two looks of one call.
//!
//! - Time stands still except where a test advances it, so the tests do not depend on speed.

use crate::log::Log;
use crate::segment::write::draft::Draft;
use crate::store::point::conditional::{Condition, Expected};
use crate::store::tests::*;

const HOUR: Duration = Duration::from_secs(3600);

fn mortal() -> WriteOptions {
    WriteOptions::new().ttl(HOUR)
}

/// Keeps the log locked until a call has read the clock `looks` times, which is as often as it does
/// before it needs the log. Then an hour passes. Returns the result of the call.
fn expiring<T: Send>(
    lab: &Lab,
    db: &Bitcask,
    looks: u64,
    call: impl FnOnce(&Bitcask) -> T + Send,
) -> T {
    let log = db.inner.writer().unwrap().log.lock();
    let enough = lab.hands.looks() + looks;
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| call(db));
        while lab.hands.looks() < enough {
            assert!(!calling.is_finished(), "the call read the clock less often, and did not wait");
            std::thread::yield_now();
        }
        lab.hands.advance(HOUR);
        drop(log);
        calling.join().unwrap()
    })
}

/// Other threads may have seen the key expired before such a change gets its place in the log.
/// Regression: the change was made and the key reported as present; a persist brought the key back.
#[test]
fn a_key_that_expires_before_the_append_counts_as_absent() {
    type Call = fn(&Bitcask) -> bool;
    let calls: [(&str, u64, Call); 6] = [
        ("delete", 1, |db| db.delete("k").unwrap()),
        ("persist", 3, |db| db.persist("k").unwrap()),
        ("expire", 4, |db| db.expire("k", HOUR).unwrap()),
        ("compare_and_swap", 2, |db| {
            db.compare_and_swap("k", Some(b"old"), Some(b"new")).unwrap().is_ok()
        }),
        ("update", 3, |db| db.update("k", |old| old.map(|_| "new")).unwrap().is_some()),
        ("retain", 3, |db| db.retain(|key, _| key != b"k").unwrap() > 0),
    ];
    for lab in [Lab::new(), Lab::weak()] {
        for (name, looks, call) in calls {
            let lab = Lab { twin: Twin::new(), ..lab.clone() };
            let db = lab.open();
            db.put("other", "value").unwrap();
            db.put_opt("k", "old", mortal()).unwrap();
            assert!(!expiring(&lab, &db, looks, call), "{name}");
            assert!(!db.contains_key("k").unwrap(), "{name}");
            let db = lab.reopen(db);
            assert!(!db.contains_key("k").unwrap(), "{name}");
            assert_eq!(db.get("other").unwrap().unwrap(), "value");
        }
    }
}

/// An unconditional change is made, and so is one that depends on a value that does not expire.
#[test]
fn changes_independent_of_an_expired_value_are_made() {
    let lab = Lab::new();
    let db = lab.open();
    db.put_opt("k", "old", mortal()).unwrap();
    expiring(&lab, &db, 1, |db| db.put("k", "new").unwrap());
    assert_eq!(db.get("k").unwrap().unwrap(), "new");
    assert!(expiring(&lab, &db, 0, |db| db.persist("k").unwrap()));
    assert!(expiring(&lab, &db, 0, |db| db.delete("k").unwrap()));
    assert!(expiring(&lab, &db, 0, |db| db.put_if_absent("k", "first").unwrap()));
    check(&db, &model([("k", "first")]));
}

/// Several conditions together hold until the first of their keys expires.
#[test]
fn conditions_hold_until_the_first_of_their_keys_expires() {
    let is = |key: &'static str, value: Option<&'static str>| Condition {
        key: key.as_bytes(),
        expected: Expected::Value(value.map(str::as_bytes)),
    };
    let nearly = HOUR.saturating_sub(Duration::from_micros(1));
    for (passed, is_made) in [(nearly, true), (HOUR, false)] {
        for by_time in [false, true] {
            let lab = Lab::new();
            let db = lab.open();
            db.put("endless", "1").unwrap();
            db.put_opt("mortal", "2", mortal()).unwrap();
            db.put_opt("longer", "3", WriteOptions::new().ttl(HOUR * 2)).unwrap();
            let mut conditions = vec![
                is("endless", Some("1")),
                is("mortal", Some("2")),
                is("longer", Some("3")),
                is("absent", None),
            ];
            if by_time {
                let guard = db.inner.pin();
                for condition in &mut conditions {
                    let stored = db.inner.locate(condition.key, &guard).unwrap();
                    let time = stored.map(|stored| stored.timestamp());
                    condition.expected = Expected::Unchanged(time);
                }
            }
            let drafts = vec![Draft::put(b"made", b"", None)];
            let pass = |_: &Log| {
                lab.hands.advance(passed);
                Ok(true)
            };
            let options = WriteOptions::new();
            let made = db.inner.change_atomically(&conditions, drafts, options, pass).unwrap();
            assert_eq!((made, db.contains_key("made").unwrap()), (is_made, is_made));
        }
    }
}

/// An iterator collects the keys of a shard, and reads their entries later.
#[test]
fn an_iterator_yields_keys_persisted_after_it_collected_their_shard() {
    let lab = Lab::weak();
    let db = lab.open();
    let keys = 0..20_u8;
    for key in keys.clone() {
        db.put_opt([key], "value", mortal()).unwrap();
    }
    let mut pairs = db.iter_unordered();
    let mut shown = vec![pairs.next().unwrap().unwrap().0.to_vec()];
    for key in keys.clone() {
        assert!(db.persist([key]).unwrap());
    }
    lab.hands.advance(HOUR);
    shown.extend(pairs.map(|pair| pair.unwrap().0.to_vec()));
    shown.sort_unstable();
    assert_eq!(shown, keys.map(|key| vec![key]).collect::<Vec<_>>());
}
