use std::cmp::Reverse;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;
use crate::error::Error;

/// A hash that lies in one shard with all the others; equal numbers are equal hash bits.
fn bits(number: u16) -> KeyHash {
    KeyHash { fingerprint: 0x5550_0000_0000_0000, extra: number }
}

fn address(segment: u32, entry: u64) -> Address {
    Address { segment, offset: 64 + entry * 32 }
}

fn keydir() -> Keydir {
    Keydir::new(KeyHasher::new(0))
}

fn filling(at: Address, tombstone: bool, collides: bool) -> Filling {
    Filling { hash: bits(0), address: at, tombstone, collides }
}

fn never(_: Address, _: Address) -> Result<bool> {
    panic!("an unflagged entry costs no comparison")
}

fn addresses(shard: &Shard<'_>) -> Vec<Address> {
    let mut addresses: Vec<_> = shard.addresses().collect();
    addresses.sort_by_key(|address| (address.segment, address.offset));
    addresses
}

#[test]
fn an_unflagged_entry_kills_all_older_ones_with_its_bits_unread() {
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    assert!(shard.fill(filling(address(2, 0), false, false), never).unwrap());
    assert!(!shard.fill(filling(address(1, 1), false, true), never).unwrap());
    assert!(!shard.fill(filling(address(1, 0), false, false), never).unwrap());
    assert!(!shard.fill(filling(address(0, 0), true, false), never).unwrap());
    shard.filled();
    assert_eq!(addresses(&shard), [address(2, 0)]);
}

#[test]
fn an_unflagged_tombstone_kills_all_older_ones_and_goes_when_the_shard_is_filled() {
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    assert!(shard.fill(filling(address(2, 0), true, false), never).unwrap());
    assert!(!shard.fill(filling(address(1, 1), false, true), never).unwrap());
    assert!(!shard.fill(filling(address(1, 0), false, false), never).unwrap());
    assert_eq!(addresses(&shard), [address(2, 0)]);
    shard.filled();
    assert_eq!(addresses(&shard), []);
    drop(shard);
    assert_eq!(keydir.len(), 0);
}

#[test]
fn a_flagged_entry_kills_its_own_key_alone() {
    // Oldest first: a, b (flagged), a (flagged), b deleted (flagged).
    let (a1, b1, a2, b2) = (address(0, 0), address(0, 1), address(0, 2), address(0, 3));
    let is_a = |at: Address| at == a1 || at == a2;
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    let mut compared = 0;
    let mut same_key = |held, older| {
        compared += 1;
        Ok(is_a(held) == is_a(older))
    };
    assert!(shard.fill(filling(b2, true, true), &mut same_key).unwrap());
    assert!(shard.fill(filling(a2, false, true), &mut same_key).unwrap());
    assert!(!shard.fill(filling(b1, false, true), &mut same_key).unwrap());
    assert!(!shard.fill(filling(a1, false, false), &mut same_key).unwrap());
    shard.filled();
    assert_eq!(addresses(&shard), [a2]);
    assert!(compared <= 5);
}

#[test]
fn entries_with_other_bits_do_not_meet() {
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    for number in 0..200 {
        let entry = Filling {
            hash: bits(number),
            address: address(0, number.into()),
            tombstone: number % 2 == 0,
            collides: false,
        };
        assert!(shard.fill(entry, never).unwrap());
    }
    shard.filled();
    assert_eq!(shard.addresses().count(), 100);
}

#[test]
fn a_key_that_can_not_be_read_stops_the_filling() {
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    let fail = |_, _| Err(Error::ReadOnly);
    assert!(shard.fill(filling(address(0, 1), false, true), fail).unwrap());
    assert!(shard.fill(filling(address(0, 0), false, true), fail).is_err());
    assert_eq!(addresses(&shard), [address(0, 1)]);
}

#[test]
fn a_look_up_finds_the_keys_own_slot_and_tells_of_others() {
    let keydir = keydir();
    let hash = bits(0);
    let mut shard = keydir.shard(hash);
    let owner = |wanted: Address| move |at: Address| Ok((at == wanted).then_some(at.offset));
    let (a, b) = (address(0, 0), address(1, 0));

    let found = shard.find(hash, owner(a)).unwrap();
    assert!(found.own.is_none() && !found.others);
    shard.publish(hash, None, a);
    let found = shard.find(hash, owner(a)).unwrap();
    assert_eq!((found.own, found.others), (Some((a, a.offset)), false));
    let found = shard.find(hash, owner(b)).unwrap();
    assert_eq!((found.own, found.others), (None, true));
    shard.publish(hash, None, b);
    for own in [a, b] {
        let found = shard.find(hash, owner(own)).unwrap();
        assert_eq!((found.own, found.others), (Some((own, own.offset)), true));
        assert_eq!(shard.get(hash, owner(own)).unwrap(), Some((own, own.offset)));
    }
    let found = shard.find(bits(1), owner(a)).unwrap();
    assert!(found.own.is_none() && !found.others);

    // A newer entry takes the slot of the old one, and a delete frees it.
    let newer = address(2, 0);
    shard.publish(hash, Some(a), newer);
    assert_eq!(addresses(&shard), [b, newer]);
    shard.remove(hash, newer);
    let found = shard.find(hash, owner(b)).unwrap();
    assert_eq!((found.own, found.others), (Some((b, b.offset)), false));
    assert!(shard.get(hash, owner(newer)).unwrap().is_none());
}

