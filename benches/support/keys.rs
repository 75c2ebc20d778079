//! Keys, generated before anything is timed, and read in the order in which they lie in memory.
//!
//! - A key has 16 bytes: its number in big-endian order, so that keys sort by number, and 8
//!   pseudo-random bytes. Key `n` is the same in every bench.
//! - The same seed gives the same stream.

/// A key. A `Vec` of keys is one flat buffer.
pub(crate) type Key = [u8; 16];

/// The skew of YCSB's workloads.
const ZIPF_EXPONENT: f64 = 0.99;

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

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Returns a number below a limit. The bias toward any number is at most `limit` in 2^64.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Returns a number from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The generator's last step, which spreads every bit over the whole number.
pub(crate) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// Generates ranks from 1, by rejection and inversion: Hoermann and Derflinger,
/// "Rejection-inversion to generate variates from monotone discrete distributions", ACM TOMACS
/// 6(3), 1996.
struct Zipf {
    count: f64,
    /// One minus the exponent, which must not be one.
    rest: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let (count, rest) = (count as f64, 1.0 - exponent);
        let mut zipf = Self { count, rest, integral_first: 0.0, integral_last: 0.0, shortcut: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(count + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let span = self.integral_first - self.integral_last;
            let area = self.integral_last + random.unit() * span;
            let place = self.inverse(area);
            let rank = place.round().clamp(1.0, self.count);
            let accepted = rank - place <= self.shortcut
                || area >= self.integral(rank + 0.5) - self.weight(rank);
            if accepted {
                return rank as u64;
            }
        }
    }

    fn weight(&self, rank: f64) -> f64 {
        rank.powf(self.rest - 1.0)
    }

    fn integral(&self, place: f64) -> f64 {
        (place.powf(self.rest) - 1.0) / self.rest
    }

    fn inverse(&self, area: f64) -> f64 {
        (1.0 + area * self.rest).powf(1.0 / self.rest)
    }
}
