//! What stands before all routes: the request id, the access log, the limits and the token.

mod access;
pub(super) mod rate;
mod request_id;
mod token;

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;

use super::failure::ApiFailure;
use super::state::{ServerState, SharedServer};
use crate::dialect;
use access::AccessNote;

/// The address of a client, as an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The name under which the request id is returned, as bitcaskpy has it.
const REQUEST_ID: HeaderName = HeaderName::from_static(dialect::REQUEST_ID);

/// The paths that are open without a token. None of them shows anything of the store.
const OPEN: [&str; 5] = ["/health", "/docs", "/redoc", "/openapi.json", "/dashboard"];

/// The paths whose requests may take as long as they need.
const PATIENT: [&str; 3] = ["/v1/merge", "/v1/backup", "/v1/verify"];

/// Passes a request on to its route, unless it is refused.
pub(super) async fn gate(
    State(state): State<SharedServer>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id::of(request.headers());
    let peer = request.extensions().get::<Peer>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let note = AccessNote::begin(&request, &id, peer);
    // Also counts a request whose client gives up.
    let under_way = state.requests.begin();
    let mut response = match refusal(&state, &request, peer, route) {
        Some(refusal) => refusal.into_response(),
        None if route.is_some_and(|route| PATIENT.contains(&route)) => next.run(request).await,
        None => match timeout(state.options.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiFailure::timed_out().into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.header());
    // A stored value must never be taken for a page or a script.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(note) = note {
        note.end(response.status(), started.elapsed());
    }
    under_way.end(route, response.status(), started.elapsed());
    response
}

/// Returns why a request is refused before its route sees it.
fn refusal(
    state: &ServerState,
    request: &Request,
    peer: Option<Peer>,
    route: Option<&str>,
) -> Option<ApiFailure> {
    let is_health = route == Some("/health");
    if let (Some(rate), Some(Peer(address)), false) = (&state.rate, peer, is_health)
        && !rate.admits(address.ip(), Instant::now())
    {
        return Some(ApiFailure::too_many_requests());
    }
    let is_open = route.is_some_and(|route| OPEN.contains(&route));
    let token = state.options.token.as_deref().filter(|_| !is_open);
    if token.is_some_and(|token| !token::is_valid(request.headers(), token)) {
        return Some(ApiFailure::unauthorized());
    }
    None
}
