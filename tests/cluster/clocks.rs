//! Nodes whose clocks are wrong. They agree on what has expired, and nothing comes back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chaos::await_others;
use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, found, leader,
    stale_client,
};
use crate::recorder::{Dice, Fault, survive};
use crate::support::{patiently, skip};

/// A clock that a test can set, of one node.
struct WrongClock(PathBuf);

impl WrongClock {
    fn at(node: &NodeProcess) -> Self {
        Self(node.dir.join("clock"))
    }

    /// Gives a clock to a node that has not been started.
    fn give(node: &mut NodeProcess, library: &str) {
        let clock = Self::at(node);
        clock.set("+0h");
        let path = clock.0;
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
    fn of(nodes: &[NodeProcess]) -> Self {
        Self(CarefulClient::new(addresses(nodes)))
    }

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
        // Other clients write all the time, but not these keys.
        await_equal(nodes);
        let mut views = Vec::new();
        for node in nodes.iter().filter(|node| node.pid().is_some()) {
            let mut client = stale_client(node);
            let mut view = |key: &&str| client.run(&format!("PEXPIRETIME {key}")).unwrap();
            let left: Vec<_> = there.iter().map(&mut view).collect();
            assert!(left.iter().all(|it| !it.starts_with("(-")), "{left:?}");
            assert!(gone.iter().map(view).all(|it| it == "(-2)"));
            views.push(left);
        }
        assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "the nodes differ: {views:?}");
    }
}

/// A wrong clock of a follower does nothing, and that of a leader runs ahead, and is set right.
fn run_ahead(nodes: &mut [NodeProcess], _: &mut Dice) {
    let mut client = ExpiryClient::of(nodes);
    assert_eq!(client.run("SET short 1 PX 300"), "OK");
    assert_eq!(client.run("SET hour 1 EX 3600"), "OK");
    client.await_expiry("short");
    client.check(nodes, &["hour"], &["short"]);
    let clock = WrongClock::at(&nodes[leader(nodes, 1)]);
    clock.set("+2h");
    client.await_expiry("hour");
    clock.set("+0h");
    assert_eq!(client.run("SET minute 1 EX 60"), "OK");
    client.check(nodes, &["minute"], &["short", "hour"]);
}

/// That of a leader runs behind. So do those of the next leader, and of all nodes that are started
/// again.
fn fall_behind(nodes: &mut [NodeProcess], _: &mut Dice) {
    let mut client = ExpiryClient::of(nodes);
    let at = leader(nodes, 1);
    WrongClock::at(&nodes[at]).set("-2h");
    assert_eq!(client.run("SET behind 1 EX 60"), "OK");
    client.check(nodes, &["minute", "behind"], &["short", "hour"]);
    for node in &*nodes {
        WrongClock::at(node).set("-2h");
    }
    nodes[at].kill();
    await_others(nodes, &[at]);
    assert_eq!(client.run("SET next 1 EX 60"), "OK");
    client.check(nodes, &["minute", "behind", "next"], &["short", "hour"]);
    nodes[at].start();
    await_leaders(nodes);
    client.check(nodes, &["minute", "behind", "next"], &["short", "hour"]);
}

/// They make up for it, and then all clocks are right.
fn make_up(nodes: &mut [NodeProcess], _: &mut Dice) {
    let mut client = ExpiryClient::of(nodes);
    for node in &*nodes {
        WrongClock::at(node).set("+3h");
    }
    for key in ["minute", "behind", "next"] {
        client.await_expiry(key);
    }
    for node in &*nodes {
        WrongClock::at(node).set("+0h");
    }
    for node in &mut *nodes {
        node.kill();
        node.start();
    }
    await_leaders(nodes);
    assert_eq!(client.run("SET last 1 EX 60"), "OK");
    let gone = ["short", "hour", "minute", "behind", "next"];
    client.check(nodes, &["last"], &gone);
    // What has expired may lie there until something removes it.
    for key in gone.into_iter().chain(["last"]) {
        assert_eq!(client.run(&format!("SET {key} 1")), "OK");
    }
}

