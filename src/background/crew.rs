//! Threads that share work. A piece of work is run by one thread at a time.
//!
//! - A piece of work is a closure. It returns for how long it may rest, and is called again after
//!   that time, or when woken. The work is over when the closure returns `None` or its [`Worker`]
//!   is dropped.
//! - Of the threads that wait for work, one watches the time. The others sleep until they are
//!   needed.
//! - The threads end when the last handle to the crew has been dropped. Each piece of work holds a
//!   handle.
//! - A process that was forked from the one that started the threads takes no lock and waits for no
//!   thread. It never frees what the crew holds.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use super::queue::{GivenUp, Queue, Work, WorkId};
use crate::process::Opener;
use crate::sync::unmodeled::{Condvar, Mutex, MutexGuard};
use crate::sync::{Instant, current_thread};

/// Wakes a piece of work.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// The work, once a crew has it. Until then there is nothing to wake: new work runs
    /// immediately.
    work: OnceLock<(Arc<Shared>, WorkId)>,
    /// Whether `wake` was called, for tests that run the work themselves.
    #[cfg(test)]
    woken: std::sync::atomic::AtomicBool,
}

impl Signal {
    /// Makes the work run soon.
    pub(crate) fn wake(&self) {
        #[cfg(test)]
        self.woken.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some((crew, id)) = self.work.get() {
            crew.wake(*id);
        }
    }

    /// Returns whether `wake` was called since the last call; for tests that run the work
    /// themselves.
    #[cfg(test)]
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}

/// What the threads of a crew share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The process that has the threads.
    opener: Opener,
    /// Lock 8.
    state: Mutex<CrewState>,
    /// Wakes a thread that waits for work.
    changed: Condvar,
    /// Wakes threads that wait for the end of a piece of work.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct CrewState {
    queue: Queue,
    /// When the thread that watches the time wakes up.
    watched_until: Option<Instant>,
    /// Whether the threads end when no work is left.
    is_temporary: bool,
    /// Whether the last handle has been dropped.
    is_over: bool,
}

impl CrewState {
    /// Returns until when the calling thread has to watch the time, or `None` if another thread
    /// does.
    fn to_watch(&self) -> Option<Instant> {
        let next = self.queue.next_due()?;
        self.watched_until.is_none_or(|watched| next < watched).then_some(next)
    }
}

impl Shared {
    pub(super) fn new(opener: Opener) -> Arc<Self> {
        let (changed, ended) = (Condvar::default(), Condvar::default());
        Arc::new(Self { opener, state: Mutex::default(), changed, ended })
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("bitcask".to_owned()).spawn(|| shared.work())
    }

    /// Runs work until no more can come. Each thread runs this.
    pub(super) fn work(self: Arc<Self>) {
        while let Some((id, mut work)) = self.next() {
            // The work does not panic. If it did, the thread would still be needed by others.
            let rest = catch_unwind(AssertUnwindSafe(&mut work)).unwrap_or_else(|payload| {
                // Its destructor is the caller's, and may panic too.
                std::mem::forget(payload);
                None
            });
            if !self.opener.is_here() {
                // The work has forked, and this is the child's only thread. A thread that held the
                // lock at that time does not exist here.
                std::mem::forget((work, self));
                return;
            }
            self.put_back(id, work, rest);
        }
    }

    /// Waits for work. Returns `None` when the thread has to end.
    fn next(&self) -> Option<(WorkId, Work)> {
        let mut state = self.state.lock();
        loop {
            state.queue.wake_due(Instant::now());
            if let Some(next) = state.queue.take(current_thread()) {
                // While this thread is busy, another one has to do the remaining work, or watch the
                // time.
                if state.queue.has_ready() || state.to_watch().is_some() {
                    self.changed.notify_one();
                }
                return Some(next);
            }
            if state.is_over || state.is_temporary && state.queue.is_empty() {
                return None;
            }
            state = self.rest(state);
        }
    }

    /// Sleeps until there may be work.
    fn rest<'a>(&'a self, mut state: MutexGuard<'a, CrewState>) -> MutexGuard<'a, CrewState> {
        let Some(until) = state.to_watch() else { return self.changed.wait(state) };
        state.watched_until = Some(until);
        let mut state = self.changed.wait_until(state, until);
        // Another thread may have found something earlier to watch.
        state.watched_until.take_if(|watched| *watched == until);
        state
    }

