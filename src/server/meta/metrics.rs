//! Metrics, in the text format of Prometheus.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::requests::RequestTotals;
use crate::error::Error;
use crate::figures::{COUNTERS, GAUGES, HISTOGRAMS, MetricUnit};
use crate::replica::Replica;
use crate::server::failure::ApiFailure;
use crate::server::state::{ServerState, SharedServer};
use crate::stats::Histogram;

/// Upper bounds of the buckets of durations, in microseconds.
const BOUNDS: [u64; 14] = [
    1, 4, 16, 64, 256, 1_000, 4_000, 16_000, 64_000, 250_000, 1_000_000, 4_000_000, 16_000_000,
    60_000_000,
];

/// Return the metrics of the store and of the server, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "server", operation_id = "metrics",
    responses((status = 200, description = "Metrics", body = String, content_type = "text/plain"))
)]
pub(in super::super) async fn metrics(
    State(state): State<SharedServer>,
) -> Result<Response, ApiFailure> {
    let page = state.on_pool(|state| Ok::<_, Error>(page(state))).await?;
    let mut response = page.into_response();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    Ok(response)
}

fn page(state: &ServerState) -> String {
    let mut page = MetricsPage::default();
    let (counters, sizes) = (state.db.counters(), state.db.stats());
    for metric in COUNTERS {
        page.describe(metric.name, "counter", metric.unit, metric.description);
        let labels = metric.label.map(|(name, value)| format!("{name}=\"{value}\""));
        page.sample(metric.name, labels.as_deref(), &(metric.read)(&counters).to_string());
    }
    for metric in GAUGES {
        page.describe(metric.name, "gauge", metric.unit, metric.description);
        page.sample(metric.name, None, &(metric.read)(&sizes).to_string());
    }
    for metric in HISTOGRAMS {
        page.describe(metric.name, "histogram", metric.unit, metric.description);
        page.histogram(metric.name, (metric.read)(&counters));
    }
    if let Some(replica) = state.replica() {
        page.replica(replica);
    }
    page.requests(&state.requests.totals());
    let connections = &state.connections;
    let name = "bitcask_http_connections";
    page.describe(name, "gauge", MetricUnit::Count, "Connections that are open.");
    page.sample(name, None, &connections.open_count().to_string());
    let name = "bitcask_http_connections_idle";
    page.describe(name, "gauge", MetricUnit::Count, "Open connections without a request.");
    page.sample(name, None, &connections.idle_count().to_string());
    let name = "bitcask_http_body_bytes";
    page.describe(name, "gauge", MetricUnit::Bytes, "Memory that the bodies of requests take.");
    page.sample(name, None, &state.body_memory().to_string());
    let name = "bitcask_server_uptime_seconds";
    page.describe(name, "gauge", MetricUnit::Seconds, "How long the server has been running.");
    page.sample(name, None, &state.started.elapsed().as_secs_f64().to_string());
    page.text
}

/// Writes the text. Writing to a string never fails.
#[derive(Debug, Default)]
struct MetricsPage {
    text: String,
    /// The metric that was described last. Those with labels stand next to each other.
    described: &'static str,
}

impl MetricsPage {
    fn describe(&mut self, name: &'static str, kind: &str, unit: MetricUnit, about: &str) {
        if self.described == name {
            return;
        }
        self.described = name;
        let _ = writeln!(self.text, "# HELP {name} {about}");
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
        let unit = match unit {
            MetricUnit::Count => return,
            MetricUnit::Bytes => "bytes",
            MetricUnit::Seconds => "seconds",
        };
        let _ = writeln!(self.text, "# UNIT {name} {unit}");
    }

