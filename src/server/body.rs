//! The bodies of requests, each and all together within limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use futures_core::Stream as _;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::failure::ApiFailure;
use super::state::{INLINE_MAX, PAGE_SIZE, ServerState, SharedServer};
use crate::dialect::ITEMS_MAX;
use crate::value::Value;

/// A body, and the permit of its memory.
#[derive(Debug)]
pub(super) struct BoundedBody {
    pub(super) bytes: Bytes,
    /// Held until the request has been handled.
    _memory: Option<OwnedSemaphorePermit>,
}

/// Reads the whole body of a request, in the time that a request may take.
///
/// Memory is taken as the bytes arrive, so a client that announces much and sends little takes
/// little.
pub(super) async fn read(
    state: &ServerState,
    headers: &HeaderMap,
    body: Body,
) -> Result<BoundedBody, ApiFailure> {
    let gathered = timeout(state.options.request_timeout, gather(state, headers, body)).await;
    gathered.unwrap_or_else(|_| Err(ApiFailure::timed_out()))
}

async fn gather(
    state: &ServerState,
    headers: &HeaderMap,
    body: Body,
) -> Result<BoundedBody, ApiFailure> {
    let limit = state.options.body_size_limit;
    let too_large = || ApiFailure::body_too_large(limit);
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let mut body = body.into_data_stream();
    let (mut whole, mut memory) = (Bytes::new(), None);
    // Most bodies arrive in one piece, which is not copied.
    let mut joined: Vec<u8> = Vec::new();
    while let Some(piece) = next_piece(&mut body).await? {
        let size = (whole.len() + joined.len()) as u64 + piece.len() as u64;
        if size > limit {
            return Err(too_large());
        }
        reserve(&state.body_pages, &mut memory, size)?;
        if whole.is_empty() && joined.is_empty() {
            whole = piece;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut whole));
            joined.extend_from_slice(&piece);
        }
    }
    let bytes = if joined.is_empty() { whole } else { Bytes::from(joined) };
    Ok(BoundedBody { bytes, _memory: memory })
}

async fn next_piece(body: &mut BodyDataStream) -> Result<Option<Bytes>, ApiFailure> {
    let piece = std::future::poll_fn(|context| Pin::new(&mut *body).poll_next(context)).await;
    piece.transpose().map_err(|_| ApiFailure::cut_off())
}

/// Size from which the memory of a body or of an answer is counted, in bytes. What is smaller takes
/// no more than the buffers of its connection. So small requests are handled even while large ones
/// take all memory.
pub(super) const COUNTED_FROM: u64 = 32 << 10;

/// Takes memory for a body or an answer that has grown to this size.
pub(super) fn reserve(
    pages: &Arc<Semaphore>,
    held: &mut Option<OwnedSemaphorePermit>,
    size: u64,
) -> Result<(), ApiFailure> {
    if size < COUNTED_FROM {
        return Ok(());
    }
    let needed = usize::try_from(size.div_ceil(PAGE_SIZE)).unwrap_or(usize::MAX);
    let missing = needed.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
    if missing == 0 {
        return Ok(());
    }
    let missing = u32::try_from(missing).map_err(|_| ApiFailure::out_of_body_memory())?;
    let more = Arc::clone(pages).try_acquire_many_owned(missing);
    let more = more.map_err(|_| ApiFailure::out_of_body_memory())?;
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

/// How long a value waits for memory beside all others before it queues.
const QUEUED_AFTER: Duration = Duration::from_secs(10);

/// A value of a stream that waits for memory.
///
/// At first it takes what is left when there is enough. It may need most of the memory, and others
/// may never leave that much. So after a while it queues: whatever becomes free is kept for it, and
/// others are refused until it has its turn. That ends when those have gone that hold memory now.
pub(super) struct MemoryWait {
    pages: Arc<Semaphore>,
    size: u64,
    queues_from: Instant,
    turn: Option<Pin<Box<dyn Future<Output = PermitResult> + Send>>>,
}

type PermitResult = Result<OwnedSemaphorePermit, AcquireError>;

impl MemoryWait {
    /// Begins to wait for memory of this size, which `reserve_size` has refused.
    pub(super) fn new(state: &ServerState, size: u64) -> Self {
        let size = size.min(state.body_memory_max());
        Self::within(&state.body_pages, size, Instant::now() + QUEUED_AFTER)
    }

    fn within(pages: &Arc<Semaphore>, size: u64, queues_from: Instant) -> Self {
        Self { pages: Arc::clone(pages), size, queues_from, turn: None }
    }

    /// Returns the memory if it is there. Otherwise, the calling thread sleeps for this time.
    pub(super) fn wait(&mut self, time: Duration) -> Option<OwnedSemaphorePermit> {
        let memory = self.take();
        if memory.is_none() {
            std::thread::sleep(time);
        }
        memory
    }

    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        if Instant::now() < self.queues_from {
            let mut memory = None;
            return reserve(&self.pages, &mut memory, self.size).ok().and(memory);
        }
        let turn = self.turn.get_or_insert_with(|| {
            let needed = u32::try_from(self.size.div_ceil(PAGE_SIZE)).unwrap_or(u32::MAX);
            Box::pin(Arc::clone(&self.pages).acquire_many_owned(needed))
        });
        // Nothing has to wake the thread: it asks again.
        match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(memory) => memory.ok(),
            Poll::Pending => None,
        }
    }
}