    fn put_back(&self, id: WorkId, work: Work, rest: Option<Duration>) {
        let over = self.state.lock().queue.put_back(id, work, rest, Instant::now());
        let Some(over) = over else { return };
        // The closure may be the last to hold something of the caller, whose destructor may panic.
        drop(catch_unwind(AssertUnwindSafe(|| drop(over))));
        let mut state = self.state.lock();
        state.queue.end(id);
        self.ended.notify_all();
        if state.is_temporary {
            self.changed.notify_all();
        }
    }

    fn wake(&self, id: WorkId) {
        if self.opener.is_here() {
            let mut state = self.state.lock();
            state.queue.wake(id, Instant::now());
            if state.queue.has_ready() {
                self.changed.notify_one();
            }
        }
    }

    pub(super) fn add(self: &Arc<Self>, signal: &Signal, patience: Duration, work: Work) -> WorkId {
        let mut state = self.state.lock();
        let id = state.queue.add(work, patience, Instant::now());
        // A signal belongs to one piece of work, so it was not set before.
        let _ = signal.work.set((Arc::clone(self), id));
        self.changed.notify_one();
        id
    }

    /// Ends a piece of work. Returns when no thread runs it any more, unless the calling thread
    /// does.
    pub(super) fn give_up(&self, id: WorkId) {
        if !self.opener.is_here() {
            return;
        }
        let this = current_thread();
        let mut state = self.state.lock();
        loop {
            match state.queue.give_up(id, this) {
                GivenUp::Over(work) => {
                    // The closure's contents are dropped without the lock.
                    drop(state);
                    drop(work);
                    return;
                }
                // The work itself is ending the work, through a caller's function.
                GivenUp::Here => return,
                GivenUp::Elsewhere => state = self.ended.wait(state),
            }
        }
    }

    /// Makes the threads end when no work is left.
    pub(super) fn end_with_work(&self) {
        self.state.lock().is_temporary = true;
        self.changed.notify_all();
    }

    /// Makes the threads end. No work is left, except for pieces that are about to end.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }
}

/// A handle to a group of threads.
#[derive(Debug, Clone)]
pub(crate) struct Crew(Arc<Members>);

#[derive(Debug)]
struct Members {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts threads of this process.
    pub(super) fn start(opener: Opener, len: usize) -> io::Result<Self> {
        // If a thread can't be started, dropping this ends the others.
        let mut members = Members { shared: Shared::new(opener), threads: Vec::new() };
        for _ in 0..len {
            members.threads.push(members.shared.start_thread()?);
        }
        Ok(Self(Arc::new(members)))
    }

    /// Returns the number of threads.
    pub(super) fn len(&self) -> usize {
        self.0.threads.len()
    }

    /// Returns the process that started the threads.
    pub(super) fn opener(&self) -> Opener {
        self.0.shared.opener
    }

    /// Gives the threads a piece of work, which is ready immediately. More urgent work may overtake
    /// it until its patience ends.
    pub(crate) fn employ(
        &self,
        signal: &Signal,
        patience: Duration,
        work: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> Worker {
        let id = self.0.shared.add(signal, patience, Box::new(work));
        Worker { id, crew: self.clone() }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        if !self.shared.opener.is_surely_here() {
            std::mem::forget((threads, Arc::clone(&self.shared)));
            return;
        }
        self.shared.end();
        // Work that runs a caller's function may drop the last handle on a thread of the crew,
        // which can't join itself.
        let this = std::thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            // No thread of a crew panics; if one did, nothing remains to be done.
            let _ = thread.join();
        }
    }
}

/// A piece of work that a crew does. Dropping the `Worker` ends the work, and waits until no thread
/// runs it any more.
#[derive(Debug)]
pub(crate) struct Worker {
    id: WorkId,
    crew: Crew,
}

impl Worker {
    /// Starts a thread for this work alone, which ends with it.
    pub(crate) fn alone(
        signal: &Signal,
        work: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> io::Result<Self> {
        let crew = Crew::start(Opener::default(), 1)?;
        let worker = crew.employ(signal, Duration::ZERO, work);
        crew.0.shared.end_with_work();
        Ok(worker)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.crew.0.shared.give_up(self.id);
    }
}
