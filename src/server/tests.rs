//! Both ports on a disk that fails, or that fills up, while clients write.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::{Server, ServerOptions};
use crate::fs::Fs;
use crate::options::{MergeOptions, MergePolicy, Options, SyncPolicy};
use crate::resp::{RespOptions, RespServer, RespStopHandle};
use crate::store::{Bitcask, Env, Position};
use crate::testing::twin::{Call, Fault, FaultKind, Twin};

/// Number of clients of each port.
const CLIENTS: u64 = 4;
/// Number of writes that all clients together make before the disk fails.
const BEFORE: u64 = 200;

/// A store on a simulated disk behind both ports.
struct Ports {
    twin: Arc<Twin>,
    http: SocketAddr,
    redis: SocketAddr,
    stop: (super::StopHandle, RespStopHandle),
    threads: Vec<JoinHandle<()>>,
}

impl Ports {
    fn new() -> Self {
        Self::with(Twin::new(), ServerOptions::new())
    }

    fn with(twin: Arc<Twin>, options: ServerOptions) -> Self {
        let http_options = options.address("127.0.0.1", 0);
        let env = Env { fs: Fs::Twin(Arc::clone(&twin)), ..Env::default() };
        let options = Options::new().segment_size(1 << 16).sync_policy(SyncPolicy::Always);
        let db = Arc::new(Bitcask::open_on(&env, Path::new("/store"), options).unwrap());
        let redis = RespServer::bind("127.0.0.1:0", Arc::clone(&db), RespOptions::new()).unwrap();
        let http = Server::bind(db, http_options).unwrap();
        let stop = (http.stop_handle(), redis.stop_handle());
        let (http_address, redis_address) = (http.address(), redis.address());
        let threads = vec![
            // A store that accepts no more writes says so again when it is closed.
            std::thread::spawn(move || drop(http.run())),
            std::thread::spawn(move || redis.run().unwrap()),
        ];
        Self { twin, http: http_address, redis: redis_address, stop, threads }
    }

    fn end(self) {
        self.stop.0.stop();
        self.stop.1.stop();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }

    /// Sends a request, and returns the whole answer.
    fn ask(&self, request: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let len = body.len();
        let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let rest = format!("content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}");
        stream.write_all((head + &rest).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a command, and returns the reply.
    fn command(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.redis).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    /// Puts a key through a port. Returns the refusal, if it is refused.
    fn put(&self, port: &str, key: &str, value: &str) -> Result<(), String> {
        let (answer, is_stored) = if port == "http" {
            let answer = self.ask(&format!("PUT /v1/keys/{key}"), value);
            let is_stored = answer.starts_with("HTTP/1.1 204");
            (answer, is_stored)
        } else {
            let reply = self.command(&format!("SET {key} {value}"));
            let is_stored = reply == "+OK\r\n";
            (reply, is_stored)
        };
        if is_stored { Ok(()) } else { Err(answer) }
    }

    /// Writes until every client is refused. `fail` is called in between. Returns the keys that
    /// were acknowledged, and the refusals.
    fn write_until_refused(&self, fail: impl FnOnce()) -> (Vec<String>, Vec<(String, String)>) {
        let written = AtomicU64::new(0);
        let written = &written;
        let ports = ["http", "redis"].into_iter();
        std::thread::scope(|scope| {
            let clients: Vec<_> = ports
                .flat_map(|port| (0..CLIENTS).map(move |client| (port, client)))
                .map(|(port, client)| {
                    scope.spawn(move || {
                        let mut keys = Vec::new();
                        for number in 0_u64.. {
                            let key = format!("{port}-{client}-{number}");
                            if let Err(refusal) = self.put(port, &key, "value") {
                                return (keys, (port.to_owned(), refusal));
                            }
                            written.fetch_add(1, Ordering::SeqCst);
                            keys.push(key);
                        }
                        unreachable!("the disk never fails")
                    })
                })
                .collect();
            while written.load(Ordering::SeqCst) < BEFORE {
                std::thread::yield_now();
            }
            fail();
            let ended = clients.into_iter().map(|client| client.join().unwrap());
            let (keys, refusals): (Vec<_>, Vec<_>) = ended.unzip();
            (keys.concat(), refusals)
        })
    }

    /// Checks that both ports still return what was acknowledged.
    fn have(&self, keys: &[String]) {
        for key in keys {
            let answer = self.ask(&format!("GET /v1/keys/{key}"), "");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("value"), "{answer}");
            assert_eq!(self.command(&format!("GET {key}")), "$5\r\nvalue\r\n", "{key}");
        }
    }
}

#[test]
fn a_store_that_fails_under_load_refuses_writes_and_is_read_on() {
    let ports = Ports::new();
    assert!(ports.ask("GET /health", "").starts_with("HTTP/1.1 200"));
    let (keys, refusals) = ports.write_until_refused(|| {
        ports.twin.fail(Fault::new(FaultKind::Eio).only(Call::Sync).for_ever());
    });
    for (port, refusal) in refusals {
        let start = if port == "http" { "HTTP/1.1 50" } else { "-" };
        assert!(refusal.starts_with(start), "{port}: {refusal}");
    }
    ports.have(&keys);
    // The disk works again, but what the failed sync has lost is unknown.
    ports.twin.clear_fault();
    let refusal = ports.put("http", "late", "value").unwrap_err();
    assert!(refusal.starts_with("HTTP/1.1 503") && refusal.contains("poisoned"), "{refusal}");
    assert!(ports.put("redis", "late", "value").unwrap_err().starts_with('-'));
    let health = ports.ask("GET /health", "");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("unhealthy"), "{health}");
    let twin = Arc::clone(&ports.twin);
    ports.end();
    let env = Env { fs: Fs::Twin(twin), ..Env::default() };
    let db = Bitcask::open_on(&env, Path::new("/store"), Options::new()).unwrap();
    for key in keys {
        assert_eq!(db.get(&key).unwrap().as_deref(), Some(&b"value"[..]), "{key}");
    }
}

