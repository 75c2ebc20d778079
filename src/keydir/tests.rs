use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::shard::Fill;
use super::*;
use crate::error::Error;

/// Returns a hash in the same shard as all others from this function. Equal numbers give equal hash
/// bits.
fn bits(number: u16) -> KeyHash {
    KeyHash { fingerprint: 0x5550_0000_0000_0000, extra: number }
}

fn address(segment: u32, entry: u64) -> Address {
    Address { segment, offset: 64 + entry * 32 }
}

fn unfilled() -> Keydir {
    Keydir::new(KeyHasher::new(0))
}

fn filling(at: Address, tombstone: bool, collides: bool) -> Filling {
    Filling { hash: bits(0), address: at, tombstone, collides }
}

fn never(_: Address, _: Address) -> Result<bool> {
    panic!("an unflagged entry needs no comparison")
}

/// Locks the shard of all hashes from `bits`.
fn shard(keydir: &Keydir) -> Shard<'_> {
    keydir.shard(bits(0).shard())
}

/// Returns a keydir whose shards are filled and empty.
fn keydir() -> Keydir {
    let keydir = unfilled();
    (0..SHARD_COUNT).for_each(|number| keydir.shard(number).clear(0));
    keydir
}

fn addresses(shard: &Shard<'_>) -> Vec<Address> {
    sorted(shard.addresses())
}

/// Publishes the fill and returns the shard's addresses.
fn filled_addresses(keydir: &Keydir, fill: Fill) -> Vec<Address> {
    let mut shard = shard(keydir);
    shard.filled(fill, 0);
    addresses(&shard)
}

/// Looks a key up as readers do.
fn get<T>(
    keydir: &Keydir,
    hash: KeyHash,
    mut own: impl FnMut(Address) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let guard = keydir.pin();
    let mut addresses = keydir.addresses(hash, &guard).expect("the shard is filled");
    addresses.find_map(|address| own(address).transpose()).transpose()
}

fn sorted(addresses: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by_key(|address| (address.segment, address.offset));
    addresses
}

#[test]
fn an_unflagged_entry_kills_older_ones_with_its_bits_without_reading_keys() {
    let keydir = unfilled();
    let mut fill = shard(&keydir).start_filling(200);
    assert!(fill.add(filling(address(2, 0), false, false), never).unwrap());
    assert!(!fill.add(filling(address(1, 1), false, true), never).unwrap());
    assert!(!fill.add(filling(address(1, 0), false, false), never).unwrap());
    assert!(!fill.add(filling(address(0, 0), true, false), never).unwrap());
    assert_eq!(filled_addresses(&keydir, fill), [address(2, 0)]);
}

#[test]
fn an_unflagged_tombstone_kills_older_ones_and_is_removed_when_the_shard_is_filled() {
    let keydir = unfilled();
    let mut fill = shard(&keydir).start_filling(200);
    assert!(fill.add(filling(address(2, 0), true, false), never).unwrap());
    assert!(!fill.add(filling(address(1, 1), false, true), never).unwrap());
    assert!(!fill.add(filling(address(1, 0), false, false), never).unwrap());
    assert_eq!(filled_addresses(&keydir, fill), []);
    assert_eq!(shard(&keydir).len(), 0);
}

