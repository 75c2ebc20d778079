//! Leaders, followers, and a proxy between them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test whose setup fails has failed"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcask::server::{FollowOptions, Server, ServerError, ServerOptions, StopHandle};
use bitcask::{Bitcask, Expiry, MergePolicy, Options, Replica, SyncPolicy};
use serde_json::Value;

use crate::support::{Answer, Client};

/// How long a test waits for what has to happen. Nothing depends on it otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// The key that a follower keeps for itself.
pub(crate) const FOLLOW_KEY: &str = "\0follow";

/// Everything in a store: values and expiries by key.
pub(crate) type Content = BTreeMap<Vec<u8>, (Vec<u8>, Option<Expiry>)>;

/// A store that is served.
pub(crate) struct Node {
    pub(crate) db: Arc<Bitcask>,
    pub(crate) address: SocketAddr,
    pub(crate) replica: Option<Replica>,
    dir: PathBuf,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

/// Small segments, no merges, and changes that become durable soon.
pub(crate) fn store() -> Options {
    Options::new()
        .segment_size(1 << 20)
        .sync_policy(SyncPolicy::Interval(Duration::from_millis(1)))
        .merge_policy(MergePolicy::Manual)
}

/// Follows a leader, with hardly a pause between attempts.
pub(crate) fn following(url: impl Into<String>) -> FollowOptions {
    FollowOptions::new(url).pauses(Duration::from_millis(1), Duration::from_millis(5))
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "this does not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn content(db: &Bitcask) -> Content {
    let snapshot = db.snapshot();
    let pairs = snapshot.iter().map(Result::unwrap);
    let pairs = pairs.filter(|(key, _)| *key != FOLLOW_KEY);
    let with_expiry = |(key, value): (bitcask::Value, bitcask::Value)| {
        let expiry = snapshot.expiry(&key).unwrap();
        (key.to_vec(), (value.to_vec(), expiry))
    };
    pairs.map(with_expiry).collect()
}

impl Node {
    pub(crate) fn leader(dir: &Path) -> Self {
        Self::on(dir, 0, ServerOptions::new())
    }

    pub(crate) fn follower(dir: &Path, leader: &Node) -> Self {
        Self::on(dir, 0, ServerOptions::new().follow(following(leader.url())))
    }

    pub(crate) fn on(dir: &Path, port: u16, options: ServerOptions) -> Self {
        Self::try_on(dir, port, options).unwrap()
    }

    pub(crate) fn try_on(
        dir: &Path,
        port: u16,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        Self::try_with(dir, &store(), port, options)
    }

    /// Serves a store that is opened with these options.
    pub(crate) fn try_with(
        dir: &Path,
        store: &Options,
        port: u16,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        let db = Arc::new(store.clone().open(dir).unwrap());
        let server = Server::bind(Arc::clone(&db), options.address("127.0.0.1", port))?;
        let (address, stop) = (server.address(), server.stop_handle());
        let (replica, dir) = (server.replica(), dir.to_owned());
        let thread = Some(std::thread::spawn(move || server.run()));
        Ok(Self { db, address, replica, dir, stop, thread })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.replica.as_ref().unwrap()
    }

    /// Stops the server, and closes the store.
    pub(crate) fn stopped(mut self) {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }

    pub(crate) fn send(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let json = [("content-type", "application/json")];
        Client::over(stream).send(method, target, &json, body)
    }

    pub(crate) fn health(&self) -> Value {
        self.send("GET", "/health", b"").value()
    }

    /// Waits until a follower has what its leader has.
    #[track_caller]
    pub(crate) fn has_all_of(&self, leader: &Node) {
        let started = Instant::now();
        while self.replica().is_loading() || content(&self.db) != content(&leader.db) {
            if started.elapsed() > PATIENCE {
                let (own, theirs) = (content(&self.db).len(), content(&leader.db).len());
                panic!("the follower has {own} keys, the leader {theirs}: {:?}", self.replica());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // A test that has failed already says why.
            let _ = thread.join();
        }
    }
}

/// A request that a proxy holds back, until the test says how much of the answer may pass.
pub(crate) struct Held {
    pub(crate) target: String,
    allow: Sender<usize>,
}

impl Held {
    /// Passes so many bytes of the answer on, and then closes the connection.
    pub(crate) fn pass(self, bytes: usize) {
        // The follower may be gone.
        let _ = self.allow.send(bytes);
    }

    pub(crate) fn pass_all(self) {
        self.pass(usize::MAX);
    }
}

/// Stands between a follower and its leader. It holds each request until the test lets it pass.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    requests: Mutex<Receiver<Held>>,
}

impl Proxy {
    pub(crate) fn new(leader: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, sender) = (client.unwrap(), sender.clone());
                std::thread::spawn(move || pass(client, leader, &sender));
            }
        });
        Self { address, requests: Mutex::new(requests) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for the next request.
    #[track_caller]
    pub(crate) fn next(&self) -> Held {
        self.requests.lock().unwrap().recv_timeout(PATIENCE).expect("the follower asks again")
    }
}

/// Reads a request, waits until it may pass, and passes a part of its answer back.
fn pass(mut client: TcpStream, leader: SocketAddr, sender: &Sender<Held>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if !matches!(client.read(&mut byte), Ok(1)) {
            return;
        }
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (allow, allowed) = channel();
    if sender.send(Held { target, allow }).is_err() {
        return;
    }
    let Ok(mut left) = allowed.recv() else { return };
    let Ok(mut server) = TcpStream::connect(leader) else { return };
    if server.write_all(&request).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    while left > 0 {
        let wanted = left.min(buffer.len());
        let Ok(size @ 1..) = server.read(&mut buffer[..wanted]) else { break };
        if client.write_all(&buffer[..size]).is_err() {
            break;
        }
        left -= size;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
