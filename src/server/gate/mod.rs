//! What stands before all routes: the request id, the access log, the limits and the token.

mod access;
pub(super) mod host;
pub(super) mod rate;
mod request_id;
mod token;

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{FORWARDED, LOCATION, ORIGIN, VIA, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;

use super::failure::ApiFailure;
use super::state::{ServerState, SharedServer};
use crate::dialect;
use crate::replica::Replica;
use access::AccessNote;

/// The ends of a connection, as an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress {
    /// The address of the client.
    pub(super) client: SocketAddr,
    /// Whether the client has reached the server at a loopback address.
    pub(super) is_at_loopback: bool,
}

impl PeerAddress {
    /// Returns the ends of a connection. One whose end here is not known counts as the stricter
    /// one.
    pub(super) fn new(client: SocketAddr, server: Option<SocketAddr>) -> Self {
        let is_at_loopback = server.is_none_or(|it| it.ip().to_canonical().is_loopback());
        Self { client, is_at_loopback }
    }

    /// Returns whether a client is on this machine, and not only a proxy that speaks for others.
    pub(super) fn is_local(self, headers: &HeaderMap) -> bool {
        self.client.ip().to_canonical().is_loopback()
            && !PROXIED.iter().any(|name| headers.contains_key(name))
    }
}

/// The headers by which a proxy shows that it passes on a request of another machine.
const PROXIED: [HeaderName; 4] = [
    FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

/// The name under which the request id is returned, as bitcaskpy has it.
const REQUEST_ID: HeaderName = HeaderName::from_static(dialect::REQUEST_ID);

/// The paths that are open without a token. None of them shows anything of the store.
const OPEN: [&str; 5] = ["/health", "/docs", "/redoc", "/openapi.json", "/dashboard"];

/// The paths whose requests may take as long as they need.
const PATIENT: [&str; 4] = ["/v1/merge", "/v1/backup", "/v1/verify", "/v1/promote"];

/// The paths that are no writes, whatever their method: a follower has them too.
const NO_WRITES: [&str; 6] =
    ["/v1/get", "/v1/stop", "/v1/promote", "/v1/merge", "/v1/backup", "/v1/verify"];

/// The paths that show no data, so that they need not wait until a follower has all of it.
const NO_DATA: [&str; 5] = ["/metrics", "/v1/stop", "/v1/promote", "/v1/stats", "/v1/segments"];

/// The name under which a follower says where its leader is.
const LEADER: HeaderName = HeaderName::from_static("x-bitcask-leader");

/// Passes a request on to its route, unless it is refused.
pub(super) async fn gate(
    State(state): State<SharedServer>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id::of(request.headers());
    let peer = request.extensions().get::<PeerAddress>().copied();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let note = AccessNote::begin(&request, &id, peer);
    // Also counts a request whose client gives up.
    let under_way = state.requests.begin();
    let refused = refusal(&state, &request, peer, route).map(ApiFailure::into_response);
    let refused = refused.or_else(|| follower_refusal(&state, &request, route));
    let is_patient = route.is_some_and(|route| PATIENT.contains(&route));
    let entered = state.replica().map(Replica::enter);
    let is_loading = matches!(&entered, Some(None)) && route.is_some_and(shows_data);
    // A follower that replaces all of its data waits until this is dropped, and keeps readers out
    // meanwhile. So it does not wait for what takes long.
    let pass = entered.filter(|_| !is_patient);
    let mut response = match refused {
        Some(refusal) => refusal,
        None if is_loading => ApiFailure::loading().into_response(),
        None if is_patient => next.run(request).await,
        None => match timeout(state.options.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiFailure::timed_out().into_response(),
        },
    };
    drop(pass);
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
    peer: Option<PeerAddress>,
    route: Option<&str>,
) -> Option<ApiFailure> {
    if head_size(request) > state.options.header_size_limit {
        return Some(ApiFailure::headers_too_large(state.options.header_size_limit));
    }
    let is_health = route == Some("/health");
    if let (Some(rate), Some(peer), false) = (&state.rate, peer, is_health)
        && !rate.admits(peer.client.ip(), Instant::now())
    {
        return Some(ApiFailure::too_many_requests());
    }
    let is_open = route.is_some_and(|route| OPEN.contains(&route));
    let token = state.options.token.as_deref().filter(|_| !is_open);
    if token.is_some_and(|token| !token::is_valid(request.headers(), token)) {
        return Some(ApiFailure::unauthorized());
    }
    if state.options.token.is_none() && may_mislead(state, request, peer) {
        let detail = "without a token, the server has to be named `localhost` or by its address, \
                      such as 127.0.0.1; use one of these, or start it with a token";
        return Some(ApiFailure::forbidden(detail));
    }
    None
}

/// Returns whether a request may be of a page that has reached the server under a name of its own.
fn may_mislead(state: &ServerState, request: &Request, peer: Option<PeerAddress>) -> bool {
    let (target, headers) = (request.uri(), request.headers());
    if state.options.tls.is_some() {
        // The browser has seen by the certificate that the name is the server's.
        false
    } else if peer.is_none_or(|peer| peer.is_at_loopback) {
        !host::is_plain(target, headers)
    } else {
        // Programs may know the machine under any name, and browsers may read.
        is_of_page(headers) && !host::is_local(target, headers)
    }
}

/// Returns whether a page may have made a request, in a browser that says so. All of them say so if
/// a request may change something.
fn is_of_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Returns the size of a request's line and headers, in bytes. The HTTP implementation has a limit
/// of what it reads ahead, so that more may have arrived at once.
fn head_size(request: &Request) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    line + request.headers().iter().map(header).sum::<usize>() + "\r\n".len()
}

