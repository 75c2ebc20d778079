//! What waits to be sent to a client that has not asked for it: messages, and the order to leave.
//!
//! A client that does not read is disconnected once this much waits for it. The replies to its own
//! commands need no such limit: no further command runs before they are sent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::reply::{Protocol, Reply};
use super::reply_buffer::ReplySink;

/// Messages for one client.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Lock 0: the messages, encoded.
    waiting: Mutex<Vec<u8>>,
    /// Whether nothing waits. Set under the lock.
    is_empty: AtomicBool,
    /// Maximum number of bytes that may wait.
    limit: AtomicUsize,
    is_resp3: AtomicBool,
    /// Whether the connection has to end.
    is_ended: AtomicBool,
    /// Whether it ends because too much waited.
    is_full: AtomicBool,
    changed: Notify,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            is_empty: AtomicBool::new(true),
            limit: AtomicUsize::new(limit),
            is_resp3: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.is_resp3.store(protocol == Protocol::Resp3, Ordering::Release);
    }

    pub(super) fn protocol(&self) -> Protocol {
        if self.is_resp3.load(Ordering::Acquire) { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// Adds a message.
    pub(super) fn send(&self, message: &Reply) {
        let mut waiting = self.waiting();
        if self.is_ended.load(Ordering::Acquire) {
            return;
        }
        message.write(self.protocol(), &mut *waiting);
        if waiting.len() > self.limit.load(Ordering::Relaxed) {
            *waiting = Vec::new();
            self.is_full.store(true, Ordering::Release);
            self.is_ended.store(true, Ordering::Release);
        }
        self.is_empty.store(waiting.is_empty(), Ordering::Release);
        drop(waiting);
        self.changed.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Acquire)
    }

    /// Moves everything that waits to the end of `out`.
    pub(super) fn take_into(&self, out: &mut impl ReplySink) {
        if self.is_empty() {
            return;
        }
        let mut waiting = self.waiting();
        self.is_empty.store(true, Ordering::Release);
        let out = out.bytes();
        if out.is_empty() {
            std::mem::swap(out, &mut waiting);
        } else {
            out.append(&mut waiting);
        }
    }

    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Makes the connection end.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Waits until there is a message, or the connection has to end.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_that_waits_ends_the_connection() {
        let outbox = Outbox::new(100);
        let message = Reply::Push(vec![Reply::Text("message")]);
        let mut out = Vec::new();
        outbox.send(&message);
        outbox.take_into(&mut out);
        assert_eq!(out, b"*1\r\n$7\r\nmessage\r\n");
        outbox.set_protocol(Protocol::Resp3);
        for _ in 0..10 {
            outbox.send(&message);
        }
        assert!(outbox.is_ended() && outbox.is_full());
        assert_eq!(outbox.len(), 0);
    }
}