/// Takes memory for a value until it is sent, unless it lies in a segment.
pub(super) fn reserve_value(
    state: &ServerState,
    held: &mut Option<OwnedSemaphorePermit>,
    value: &Value,
) -> Result<(), ApiFailure> {
    reserve_size(state, held, size_in_memory(value))
}

/// Takes memory for a value of this size until it is sent. A value that is larger than all memory
/// has to be sent at some time, too, so it counts as much as there is.
pub(super) fn reserve_size(
    state: &ServerState,
    held: &mut Option<OwnedSemaphorePermit>,
    size: u64,
) -> Result<(), ApiFailure> {
    reserve(&state.body_pages, held, size.min(state.body_memory_max()))
}

/// A value on its way to the client. If it takes memory of its own, that is counted as long as this
/// exists.
#[derive(Debug)]
pub(super) struct LentValue {
    value: Value,
    _memory: Option<OwnedSemaphorePermit>,
}

impl LentValue {
    /// Takes memory for a value, unless it is in what was taken before.
    pub(super) fn new(
        state: &ServerState,
        value: Value,
        mut memory: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, ApiFailure> {
        reserve_value(state, &mut memory, &value)?;
        Ok(Self { value, _memory: memory })
    }

    /// Returns the value, whose memory counts no more.
    pub(super) fn into_value(self) -> Value {
        self.value
    }
}

impl AsRef<[u8]> for LentValue {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

/// Returns how much memory a value takes, in bytes: none if it lies in a segment.
pub(super) fn size_in_memory(value: &Value) -> u64 {
    value.in_memory().map_or(0, |(_, size)| size as u64)
}

/// Returns whether a request says that its body is JSON, or does not say anything.
///
/// A page of another site can send a form without asking the browser for permission, but not JSON.
pub(super) fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.strip_prefix("application/").is_some_and(|rest| rest == "json" || rest.ends_with("+json"))
}

/// Reads a body that is JSON, in `/v1`. An empty body counts as `{}` there.
///
/// A large one is parsed on the pool: that takes a while, in which the thread that handles
/// connections could answer others.
pub(super) async fn read_json<T: DeserializeOwned + Send + 'static>(
    state: &SharedServer,
    headers: &HeaderMap,
    body: Body,
) -> Result<(T, BoundedBody), ApiFailure> {
    let body = read(state, headers, body).await?;
    if !body.bytes.is_empty() && !may_be_json(headers) {
        return Err(ApiFailure::invalid("the body has to be JSON, as application/json"));
    }
    if body.bytes.len() <= INLINE_MAX {
        return Ok((parsed(&body.bytes)?, body));
    }
    state.on_pool(move |_| Ok::<_, ApiFailure>((parsed(&body.bytes)?, body))).await
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiFailure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let reason = error.to_string();
        if reason.starts_with(TOO_MANY) {
            ApiFailure::too_many_items(ITEMS_MAX)
        } else {
            ApiFailure::invalid(format!("the body: {reason}"))
        }
    })
}

