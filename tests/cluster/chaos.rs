//! What clients see while nodes of one machine are killed, halted and slowed down.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bitcask::cluster::GroupStatus;

use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, cluster, leader, stale_client,
};
use crate::recorder::{Dice, Fault, survive, times};
use crate::support::{Client, patiently, skip};

/// Shards of the clusters here.
pub(crate) const SHARDS: u16 = 2;

/// What happens to processes. A leader has most to lose.
pub(crate) const PROCESS_FAULTS: &[Fault] = &[
    ("a leader is halted for longer than the others need to elect another one", halt),
    ("a leader is killed and returns at once", kill),
    ("a leader is killed and returns when another one leads", kill_for_long),
    ("a leader is asked to end, and returns", end),
    ("all nodes are killed and return", kill_all),
    ("the disk of a leader is slow", slow_disk),
    ("the disk of a leader hangs", hanging_disk),
];

/// Chooses a shard.
pub(crate) fn a_shard(dice: &mut Dice) -> u64 {
    1 + dice.roll(u64::from(SHARDS))
}

/// Returns the leader of any shard.
pub(crate) fn a_leader(nodes: &[NodeProcess], dice: &mut Dice) -> usize {
    leader(nodes, a_shard(dice))
}

/// Returns what a node says of a group.
pub(crate) fn group_of(node: &NodeProcess, number: u64) -> Result<GroupStatus, String> {
    let status = node.admin().status().map_err(|error| error.to_string())?;
    let group = status.groups.into_iter().find(|group| group.number == number);
    group.ok_or_else(|| format!("node {} is not in group {number}", node.id))
}

/// Waits until a node has begun to ask for votes in a group since a term.
pub(crate) fn await_candidate(node: &NodeProcess, number: u64, since: u64) {
    patiently(|| {
        let group = group_of(node, number)?;
        if group.term > since { Ok(()) } else { Err(format!("node {} asks nobody", node.id)) }
    });
}

/// Waits until the nodes but one have a leader of each shard.
pub(crate) fn await_others(nodes: &[NodeProcess], without: &[usize]) {
    patiently(|| {
        for (at, node) in nodes.iter().enumerate() {
            if without.contains(&at) || node.pid().is_none() {
                continue;
            }
            let status = node.admin().status().map_err(|error| error.to_string())?;
            let lost: Vec<_> = without.iter().map(|at| nodes[*at].id).collect();
            let is_led = |leader: Option<u64>| leader.is_some_and(|it| !lost.contains(&it));
            if !status.groups.iter().all(|group| is_led(group.leader)) {
                return Err(format!("{:?}", status.groups));
            }
        }
        Ok(())
    });
}

pub(crate) fn halt(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let at = a_leader(nodes, dice);
    nodes[at].signal("STOP");
    await_others(nodes, &[at]);
    std::thread::sleep(dice.millis(1500));
    nodes[at].signal("CONT");
}

pub(crate) fn kill(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let node = &mut nodes[a_leader(nodes, dice)];
    node.kill();
    std::thread::sleep(dice.millis(2000));
    node.start();
}

fn kill_for_long(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let at = a_leader(nodes, dice);
    nodes[at].kill();
    await_others(nodes, &[at]);
    nodes[at].start();
}

fn end(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let node = &mut nodes[a_leader(nodes, dice)];
    node.stop();
    node.start();
}

fn kill_all(nodes: &mut [NodeProcess], dice: &mut Dice) {
    nodes.iter_mut().for_each(NodeProcess::kill);
    for node in nodes {
        std::thread::sleep(dice.millis(500));
        node.start();
    }
}

/// Has each sync of a leader take long.
fn slow_disk(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let at = a_leader(nodes, dice);
    while_slow(nodes, at, 300, || std::thread::sleep(Duration::from_secs(4)));
}

/// Has each sync of a leader take so long that the others elect another one.
fn hanging_disk(nodes: &mut [NodeProcess], dice: &mut Dice) {
    let shard = a_shard(dice);
    let at = leader(nodes, shard);
    while_slow(nodes, at, 20_000, || {
        patiently(|| {
            let leader = group_of(&nodes[(at + 1) % nodes.len()], shard)?.leader;
            let is_replaced = leader.is_some_and(|leader| leader != nodes[at].id);
            if is_replaced { Ok(()) } else { Err(format!("{leader:?} leads")) }
        });
    });
}

/// Holds up the syncs of a node, while something happens.
fn while_slow(nodes: &[NodeProcess], at: usize, millis: u64, meanwhile: impl FnOnce()) {
    match SlowDisk::of(&nodes[at], millis) {
        Ok(slow) => {
            meanwhile();
            drop(slow);
        }
        Err(reason) => skip(&reason),
    }
}

