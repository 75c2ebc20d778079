//! Pseudo-random numbers: the same seed gives the same stream.

/// The skew of YCSB's workloads.
pub(crate) const ZIPF_EXPONENT: f64 = 0.99;

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    pub(crate) fn next(&mut self) -> u64 {
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
pub(crate) struct Zipf {
    count: f64,
    /// One minus the exponent, which must not be one.
    rest: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    pub(crate) fn new(count: u64, exponent: f64) -> Self {
        let (count, rest) = (count as f64, 1.0 - exponent);
        let mut zipf = Self { count, rest, integral_first: 0.0, integral_last: 0.0, shortcut: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(count + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    pub(crate) fn rank(&self, random: &mut Random) -> u64 {
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
