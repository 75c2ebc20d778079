//! What is published through the facade `metrics`, as a recorder receives it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bitcask::{Bitcask, MergeOptions, MetricsPublisher, Options};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

/// A metric with its labels, as Prometheus shows it.
type Series = String;

#[derive(Debug, Default)]
struct Received {
    /// The type and the unit of each name.
    described: BTreeMap<String, (&'static str, &'static str)>,
    /// The type and the names of the labels of each name.
    labels: BTreeMap<String, (&'static str, BTreeSet<String>)>,
    counters: BTreeMap<Series, u64>,
    gauges: BTreeMap<Series, f64>,
    /// Values with their numbers.
    histograms: BTreeMap<Series, Vec<(f64, usize)>>,
}

#[derive(Debug, Clone, Default)]
struct Recording(Arc<Mutex<Received>>);

/// One metric of a recording.
struct Handle(Recording, Series);

fn unit_name(unit: Option<Unit>) -> &'static str {
    match unit {
        Some(Unit::Count) => "count",
        Some(Unit::Bytes) => "bytes",
        Some(Unit::Seconds) => "seconds",
        _ => panic!("{unit:?}"),
    }
}

impl Recording {
    fn describe(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &str) {
        assert!(text.ends_with('.'), "{text}");
        let described = (kind, unit_name(unit));
        let earlier = self.0.lock().unwrap().described.insert(name.as_str().to_owned(), described);
        assert!(earlier.is_none_or(|earlier| earlier == described));
    }

    fn register(&self, kind: &'static str, key: &Key) -> Arc<Handle> {
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        let series = format!("{}{{{}}}", key.name(), labels.collect::<Vec<_>>().join(","));
        let names = key.labels().map(|label| label.key().to_owned()).collect();
        self.0.lock().unwrap().labels.insert(key.name().to_owned(), (kind, names));
        Arc::new(Handle(self.clone(), series))
    }

    fn counter(&self, series: &str) -> u64 {
        self.0.lock().unwrap().counters[series]
    }

    fn gauge(&self, series: &str) -> f64 {
        self.0.lock().unwrap().gauges[series]
    }

    /// Returns the number of values, and their sum.
    fn histogram(&self, series: &str) -> (usize, f64) {
        let received = self.0.lock().unwrap();
        let values = received.histograms.get(series).map(Vec::as_slice).unwrap_or_default();
        let sum =
            values.iter().map(|(value, count)| value * f64::from(u32::try_from(*count).unwrap()));
        (values.iter().map(|(_, count)| count).sum(), sum.sum())
    }
}

impl Recorder for Recording {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", &name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", &name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", &name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register("counter", key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register("gauge", key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.register("histogram", key))
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        *self.0.0.lock().unwrap().counters.entry(self.1.clone()).or_default() += value;
    }

    fn absolute(&self, _value: u64) {
        panic!("a counter of a store that was opened again would stand still");
    }
}

impl GaugeFn for Handle {
    fn increment(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _value: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.0.0.lock().unwrap().gauges.insert(self.1.clone(), value);
    }
}

impl HistogramFn for Handle {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let mut received = self.0.0.lock().unwrap();
        received.histograms.entry(self.1.clone()).or_default().push((value, count));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was whole before")]
fn whole(figure: f64) -> u64 {
    figure as u64
}

fn publish(publisher: &mut MetricsPublisher, recording: &Recording, db: &Bitcask) {
    with_local_recorder(recording, || publisher.publish(db));
}

#[test]
fn the_document_lists_every_metric_with_its_type_its_unit_and_its_labels() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    let recording = Recording::default();
    publish(&mut MetricsPublisher::new("a"), &recording, &db);
    let received = recording.0.lock().unwrap();
    let found: BTreeSet<String> = received
        .described
        .iter()
        .map(|(name, (kind, unit))| {
            let (registered, labels) = &received.labels[name];
            assert_eq!(registered, kind, "{name}");
            // As Prometheus wants it.
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{name}");
            assert_eq!(*unit == "bytes", name.contains("_bytes"), "{name}");
            assert_eq!(*unit == "seconds", name.ends_with("_seconds"), "{name}");
            let mut labels: Vec<_> = labels.iter().map(String::as_str).collect();
            labels.sort_by_key(|label| *label != "store");
            format!("| `{name}` | {kind} | {unit} | {} |", labels.join(", "))
        })
        .collect();
    assert_eq!(received.labels.len(), received.described.len());
    let document = include_str!("../../docs/observability.md");
    let rows =
        document.lines().filter(|line| line.starts_with("| `bitcask_") && line.contains("store"));
    let row = |row: &str| row.splitn(6, '|').take(5).collect::<Vec<_>>().join("|") + "|";
    let listed: BTreeSet<String> = rows.map(row).collect();
    assert_eq!(found, listed);
}

