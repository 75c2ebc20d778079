//! A server, and a client that speaks the protocol. Replies are decoded by the crate `resp-rs`, so
//! that the server's own writer is not believed.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails the test"
)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcask::resp::{RespOptions, RespServer, RespStopHandle};
use bitcask::{Bitcask, Options};
use bytes::{Bytes, BytesMut};
use resp_rs::ParseError;
use resp_rs::resp3::{Frame, parse_frame};
use tempfile::TempDir;

/// How long a client waits for a reply before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a port of its own, which is stopped when it is dropped.
pub(crate) struct Served {
    pub(crate) db: Arc<Bitcask>,
    pub(crate) address: SocketAddr,
    pub(crate) stop: RespStopHandle,
    running: Option<JoinHandle<io::Result<()>>>,
    pub(crate) dir: TempDir,
}

impl Served {
    /// Starts a server with four databases.
    pub(crate) fn new() -> Self {
        Self::with(&Options::new(), RespOptions::new())
    }

    pub(crate) fn with(store: &Options, options: RespOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::within(dir, store, options)
    }

    pub(crate) fn within(dir: TempDir, store: &Options, options: RespOptions) -> Self {
        let db = Arc::new(store.clone().open(dir.path().join("0")).unwrap());
        let options = options.threads(2).databases(dir.path(), 4, store.clone());
        let server = RespServer::bind("127.0.0.1:0", Arc::clone(&db), options).unwrap();
        let (address, stop) = (server.address(), server.stop_handle());
        let running = Some(std::thread::spawn(move || server.run()));
        Self { db, address, stop, running, dir }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Stops the server, and waits until it has ended.
    pub(crate) fn end(&mut self) {
        self.stop.stop();
        self.wait();
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            running.join().unwrap().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// One client.
pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: BytesMut::new() }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends bytes, which may fail because the server has gone.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn send(&mut self, args: &[&[u8]]) {
        self.send_raw(&encoded(args));
    }

    /// Reads one reply, or nothing at the end of the connection.
    pub(crate) fn try_read(&mut self) -> Option<Frame> {
        loop {
            match parse_frame(self.received.clone().freeze()) {
                Ok((frame, rest)) => {
                    self.received = BytesMut::from(&rest[..]);
                    return Some(frame);
                }
                Err(ParseError::Incomplete) => {}
                Err(error) => panic!("{error}: {:?}", self.received),
            }
            let mut buffer = [0; 8 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(size) => self.received.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    pub(crate) fn read(&mut self) -> String {
        shown(&self.try_read().expect("the connection has ended"))
    }

    /// Runs a command whose arguments are separated by spaces.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.run_args(&args)
    }

    pub(crate) fn run_args(&mut self, args: &[&[u8]]) -> String {
        self.send(args);
        self.read()
    }

    /// Runs a command and compares its reply.
    #[track_caller]
    pub(crate) fn is(&mut self, line: &str, expected: &str) {
        assert_eq!(self.run(line), expected, "{line}");
    }

    /// Runs a command and compares the beginning of the error.
    #[track_caller]
    pub(crate) fn fails(&mut self, line: &str, expected: &str) {
        let reply = self.run(line);
        assert!(reply.starts_with(&format!("(error) {expected}")), "{line}: {reply}");
    }

    /// Runs a command again and again until it has a reply.
    #[track_caller]
    pub(crate) fn becomes(&mut self, line: &str, expected: &str) {
        let mut reply = String::new();
        for _ in 0..6_000 {
            reply = self.run(line);
            if reply == expected {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{line} stays {reply}");
    }

    /// Expects that the server has ended the connection.
    #[track_caller]
    pub(crate) fn is_over(&mut self) {
        let frame = self.try_read();
        assert!(frame.is_none(), "{frame:?}");
    }
}

pub(crate) fn encoded(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn text(bytes: &Bytes) -> String {
    bytes.escape_ascii().to_string()
}

fn list(items: &[Frame]) -> String {
    items.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// Returns a reply as text: a number in parentheses, nothing as `nil`, an array in brackets.
pub(crate) fn shown(frame: &Frame) -> String {
    match frame {
        Frame::SimpleString(line) => text(line),
        Frame::Error(line) => format!("(error) {}", text(line)),
        Frame::Integer(number) => format!("({number})"),
        Frame::BulkString(Some(bytes)) => format!("'{}'", text(bytes)),
        Frame::BulkString(None) => "nil".to_owned(),
        Frame::Array(None) => "no array".to_owned(),
        Frame::Null => "null".to_owned(),
        Frame::Array(Some(items)) => format!("[{}]", list(items)),
        Frame::Set(items) => format!("~[{}]", list(items)),
        Frame::Push(items) => format!(">[{}]", list(items)),
        Frame::Map(pairs) => {
            let pair = |(key, value): &(Frame, Frame)| format!("{}: {}", shown(key), shown(value));
            format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Frame::Double(number) => format!("({number})"),
        Frame::VerbatimString { payload } => format!("text '{}'", text(payload)),
        other => format!("{other:?}"),
    }
}
