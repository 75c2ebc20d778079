//! Nodes whose disks are full.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::processes::{
    CarefulClient, NodeProcess, Tried, addresses, await_equal, await_leaders, found, leader,
    stale_client,
};
use crate::recorder::{Dice, Fault, survive};
use crate::support::{Client, patiently, skip};

/// Size of a disk at first, in MiB, and what more it gets each time that it is full.
const ROOM: usize = 24;
/// Size of a value.
const VALUE: usize = 64 << 10;
/// More values than the disk can hold at any time.
const VALUES: usize = 2 * 4 * (ROOM << 20) / VALUE;

/// A disk of a few megabytes. It is removed when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns why not, if none can be made here.
    fn new(path: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(path).unwrap();
        Self::mount(path, &format!("size={ROOM}m")).map(|()| Self(path.to_owned()))
    }

    fn resize_at(path: &Path, megabytes: usize) {
        Self::mount(path, &format!("remount,size={megabytes}m")).unwrap();
    }

    fn mount(path: &Path, options: &str) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
        let done = mount.output().map_err(|error| format!("`mount` does not run: {error}"))?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("no small disk: {}", String::from_utf8_lossy(&done.stderr).trim()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Returns whether a node has stopped taking part in a shard.
fn has_stopped(node: &NodeProcess) -> bool {
    let Ok(status) = node.admin().status() else { return true };
    status.groups.iter().any(|group| group.failure.is_some())
}

fn value(number: usize) -> String {
    format!("{number}{}", "-".repeat(VALUE))
}

/// Fills the disks of nodes until some have stopped. Returns which values were acknowledged.
fn fill(client: &mut CarefulClient, first: usize, is_over: impl Fn() -> bool) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    for number in first..first + VALUES {
        let line = format!("SET big:{number} {}", value(number));
        // While nobody leads, no value is used up.
        let is_taken = patiently(|| {
            if is_over() {
                return Ok(false);
            }
            match client.run_here(&line) {
                Some(Tried::Reply(reply)) if reply == "OK" => return Ok(true),
                Some(_) => client.reconnect(),
                None => {}
            }
            Err("no node takes a value")
        });
        if !is_taken {
            return acknowledged;
        }
        acknowledged.push(number);
    }
    panic!("the disks hold too much")
}

/// Looks for values on every node.
fn check(nodes: &[NodeProcess], acknowledged: &[usize]) {
    assert!(acknowledged.len() > 10);
    await_equal(nodes);
    for node in nodes {
        let mut client = stale_client(node);
        for number in acknowledged {
            let found = client.run(&format!("GET big:{number}")).unwrap();
            assert!(found == format!("'{}'", value(*number)), "big:{number} is lost");
        }
    }
}

#[test]
fn nodes_whose_disks_are_all_full_go_on_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    let disks: Result<Vec<_>, _> =
        nodes.iter().map(|node| SmallDisk::new(&node.dir.join("data"))).collect();
    let disks = match disks {
        Ok(disks) => disks,
        Err(reason) => return skip(&reason),
    };
    for node in &mut nodes {
        node.variables.push(("BITCASK_SEGMENT_SIZE".into(), "1MiB".into()));
    }
    found(&mut nodes, 1);
    let mut client = CarefulClient::new(addresses(&nodes));
    let majority = || nodes.iter().filter(|node| has_stopped(node)).count() >= 2;
    let acknowledged = fill(&mut client, 0, majority);
    // Nobody can take anything any more.
    for node in &nodes {
        let reply = Client::new(&node.redis).unwrap().run("SET key 1").unwrap();
        assert!(reply.starts_with("(error) "), "{reply}");
    }
    for disk in &disks {
        SmallDisk::resize_at(&disk.0, 4 * ROOM);
    }
    for node in &mut nodes {
        node.stop();
        node.start();
    }
    while client.run("SET key 2") != Tried::Reply("OK".into()) {}
    check(&nodes, &acknowledged);
}

/// Has the first node, whose disk is small, lead or follow, until its disk is full.
fn fill_one(nodes: &mut [NodeProcess], leads: bool) {
    patiently(|| {
        if leads == (leader(nodes, 1) == 0) {
            return Ok(());
        }
        let transferred = nodes[0].admin().transfer(1, if leads { 1 } else { 2 });
        transferred.map_err(|error| error.to_string())?;
        Err("the lead is not where it should be".to_owned())
    });
    let mut client = CarefulClient::new(addresses(nodes));
    let first = if leads { 0 } else { VALUES };
    let acknowledged = fill(&mut client, first, || has_stopped(&nodes[0]));
    // The others go on, and elect another leader of the shard. This one says nothing wrong.
    while client.run(&format!("SET round {first}")) != Tried::Reply("OK".into()) {}
    let mut full = Client::new(&nodes[0].redis).unwrap();
    for line in ["SET round full", "GET round"] {
        let reply = full.run(line).unwrap();
        assert!(reply.starts_with("(error) "), "{line}: {reply}");
    }
    // With room, and after a restart, it has everything.
    let disk = nodes[0].dir.join("data");
    SmallDisk::resize_at(&disk, ROOM * 4);
    nodes[0].stop();
    nodes[0].start();
    await_leaders(nodes);
    check(nodes, &acknowledged);
    for node in nodes {
        assert_eq!(stale_client(node).run("GET round").unwrap(), format!("'{first}'"));
    }
    if leads {
        // Little room, so that it is full again soon.
        SmallDisk::resize_at(&disk, ROOM * 2);
    }
}

fn fill_leader(nodes: &mut [NodeProcess], _: &mut Dice) {
    fill_one(nodes, true);
}

fn fill_follower(nodes: &mut [NodeProcess], _: &mut Dice) {
    fill_one(nodes, false);
}

#[test]
fn a_node_with_a_full_disk_stops_and_catches_up_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| NodeProcess::new(id, dir.path())).collect();
    let _disk = match SmallDisk::new(&nodes[0].dir.join("data")) {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    for node in &mut nodes {
        node.variables.push(("BITCASK_SEGMENT_SIZE".into(), "1MiB".into()));
    }
    found(&mut nodes, 1);
    let faults: [Fault; 2] = [
        ("the disk of a leader is full, until there is room", fill_leader),
        ("the disk of a follower is full, until there is room", fill_follower),
    ];
    survive(&mut nodes, &faults, 29);
}
