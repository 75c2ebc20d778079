//! Nodes whose clocks are wrong. They agree on what has expired, and nothing comes back.

use std::path::PathBuf;
use std::process::Command;

use crate::chaos::await_others;
use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, found, leader,
    stale_client,
};

/// A clock that a test can set, of one node.
struct WrongClock(PathBuf);

impl WrongClock {
    /// Gives a clock to a node that has not been started.
    fn of(node: &mut NodeProcess, library: &str) -> Self {
        let path = node.dir.join("clock");
        let clock = Self(path.clone());
        clock.set("+0h");
        for (name, value) in [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", path.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            // How long something takes stays right.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ] {
            node.variables.push((name.to_owned(), value.to_owned()));
        }
        clock
    }

    /// Sets the clock, from now on, to so much before or after the right time.
    fn set(&self, shift: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, shift).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

/// Returns the library that changes clocks, or why there is none.
fn library() -> Result<String, String> {
    let mut faketime = Command::new("faketime");
    let said = faketime.args(["-f", "+0h", "printenv", "LD_PRELOAD"]).output();
    let said = said.map_err(|error| format!("faketime does not run: {error}"))?;
    let path = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if path.is_empty() { Err("faketime has no library".to_owned()) } else { Ok(path) }
}

/// A client that asks for keys with a time to live.
struct ExpiryClient(CarefulClient);

impl ExpiryClient {
    fn run(&mut self, line: &str) -> String {
        loop {
            if let Tried::Reply(reply) = self.0.run(line) {
                return reply;
            }
        }
    }

    fn await_expiry(&mut self, key: &str) {
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        while self.run(&format!("GET {key}")) != "nil" {
            assert!(std::time::Instant::now() < until, "{key} does not expire");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Looks for keys that must be there, and for others that must not, at a leader and everywhere.
    fn check(&mut self, nodes: &[NodeProcess], there: &[&str], gone: &[&str]) {
        for (keys, exists) in [(there, "(1)"), (gone, "(0)")] {
            for key in keys {
                assert_eq!(self.run(&format!("EXISTS {key}")), exists, "{key}");
            }
        }
        await_equal(nodes);
        let mut views = Vec::new();
        for node in nodes.iter().filter(|node| node.pid().is_some()) {
            let mut client = stale_client(node);
            let mut view = |key: &&str| client.run(&format!("PTTL {key}")).unwrap();
            let left: Vec<_> = there.iter().map(&mut view).collect();
            assert!(left.iter().all(|it| !it.starts_with("(-")), "{left:?}");
            assert!(gone.iter().map(view).all(|it| it == "(-2)"));
            views.push(left);
        }
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ: {views:?}");
    }
}

#[test]
fn nodes_with_wrong_clocks_agree_on_what_has_expired_and_nothing_comes_back() {
    let library = match library() {
        Ok(library) => library,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    let clocks: Vec<_> = nodes.iter_mut().map(|node| WrongClock::of(node, &library)).collect();
    // A wrong clock of a follower does nothing.
    clocks[1].set("-2h");
    clocks[2].set("+2h");
    found(&mut nodes, 1);
    let mut client = ExpiryClient(CarefulClient::new(addresses(&nodes)));
    assert_eq!(leader(&nodes, 1), 0);
    assert_eq!(client.run("SET short 1 PX 300"), "OK");
    assert_eq!(client.run("SET hour 1 EX 3600"), "OK");
    client.await_expiry("short");
    client.check(&nodes, &["hour"], &["short"]);
    // That of a leader runs ahead, and is set right.
    clocks[0].set("+2h");
    client.await_expiry("hour");
    clocks[0].set("+0h");
    assert_eq!(client.run("SET minute 1 EX 60"), "OK");
    client.check(&nodes, &["minute"], &["short", "hour"]);
    // It runs behind. So do those of the next leader, and of all nodes that are started again.
    clocks[0].set("-2h");
    assert_eq!(client.run("SET behind 1 EX 60"), "OK");
    client.check(&nodes, &["minute", "behind"], &["short", "hour"]);
    clocks[2].set("-2h");
    nodes[0].kill();
    await_others(&nodes, &[0]);
    assert_eq!(client.run("SET next 1 EX 60"), "OK");
    client.check(&nodes, &["minute", "behind", "next"], &["short", "hour"]);
    nodes[0].start();
    await_leaders(&nodes);
    client.check(&nodes, &["minute", "behind", "next"], &["short", "hour"]);
    // They make up for it, and then all clocks are right.
    for clock in &clocks {
        clock.set("+3h");
    }
    for key in ["minute", "behind", "next"] {
        client.await_expiry(key);
    }
    for clock in &clocks {
        clock.set("+0h");
    }
    for node in &mut nodes {
        node.kill();
        node.start();
    }
    await_leaders(&nodes);
    assert_eq!(client.run("SET last 1 EX 60"), "OK");
    client.check(&nodes, &["last"], &["short", "hour", "minute", "behind", "next"]);
}
