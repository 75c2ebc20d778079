//! Whether the server works, for load balancers and for the older programs' clients.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::replica::Replica;
use crate::server::state::SharedServer;

/// Whether the server works. It has the fields of both older programs.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct HealthAnswer {
    /// `healthy`, or `unhealthy` if the store accepts no more writes, or `loading` while a follower
    /// has not all of its leader's data.
    status: &'static str,
    version: &'static str,
    /// Always `pybitcask-server`, for the clients that look for it.
    service: &'static str,
    /// Only if the server follows a leader, or did before it was promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    replication: Option<ReplicationFigures>,
}

/// How far a follower is.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct ReplicationFigures {
    /// `follower`, or `leader` once it was promoted.
    role: &'static str,
    /// `following`, or `disconnected` while the leader does not answer, `resyncing` while all data
    /// is being read again, `loading` while the store may not be read, or `stuck` if the store
    /// cannot follow with its options; `promoted` once it was.
    state: &'static str,
    leader: String,
    connected: bool,
    /// Whether all data is being read again.
    resyncing: bool,
    /// How many times all data was read, since the start.
    resyncs: u64,
    /// Why it was read last, or is being read: `new`, `history_gone`, `invalid_position` or
    /// `batch_too_large`.
    resync_reason: Option<&'static str>,
    /// Up to where the store has everything, in the leader's log.
    position: Option<String>,
    /// Size of the changes that are missing, in the leader's log.
    lag_bytes: Option<u64>,
    /// Number of changes that are missing.
    lag_entries: Option<u64>,
    /// How many seconds ago the store had everything, at most.
    lag_seconds: Option<f64>,
    /// What has failed last, if the store does not follow.
    error: Option<String>,
}

impl ReplicationFigures {
    fn new(replica: &Replica) -> Self {
        let lag = replica.lag();
        Self {
            role: if replica.is_follower() { "follower" } else { "leader" },
            state: state(replica),
            leader: replica.leader().to_owned(),
            connected: replica.is_connected(),
            resyncing: replica.is_resyncing(),
            resyncs: replica.resyncs(),
            resync_reason: replica.resync_reason(),
            position: replica.position().map(|position| position.to_string()),
            lag_bytes: lag.map(|lag| lag.size),
            lag_entries: lag.map(|lag| lag.changes),
            lag_seconds: lag.map(|lag| lag.age.as_secs_f64()),
            error: replica.last_error(),
        }
    }
}

/// Returns what a replica is doing, in one word.
fn state(replica: &Replica) -> &'static str {
    if !replica.is_follower() {
        "promoted"
    } else if replica.is_stuck() {
        "stuck"
    } else if replica.is_loading() {
        "loading"
    } else if replica.is_resyncing() {
        "resyncing"
    } else if replica.is_connected() {
        "following"
    } else {
        "disconnected"
    }
}

/// Tell whether the server works. No token is needed.
#[utoipa::path(
    get, path = "/health", tag = "server", operation_id = "health",
    security(()),
    responses(
        (status = 200, description = "The server works", body = HealthAnswer),
        (status = 503, description = "The store accepts no more writes, or a follower has not all data", body = HealthAnswer),
    )
)]
pub(in super::super) async fn health(
    State(state): State<SharedServer>,
) -> (StatusCode, Json<HealthAnswer>) {
    let replica = state.replica();
    let (code, status) = if replica.is_some_and(Replica::is_loading) {
        (StatusCode::SERVICE_UNAVAILABLE, "loading")
    } else if state.is_healthy() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let (version, service) = (env!("CARGO_PKG_VERSION"), "pybitcask-server");
    let replication = replica.map(ReplicationFigures::new);
    (code, Json(HealthAnswer { status, version, service, replication }))
}