#[test]
fn totals_rise_by_what_was_done_and_go_on_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    let (recording, mut publisher) = (Recording::default(), MetricsPublisher::new("a"));
    for number in 0..1000_u32 {
        db.put(number.to_be_bytes(), [7; 10]).unwrap();
        db.get((number * 2).to_be_bytes()).unwrap();
    }
    db.sync().unwrap();
    publish(&mut publisher, &recording, &db);
    let hits = "bitcask_gets_total{store=a,result=hit}";
    let misses = "bitcask_gets_total{store=a,result=miss}";
    let puts = "bitcask_puts_total{store=a}";
    let total = |series| recording.counter(series);
    assert_eq!((total(puts), total(hits), total(misses)), (1000, 1, 999));
    assert_eq!(total("bitcask_read_bytes_total{store=a}"), 10);
    let counters = db.counters();
    assert_eq!(total("bitcask_written_bytes_total{store=a}"), counters.bytes_written);
    assert_eq!(total("bitcask_syncs_total{store=a}"), counters.syncs);

    // Durations: as many as were timed, and within an eighth of their sum.
    for (series, histogram) in [
        ("bitcask_get_duration_seconds{store=a}", &counters.get_latency),
        ("bitcask_write_duration_seconds{store=a}", &counters.write_latency),
        ("bitcask_sync_duration_seconds{store=a}", &counters.sync_latency),
    ] {
        let (count, sum) = recording.histogram(series);
        assert_eq!(count as u64, histogram.count());
        let exact = histogram.sum().as_secs_f64();
        let most = exact / 8.0 + 32e-9 * f64::from(u32::try_from(count).unwrap());
        assert!(count > 0 && (sum - exact).abs() <= most, "{series}: {sum} for {exact}");
    }

    // Nothing was done since.
    publish(&mut publisher, &recording, &db);
    assert_eq!((total(puts), total(hits)), (1000, 1));
    let (count, _) = recording.histogram("bitcask_write_duration_seconds{store=a}");
    assert_eq!(count as u64, counters.write_latency.count());
    db.delete(1_u32.to_be_bytes()).unwrap();
    db.merge_opt(MergeOptions::new().force(true)).unwrap();
    publish(&mut publisher, &recording, &db);
    assert_eq!((total(puts), total("bitcask_deletes_total{store=a}")), (1000, 1));
    assert_eq!(total("bitcask_merges_total{store=a}"), 1);
    assert_eq!(recording.histogram("bitcask_merge_duration_seconds{store=a}").0, 1);

    db.close().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    db.put("key", "value").unwrap();
    publish(&mut publisher, &recording, &db);
    assert_eq!((total(puts), total(hits), total(misses)), (1001, 1, 999));
    publish(&mut publisher, &recording, &db);
    assert_eq!(total(puts), 1001);
}

#[test]
fn gauges_are_the_figures_of_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = Bitcask::open(dir.path(), Options::default()).unwrap();
    let (recording, mut publisher) = (Recording::default(), MetricsPublisher::new("a"));
    publish(&mut publisher, &recording, &db);
    let gauge = |name: &str| recording.gauge(&format!("bitcask_{name}{{store=a}}"));
    assert_eq!((whole(gauge("keys")), whole(gauge("dead_bytes"))), (0, 0));
    db.put("key", "value").unwrap();
    db.put("key", "other").unwrap();
    let snapshot = db.snapshot();
    publish(&mut publisher, &recording, &db);
    let stats = db.stats();
    for (name, figure) in [
        ("keys", stats.keys),
        ("segments", stats.segments),
        ("segments_limit", stats.segments_limit),
        ("log_bytes", stats.log_size),
        ("live_bytes", stats.live_size),
        ("dead_bytes", stats.dead_size),
        ("keydir_bytes", stats.keydir_size),
        ("snapshots", 1),
    ] {
        assert_eq!(whole(gauge(name)), figure, "{name}");
    }
    assert!(gauge("dead_bytes") > 0.0 && gauge("oldest_snapshot_seconds") > 0.0);
    drop(snapshot);
    publish(&mut publisher, &recording, &db);
    assert_eq!((whole(gauge("snapshots")), whole(gauge("oldest_snapshot_seconds"))), (0, 0));
}
