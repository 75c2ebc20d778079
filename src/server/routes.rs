//! All routes, and what stands before them.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::{CsrfLayer, ProtectionError};

use super::failure::{self, ApiFailure};
use super::gate::gate;
use super::state::SharedServer;
use super::{meta, seeds, v1};

/// Returns the router of a server.
pub(super) fn router(state: &SharedServer) -> Router {
    // A page of another site must not change the store through the browser of someone who can
    // reach it. Programs send neither `Origin` nor `Sec-Fetch-Site`, and are not affected.
    let same_site = CsrfLayer::new().with_rejection_response(|_: ProtectionError| {
        ApiFailure::forbidden("a page of another site may not change the store").into_response()
    });
    Router::new()
        .merge(seeds::routes())
        .merge(v1::routes())
        .merge(meta::routes())
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(same_site)
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| failure::panicked()))
        .layer(from_fn_with_state(Arc::clone(state), gate))
        .with_state(Arc::clone(state))
}
