//! One connection: HTTP/1.1, over TLS if that was chosen.
//!
//! HTTP/2 is left out: it lets one connection have any number of requests under way, and no client
//! of the dialects needs it.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

use super::gate::PeerAddress;
use super::patient::PatientStream;
use super::state::{ServerState, StopSignal};
use super::tls::TlsSetup;

/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 100;

/// What all connections share.
pub(super) struct ConnectionContext {
    router: Router,
    tls: Option<TlsSetup>,
    stop: StopSignal,
    http: http1::Builder,
    idle_timeout: Duration,
    write_timeout: Duration,
}

impl ConnectionContext {
    pub(super) fn new(router: Router, tls: Option<TlsSetup>, state: &ServerState) -> Self {
        let options = &state.options;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(options.idle_timeout)
            .max_buf_size(options.header_size_limit)
            .max_headers(HEADERS_MAX);
        let (idle_timeout, write_timeout) = (options.idle_timeout, options.write_timeout);
        Self { router, tls, stop: state.stop.clone(), http, idle_timeout, write_timeout }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: &ConnectionContext) {
    // Answers are written in one piece, and must not wait for more.
    let _ = stream.set_nodelay(true);
    let stream = PatientStream::new(stream, context.write_timeout);
    let Some(tls) = &context.tls else {
        return talk(stream, peer, context).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(context.idle_timeout, tls.accept(stream)) => shaken,
        () = context.stop.raised() => return,
    };
    match shaken {
        Ok(Ok(stream)) => talk(stream, peer, context).await,
        Ok(Err(error)) => {
            tracing::debug!(target: "bitcask::server", event = "tls_failed", %peer, error = %error);
        }
        Err(_) => tracing::debug!(target: "bitcask::server", event = "tls_timed_out", %peer),
    }
}

/// Answers the requests of a connection, one after the other.
async fn talk<S>(stream: S, peer: SocketAddr, context: &ConnectionContext)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = context.router.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddress(peer));
        router.clone().call(request)
    });
    let connection = context.http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        // A request that has arrived by now is read before the connection learns of the end.
        biased;
        ended = connection.as_mut() => ended,
        () = context.stop.raised() => {
            // The request under way is answered. Then the connection is closed.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: "bitcask::server", event = "connection_failed", %peer, error = %error);
    }
}
