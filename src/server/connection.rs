//! One connection: HTTP/1.1, over TLS if that was chosen.
//!
//! HTTP/2 is left out: it lets one connection have any number of requests under way, and no client
//! of the dialects needs it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::EXPECT;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

use super::gate::PeerAddress;
use super::idle::{IdleConnections, OpenRequest, RegisteredConnection};
use super::patient::PatientStream;
use super::state::{ServerState, StopSignal};
use super::tls::TlsSetup;
use super::unread::IncomingBody;

/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 100;
/// Time in which a request that has arrived is noticed, before its connection counts as idle.
const NOTICED: Duration = Duration::from_millis(5);

/// What all connections share.
pub(super) struct ConnectionContext {
    router: Router,
    tls: Option<TlsSetup>,
    stop: StopSignal,
    pub(super) idle: Arc<IdleConnections>,
    http: http1::Builder,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// How long the rest of a body is read after an answer that came without it.
    discard_timeout: Duration,
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
        let (stop, idle) = (state.stop.clone(), Arc::clone(&state.connections));
        let discard_timeout = options.request_timeout;
        Self { router, tls, stop, idle, http, idle_timeout, write_timeout, discard_timeout }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    registered: RegisteredConnection,
    context: &ConnectionContext,
) {
    // Answers are written in one piece, and must not wait for more.
    let _ = stream.set_nodelay(true);
    let (client, peer) = (peer, PeerAddress::new(peer, stream.local_addr().ok()));
    let activity = Arc::clone(registered.activity());
    let stream = PatientStream::new(stream, context.write_timeout, activity);
    let Some(tls) = &context.tls else {
        return talk(stream, peer, registered, context).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(context.idle_timeout, tls.accept(stream)) => shaken,
        () = context.stop.raised() => return,
        () = registered.activity().told() => return,
    };
    match shaken {
        Ok(Ok(stream)) => talk(stream, peer, registered, context).await,
        Ok(Err(error)) => {
            tracing::debug!(target: "bitcask::server", event = "tls_failed", peer = %client, error = %error);
        }
        Err(_) => {
            tracing::debug!(target: "bitcask::server", event = "tls_timed_out", peer = %client);
        }
    }
}

/// Answers the requests of a connection, one after the other.
async fn talk<S>(
    stream: S,
    peer: PeerAddress,
    mut registered: RegisteredConnection,
    context: &ConnectionContext,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, router) = (peer.client, context.router.clone());
    let activity = Arc::clone(registered.activity());
    let (handled, discard_timeout) = (Arc::clone(&activity), context.discard_timeout);
    let service = service_fn(move |request: Request<Incoming>| {
        let under_way = OpenRequest::begin(&handled);
        // A client that sees a refusal before it is asked for the body does not send it.
        let waits = request.headers().contains_key(EXPECT);
        let mut request =
            request.map(|body| Body::new(IncomingBody::new(body, waits, discard_timeout)));
        request.extensions_mut().insert(peer);
        let answer = router.clone().call(request);
        async { answer.await.map(|answer| answer.map(|body| under_way.with_body(body))) }
    });
    let connection = context.http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = loop {
        tokio::select! {
            // A request that has arrived by now is read before the connection learns of the end.
            biased;
            ended = progress(connection.as_mut(), &mut registered, false) => break ended,
            () = context.stop.raised() => {
                // The request under way is answered. Then the connection is closed.
                connection.as_mut().graceful_shutdown();
                break progress(connection, &mut registered, true).await;
            }
            () = activity.told() => {
                let going_on = progress(connection.as_mut(), &mut registered, false);
                if let Ok(ended) = timeout(NOTICED, going_on).await {
                    break ended;
                }
                if registered.settle() {
                    return;
                }
                registered.decline();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: "bitcask::server", event = "connection_failed", peer = %client, error = %error);
    }
}

/// Lets a connection go on until it ends, and notes whether it is idle. If it has to end soon, it
/// does so as soon as it is idle.
async fn progress<C, E>(
    mut connection: Pin<&mut C>,
    registered: &mut RegisteredConnection,
    ends_soon: bool,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    std::future::poll_fn(|task| {
        let polled = connection.as_mut().poll(task);
        if polled.is_pending() && registered.settle() && ends_soon {
            return Poll::Ready(Ok(()));
        }
        polled
    })
    .await
}