#[test]
fn a_flagged_entry_kills_only_its_own_key() {
    // Oldest first: a, b (flagged), a (flagged), b deleted (flagged).
    let (a1, b1, a2, b2) = (address(0, 0), address(0, 1), address(0, 2), address(0, 3));
    let is_a = |at: Address| at == a1 || at == a2;
    let keydir = unfilled();
    let mut fill = shard(&keydir).start_filling(200);
    let mut compared = 0;
    let mut same_key = |held, older| {
        compared += 1;
        Ok(is_a(held) == is_a(older))
    };
    assert!(fill.add(filling(b2, true, true), &mut same_key).unwrap());
    assert!(fill.add(filling(a2, false, true), &mut same_key).unwrap());
    assert!(!fill.add(filling(b1, false, true), &mut same_key).unwrap());
    assert!(!fill.add(filling(a1, false, false), &mut same_key).unwrap());
    assert_eq!(filled_addresses(&keydir, fill), [a2]);
    assert!(compared <= 5);
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn entries_with_different_bits_do_not_interact() {
    let keydir = unfilled();
    let mut fill = shard(&keydir).start_filling(200);
    for number in 0..200 {
        let entry = Filling {
            hash: bits(number),
            address: address(0, number.into()),
            tombstone: number % 2 == 0,
            collides: false,
        };
        assert!(fill.add(entry, never).unwrap());
    }
    assert_eq!(filled_addresses(&keydir, fill).len(), 100);
}

#[test]
fn an_unreadable_key_stops_the_fill() {
    let keydir = unfilled();
    let mut fill = shard(&keydir).start_filling(200);
    let fail = |_, _| Err(Error::ReadOnly);
    assert!(fill.add(filling(address(0, 1), false, true), fail).unwrap());
    assert!(fill.add(filling(address(0, 0), false, true), fail).is_err());
    drop(fill);
    assert!(!shard(&keydir).is_filled());
    assert!(keydir.addresses(bits(0), &keydir.pin()).is_none());
}

#[test]
fn a_lookup_finds_the_keys_own_slot_and_reports_others() {
    let keydir = keydir();
    let hash = bits(0);
    let mut shard = shard(&keydir);
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
        assert_eq!(get(&keydir, hash, owner(own)).unwrap(), Some(own.offset));
    }
    let found = shard.find(bits(1), owner(a)).unwrap();
    assert!(found.own.is_none() && !found.others);

    // A newer entry takes over the slot of the old one, and a delete frees it.
    let newer = address(2, 0);
    shard.publish(hash, Some(a), newer);
    assert_eq!(addresses(&shard), [b, newer]);
    shard.remove(hash, newer, 0);
    let found = shard.find(hash, owner(b)).unwrap();
    assert_eq!((found.own, found.others), (Some((b, b.offset)), false));
    assert!(get(&keydir, hash, owner(newer)).unwrap().is_none());
}

#[test]
fn a_lookup_passes_an_error_on() {
    let keydir = keydir();
    let mut shard = shard(&keydir);
    shard.publish(bits(0), None, address(0, 0));
    let fail = |_| -> Result<Option<()>> { Err(Error::ReadOnly) };
    assert!(get(&keydir, bits(0), fail).is_err());
    assert!(shard.find(bits(0), fail).is_err());
}

#[test]
fn several_shards_can_be_locked_together() {
    let keydir = keydir();
    let hashes: Vec<KeyHash> = (0..100_u8).map(|key| keydir.hash(&[key])).collect();
    let locked = (0..SHARD_COUNT).map(|number| keydir.shard(number)).collect();
    let mut shards = LockedShards::new(locked);
    for (number, hash) in (0..).zip(&hashes) {
        shards.of(*hash).publish(*hash, None, address(0, number));
    }
    drop(shards);
    let len = || (0..SHARD_COUNT).map(|number| keydir.shard(number).len()).sum::<usize>();
    assert_eq!(len(), 100);
    for (number, hash) in (0..).zip(&hashes) {
        let found = get(&keydir, *hash, |at| Ok((at == address(0, number)).then_some(())));
        assert!(found.unwrap().is_some());
    }
    assert!(keydir.size() > 100 * 16);
    let locked = (0..SHARD_COUNT).map(|number| keydir.shard(number)).collect();
    LockedShards::new(locked).clear(0);
    assert_eq!(len(), 0);
}

/// An entry of the log in the model below.
#[derive(Debug, Clone, Copy)]
struct Logged {
    key: u16,
    address: Address,
    tombstone: bool,
    collides: bool,
}

/// Applies puts and deletes to a shard as the store does, and returns the resulting log. Entries
/// are flagged as the rule requires, and some more besides; a segment ends wherever `rotate` is
/// set.
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
                shard.remove(hash, old, 0);
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

