//! Bodies that a request was answered without: they are read and discarded.
//!
//! Most clients send their whole request before they look for an answer. If the connection were
//! closed meanwhile, they would fail to send, and never see why the request was refused.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Maximum size of what is discarded, in bytes.
const DISCARDED_MAX: u64 = 256 << 20;

/// The body of a request. When it is dropped, what has not been read is discarded.
pub(super) struct IncomingBody {
    /// `None` once nothing more has to be read.
    body: Option<Incoming>,
    /// Whether the client sends the body only once it is asked for.
    waits: bool,
    /// How long discarding may take.
    limit: Duration,
}

impl IncomingBody {
    pub(super) fn new(body: Incoming, waits: bool, limit: Duration) -> Self {
        Self { body: Some(body), waits, limit }
    }
}

impl HttpBody for IncomingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if !matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        let (false, Ok(runtime)) = (self.waits, Handle::try_current()) else { return };
        let limit = self.limit;
        // It ends early if the connection does.
        runtime.spawn(async move {
            let _ = timeout(limit, discard(body)).await;
        });
    }
}

async fn discard(mut body: Incoming) {
    let mut left = DISCARDED_MAX;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = left.checked_sub(size) else { return };
        left = rest;
    }
}