#[test]
fn a_disk_that_fills_up_under_load_refuses_writes_until_there_is_room() {
    let ports = Ports::new();
    let (keys, refusals) = ports.write_until_refused(|| ports.twin.set_space(1 << 16));
    for (port, refusal) in refusals {
        let start = if port == "http" { "HTTP/1.1 507" } else { "-" };
        assert!(refusal.starts_with(start) && refusal.contains("space"), "{port}: {refusal}");
    }
    ports.have(&keys);
    ports.twin.set_space(u64::MAX);
    for port in ["http", "redis"] {
        ports.put(port, port, "value").unwrap();
    }
    ports.have(&["http".to_owned(), "redis".to_owned()]);
    assert!(ports.ask("GET /health", "").starts_with("HTTP/1.1 200"));
    ports.end();
}

#[test]
fn health_notices_a_failed_store_although_no_request_writes() {
    let ports = Ports::new();
    ports.twin.fail(Fault::new(FaultKind::Eio).only(Call::Sync).for_ever());
    ports.put("redis", "k", "value").unwrap_err();
    let health = ports.ask("GET /health", "");
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("unhealthy"), "{health}");
    ports.end();
}

/// The follower of a snapshot may have to ask more than once, and others may have another snapshot
/// of the same position.
#[test]
fn a_lease_waits_until_its_own_follower_has_stored_changes() {
    use super::leases::LeaseToken;

    let dir = tempfile::tempdir().unwrap();
    let db = Arc::new(Bitcask::open(dir.path(), Options::new()).unwrap());
    db.put("k", "v").unwrap();
    let server = Server::bind(Arc::clone(&db), ServerOptions::new().address("127.0.0.1", 0));
    let server = server.unwrap();
    let (address, stop, state) =
        (server.address(), server.stop_handle(), Arc::clone(&server.state));
    let running = std::thread::spawn(move || server.run());
    let (position, now) = (db.position(), std::time::Instant::now());
    let tokens = [LeaseToken::new(), LeaseToken::new()];
    for token in tokens {
        state.leases.wait_for((token, db.lease_history(1)), position, now, now, 2);
    }
    let follow = |position: Position, token: Option<LeaseToken>, expected: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let target = format!("/v1/changes?format=frames&since={position}");
        let named = token.map_or_else(String::new, |token| {
            format!("x-bitcask-lease: {}\r\n", token.header().to_str().unwrap())
        });
        let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{named}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
        stream
    };
    let missing = Position::from_bytes([9; 16]);
    drop(follow(missing, Some(tokens[0]), "HTTP/1.1 4"));
    drop(follow(position, Some(tokens[0]), "HTTP/1.1 200"));
    let mut streams = vec![follow(position, Some(tokens[0]), "HTTP/1.1 200")];
    db.put("k", "w").unwrap();
    // Head, first position, and the change: it was sent, and may get lost yet.
    let mut sent = Vec::new();
    while !sent.windows(2).any(|pair| pair == b"kw") {
        let mut piece = [0; 1024];
        let size = streams[0].read(&mut piece).unwrap();
        sent.extend_from_slice(&piece[..size]);
    }
    streams.push(follow(position, Some(tokens[0]), "HTTP/1.1 200"));
    let stored = db.position();
    let others = [None, Some(LeaseToken::new())];
    streams.extend(others.map(|token| follow(stored, token, "HTTP/1.1 200")));
    assert_eq!(state.leases.len(), 2, "nobody has stored anything");
    streams.push(follow(stored, Some(tokens[0]), "HTTP/1.1 200"));
    assert_eq!(state.leases.len(), 1);
    // That of the other follower is left.
    state.leases.end(tokens[0]);
    assert_eq!(state.leases.len(), 1);
    state.leases.end(tokens[1]);
    assert_eq!(state.leases.len(), 0);
    drop(streams);
    stop.stop();
    running.join().unwrap().unwrap();
}

