//! Records how long operations take.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::stats::{BUCKET_COUNT, Histogram, bucket_of};

/// Durations of operations, recorded by any number of threads. Takes 1.2 KiB from the first one on,
/// and a few bytes before.
#[derive(Debug, Default)]
pub(crate) struct Recorder(OnceLock<Box<Recorded>>);

#[derive(Debug)]
struct Recorded {
    counts: [AtomicU64; BUCKET_COUNT],
    /// In nanoseconds.
    sum: AtomicU64,
    /// In nanoseconds.
    max: AtomicU64,
}

impl Default for Recorded {
    fn default() -> Self {
        let counts = [const { AtomicU64::new(0) }; BUCKET_COUNT];
        Self { counts, sum: AtomicU64::new(0), max: AtomicU64::new(0) }
    }
}

impl Recorder {
    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let recorded = self.0.get_or_init(Box::default);
        recorded.max.fetch_max(nanos, Ordering::Relaxed);
        recorded.sum.fetch_add(nanos, Ordering::Relaxed);
        if let Some(count) = recorded.counts.get(bucket_of(nanos)) {
            // A reader that counts this operation knows its duration too.
            count.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns the number of operations.
    pub(crate) fn count(&self) -> u64 {
        self.0.get().map_or(0, |recorded| recorded.counts().sum())
    }

    pub(crate) fn add_to(&self, histogram: &mut Histogram) {
        let Some(recorded) = self.0.get() else { return };
        let counts: Vec<u64> = recorded.counts().collect();
        let sum = recorded.sum.load(Ordering::Relaxed);
        histogram.add(counts.into_iter(), sum, recorded.max.load(Ordering::Relaxed));
    }
}

impl Recorded {
    fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|count| count.load(Ordering::Acquire))
    }
}
