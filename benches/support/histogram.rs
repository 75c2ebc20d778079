//! A histogram of durations, and a call that does not use the store, to be timed between the
//! others.

use std::time::Duration;

/// Number of rounds of calculation that take about a microsecond.
const NOTHING: u64 = 150;

/// A fixed calculation, about as long as a call. Its times show the effect of the machine.
pub(crate) fn nothing(number: u64) {
    std::hint::black_box((0..NOTHING).fold(number, |mixture, _| super::random::mix(mixture)));
}

/// Counts of durations, in buckets whose width is 1/32 of their start.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    const PARTS: u64 = 32;

    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; 64 * 32], count: 0, max: 0 }
    }

    pub(crate) fn add(&mut self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap();
        self.buckets[Self::bucket(nanoseconds)] += 1;
        self.count += 1;
        self.max = self.max.max(nanoseconds);
    }

    fn bucket(value: u64) -> usize {
        let doublings = u64::from(value.max(Self::PARTS).ilog2() - Self::PARTS.ilog2());
        usize::try_from(doublings * Self::PARTS + (value >> doublings)).unwrap()
    }

    /// Returns the largest value that falls into a bucket.
    fn top(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        let doublings = (bucket / Self::PARTS).saturating_sub(1);
        ((bucket - doublings * Self::PARTS + 1) << doublings) - 1
    }

    /// Returns the duration that this fraction of all calls did not exceed.
    pub(crate) fn percentile(&self, part: f64) -> u64 {
        let mut left = self.count as f64 * (1.0 - part);
        for (bucket, count) in self.buckets.iter().enumerate().rev() {
            left -= *count as f64;
            if left < 0.0 {
                return Self::top(bucket).min(self.max);
            }
        }
        0
    }

    /// Adds the counts of another histogram.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }
}