/// A debugger that holds up each sync of a node.
struct SlowDisk(Child);

impl SlowDisk {
    /// Returns why not, if the node cannot be held up here.
    fn of(node: &NodeProcess, millis: u64) -> Result<Self, String> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"]);
        strace.arg(format!("inject=fsync,fdatasync:delay_exit={millis}000"));
        strace.args(["-p", &node.pid().unwrap().to_string()]);
        let started = strace.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = started.map_err(|error| format!("strace does not run: {error}"))?;
        std::thread::sleep(Duration::from_millis(500));
        if strace.try_wait().unwrap().is_some() {
            let said = strace.wait_with_output().unwrap().stderr;
            return Err(format!("strace ends: {}", String::from_utf8_lossy(&said)));
        }
        Ok(Self(strace))
    }
}

impl Drop for SlowDisk {
    /// Lets the node go on as before.
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn three_nodes_survive_what_happens_to_processes() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(3, SHARDS, dir.path());
    survive(&mut nodes, &PROCESS_FAULTS.repeat(times()), 7);
}

#[test]
fn a_leader_that_was_halted_serves_nothing_stale() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(3, 1, dir.path());
    let all = addresses(&nodes);
    for round in 0..2 {
        let mut client = CarefulClient::new(all.clone());
        // A request that crosses the end of the last round may be unknown.
        while client.run("SET key old") != Tried::Reply("OK".into()) {}
        let leader = &nodes[leader(&nodes, 1)];
        let mut halted = Client::new(&leader.redis).unwrap();
        assert_eq!(halted.run("GET key").unwrap(), "'old'");
        leader.signal("STOP");
        let others = all.iter().filter(|address| **address != leader.redis).cloned().collect();
        let mut others = CarefulClient::new(others);
        while others.run(&format!("SET key new{round}")) != Tried::Reply("OK".into()) {}
        // The question waits for the node, which goes on where it was halted.
        let asked = std::thread::spawn(move || halted.run("GET key").unwrap());
        std::thread::sleep(Duration::from_millis(200));
        leader.signal("CONT");
        let reply = asked.join().unwrap();
        assert_ne!(reply, "'old'", "a stale read");
    }
}

#[test]
fn a_leader_whose_disk_hangs_says_for_how_long_nobody_has_answered_it() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(3, 1, dir.path());
    let at = leader(&nodes, 1);
    while_slow(&nodes, at, 60_000, || {
        // openraft waits for the disk once there is something to write, and reports nothing.
        let mut client = Client::new(&nodes[at].redis).unwrap();
        let writing = std::thread::spawn(move || client.run("SET key value"));
        patiently(|| {
            let status = nodes[at].admin().status().map_err(|error| error.to_string())?;
            let group = status.groups.iter().find(|group| group.number == 1).unwrap();
            match group.quorum_age {
                Some(age) if age > 5000 => Ok(()),
                age => Err(format!("{age:?} of {:?}", group.role)),
            }
        });
        drop(writing);
    });
}

#[test]
fn five_nodes_go_on_without_two_and_stop_without_three() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(5, 1, dir.path());
    let mut client = CarefulClient::new(addresses(&nodes));
    let ok = Tried::Reply("OK".into());
    // Two are lost, the leader among them.
    let lost = leader(&nodes, 1);
    nodes[lost].kill();
    nodes[(lost + 1) % 5].kill();
    // What was sent before the others knew of the loss may be unknown.
    while client.run("SET two lost") != ok {}
    assert_eq!(client.run("INCR counter"), Tried::Reply("(1)".into()));
    // With a third one, the majority is lost. It is the leader every second time.
    let third = leader(&nodes, 1);
    nodes[third].kill();
    for node in nodes.iter().filter(|node| node.pid().is_some()) {
        let mut client = Client::new(&node.redis).unwrap();
        for line in ["INCR counter", "GET counter"] {
            let reply = client.run(line).unwrap();
            assert!(reply.starts_with("(error) "), "{line}: {reply}");
        }
        assert_eq!(stale_client(node).run("GET two").unwrap(), "'lost'");
    }
    // One of them returns, and is enough.
    nodes[lost].start();
    while client.run("SET one back") != ok {}
    // The leader was killed first, so nobody took the increments.
    assert_eq!(client.run("GET counter"), Tried::Reply("'1'".into()));
    for at in [third, (lost + 1) % 5] {
        nodes[at].start();
    }
    await_equal(&nodes);
    for node in &nodes {
        let mut client = stale_client(node);
        for (key, value) in [("two", "'lost'"), ("one", "'back'"), ("counter", "'1'")] {
            assert_eq!(client.run(&format!("GET {key}")).unwrap(), value);
        }
    }
}