/// Otherwise the follower would take it for gone, and begin the batch again.
#[cfg(feature = "lz4")]
#[test]
fn a_leader_is_heard_of_while_a_batch_waits_for_memory() {
    use super::frames::{FrameKind, read_frame};
    use crate::store::Batch;

    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().compression(crate::Compression::lz4());
    let db = Arc::new(Bitcask::open(dir.path(), options).unwrap());
    // What is decompressed takes memory.
    db.write(Batch::new().put("a", "1").put("b", vec![b'x'; 1 << 20])).unwrap();
    let server = Server::bind(db, ServerOptions::new().address("127.0.0.1", 0)).unwrap();
    let (address, stop, state) =
        (server.address(), server.stop_handle(), Arc::clone(&server.state));
    let running = std::thread::spawn(move || server.run());
    let all = u32::try_from(state.body_pages.available_permits()).unwrap();
    let taken = Arc::clone(&state.body_pages).try_acquire_many_owned(all).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    // This version of the protocol has no chunks.
    stream
        .write_all(b"GET /v1/changes?since=start&format=frames HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.") && head[8..].starts_with(b" 200"));
    let mut next = || read_frame(&mut stream).unwrap().0;
    let begin = next();
    let first = loop {
        let frame = next();
        if frame.kind == FrameKind::Put {
            break frame;
        }
    };
    assert!(first.key == b"a" && first.continues);
    let report = next();
    assert_eq!((report.kind, report.position), (FrameKind::Position, begin.position));
    drop(taken);
    let last = loop {
        let frame = next();
        if frame.kind == FrameKind::Put {
            break frame;
        }
        assert_eq!(frame.position, begin.position);
    };
    assert!(last.key == b"b" && !last.continues);
    assert!(next().position == last.position);
    stop.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn a_backup_ends_when_the_server_stops_and_leaves_nothing() {
    let twin = Twin::new();
    twin.refuse_links();
    // This directory exists on every disk.
    let ports = Ports::with(Arc::clone(&twin), ServerOptions::new().backup_dir("/"));
    for number in 0..10 {
        ports.put("http", &format!("k{number}"), &"x".repeat(20_000)).unwrap();
    }
    let stop = ports.stop.0.clone();
    // The backup opens what it writes. Other threads read meanwhile, perhaps before it has begun.
    let stops = move |path: Option<&Path>| {
        if path.is_some_and(|path| path.to_string_lossy().contains("monday")) {
            stop.stop();
        }
    };
    let backup = || ports.ask("POST /v1/backup", r#"{"name":"monday"}"#);
    let answer = twin.with_interference(stops, backup);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"stopping\""), "{answer}");
    assert!(!twin.exists(Path::new("/monday")));
    ports.end();
}

#[test]
fn a_call_that_does_not_end_does_not_keep_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().segment_size(1 << 16).merge_policy(MergePolicy::Manual);
    let db = Arc::new(Bitcask::open(dir.path(), options).unwrap());
    for _ in 0..4 {
        db.put("k", vec![b'x'; 50_000]).unwrap();
    }
    let mut options = ServerOptions::new().address("127.0.0.1", 0);
    options.calls_timeout = std::time::Duration::from_millis(1);
    options.drain_timeout = std::time::Duration::from_millis(1);
    let server = Server::bind(Arc::clone(&db), options).unwrap();
    let (address, stop, state) =
        (server.address(), server.stop_handle(), Arc::clone(&server.state));
    let running = std::thread::spawn(move || server.run());
    let (is_merging, merging) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let merge = std::thread::spawn({
        let db = Arc::clone(&db);
        move || {
            let waits = move |_: &_| {
                let _ = is_merging.send(());
                // Ends when the test says so, or has failed.
                let _ = ended.recv();
                std::ops::ControlFlow::Continue(())
            };
            db.merge_opt(MergeOptions::new().force(true).progress(waits)).unwrap();
        }
    });
    merging.recv().unwrap();
    // This merge waits for the other one.
    let mut client = TcpStream::connect(address).unwrap();
    let request = "POST /v1/merge HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    while !state.is_under_upkeep() {
        std::thread::yield_now();
    }
    stop.stop();
    running.join().unwrap().unwrap();
    assert!(!merge.is_finished());
    drop(end);
    merge.join().unwrap();
    drop(state);
}
