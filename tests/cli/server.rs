//! The program as a server, and as one that asks a server.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use serde_json::Value;

use crate::support::Sandbox;

/// A program that serves a store.
#[derive(Debug)]
pub(crate) struct Serving {
    child: Child,
    pub(crate) url: String,
    out: BufReader<std::process::ChildStdout>,
}

impl Serving {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let url = line.split(" at ").last().unwrap().trim().to_owned();
        if !url.contains("://127.0.0.1:") {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("{line}{errors}");
        }
        Self { child, url, out }
    }

    /// Sends a request, and returns the whole answer.
    fn ask(&self, request: &str, body: &str) -> String {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let len = body.len();
        let head = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        let json = format!("content-type: application/json\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all((head + &json + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits until the program has ended, and returns its exit code and its log lines.
    pub(crate) fn ended(mut self) -> (Option<i32>, Vec<Value>) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        let lines = log.lines().filter(|line| line.starts_with('{'));
        (code, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

/// Returns the log lines of an event.
fn lines<'a>(log: &'a [Value], event: &str) -> Vec<&'a Value> {
    log.iter().filter(|line| line["event"] == event).collect()
}

#[test]
fn a_server_starts_serves_and_stops() {
    for (at, signal) in ["-TERM", "-INT", "stop"].into_iter().enumerate() {
        let sandbox = Sandbox::empty();
        let server = Serving::start(&mut sandbox.bitcask(["server", "start", "--port", "0"]));
        let put = server.ask("PUT /kv/name", r#"{"value":"Ada"}"#);
        assert!(put.starts_with("HTTP/1.1 200") && put.contains("stored successfully"), "{put}");
        let health = sandbox.run(["health", "--server", &server.url, "-o", "json"]);
        let health: Value = serde_json::from_str(health.ended(0)).unwrap();
        assert_eq!((&health["status"], &health["version"]), (&"healthy".into(), &"0.1.0".into()));
        let ping = sandbox.bitcask(["ping"]).env("BITCASK_SERVER", &server.url).output().unwrap();
        assert!(ping.status.success());
        // The store is locked meanwhile, and can be read.
        sandbox.run(["put", "a", "b"]).failed(3, "open for writing in process");
        assert_eq!(sandbox.run(["get", "name"]).ended(0), "Ada");
        if signal == "stop" {
            sandbox.run(["server", "stop", "--server", &server.url]).ended(0);
        } else {
            server.signal(signal);
        }
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{at}: {log:?}");
        for event in ["Server Starting", "Server configuration", "opened", "closed"] {
            assert_eq!(lines(&log, event).len(), 1, "{event}: {log:?}");
        }
        let end = lines(&log, "http_request_end")[0];
        assert_eq!((&end["path"], &end["status_code"]), (&"/kv/name".into(), &200.into()));
        assert!(end["duration_ms"].is_number() && end["request_id"].is_string(), "{end}");
        assert_eq!((&end["service"], &end["level"]), (&"bitcask".into(), &"INFO".into()));
        sandbox.run(["put", "a", "b"]).ended(0);
    }
}

#[test]
fn settings_of_the_server_come_from_the_environment_and_files() {
    let sandbox = Sandbox::empty();
    std::fs::write(sandbox.path("token"), "secret\n").unwrap();
    sandbox.run(["config", "set", "port", "0"]).ended(0);
    let mut start = sandbox.bitcask(["server", "start", "--token-file", "token", "--reload"]);
    let server = Serving::start(start.env("BITCASK_LOG_LEVEL", "warn"));
    assert!(server.ask("GET /v1/stats", "").starts_with("HTTP/1.1 401"));
    let stop = ["server", "stop", "--server", &server.url];
    sandbox.run(stop).failed(3, "status 401");
    let stopped = sandbox.bitcask(stop).env("BITCASK_TOKEN", "secret").output().unwrap();
    assert!(stopped.status.success());
    let (code, log) = server.ended();
    assert_eq!((code, log.len()), (Some(0), 0), "{log:?}");
    let listed = sandbox.bitcask(["config", "list"]).env("BITCASK_TOKEN", "secret").output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(listed.contains("(hidden)") && !listed.contains("secret"), "{listed}");
}

#[test]
fn what_the_server_cannot_use_is_refused() {
    let sandbox = Sandbox::empty();
    let start = |args: &[&str]| {
        let all = ["server", "start", "--port", "0"].iter().chain(args);
        sandbox.run(all.collect::<Vec<_>>())
    };
    start(&["--tls-cert", "missing"]).failed(2, "belong together");
    start(&["--tls-cert", "missing", "--tls-key", "missing"]).failed(3, "cannot read missing");
    start(&["--connections", "0"]).failed(2, "connections_max is 0");
    start(&["--host", "203.0.113.1"]).failed(3, "cannot listen on 203.0.113.1:0");
    std::fs::write(sandbox.path("bad.pem"), "nothing").unwrap();
    start(&["--tls-cert", "bad.pem", "--tls-key", "bad.pem"]).failed(2, "there is no certificate");
    sandbox.run(["server", "start", "--port", "70000"]).failed(2, "70000");
    // The directory of another program is not touched.
    std::fs::create_dir_all(sandbox.path("old")).unwrap();
    std::fs::write(sandbox.path("old/segment_0.log"), "").unwrap();
    sandbox.run(["--dir", "old", "server", "start", "--port", "0"]).failed(3, "bitcaskpy");
}

#[test]
fn the_servers_of_older_programs_start_as_they_did() {
    let sandbox = Sandbox::empty();
    let program = sandbox.link("bitcaskpy-server");
    let args = ["--host", "127.0.0.1", "--port", "0", "--data-dir", "db", "--reload"];
    let server = Serving::start(&mut sandbox.command(&program, args));
    let ran = sandbox.command(&sandbox.link("bitcaskpy"), ["health"]);
    let mut ran = ran;
    let ran = ran.env("BITCASK_SERVER", &server.url).output().unwrap();
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), "Status: healthy\nVersion: 0.1.0\n");
    let mut ping = sandbox.command(&sandbox.link("bitcaskpy"), ["ping"]);
    assert!(ping.env("BITCASK_SERVER", &server.url).output().unwrap().status.success());
    let mut stop = sandbox.command(&sandbox.link("pbc"), ["server", "stop"]);
    let stopped = stop.env("BITCASK_SERVER", &server.url).output().unwrap();
    assert_eq!(String::from_utf8(stopped.stdout).unwrap(), "\u{2713} Server stopped\n");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0));
    assert!(!lines(&log, "http_request_start").is_empty());
    assert!(sandbox.path("db").is_dir());
    let pbc = sandbox.link("pbc");
    let args = ["--data-dir", "db", "server", "start", "--port", "0"];
    let server = Serving::start(&mut sandbox.command(&pbc, args));
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
}