/// Returns whether a route shows something of the store.
fn shows_data(route: &str) -> bool {
    !OPEN.contains(&route) && !NO_DATA.contains(&route)
}

/// Returns the refusal of a write, if the server is a follower. It says where the leader is.
fn follower_refusal(
    state: &ServerState,
    request: &Request,
    route: Option<&str>,
) -> Option<Response> {
    let replica = state.replica().filter(|replica| replica.is_follower())?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_read || route.is_none_or(|route| NO_WRITES.contains(&route)) {
        return None;
    }
    let leader = replica.leader();
    let mut response = ApiFailure::follower(leader).into_response();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(leader).map(|leader| (LEADER, leader)));
    let there = HeaderValue::from_str(&format!("{leader}{target}"));
    headers.extend(there.map(|there| (LOCATION, there)));
    Some(response)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::options::Options;
    use crate::server::ServerOptions;
    use crate::store::Bitcask;

    /// A page can reach a server under a name of its own, also one that listens on all addresses.
    #[test]
    fn a_page_changes_nothing_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let db = std::sync::Arc::new(Bitcask::open(dir.path(), Options::new()).unwrap());
        let ask = |server: &str, host: &str, header: Option<(&str, &str)>, token: Option<&str>| {
            let options = ServerOptions::new();
            let options = token.into_iter().fold(options, ServerOptions::token);
            let state = ServerState::new(std::sync::Arc::clone(&db), options, None);
            let request = Request::builder().uri("/kv/k").header("host", host);
            let request =
                header.into_iter().fold(request, |it, (name, value)| it.header(name, value));
            let request = request.header("x-api-key", "secret").body(Body::empty()).unwrap();
            let client = "127.0.0.1:5000".parse().unwrap();
            let peer = PeerAddress::new(client, Some(server.parse().unwrap()));
            refusal(&state, &request, Some(peer), Some("/kv/{key}")).is_none()
        };
        let page = Some(("origin", "http://evil.example:8000"));
        for server in ["127.0.0.1:8000", "[::ffff:127.0.0.1]:8000", "[::1]:8000"] {
            assert!(!ask(server, "evil.example:8000", None, None));
            assert!(ask(server, "localhost:8000", page, None));
            assert!(ask(server, "evil.example:8000", page, Some("secret")));
        }
        let elsewhere = "192.0.2.1:8000";
        assert!(ask(elsewhere, "db:8000", None, None), "a program");
        for header in [page, Some(("sec-fetch-site", "same-origin"))] {
            assert!(!ask(elsewhere, "evil.example:8000", header, None));
            assert!(ask(elsewhere, elsewhere, header, None));
        }
    }
}
