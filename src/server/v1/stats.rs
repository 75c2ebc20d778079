//! Figures: `/v1/stats` and `/v1/segments`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::server::failure::{ApiFailure, FailureBody};
use crate::server::query::QueryParameters;
use crate::server::state::{ServerState, SharedServer};
use crate::stats::{Counters, Histogram, SegmentStats, Stats};

/// The figures of the store and of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct StatsAnswer {
    /// Changes with each change of the store, as in `/v1/changes`.
    position: String,
    store: StoreFigures,
    done: DoneFigures,
    server: ServerFigures,
}

/// The sizes of the store. Sizes are in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct StoreFigures {
    /// Number of keys, including expired ones.
    keys: u64,
    segments: u64,
    sealed_segments: u64,
    segments_limit: u64,
    log_size: u64,
    live_size: u64,
    dead_size: u64,
    /// Share of the log that merges could free, from 0 to 1.
    dead_ratio: f64,
    keydir_size: u64,
    history_size: u64,
    snapshots: u64,
    pinned_size: u64,
    unfilled_shards: u64,
    is_merging: bool,
}

/// What the store has done since it was opened.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct DoneFigures {
    gets: u64,
    hits: u64,
    misses: u64,
    puts: u64,
    deletes: u64,
    conflicts: u64,
    bytes_read: u64,
    bytes_written: u64,
    syncs: u64,
    merges: u64,
    /// Of one in 128 gets.
    get_latency: LatencyFigures,
    /// Of one in 128 writes.
    write_latency: LatencyFigures,
    sync_latency: LatencyFigures,
    merge_latency: LatencyFigures,
}

/// How long something took, in seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct LatencyFigures {
    count: u64,
    mean: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// What the server does.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ServerFigures {
    version: &'static str,
    /// How long the server has been running, in seconds.
    uptime: f64,
    requests: u64,
    requests_under_way: u64,
    /// Requests that were answered with a status from 500.
    failures: u64,
    latency: LatencyFigures,
}

impl LatencyFigures {
    fn new(histogram: &Histogram) -> Self {
        let quantile = |share| histogram.quantile(share).as_secs_f64();
        Self {
            count: histogram.count(),
            mean: histogram.mean().as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: histogram.max().as_secs_f64(),
        }
    }
}

impl StoreFigures {
    fn new(stats: &Stats, is_merging: bool) -> Self {
        Self {
            keys: stats.keys,
            segments: stats.segments,
            sealed_segments: stats.sealed_segments,
            segments_limit: stats.segments_limit,
            log_size: stats.log_size,
            live_size: stats.live_size,
            dead_size: stats.dead_size,
            dead_ratio: stats.dead_ratio(),
            keydir_size: stats.keydir_size,
            history_size: stats.history_size,
            snapshots: stats.snapshots,
            pinned_size: stats.pinned_size,
            unfilled_shards: stats.unfilled_shards,
            is_merging,
        }
    }
}

impl DoneFigures {
    fn new(counters: &Counters) -> Self {
        Self {
            gets: counters.gets,
            hits: counters.hits,
            misses: counters.misses,
            puts: counters.puts,
            deletes: counters.deletes,
            conflicts: counters.conflicts,
            bytes_read: counters.bytes_read,
            bytes_written: counters.bytes_written,
            syncs: counters.syncs,
            merges: counters.merges,
            get_latency: LatencyFigures::new(&counters.get_latency),
            write_latency: LatencyFigures::new(&counters.write_latency),
            sync_latency: LatencyFigures::new(&counters.sync_latency),
            merge_latency: LatencyFigures::new(&counters.merge_latency),
        }
    }
}

impl StatsAnswer {
    fn new(state: &ServerState) -> Self {
        let requests = state.requests.totals();
        Self {
            position: state.db.position().to_string(),
            store: StoreFigures::new(&state.db.stats(), state.db.is_merging()),
            done: DoneFigures::new(&state.db.counters()),
            server: ServerFigures {
                version: env!("CARGO_PKG_VERSION"),
                uptime: state.started.elapsed().as_secs_f64(),
                requests: requests.requests,
                requests_under_way: requests.under_way,
                failures: requests.failures,
                latency: LatencyFigures::new(&requests.latency),
            },
        }
    }
}

/// Return the figures of the store and of the server.
#[utoipa::path(
    get, path = "/v1/stats", tag = "v1", operation_id = "v1_stats",
    responses((status = 200, description = "The figures", body = StatsAnswer))
)]
pub(in super::super) async fn stats(
    State(state): State<SharedServer>,
) -> Result<Json<StatsAnswer>, ApiFailure> {
    let answer = state.on_pool(|state| Ok::<_, Error>(StatsAnswer::new(state))).await?;
    Ok(Json(answer))
}

/// A page of segments.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct SegmentPage {
    segments: Vec<SegmentFigures>,
    /// The path of the next page, if there is one.
    next: Option<String>,
}

/// The figures of a sealed segment. Sizes are in bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct SegmentFigures {
    id: u32,
    entries: u64,
    size: u64,
    live_size: u64,
    /// Share of the segment that a merge could free, from 0 to 1.
    dead_ratio: f64,
    tombstone_size: u64,
    expired_size: u64,
    /// Whether a merge has written it.
    merged: bool,
    /// Whether it is kept for its history.
    history: bool,
}

impl SegmentFigures {
    fn new(segment: &SegmentStats) -> Self {
        Self {
            id: segment.id,
            entries: segment.entries,
            size: segment.size,
            live_size: segment.live_size,
            dead_ratio: segment.dead_ratio(),
            tombstone_size: segment.tombstone_size,
            expired_size: segment.expired_size,
            merged: segment.merged,
            history: segment.history,
        }
    }
}

/// Usual and largest number of segments on a page.
const PAGE_LEN: usize = 1000;
const PAGE_LEN_MAX: usize = 10_000;

/// List the sealed segments, oldest first, page by page.
#[utoipa::path(
    get, path = "/v1/segments", tag = "v1", operation_id = "v1_segments",
    params(
        ("skip" = Option<i32>, Query, description = "How many segments to skip", minimum = 0),
        ("limit" = Option<u32>, Query, description = "Number of segments, from 1 to 10,000", minimum = 1, maximum = 10000),
    ),
    responses(
        (status = 200, description = "A page of segments", body = SegmentPage),
        (status = 400, description = "A parameter is wrong", body = FailureBody),
    )
)]
pub(in super::super) async fn segments(
    State(state): State<SharedServer>,
    uri: Uri,
) -> Result<Json<SegmentPage>, ApiFailure> {
    let query = QueryParameters::read(&uri, &["skip", "limit"])?;
    let limit = query.limit(PAGE_LEN, PAGE_LEN_MAX)?;
    let skip = query.parsed::<i32>("skip")?.unwrap_or(0);
    let skip = usize::try_from(skip);
    let skip = skip.map_err(|_| ApiFailure::invalid("`skip` must not be negative"))?;
    let all = state.on_pool(|state| Ok::<_, Error>(state.db.segments())).await?;
    let page: Vec<_> = all.iter().skip(skip).take(limit).map(SegmentFigures::new).collect();
    let end = skip.saturating_add(page.len());
    let next = (end < all.len()).then(|| format!("/v1/segments?skip={end}&limit={limit}"));
    Ok(Json(SegmentPage { segments: page, next }))
}
