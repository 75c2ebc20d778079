//! Shared by the tests: a server, and a client that says exactly what a test wants.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test whose setup fails has failed"
)]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcask::server::{Server, ServerError, ServerOptions, StopHandle};
use bitcask::{Bitcask, MergePolicy, Options, SyncPolicy};
use serde_json::Value;
use tempfile::TempDir;

/// How long a client waits before a test fails. Nothing depends on it otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

/// What a server has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A connection. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Client<S: Read = TcpStream> {
    stream: BufReader<S>,
}

/// Small segments, and nothing in the background that tests would have to wait for.
pub(crate) fn small() -> Options {
    Options::new()
        .segment_size(1 << 20)
        .sync_policy(SyncPolicy::Never)
        .merge_policy(MergePolicy::Manual)
}

impl Running {
    pub(crate) fn new() -> Self {
        Self::with(ServerOptions::new())
    }

    pub(crate) fn with(options: ServerOptions) -> Self {
        Self::of(small(), options)
    }

    pub(crate) fn of(store: Options, options: ServerOptions) -> Self {
        Self::filled(store, options, |_| {})
    }

    /// Returns a server of a store that was filled before.
    pub(crate) fn filled(
        store: Options,
        options: ServerOptions,
        fill: impl FnOnce(&Bitcask),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Bitcask::open(dir.path().join("data"), store).unwrap();
        fill(&db);
        let server = Server::bind(db, options.address("127.0.0.1", 0)).unwrap();
        let (address, stop) = (server.address(), server.stop_handle());
        let thread = Some(std::thread::spawn(move || server.run()));
        Self { dir, address, stop, thread }
    }

    /// Says that the server has to stop.
    pub(crate) fn tell_to_stop(&self) {
        self.stop.stop();
    }

    /// Waits until the server has ended, and opens its store.
    pub(crate) fn ended(mut self) -> (TempDir, Bitcask) {
        self.thread.take().unwrap().join().unwrap().unwrap();
        let db = Bitcask::open(self.dir.path().join("data"), small()).unwrap();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (dir, db)
    }

    /// Stops the server, and opens its store.
    pub(crate) fn stopped(self) -> (TempDir, Bitcask) {
        self.tell_to_stop();
        self.ended()
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// Sends one request.
    pub(crate) fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.client().send(method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    /// Sends JSON.
    pub(crate) fn json(&self, method: &str, target: &str, body: &str) -> Answer {
        self.send(method, target, &[("content-type", "application/json")], body.as_bytes())
    }

    /// Stores a value through `/v1`.
    pub(crate) fn put(&self, key: &str, value: impl AsRef<[u8]>) {
        self.send("PUT", &format!("/v1/keys/{key}"), &[], value.as_ref()).has(204);
    }

    /// Damages a value of more than 8 MiB, which whoever reads it notices.
    pub(crate) fn damage_value(&self) {
        let segments = std::fs::read_dir(self.dir.path().join("data")).unwrap();
        let segments = segments.map(|entry| entry.unwrap().path());
        let segment = segments.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let segment = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&segment, b"damage", 8 << 20).unwrap();
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

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// Sends a request, and waits for its answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = head(method, target, headers, body.len());
        request.extend_from_slice(body);
        self.raw(&request);
        self.answer(method)
    }

    /// Sends the head of a request.
    pub(crate) fn begin(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body_len: usize,
    ) {
        self.raw(&head(method, target, headers, body_len));
    }

    /// Reads a line without its end. It is empty at the end of the stream.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads the status and the headers of an answer.
    pub(crate) fn head(&mut self) -> Answer {
        let line = self.line();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {line:?}"));
        let (status, mut headers) = (status.parse().unwrap(), Vec::new());
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Answer { status, headers, body: Vec::new() }
    }

    /// Reads an answer.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method == "HEAD" || [204, 304].contains(&answer.status) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).unwrap();
                let mut chunk = vec![0; size];
                self.stream.read_exact(&mut chunk).unwrap();
                answer.body.extend(chunk);
                assert_eq!(self.line(), "");
                if size == 0 {
                    return answer;
                }
            }
        }
        let len = answer.header("content-length").unwrap_or("0").parse().unwrap();
        answer.body = vec![0; len];
        self.stream.read_exact(&mut answer.body).unwrap();
        answer
    }

    /// Reads the body of an answer whose head was read.
    pub(crate) fn rest(&mut self, len: usize) -> Vec<u8> {
        let mut rest = vec![0; len];
        self.stream.read_exact(&mut rest).unwrap();
        rest
    }

    /// Returns whether the server has closed the connection, once it has.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A server that closes with something unread resets the connection.
        self.stream.read_to_end(&mut rest).map_or(true, |_| rest.is_empty())
    }
}

/// Returns the head of a request.
fn head(method: &str, target: &str, headers: &[(&str, &str)], body_len: usize) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if body_len > 0 || method != "GET" {
        head.extend(["content-length: ", &body_len.to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

impl Answer {
    /// Checks the status.
    #[track_caller]
    pub(crate) fn has(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Checks that the answer is this JSON.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "it is made where it is passed")]
    pub(crate) fn is(self, status: u16, expected: Value) {
        let answer = self.has(status);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.value(), expected);
    }

    /// Returns the fields that are wrong, as `FastAPI` says it: where, and what kind.
    #[track_caller]
    pub(crate) fn wrong_field(self) -> (Value, String) {
        let value = self.has(422).value();
        let problem = &value["detail"][0];
        assert!(!problem["msg"].as_str().unwrap().is_empty());
        (problem["loc"].clone(), problem["type"].as_str().unwrap().to_owned())
    }
}
