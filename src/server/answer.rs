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
use memmap2::MmapMut;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::reserve;
use super::failure::ApiFailure;
use super::state::{PAGE_SIZE, ServerState};

/// Size of the first piece of an answer, in bytes. An answer that is not larger takes none of the
/// memory that is counted: a connection's buffers are as large.
const FIRST_PIECE_SIZE: usize = 32 << 10;
/// Maximum size of a further piece, in bytes.
const PIECE_SIZE_MAX: usize = 256 << 10;

/// Maximum number of bytes that JSON takes for one byte of a value.
const ESCAPED_SIZE: u64 = 6;
/// Maximum size of the names and signs around a key and its value, in bytes.
const NAMES_SIZE_MAX: u64 = 128;
/// Size of what may follow the last value of an answer, such as the path of the next page, in
/// bytes.
const END_SIZE_MAX: u64 = 96 << 10;

/// A piece of an answer while it is written, and then on its way.
enum JsonPiece {
    /// The first piece, which most answers do not fill.
    First(Vec<u8>),
    /// A further piece, and how much of it is written. It is mapped on its own, so that its memory
    /// goes back to the system with it. An allocator would keep the pieces of a large answer for
    /// the thread that has written them, and so again for each thread of the pool.
    Further(MmapMut, usize),
}

impl JsonPiece {
    fn further(size: usize) -> io::Result<Self> {
        Ok(Self::Further(MmapMut::map_anon(size)?, 0))
    }

    fn is_full(&self) -> bool {
        match self {
            Self::First(bytes) => bytes.len() == FIRST_PIECE_SIZE,
            Self::Further(map, len) => *len == map.len(),
        }
    }

    /// Adds as many bytes as there is room for. Returns how many these are.
    fn add(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::First(piece) => {
                let part = bytes.get(..FIRST_PIECE_SIZE - piece.len()).unwrap_or(bytes);
                piece.extend_from_slice(part);
                part.len()
            }
            Self::Further(map, len) => {
                let room = map.get_mut(*len..).unwrap_or_default();
                let size = room.len().min(bytes.len());
                let (target, _) = room.split_at_mut(size);
                target.copy_from_slice(bytes.split_at(size).0);
                *len += size;
                size
            }
        }
    }
}

impl AsRef<[u8]> for JsonPiece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::First(bytes) => bytes,
            Self::Further(map, len) => map.get(..*len).unwrap_or_default(),
        }
    }
}

/// JSON that grows piece by piece, so that it is never copied as a whole.
pub(super) struct BoundedAnswer {
    pages: Arc<Semaphore>,
    /// Size of all memory for bodies and answers, in bytes. No answer can have more.
    limit: u64,
    memory: Option<OwnedSemaphorePermit>,
    whole: VecDeque<Bytes>,
    /// Size of `whole`, in bytes.
    size: usize,
    piece: JsonPiece,
}

impl BoundedAnswer {
    pub(super) fn new(state: &ServerState) -> Self {
        Self::within(&state.body_pages, state.body_memory_max())
    }

    fn within(pages: &Arc<Semaphore>, limit: u64) -> Self {
        let (pages, piece) = (Arc::clone(pages), JsonPiece::First(Vec::new()));
        Self { pages, limit, memory: None, whole: VecDeque::new(), size: 0, piece }
    }

    /// Returns the answer that consists of this.
    pub(super) fn of<T: Serialize>(state: &ServerState, json: &T) -> Result<Response, ApiFailure> {
        let mut answer = Self::new(state);
        answer.add(json)?;
        Ok(answer.finish())
    }

    /// Returns the answer that consists of this, which has a value. One that can never have the
    /// memory that it needs is refused before it takes any.
    pub(super) fn of_value<T: Serialize>(
        state: &ServerState,
        value: &[u8],
        json: &T,
    ) -> Result<Response, ApiFailure> {
        let mut answer = Self::new(state);
        if (value.len() as u64).saturating_mul(ESCAPED_SIZE) > answer.limit {
            let size = encoded_size(json);
            if size > answer.limit {
                return Err(ApiFailure::answer_too_large(answer.limit));
            }
            reserve(&answer.pages, &mut answer.memory, size)?;
        }
        answer.add(json)?;
        Ok(answer.finish())
    }

