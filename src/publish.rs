//! Publishes figures through the `metrics` facade: the feature `metrics`.
//!
//! - Nothing is published while an operation runs. The program calls
//!   [`publish`](MetricsPublisher::publish), which reads the figures that the store keeps anyway.
//! - Counters and histograms are published as what was added since the last call, so that they
//!   continue when the store is closed and opened again.
//! - Names follow the conventions of Prometheus. The document `docs/observability.md` lists all of
//!   them; a test compares.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};

use crate::stats::{Counters, Histogram, Stats};
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

/// A metric, and where its figure is. `F` reads it.
struct Metric<F> {
    name: &'static str,
    unit: Unit,
    label: Option<(&'static str, &'static str)>,
    description: &'static str,
    read: F,
}

const fn metric<F: Copy>(
    name: &'static str,
    unit: Unit,
    description: &'static str,
    read: F,
) -> Metric<F> {
    Metric { name, unit, label: None, description, read }
}

type Total = fn(&Counters) -> u64;
type Durations = fn(&Counters) -> &Histogram;
type Gauged = fn(&Stats) -> f64;

const GETS: &str = "Keys that were looked up, by whether they were found.";

const COUNTERS: [Metric<Total>; 9] = [
    Metric {
        label: Some(("result", "hit")),
        ..metric("bitcask_gets_total", Unit::Count, GETS, |it| it.hits)
    },
    Metric {
        label: Some(("result", "miss")),
        ..metric("bitcask_gets_total", Unit::Count, GETS, |it| it.misses)
    },
    metric("bitcask_puts_total", Unit::Count, "Puts appended to the log.", |it| it.puts),
    metric("bitcask_deletes_total", Unit::Count, "Deletes appended to the log.", |it| it.deletes),
    metric(
        "bitcask_conflicts_total",
        Unit::Count,
        "Changes refused because something was not as they expected.",
        |it| it.conflicts,
    ),
    metric(
        "bitcask_read_bytes_total",
        Unit::Bytes,
        "Size of the values that gets returned.",
        |it| it.bytes_read,
    ),
    metric("bitcask_written_bytes_total", Unit::Bytes, "Size of appended entries.", |it| {
        it.bytes_written
    }),
    metric("bitcask_syncs_total", Unit::Count, "Syncs of the log.", |it| it.syncs),
    metric("bitcask_merges_total", Unit::Count, "Merges that had something to merge.", |it| {
        it.merges
    }),
];

const HISTOGRAMS: [Metric<Durations>; 4] = [
    metric(
        "bitcask_get_duration_seconds",
        Unit::Seconds,
        "How long gets took, one in 128 of them.",
        |it| &it.get_latency,
    ),
    metric(
        "bitcask_write_duration_seconds",
        Unit::Seconds,
        "How long writes took, one in 128 of them.",
        |it| &it.write_latency,
    ),
    metric("bitcask_sync_duration_seconds", Unit::Seconds, "How long syncs took.", |it| {
        &it.sync_latency
    }),
    metric("bitcask_merge_duration_seconds", Unit::Seconds, "How long merges took.", |it| {
        &it.merge_latency
    }),
];

const GAUGES: [Metric<Gauged>; 22] = [
    metric("bitcask_keys", Unit::Count, "Keys, including expired ones.", |it| float(it.keys)),
    metric("bitcask_unfilled_shards", Unit::Count, "Parts of the keydir still to load.", |it| {
        float(it.unfilled_shards)
    }),
    metric("bitcask_segments", Unit::Count, "Segments.", |it| float(it.segments)),
    metric("bitcask_sealed_segments", Unit::Count, "Sealed segments.", |it| {
        float(it.sealed_segments)
    }),
    metric("bitcask_segments_limit", Unit::Count, "Maximum number of segments.", |it| {
        float(it.segments_limit)
    }),
    metric("bitcask_unmapped_segments", Unit::Count, "Segments without a mapping.", |it| {
        float(it.unmapped_segments)
    }),
    metric("bitcask_mappings", Unit::Count, "Mappings of all stores of the process.", |it| {
        float(it.mappings)
    }),
    metric("bitcask_mappings_limit", Unit::Count, "Maximum number of mappings.", |it| {
        float(it.mappings_limit)
    }),
    metric("bitcask_open_files", Unit::Count, "Open files of all stores of the process.", |it| {
        float(it.descriptors)
    }),
    metric("bitcask_log_bytes", Unit::Bytes, "Size of the log.", |it| float(it.log_size)),
    metric("bitcask_live_bytes", Unit::Bytes, "Size of the live entries.", |it| {
        float(it.live_size)
    }),
    metric("bitcask_dead_bytes", Unit::Bytes, "Size of what merges could free.", |it| {
        float(it.dead_size)
    }),
    metric("bitcask_history_segments", Unit::Count, "Segments kept for history.", |it| {
        float(it.history_segments)
    }),
    metric("bitcask_history_bytes", Unit::Bytes, "Dead size in those segments.", |it| {
        float(it.history_size)
    }),
    metric("bitcask_keydir_bytes", Unit::Bytes, "Memory of the keydir.", |it| {
        float(it.keydir_size)
    }),
    metric("bitcask_snapshots", Unit::Count, "Snapshots that exist.", |it| float(it.snapshots)),
    metric(
        "bitcask_oldest_snapshot_seconds",
        Unit::Seconds,
        "Age of the oldest one, or 0.",
        |it| seconds(it.oldest_snapshot),
    ),
    metric("bitcask_pinned_segments", Unit::Count, "Segments kept for snapshots.", |it| {
        float(it.pinned_segments)
    }),
    metric("bitcask_pinned_bytes", Unit::Bytes, "Size of those segments.", |it| {
        float(it.pinned_size)
    }),
    metric("bitcask_retired_segments", Unit::Count, "Segments kept for running calls.", |it| {
        float(it.retired_segments)
    }),
    metric("bitcask_oldest_retired_seconds", Unit::Seconds, "Age of the oldest one, or 0.", |it| {
        seconds(it.oldest_retired)
    }),
    metric("bitcask_reserve_bytes", Unit::Bytes, "Disk space reserved for writes.", |it| {
        float(it.reserve_size)
    }),
];

fn describe() {
    for Metric { name, unit, description, .. } in COUNTERS {
        describe_counter!(name, unit, description);
    }
    for Metric { name, unit, description, .. } in HISTOGRAMS {
        describe_histogram!(name, unit, description);
    }
    for Metric { name, unit, description, .. } in GAUGES {
        describe_gauge!(name, unit, description);
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

#[expect(clippy::cast_precision_loss, reason = "the facade has only floats, exact up to 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(0.0, |duration| duration.as_secs_f64())
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