/// Fills a shard from the hints of a log and compares it with the shard that was built while the
/// log was written.
fn compare(history: &[(u16, bool, bool, bool)], hash_of: impl Fn(u16) -> KeyHash) {
    let keydir = keydir();
    let (log, live) = play(&mut shard(&keydir), &hash_of, history);
    let expected = addresses(&shard(&keydir));

    let rebuilt = unfilled();
    let mut fill = shard(&rebuilt).start_filling(log.len());
    let key_at = |at: Address| log.iter().find(|entry| entry.address == at).unwrap().key;
    let mut hinted = log.clone();
    // Newest segment first; within a segment by hash bits, and for equal bits newest first.
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
        fill.add(filling, |a, b| Ok(key_at(a) == key_at(b))).unwrap();
    }
    assert_eq!(filled_addresses(&rebuilt, fill), expected);
    for (key, at) in live {
        let own = |found| Ok((found == at).then_some(()));
        assert!(get(&rebuilt, hash_of(key), own).unwrap().is_some());
    }
}

/// The core of exactness: a rebuild from hints restores the shard.
#[test]
fn a_shard_filled_newest_first_is_restored_exactly() {
    let step = (0..6_u16, any::<bool>(), any::<u8>(), any::<u8>());
    let cases = (1..6_u16, 1..3_u16, vec(step, 0..60), any::<bool>());
    let cases_len = if cfg!(miri) { 2 } else { 2000 };
    let config = Config { cases: cases_len, failure_persistence: None, ..Config::default() };
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

#[test]
fn a_shard_keeps_its_slots_through_growth_and_removal() {
    const KEYS: u16 = if cfg!(miri) { 32 } else { 4096 };
    let keydir = keydir();
    let mut shard = shard(&keydir);
    let at = |number: u16| address(u32::from(number) * 7 % (1 << 18), u64::from(number));
    for number in 0..KEYS {
        shard.publish(bits(number), None, at(number));
    }
    for number in (0..KEYS).step_by(2) {
        shard.remove(bits(number), at(number), 0);
        shard.remove(bits(number), at(number), 0);
    }
    for number in (1..KEYS).step_by(2) {
        shard.publish(bits(number), Some(at(number)), at(number / 2));
    }
    assert_eq!(shard.len(), usize::from(KEYS) / 2);
    for number in 0..KEYS {
        let found = get(&keydir, bits(number), |at| Ok(Some(at))).unwrap();
        assert_eq!(found, (number % 2 == 1).then(|| at(number / 2)), "{number}");
    }
}

/// Returns a hash in the same shard, spread over its buckets.
fn spread(number: u64) -> KeyHash {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4;
    KeyHash { fingerprint: 0x5 << 60 | spread, extra: (number % (1 << 12)) as u16 }
}

/// A shard under puts and deletes that counts how often its table is replaced.
struct Churn<'a> {
    shard: Shard<'a>,
    live: VecDeque<u64>,
    next: u64,
    table: usize,
    /// Total size in bytes of the replaced tables.
    rebuilt_size: usize,
    rebuilds: usize,
}

impl<'a> Churn<'a> {
    fn new(keydir: &'a Keydir) -> Self {
        let shard = keydir.shard(spread(0).shard());
        let (table, live) = (shard.table_addr(), VecDeque::new());
        Self { shard, live, next: 0, table, rebuilt_size: 0, rebuilds: 0 }
    }

    fn at(number: u64) -> Address {
        address(0, number)
    }

    fn put(&mut self) {
        let before = self.shard.size();
        self.shard.publish(spread(self.next), None, Self::at(self.next));
        self.live.push_back(self.next);
        self.next += 1;
        self.look(before);
    }

    /// Deletes the oldest key.
    fn delete(&mut self) {
        let before = self.shard.size();
        let oldest = self.live.pop_front().unwrap();
        assert!(self.shard.remove(spread(oldest), Self::at(oldest), 0));
        self.look(before);
    }

    fn look(&mut self, size_before: usize) {
        let table = self.shard.table_addr();
        if std::mem::replace(&mut self.table, table) != table {
            self.rebuilt_size += size_before;
            self.rebuilds += 1;
        }
        // An eighth of the slots is never used; the needed size is rounded up to eight slots.
        let needed = (self.live.len() + 1).div_ceil(7) * 128;
        let size = self.shard.size() - size_of::<super::shard::Home>();
        assert!(size < (4 * needed).max(129), "{size} bytes for {} keys", self.live.len());
    }

