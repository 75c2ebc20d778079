//! Makes what was written durable, for all groups of a node, and tells those that wait.
//!
//! - A thread syncs for all that wait, and for those that come meanwhile with its next sync.
//! - Whatever waits was written before it began to wait, so the next sync covers it.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::mistake::{Mistake, made};
use crate::store::Bitcask;
use crate::sync::{Condvar, Mutex};

/// What a sync returns to each that has waited for it.
pub(in crate::raft) type SyncResult = Result<(), Arc<Error>>;

/// Called when a sync has ended.
pub(in crate::raft) type Done = Box<dyn FnOnce(SyncResult) + Send>;

/// Those that wait, and the thread that syncs for them.
pub(in crate::raft) struct Syncing {
    queue: Arc<SyncQueue>,
    /// Whether a thread syncs. Otherwise each that comes syncs for itself.
    is_served: bool,
    thread: Option<JoinHandle<()>>,
}

struct SyncQueue {
    store: Arc<Bitcask>,
    /// Lock 0: those that wait. Not held during a sync.
    waiting: Mutex<Waiting>,
    come: Condvar,
}

#[derive(Default)]
struct Waiting {
    done: Vec<Done>,
    /// Whether nobody will come any more.
    is_over: bool,
}

impl Syncing {
    /// Starts the thread, if there is to be one.
    pub(super) fn start(store: &Arc<Bitcask>, has_thread: bool) -> Result<Self> {
        let queue = SyncQueue::new(store);
        let start = || {
            let queue = Arc::clone(&queue);
            let builder = std::thread::Builder::new().name("bitcask-raft-sync".into());
            builder.spawn(move || queue.run()).map_err(|source| Error::Threads { source })
        };
        let thread = has_thread.then(start).transpose()?;
        Ok(Self { queue, is_served: has_thread, thread })
    }

    /// Leaves it to the caller to run what the thread runs.
    #[cfg(all(test, shuttle))]
    pub(in crate::raft) fn served_by_caller(store: &Arc<Bitcask>) -> (Self, impl FnOnce() + use<>) {
        let queue = SyncQueue::new(store);
        let syncing = Self { queue: Arc::clone(&queue), is_served: true, thread: None };
        (syncing, move || queue.run())
    }

    /// Calls a function once everything written so far is durable, or when a sync has failed.
    pub(in crate::raft) fn then(&self, done: Done) {
        if !self.is_served {
            return done(self.queue.sync());
        }
        let mut waiting = self.queue.waiting.lock();
        if waiting.is_over {
            drop(waiting);
            let path = self.queue.store.path().into();
            return done(Err(Arc::new(Error::Panicked { path })));
        }
        waiting.done.push(done);
        drop(waiting);
        self.queue.come.notify_all();
    }
}

impl SyncQueue {
    fn new(store: &Arc<Bitcask>) -> Arc<Self> {
        let waiting = Mutex::new(Waiting::default());
        Arc::new(Self { store: Arc::clone(store), waiting, come: Condvar::default() })
    }

    fn sync(&self) -> SyncResult {
        if made(Mistake::RaftDoneBeforeSync) {
            return Ok(());
        }
        self.store.sync().map_err(Arc::new)
    }

    fn run(&self) {
        let _end = SyncEnd(self);
        loop {
            let mut waiting = self.waiting.lock();
            while waiting.done.is_empty() && !waiting.is_over {
                waiting = self.come.wait(waiting);
            }
            let served = std::mem::take(&mut waiting.done);
            drop(waiting);
            if served.is_empty() {
                return;
            }
            let result = self.sync();
            for done in served {
                done(result.clone());
            }
        }
    }
}

/// The end of the thread. If it has panicked, those that wait would wait for ever: what they have
/// left here is dropped, which tells them.
struct SyncEnd<'a>(&'a SyncQueue);

impl Drop for SyncEnd<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.is_over = true;
        let unserved = std::mem::take(&mut waiting.done);
        drop(waiting);
        drop(unserved);
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.queue.waiting.lock().is_over = true;
        self.queue.come.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it has panicked, those that wait have heard of it.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Syncing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Syncing").finish_non_exhaustive()
    }
}
