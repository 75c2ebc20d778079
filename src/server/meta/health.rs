//! Whether the server works, for load balancers and for the older programs' clients.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::state::SharedServer;

/// Whether the server works. It has the fields of both older programs.
#[derive(Debug, Serialize, ToSchema)]
pub(in super::super) struct HealthAnswer {
    /// `healthy`, or `unhealthy` if the store accepts no more writes.
    status: &'static str,
    version: &'static str,
    /// Always `pybitcask-server`, for the clients that look for it.
    service: &'static str,
}

/// Tell whether the server works. No token is needed.
#[utoipa::path(
    get, path = "/health", tag = "server", operation_id = "health",
    security(()),
    responses(
        (status = 200, description = "The server works", body = HealthAnswer),
        (status = 503, description = "The store accepts no more writes", body = HealthAnswer),
    )
)]
pub(in super::super) async fn health(
    State(state): State<SharedServer>,
) -> (StatusCode, Json<HealthAnswer>) {
    let (code, status) = if state.is_healthy() {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    };
    let (version, service) = (env!("CARGO_PKG_VERSION"), "pybitcask-server");
    (code, Json(HealthAnswer { status, version, service }))
}
