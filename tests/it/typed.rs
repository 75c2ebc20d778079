//! Typed keys and values: the order of keys against the order of their types, everything against a
//! `BTreeMap`, and what happens to bytes of another type.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use std::thread;

use bitcask::typed::{DecodeKey, EncodeKey, EncodePrefix, Json, Typed, TypedSource};
use bitcask::{Batch, Bitcask, Error, Options, ReadOnly, Result};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

fn open() -> (TempDir, Bitcask) {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    (dir, db)
}

/// Returns settings under which a failure is reproducible on every machine. `PROPTEST_RNG_SEED` and
/// `PROPTEST_CASES` extend the search.
fn config(cases: u32) -> ProptestConfig {
    let env = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    ProptestConfig {
        cases: env("PROPTEST_CASES").and_then(|cases| cases.try_into().ok()).unwrap_or(cases),
        rng_seed: RngSeed::Fixed(env("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn all<T>(items: impl Iterator<Item = Result<T>>) -> Vec<T> {
    items.map(Result::unwrap).collect()
}

/// Checks that two keys compare as their bytes do, as whole keys and with fields after them, and
/// that their bytes decode to them.
fn check<K: DecodeKey + Ord + Clone + Debug>(a: &K, b: &K) {
    let typed = Typed::<K, ()>::new("of/");
    let (one, other) = (typed.encode_key(a), typed.encode_key(b));
    assert_eq!(a.cmp(b), one.cmp(&other), "{a:?} {b:?}");
    assert_eq!(typed.decode_key(&one).unwrap(), *a);

    let nested = Typed::<(K, u8, K), ()>::new("");
    let [one, other] = [(a, b, 7), (b, a, 255)].map(|(first, last, middle)| {
        let key = (first.clone(), middle, last.clone());
        let bytes = nested.encode_key(&key);
        assert_eq!(nested.decode_key(&bytes).unwrap(), key);
        (key, bytes)
    });
    assert_eq!(one.0.cmp(&other.0), one.1.cmp(&other.1), "{a:?} {b:?}");

    // No encoding with a terminator begins another one.
    let [one, other] = [a, b].map(|key| {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        bytes
    });
    assert_eq!(a == b, other.starts_with(&one), "{a:?} {b:?}");
}

/// Checks that bytes either are no key, or are the encoding of the key that they decode to.
fn check_bytes<K: DecodeKey>(bytes: &[u8]) {
    let typed = Typed::<K, ()>::new("");
    match typed.decode_key(bytes) {
        Ok(key) => assert_eq!(typed.encode_key(&key), bytes),
        Err(error) => assert!(error.is_undecodable()),
    }
}

/// Bytes among which those with a meaning in encodings are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(0), Just(1), Just(0xff), any::<u8>()], 0..6)
}

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![Just('\0'), Just('\0'), Just('\u{1}'), Just('\u{ff}'), any::<char>()];
    vec(char, 0..5).prop_map(String::from_iter)
}

fn two<S: Strategy>(strategy: impl Fn() -> S) -> (S, S) {
    (strategy(), strategy())
}

macro_rules! integers_keep_their_order {
    ($($type:ident),+) => {
        proptest! {
            #![proptest_config(config(256))]

            $(
                #[test]
                fn $type((a, b) in two(any::<$type>), near in any::<i8>()) {
                    check(&a, &b);
                    check(&a, &a.wrapping_add(near as $type));
                    let ends = [$type::MIN, $type::MAX, 0, a];
                    for (a, b) in ends.iter().flat_map(|a| ends.iter().map(move |b| (a, b))) {
                        check(a, b);
                    }
                }
            )+
        }
    };
}

#[expect(clippy::cast_sign_loss, clippy::cast_lossless, reason = "any neighbours will do")]
mod integers {
    use super::*;

    integers_keep_their_order!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize);
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn strings_and_bytes_keep_their_order((a, b) in two(text), (c, d) in two(bytes)) {
        check(&a, &b);
        check(&c, &d);
        check(&a, &(a.clone() + &b));
    }

    #[test]
    fn tuples_keep_their_order(
        (a, b) in two(|| (text(), any::<i16>(), bytes())),
        (c, d) in two(|| (any::<bool>(), bytes(), any::<i8>(), text(), any::<u16>(), text())),
        (e, f) in two(|| ((text(), any::<bool>()), (any::<[u8; 3]>(), bytes()))),
    ) {
        check(&a, &b);
        // Fields decide only if those before them are equal.
        check(&a, &(a.0.clone(), a.1, b.2.clone()));
        check(&(a.0.clone(), b.0.clone()), &(b.0, a.0));
        check(&c, &d);
        check(&e, &f);
        check(&((), a.1), &((), b.1));
    }

    #[test]
    fn any_bytes_are_no_key_or_the_only_encoding_of_one(bytes in vec(prop_oneof![
        Just(0), Just(1), Just(0xff), Just(b'a'), any::<u8>()
    ], 0..12)) {
        check_bytes::<u8>(&bytes);
        check_bytes::<i64>(&bytes);
        check_bytes::<u128>(&bytes);
        check_bytes::<bool>(&bytes);
        check_bytes::<()>(&bytes);
        check_bytes::<[u8; 4]>(&bytes);
        check_bytes::<String>(&bytes);
        check_bytes::<Vec<u8>>(&bytes);
        check_bytes::<(String, String)>(&bytes);
        check_bytes::<(Vec<u8>, Vec<u8>, u8)>(&bytes);
        check_bytes::<((bool, String), (i8, Vec<u8>))>(&bytes);
    }
}