    /// Deletes or puts until the table is replaced. Returns the number of changes that took.
    fn until_rebuilt(&mut self, act: fn(&mut Self)) -> usize {
        let rebuilds = self.rebuilds;
        let mut changes = 0;
        while self.rebuilds == rebuilds {
            act(self);
            changes += 1;
        }
        changes
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn a_shard_shrinks_after_removals() {
    let keydir = keydir();
    let mut churn = Churn::new(&keydir);
    (0..50_000).for_each(|_| churn.put());
    assert!(churn.shard.size() > 50_000 * 16);
    let grown = churn.rebuilds;
    for left in (0..50_000).rev() {
        churn.delete();
        // The remaining keys are found in each table.
        let [first, last] = [churn.live.front(), churn.live.back()].map(Option::<&u64>::copied);
        for number in [first, last].into_iter().flatten() {
            let own = |at| Ok((at == Churn::at(number)).then_some(()));
            assert!(get(&keydir, spread(number), own).unwrap().is_some(), "{left} are left");
        }
    }
    let three_pairs = size_of::<super::shard::Home>() + 3 * 128;
    assert!(churn.shard.size() <= three_pairs, "{} bytes", churn.shard.size());
    assert!(churn.rebuilds - grown < grown, "{} after {grown}", churn.rebuilds - grown);
    // The shard can hold as many again.
    (0..50_000).for_each(|_| churn.put());
    assert_eq!(churn.shard.len(), 50_000);
}

/// Alternating around a size at which the table changes takes many steps each time.
#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn a_shard_does_not_flap() {
    for keys in [1, 10, 100, 1000, 10_000] {
        let keydir = keydir();
        let mut churn = Churn::new(&keydir);
        (0..keys).for_each(|_| churn.put());
        for _ in 0..20 {
            if churn.live.len() > 20 {
                let live = churn.live.len();
                let deletes = churn.until_rebuilt(Churn::delete);
                assert!(deletes >= live / 8, "{deletes} deletes of {live}");
            }
            let live = churn.live.len();
            let puts = churn.until_rebuilt(Churn::put);
            assert!(puts > live / 8, "{puts} puts to {live}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn the_cost_of_rebuilds_is_proportional_to_the_changes() {
    let keydir = keydir();
    let mut churn = Churn::new(&keydir);
    let mut random = 1_u64;
    // The majority alternates between puts and deletes, each for a while.
    for phase in 0..200 {
        let puts_of_16 = [15, 8, 1, 8, 12, 4, 0, 9][phase % 8];
        for _ in 0..2_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if churn.live.is_empty() || random >> 60 < puts_of_16 {
                churn.put();
            } else {
                churn.delete();
            }
        }
    }
    let changes = 200 * 2_000;
    let slots = churn.rebuilt_size / 16;
    assert!(slots < 8 * changes, "{slots} slots rebuilt in {changes} changes");
}

/// Readers take no lock while tables grow and shrink.
#[test]
fn keys_that_stay_are_found_while_tables_grow_and_shrink() {
    const ROUNDS: u64 = if cfg!(miri) { 2 } else { 30 };
    const KEYS: u64 = if cfg!(miri) { 60 } else { 3000 };
    let keydir = keydir();
    let kept: Vec<u64> = (0..KEYS).filter(|number| number % (KEYS / 10) == 0).collect();
    let publish = |number: u64| {
        let mut shard = keydir.shard(spread(0).shard());
        shard.publish(spread(number), None, Churn::at(number));
    };
    kept.iter().copied().for_each(publish);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for number in kept.iter().copied() {
                        let own = |at| Ok((at == Churn::at(number)).then_some(()));
                        assert!(get(&keydir, spread(number), own).unwrap().is_some());
                    }
                    std::thread::yield_now();
                }
            });
        }
        for _ in 0..ROUNDS {
            let others = || (0..KEYS).filter(|number| !kept.contains(number));
            others().for_each(publish);
            for number in others() {
                let mut shard = keydir.shard(spread(0).shard());
                assert!(shard.remove(spread(number), Churn::at(number), 0));
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(keydir.shard(spread(0).shard()).len(), kept.len());
    keydir.collector().free_retired();
    assert_eq!(keydir.collector().left(), 0);
}

/// Where tables are replaced ahead often enough, no put replaces a large one, and nothing is lost.
#[test]
fn large_tables_are_replaced_ahead_of_their_writers() {
    let keydir = keydir();
    let table = || keydir.shard(spread(0).shard()).table_addr();
    let (mut large, mut ahead) = (0, 0);
    for number in 0..3000 {
        let before = table();
        let size = keydir.shard(spread(0).shard()).size();
        keydir.shard(spread(0).shard()).publish(spread(number), None, Churn::at(number));
        let is_large = size > 16 * 128;
        assert!(!is_large || table() == before, "put {number} has replaced a large table");
        if number % 8 == 0 {
            let before = table();
            keydir.prepare();
            ahead += usize::from(table() != before);
            large += usize::from(is_large);
        }
    }
    assert!(large > 0 && ahead > 5, "{ahead} replacements ahead");
    for number in 0..3000 {
        let own = |at| Ok((at == Churn::at(number)).then_some(()));
        assert!(get(&keydir, spread(number), own).unwrap().is_some());
    }
    assert_eq!(keydir.shard(spread(0).shard()).len(), 3000);
}

#[test]
fn clearing_an_empty_shard_replaces_nothing() {
    let keydir = keydir();
    let mut shard = shard(&keydir);
    let before = shard.table_addr();
    shard.clear(7);
    assert_eq!(shard.table_addr(), before);
    drop(shard);
    assert!(keydir.has_removed_since(bits(0), 6) && !keydir.has_removed_since(bits(0), 7));
    let mut shard = self::shard(&keydir);
    shard.publish(bits(0), None, address(0, 0));
    let used = shard.table_addr();
    shard.remove(bits(0), address(0, 0), 8);
    shard.clear(9);
    assert_ne!(shard.table_addr(), used);
}

#[test]
fn shards_without_slots_share_a_table_that_no_insert_touches() {
    let keydir = keydir();
    let mut numbers = (0..SHARD_COUNT).map(|number| keydir.shard(number));
    let sizes: Vec<_> = numbers.by_ref().map(|shard| (shard.table_addr(), shard.size())).collect();
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    assert_eq!(sizes[0].1, size_of::<super::shard::Home>());
    for round in 1..4 {
        let mut shard = shard(&keydir);
        shard.publish(bits(0), None, address(0, 8));
        assert_ne!(shard.table_addr(), sizes[0].0);
        assert_eq!(shard.len(), 1);
        shard.clear(round);
        assert_eq!((shard.len(), shard.table_addr()), (0, sizes[0].0));
        assert!(!shard.relocate(bits(0), address(0, 8), address(0, 16)));
        assert!(!shard.remove(bits(0), address(0, 8), round));
        assert_eq!(shard.addresses().count(), 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes too many steps")]
fn a_shard_with_steady_turnover_does_not_grow() {
    let keydir = keydir();
    let mut shard = shard(&keydir);
    for number in 0..100_000_u64 {
        shard.publish(bits((number % 4096) as u16), None, address(0, number));
        if let Some(old) = number.checked_sub(100) {
            shard.remove(bits((old % 4096) as u16), address(0, old), 0);
        }
    }
    assert_eq!(shard.len(), 100);
    assert!(shard.size() < 16 * 300, "{}", shard.size());
}

#[test]
fn a_crowded_shard_is_noted_once() {
    let keydir = keydir();
    let number = spread(0).shard();
    let mut len = 0;
    while keydir.arena.crowded.take().is_empty() {
        keydir.shard(number).publish(spread(len), None, Churn::at(len));
        len += 1;
        assert!(len < 5000, "the shard was never noted");
    }
    // The slot is reused, so the shard stays as full as it was.
    let last = len - 1;
    for round in 0..100 {
        keydir.shard(number).remove(spread(last), Churn::at(last), round + 1);
        keydir.shard(number).publish(spread(last), None, Churn::at(last));
    }
    assert!(keydir.arena.crowded.take().is_empty());
}
