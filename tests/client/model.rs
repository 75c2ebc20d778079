//! One program, written against the traits, on an embedded store, on a client, and on a map.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use bitcask::{Batch, Bitcask, ReadStore, Ttl, Version, WriteOptions, WriteStore};
use proptest::prelude::*;

use crate::support::{Running, small};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A step of the program.
#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    PutIfAbsent(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Write(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Swap(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    /// A swap with the present version, or with an old one.
    SwapVersioned(Vec<u8>, bool, Option<Vec<u8>>),
    Get(Vec<u8>),
    GetMany(Vec<Vec<u8>>),
    Range(Vec<u8>, Vec<u8>, bool),
    Prefix(Vec<u8>),
    Expire(Vec<u8>),
    Persist(Vec<u8>),
    Ends,
}

/// What a step has come to, as text.
fn take<S: WriteStore>(store: &S, step: &Step) -> Result<String, S::Error> {
    Ok(match step {
        Step::Put(key, value) => format!("{:?}", store.put(key, value)?),
        Step::PutIfAbsent(key, value) => format!("{:?}", store.put_if_absent(key, value)?),
        Step::Delete(key) => format!("{:?}", store.delete(key)?),
        Step::Write(changes) => {
            let mut batch = Batch::new();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                };
            }
            format!("{:?}", store.write(&batch)?)
        }
        Step::Swap(key, expected, new) => {
            let swapped = store.compare_and_swap(key, expected.as_deref(), new.as_deref())?;
            format!("{:?}", swapped.map_err(|error| error.current))
        }
        Step::SwapVersioned(key, is_present, new) => {
            let version = store.get_versioned(key)?.map(|(_, version)| version);
            let version = if *is_present { version } else { Some(Version::from(1)) };
            let swapped = store.compare_and_swap_versioned(key, version, new.as_deref())?;
            format!("{:?}", swapped.map_err(|error| error.current))
        }
        Step::Get(key) => {
            let value = store.get(key)?;
            assert_eq!(value.is_some(), store.contains_key(key)?);
            assert_eq!(value, store.get_versioned(key)?.map(|(value, _)| value));
            format!("{value:?}")
        }
        Step::GetMany(keys) => format!("{:?}", store.get_many(keys)?),
        Step::Range(low, high, is_backward) => {
            let range = low.clone()..high.clone();
            let keys: Vec<_> = store.range_keys(&range).collect::<Result<_, _>>()?;
            let pairs = store.range(&range);
            let pairs: Vec<_> = if *is_backward {
                pairs.rev().collect::<Result<_, _>>()?
            } else {
                pairs.collect::<Result<_, _>>()?
            };
            assert_eq!(keys.len(), pairs.len());
            format!("{pairs:?}")
        }
        Step::Prefix(prefix) => {
            let keys: Vec<_> = store.prefix_keys(prefix).collect::<Result<_, _>>()?;
            let pairs: Vec<_> = store.prefix(prefix).collect::<Result<_, _>>()?;
            assert!(keys.iter().eq(pairs.iter().map(|(key, _)| key)));
            format!("{pairs:?}")
        }
        Step::Expire(key) => {
            let found = store.expire(key, Duration::from_secs(3600))?;
            let ttl = store.ttl(key)?;
            assert_eq!(matches!(ttl, Some(Ttl::In(_))), found);
            format!("{found:?}")
        }
        Step::Persist(key) => {
            let found = store.persist(key)?;
            assert_eq!(store.ttl(key)?, found.then_some(Ttl::Never));
            format!("{found:?}")
        }
        Step::Ends => {
            let all = (store.first()?, store.last()?, store.iter().count(), store.keys().count());
            format!("{all:?}")
        }
    })
}