/// How the error of a list begins that is too long.
const TOO_MANY: &str = "too many items";

/// A list of at most [`ITEMS_MAX`] items. A longer one is refused before all of it is in memory.
#[derive(Debug)]
pub(super) struct BoundedList<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}

struct ListVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = BoundedList<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of at most {ITEMS_MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            if items.len() == ITEMS_MAX {
                return Err(A::Error::custom(TOO_MANY));
            }
            items.push(item);
        }
        Ok(BoundedList(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_refused_at_its_limit() {
        let list = |len: usize| format!("[{}]", vec!["1"; len].join(","));
        let read = |text: &str| serde_json::from_str::<BoundedList<u8>>(text);
        assert_eq!(read(&list(ITEMS_MAX)).unwrap().0.len(), ITEMS_MAX);
        assert!(read(&list(ITEMS_MAX + 1)).is_err());
        assert!(read("{}").is_err());
    }

    #[test]
    fn memory_is_taken_as_a_body_grows_and_returned_with_it() {
        let smallest = usize::try_from(COUNTED_FROM / PAGE_SIZE).unwrap();
        let pages = Arc::new(Semaphore::new(smallest + 1));
        let mut held = None;
        let sizes = [(1, smallest + 1), (COUNTED_FROM - 1, smallest + 1), (COUNTED_FROM, 1)];
        for (size, left) in sizes.into_iter().chain([(COUNTED_FROM + 1, 0)]) {
            reserve(&pages, &mut held, size).unwrap();
            assert_eq!(pages.available_permits(), left, "{size}");
        }
        assert!(reserve(&pages, &mut held, COUNTED_FROM + PAGE_SIZE + 1).is_err());
        // What is small needs none of it.
        reserve(&pages, &mut None, COUNTED_FROM - 1).unwrap();
        drop(held);
        assert_eq!(pages.available_permits(), smallest + 1);
    }

    #[test]
    fn a_value_that_needs_all_memory_gets_it_though_others_always_hold_some() {
        let pages = Arc::new(Semaphore::new(16));
        let size = 16 * PAGE_SIZE;
        for has_to_queue in [false, true] {
            let delay = Duration::from_secs(if has_to_queue { 0 } else { 3600 });
            let mut wait = MemoryWait::within(&pages, size, Instant::now() + delay);
            let take = |count| Arc::clone(&pages).try_acquire_many_owned(count).ok();
            // Each request ends after the next one has begun.
            let mut held = vec![take(1).unwrap()];
            let mut memory = None;
            for _ in 0..100 {
                memory = memory.or_else(|| wait.take());
                held.extend(take(1));
                drop(held.remove(0));
                if held.is_empty() {
                    break;
                }
            }
            memory = memory.or_else(|| wait.take());
            assert_eq!(memory.map(|it| it.num_permits()), has_to_queue.then_some(16));
            drop((held, wait));
            assert_eq!(pages.available_permits(), 16);
        }
        // A value that waits no more leaves what was kept for it.
        let held = Arc::clone(&pages).try_acquire_many_owned(1).unwrap();
        let mut wait = MemoryWait::within(&pages, size, Instant::now());
        assert!(wait.take().is_none() && pages.available_permits() == 0);
        drop((held, wait));
        assert_eq!(pages.available_permits(), 16);
    }

    #[test]
    fn a_form_is_not_json() {
        let kind = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            may_be_json(&headers)
        };
        assert!(may_be_json(&HeaderMap::new()));
        assert!(kind("application/json") && kind("Application/JSON; charset=utf-8"));
        assert!(kind("application/merge-patch+json"));
        assert!(!kind("text/plain") && !kind("application/x-www-form-urlencoded"));
        assert!(!kind("application/jsonx"));
    }
}
