//! How long operations took, as numbers of operations per range of durations.
//!
//! The ranges are those of HDR histograms: each power of two is divided into equal steps, so that
//! the relative error is bounded at every scale.

use std::fmt;
use std::time::Duration;

/// The first bucket holds everything up to 2 to this power, in nanoseconds.
const FIRST_BITS: u32 = 6;
/// The last bucket holds everything above 2 to this power, in nanoseconds: 73 minutes.
const LAST_BITS: u32 = 42;
/// Each power of two is divided into 2 to this power buckets.
const STEP_BITS: u32 = 2;
/// Number of buckets.
pub(crate) const BUCKET_COUNT: usize = 2 + (((LAST_BITS - FIRST_BITS) as usize) << STEP_BITS);

/// Returns the bucket of a duration in nanoseconds. A bucket includes its upper bound.
pub(crate) fn bucket_of(nanos: u64) -> usize {
    let below = nanos.saturating_sub(1);
    let bits = below.checked_ilog2().unwrap_or(0);
    if bits < FIRST_BITS {
        return 0;
    }
    if bits >= LAST_BITS {
        return BUCKET_COUNT - 1;
    }
    // The leading digit is one; the digits after it are the step.
    let steps = (below >> (bits - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    let steps = (u64::from(bits - FIRST_BITS) << STEP_BITS) + steps;
    usize::try_from(1 + steps).unwrap_or(0)
}

/// Returns the upper bound of a bucket in nanoseconds.
fn upper_bound(bucket: usize) -> u64 {
    let Some(above) = bucket.checked_sub(1) else { return 1 << FIRST_BITS };
    if bucket >= BUCKET_COUNT - 1 {
        return u64::MAX;
    }
    let (power, step) = (above >> STEP_BITS, above & ((1 << STEP_BITS) - 1));
    (((1 << STEP_BITS) + step + 1) as u64) << (power + (FIRST_BITS - STEP_BITS) as usize)
}

/// How long operations took, from [`Counters`](crate::Counters).
///
/// The operations are counted in 146 buckets: one up to 64 nanoseconds, four for each power of two
/// above that, and one above 73 minutes. A [`quantile`](Self::quantile) is therefore never less
/// than the true one, and at most a quarter more, or at most 64 nanoseconds.
///
/// ```
/// # use std::time::Duration;
/// # use bitcask::{Bitcask, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// db.put("key", "value")?;
/// db.sync()?;
/// let syncs = db.counters().sync_latency;
/// assert_eq!(syncs.count(), 1);
/// assert_eq!(syncs.quantile(0.99), syncs.max());
/// assert_eq!(syncs.mean(), syncs.sum());
/// # db.close()
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Without the empty buckets at the end.
    counts: Vec<u64>,
    /// In nanoseconds.
    sum: u64,
    /// In nanoseconds.
    max: u64,
}

impl Histogram {
    /// Returns the number of operations that were timed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of their durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Returns the mean of their durations, or zero if there are none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// Returns the longest duration, or zero if there is none.
    ///
    /// In a [difference](crate::Counters::since) it is as exact as a quantile.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the duration within which this share of the operations ended, for example 0.99 of
    /// them, or zero if there are none. Shares below 0 or above 1 count as 0 or 1.
    ///
    /// The result is never less than the true duration, and at most a quarter more, or at most 64
    /// nanoseconds.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = rank(self.count(), share);
        let mut seen = 0;
        let is_reached = |count: &u64| {
            seen += count;
            seen >= rank
        };
        let bucket = self.counts.iter().position(is_reached).unwrap_or(0);
        Duration::from_nanos(upper_bound(bucket).min(self.max))
    }

    /// Returns an iterator over all buckets, in ascending order, including empty ones: the upper
    /// bound of each, and the number of operations in it.
    ///
    /// A duration that equals a bound is below it, as in Prometheus. The bounds are always the
    /// same. The last one is [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        (0..BUCKET_COUNT).map(|bucket| {
            let bound = match upper_bound(bucket) {
                u64::MAX => Duration::MAX,
                nanos => Duration::from_nanos(nanos),
            };
            (bound, self.counts.get(bucket).copied().unwrap_or(0))
        })
    }

    /// Adds operations: their number for each bucket in order, and sum and maximum of their
    /// durations in nanoseconds.
    pub(crate) fn add(&mut self, counts: impl Iterator<Item = u64>, sum: u64, max: u64) {
        for (bucket, count) in counts.take(BUCKET_COUNT).enumerate().filter(|(_, count)| *count > 0)
        {
            if self.counts.len() <= bucket {
                self.counts.resize(bucket + 1, 0);
            }
            if let Some(sum) = self.counts.get_mut(bucket) {
                *sum += count;
            }
        }
        self.sum = self.sum.saturating_add(sum);
        self.max = self.max.max(max);
    }

    /// Returns what was added since an earlier state.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let added = self.counts.iter().zip(before).map(|(now, before)| now.saturating_sub(before));
        let mut since = Self::default();
        since.add(added, self.sum.saturating_sub(earlier.sum), 0);
        if let Some(last) = since.counts.len().checked_sub(1) {
            since.max = upper_bound(last).min(self.max);
        }
        since
    }
}