/// What the step comes to on a map. `Value` prints like a byte string.
fn expected(map: &mut Map, step: &Step) -> String {
    let shown = |bytes: &Vec<u8>| bitcask::Value::from(bytes.clone());
    let pair = |(key, value): (&Vec<u8>, &Vec<u8>)| (shown(key), shown(value));
    let swap = |map: &mut Map, key: &Vec<u8>, is_expected: bool, new: &Option<Vec<u8>>| {
        if !is_expected {
            return format!("{:?}", Err::<(), _>(map.get(key).map(shown)));
        }
        match new {
            Some(new) => map.insert(key.clone(), new.clone()),
            None => map.remove(key),
        };
        "Ok(())".to_owned()
    };
    match step {
        Step::Put(key, value) => {
            map.insert(key.clone(), value.clone());
            "()".into()
        }
        Step::PutIfAbsent(key, value) => {
            let is_absent = !map.contains_key(key);
            map.entry(key.clone()).or_insert_with(|| value.clone());
            format!("{is_absent:?}")
        }
        Step::Delete(key) => format!("{:?}", map.remove(key).is_some()),
        Step::Write(changes) => {
            for (key, value) in changes {
                match value {
                    Some(value) => map.insert(key.clone(), value.clone()),
                    None => map.remove(key),
                };
            }
            "()".into()
        }
        Step::Swap(key, expected, new) => {
            let is_expected = map.get(key) == expected.as_ref();
            swap(map, key, is_expected, new)
        }
        Step::SwapVersioned(key, is_present, new) => swap(map, key, *is_present, new),
        Step::Get(key) => format!("{:?}", map.get(key).map(shown)),
        Step::GetMany(keys) => {
            format!("{:?}", keys.iter().map(|key| map.get(key).map(shown)).collect::<Vec<_>>())
        }
        Step::Range(low, high, is_backward) => {
            let mut pairs: Vec<_> =
                map.iter().filter(|(key, _)| *key >= low && *key < high).map(pair).collect();
            if *is_backward {
                pairs.reverse();
            }
            format!("{pairs:?}")
        }
        Step::Prefix(prefix) => {
            let pairs = map.iter().filter(|(key, _)| key.starts_with(prefix)).map(pair);
            format!("{:?}", pairs.collect::<Vec<_>>())
        }
        Step::Expire(key) | Step::Persist(key) => format!("{:?}", map.contains_key(key)),
        Step::Ends => {
            let (first, last) = (map.iter().next().map(pair), map.iter().next_back().map(pair));
            format!("{:?}", (first, last, map.len(), map.len()))
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::sample::select(vec![b'a', b'/', b'%', b'.', 0, 0xff]);
    prop::collection::vec(bytes, 0..3)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..6)
}

fn step() -> impl Strategy<Value = Step> {
    let maybe = || prop::option::of(value());
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (key(), value()).prop_map(|(key, value)| Step::PutIfAbsent(key, value)),
        2 => key().prop_map(Step::Delete),
        1 => prop::collection::vec((key(), maybe()), 0..6).prop_map(Step::Write),
        1 => (key(), maybe(), maybe()).prop_map(|(key, old, new)| Step::Swap(key, old, new)),
        1 => (key(), any::<bool>(), maybe())
            .prop_map(|(key, is_present, new)| Step::SwapVersioned(key, is_present, new)),
        2 => key().prop_map(Step::Get),
        1 => prop::collection::vec(key(), 0..6).prop_map(Step::GetMany),
        1 => (key(), key(), any::<bool>())
            .prop_map(|(low, high, is_backward)| Step::Range(low, high, is_backward)),
        1 => key().prop_map(Step::Prefix),
        1 => key().prop_map(Step::Expire),
        1 => key().prop_map(Step::Persist),
        1 => Just(Step::Ends),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_program_runs_unchanged_on_an_embedded_store_and_on_a_server(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path(), small()).unwrap();
        let server = Running::new();
        let client = server.client();
        let mut map = Map::new();
        for step in &steps {
            let expected = expected(&mut map, step);
            prop_assert_eq!(&take(&db, step).unwrap(), &expected, "embedded: {:?}", step);
            prop_assert_eq!(&take(&client, step).unwrap(), &expected, "remote: {:?}", step);
        }
    }
}

/// Sums the numbers under a prefix, and puts the sum elsewhere.
fn sum<S: WriteStore>(store: &S, prefix: &str) -> Result<u64, S::Error> {
    let mut sum = 0;
    for pair in store.prefix(prefix) {
        let (_, value) = pair?;
        sum += std::str::from_utf8(&value).unwrap().parse::<u64>().unwrap();
    }
    store.put_opt("sum", sum.to_string(), WriteOptions::new().durable(true))?;
    Ok(sum)
}

/// Counts keys.
fn count<S: ReadStore>(store: &S) -> Result<usize, S::Error> {
    store.keys().try_fold(0, |count, key| key.map(|_| count + 1))
}

#[test]
fn every_kind_of_store_is_read_through_the_trait() {
    let server = Running::new();
    let client = server.client();
    for number in 1..=3_u64 {
        client.put(format!("n/{number}"), number.to_string()).unwrap();
    }
    let snapshot = server.db.snapshot();
    assert_eq!(sum(&client, "n/").unwrap(), 6);
    assert_eq!(sum(&*server.db, "n/").unwrap(), 6);
    assert_eq!(count(&client).unwrap(), 4);
    assert_eq!(count(&*server.db).unwrap(), 4);
    let reader: &bitcask::Reader = &server.db;
    assert_eq!(count(reader).unwrap(), 4);
    assert_eq!(count(&snapshot).unwrap(), 3);
    let read_only = bitcask::ReadOnly::open(server.db.path(), small()).unwrap();
    assert_eq!(count(&read_only).unwrap(), 4);
}