#[test]
fn a_look_up_passes_an_error_on() {
    let keydir = keydir();
    let mut shard = keydir.shard(bits(0));
    shard.publish(bits(0), None, address(0, 0));
    let fail = |_| -> Result<Option<()>> { Err(Error::ReadOnly) };
    assert!(shard.get(bits(0), fail).is_err());
    assert!(shard.find(bits(0), fail).is_err());
}

#[test]
fn several_shards_are_locked_at_once_each_of_them_once() {
    let keydir = keydir();
    let hashes: Vec<KeyHash> = (0..100_u8).map(|key| keydir.hash(&[key])).collect();
    let mut shards = keydir.shards(hashes.iter().chain(&hashes).copied());
    for (number, hash) in (0..).zip(&hashes) {
        shards.of(*hash).publish(*hash, None, address(0, number));
    }
    drop(shards);
    assert_eq!(keydir.len(), 100);
    for (number, hash) in (0..).zip(&hashes) {
        let found =
            keydir.shard(*hash).get(*hash, |at| Ok((at == address(0, number)).then_some(())));
        assert!(found.unwrap().is_some());
    }
    assert!(keydir.size() > 100 * 16);
    keydir.all_shards().clear();
    assert_eq!(keydir.len(), 0);
    assert!(keydir.nth_shard(SHARD_COUNT - 1).is_some() && keydir.nth_shard(SHARD_COUNT).is_none());
}

/// An entry of the log in the model below.
#[derive(Debug, Clone, Copy)]
struct Logged {
    key: u16,
    address: Address,
    tombstone: bool,
    collides: bool,
}

/// Plays puts and deletes on a shard as the store does, and returns the log of it. Each entry is
/// flagged by the rule, and some that need not be; a segment ends where `rotate` says so.
fn play(
    shard: &mut Shard<'_>,
    hash_of: impl Fn(u16) -> KeyHash,
    history: &[(u16, bool, bool, bool)],
) -> (Vec<Logged>, BTreeMap<u16, Address>) {
    let mut log: Vec<Logged> = Vec::new();
    let mut live: BTreeMap<u16, Address> = BTreeMap::new();
    let (mut segment, mut entry) = (0, 0);
    for (key, delete, flag_too_much, rotate) in history.iter().copied() {
        let hash = hash_of(key);
        let own = |at: Address| Ok((live.get(&key) == Some(&at)).then_some(()));
        let found = shard.find(hash, own).unwrap();
        let old = found.own.map(|(at, ())| at);
        assert_eq!(old, live.get(&key).copied());
        let others = live.keys().any(|other| *other != key && hash_of(*other) == hash);
        assert_eq!(found.others, others);
        if delete && old.is_none() {
            continue;
        }
        let new = address(segment, entry);
        let collides = others || flag_too_much;
        log.push(Logged { key, address: new, tombstone: delete, collides });
        match old {
            Some(old) if delete => {
                shard.remove(hash, old);
                live.remove(&key);
            }
            _ => {
                shard.publish(hash, old, new);
                live.insert(key, new);
            }
        }
        (segment, entry) = if rotate { (segment + 1, 0) } else { (segment, entry + 1) };
    }
    (log, live)
}

/// Fills a shard from the hints of a log and compares it with what it was while the log was
/// written.
fn compare(history: &[(u16, bool, bool, bool)], hash_of: impl Fn(u16) -> KeyHash) {
    let keydir = keydir();
    let (log, live) = play(&mut keydir.shard(bits(0)), &hash_of, history);
    let expected = addresses(&keydir.shard(bits(0)));

    let rebuilt = self::keydir();
    let mut shard = rebuilt.shard(bits(0));
    let key_at = |at: Address| log.iter().find(|entry| entry.address == at).unwrap().key;
    let mut hinted = log.clone();
    // Newest segment first; within one by hash bits, and where these are equal newest first.
    hinted.sort_by_key(|entry| {
        let at = entry.address;
        (Reverse(at.segment), hash_of(entry.key), Reverse(at.offset))
    });
    for entry in &hinted {
        let filling = Filling {
            hash: hash_of(entry.key),
            address: entry.address,
            tombstone: entry.tombstone,
            collides: entry.collides,
        };
        shard.fill(filling, |a, b| Ok(key_at(a) == key_at(b))).unwrap();
    }
    shard.filled();
    assert_eq!(addresses(&shard), expected);
    for (key, at) in live {
        let own = |found| Ok((found == at).then_some(()));
        assert!(shard.get(hash_of(key), own).unwrap().is_some());
    }
}

/// The heart of exactness: what is rebuilt from hints is what was there.
#[test]
fn a_shard_filled_newest_first_holds_what_it_held() {
    let step = (0..6_u16, any::<bool>(), any::<u8>(), any::<u8>());
    let cases = (1..6_u16, 1..3_u16, vec(step, 0..60), any::<bool>());
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[1; 32]);
    let result =
        TestRunner::new_with_rng(config, rng).run(&cases, |(keys, hashes, steps, whole)| {
            let step = |(key, delete, flag, rotate): (u16, bool, u8, u8)| {
                (key % keys, delete, flag < 20, !whole && rotate < 60)
            };
            let history: Vec<_> = steps.into_iter().map(step).collect();
            compare(&history, |key| bits(key % hashes));
            Ok::<(), TestCaseError>(())
        });
    if let Err(error) = result {
        panic!("{error}");
    }
}
