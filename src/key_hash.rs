//! The hash bits of a key: shard, fingerprint, and 12 extra bits.
//!
//! - Hints store hash bits, so the function is a published, stable one: XXH3-128 with the store's
//!   seed.
//! - The shard is the top bits of the fingerprint, so a hint sorted by fingerprint is sorted by
//!   shard.

/// Number of bits that select the shard: the highest bits of the fingerprint.
///
/// Unit tests open stores by the ten thousand and spend most of that time creating shards. Their
/// results do not depend on the number of shards. The tests in `tests/` use the real number.
pub(crate) const SHARD_BITS: u32 = if cfg!(any(test, bitcask_fuzzing)) { 4 } else { 12 };

/// The hash bits of a key. Two keys may share all of them; only the key in the log is decisive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash {
    /// Never one of the two values that mark a slot as empty or removed.
    pub(crate) fingerprint: u64,
    /// 12 bits that are compared before the key is read.
    pub(crate) extra: u16,
}

impl KeyHash {
    /// Returns the number of the key's shard.
    #[inline]
    pub(crate) fn shard(self) -> usize {
        // 12 bits fit into any `usize`.
        (self.fingerprint >> (64 - SHARD_BITS)) as usize
    }

    /// Returns the bucket among `count` buckets. Within a shard it rises with the fingerprint.
    #[inline]
    pub(crate) fn bucket(self, count: usize) -> usize {
        let high = (self.fingerprint << SHARD_BITS) >> 32;
        // Below `count`; all supported platforms are 64-bit.
        ((high * count as u64) >> 32) as usize
    }
}

/// Returns whether two of the hashes are equal.
pub(crate) fn has_twins(hashes: &[KeyHash]) -> bool {
    // A hash table of indices into `hashes`, each one higher; zero is empty. At most half full.
    let mut table = vec![0_u32; (2 * hashes.len()).next_power_of_two()];
    let mask = table.len() - 1;
    let low_bits = |hash: &KeyHash| usize::try_from(hash.fingerprint & mask as u64);
    for (number, hash) in (1..).zip(hashes) {
        let mut at = low_bits(hash).unwrap_or_default();
        while let Some(other) = table.get(at).filter(|other| **other > 0) {
            if hashes.get(*other as usize - 1) == Some(hash) {
                return true;
            }
            at = (at + 1) & mask;
        }
        if let Some(free) = table.get_mut(at) {
            *free = number;
        }
    }
    false
}

/// Hashes keys with a store's seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyHasher {
    seed: u64,
    /// Use fewer bits, so that keys collide all the time.
    #[cfg(any(test, bitcask_fuzzing))]
    weak: bool,
}

impl KeyHasher {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            #[cfg(any(test, bitcask_fuzzing))]
            weak: false,
        }
    }

    /// Returns a hasher with two bits: four values, in two shards.
    #[cfg(any(test, bitcask_fuzzing))]
    pub(crate) fn weak(seed: u64) -> Self {
        Self { seed, weak: true }
    }

    #[inline]
    pub(crate) fn hash(self, key: &[u8]) -> KeyHash {
        let hash = xxhash_rust::xxh3::xxh3_128_with_seed(key, self.seed);
        #[cfg(any(test, bitcask_fuzzing))]
        let hash = if self.weak { hash & (1 << 63 | 1 << 40) } else { hash };
        // The low half is the fingerprint; the lowest bits of the high half are the extra bits.
        let fingerprint = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default();
        let extra = ((hash >> 64) & 0xfff) as u16;
        // Zero and one are reserved for empty and removed slots.
        let fingerprint = if fingerprint < 2 { fingerprint + 2 } else { fingerprint };
        KeyHash { fingerprint, extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one_forever() {
        let hash = KeyHasher::new(42).hash(b"answer");
        let published = xxhash_rust::xxh3::xxh3_128_with_seed(b"answer", 42);
        assert_eq!(u128::from(hash.fingerprint), published % (1 << 64));
        assert_eq!(u128::from(hash.extra), (published >> 64) % (1 << 12));
        assert_eq!(KeyHasher::new(0).hash(b"").fingerprint, 0x6001_c324_468d_497f);
    }

    #[test]
    fn buckets_rise_with_the_fingerprint_and_cover_the_table() {
        let bucket = |fingerprint| KeyHash { fingerprint, extra: 0 }.bucket(10);
        assert_eq!(bucket(2), 0);
        assert_eq!(bucket(u64::MAX), 9);
        assert!((0..100).is_sorted_by_key(|step| bucket(step << 44)));
    }

    #[test]
    fn equal_hashes_are_found_among_many() {
        let hashes: Vec<_> =
            (0..1000_u32).map(|key| KeyHasher::new(1).hash(&key.to_be_bytes())).collect();
        for len in [0, 1, 2, 3, 1000] {
            assert!(!has_twins(&hashes[..len]));
        }
        for at in [0, 1, 500, 998] {
            let mut hashes = hashes.clone();
            hashes[at] = hashes[999];
            assert!(has_twins(&hashes));
            // The extra bits count, too.
            hashes[at].extra ^= 1;
            assert!(!has_twins(&hashes));
        }
    }

    #[test]
    fn the_weak_hash_has_four_values() {
        let hasher = KeyHasher::weak(7);
        let values: std::collections::HashSet<_> =
            (0..100_u32).map(|key| hasher.hash(&key.to_be_bytes())).collect();
        assert_eq!(values.len(), 4);
    }
}