    /// Returns whether a part with a key and a value can be added, and the end of the answer after
    /// it, if no other answer takes the memory.
    pub(super) fn has_room_for<T: Serialize>(&self, key: &[u8], value: &[u8], json: &T) -> bool {
        let taken = (self.size + self.piece.as_ref().len()) as u64 + END_SIZE_MAX;
        let left = self.limit.saturating_sub(taken);
        let size = key.len() as u64 + value.len() as u64;
        let size_max = size.saturating_mul(ESCAPED_SIZE).saturating_add(NAMES_SIZE_MAX);
        // JSON takes at least one byte for each byte of a value.
        size_max <= left || size <= left && encoded_size(json) <= left
    }

    /// Adds a part. Only a lack of memory can prevent that.
    pub(super) fn add<T: Serialize>(&mut self, json: &T) -> Result<(), ApiFailure> {
        let limit = self.limit;
        serde_json::to_writer(self, json).map_err(|error| refusal(error.io_error_kind(), limit))
    }

    /// Adds the brackets and commas between parts.
    pub(super) fn text(&mut self, text: &str) -> Result<(), ApiFailure> {
        let limit = self.limit;
        self.write_all(text.as_bytes()).map_err(|error| refusal(Some(error.kind()), limit))
    }

    /// Ends a piece that is full, and begins the next one, whose memory it takes. Pieces grow with
    /// the answer, so that little memory is taken in vain.
    fn begin_piece(&mut self) -> io::Result<()> {
        let written = self.size + self.piece.as_ref().len();
        let left = self.limit.saturating_sub(written as u64);
        let size = written.clamp(FIRST_PIECE_SIZE, PIECE_SIZE_MAX);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        if size == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // An answer whose memory was taken beforehand needs no more of it.
        let size = match self.held().saturating_sub(written) {
            0 => size,
            rest => rest.min(size),
        };
        let reserved = reserve(&self.pages, &mut self.memory, (written + size) as u64);
        reserved.map_err(|_| io::ErrorKind::OutOfMemory)?;
        let full = std::mem::replace(&mut self.piece, JsonPiece::further(size)?);
        self.size = written;
        self.whole.push_back(Bytes::from_owner(full));
        Ok(())
    }