#[test]
fn booleans_keep_their_order() {
    for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
        check(&a, &b);
    }
}

/// These bytes are in stores: they must never change.
#[test]
fn the_encodings_are_as_documented() {
    fn is<K: EncodeKey + ?Sized>(key: &K, last: &[u8], before_others: &[u8]) {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        key.encode_last(&mut one);
        key.encode(&mut other);
        assert_eq!((&*one, &*other), (last, before_others));
    }
    is(&0x0102_u16, &[1, 2], &[1, 2]);
    is(&-1_i32, &[0x7f, 0xff, 0xff, 0xff], &[0x7f, 0xff, 0xff, 0xff]);
    is(&1_i8, &[0x81], &[0x81]);
    is(&1_usize, &[0, 0, 0, 0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 1]);
    is(&isize::MIN, &[0; 8], &[0; 8]);
    is(&true, &[1], &[1]);
    is(&(), &[], &[]);
    is(&[9, 0_u8], &[9, 0], &[9, 0]);
    is(&"a\0b".to_owned(), b"a\0b", b"a\0\xffb\0\0");
    is(&vec![0, 0_u8], &[0, 0], &[0, 0xff, 0, 0xff, 0, 0]);
    is(&("a".to_owned(), "b".to_owned()), b"a\0\0b", b"a\0\0b\0\0");
    is(&(("a".to_owned(),), 2_u8), b"a\0\0\x02", b"a\0\0\x02");
    let typed = Typed::<(String, Vec<u8>), ()>::new("of/");
    assert_eq!(typed.encode_key(&("a", b"b")), b"of/a\0\0b");
    assert_eq!(typed.encode_key(&(&"a".to_owned(), [7, 8].as_slice())), b"of/a\0\0\x07\x08");
}

#[test]
fn a_prefix_of_fields_holds_exactly_the_keys_with_these_fields() {
    fn holds<K: DecodeKey, P: EncodePrefix<K>>(prefix: &P, keys: &[K], expected: usize) {
        let (_dir, db) = open();
        let typed = Typed::<K, u8>::new("of/");
        for key in keys {
            typed.put(&db, key, &0).unwrap();
        }
        assert_eq!(typed.iter(&db).count(), keys.len());
        assert_eq!(typed.prefix(&db, prefix).count(), expected);
        assert_eq!(typed.delete_prefix(&db, prefix).unwrap(), expected as u64);
        assert_eq!(typed.prefix(&db, prefix).count(), 0);
        assert_eq!(typed.keys(&db).count(), keys.len() - expected);
    }
    let names = ["", "a", "a\0", "a\0\0", "a\0b", "ab", "b"];
    let pairs: Vec<(String, u8)> =
        names.iter().flat_map(|name| [0, 255].map(|last| ((*name).to_owned(), last))).collect();
    for name in names {
        holds(&(name,), &pairs, 2);
    }
    holds(&("c",), &pairs, 0);
    let texts = names.map(str::to_owned);
    holds(&"a", &texts, 5);
    holds(&"", &texts, 7);
    holds(&b"a\0".as_slice(), &names.map(|name| name.as_bytes().to_vec()), 3);
    let numbers: Vec<(i8, u8, u8)> =
        (-1..2).flat_map(|first| (254..=255).map(move |second| (first, second, 0))).collect();
    holds(&(-1,), &numbers, 2);
    holds(&(0, 255), &numbers, 1);
}

