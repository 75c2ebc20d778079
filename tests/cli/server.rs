//! The program as a server, and as one that asks a server.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use serde_json::Value;

#[cfg(feature = "cluster")]
use crate::support::Ran;
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

    /// Starts a program with a Redis port, and returns the address of that port, too.
    pub(crate) fn both(command: &mut Command) -> (Self, String) {
        let mut server = Self::start(command);
        let mut line = String::new();
        server.out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("serving clients of Redis at redis://").unwrap();
        (server, address.to_owned())
    }

    /// Returns the address of the HTTP port.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Returns how much memory the program has that is backed by no file, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Sends a request, and returns the whole answer.
    pub(crate) fn ask(&self, request: &str, body: &str) -> String {
        let address = self.address();
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

impl Drop for Serving {
    fn drop(&mut self) {
        // Of a test that has failed. A program that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// Sends commands as people type them, and returns the replies up to the end.
pub(crate) fn redis(address: &str, commands: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

#[test]
fn both_ports_serve_one_store_and_stop_together() {
    for end in ["-TERM", "stop", "SHUTDOWN"] {
        let sandbox = Sandbox::empty();
        let args = ["server", "start", "--port", "0", "--resp-port", "0", "--databases", "2"];
        let (server, address) = Serving::both(&mut sandbox.bitcask(args));
        let address = &*address;
        assert_eq!(redis(address, "SET name Ada"), "+OK\r\n+OK\r\n");
        let found = server.ask("GET /v1/keys/name", "");
        assert!(found.starts_with("HTTP/1.1 200") && found.ends_with("Ada"), "{found}");
        assert_eq!(redis(address, "SELECT 1\r\nSET other 1\r\nSELECT 2").matches("+OK").count(), 3);
        match end {
            "stop" => drop(sandbox.run(["server", "stop", "--server", &server.url]).ended(0)),
            "SHUTDOWN" => drop(redis(address, "SHUTDOWN")),
            signal => server.signal(signal),
        }
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{end}: {log:?}");
        assert_eq!(lines(&log, "closed").len(), 2, "{end}: {log:?}");
        assert_eq!(sandbox.run(["get", "name"]).ended(0), "Ada");
        let other = sandbox.store().join("databases/1");
        assert_eq!(sandbox.run(["--dir", other.to_str().unwrap(), "get", "other"]).ended(0), "1");
    }
}

#[test]
fn the_redis_port_asks_for_the_token() {
    let sandbox = Sandbox::empty();
    std::fs::write(sandbox.path("token"), "secret\n").unwrap();
    let args = ["server", "start", "--host", "0.0.0.0", "--port", "0", "--resp-port", "0"];
    sandbox.run(args).failed(2, "--insecure");
    let mut start = sandbox.bitcask(args);
    let mut child = start.args(["--token-file", "token"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let port = out.nth(1).unwrap().rsplit_once(':').unwrap().1.to_owned();
    let address = format!("127.0.0.1:{port}");
    assert!(redis(&address, "GET a").starts_with("-NOAUTH"));
    assert_eq!(redis(&address, "AUTH secret\r\nGET a"), "+OK\r\n$-1\r\n+OK\r\n");
    child.kill().unwrap();
    child.wait().unwrap();
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
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = sandbox.run(["server", "start", "--host", "127.0.0.1", "--port", &port]);
    refused.failed(3, &format!("cannot listen on 127.0.0.1:{port}"));
    std::fs::write(sandbox.path("bad.pem"), "nothing").unwrap();
    start(&["--tls-cert", "bad.pem", "--tls-key", "bad.pem"]).failed(2, "there is no certificate");
    sandbox.run(["server", "start", "--port", "70000"]).failed(2, "70000");
    // The directory of another program is not touched.
    std::fs::create_dir_all(sandbox.path("old")).unwrap();
    std::fs::write(sandbox.path("old/segment_0.log"), "").unwrap();
    sandbox.run(["--dir", "old", "server", "start", "--port", "0"]).failed(3, "bitcaskpy");
}

/// Returns a command that starts a node of a cluster.
#[cfg(feature = "cluster")]
fn node(sandbox: &Sandbox, listen: &str) -> Command {
    std::fs::write(sandbox.path("secret"), "secret").unwrap();
    let mut command = sandbox.bitcask(["server", "start", "--cluster", "--node-id", "1"]);
    command.args(["--cluster-secret-file", "secret", "--cluster-listen", listen]);
    command
}

#[cfg(feature = "cluster")]
#[test]
fn a_node_refuses_what_it_would_ignore_of_the_options_of_a_server() {
    let sandbox = Sandbox::empty();
    // Somebody listens at the address already, so the program ends in any case.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let start = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = node(&sandbox, &listen);
        command.args(args).envs(variables.iter().copied());
        Ran::new(command.output().unwrap())
    };
    start(&["--follow-anew"], &[]).failed(2, "--follow-anew has no effect with --cluster");
    for (option, value) in [
        ("tls-cert", "x"),
        ("tls-key", "x"),
        ("body-size-limit", "1MiB"),
        ("connections", "7"),
        ("request-timeout", "3s"),
        ("requests-per-second", "7"),
        ("backup-dir", "x"),
        ("follow", "http://localhost:1"),
        ("follow-token-file", "x"),
        ("follow-ca", "x"),
        ("databases", "2"),
    ] {
        let refused = start(&[&format!("--{option}"), value], &[]);
        refused.failed(2, &format!("--{option} has no effect with --cluster"));
        assert_eq!(refused.err.contains("a proxy in front"), option.starts_with("tls-"));
        let variable = format!("BITCASK_{}", option.to_uppercase().replace('-', "_"));
        if option != "follow-token-file" {
            start(&[], &[(&variable, value)]).failed(2, &format!("(from {variable})"));
        }
    }
    sandbox.run(["config", "set", "connections", "7"]).ended(0);
    start(&[], &[]).failed(2, "the setting `connections` (from file) has no effect");
    // The usual value changes nothing.
    sandbox.run(["config", "set", "connections", "4096"]).ended(0);
    start(&[], &[]).failed(3, &format!("cannot listen at {listen}"));
}

#[cfg(feature = "cluster")]
#[test]
fn a_node_that_is_open_to_the_network_says_so() {
    for (host, is_open) in [("0.0.0.0", true), ("127.0.0.1", false)] {
        let sandbox = Sandbox::empty();
        let mut command = node(&sandbox, "127.0.0.1:0");
        command.args(["--host", host, "--port", "0", "--insecure"]);
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        while !out.next().unwrap().unwrap().contains(" at http://") {}
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let (mut log, warning) = (String::new(), "open_to_the_network");
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(log.contains(warning), is_open, "{host}: {log}");
    }
}

#[test]
fn the_servers_of_older_programs_start_as_they_did() {
    let sandbox = Sandbox::empty();
    let program = sandbox.link("bitcaskpy-server");
    let args = ["--host", "127.0.0.1", "--port", "0", "--data-dir", "db", "--reload"];
    let server = Serving::start(&mut sandbox.command(&program, args));
    let mut ran = sandbox.command(&sandbox.link("bitcaskpy"), ["health"]);
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
    let mut start = sandbox.command(&pbc, args);
    let server = Serving::start(start.env("BITCASK_TOKEN", "secret"));
    assert!(server.ask("GET /keys", "").starts_with("HTTP/1.1 401"));
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
}

/// Clients write as fast as they can, each its own keys. What was answered is in the store, however
/// the server ends.
#[test]
fn every_write_that_was_answered_survives_the_end_of_the_server() {
    for signal in ["-KILL", "-TERM"] {
        let sandbox = Sandbox::empty();
        let mut start = sandbox.bitcask(["server", "start", "--port", "0", "--resp-port", "0"]);
        start.env("BITCASK_SYNC", "always").env("BITCASK_LOG_LEVEL", "off");
        let (server, redis) = Serving::both(&mut start);
        let answered = AtomicU64::new(0);
        let counts: Vec<u64> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let (server, redis, answered) = (&server, &redis, &answered);
                    scope.spawn(move || {
                        let mut count = 0;
                        while put(server, redis, client, count).is_ok() {
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

/// Stores a value over a connection of its own, to one port or the other.
fn put(server: &Serving, redis: &str, client: usize, number: u64) -> std::io::Result<()> {
    let (address, request) = if client.is_multiple_of(2) {
        let head = format!("PUT /v1/keys/{client}-{number} HTTP/1.1\r\nhost: localhost\r\n");
        (server.address(), head + "connection: close\r\ncontent-length: 5\r\n\r\nvalue")
    } else {
        (redis, format!("SET {client}-{number} value\r\nQUIT\r\n"))
    };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_stored = answer.starts_with("HTTP/1.1 204") || answer.starts_with("+OK\r\n");
    if is_stored { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    for format in ["json", "text"] {
        let sandbox = Sandbox::empty();
        let args = ["server", "start", "--port", "0", "--log-format", format];
        let mut server = Serving::start(&mut sandbox.bitcask(args));
        // The pipe holds 64 KiB, and each of these requests makes more than 1 KiB of lines.
        let key = "k".repeat(500);
        for _ in 0..200 {
            let answer = server.ask(&format!("GET /kv/{key}"), "");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        server.signal("-TERM");
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{format}");
    }
}
