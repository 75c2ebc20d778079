//! Listings, page by page and from both ends.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::collections::BTreeMap;
use std::ops::Bound;

use bitcask::Value;
use bitcask::client::{Client, ClientError};
use bitcask::server::ServerOptions;

use crate::support::{Running, prompt};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn owned(found: impl Iterator<Item = Result<(Value, Value), ClientError>>) -> Pairs {
    found.map(|pair| pair.unwrap()).map(|(key, value)| (key.into(), value.into())).collect()
}

fn filled() -> (Running, BTreeMap<Vec<u8>, Vec<u8>>) {
    let server = Running::new();
    let keys =
        ["", "a", "a\0", "ab", "b", "b/1", "b/2", "b/3", "c"].map(|key| key.as_bytes().to_vec());
    let others = [vec![0xff], vec![0xff, 0xff], vec![0xff, 0xff, 0], vec![b'b', 0xff]];
    let model: BTreeMap<_, _> =
        keys.into_iter().chain(others).zip(0_u8..).map(|(key, at)| (key, vec![0xf0, at])).collect();
    for (key, value) in &model {
        server.db.put(key, value).unwrap();
    }
    (server, model)
}

#[test]
fn ranges_are_those_of_a_map_from_either_end() {
    let (server, model) = filled();
    let client = Client::new(prompt(&server.url).page_len(2)).unwrap();
    let ends = [&b""[..], b"a", b"a\0", b"aa", b"b/2", b"c", b"\xff\xff", b"\xff\xff\xff"];
    let bounds = ends.iter().flat_map(|key| {
        let key = key.to_vec();
        [Bound::Included(key.clone()), Bound::Excluded(key)]
    });
    let bounds: Vec<_> = bounds.chain([Bound::Unbounded]).collect();
    for low in &bounds {
        for high in &bounds {
            let is_within = |key: &Vec<u8>| {
                (match low {
                    Bound::Included(low) => key >= low,
                    Bound::Excluded(low) => key > low,
                    Bound::Unbounded => true,
                }) && (match high {
                    Bound::Included(high) => key <= high,
                    Bound::Excluded(high) => key < high,
                    Bound::Unbounded => true,
                })
            };
            let expected: Pairs =
                model.clone().into_iter().filter(|(key, _)| is_within(key)).collect();
            let range = (low.clone(), high.clone());
            assert_eq!(owned(client.range(&range)), expected, "{range:?}");
            let mut backward = owned(client.range(&range).rev());
            backward.reverse();
            assert_eq!(backward, expected, "{range:?}");
        }
    }
}

#[test]
fn both_ends_meet_whatever_the_order_of_steps() {
    let (server, model) = filled();
    let all: Vec<Vec<u8>> = model.into_keys().collect();
    for page_len in [1, 2, 3, 5, 100] {
        let client = Client::new(prompt(&server.url).page_len(page_len)).unwrap();
        for pattern in 0..64_u32 {
            let (mut keys, mut front, mut back) = (client.keys(), Vec::new(), Vec::new());
            for step in 0.. {
                let is_front = pattern >> (step % 6) & 1 == 0;
                let found = if is_front { keys.next() } else { keys.next_back() };
                let Some(key) = found else { break };
                if is_front { &mut front } else { &mut back }.push(Vec::from(key.unwrap()));
            }
            assert!(keys.next().is_none() && keys.next_back().is_none());
            back.reverse();
            assert_eq!([front, back].concat(), all, "{page_len} {pattern:b}");
        }
    }
}

#[test]
fn a_prefix_has_the_keys_that_begin_with_it() {
    let (server, model) = filled();
    let client = Client::new(prompt(&server.url).page_len(2)).unwrap();
    for prefix in [&b""[..], b"b", b"b/", b"\xff", b"\xff\xff", b"z", b"a\0"] {
        let expected: Vec<_> = model.keys().filter(|key| key.starts_with(prefix)).collect();
        let keys: Vec<_> = client.prefix_keys(prefix).map(Result::unwrap).collect();
        assert_eq!(
            keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>().iter().collect::<Vec<_>>(),
            expected
        );
        let pairs = owned(client.prefix(prefix).rev());
        assert_eq!(pairs.len(), expected.len());
        assert!(pairs.iter().all(|(key, value)| model.get(key) == Some(value)));
    }
    assert_eq!(client.iter().count(), model.len());
}

#[test]
fn changes_between_pages_are_seen_or_not_but_no_key_twice() {
    let server = Running::new();
    let client = Client::new(prompt(&server.url).page_len(3)).unwrap();
    for key in 0..30_u8 {
        server.db.put([key], "v").unwrap();
    }
    let mut found = Vec::new();
    for key in client.keys() {
        let key = key.unwrap();
        found.push(key.to_vec());
        server.db.delete(&key).unwrap();
        if let [number @ 0..30] = *key {
            server.db.put([number + 100], "later").unwrap();
        }
    }
    let mut sorted = found.clone();
    sorted.dedup();
    assert_eq!(sorted, found);
    assert!(found.len() >= 30 && found.is_sorted(), "{found:?}");
}

#[test]
fn a_value_that_no_page_can_have_is_read_by_itself() {
    let options = ServerOptions::new().body_size_limit(1 << 20).body_memory_limit(1 << 20);
    let server = Running::with(options);
    let pairs = [("a", vec![1; 10]), ("b", vec![0xff; 1 << 20]), ("c", vec![3; 10])];
    for (key, value) in &pairs {
        server.db.put(key, value).unwrap();
    }
    let mut expected: Pairs = pairs.map(|(key, value)| (key.as_bytes().to_vec(), value)).to_vec();
    let client = server.client();
    assert_eq!(owned(client.iter()), expected);
    // A key that is removed before its value is read is left out.
    let mut some = client.iter();
    assert_eq!(some.next().unwrap().unwrap().0, "a");
    server.db.delete("b").unwrap();
    expected.remove(1);
    assert_eq!(owned(some), expected[1..]);
    expected.reverse();
    assert_eq!(owned(client.iter().rev()), expected);
}
