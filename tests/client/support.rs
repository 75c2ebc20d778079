//! Shared by the tests: a server, and clients of it.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcask::client::{Client, ClientOptions};
use bitcask::server::{Server, ServerError, ServerOptions, StopHandle};
use bitcask::{Bitcask, MergePolicy, Options, SyncPolicy};
use tempfile::TempDir;

/// A server that runs, and its store.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) db: Arc<Bitcask>,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
    _dir: TempDir,
}

/// Small segments, and nothing in the background that tests would have to wait for.
pub(crate) fn small() -> Options {
    Options::new()
        .segment_size(64 << 20)
        .sync_policy(SyncPolicy::Never)
        .merge_policy(MergePolicy::Manual)
}

/// Options without delays. A test that hangs fails after a minute.
pub(crate) fn prompt(url: &str) -> ClientOptions {
    let minute = Duration::from_secs(60);
    ClientOptions::new().url(url).timeout(minute).retry_delay(Duration::ZERO)
}

impl Running {
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::new())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Bitcask::open(dir.path(), small()).unwrap());
        let server = Server::bind(Arc::clone(&db), options.address("127.0.0.1", 0)).unwrap();
        let (url, stop) = (server.url(), server.stop_handle());
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { url, db, stop, thread, _dir: dir }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(prompt(&self.url)).unwrap()
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A test that has failed already says why.
            let _ = thread.join();
        }
    }
}
