//! Nodes in this process, and a client that follows `MOVED`.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcask::Options;
use bitcask::cluster::{ClusterNode, ClusterOptions};
use bitcask::resp::{RespOptions, RespStopHandle};
use bytes::{Bytes, BytesMut};
use resp_rs::ParseError;
use resp_rs::resp2::{Frame, parse_frame};

/// How long to wait for what certainly comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns an address that was free a moment ago. Its port is none of those that the system gives
/// to connections, so a node that was killed finds it free again.
pub(crate) fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 64;
        let address = format!("127.0.0.1:{}", 10_000 + number % 20_000);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Where a node listens and what it keeps, whether it runs or not.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) redis: String,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new(id: u64, dir: &Path) -> Self {
        let (cluster, redis) = (free_address(), free_address());
        Self { id, cluster, redis, dir: dir.join(id.to_string()) }
    }

    pub(crate) fn start(&self) -> RunningNode {
        let options = || {
            ClusterOptions::new(self.id, &self.dir, "secret")
                .listen(&self.cluster)
                .redis_address(&self.redis)
                .store(Options::new().segment_size(1 << 20))
                .timing(250, 1500)
        };
        let node = patiently(|| ClusterNode::start(options()));
        let server = patiently(|| node.redis(&self.redis, RespOptions::new().threads(2)));
        let stop = server.stop_handle();
        let serving = std::thread::spawn(move || server.run());
        RunningNode { node: Some(node), stop, serving: Some(serving) }
    }
}

/// Repeats what fails while a node begins to listen, or one of before lets go of its files and
/// ports.
pub(crate) fn patiently<T, E: std::fmt::Display>(mut call: impl FnMut() -> Result<T, E>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match call() {
            Ok(done) => return done,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Says why something is skipped. It is no output of the test, which would be kept back as long as
/// the test passes. With `BITCASK_CLUSTER_FAULTS=required`, the test fails instead.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let said = format!("skipped in {}: {reason}\n", thread.name().unwrap_or("a test"));
    let _ = io::stderr().write_all(said.as_bytes());
    let is_required = std::env::var("BITCASK_CLUSTER_FAULTS").is_ok_and(|it| it == "required");
    assert!(!is_required, "this must not be skipped: {reason}");
}

/// A node that runs. It is stopped when it is dropped.
pub(crate) struct RunningNode {
    node: Option<ClusterNode>,
    stop: RespStopHandle,
    serving: Option<JoinHandle<io::Result<()>>>,
}

impl RunningNode {
    pub(crate) fn node(&self) -> &ClusterNode {
        self.node.as_ref().unwrap()
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(serving) = self.serving.take() {
            serving.join().unwrap().unwrap();
        }
        drop(self.node.take());
    }
}

/// A client of one node.
pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
}

impl Client {
    pub(crate) fn new(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::new() })
    }

    /// Sets how long to wait for a reply.
    pub(crate) fn limit(&self, time: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(time))
    }

    pub(crate) fn run(&mut self, line: &str) -> io::Result<String> {
        self.stream.write_all(encoded(line).as_bytes())?;
        self.reply()
    }

    /// Sends commands together, and returns their replies.
    pub(crate) fn pipeline(&mut self, lines: &[String]) -> io::Result<Vec<String>> {
        let sent: String = lines.iter().map(|line| encoded(line)).collect();
        self.stream.write_all(sent.as_bytes())?;
        lines.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> io::Result<String> {
        loop {
            match parse_frame(self.received.clone().freeze()) {
                Ok((frame, rest)) => {
                    self.received = BytesMut::from(&rest[..]);
                    return Ok(shown(&frame));
                }
                Err(ParseError::Incomplete) => {}
                Err(error) => panic!("{error}: {:?}", self.received),
            }
            let mut buffer = [0; 8 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(size) => self.received.extend_from_slice(&buffer[..size]),
                // A process that was stopped for a moment does not go on waiting by itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn encoded(line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    let mut sent = format!("*{}\r\n", args.len());
    for arg in args {
        write!(sent, "${}\r\n{arg}\r\n", arg.len()).unwrap();
    }
    sent
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a reply as text.
fn shown(frame: &Frame) -> String {
    match frame {
        Frame::SimpleString(it) => text(it),
        Frame::Error(it) => format!("(error) {}", text(it)),
        Frame::Integer(it) => format!("({it})"),
        Frame::BulkString(None) | Frame::Array(None) => "nil".to_owned(),
        Frame::BulkString(Some(it)) => format!("'{}'", text(it)),
        Frame::Array(Some(items)) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
    }
}

/// A client of all nodes: it follows `MOVED`, and repeats what no node serves at the moment.
pub(crate) struct Router {
    addresses: Vec<String>,
    clients: std::collections::BTreeMap<String, Client>,
}

impl Router {
    pub(crate) fn new(places: &[&Place]) -> Self {
        let addresses = places.iter().map(|place| place.redis.clone()).collect();
        Self { addresses, clients: std::collections::BTreeMap::new() }
    }

    /// Runs a command that may be repeated.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut next = None;
        for at in (0..self.addresses.len()).cycle() {
            let address = next.take().unwrap_or_else(|| self.addresses[at].clone());
            match self.ask(&address, line) {
                Ok(reply) => match reply.strip_prefix("(error) MOVED ") {
                    Some(moved) => next = moved.split(' ').nth(1).map(str::to_owned),
                    None if reply.starts_with("(error) CLUSTERDOWN") => {}
                    None => return reply,
                },
                Err(_) => drop(self.clients.remove(&address)),
            }
            assert!(Instant::now() < until, "nobody answers {line:?}");
            if next.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        unreachable!("there are addresses")
    }

    fn ask(&mut self, address: &str, line: &str) -> io::Result<String> {
        if !self.clients.contains_key(address) {
            self.clients.insert(address.to_owned(), Client::new(address)?);
        }
        self.clients.get_mut(address).unwrap().run(line)
    }
}