/// Clients write as fast as they can, each its own keys. What was answered is in the store, however
/// the server ends.
#[test]
fn every_write_that_was_answered_survives_the_end_of_the_server() {
    for signal in ["-KILL", "-TERM"] {
        let sandbox = Sandbox::empty();
        let mut start = sandbox.bitcask(["server", "start", "--port", "0"]);
        start.env("BITCASK_SYNC", "always").env("BITCASK_LOG_LEVEL", "off");
        let server = Serving::start(&mut start);
        let answered = AtomicU64::new(0);
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let (server, answered) = (&server, &answered);
                    scope.spawn(move || {
                        let mut count = 0;
                        while put(server, client, count).is_ok() {
                            count += 1;
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        count
                    })
                })
                .collect();
            while answered.load(Ordering::SeqCst) < 400 {
                let have_ended = clients.iter().all(ScopedJoinHandle::is_finished);
                assert!(!have_ended, "the server does not answer");
                std::thread::yield_now();
            }
            server.signal(signal);
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        server.ended();
        let db = sandbox.open();
        for (client, count) in counts.into_iter().enumerate() {
            for number in 0..count {
                let value = db.get(format!("{client}-{number}")).unwrap();
                assert_eq!(value.as_deref(), Some(&b"value"[..]), "{signal} {client}-{number}");
            }
        }
    }
}

/// Stores a value over a connection of its own.
fn put(server: &Serving, client: usize, number: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap())?;
    let head = format!("PUT /v1/keys/{client}-{number} HTTP/1.1\r\nhost: h\r\n");
    let rest = "connection: close\r\ncontent-length: 5\r\n\r\nvalue";
    stream.write_all((head + rest).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_stored = answer.starts_with("HTTP/1.1 204");
    if is_stored { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}
