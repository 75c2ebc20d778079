//! Connections without a request: the one that has been idle for longest makes room for a new one
//! when there are too many, and none of them keeps a server that stops.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The connections of a server, and which of them are idle.
#[derive(Debug, Default)]
pub(super) struct IdleConnections {
    /// Number of open connections.
    open: AtomicU64,
    /// Lock 9: the connections without a request, in the order in which they became idle.
    queue: Mutex<IdleQueue>,
    /// Wakes the task that waits for a connection to become idle.
    joined: Notify,
    /// Wakes the task that has told a connection to end which has got a request meanwhile.
    declined: Notify,
}

#[derive(Debug, Default)]
struct IdleQueue {
    next_ticket: u64,
    /// By their tickets, so that the first one has been idle for longest.
    waiting: BTreeMap<u64, Arc<ConnectionActivity>>,
}

impl IdleConnections {
    /// Waits for the permit of a new connection. If there is none, ends idle connections.
    pub(super) async fn make_room(&self, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Some(permit);
        }
        let permit = Arc::clone(permits).acquire_owned();
        let mut permit = std::pin::pin!(permit);
        loop {
            let change = if self.end_longest() { &self.declined } else { &self.joined };
            tokio::select! {
                permit = permit.as_mut() => return permit.ok(),
                () = change.notified() => {}
            }
        }
    }

    /// Returns how many connections are open.
    pub(super) fn open_count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns how many of them are idle.
    pub(super) fn idle_count(&self) -> usize {
        self.with_queue(|queue| queue.waiting.len())
    }

    /// Tells the connection that has been idle for longest to end. Returns whether there is one.
    fn end_longest(&self) -> bool {
        let longest = self.with_queue(|queue| queue.waiting.pop_first());
        if let Some((_, activity)) = &longest {
            activity.told.notify_one();
        }
        longest.is_some()
    }

    fn with_queue<T>(&self, change: impl FnOnce(&mut IdleQueue) -> T) -> T {
        change(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a connection is doing. Only its own task changes that.
#[derive(Debug, Default)]
pub(super) struct ConnectionActivity {
    /// Number of requests that have begun.
    begun: AtomicU64,
    /// Number of requests whose answers have been handed over to the connection.
    ended: AtomicU64,
    /// Whether a part of an answer waits for the client.
    is_writing: AtomicBool,
    told: Notify,
}

impl ConnectionActivity {
    /// Notes whether a write waits for the client.
    pub(super) fn set_writing(&self, is_writing: bool) {
        self.is_writing.store(is_writing, Ordering::Relaxed);
    }

    /// Waits for the order to end the connection. A request may have arrived before it does.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    fn is_idle(&self) -> bool {
        let begun = self.begun.load(Ordering::Relaxed);
        begun == self.ended.load(Ordering::Relaxed) && !self.is_writing.load(Ordering::Relaxed)
    }
}

/// A connection as the registry knows it. Dropping this ends that.
pub(super) struct RegisteredConnection {
    registry: Arc<IdleConnections>,
    activity: Arc<ConnectionActivity>,
    /// The ticket, and the number of requests when the connection got it, while it is idle.
    ticket: Option<(u64, u64)>,
}

impl RegisteredConnection {
    /// Registers a new connection, which is idle.
    pub(super) fn new(registry: &Arc<IdleConnections>) -> Self {
        let (registry, activity) = (Arc::clone(registry), Arc::default());
        registry.open.fetch_add(1, Ordering::Relaxed);
        let mut this = Self { registry, activity, ticket: None };
        this.settle();
        this
    }

    pub(super) fn activity(&self) -> &Arc<ConnectionActivity> {
        &self.activity
    }

    /// Notes whether the connection is idle now, after it has done all that it can do. Returns
    /// that.
    pub(super) fn settle(&mut self) -> bool {
        if !self.activity.is_idle() {
            self.leave();
            return false;
        }
        let requests = self.activity.begun.load(Ordering::Relaxed);
        if self.ticket.is_some_and(|(_, seen)| seen == requests) {
            return true;
        }
        self.leave();
        let number = self.registry.with_queue(|queue| {
            let number = queue.next_ticket;
            queue.next_ticket += 1;
            queue.waiting.insert(number, Arc::clone(&self.activity));
            number
        });
        self.ticket = Some((number, requests));
        self.registry.joined.notify_one();
        true
    }

    /// Says that the connection does not end, since it has got a request.
    pub(super) fn decline(&self) {
        self.registry.declined.notify_one();
    }

    fn leave(&mut self) {
        if let Some((number, _)) = self.ticket.take() {
            self.registry.with_queue(|queue| queue.waiting.remove(&number));
        }
    }
}

impl Drop for RegisteredConnection {
    fn drop(&mut self) {
        self.leave();
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is under way until this is dropped.
pub(super) struct OpenRequest(Arc<ConnectionActivity>);

impl OpenRequest {
    pub(super) fn begin(activity: &Arc<ConnectionActivity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    /// Lets the request last until all of its answer has been handed over to the connection.
    pub(super) fn with_body(self, body: Body) -> AnswerBody {
        AnswerBody { body, _under_way: self }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of an answer, whose request is under way.
pub(super) struct AnswerBody {
    body: Body,
    _under_way: OpenRequest,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
