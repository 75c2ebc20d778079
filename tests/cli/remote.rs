//! The program on the store of a server.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use crate::server::Serving;
use crate::support::{Ran, Sandbox, feed};

/// A server in one directory, and an empty directory in which the program asks it.
struct Remote {
    server: Serving,
    here: Sandbox,
    _there: Sandbox,
}

impl Remote {
    fn new() -> Self {
        let (there, here) = (Sandbox::empty(), Sandbox::empty());
        let mut start = there.bitcask(["server", "start", "--port", "0"]);
        let server = Serving::start(start.env("BITCASK_LOG_LEVEL", "off"));
        Self { server, here, _there: there }
    }

    fn run(&self, args: &[&str]) -> Ran {
        let all = [&["--server", self.server.url.as_str()], args].concat();
        self.here.run(all)
    }

    fn stop(self) {
        assert!(!self.here.store().exists(), "nothing was to be stored here");
        self.run(&["server", "stop"]).ended(0);
        assert_eq!(self.server.ended().0, Some(0));
    }
}

#[test]
fn data_commands_do_the_same_on_a_server_as_on_a_directory() {
    let (remote, local) = (Remote::new(), Sandbox::new());
    let script: &[&[&str]] = &[
        &["put", "a/1", "one"],
        &["put", "a/2", "two", "--ttl", "1h", "--durable"],
        &["put", "a/2", "three", "--keep-ttl"],
        &["put", "a/2", "four", "--if-absent"],
        &["put", "b", "new", "--if-absent"],
        &["put", "..", "dots", "--expires-at", "2100-01-01T00:00:00Z"],
        &["--base64", "put", "/w==", "AA=="],
        &["get", "a/1"],
        &["get", "a/2"],
        &["get", "missing"],
        &["-o", "json", "get", "b"],
        &["exists", "a/1"],
        &["exists", "missing"],
        &["list"],
        &["list", "a/", "--reverse"],
        &["list", "--count"],
        &["list", "-n", "2"],
        &["-o", "json", "scan", ""],
        &["scan", "a/", "--keys-only"],
        &["range", "a/1", "b"],
        &["range", "a/1", "b", "--inclusive", "--reverse"],
        &["range", "-", "-", "--count"],
        &["ttl", "a/1"],
        &["ttl", "missing"],
        &["expire", "a/1", "1h"],
        &["persist", "a/2"],
        &["ttl", "a/2"],
        &["expire", "missing", "1h"],
        &["incr", "n"],
        &["incr", "n", "41"],
        &["incr", "b"],
        &["delete", "a/1", "missing"],
        &["delete", "b"],
        &["list"],
    ];
    for args in script {
        let (there, here) = (remote.run(args), local.run(*args));
        assert_eq!((there.code, &there.out), (here.code, &here.out), "{args:?} {}", there.err);
        assert_eq!(there.err, here.err, "{args:?}");
    }
    let lines = b"{\"key\":\"x\",\"value\":\"1\",\"ttl\":60}\n{\"op\":\"delete\",\"key\":\"n\"}\n";
    let batch = ["--server", &remote.server.url, "batch"];
    let there = feed(remote.here.bitcask(batch), lines);
    assert_eq!(there.ended(0), local.feed(["batch"], lines).ended(0));
    assert_eq!(remote.run(&["get", "x"]).ended(0), "1");
    assert_eq!(remote.run(&["exists", "n"]).code, Some(1));

    let stats = remote.run(&["-o", "json", "stats"]);
    let stats: serde_json::Value = serde_json::from_str(stats.ended(0)).unwrap();
    assert_eq!(stats.get("keys"), Some(&4.into()), "{stats}");
    assert!(remote.run(&["merge", "--force"]).ended(0).contains("live entries"));
    remote.run(&["merge", "--dry-run"]).failed(2, "--dry-run");
    remote.stop();
}