    fn sample(&mut self, name: &str, labels: Option<&str>, value: &str) {
        let _ = match labels {
            None => writeln!(self.text, "{name} {value}"),
            Some(labels) => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram) {
        let buckets: Vec<(Duration, u64)> = histogram.buckets().collect();
        let bucket = format!("{name}_bucket");
        for micros in BOUNDS {
            let bound = Duration::from_micros(micros);
            let below = buckets.iter().filter(|(end, _)| *end <= bound);
            let count: u64 = below.map(|(_, count)| count).sum();
            let labels = format!("le=\"{}\"", bound.as_secs_f64());
            self.sample(&bucket, Some(&labels), &count.to_string());
        }
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        self.sample(&bucket, Some("le=\"+Inf\""), &count.to_string());
        let sum = histogram.sum().as_secs_f64().to_string();
        self.sample(&format!("{name}_sum"), None, &sum);
        self.sample(&format!("{name}_count"), None, &count.to_string());
    }

    fn replica(&mut self, replica: &Replica) {
        for (name, is_so, about) in [
            (
                "bitcask_replica_following",
                replica.is_follower(),
                "Whether the store follows a leader.",
            ),
            ("bitcask_replica_connected", replica.is_connected(), "Whether the leader answers."),
            (
                "bitcask_replica_loading",
                replica.is_loading(),
                "Whether the store may not be read yet.",
            ),
            (
                "bitcask_replica_stuck",
                replica.is_stuck(),
                "Whether the store cannot follow with its options.",
            ),
        ] {
            self.describe(name, "gauge", MetricUnit::Count, about);
            self.sample(name, None, if is_so { "1" } else { "0" });
        }
        self.replica_lag(replica);
        let name = "bitcask_replica_changes_total";
        let about = "Changes of the leader that were applied.";
        self.describe(name, "counter", MetricUnit::Count, about);
        self.sample(name, None, &replica.changes().to_string());
        let name = "bitcask_replica_resyncs_total";
        let about = "How many times all data was read from the leader.";
        self.describe(name, "counter", MetricUnit::Count, about);
        self.sample(name, None, &replica.resyncs().to_string());
        if let Some(reason) = replica.resync_reason() {
            let name = "bitcask_replica_resync_reason";
            self.describe(name, "gauge", MetricUnit::Count, "Why it was read last: always 1.");
            self.sample(name, Some(&format!("reason=\"{reason}\"")), "1");
        }
    }

    fn replica_lag(&mut self, replica: &Replica) {
        let Some(lag) = replica.lag() else { return };
        for (name, unit, value, about) in [
            (
                "bitcask_replica_lag_bytes",
                MetricUnit::Bytes,
                lag.size.to_string(),
                "Size of the changes that are missing.",
            ),
            (
                "bitcask_replica_lag_entries",
                MetricUnit::Count,
                lag.changes.to_string(),
                "Number of changes that are missing.",
            ),
            (
                "bitcask_replica_lag_seconds",
                MetricUnit::Seconds,
                lag.age.as_secs_f64().to_string(),
                "How long ago the store had everything, at most.",
            ),
        ] {
            self.describe(name, "gauge", unit, about);
            self.sample(name, None, &value);
        }
    }

    fn requests(&mut self, totals: &RequestTotals) {
        let name = "bitcask_http_requests_total";
        let about = "Requests answered, by route and status.";
        self.describe(name, "counter", MetricUnit::Count, about);
        for (route, statuses) in &totals.answers {
            for (status, count) in statuses {
                let labels = format!("route=\"{route}\",status=\"{status}\"");
                self.sample(name, Some(&labels), &count.to_string());
            }
        }
        let name = "bitcask_http_requests_under_way";
        self.describe(name, "gauge", MetricUnit::Count, "Requests that are not answered yet.");
        self.sample(name, None, &totals.under_way.to_string());
        let name = "bitcask_http_request_duration_seconds";
        let about = "How long it took until the answers to requests began.";
        self.describe(name, "histogram", MetricUnit::Seconds, about);
        self.histogram(name, &totals.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Recorder;

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let recorder = Recorder::default();
        for micros in [0, 3, 500, 2_000_000, 100_000_000] {
            recorder.record(Duration::from_micros(micros));
        }
        let mut histogram = Histogram::default();
        recorder.add_to(&mut histogram);
        let mut page = MetricsPage::default();
        page.histogram("d", &histogram);
        let count = |le: &str| {
            let start = format!("d_bucket{{le=\"{le}\"}} ");
            let line = page.text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap_or_else(|| panic!("{le} is missing in:\n{}", page.text)).to_owned()
        };
        let counts = ["0.000001", "0.000004", "0.001", "1", "4", "60", "+Inf"].map(count);
        assert_eq!(counts, ["1", "2", "3", "3", "4", "4", "5"]);
        assert!(page.text.contains("d_count 5\n"), "{}", page.text);
    }
}
