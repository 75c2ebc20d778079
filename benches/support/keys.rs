//! Keys, generated before anything is timed, and read in the order in which they lie in memory.
//!
//! - A key has 16 bytes: its number in big-endian order, so that keys sort by number, and 8
//!   pseudo-random bytes. Key `n` is the same in every bench.
//! - The same seed gives the same stream.

pub(crate) use super::random::{Random, mix};
use super::random::{ZIPF_EXPONENT, Zipf};

/// A key. A `Vec` of keys is one flat buffer.
pub(crate) type Key = [u8; 16];

/// Returns the key with a number.
pub(crate) fn key(number: u64) -> Key {
    let mut key = Key::default();
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&mix(number).to_be_bytes());
    key
}

/// Returns the first keys in order.
pub(crate) fn ordered(count: usize) -> Vec<Key> {
    (0..count as u64).map(key).collect()
}

/// Returns the first keys in a random order.
pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<Key> {
    let (mut keys, mut random) = (ordered(count), Random::new(seed));
    for end in (1..keys.len()).rev() {
        keys.swap(end, random.below(end as u64 + 1) as usize);
    }
    keys
}

/// Returns keys among the first `count`, uniformly distributed.
pub(crate) fn uniform(count: usize, len: usize, seed: u64) -> Vec<Key> {
    let mut random = Random::new(seed);
    (0..len).map(|_| key(random.below(count as u64))).collect()
}

/// Returns keys among the first `count`, most of the time one of a few.
///
/// Where the keys were loaded in random order, the popular ones may lie anywhere.
pub(crate) fn zipf(count: usize, len: usize, seed: u64) -> Vec<Key> {
    let (mut random, zipf) = (Random::new(seed), Zipf::new(count as u64, ZIPF_EXPONENT));
    (0..len).map(|_| key(zipf.rank(&mut random) - 1)).collect()
}

/// Returns keys that are not among the first `count`.
pub(crate) fn absent(count: usize, len: usize, seed: u64) -> Vec<Key> {
    let (mut random, count) = (Random::new(seed), count as u64);
    (0..len).map(|_| key(count + random.below(count))).collect()
}
