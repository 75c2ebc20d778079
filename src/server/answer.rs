//! Answers that are JSON and may be large: their memory counts, like that of bodies of requests,
//! until the client has received them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::reserve;
use super::failure::ApiFailure;
use super::state::ServerState;

/// Size of a piece of an answer, in bytes. An answer that is smaller takes none of the memory that
/// is counted: a connection's buffers are as large.
const PIECE_SIZE: usize = 32 << 10;

/// JSON that grows piece by piece, so that it is never copied as a whole.
pub(super) struct BoundedAnswer {
    pages: Arc<Semaphore>,
    memory: Option<OwnedSemaphorePermit>,
    whole: VecDeque<Bytes>,
    /// Size of `whole`, in bytes.
    size: usize,
    piece: Vec<u8>,
}

impl BoundedAnswer {
    pub(super) fn new(state: &ServerState) -> Self {
        Self::within(&state.body_pages)
    }

    fn within(pages: &Arc<Semaphore>) -> Self {
        let (whole, piece) = (VecDeque::new(), Vec::new());
        Self { pages: Arc::clone(pages), memory: None, whole, size: 0, piece }
    }

    /// Returns the answer that consists of this.
    pub(super) fn of<T: Serialize>(state: &ServerState, json: &T) -> Result<Response, ApiFailure> {
        let mut answer = Self::new(state);
        answer.add(json)?;
        Ok(answer.finish())
    }

    /// Adds a part. Only a lack of memory can prevent that.
    pub(super) fn add<T: Serialize>(&mut self, json: &T) -> Result<(), ApiFailure> {
        serde_json::to_writer(self, json).map_err(|_| ApiFailure::out_of_body_memory())
    }

    /// Adds the brackets and commas between parts.
    pub(super) fn text(&mut self, text: &str) -> Result<(), ApiFailure> {
        self.write_all(text.as_bytes()).map_err(|_| ApiFailure::out_of_body_memory())
    }

    /// Ends a piece that is full.
    fn end_piece(&mut self) -> io::Result<()> {
        let size = self.size + self.piece.len();
        let reserved = reserve(&self.pages, &mut self.memory, size as u64);
        reserved.map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.size = size;
        self.whole.push_back(std::mem::take(&mut self.piece).into());
        Ok(())
    }

    /// Returns the answer, which holds its memory until it has been sent.
    pub(super) fn finish(self) -> Response {
        let Self { mut whole, mut size, piece, memory, .. } = self;
        size += piece.len();
        if !piece.is_empty() {
            whole.push_back(piece.into());
        }
        let body = CountedBody { pieces: whole, left: size as u64, _memory: memory };
        let mut response = Response::new(Body::new(body));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

impl Write for BoundedAnswer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_SIZE {
            self.end_piece()?;
        }
        let room = PIECE_SIZE - self.piece.len();
        let part = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The pieces of an answer, and the permit of their memory.
struct CountedBody {
    pieces: VecDeque<Bytes>,
    /// Size of what has not been sent, in bytes.
    left: u64,
    /// Held until all has been sent, or the client has gone.
    _memory: Option<OwnedSemaphorePermit>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.pieces.pop_front() else { return Poll::Ready(None) };
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::state::PAGE_SIZE;

    #[test]
    fn a_large_answer_takes_memory_until_it_is_gone() {
        let size = 4 * PIECE_SIZE;
        let pages = Arc::new(Semaphore::new(size / usize::try_from(PAGE_SIZE).unwrap()));
        let all = pages.available_permits();
        let text = "x".repeat(size - 10);
        let mut first = BoundedAnswer::within(&pages);
        first.add(&text).unwrap();
        let first = first.finish();
        assert!(pages.available_permits() < all);
        assert_eq!(first.body().size_hint().exact(), Some(size as u64 - 8));
        let mut second = BoundedAnswer::within(&pages);
        assert_eq!(second.add(&text).unwrap_err().status.as_u16(), 503);
        drop(second);
        // A small one always has room.
        let mut small = BoundedAnswer::within(&pages);
        small.add(&"y").unwrap();
        small.text("!").unwrap();
        drop(first);
        assert_eq!(pages.available_permits(), all);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let small = runtime.block_on(axum::body::to_bytes(small.finish().into_body(), 100));
        assert_eq!(small.unwrap(), "\"y\"!");
    }
}