    /// Returns how many bytes the memory holds that was taken.
    fn held(&self) -> usize {
        let pages = self.memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        pages.saturating_mul(usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX))
    }

    /// Returns the answer, which holds its memory until it has been sent.
    pub(super) fn finish(self) -> Response {
        let Self { mut whole, mut size, piece, mut memory, .. } = self;
        size += piece.as_ref().len();
        if !piece.as_ref().is_empty() {
            whole.push_back(Bytes::from_owner(piece));
        }
        if let Some(memory) = &mut memory {
            let pages = usize::try_from((size as u64).div_ceil(PAGE_SIZE)).unwrap_or(usize::MAX);
            // The rest of the last piece, which was never touched.
            drop(memory.split(memory.num_permits().saturating_sub(pages)));
        }
        let body = CountedBody { pieces: whole, left: size as u64, _memory: memory };
        let mut response = Response::new(Body::new(body));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// Returns why a part could not be added.
fn refusal(kind: Option<io::ErrorKind>, limit: u64) -> ApiFailure {
    match kind {
        Some(io::ErrorKind::FileTooLarge) => ApiFailure::answer_too_large(limit),
        _ => ApiFailure::out_of_body_memory(),
    }
}

impl Write for BoundedAnswer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.is_full() {
            self.begin_piece()?;
        }
        Ok(self.piece.add(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts the bytes that are written, and keeps none of them.
struct SizeWriter(u64);

impl Write for SizeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns how many bytes JSON takes.
fn encoded_size<T: Serialize>(json: &T) -> u64 {
    let mut size = SizeWriter(0);
    // What is sent here can always be written as JSON.
    let written = serde_json::to_writer(&mut size, json);
    written.map_or(u64::MAX, |()| size.0)
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

    fn pages_of(size: usize) -> (Arc<Semaphore>, u64) {
        let pages = Semaphore::new(size / usize::try_from(PAGE_SIZE).unwrap());
        (Arc::new(pages), size as u64)
    }

    #[test]
    fn a_large_answer_takes_memory_until_it_is_gone() {
        let size = 4 * PIECE_SIZE_MAX;
        let (pages, limit) = pages_of(size);
        let all = pages.available_permits();
        let text = "x".repeat(size / 2);
        let mut first = BoundedAnswer::within(&pages, limit);
        first.add(&text).unwrap();
        let first = first.finish();
        // No more than it needs.
        assert_eq!(pages.available_permits(), all / 2 - 1);
        assert_eq!(first.body().size_hint().exact(), Some(size as u64 / 2 + 2));
        let mut second = BoundedAnswer::within(&pages, limit);
        assert_eq!(second.add(&text).unwrap_err().status.as_u16(), 503);
        drop(second);
        // A small one always has room.
        let mut small = BoundedAnswer::within(&pages, limit);
        small.add(&"y").unwrap();
        small.text("!").unwrap();
        drop(first);
        assert_eq!(pages.available_permits(), all);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let small = runtime.block_on(axum::body::to_bytes(small.finish().into_body(), 100));
        assert_eq!(small.unwrap(), "\"y\"!");
    }

    #[test]
    fn an_answer_that_takes_all_memory_is_whole_and_a_larger_one_is_refused_for_good() {
        let size = (3 * PIECE_SIZE_MAX) + FIRST_PIECE_SIZE / 2;
        let (pages, limit) = pages_of(size);
        let text: String = ('a'..='z').cycle().take(size - 2).collect();
        let mut answer = BoundedAnswer::within(&pages, limit);
        answer.add(&text).unwrap();
        let body = answer.finish().into_body();
        assert_eq!(pages.available_permits(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(axum::body::to_bytes(body, usize::MAX)).unwrap();
        assert_eq!(body, format!("\"{text}\""));
        drop(body);
        let mut larger = BoundedAnswer::within(&pages, limit);
        assert_eq!(larger.add(&format!("{text}!")).unwrap_err().status.as_u16(), 413);
        drop(larger);
        let mut rest = BoundedAnswer::within(&pages, limit);
        rest.add(&text.get(..size - 3).unwrap()).unwrap();
        assert_eq!(rest.text("!!").unwrap_err().status.as_u16(), 413);
    }

    #[test]
    fn an_answer_whose_memory_was_taken_needs_no_more() {
        let (pages, limit) = pages_of(8 * PIECE_SIZE_MAX);
        let text = "x".repeat(5 * PIECE_SIZE_MAX / 2);
        let mut answer = BoundedAnswer::within(&pages, limit);
        reserve(&pages, &mut answer.memory, text.len() as u64 + 2).unwrap();
        let left = pages.available_permits();
        let others = pages.try_acquire_many(u32::try_from(left).unwrap()).unwrap();
        answer.add(&text).unwrap();
        let body = answer.finish().into_body();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64 + 2));
        drop((body, others));
        assert_eq!(pages.available_permits() as u64 * PAGE_SIZE, limit);
    }

    #[test]
    fn the_memory_of_a_large_answer_is_not_the_allocators() {
        let (pages, limit) = pages_of(4 * PIECE_SIZE_MAX);
        let mut answer = BoundedAnswer::within(&pages, limit);
        answer.add(&"x".repeat(2 * PIECE_SIZE_MAX)).unwrap();
        // Mappings begin at the beginning of a page. What an allocator returns does not: before it
        // lies what the allocator notes about it.
        let is_mapped = |bytes: &Bytes| (bytes.as_ptr().addr() as u64).is_multiple_of(PAGE_SIZE);
        assert!(answer.whole.len() > 3);
        assert!(answer.whole.iter().skip(1).all(is_mapped));
    }

    #[test]
    fn the_size_of_json_is_known_before_it_is_written() {
        let (pages, limit) = pages_of(1 << 20);
        let answer = BoundedAnswer::within(&pages, limit);
        let left = usize::try_from(limit - END_SIZE_MAX).unwrap();
        let fits = |text: &str| answer.has_room_for(b"", text.as_bytes(), &text);
        assert!(fits(&"x".repeat(left - 2)) && !fits(&"x".repeat(left - 1)));
        assert!(fits(&"\x01".repeat((left - 2) / 6)) && !fits(&"\x01".repeat(left / 6 + 1)));
    }

    #[test]
    fn a_value_has_no_room_where_its_key_takes_too_much_of_it() {
        let (pages, limit) = pages_of(1 << 20);
        let left = usize::try_from(limit - END_SIZE_MAX).unwrap();
        let key = "\x01".repeat(60_000);
        // The brackets, the comma and the quotes of the two.
        let most = (left - 7) / 6 - key.len();
        for (len, has_room) in [(most, true), (most + 1, false), (left / 6, false)] {
            let mut answer = BoundedAnswer::within(&pages, limit);
            let value = "\x01".repeat(len);
            let listed = (&key, &value);
            assert_eq!(answer.has_room_for(key.as_bytes(), value.as_bytes(), &listed), has_room);
            if has_room {
                answer.add(&listed).unwrap();
            }
        }
    }
}