/// Shows a summary instead of the buckets.
impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

/// Returns the rank of the operation at which a share of all operations is reached, from 1.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among more than 2^53 operations need not be exact"
)]
fn rank(count: u64, share: f64) -> u64 {
    ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nanos: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for &nanos in nanos {
            let bucket = bucket_of(nanos);
            let counts = (0..BUCKET_COUNT).map(|at| u64::from(at == bucket));
            histogram.add(counts, nanos, nanos);
        }
        histogram
    }

    /// Returns durations of every magnitude, among them the neighbours of all bounds.
    fn durations() -> Vec<u64> {
        let bounds = (0..BUCKET_COUNT - 1).map(upper_bound);
        let near = bounds.flat_map(|bound| [bound - 1, bound, bound + 1]);
        let far = (0..64).flat_map(|bits| [1 << bits, (1 << bits) | (1 << (bits / 2))]);
        let mut durations: Vec<u64> = near.chain(far).chain([0, u64::MAX]).collect();
        durations.sort_unstable();
        durations
    }

    #[test]
    fn buckets_adjoin_and_include_their_upper_bounds() {
        let bounds: Vec<u64> = (0..BUCKET_COUNT).map(upper_bound).collect();
        assert!(bounds.is_sorted_by(|a, b| a < b));
        for nanos in durations() {
            let bucket = bucket_of(nanos);
            assert!(nanos <= bounds[bucket]);
            assert!(bucket == 0 || nanos > bounds[bucket - 1], "{nanos}");
        }
    }

    #[test]
    fn the_documented_numbers_hold() {
        let bounds: Vec<Duration> = Histogram::default().buckets().map(|bucket| bucket.0).collect();
        assert_eq!(bounds.len(), 146);
        assert_eq!(bounds[0], Duration::from_nanos(64));
        let last_but_one = bounds[144].as_secs();
        assert_eq!((last_but_one / 60, bounds[145]), (73, Duration::MAX));
        assert!(bounds.contains(&Duration::from_nanos(1 << 20)));
    }

    #[test]
    fn a_quantile_is_never_less_and_at_most_a_quarter_more() {
        let durations = durations();
        for len in 1..durations.len() {
            let (sorted, histogram) = (&durations[..len], of(&durations[..len]));
            for percent in 0..=100_u8 {
                let rank = (len * usize::from(percent)).div_ceil(100).max(1);
                let exact = sorted[rank - 1];
                let found = histogram.quantile(f64::from(percent) / 100.0).as_nanos();
                let at_most = (u128::from(exact) * 5 / 4).max(64);
                let is_measured = exact <= 1 << LAST_BITS;
                assert!(found >= u128::from(exact), "{found} is less than {exact}");
                assert!(found <= at_most || !is_measured, "{found} is far above {exact}");
            }
            assert_eq!(histogram.quantile(1.0), histogram.max());
        }
    }

    #[test]
    fn figures_of_no_operations_are_zero_and_odd_shares_count_as_the_nearest() {
        let nothing = Histogram::default();
        assert_eq!(nothing.count(), 0);
        let figures = [nothing.sum(), nothing.mean(), nothing.max(), nothing.quantile(0.5)];
        assert_eq!(figures, [Duration::ZERO; 4]);
        let two = of(&[100, 10_000]);
        for (share, same) in [(-1.0, 0.0), (f64::NAN, 0.0), (7.0, 1.0), (f64::INFINITY, 1.0)] {
            assert_eq!(two.quantile(share), two.quantile(same));
        }
        assert_eq!((two.count(), two.mean()), (2, Duration::from_nanos(5050)));
        assert_eq!(two.buckets().map(|bucket| bucket.1).sum::<u64>(), 2);
    }

    #[test]
    fn a_difference_holds_the_operations_in_between() {
        let (before, later) = (of(&[70, 9000]), of(&[70, 9000, 70, 300]));
        let since = later.since(&before);
        assert_eq!((since.count(), since.sum()), (2, Duration::from_nanos(370)));
        // The longest of all came before.
        assert!((300..=375).contains(&since.max().as_nanos()));
        assert_eq!(later.since(&later), Histogram::default());
        assert_eq!(later.since(&Histogram::default()), later);
        assert_eq!(before.since(&later), Histogram::default());
    }

    #[test]
    fn debug_output_is_a_summary() {
        let text = format!("{:?}", of(&[100]));
        assert!(text.starts_with("Histogram { count: 1, mean: 100ns, p50: 100ns"), "{text}");
    }
}
