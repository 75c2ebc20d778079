//! Answers other nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::messages::{MESSAGE_SIZE_MAX, PEER_PATH, PeerAnswer, PeerRequest, Recipient};

/// Time in which the head of a request has to arrive.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Time in which the rest of a request has to arrive. Nobody waits so long for the answer to a
/// large one.
const BODY_TIME: Duration = Duration::from_secs(60);

/// A node, as others ask it.
pub(crate) trait PeerNode: Send + Sync + 'static {
    /// Returns what others have to know to be answered.
    fn secret(&self) -> &str;

    /// Answers a request to a group, if it is for this node.
    fn answer(
        &self,
        recipient: Recipient,
        group: u64,
        request: PeerRequest,
    ) -> impl Future<Output = PeerAnswer> + Send;
}

/// Serves a connection until it ends.
pub(crate) async fn serve<P: PeerNode>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<P>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let peer = Arc::clone(&peer);
        async move { Ok::<_, io::Error>(respond(&*peer, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    // An error means that the other node is gone.
    drop(http.serve_connection(TokioIo::new(stream), service).await);
}

async fn respond<P: PeerNode>(peer: &P, request: Request<Incoming>) -> Response<Body> {
    let token = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let expected = format!("Bearer {}", peer.secret());
    let is_known = token.is_some_and(|token| bool::from(token.ct_eq(expected.as_bytes())));
    if !is_known {
        return refusal(StatusCode::UNAUTHORIZED, "the secret is not that of this cluster");
    }
    let group = request.uri().path().strip_prefix(PEER_PATH).and_then(|text| text.parse().ok());
    let Some(group) = group else { return refusal(StatusCode::NOT_FOUND, "there is no such path") };
    let body = axum::body::to_bytes(Body::new(request.into_body()), MESSAGE_SIZE_MAX);
    let Ok(body) = tokio::time::timeout(BODY_TIME, body).await else {
        return refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time");
    };
    let Ok(body) = body else {
        return refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request did not arrive, or is too large",
        );
    };
    let Ok((recipient, request)) = postcard::from_bytes(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "this version does not know the request");
    };
    match postcard::to_stdvec(&peer.answer(recipient, group, request).await) {
        Ok(answer) => Response::new(Body::from(answer)),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refusal(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(reason.to_owned()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Idle;

    impl PeerNode for Idle {
        fn secret(&self) -> &'static str {
            "secret"
        }

        async fn answer(&self, _: Recipient, _: u64, _: PeerRequest) -> PeerAnswer {
            PeerAnswer::Done
        }
    }

    /// Its connection would count among those that a node has at most.
    #[tokio::test(start_paused = true)]
    async fn a_request_whose_rest_never_arrives_is_not_waited_for() {
        let (mut client, node) = tokio::io::duplex(4096);
        let served = tokio::spawn(serve(node, Arc::new(Idle)));
        let head = format!(
            "POST {PEER_PATH}0 HTTP/1.1\r\nHost: bitcask\r\nAuthorization: Bearer secret\r\n\
             Content-Length: 100\r\n\r\npart"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        served.await.unwrap();
    }
}
