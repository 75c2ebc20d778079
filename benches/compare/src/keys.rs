//! Keys and values, and the check of what was read.
//!
//! - A key has 16 bytes: the number of its group in big-endian order, its number within the group,
//!   and four pseudo-random bytes. So keys sort by number, and a group shares a prefix.
//! - A value begins with its key's tag and ends with the tag combined with a version, so a value
//!   of another key or of another time is recognized. The bytes between them are noise, the same in
//!   all values of a size; no store compresses.
//! - The check compares every byte, because programs read what they get: a store that lends values
//!   would otherwise not even bring them from memory.

use crate::random::{Random, ZIPF_EXPONENT, Zipf, mix};

/// A key. A `Vec` of keys is one flat buffer.
pub(crate) type Key = [u8; 16];

/// Number of keys that share a prefix.
pub(crate) const GROUP_LEN: u64 = 100;
pub(crate) const PREFIX_SIZE: usize = 8;
/// Minimum size of a value in bytes: both ends.
pub(crate) const VALUE_SIZE_MIN: usize = 16;

/// Returns the key with a number.
pub(crate) fn key(number: u64) -> Key {
    let mut key = Key::default();
    key[..8].copy_from_slice(&(number / GROUP_LEN).to_be_bytes());
    key[8..12].copy_from_slice(&((number % GROUP_LEN) as u32).to_be_bytes());
    key[12..].copy_from_slice(&(mix(number) as u32).to_be_bytes());
    key
}

/// Returns a number that identifies a key. Groups have numbers below 2^24.
pub(crate) fn tag(key: &[u8]) -> u64 {
    word(key, 0) << 40 ^ word(key, 8)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*bytes[at..].first_chunk().unwrap())
}

/// Makes values of one size, each in the same buffer.
#[derive(Clone)]
pub(crate) struct Values {
    buffer: Vec<u8>,
}

impl Values {
    pub(crate) fn new(size: usize) -> Self {
        let mut random = Random::new(size as u64);
        Self { buffer: (0..size).map(|_| random.next() as u8).collect() }
    }

    /// Returns the value of a key at a version.
    pub(crate) fn of(&mut self, key: &Key, version: u64) -> &[u8] {
        let (tag, end) = (tag(key), self.buffer.len() - 8);
        self.buffer[..8].copy_from_slice(&tag.to_be_bytes());
        self.buffer[end..].copy_from_slice(&(tag ^ version).to_be_bytes());
        &self.buffer
    }

    /// Returns the version of a value that was read for a key.
    ///
    /// # Panics
    ///
    /// Panics if the value is none of this key.
    #[inline]
    pub(crate) fn version(&self, key: &[u8], value: &[u8]) -> u64 {
        let (found, version) = self.tag_and_version(value);
        assert_eq!(found, tag(key), "the value belongs to another key than {key:?}");
        version
    }

    /// The same for a store that does not say which key the value belongs to. Returns the key's tag
    /// as well.
    #[inline]
    pub(crate) fn tag_and_version(&self, value: &[u8]) -> (u64, u64) {
        assert_eq!(value.len(), self.buffer.len(), "a value has another length");
        let (tag, middle) = (word(value, 0), 8..value.len() - 8);
        assert!(value[middle.clone()] == self.buffer[middle], "a value has changed");
        (tag, word(value, value.len() - 8) ^ tag)
    }
}

/// Returns the sum of the tags of the first keys, by which a scan shows that it has seen them all.
pub(crate) fn tag_sum(count: u64) -> u64 {
    (0..count).fold(0, |sum, number| sum.wrapping_add(tag(&key(number))))
}

/// A pseudo-random order of the numbers below a limit, computed rather than stored.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    count: u64,
    seed: u64,
    bits: u32,
}

impl Order {
    pub(crate) fn new(count: u64, seed: u64) -> Self {
        Self { count, seed: mix(seed), bits: count.next_power_of_two().trailing_zeros().max(2) }
    }

    /// Returns the number at a place. Places of the same order have different numbers.
    ///
    /// Each step is a permutation of the numbers with so many bits, and is repeated for the numbers
    /// that are too large (cycle walking).
    pub(crate) fn at(&self, place: u64) -> u64 {
        let (mask, half) = ((1 << self.bits) - 1, self.bits / 2);
        let mut number = place;
        loop {
            for factor in [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
                number = (number ^ self.seed).wrapping_mul(factor) & mask;
                number ^= number >> half;
            }
            if number < self.count {
                return number;
            }
        }
    }

    pub(crate) fn keys(self) -> impl Iterator<Item = Key> {
        (0..self.count).map(move |place| key(self.at(place)))
    }
}

/// Returns endless keys among the first `count`, uniformly distributed.
pub(crate) fn uniform(count: u64, seed: u64) -> impl Iterator<Item = Key> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || key(random.below(count)))
}

/// Returns endless keys that are not among the first `count`. As close to them as they lie, a store
/// has to look them up.
pub(crate) fn absent(count: u64, seed: u64) -> impl Iterator<Item = Key> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || {
        let mut key = key(random.below(count));
        key[12] ^= 0xff;
        key
    })
}

/// Returns endless keys among the first `count`, most of the time one of a few, which lie anywhere
/// (YCSB's *scrambled Zipfian*).
pub(crate) fn zipf(count: u64, seed: u64) -> impl Iterator<Item = Key> {
    let (mut random, zipf) = (Random::new(seed), Zipf::new(count, ZIPF_EXPONENT));
    let order = Order::new(count, !seed);
    std::iter::repeat_with(move || key(order.at(zipf.rank(&mut random) - 1)))
}