/// A change of one of two collections, whose keys lie next to each other.
type Change = (bool, Key, Option<u32>);

type Key = (String, i32);

fn change() -> impl Strategy<Value = Change> {
    let key = (prop_oneof![Just(""), Just("a"), Just("a\0"), Just("b")], -2..3_i32);
    (any::<bool>(), key.prop_map(|(name, number)| (name.to_owned(), number)), any::<Option<u32>>())
}

fn bound() -> impl Strategy<Value = Bound<Key>> {
    let key = change().prop_map(|(_, key, _)| key);
    prop_oneof![
        Just(Bound::Unbounded),
        key.prop_flat_map(|key| prop_oneof![
            Just(Bound::Included(key.clone())),
            Just(Bound::Excluded(key))
        ]),
    ]
}

type Model = BTreeMap<Key, u32>;
type Pairs = Vec<(Key, u32)>;

fn change_model(model: &mut Model, key: &Key, value: Option<u32>) {
    match value {
        Some(value) => model.insert(key.clone(), value),
        None => model.remove(key),
    };
}

/// Checks what a source shows of a collection.
fn shows(
    typed: Typed<Key, u32>,
    source: &impl TypedSource,
    model: &Model,
    bounds: &(Bound<Key>, Bound<Key>),
) {
    let within = |key: &Key| {
        let after = match &bounds.0 {
            Bound::Included(start) => key >= start,
            Bound::Excluded(start) => key > start,
            Bound::Unbounded => true,
        };
        after
            && match &bounds.1 {
                Bound::Included(end) => key <= end,
                Bound::Excluded(end) => key < end,
                Bound::Unbounded => true,
            }
    };
    let pairs: Pairs = model.clone().into_iter().collect();
    let part: Pairs = pairs.iter().filter(|(key, _)| within(key)).cloned().collect();
    let keys: Vec<_> = part.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(all(typed.iter(source)), pairs);
    assert_eq!(all(typed.range(source, bounds)), part);
    assert_eq!(all(typed.range_keys(source, bounds)), keys);
    let back: Pairs = all(typed.range(source, bounds).rev()).into_iter().rev().collect();
    assert_eq!(back, part);
    assert_eq!(typed.first(source).unwrap(), pairs.first().cloned());
    assert_eq!(typed.last(source).unwrap(), pairs.last().cloned());
    for name in ["", "a", "a\0", "b", "c"] {
        let of_name = pairs.iter().filter(|((found, _), _)| found == name).cloned();
        assert_eq!(all(typed.prefix(source, &(name,))), of_name.collect::<Pairs>());
        let wanted: Vec<_> = (-3..4).map(|number| (name, number)).collect();
        let expected = wanted.iter().map(|(name, number)| {
            let value = model.get(&((*name).to_owned(), *number)).copied();
            assert_eq!(typed.get(source, &(*name, *number)).unwrap(), value);
            assert_eq!(typed.contains_key(source, &(*name, *number)).unwrap(), value.is_some());
            value
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(typed.get_many(source, &wanted).unwrap(), expected);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn collections_are_maps(
        changes in vec(change(), 1..40),
        late in vec(change(), 1..5),
        bounds in (bound(), bound()),
    ) {
        let (dir, db) = open();
        // The bytes after the first one's keys are those of the second one.
        let typed = [Typed::new("x"), Typed::new("y")];
        let mut models = [Model::new(), Model::new()];
        db.put("w", "of no collection").unwrap();
        db.put("z", "of no collection").unwrap();
        let mut batch = Batch::new();
        for (at, (which, key, value)) in changes.iter().enumerate() {
            let (typed, model) = (typed[usize::from(*which)], &mut models[usize::from(*which)]);
            match value {
                Some(value) if at % 2 == 0 => typed.put(&db, key, value).unwrap(),
                Some(value) => {
                    typed.put_in(&mut batch, key, value).unwrap();
                    db.write(&batch).unwrap();
                }
                None if at % 2 == 0 => {
                    assert_eq!(typed.delete(&db, key).unwrap(), model.contains_key(key));
                }
                None => {
                    typed.delete_in(&mut batch, key);
                    db.write(&batch).unwrap();
                }
            }
            batch.clear();
            change_model(model, key, *value);
        }
        let snapshot = db.snapshot();
        let before = models.clone();
        db.transaction(|tx| {
            models = before.clone();
            for (which, key, value) in &late {
                let typed = typed[usize::from(*which)];
                match value {
                    Some(value) => typed.put_in(tx, key, value)?,
                    None => typed.delete_in(tx, key),
                }
                change_model(&mut models[usize::from(*which)], key, *value);
            }
            shows(typed[0], tx, &models[0], &bounds);
            Ok(())
        }).unwrap();
        let reader = ReadOnly::open(dir.path(), Options::default()).unwrap();
        let db = Arc::new(db);
        for at in 0..2 {
            shows(typed[at], &snapshot, &before[at], &bounds);
            shows(typed[at], &db, &models[at], &bounds);
            shows(typed[at], &*reader, &models[at], &bounds);
        }
        let removed = models[0].len() - {
            let deleted = typed[0].delete_range(&db, &bounds).unwrap();
            usize::try_from(deleted).unwrap()
        };
        assert_eq!(typed[0].iter(&db).count(), removed);
        typed[0].delete_range(&db, ..).unwrap();
        assert_eq!(db.len().unwrap(), 2 + models[1].len() as u64);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u8,
}

const USERS: Typed<u32, User> = Typed::new("user/");

fn ann() -> User {
    User { name: "Ann".to_owned(), age: 41 }
}

/// Returns the key in an `Undecodable` error.
fn undecodable<T: Debug>(result: Result<T>) -> Vec<u8> {
    let error = result.unwrap_err();
    assert!(error.is_undecodable() && !error.is_corruption());
    let text = error.to_string();
    let Error::Undecodable { key, .. } = error else { panic!("{error}") };
    assert!(text.contains(&key.escape_ascii().to_string()), "{text}");
    key
}

#[test]
fn a_value_of_another_type_is_an_error_that_names_its_key() {
    let (_dir, db) = open();
    USERS.put(&db, &1, &ann()).unwrap();
    USERS.put(&db, &3, &ann()).unwrap();
    let key = USERS.encode_key(&2);
    for bytes in [b"".as_slice(), b"\x05Ann", &[0xff; 20], b"\x03Ann\x29\0"] {
        db.put(&key, bytes).unwrap();
        assert_eq!(undecodable(USERS.get(&db, &2)), key);
        assert_eq!(undecodable(USERS.get_many(&db, &[1, 2, 3])), key);
        let pairs: Vec<_> = USERS.iter(&db).collect();
        assert_eq!((pairs.len(), pairs[2].as_ref().unwrap().0), (3, 3));
        assert_eq!(undecodable(USERS.range(&db, 2..).next().unwrap()), key);
        // Nothing that depends on the value changes it.
        assert_eq!(undecodable(USERS.update(&db, &2, |_| Some(ann()))), key);
        assert_eq!(undecodable(USERS.compare_and_swap(&db, &2, None, None)), key);
        assert!(!USERS.put_if_absent(&db, &2, &ann()).unwrap());
        assert_eq!(db.get(&key).unwrap().unwrap(), bytes);
        // Whatever does not need the value works.
        assert!(USERS.contains_key(&db, &2).unwrap());
        assert_eq!(all(USERS.keys(&db)), [1, 2, 3]);
    }
    let error = USERS.get(&db, &2).unwrap_err().to_string();
    assert!(error.contains("User") && error.contains("1 bytes are left"), "{error}");
    USERS.put(&db, &2, &ann()).unwrap();
    assert_eq!(USERS.get(&db, &2).unwrap(), Some(ann()));
}

#[test]
fn a_key_of_another_type_is_an_error_that_names_it() {
    let (_dir, db) = open();
    USERS.put(&db, &1, &ann()).unwrap();
    for foreign in ["user/", "user/abc", "user/abcde"] {
        db.put(foreign, "x").unwrap();
        let errors: Vec<_> = USERS.keys(&db).filter(Result::is_err).collect();
        assert_eq!(errors.len(), 1);
        assert!(USERS.iter(&db).any(|pair| pair.is_err_and(|error| {
            matches!(error, Error::Undecodable { key, .. } if key == foreign.as_bytes())
        })));
        assert_eq!(undecodable(USERS.decode_key(foreign.as_bytes())), foreign.as_bytes());
        db.delete(foreign).unwrap();
    }
    assert_eq!(undecodable(USERS.decode_key(b"order/\0\0\0\x01")), b"order/\0\0\0\x01");
    // Long keys are shortened in messages, not in the error.
    let long = [b"user/".as_slice(), &[7; 5000]].concat();
    let error = USERS.decode_key(&long).unwrap_err();
    assert!(error.to_string().len() < 600 && error.to_string().contains("(5005 bytes)"));
    assert!(matches!(error, Error::Undecodable { key, .. } if key == long));
}

#[test]
fn a_value_that_the_encoding_cannot_express_is_an_error_and_changes_nothing() {
    // JSON has only strings as keys of maps, postcard has any keys.
    const PLACES: Typed<u8, HashMap<(u8, u8), u8>, Json> = Typed::json("place/");
    const SAME: Typed<u8, HashMap<(u8, u8), u8>> = Typed::new("place/");
    let (_dir, db) = open();
    let map = HashMap::from([((1, 2), 3)]);
    let error = PLACES.put(&db, &1, &map).unwrap_err();
    assert!(error.is_invalid_input());
    assert!(matches!(&error, Error::Unencodable { key, .. } if *key == PLACES.encode_key(&1)));
    let mut batch = Batch::new();
    PLACES.put_in(&mut batch, &1, &map).unwrap_err();
    assert!(batch.is_empty() && db.is_empty().unwrap());
    let error = db.transaction(|tx| {
        tx.put("other", "x");
        PLACES.put_in(tx, &1, &map)
    });
    assert!(matches!(error, Err(Error::Unencodable { .. })) && db.is_empty().unwrap());
    SAME.put(&db, &1, &map).unwrap();
    assert_eq!(SAME.get(&db, &1).unwrap(), Some(map));
}

#[test]
fn json_refuses_floats_that_are_not_finite() {
    const SPEEDS: Typed<u8, Vec<Option<f64>>, Json> = Typed::json("speed/");
    const SAME: Typed<u8, Vec<Option<f64>>> = Typed::new("speed/");
    let (_dir, db) = open();
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = SPEEDS.put(&db, &1, &vec![Some(float)]).unwrap_err();
        assert!(matches!(&error, Error::Unencodable { reason, .. } if reason.contains("finite")));
        assert!(db.is_empty().unwrap());
    }
    // A `None` is a `null` that belongs there.
    SPEEDS.put(&db, &1, &vec![Some(0.5), None]).unwrap();
    assert_eq!(SPEEDS.get(&db, &1).unwrap(), Some(vec![Some(0.5), None]));
    SAME.put(&db, &2, &vec![Some(f64::INFINITY)]).unwrap();
    assert_eq!(SAME.get(&db, &2).unwrap(), Some(vec![Some(f64::INFINITY)]));
}

#[test]
fn json_is_json_and_strings_are_their_own_keys() {
    const PEOPLE: Typed<String, User, Json> = Typed::json("");
    let (_dir, db) = open();
    PEOPLE.put(&db, "Ann", &ann()).unwrap();
    assert_eq!(db.get("Ann").unwrap().unwrap(), r#"{"name":"Ann","age":41}"#);
    db.put("Bob", r#" { "age": 7, "name": "Bob", "unknown": [] } "#).unwrap();
    assert_eq!(PEOPLE.last(&db).unwrap().unwrap().1.age, 7);
    db.put("Cid", "{}").unwrap();
    assert_eq!(undecodable(PEOPLE.get(&db, "Cid")), b"Cid");
    db.put("Cid", [b"[".repeat(100_000), b"]".repeat(100_000)].concat()).unwrap();
    assert_eq!(undecodable(PEOPLE.get(&db, "Cid")), b"Cid");
}

#[test]
fn a_swap_compares_values_and_an_update_runs_until_it_is_alone() {
    const COUNTS: Typed<String, u64, Json> = Typed::json("count/");
    let (_dir, db) = open();
    assert_eq!(COUNTS.compare_and_swap(&db, "a", Some(&1), Some(&2)).unwrap(), Err(None));
    assert_eq!(COUNTS.compare_and_swap(&db, "a", None, Some(&2)).unwrap(), Ok(()));
    // The same value in other bytes.
    db.put("count/a", " 2 ").unwrap();
    assert_eq!(COUNTS.compare_and_swap(&db, "a", Some(&3), None).unwrap(), Err(Some(2)));
    assert_eq!(COUNTS.compare_and_swap(&db, "a", Some(&2), Some(&3)).unwrap(), Ok(()));
    assert_eq!(COUNTS.update(&db, "a", |_| None).unwrap(), None);
    assert!(db.is_empty().unwrap());

    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let add = |count: Option<u64>| Some(count.unwrap_or(0) + 1);
                    while COUNTS.update(&db, "a", add).is_err_and(|error| error.is_conflict()) {}
                }
            });
        }
    });
    assert_eq!(COUNTS.get(&db, "a").unwrap(), Some(200));
}
