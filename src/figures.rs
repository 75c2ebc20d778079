//! The metrics of a store: their names, units and meanings, and where each figure is.
//!
//! Whatever publishes them, a facade or the server's `/metrics`, uses these tables. Names follow
//! the conventions of Prometheus. The document `docs/observability.md` lists all of them; a test
//! compares.

use std::time::Duration;

use crate::stats::{Counters, Histogram, Stats};

/// A metric, and where its figure is. `F` reads it.
pub(crate) struct Metric<F> {
    pub(crate) name: &'static str,
    pub(crate) unit: MetricUnit,
    pub(crate) label: Option<(&'static str, &'static str)>,
    pub(crate) description: &'static str,
    pub(crate) read: F,
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricUnit {
    Count,
    Bytes,
    Seconds,
}

use MetricUnit::{Bytes, Count, Seconds};

const fn metric<F: Copy>(
    name: &'static str,
    unit: MetricUnit,
    description: &'static str,
    read: F,
) -> Metric<F> {
    Metric { name, unit, label: None, description, read }
}

pub(crate) type Total = fn(&Counters) -> u64;
pub(crate) type Durations = fn(&Counters) -> &Histogram;
pub(crate) type Gauged = fn(&Stats) -> f64;

const GETS: &str = "Keys that were looked up, by whether they were found.";

pub(crate) const COUNTERS: [Metric<Total>; 9] = [
    Metric {
        label: Some(("result", "hit")),
        ..metric("bitcask_gets_total", Count, GETS, |it| it.hits)
    },
    Metric {
        label: Some(("result", "miss")),
        ..metric("bitcask_gets_total", Count, GETS, |it| it.misses)
    },
    metric("bitcask_puts_total", Count, "Puts appended to the log.", |it| it.puts),
    metric("bitcask_deletes_total", Count, "Deletes appended to the log.", |it| it.deletes),
    metric(
        "bitcask_conflicts_total",
        Count,
        "Changes refused because something was not as they expected.",
        |it| it.conflicts,
    ),
    metric("bitcask_read_bytes_total", Bytes, "Size of the values that gets returned.", |it| {
        it.bytes_read
    }),
    metric("bitcask_written_bytes_total", Bytes, "Size of appended entries.", |it| {
        it.bytes_written
    }),
    metric("bitcask_syncs_total", Count, "Syncs of the log.", |it| it.syncs),
    metric("bitcask_merges_total", Count, "Merges that had something to merge.", |it| it.merges),
];

pub(crate) const HISTOGRAMS: [Metric<Durations>; 4] = [
    metric(
        "bitcask_get_duration_seconds",
        Seconds,
        "How long gets took, one in 128 of them.",
        |it| &it.get_latency,
    ),
    metric(
        "bitcask_write_duration_seconds",
        Seconds,
        "How long writes took, one in 128 of them.",
        |it| &it.write_latency,
    ),
    metric("bitcask_sync_duration_seconds", Seconds, "How long syncs took.", |it| &it.sync_latency),
    metric("bitcask_merge_duration_seconds", Seconds, "How long merges took.", |it| {
        &it.merge_latency
    }),
];

pub(crate) const GAUGES: [Metric<Gauged>; 22] = [
    metric("bitcask_keys", Count, "Keys, including expired ones.", |it| float(it.keys)),
    metric("bitcask_unfilled_shards", Count, "Parts of the keydir still to load.", |it| {
        float(it.unfilled_shards)
    }),
    metric("bitcask_segments", Count, "Segments.", |it| float(it.segments)),
    metric("bitcask_sealed_segments", Count, "Sealed segments.", |it| float(it.sealed_segments)),
    metric("bitcask_segments_limit", Count, "Maximum number of segments.", |it| {
        float(it.segments_limit)
    }),
    metric("bitcask_unmapped_segments", Count, "Segments without a mapping.", |it| {
        float(it.unmapped_segments)
    }),
    metric("bitcask_mappings", Count, "Mappings of all stores of the process.", |it| {
        float(it.mappings)
    }),
    metric("bitcask_mappings_limit", Count, "Maximum number of mappings.", |it| {
        float(it.mappings_limit)
    }),
    metric("bitcask_open_files", Count, "Open files of all stores of the process.", |it| {
        float(it.descriptors)
    }),
    metric("bitcask_log_bytes", Bytes, "Size of the log.", |it| float(it.log_size)),
    metric("bitcask_live_bytes", Bytes, "Size of the live entries.", |it| float(it.live_size)),
    metric("bitcask_dead_bytes", Bytes, "Size of what merges could free.", |it| {
        float(it.dead_size)
    }),
    metric("bitcask_history_segments", Count, "Segments kept for history.", |it| {
        float(it.history_segments)
    }),
    metric("bitcask_history_bytes", Bytes, "Dead size in those segments.", |it| {
        float(it.history_size)
    }),
    metric("bitcask_keydir_bytes", Bytes, "Memory of the keydir.", |it| float(it.keydir_size)),
    metric("bitcask_snapshots", Count, "Snapshots that exist.", |it| float(it.snapshots)),
    metric("bitcask_oldest_snapshot_seconds", Seconds, "Age of the oldest one, or 0.", |it| {
        seconds(it.oldest_snapshot)
    }),
    metric("bitcask_pinned_segments", Count, "Segments kept for snapshots.", |it| {
        float(it.pinned_segments)
    }),
    metric("bitcask_pinned_bytes", Bytes, "Size of those segments.", |it| float(it.pinned_size)),
    metric("bitcask_retired_segments", Count, "Segments kept for running calls.", |it| {
        float(it.retired_segments)
    }),
    metric("bitcask_oldest_retired_seconds", Seconds, "Age of the oldest one, or 0.", |it| {
        seconds(it.oldest_retired)
    }),
    metric("bitcask_reserve_bytes", Bytes, "Disk space reserved for writes.", |it| {
        float(it.reserve_size)
    }),
];

#[expect(clippy::cast_precision_loss, reason = "metrics are floats, exact up to 2^53")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(duration: Option<Duration>) -> f64 {
    duration.map_or(0.0, |duration| duration.as_secs_f64())
}
