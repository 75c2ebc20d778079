//! The newest record of each key, in bounded memory.
//!
//! - The table holds no keys and no values: for each key a 128-bit hash with a random seed, the
//!   time of its newest record, and where that record lies.
//! - It covers a range of hashes, at first all of them. If the keys become too many, it gives up
//!   the upper half of its range, and the source is read again for the rest. So the memory has a
//!   limit, whatever the number of keys.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Memory in bytes for each bucket of the table: a key's entry in a table that is just growing, so
/// that half of the memory is that of the old one.
const BUCKET_SIZE: u64 = 50;

/// Lowest binary logarithm of the number of buckets.
const BUCKETS_LOG_MIN: u32 = 3;

/// A hash of a key. No two keys of a store have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    /// Decides whether the table covers the key.
    high: u64,
    low: u64,
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// Passes a hash through.
#[derive(Debug, Default, Clone, Copy)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not called: a digest is one number.
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// The newest record of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    time: u64,
    /// Twice the place, and one more if the record is a put.
    place: u64,
}

/// The newest records of the keys in a range of hashes.
#[derive(Debug)]
pub(super) struct NewestTable {
    seed: u64,
    keys_max: usize,
    newest: HashMap<Digest, Newest, BuildHasherDefault<Unhashed>>,
    /// The range that the table covers, both ends included.
    first: u64,
    last: u64,
}

impl NewestTable {
    /// Returns a table that takes at most this much memory, but has room for a few keys.
    pub(super) fn new(memory_max: u64) -> Self {
        let log = (memory_max / BUCKET_SIZE).checked_ilog2().unwrap_or(0).max(BUCKETS_LOG_MIN);
        let keys_max = usize::try_from((1_u64 << log.min(40)) / 8 * 7).unwrap_or(usize::MAX);
        let seed = RandomState::new().hash_one(keys_max);
        Self { seed, keys_max, newest: HashMap::default(), first: 0, last: u64::MAX }
    }

    /// Adds a record of a key, which counts if it is newer than those before.
    pub(super) fn add(&mut self, key: &[u8], time: u64, place: u64, is_put: bool) {
        let hash = xxh3_128_with_seed(key, self.seed);
        #[expect(clippy::cast_possible_truncation, reason = "each half is 64 bits")]
        let digest = Digest { high: (hash >> 64) as u64, low: hash as u64 };
        if digest.high < self.first || digest.high > self.last {
            return;
        }
        let record = Newest { time, place: place << 1 | u64::from(is_put) };
        let newest = self.newest.entry(digest).or_insert(record);
        *newest = record.max(*newest);
        while self.newest.len() > self.keys_max && self.first < self.last {
            self.last = self.first + (self.last - self.first) / 2;
            self.newest.retain(|digest, _| digest.high <= self.last);
        }
    }

    /// Empties the table and returns the places of the newest records that are puts, in order.
    pub(super) fn take_puts(&mut self) -> Vec<u64> {
        let newest = std::mem::take(&mut self.newest);
        let puts = newest.into_values().filter(|newest| newest.place & 1 == 1);
        let mut places: Vec<u64> = puts.map(|newest| newest.place >> 1).collect();
        places.sort_unstable();
        places
    }

    /// Goes on to the next range. Returns `false` if all keys have been covered.
    pub(super) fn advance(&mut self) -> bool {
        let Some(first) = self.last.checked_add(1) else { return false };
        // The next range is as wide as this one, which was not too wide.
        let width = self.last - self.first;
        (self.first, self.last) = (first, first.saturating_add(width));
        true
    }

    /// Returns how many ranges like this one it takes to cover what is left, including this one.
    pub(super) fn ranges_left(&self) -> u64 {
        (u64::MAX - self.first) / (self.last - self.first).max(1) + 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Returns the live places of all ranges, and the number of ranges.
    fn replay(memory_max: u64, records: &[(u32, u64, bool)]) -> (Vec<u64>, usize) {
        let mut table = NewestTable::new(memory_max);
        let (mut places, mut ranges) = (Vec::new(), 0);
        loop {
            ranges += 1;
            for (place, (key, time, is_put)) in (0..).zip(records) {
                table.add(&key.to_be_bytes(), *time, place, *is_put);
                assert!(table.newest.len() <= table.keys_max);
            }
            places.extend(table.take_puts());
            if !table.advance() {
                places.sort_unstable();
                return (places, ranges);
            }
        }
    }

    #[test]
    fn a_small_table_finds_the_same_records_in_several_ranges() {
        let mut records = Vec::new();
        let mut expected = BTreeMap::new();
        for number in 0..5000_u32 {
            let (key, time) = (number * 7919 % 1500, u64::from(number * 31 % 17));
            let is_put = number % 5 > 0;
            let place = records.len() as u64;
            records.push((key, time, is_put));
            let newest = expected.entry(key).or_insert((time, place, is_put));
            *newest = (time, place, is_put).max(*newest);
        }
        let mut live: Vec<u64> =
            expected.values().filter(|(.., is_put)| *is_put).map(|(_, place, _)| *place).collect();
        live.sort_unstable();
        let (places, ranges) = replay(1 << 20, &records);
        assert_eq!((&places, ranges), (&live, 1));
        let (places, ranges) = replay(0, &records);
        assert_eq!(places, live);
        assert!(ranges > 200, "{ranges} ranges of at most 7 keys");
        let (places, ranges) = replay(25_600, &records);
        assert_eq!(places, live);
        assert!((4..12).contains(&ranges), "{ranges} ranges of at most 448 keys");
    }

    #[test]
    fn of_records_of_the_same_time_the_last_one_counts() {
        let (places, _) = replay(0, &[(1, 5, true), (1, 5, true), (1, 4, false)]);
        assert_eq!(places, [1]);
        let (places, _) = replay(0, &[(1, 5, true), (1, 5, false)]);
        assert!(places.is_empty());
        let (places, _) = replay(0, &[(1, 5, true), (1, 6, true), (1, 7, false), (1, 8, true)]);
        assert_eq!(places, [3]);
    }
}
