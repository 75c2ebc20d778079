//! On which thread a session is loaded.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Builder;
use tokio::task::spawn_blocking;
use tower_sessions_bitcask::BitcaskSessions;
use tower_sessions_core::SessionStore;
use tower_sessions_core::session::Id;

use crate::{close, created, open, record};

/// Returns whether a session is loaded at once although the only thread for blocking work is busy.
async fn is_loaded_at_once(sessions: &BitcaskSessions) -> bool {
    let (started, has_started) = channel();
    let (end, has_ended) = channel::<()>();
    let busy = spawn_blocking(move || {
        started.send(()).unwrap();
        // Fails when the other side is dropped.
        has_ended.recv().unwrap_err();
    });
    has_started.recv().unwrap();
    let mut load = sessions.load(&Id(1));
    let first = load.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(end);
    busy.await.unwrap();
    let (found, at_once) = match first {
        Poll::Ready(found) => (found, true),
        Poll::Pending => (load.await, false),
    };
    assert!(found.unwrap().is_some());
    at_once
}

/// The thread of the request asked the store for its figures, for which it may have to wait.
#[test]
fn a_session_is_loaded_on_the_thread_of_the_request_once_all_keys_are_loaded() {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let db = open(dir.path());
        let sessions = BitcaskSessions::new(Arc::clone(&db));
        created(&sessions, record(1, 1)).await;
        db.len().unwrap(); // Loads all keys.
        assert!(!is_loaded_at_once(&sessions).await, "the adapter has not asked the store yet");
        assert!(is_loaded_at_once(&sessions).await);
        assert!(is_loaded_at_once(&sessions.clone()).await);
        let sessions = sessions.reads_block(true);
        assert!(!is_loaded_at_once(&sessions).await);
        drop(sessions);
        close(db);
    });
}