#[test]
fn changes_of_a_server_are_watched() {
    let remote = Remote::new();
    for key in ["w/1", "w/2", "other"] {
        remote.run(&["put", key, "v"]).ended(0);
    }
    let watch = remote.run(&["watch", "w/", "--since", "start", "-n", "2"]);
    assert_eq!(watch.ended(0), "put\tw/1\tv\nput\tw/2\tv\n");
    let position = watch.err.trim().strip_prefix("resume with --since ").unwrap();
    let rest = remote.run(&["watch", "--since", position, "--no-wait"]);
    assert_eq!(rest.ended(0), "put\tother\tv\n");
    remote.stop();
}

#[test]
fn a_watch_that_fails_says_where_it_resumes() {
    let (there, here) = (Sandbox::new(), Sandbox::empty());
    there.run(["put", "large", &"x".repeat(2000)]).ended(0);
    there.run(["put", "small", "v"]).ended(0);
    let start = ["server", "start", "--port", "0", "--body-size-limit", "1000"];
    let server = Serving::start(&mut there.bitcask(start));
    let watch = ["--server", server.url.as_str(), "watch", "-n", "1", "--since"];
    let failed = here.run([&watch[..], &["start"]].concat());
    failed.failed(3, "left out the value");
    let position = failed.err.lines().find_map(|line| line.strip_prefix("resume with --since "));
    let rest = here.run([&watch[..], &[position.unwrap()]].concat());
    assert_eq!(rest.ended(0), "put\tsmall\tv\n");
    server.signal("-TERM");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_command_that_needs_the_directory_says_so() {
    let sandbox = Sandbox::new();
    for args in [&["verify"][..], &["clear"], &["backup", "b"], &["server", "start"], &["init"]] {
        let ran = sandbox.run([&["--server", "http://127.0.0.1:1"], args].concat());
        ran.failed(2, "only on the directory");
    }
}

#[test]
fn only_the_option_redirects_data_commands() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.bitcask(["put", "k", "v"]);
    let put = put.env("BITCASK_SERVER", "http://127.0.0.1:1").output().unwrap();
    assert!(put.status.success(), "{put:?}");
    assert_eq!(sandbox.run(["get", "k"]).ended(0), "v");
    sandbox.run(["get", "k", "--server", "http://127.0.0.1:1"]).failed(3, "no server answers");
    sandbox.run(["get", "k", "--server", "localhost:1"]).failed(2, "names no server");
}

#[test]
fn a_server_with_tls_and_a_token_is_asked() {
    let (there, here) = (Sandbox::empty(), Sandbox::empty());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/fixtures");
    let path = |name: &str| fixtures.join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let mut start = there.bitcask([&["server", "start", "--port", "0"][..], &tls].concat());
    start.env("BITCASK_LOG_LEVEL", "off").env("BITCASK_TOKEN", "secret");
    let server = Serving::start(&mut start);
    let ask = |args: &[&str], token: &str| {
        let mut asked = here.bitcask([&["--server", server.url.as_str()], args].concat());
        asked.env("BITCASK_CA_CERT", &certificate).env("BITCASK_TOKEN", token);
        Ran::new(asked.output().unwrap())
    };
    ask(&["put", "k", "private"], "secret").ended(0);
    assert_eq!(ask(&["get", "k"], "secret").ended(0), "private");
    assert!(ask(&["health"], "").ended(0).contains("healthy"));
    ask(&["ping"], "").ended(0);
    ask(&["get", "k"], "").failed(3, "BITCASK_TOKEN");
    here.run(["ping", "--server", &server.url]).failed(3, "no server answers");
    ask(&["server", "stop"], "secret").ended(0);
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_change_whose_answer_is_lost_may_have_been_made() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // The whole request has arrived once its body has. Then the connection ends.
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while lines.next().is_some_and(|line| !line.to_ascii_lowercase().contains("content-length"))
        {
        }
    });
    let sandbox = Sandbox::empty();
    let lost = sandbox.run(["--server", url.as_str(), "put", "k", "v", "--if-absent"]);
    lost.failed(3, "may have been made");
    assert!(!lost.err.contains("server start"), "{}", lost.err);
    server.join().unwrap();
}
