//! Syncs that many connections share.
//!
//! - A connection whose writes have to be durable waits here, without a thread of its own. One
//!   thread syncs for all that wait, and for those that come meanwhile with its next sync.
//! - All connections that a sync has served send their next commands at about the same time. So the
//!   thread waits for as many as last time, but not for long: otherwise every second sync would
//!   serve only the first few.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::error::Error;
use crate::store::Bitcask;

/// Maximum time that a sync waits for more connections. It never waits for longer than half of what
/// the last sync took.
const GATHER_MAX: Duration = Duration::from_millis(1);

/// What a sync returns to each connection.
type Synced = Result<(), Arc<Error>>;

#[derive(Debug, Default)]
struct SyncerState {
    waiting: Vec<oneshot::Sender<Synced>>,
    /// Whether a thread syncs, and will look for more.
    is_running: bool,
    /// Number of connections that the thread waits for.
    wanted: usize,
}

/// The connections that wait for a sync of one store.
#[derive(Debug, Default)]
pub(super) struct Syncer {
    /// Lock 0: the connections that wait. Not held during a sync.
    state: Mutex<SyncerState>,
    come: Condvar,
}

impl Syncer {
    fn state(&self) -> MutexGuard<'_, SyncerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. Returns whether a thread has to be started for it.
    fn join(&self, done: oneshot::Sender<Synced>) -> bool {
        let mut state = self.state();
        state.waiting.push(done);
        if state.is_running && state.waiting.len() >= state.wanted {
            self.come.notify_one();
        }
        !std::mem::replace(&mut state.is_running, true)
    }

    /// Syncs until nobody waits.
    fn run(&self, store: &Bitcask) {
        let mut took = Duration::ZERO;
        loop {
            let mut state = self.state();
            let until = Instant::now() + GATHER_MAX.min(took / 2);
            while state.waiting.len() < state.wanted {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let result = self.come.wait_timeout(state, left);
                state = result.unwrap_or_else(PoisonError::into_inner).0;
            }
            let served = std::mem::take(&mut state.waiting);
            if served.is_empty() {
                (state.is_running, state.wanted) = (false, 0);
                return;
            }
            state.wanted = served.len();
            drop(state);
            let started = Instant::now();
            let result = store.sync().map_err(Arc::new);
            took = started.elapsed();
            for done in served {
                // A connection that has ended needs no answer.
                drop(done.send(result.clone()));
            }
        }
    }
}

/// Waits until everything that has been written to a database is durable.
pub(super) async fn synced(database: Arc<super::database::Database>) -> Synced {
    let (done, result) = oneshot::channel();
    if database.syncer.join(done) {
        tokio::task::spawn_blocking(move || database.syncer.run(&database.store));
    }
    // The thread answers everybody, unless the server is ending.
    result.await.unwrap_or_else(|_| Err(Arc::new(Error::ReadOnly)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_serves_all_that_wait() {
        let dir = tempfile::tempdir().unwrap();
        let store = Bitcask::open(dir.path(), crate::Options::new()).unwrap();
        store.put("key", "value").unwrap();
        let syncer = Syncer::default();
        let before = store.stats().syncs;
        let waiting: Vec<_> = (0..50)
            .map(|at| {
                let (done, result) = oneshot::channel();
                assert_eq!(syncer.join(done), at == 0);
                result
            })
            .collect();
        syncer.run(&store);
        assert_eq!(store.stats().syncs - before, 1);
        for mut result in waiting {
            result.try_recv().unwrap().unwrap();
        }
        // Another one starts anew.
        let (done, _result) = oneshot::channel();
        assert!(syncer.join(done));
        syncer.run(&store);
    }
}
