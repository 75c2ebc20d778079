//! The HTTP port of a node: keys, their changes, and what the node knows of the cluster.
//!
//! - A request for a key that another node leads is answered with 307 and the URL there.
//! - Values are strings of Redis, so both ports see the same keys.

mod changes;
mod keys;
mod pages;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower_service::Service as _;

use super::accepting::serve_each;
use super::error::ClusterError;
use super::network::PeerTransport;
use super::node::Node;
use crate::server::is_plain;

/// Time in which the head of a request has to arrive.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Time in which the body of a request has to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// What all requests share.
pub(super) struct HttpState<T> {
    node: Arc<Node<T>>,
    token: Option<Arc<str>>,
    /// Whether only programs of this machine reach the port.
    is_private: bool,
    /// Permits of those who follow the changes.
    streams: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl<T> Clone for HttpState<T> {
    fn clone(&self) -> Self {
        let (node, token) = (Arc::clone(&self.node), self.token.clone());
        let (streams, stop) = (Arc::clone(&self.streams), self.stop.clone());
        Self { node, token, is_private: self.is_private, streams, stop }
    }
}

/// Why a request is not answered.
#[derive(Debug)]
enum HttpFailure {
    /// Another node leads, at this address; the rest of the URL stays.
    Elsewhere(String),
    Status(StatusCode, String),
}

#[derive(Serialize)]
struct FailureText {
    detail: String,
}

impl HttpFailure {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::Status(status, detail.into())
    }

    /// Returns the answer. The URI is that of the request.
    fn into_response(self, uri: &Uri) -> Response {
        match self {
            Self::Elsewhere(address) => {
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let Ok(url) = HeaderValue::from_str(&format!("http://{address}{path}")) else {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                };
                let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
                response.headers_mut().insert(LOCATION, url);
                response
            }
            Self::Status(status, detail) => {
                (status, axum::Json(FailureText { detail })).into_response()
            }
        }
    }
}

impl<T: PeerTransport> HttpState<T> {
    /// Returns what a client is told of an error.
    fn failure(&self, error: &ClusterError) -> HttpFailure {
        let status = match error {
            ClusterError::NotLeader { leader } => {
                let map = self.node.map();
                let address = leader.and_then(|leader| map.nodes.get(&leader));
                if let Some(address) = address.map(|it| &it.http).filter(|it| !it.is_empty()) {
                    return HttpFailure::Elsewhere(address.clone());
                }
                StatusCode::SERVICE_UNAVAILABLE
            }
            ClusterError::Busy => StatusCode::TOO_MANY_REQUESTS,
            ClusterError::Unknown => StatusCode::GATEWAY_TIMEOUT,
            ClusterError::Refused(_) | ClusterError::ForeignPosition { .. } => {
                StatusCode::BAD_REQUEST
            }
            ClusterError::HistoryGone { .. } => StatusCode::GONE,
            ClusterError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
            ClusterError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        HttpFailure::new(status, error.to_string())
    }
}

fn router<T: PeerTransport>(state: HttpState<T>) -> Router {
    let keys = get(keys::read::<T>).put(keys::write::<T>).delete(keys::delete::<T>);
    Router::new()
        .route("/v1/keys/{*key}", keys)
        .route("/v1/changes", get(changes::follow::<T>))
        .route("/v1/cluster", get(pages::cluster::<T>))
        .route("/v1/cluster/nodes", get(pages::nodes::<T>))
        .route("/metrics", get(pages::metrics::<T>))
        .layer(from_fn_with_state(state.clone(), authorize::<T>))
        .route("/health", get(pages::health::<T>))
        .route("/dashboard", get(pages::dashboard))
        .with_state(state)
}

/// Lets requests through that have the token.
async fn authorize<T: PeerTransport>(
    State(state): State<HttpState<T>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(token) = &state.token {
        let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let expected = format!("Bearer {token}");
        if !given.is_some_and(|given| bool::from(given.ct_eq(expected.as_bytes()))) {
            let uri = request.uri();
            let detail = "the request needs the header `Authorization: Bearer` with the token";
            return HttpFailure::new(StatusCode::UNAUTHORIZED, detail).into_response(uri);
        }
    } else if state.is_private && !is_plain(request.uri(), request.headers()) {
        // A page of the web that the owner of this machine looks at may have sent it.
        let detail = "the node is reached as localhost or by an address, unless it has a token";
        return HttpFailure::new(StatusCode::FORBIDDEN, detail).into_response(request.uri());
    }
    next.run(request).await
}

/// Serves clients until the node is stopped.
pub(super) async fn run<T: PeerTransport>(
    listener: TcpListener,
    node: Arc<Node<T>>,
    token: Option<Arc<str>>,
    stop: watch::Receiver<bool>,
) {
    let is_private = listener.local_addr().is_ok_and(|it| it.ip().to_canonical().is_loopback());
    let (streams, stopping) = (Arc::new(Semaphore::new(changes::STREAMS_MAX)), stop.clone());
    let router = router(HttpState { node, token, is_private, streams, stop: stopping });
    serve_each(listener, stop, |stream| talk(stream, router.clone())).await;
}

/// Serves a connection until it ends.
async fn talk(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let answer = router.clone().call(request.map(Body::new));
        async move { answer.await.map_err(io::Error::other) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    // An error means that the client is gone.
    drop(http.serve_connection(TokioIo::new(stream), service).await);
}