#[test]
fn nodes_with_wrong_clocks_agree_on_what_has_expired_and_nothing_comes_back() {
    let library = match library() {
        Ok(library) => library,
        Err(reason) => return skip(&reason),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    for node in &mut nodes {
        WrongClock::give(node, &library);
    }
    WrongClock::at(&nodes[1]).set("-2h");
    WrongClock::at(&nodes[2]).set("+2h");
    found(&mut nodes, 1);
    assert_eq!(leader(&nodes, 1), 0);
    let faults: [Fault; 3] = [
        ("the clock of a leader runs ahead", run_ahead),
        ("the clock of a leader runs behind, and those of all others do", fall_behind),
        ("all clocks run ahead, and are set right", make_up),
    ];
    survive(&mut nodes, &faults, 23);
}

/// The keys of [`QuietCluster`], beside one that has expired. All of them are in one slot.
const KEYS: [&str; 4] = ["{t}filler", "{t}hash", "{t}hour", "{t}stays"];

/// A cluster that does nothing by itself. Its leader has the right clock, one node is two hours
/// ahead and one is two hours behind, so each of the two is wrong by more than a key has to live.
struct QuietCluster {
    nodes: Vec<NodeProcess>,
    library: String,
    term: u64,
}

impl QuietCluster {
    fn new(library: &str, dir: &Path) -> Self {
        let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir)).collect();
        for node in &mut nodes {
            WrongClock::give(node, library);
            // Merges that do not keep anybody waiting.
            for (name, value) in [
                ("BITCASK_SEGMENT_SIZE", "64KiB"),
                ("BITCASK_KEEP_HISTORY", "1KiB"),
                ("BITCASK_MERGE_INTERVAL", "50ms"),
            ] {
                node.variables.push((name.to_owned(), value.to_owned()));
            }
        }
        WrongClock::at(&nodes[1]).set("+2h");
        WrongClock::at(&nodes[2]).set("-2h");
        found(&mut nodes, 1);
        let mut this = Self { nodes, library: library.to_owned(), term: 0 };
        this.term = this.term_now();
        this
    }

    fn term_now(&self) -> u64 {
        let groups = await_equal(&self.nodes)[0].groups.clone();
        groups.iter().find(|group| group.number == 1).unwrap().term
    }

    /// Checks that each node that runs has the keys, by every command that looks at all of them.
    /// Returns `false` if another node has led meanwhile, by whose clock they may have expired.
    fn check(&self) -> bool {
        let mut client = ExpiryClient::of(&self.nodes);
        client.await_expiry("{t}short");
        await_equal(&self.nodes);
        let running = self.nodes.iter().filter(|node| node.pid().is_some());
        let views: Vec<_> = running.map(view).collect();
        if self.term_now() != self.term {
            return false;
        }
        for (names, figures) in &views {
            assert!(names.iter().all(|found| found.iter().eq(KEYS)), "{views:?}");
            assert_eq!(figures[..4], ["(4)", "(4)", "(0)", "['f' '1']"], "{views:?}");
            assert!(figures[4..].iter().all(|time| !time.starts_with("(-")), "{views:?}");
            assert_eq!(*figures, views[0].1);
        }
        true
    }

    /// Writes until each node has merged what it had first.
    fn merge(&self) {
        let mut client = ExpiryClient::of(&self.nodes);
        let has_first = |node: &NodeProcess| {
            node.dir.join("data/group-1/state-1/0000000001.log").try_exists().unwrap()
        };
        assert!(self.nodes.iter().all(has_first));
        let filler = "x".repeat(10 << 10);
        patiently(|| {
            assert_eq!(client.run(&format!("SET {{t}}filler {filler}")), "OK");
            if self.nodes.iter().any(has_first) { Err("something is not merged") } else { Ok(()) }
        });
    }

    /// Makes a backup of a node and puts it again, both on a machine with a wrong clock. Returns
    /// how many keys there were.
    fn copy(&self, node: &NodeProcess, shift: &str) -> String {
        let run = |args: [&str; 2]| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_bitcask"));
            program.args(["cluster", "--node", &node.cluster]);
            program.arg("--secret-file").arg(node.dir.join("secret")).args(args);
            program.env("LD_PRELOAD", &self.library).env("FAKETIME", shift);
            program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
            let output = program.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let dir = node.dir.join(format!("copy{shift}"));
        run(["backup", dir.to_str().unwrap()]);
        run(["restore", dir.to_str().unwrap()])
    }
}

/// Returns the keys that a node finds, by each command that lists them, and what it says otherwise
/// of all keys and of those that expire.
fn view(node: &NodeProcess) -> ([BTreeSet<String>; 3], Vec<String>) {
    let mut client = stale_client(node);
    let mut run = |line: &str| client.run(line).unwrap();
    let slot = run("CLUSTER KEYSLOT {t}");
    let slot = slot.trim_matches(['(', ')']);
    let lists = ["KEYS *", "SCAN 0 COUNT 1000", &format!("CLUSTER GETKEYSINSLOT {slot} 100")];
    let names = lists.map(|line| {
        let reply = run(line);
        let parts = reply.split(['[', ']', ' ', '\'']).filter(|part| part.starts_with("{t}"));
        parts.map(str::to_owned).collect()
    });
    let count = format!("CLUSTER COUNTKEYSINSLOT {slot}");
    let figures = ["DBSIZE", &count, "EXISTS {t}short", "HGETALL {t}hash"];
    let times = ["PEXPIRETIME {t}hour", "PEXPIRETIME {t}hash"];
    let figures = figures.iter().chain(&times).map(|line| run(line)).collect();
    (names, figures)
}

/// Does all of it. Returns `false` if the cluster has had another leader meanwhile.
fn look_at_all_keys(library: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = QuietCluster::new(library, dir.path());
    let mut client = ExpiryClient::of(&cluster.nodes);
    for (line, reply) in [
        ("SET {t}short 1 PX 300", "OK"),
        ("SET {t}hour 1 EX 3600", "OK"),
        ("SET {t}stays 1", "OK"),
        ("SET {t}filler 1", "OK"),
        ("DEL {t}hash", "(0)"),
        ("HSET {t}hash f 1", "(1)"),
        ("EXPIRE {t}hash 3600", "(1)"),
    ] {
        assert_eq!(client.run(line), reply, "{line}");
    }
    if !cluster.check() {
        return false;
    }
    cluster.merge();
    if !cluster.check() {
        return false;
    }
    for (at, shift) in [(0, "+2h"), (1, "-2h"), (2, "+0h")] {
        let said = cluster.copy(&cluster.nodes[at], shift);
        if !cluster.check() {
            return false;
        }
        assert_eq!(said.trim(), "4 keys put", "node {}", at + 1);
    }
    for node in &mut cluster.nodes[1..] {
        node.kill();
        node.start();
    }
    cluster.check()
}

#[test]
fn no_command_no_merge_and_no_backup_asks_the_clock_of_a_node_what_has_expired() {
    let library = match library() {
        Ok(library) => library,
        Err(reason) => return skip(&reason),
    };
    // A machine that is too busy may elect a node with a wrong clock.
    let is_done = (0..5).any(|_| look_at_all_keys(&library));
    assert!(is_done, "other nodes lead all the time");
}
