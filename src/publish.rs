//! Publishes figures through the `metrics` facade: the feature `metrics`.
//!
//! - Nothing is published while an operation runs. The program calls
//!   [`publish`](MetricsPublisher::publish), which reads the figures that the store keeps anyway.
//! - Counters and histograms are published as what was added since the last call, so that they
//!   continue when the store is closed and opened again.
//! - `figures` has the names, and where each figure is.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::figures::{COUNTERS, GAUGES, HISTOGRAMS, Metric, MetricUnit};
use crate::stats::{Counters, Histogram};
use crate::store::Reader;

/// Publishes what a store counts through the [`metrics`](https://docs.rs/metrics) facade, to
/// whatever recorder the program has installed.
///
/// Create one publisher for each store, and call [`publish`](Self::publish) whenever the figures
/// are wanted: before each scrape of an exporter, or every few seconds. Operations of the store do
/// not become slower.
///
/// All metrics have the label `store`, which tells the stores of a program apart. The document
/// `docs/observability.md` of this crate lists them.
///
/// ```
/// use bitcask::{Bitcask, MetricsPublisher, Options};
/// # fn main() -> bitcask::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Bitcask::open(dir.path(), Options::default())?;
/// let mut publisher = MetricsPublisher::new("sessions");
/// db.put("key", "value")?;
/// publisher.publish(&db); // `bitcask_puts_total` rises by 1.
/// # db.close()
/// # }
/// ```
#[derive(Debug)]
pub struct MetricsPublisher {
    store: Arc<str>,
    /// What has been published, or `None` if nothing has.
    published: Option<Counters>,
}

impl MetricsPublisher {
    /// Returns a publisher that has published nothing yet. Its metrics get the label `store` with
    /// this value.
    ///
    /// Two publishers of one store would publish everything twice.
    pub fn new(store: impl Into<String>) -> Self {
        Self { store: store.into().into(), published: None }
    }

    /// Publishes the store's current figures, and what it has done since the last call.
    ///
    /// Takes some ten microseconds, and time for the recorder. Install the recorder first: what is
    /// published without one is lost. The first call also describes all metrics.
    ///
    /// If a store has been closed and opened again, its counters begin anew. The publisher notices
    /// that when one of them is lower than before, and continues its totals.
    pub fn publish(&mut self, store: &Reader) {
        let now = store.counters();
        if self.published.is_none() {
            describe();
        }
        let last = self.published.take().filter(|last| !is_anew(&now, last)).unwrap_or_default();
        let since = now.since(&last);
        for Metric { name, label, read, .. } in COUNTERS {
            counter!(name, self.labels(label)).increment(read(&since));
        }
        for Metric { name, label, read, .. } in HISTOGRAMS {
            let published = histogram!(name, self.labels(label));
            for (duration, count) in middles(read(&since)) {
                published.record_many(duration.as_secs_f64(), count);
            }
        }
        let stats = store.stats();
        for Metric { name, label, read, .. } in GAUGES {
            gauge!(name, self.labels(label)).set(read(&stats));
        }
        self.published = Some(now);
    }

    fn labels(&self, label: Option<(&'static str, &'static str)>) -> Vec<Label> {
        let store = Label::new("store", Arc::clone(&self.store));
        std::iter::once(store).chain(label.map(|(name, value)| Label::new(name, value))).collect()
    }
}

/// Returns the facade's name of a unit.
fn facade_unit(unit: MetricUnit) -> Unit {
    match unit {
        MetricUnit::Count => Unit::Count,
        MetricUnit::Bytes => Unit::Bytes,
        MetricUnit::Seconds => Unit::Seconds,
    }
}

fn describe() {
    for Metric { name, unit, description, .. } in COUNTERS {
        describe_counter!(name, facade_unit(unit), description);
    }
    for Metric { name, unit, description, .. } in HISTOGRAMS {
        describe_histogram!(name, facade_unit(unit), description);
    }
    for Metric { name, unit, description, .. } in GAUGES {
        describe_gauge!(name, facade_unit(unit), description);
    }
}

/// Returns whether counters have begun anew since the last time.
fn is_anew(now: &Counters, last: &Counters) -> bool {
    let histograms =
        HISTOGRAMS.iter().any(|metric| (metric.read)(now).count() < (metric.read)(last).count());
    histograms || COUNTERS.iter().any(|metric| (metric.read)(now) < (metric.read)(last))
}

/// Returns the middle of each bucket that is not empty, and the number of operations in it. A
/// duration is at most an eighth from the middle of its bucket, above 64 nanoseconds.
fn middles(histogram: &Histogram) -> impl Iterator<Item = (Duration, usize)> + '_ {
    let mut above = Duration::ZERO;
    histogram.buckets().filter_map(move |(bound, count)| {
        let below = std::mem::replace(&mut above, bound);
        // The last bucket has no upper bound.
        let middle = if bound == Duration::MAX { histogram.max() } else { (below + bound) / 2 };
        (count > 0).then(|| (middle, usize::try_from(count).unwrap_or(usize::MAX)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{BUCKET_COUNT, bucket_of};

    #[test]
    fn a_published_duration_is_at_most_an_eighth_off() {
        let near = (6..42)
            .flat_map(|bits| [0, 1, 7, 11, 13].map(|part| (1 << bits) + (part << bits) / 16));
        for nanos in
            near.flat_map(|nanos: u64| [nanos - 1, nanos, nanos + 1]).chain([0, 1, 1 << 50])
        {
            let mut histogram = Histogram::default();
            let counts = (0..BUCKET_COUNT).map(|at| 3 * u64::from(at == bucket_of(nanos)));
            histogram.add(counts, 3 * nanos, nanos);
            let published: Vec<_> = middles(&histogram).collect();
            let [(middle, 3)] = published[..] else { panic!("{published:?}") };
            let off = middle.abs_diff(Duration::from_nanos(nanos));
            assert!(off <= Duration::from_nanos((nanos / 8).max(32)), "{nanos}: {middle:?}");
        }
        assert_eq!(middles(&Histogram::default()).count(), 0);
    }
}
