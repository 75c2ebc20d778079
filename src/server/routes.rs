//! All routes, and what stands before them.

use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::Router;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;

use super::failure::{self, ApiFailure};
use super::gate::gate;
use super::state::Shared;
use super::{meta, seeds, v1};

/// Returns the router of a server.
pub(super) fn router(state: &Shared) -> Router {
    // A page of another site must not change the store through the browser of someone who can
    // reach it. Programs send neither `Origin` nor `Sec-Fetch-Site`, and are not affected.
    let same_site = CsrfLayer::new().with_rejection_response(|_| {
        ApiFailure::forbidden("a page of another site may not change the store").into_response()
    });
    Router::new()
        .merge(seeds::routes())
        .merge(v1::routes())
        .merge(meta::routes())
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(same_site)
        .layer(CatchPanicLayer::custom(|_| failure::panicked()))
        .layer(from_fn_with_state(Arc::clone(state), gate))
        .with_state(Arc::clone(state))
}
