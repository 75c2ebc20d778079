//! What is about the server itself: health, metrics, the description of the API, and pages for
//! people.

mod document;
mod health;
mod metrics;
pub(super) mod pages;
pub(super) mod requests;
mod shapes;

use axum::Router;
use axum::routing::get;

use super::state::SharedServer;

/// Returns these routes.
pub(super) fn routes() -> Router<SharedServer> {
    Router::new()
        .route("/health", get(health::health))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(document::openapi))
        .route("/docs", get(pages::docs))
        .route("/redoc", get(pages::redoc))
        .route("/dashboard", get(pages::dashboard))
}
